//! `report.html`: one page without network, light and dark, readable on a phone.

mod alarms;
mod curves;
mod histograms;
mod page;
mod samples;

use serde_json::{Map, Value};

use crate::{
    EvalError,
    comparison::{Comparison, Table},
    figure::Figure,
};

pub use alarms::Alarm;
pub use samples::{BrowserAnswer, BrowserItem, MAX_ITEMS, MAX_TOKENS, TokenView, items_of};

use page::{Page, escape};

/// What a page is made of. Parts that are empty are left out.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Heading.
    pub title: String,
    /// One or two sentences under it.
    pub summary: String,
    /// What monitors found wrong during the run.
    pub alarms: Vec<Alarm>,
    /// Systems side by side, if any.
    pub comparison: Option<Comparison>,
    /// Further tables, with a heading and a sentence under each.
    pub tables: Vec<(String, Table, String)>,
    /// Figures.
    pub figures: Vec<Figure>,
    /// What the sample browser shows; empty: the comparison's prompts, answers and metrics.
    pub samples: Vec<BrowserItem>,
    /// Rows of `metrics.jsonl`.
    pub metrics: Vec<Map<String, Value>>,
    /// The resolved configuration.
    pub config: String,
    /// Version, machine, device.
    pub environment: Vec<(String, String)>,
}

impl Report {
    /// The page.
    ///
    /// # Errors
    /// When a table or a figure cannot be made.
    pub fn html(&self) -> Result<String, EvalError> {
        let mut page = Page::default();
        if !self.alarms.is_empty() {
            let heading = format!("Alarms ({})", self.alarms.len());
            page.section(&heading, &alarms::list(&self.alarms));
        }
        if let Some(comparison) = &self.comparison {
            let mut body = page::table(&comparison.table()?);
            body.push_str(
                "<p class=dim>Means over the prompts; ± is half of the 95% bootstrap interval.</p>",
            );
            page.section("Comparison", &body);
        }
        if !self.figures.is_empty() {
            page.section("Figures", &figures(&self.figures)?);
        }
        let samples = samples::items(&self.samples, self.comparison.as_ref());
        let histograms = histograms::figures(self.comparison.as_ref(), &samples);
        if !histograms.is_empty() {
            page.section("Distributions", &figures(&histograms)?);
        }
        for (heading, content, note) in &self.tables {
            let note = escape(note);
            let body = page::table(content);
            page.section(heading, &format!("{body}<p class=dim>{note}</p>"));
        }
        if !samples.is_empty() {
            page.section("Samples", &samples::browser(&samples)?);
        }
        for stage in curves::stages(&self.metrics) {
            let name = &stage.name;
            page.section(&format!("Curves: {name}"), &stage.html(&self.alarms)?);
        }
        if !self.config.is_empty() {
            let config = escape(&self.config);
            // It scrolls, so the keyboard must reach it.
            let body = format!("<pre tabindex=0 aria-label=Configuration>{config}</pre>");
            page.section("Configuration", &body);
        }
        if !self.environment.is_empty() {
            let mut body = "<dl>".to_owned();
            for (name, value) in &self.environment {
                let (name, value) = (escape(name), escape(value));
                body.push_str(&format!("<dt>{name}</dt><dd>{value}</dd>"));
            }
            page.section("Environment", &(body + "</dl>"));
        }
        Ok(page.html(&self.title, &self.summary))
    }
}

fn figures(figures: &[Figure]) -> Result<String, EvalError> {
    let mut body = "<div class=wide>".to_owned();
    for figure in figures {
        let svg = page::labelled(&figure.svg()?, &figure.caption);
        let caption = escape(&figure.caption);
        body.push_str(&format!(
            "<figure><figcaption>{caption}</figcaption>{svg}</figure>"
        ));
    }
    Ok(body + "</div>")
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
                    answers: vec!["</script><!--".to_owned()],
                }],
                seed: 0,
            }),
            metrics: (1..5).map(row).collect(),
            ..Report::default()
        };
        let html = report.html().unwrap();
        assert_eq!(html.matches("<script>").count(), 1, "the page's own");
        assert_eq!(html.matches("</script>").count(), 2, "with its data");
        assert!(!html.contains("<svg onload") && !html.contains("<!--"));
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

    #[test]
    fn sections_are_in_the_contents_and_an_empty_report_is_a_page() {
        let table = (vec!["a".to_owned()], vec![vec!["1".to_owned()]]);
        let report = Report {
            tables: vec![
                ("Table".to_owned(), table.clone(), String::new()),
                ("Table".to_owned(), table, String::new()),
            ],
            alarms: vec![Alarm::default()],
            ..Report::default()
        };
        let html = report.html().unwrap();
        for id in ["sec-alarms-1", "sec-table", "sec-table-2"] {
            assert_eq!(html.matches(&format!("href=\"#{id}\"")).count(), 1, "{id}");
            assert_eq!(html.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
        }
        let html = Report::default().html().unwrap();
        assert!(html.ends_with("</html>\n") && !html.contains("<nav"));
    }
}
