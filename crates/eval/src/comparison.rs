//! Systems side by side on the same prompts.

use serde::{Deserialize, Serialize};

use crate::{
    EvalError,
    bootstrap::{Interval, mean_interval, paired_difference},
};

/// One system's values: a metric's values are one a prompt, in the prompts' order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct System {
    /// Its name.
    pub name: String,
    /// Metrics with one value a prompt.
    pub metrics: Vec<(String, Vec<f64>)>,
    /// Metrics of the whole set, such as diversity.
    pub totals: Vec<(String, f64)>,
    /// Its answers.
    pub answers: Vec<String>,
}

/// Systems on the same prompts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// The prompts.
    pub prompts: Vec<String>,
    /// The systems.
    pub systems: Vec<System>,
    /// Seed of the resampling.
    pub seed: u64,
}

/// A table: a heading row and rows of cells.
pub type Table = (Vec<String>, Vec<Vec<String>>);

impl Comparison {
    /// Metric against system, with 95% intervals.
    ///
    /// # Errors
    /// When a metric has no value, too few, or one that is not finite.
    pub fn table(&self) -> Result<Table, EvalError> {
        let mut heading = vec!["".to_owned()];
        heading.extend(self.systems.iter().map(|s| s.name.clone()));
        let Some(first) = self.systems.first() else {
            return Err(EvalError::Empty("systems".to_owned()));
        };
        let mut rows = Vec::new();
        for (metric, _) in &first.metrics {
            let mut row = vec![metric.clone()];
            for system in &self.systems {
                let cell = match system.metrics.iter().find(|(name, _)| name == metric) {
                    Some((_, values)) => cell(self.interval(metric, values)?),
                    None => "-".to_owned(),
                };
                row.push(cell);
            }
            rows.push(row);
        }
        for (metric, _) in &first.totals {
            let mut row = vec![metric.clone()];
            for system in &self.systems {
                let value = system.totals.iter().find(|(name, _)| name == metric);
                row.push(value.map_or("-".to_owned(), |(_, v)| format!("{v:.3}")));
            }
            rows.push(row);
        }
        Ok((heading, rows))
    }

    fn interval(&self, metric: &str, values: &[f64]) -> Result<Interval, EvalError> {
        if values.len() != self.prompts.len() {
            return Err(EvalError::Length {
                what: metric.to_owned(),
                found: values.len(),
                expected: self.prompts.len(),
            });
        }
        mean_interval(metric, values, self.seed)
    }

    /// The paired difference of a metric between two systems, by name.
    ///
    /// # Errors
    /// When a system or the metric is not there, or the values do not pair up.
    pub fn difference(&self, metric: &str, a: &str, b: &str) -> Result<Interval, EvalError> {
        let values = |name: &str| {
            self.systems
                .iter()
                .find(|s| s.name == name)
                .and_then(|s| s.metrics.iter().find(|(m, _)| m == metric))
                .map(|(_, values)| values)
                .ok_or_else(|| EvalError::Empty(format!("{metric} of {name}")))
        };
        paired_difference(metric, values(a)?, values(b)?, self.seed)
    }
}

/// `0.713 ±0.012` where the interval is about even, else its ends.
fn cell(interval: Interval) -> String {
    let Interval { value, low, high } = interval;
    let half = (high - low) / 2.0;
    if value.abs() >= 100.0 {
        format!("{value:.1} ±{half:.1}")
    } else {
        format!("{value:.3} ±{half:.3}")
    }
}

/// A table as aligned plain text.
pub fn plain((heading, rows): &Table) -> String {
    let all: Vec<&Vec<String>> = std::iter::once(heading).chain(rows).collect();
    let width = |column: usize| {
        all.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let mut text = String::new();
    for (number, row) in all.iter().enumerate() {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let gap = " ".repeat(widths[column] - cell.chars().count());
            if column == 0 {
                line.push_str(&format!("{cell}{gap}"));
            } else {
                line.push_str(&format!("  {gap}{cell}"));
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
        if number == 0 {
            let rule = widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
            text.push_str(&"─".repeat(rule));
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_and_refuse_what_does_not_pair_up() {
        let system = |name: &str, values: &[f64]| System {
            name: name.to_owned(),
            metrics: vec![("gold".to_owned(), values.to_vec())],
            totals: vec![("distinct-2".to_owned(), 0.5)],
            answers: Vec::new(),
        };
        let mut comparison = Comparison {
            prompts: vec!["p".to_owned(), "q".to_owned()],
            systems: vec![system("sft", &[1.0, 1.0]), system("ppo", &[2.0, 2.0])],
            seed: 0,
        };
        let text = plain(&comparison.table().unwrap());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2], "gold        1.000 ±0.000  2.000 ±0.000");
        assert_eq!(lines[3], "distinct-2         0.500         0.500");
        let difference = comparison.difference("gold", "ppo", "sft").unwrap();
        assert_eq!((difference.value, difference.low), (1.0, 1.0));
        comparison.prompts.pop();
        assert!(comparison.table().is_err());
    }
}
