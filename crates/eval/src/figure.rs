//! Figures of points and lines, as SVG in the colours of the page that they stand in.

use plotters::prelude::*;

use crate::EvalError;

/// Points, joined by a line or not.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    /// In the legend; empty: not there.
    pub label: String,
    /// `(x, y)`, in the order of the line.
    pub points: Vec<(f64, f64)>,
    /// A word beside each point; fewer than points: the rest have none.
    pub names: Vec<String>,
    /// Join the points.
    pub line: bool,
    /// Draw no points, only the line.
    pub bare: bool,
    /// Draw the line thin and faint, as a bound of another.
    pub thin: bool,
    /// Fill what is between the line and zero, as in a histogram.
    pub fill: bool,
    /// Which of the page's six colours.
    pub color: usize,
}

/// A figure.
#[derive(Clone, Debug, Default)]
pub struct Figure {
    /// What it shows.
    pub caption: String,
    /// Under it.
    pub x: String,
    /// Beside it.
    pub y: String,
    /// What is drawn.
    pub marks: Vec<Marks>,
}

/// Colours that the page's style sheet gives a light and a dark form.
pub(crate) const COLORS: [(RGBColor, &str, &str); 6] = [
    (RGBColor(47, 111, 178), "#2F6FB2", "var(--a)"),
    (RGBColor(194, 87, 26), "#C2571A", "var(--b)"),
    (RGBColor(62, 128, 78), "#3E804E", "var(--c)"),
    (RGBColor(138, 79, 160), "#8A4FA0", "var(--d)"),
    (RGBColor(168, 126, 20), "#A87E14", "var(--e)"),
    (RGBColor(122, 126, 132), "#7A7E84", "var(--f)"),
];

/// Room for words beside points.
const LARGE: (u32, u32) = (640, 400);
/// Without them, so that the labels can be read on a phone.
const SMALL: (u32, u32) = (420, 280);

impl Figure {
    /// The figure.
    ///
    /// # Errors
    /// When there is no point, or one that is not finite.
    pub fn svg(&self) -> Result<String, EvalError> {
        let wrong = |reason: String| EvalError::Figure {
            name: self.caption.clone(),
            reason,
        };
        let all = || self.marks.iter().flat_map(|m| m.points.iter());
        if all().next().is_none() {
            return Err(wrong("there is nothing to draw".to_owned()));
        }
        if all().any(|(x, y)| !x.is_finite() || !y.is_finite()) {
            return Err(wrong("a point is not finite".to_owned()));
        }
        let span = |of: fn(&(f64, f64)) -> f64| {
            let low = all().map(of).fold(f64::INFINITY, f64::min);
            let high = all().map(of).fold(f64::NEG_INFINITY, f64::max);
            let pad = if high > low { (high - low) * 0.06 } else { 1.0 };
            (low - pad)..(high + pad)
        };
        let (xs, mut ys) = (span(|p| p.0), span(|p| p.1));
        let filled = self.marks.iter().any(|m| m.fill);
        if filled && all().all(|p| p.1 >= 0.0) {
            // And room for the legend above the bars.
            (ys.start, ys.end) = (0.0, ys.end * 1.15);
        }
        let digits = |span: &std::ops::Range<f64>| {
            let step = (span.end - span.start) / 5.0;
            (-step.log10().floor()).clamp(0.0, 6.0) as usize
        };
        let (dx, dy) = (digits(&xs), digits(&ys));
        let named = self.marks.iter().any(|m| !m.names.is_empty());
        let size = if named { LARGE } else { SMALL };
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            let mut chart = ChartBuilder::on(&root)
                .margin(8)
                .margin_right(40)
                .x_label_area_size(40)
                .y_label_area_size(56)
                .build_cartesian_2d(xs, ys)
                .map_err(|e| wrong(e.to_string()))?;
            let grey = RGBColor(140, 140, 140);
            chart
                .configure_mesh()
                .x_labels(if named { 8 } else { 6 })
                .y_labels(7)
                .x_desc(self.x.as_str())
                .y_desc(self.y.as_str())
                .axis_style(grey.mix(0.6))
                .bold_line_style(grey.mix(0.2))
                .light_line_style(TRANSPARENT)
                .label_style(("sans-serif", 12))
                .axis_desc_style(("sans-serif", 13))
                .x_label_formatter(&|x| format!("{x:.dx$}"))
                .y_label_formatter(&|y| format!("{y:.dy$}"))
                .draw()
                .map_err(|e| wrong(e.to_string()))?;
            for marks in &self.marks {
                let color = COLORS[marks.color % COLORS.len()].0;
                let points = || marks.points.iter().copied();
                if marks.fill {
                    let area = AreaSeries::new(points(), 0.0, color.mix(0.2));
                    chart.draw_series(area).map_err(|e| wrong(e.to_string()))?;
                }
                if marks.line {
                    let style = if marks.thin {
                        color.mix(0.5).stroke_width(1)
                    } else {
                        color.stroke_width(2)
                    };
                    let line = LineSeries::new(points(), style);
                    chart.draw_series(line).map_err(|e| wrong(e.to_string()))?;
                }
                if !marks.bare {
                    let circles = points().map(|p| Circle::new(p, 4, color.filled()));
                    chart
                        .draw_series(circles)
                        .map_err(|e| wrong(e.to_string()))?;
                }
                if !marks.label.is_empty() {
                    let none = LineSeries::new(std::iter::empty(), color);
                    let series = chart.draw_series(none).map_err(|e| wrong(e.to_string()))?;
                    series.label(&marks.label).legend(move |(x, y)| {
                        Rectangle::new([(x, y - 3), (x + 12, y + 3)], color.filled())
                    });
                }
                let style = ("sans-serif", 11).into_font().color(&grey);
                let named = points().zip(&marks.names).map(|(point, name)| {
                    EmptyElement::at(point) + Text::new(name.clone(), (6, -6), style.clone())
                });
                chart.draw_series(named).map_err(|e| wrong(e.to_string()))?;
            }
            if self.marks.iter().any(|m| !m.label.is_empty()) {
                let corner = if filled {
                    SeriesLabelPosition::UpperRight
                } else {
                    SeriesLabelPosition::LowerRight
                };
                chart
                    .configure_series_labels()
                    .position(corner)
                    .label_font(("sans-serif", 12))
                    .margin(6)
                    .draw()
                    .map_err(|e| wrong(e.to_string()))?;
            }
            root.present().map_err(|e| wrong(e.to_string()))?;
        }
        // The page scales the figure, and its style sheet gives the colours.
        let sized = format!("<svg width=\"{}\" height=\"{}\"", size.0, size.1);
        let mut svg = svg.replacen(&sized, "<svg", 1);
        for (_, hex, variable) in COLORS {
            svg = svg.replace(hex, variable);
        }
        Ok(svg)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_has_its_points_names_and_the_pages_colours() {
        let figure = Figure {
            caption: "frontier".to_owned(),
            x: "KL".to_owned(),
            y: "gold".to_owned(),
            marks: vec![Marks {
                label: "dpo".to_owned(),
                points: vec![(0.0, 0.5), (2.0, 0.7), (4.0, 0.65)],
                names: vec!["1".to_owned(), "<2>".to_owned()],
                line: true,
                ..Marks::default()
            }],
        };
        let svg = figure.svg().unwrap();
        // Three points; names that could be markup are text.
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains("&lt;2&gt;") && !svg.contains("<2>"));
        assert!(svg.contains("var(--a)") && svg.contains("viewBox"));
        let empty = Figure::default();
        assert!(empty.svg().is_err());
        let mut bad = figure;
        bad.marks[0].points[1].1 = f64::NAN;
        assert!(bad.svg().is_err());
    }
}
