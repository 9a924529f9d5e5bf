//! One figure of curves.

use plotters::prelude::*;

use super::Points;
use crate::figure::COLORS;

const SIZE: (u32, u32) = (360, 200);
const ALARM: RGBColor = RGBColor(195, 32, 47);

/// Training as a line, held-out values as dots, alarms as dashed lines under a triangle.
pub(super) fn draw(
    train: &Points,
    val: &Points,
    alarms: &[f64],
    steps: std::ops::Range<f64>,
) -> Result<String, String> {
    let all = || train.iter().chain(val).map(|p| p.1);
    let low = all().fold(f64::INFINITY, f64::min);
    let high = all().fold(f64::NEG_INFINITY, f64::max);
    let pad = if high > low {
        (high - low) * 0.06
    } else {
        high.abs().max(1.0) * 0.1
    };
    let (bottom, top) = (low - pad, high + pad);
    let label = |y: f64| short(y, top - bottom);
    let longest = label(low).len().max(label(high).len()) as u32;
    let wrong = |e: &dyn std::fmt::Display| e.to_string();
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(6)
            .margin_right(16)
            .x_label_area_size(22)
            .y_label_area_size((10 + 6 * longest).max(46))
            .build_cartesian_2d(steps, bottom..top)
            .map_err(|e| wrong(&e))?;
        let grey = RGBColor(140, 140, 140);
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(5)
            .y_labels(5)
            .axis_style(grey.mix(0.6))
            .bold_line_style(grey.mix(0.25))
            .light_line_style(TRANSPARENT)
            .label_style(("sans-serif", 11))
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| label(*y))
            .draw()
            .map_err(|e| wrong(&e))?;
        for step in alarms {
            let line = [(*step, bottom), (*step, top)];
            let line = DashedLineSeries::new(line, 4, 3, ALARM.stroke_width(1));
            chart.draw_series(line).map_err(|e| wrong(&e))?;
        }
        let heads = alarms
            .iter()
            .map(|step| TriangleMarker::new((*step, top), 5, ALARM.filled()));
        chart.draw_series(heads).map_err(|e| wrong(&e))?;
        let line = LineSeries::new(train.iter().copied(), COLORS[0].0.stroke_width(2));
        chart.draw_series(line).map_err(|e| wrong(&e))?;
        if train.is_empty() {
            let line = LineSeries::new(val.iter().copied(), COLORS[1].0.stroke_width(1));
            chart.draw_series(line).map_err(|e| wrong(&e))?;
        }
        let dots = val.iter().map(|p| Circle::new(*p, 3, COLORS[1].0.filled()));
        chart.draw_series(dots).map_err(|e| wrong(&e))?;
        root.present().map_err(|e| wrong(&e))?;
    }
    // The page scales the figure; its style sheet gives the colours.
    let size = format!("<svg width=\"{}\" height=\"{}\"", SIZE.0, SIZE.1);
    let mut svg = svg.replacen(&size, "<svg", 1);
    for (_, hex, variable) in &COLORS[..2] {
        svg = svg.replace(hex, variable);
    }
    Ok(svg.replace("#C3202F", "var(--alarm)"))
}

/// A label with as many digits as tell the axis's five labels apart.
pub(super) fn short(value: f64, span: f64) -> String {
    if value.abs() < span * 1e-6 {
        return "0".to_owned();
    }
    let digits = -(span / 5.0).log10().floor();
    // Small numbers as powers of ten; numbers that differ late in all their digits.
    if value.abs() >= 1e5 || (digits > 5.0 && value.abs() < 1e-2) {
        return format!("{value:.1e}");
    }
    let digits = digits.clamp(0.0, 9.0) as usize;
    format!("{value:.digits$}")
}
