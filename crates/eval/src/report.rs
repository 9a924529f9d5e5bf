//! `report.html`: one page without network, light and dark, readable on a phone.

use std::collections::BTreeMap;

use plotters::prelude::*;
use serde_json::{Map, Value};

use crate::{
    EvalError,
    comparison::{Comparison, Table},
    figure::Figure,
};

/// What a page is made of.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Heading.
    pub title: String,
    /// One or two sentences under it.
    pub summary: String,
    /// Systems side by side, if any.
    pub comparison: Option<Comparison>,
    /// Further tables, with a heading and a sentence under each.
    pub tables: Vec<(String, Table, String)>,
    /// Figures.
    pub figures: Vec<Figure>,
    /// Rows of `metrics.jsonl`.
    pub metrics: Vec<Map<String, Value>>,
    /// The resolved configuration.
    pub config: String,
    /// Version, machine, device.
    pub environment: Vec<(String, String)>,
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

const STYLE: &str = "
:root{color-scheme:light dark;--bg:#fbfbfa;--fg:#1c1d1f;--dim:#6a6d73;--line:#e2e2df;--card:#fff;--a:#2f6fb2;--b:#c2571a;--c:#3e804e;--d:#8a4fa0;--e:#a87e14;--f:#7a7e84}
@media(prefers-color-scheme:dark){:root{--bg:#141517;--fg:#e7e7e4;--dim:#9a9da3;--line:#2c2e32;--card:#1b1d20;--a:#7fb2e8;--b:#f0a06a;--c:#7cc48d;--d:#c79ad8;--e:#dcb95a;--f:#a4a8ae}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:68rem;padding:2rem 1.2rem 4rem;background:var(--bg);color:var(--fg);font:16px/1.55 system-ui,sans-serif}
h1{font-size:1.7rem;margin:0 0 .3rem}h2{font-size:1.15rem;margin:2.4rem 0 .8rem}
p{max-width:46rem}.dim{color:var(--dim)}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;width:100%}
th,td{padding:.4rem .8rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left}th{color:var(--dim);font-weight:600}
.wide{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(30rem,100%),1fr));gap:1rem}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(19rem,1fr));gap:1rem}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.7rem}
figcaption{font-size:.86rem;font-weight:600;margin:0 0 .3rem}
svg{width:100%;height:auto;display:block}svg text{fill:var(--dim)!important;font-family:system-ui,sans-serif!important}
details{border-bottom:1px solid var(--line);padding:.5rem 0}summary{cursor:pointer}
dl{margin:.5rem 0;display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem}dt{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere}
pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.8rem;overflow-x:auto;font-size:.85rem}
";

impl Report {
    /// The page.
    ///
    /// # Errors
    /// When a table or a figure cannot be made.
    pub fn html(&self) -> Result<String, EvalError> {
        let mut body = format!(
            "<h1>{}</h1><p class=dim>{}</p>",
            escape(&self.title),
            escape(&self.summary)
        );
        if let Some(comparison) = &self.comparison {
            let (heading, rows) = comparison.table()?;
            body.push_str("<h2>Comparison</h2>");
            table(&mut body, &(heading, rows));
            body.push_str(
                "<p class=dim>Means over the prompts; ± is half of the 95% bootstrap interval.</p>",
            );
        }
        if !self.figures.is_empty() {
            body.push_str("<h2>Figures</h2><div class=wide>");
            for figure in &self.figures {
                let (caption, svg) = (escape(&figure.caption), figure.svg()?);
                body.push_str(&format!(
                    "<figure><figcaption>{caption}</figcaption>{svg}</figure>"
                ));
            }
            body.push_str("</div>");
        }
        for (heading, content, note) in &self.tables {
            body.push_str(&format!("<h2>{}</h2>", escape(heading)));
            table(&mut body, content);
            body.push_str(&format!("<p class=dim>{}</p>", escape(note)));
        }
        for (stage, series) in self.series() {
            body.push_str(&format!("<h2>{}</h2><div class=figures>", escape(&stage)));
            for (name, points) in series {
                let figure = curve(&name, &points)?;
                let name = escape(&name);
                body.push_str(&format!(
                    "<figure><figcaption>{name}</figcaption>{figure}</figure>"
                ));
            }
            body.push_str("</div>");
        }
        if let Some(comparison) = &self.comparison {
            body.push_str("<h2>Samples</h2>");
            for (i, prompt) in comparison.prompts.iter().enumerate().take(40) {
                let prompt = escape(prompt);
                body.push_str(&format!("<details><summary>{prompt}</summary><dl>"));
                for system in &comparison.systems {
                    let answer = system.answers.get(i).map_or("", String::as_str);
                    let score = system.metrics.first().and_then(|(_, v)| v.get(i));
                    let score = score.map_or(String::new(), |s| format!(" ({s:.2})"));
                    let (name, answer) = (escape(&system.name), escape(answer));
                    body.push_str(&format!("<dt>{name}{score}</dt><dd>{answer}</dd>"));
                }
                body.push_str("</dl></details>");
            }
        }
        if !self.config.is_empty() {
            let config = escape(&self.config);
            body.push_str(&format!("<h2>Configuration</h2><pre>{config}</pre>"));
        }
        body.push_str("<h2>Environment</h2><dl>");
        for (name, value) in &self.environment {
            body.push_str(&format!(
                "<dt>{}</dt><dd>{}</dd>",
                escape(name),
                escape(value)
            ));
        }
        body.push_str("</dl>");
        Ok(format!(
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport \
             content=\"width=device-width,initial-scale=1\"><title>{}</title><style>{STYLE}</style>\
             <body>{body}</body></html>\n",
            escape(&self.title)
        ))
    }

    /// Curves by stage, in the order in which stages and metrics appear.
    fn series(&self) -> Vec<(String, Vec<Series>)> {
        let mut stages: Vec<(String, Vec<Series>)> = Vec::new();
        let mut places: BTreeMap<(String, String), (usize, usize)> = BTreeMap::new();
        for row in &self.metrics {
            let stage = row.get("stage").and_then(Value::as_str).unwrap_or("run");
            let Some(step) = row.get("step").and_then(Value::as_f64) else {
                continue;
            };
            for (name, value) in row {
                let Some(value) = value.as_f64().filter(|_| name != "step") else {
                    continue;
                };
                let key = (stage.to_owned(), name.clone());
                let place = *places.entry(key).or_insert_with(|| {
                    let at = match stages.iter().position(|(s, _)| s == stage) {
                        Some(at) => at,
                        None => {
                            stages.push((stage.to_owned(), Vec::new()));
                            stages.len() - 1
                        }
                    };
                    stages[at].1.push((name.clone(), Vec::new()));
                    (at, stages[at].1.len() - 1)
                });
                stages[place.0].1[place.1].1.push((step, value));
            }
        }
        for (_, series) in &mut stages {
            series.retain(|(_, points)| points.len() > 1);
        }
        stages
    }
}

fn table(body: &mut String, (heading, rows): &Table) {
    body.push_str("<div class=scroll><table><tr>");
    for cell in heading {
        body.push_str(&format!("<th>{}</th>", escape(cell)));
    }
    body.push_str("</tr>");
    for row in rows {
        body.push_str("<tr>");
        for cell in row {
            body.push_str(&format!("<td>{}</td>", escape(cell)));
        }
        body.push_str("</tr>");
    }
    body.push_str("</table></div>");
}

type Series = (String, Vec<(f64, f64)>);

/// At most this many points are drawn; longer series are averaged in runs.
const POINTS: usize = 300;

fn curve(name: &str, points: &[(f64, f64)]) -> Result<String, EvalError> {
    let run = points.len().div_ceil(POINTS);
    let points: Vec<(f64, f64)> = points
        .chunks(run)
        .map(|c| {
            let mean = c.iter().map(|p| p.1).sum::<f64>() / c.len() as f64;
            (c[c.len() - 1].0, mean)
        })
        .collect();
    let low = points.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
    let high = points.iter().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
    let pad = if high > low {
        (high - low) * 0.06
    } else {
        high.abs().max(1.0) * 0.1
    };
    let (from, to) = (points[0].0, points[points.len() - 1].0);
    let mut svg = String::new();
    let wrong = |e: String| EvalError::Figure {
        name: name.to_owned(),
        reason: e,
    };
    {
        let root = SVGBackend::with_string(&mut svg, (360, 200)).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(6)
            .margin_right(16)
            .x_label_area_size(22)
            .y_label_area_size(46)
            .build_cartesian_2d(from..to.max(from + 1.0), (low - pad)..(high + pad))
            .map_err(|e| wrong(e.to_string()))?;
        let line = RGBColor(140, 140, 140);
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(5)
            .y_labels(5)
            .axis_style(line.mix(0.6))
            .bold_line_style(line.mix(0.25))
            .light_line_style(TRANSPARENT)
            .label_style(("sans-serif", 11))
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| short(*y, high - low))
            .draw()
            .map_err(|e| wrong(e.to_string()))?;
        let color = RGBColor(47, 111, 178);
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))
            .map_err(|e| wrong(e.to_string()))?;
        root.present().map_err(|e| wrong(e.to_string()))?;
    }
    // The page scales the figure; colours of text come from its style sheet.
    let svg = svg.replacen("<svg width=\"360\" height=\"200\"", "<svg", 1);
    Ok(svg.replace("#2F6FB2", "var(--a)"))
}

/// A label with as many digits as tell the axis's five labels apart.
fn short(value: f64, span: f64) -> String {
    if value != 0.0 && (span < 1e-4 || value.abs() >= 1e5) {
        return format!("{value:.1e}");
    }
    let digits = -(span.max(1e-9) / 5.0).log10().floor();
    let digits = digits.clamp(0.0, 6.0) as usize;
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::System;

    #[test]
    fn hostile_text_is_escaped_and_curves_are_drawn() {
        let row = |step: u64| {
            let json = serde_json::json!({"stage": "sft", "step": step, "loss": 1.0 / step as f64});
            json.as_object().unwrap().clone()
        };
        let report = Report {
            title: "<script>alert(1)</script>".to_owned(),
            comparison: Some(Comparison {
                prompts: vec!["<svg onload=x>".to_owned()],
                systems: vec![System {
                    name: "sft".to_owned(),
                    metrics: vec![("gold".to_owned(), vec![1.0])],
                    totals: Vec::new(),
                    answers: vec!["</script>".to_owned()],
                }],
                seed: 0,
            }),
            metrics: (1..5).map(row).collect(),
            ..Report::default()
        };
        let html = report.html().unwrap();
        assert!(!html.contains("<script>") && !html.contains("<svg onload"));
        assert!(html.contains("&lt;/script&gt;"));
        assert_eq!(
            html.matches("<figure>").count(),
            1,
            "one metric with a curve"
        );
        assert!(
            html.contains("var(--a)"),
            "the series has the page's colour"
        );
        assert!(!html.contains("http://www.example") && !html.contains("src="));
    }
}
