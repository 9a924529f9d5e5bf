//! Scores, lengths and KL by system, over the same bins.

use super::samples::{self, BrowserItem};
use crate::{
    comparison::Comparison,
    figure::{Figure, Marks},
};

/// At most this many bins.
const BINS: usize = 24;

/// A metric, and each system's values.
type Distribution = (String, Vec<(String, Vec<f64>)>);

/// A histogram for each metric with more than two values; parts of a score (indented in the
/// comparison's table) have none.
pub(super) fn figures(comparison: Option<&Comparison>, items: &[BrowserItem]) -> Vec<Figure> {
    let mut metrics: Vec<Distribution> = Vec::new();
    let mut add = |metric: &str, system: &str, value: f64| {
        if !value.is_finite() {
            return;
        }
        let systems = entry(&mut metrics, metric);
        entry(systems, system).push(value);
    };
    match comparison {
        Some(comparison) => {
            for system in &comparison.systems {
                for (name, values) in system.metrics.iter().filter(|m| !m.0.starts_with(' ')) {
                    values.iter().for_each(|v| add(name, &system.name, *v));
                }
            }
        }
        None => {
            for answer in items.iter().flat_map(|item| &item.answers) {
                for (name, value) in samples::scores(answer) {
                    add(&name, &answer.system, value);
                }
                let lengths = answer
                    .scores
                    .iter()
                    .any(|(name, _)| name.contains("length"));
                if !answer.tokens.is_empty() && !lengths {
                    add(
                        "length (tokens)",
                        &answer.system,
                        answer.tokens.len() as f64,
                    );
                }
            }
        }
    }
    metrics
        .iter()
        .filter_map(|(metric, systems)| histogram(metric, systems))
        .collect()
}

fn entry<'a, T: Default>(list: &'a mut Vec<(String, T)>, name: &str) -> &'a mut T {
    let at = list.iter().position(|(n, _)| n == name).unwrap_or_else(|| {
        list.push((name.to_owned(), T::default()));
        list.len() - 1
    });
    &mut list[at].1
}

fn histogram(metric: &str, systems: &[(String, Vec<f64>)]) -> Option<Figure> {
    let all = || {
        systems
            .iter()
            .flat_map(|(_, values)| values.iter().copied())
    };
    let first = all().next()?;
    let second = all().find(|v| *v != first)?;
    all().find(|v| *v != first && *v != second)?;
    let (low, high) = (all().fold(first, f64::min), all().fold(first, f64::max));
    // Whole numbers have bins of whole numbers, so that no bin has one more than its neighbour.
    let whole = all().all(|v| v.fract() == 0.0);
    let (low, width) = if whole {
        (low - 0.5, ((high - low + 1.0) / BINS as f64).ceil())
    } else {
        (low, (high - low) / BINS as f64)
    };
    if !width.is_finite() || width <= 0.0 {
        return None;
    }
    let bins = (((high - low) / width).ceil() as usize).clamp(1, BINS);
    let marks = systems.iter().enumerate().map(|(color, (name, values))| {
        let mut counts = vec![0_usize; bins];
        for value in values {
            counts[(((value - low) / width) as usize).min(bins - 1)] += 1;
        }
        let mut points = vec![(low, 0.0)];
        for (bin, count) in counts.iter().enumerate() {
            let share = 100.0 * *count as f64 / values.len() as f64;
            let left = low + width * bin as f64;
            points.extend([(left, share), (left + width, share)]);
        }
        points.push((low + width * bins as f64, 0.0));
        Marks {
            label: format!("{name} (n = {})", values.len()),
            points,
            line: true,
            bare: true,
            fill: true,
            color,
            ..Marks::default()
        }
    });
    Some(Figure {
        caption: format!("Distribution of {metric}"),
        x: metric.to_owned(),
        y: "% of answers".to_owned(),
        marks: marks.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::System;

    #[test]
    fn systems_share_bins_and_each_adds_up_to_all_of_its_answers() {
        let system = |name: &str, values: &[f64]| System {
            name: name.to_owned(),
            metrics: vec![
                ("length".to_owned(), values.to_vec()),
                ("  part".to_owned(), values.to_vec()),
                ("ended".to_owned(), values.iter().map(|v| v % 2.0).collect()),
            ],
            ..System::default()
        };
        let comparison = Comparison {
            systems: vec![
                system("sft", &[1.0, 2.0, 3.0, 3.0]),
                system("ppo", &[99.0, f64::NAN]),
            ],
            ..Comparison::default()
        };
        let figures = figures(Some(&comparison), &[]);
        assert_eq!(figures.len(), 1, "neither the part nor what is 0 or 1");
        let marks = &figures[0].marks;
        let edges = |m: &Marks| m.points.iter().map(|p| p.0).collect::<Vec<_>>();
        assert_eq!(edges(&marks[0]), edges(&marks[1]));
        assert_eq!(marks[0].points[0].0, 0.5);
        for mark in marks {
            let twice: f64 = mark.points.iter().map(|p| p.1).sum();
            assert!((twice - 200.0).abs() < 1e-9, "{twice}");
        }
        assert_eq!(marks[1].label, "ppo (n = 1)");
        assert!(figures[0].svg().is_ok());
    }
}
