//! Metrics against steps: by stage, grouped by prefix, held-out values as dots, alarms as marks.

mod draw;

use std::{collections::BTreeMap, fmt::Write};

use serde_json::{Map, Value};

use self::draw::draw;
use super::{
    alarms::Alarm,
    page::{escape, labelled, number},
};
use crate::EvalError;

/// At most this many points are drawn; longer series are averaged in runs.
const POINTS: usize = 300;

/// Groups that come first, in this order, and stand by themselves however small they are.
/// The first takes names without prefix, and prefixes that only one metric has.
const GROUPS: [&str; 6] = ["", "objective", "rewards", "policy", "val", "monitor"];

type Points = Vec<(f64, f64)>;

/// A metric of training, with the held-out values of the same metric if there are some.
#[derive(Default)]
struct Curve {
    name: String,
    train: Points,
    val: Points,
}

/// The curves of one stage.
pub(super) struct Stage {
    /// Its name.
    pub(super) name: String,
    curves: Vec<Curve>,
}

/// The stages, and in each the metrics, in the order in which they appear.
pub(super) fn stages(rows: &[Map<String, Value>]) -> Vec<Stage> {
    let mut stages: Vec<(String, Vec<(String, Points)>)> = Vec::new();
    let mut places: BTreeMap<(String, String), (usize, usize)> = BTreeMap::new();
    for row in rows {
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
    let mut stages: Vec<Stage> = stages
        .into_iter()
        .map(|(name, series)| Stage {
            name,
            curves: paired(series),
        })
        .collect();
    stages.retain(|stage| !stage.curves.is_empty());
    stages
}

/// Held-out series beside the training series that they are of; then what has one point is dropped.
fn paired(series: Vec<(String, Points)>) -> Vec<Curve> {
    let (val, train): (Vec<_>, Vec<_>) = series
        .into_iter()
        .partition(|(name, _)| name.starts_with("val/"));
    let mut curves: Vec<Curve> = train
        .into_iter()
        .filter(|(_, points)| points.len() > 1)
        .map(|(name, train)| Curve {
            name,
            train,
            val: Points::new(),
        })
        .collect();
    for (name, points) in val {
        let bare = name.trim_start_matches("val/");
        // `val/kl` is of what `objective/kl` is of in training, on other prompts.
        let twins = [
            bare.to_owned(),
            format!("objective/{bare}"),
            format!("completions/{bare}"),
        ];
        let twin = twins
            .iter()
            .find_map(|twin| curves.iter().position(|curve| curve.name == *twin));
        match twin {
            Some(at) => curves[at].val = points,
            None if points.len() > 1 => curves.push(Curve {
                name,
                train: Points::new(),
                val: points,
            }),
            None => {}
        }
    }
    curves
}

impl Stage {
    /// The curves under a heading for each group, with marks at the alarms of this stage.
    pub(super) fn html(&self, alarms: &[Alarm]) -> Result<String, EvalError> {
        let marks: Vec<f64> = alarms
            .iter()
            .filter(|a| a.stage.is_empty() || a.stage == self.name)
            .map(|a| a.step as f64)
            .collect();
        let mut body = String::new();
        for (group, curves) in self.groups() {
            let group = if group.is_empty() { "general" } else { group };
            let _ = write!(body, "<h3>{}</h3><div class=figures>", escape(group));
            for curve in curves {
                body.push_str(&curve.figure(&marks)?);
            }
            body.push_str("</div>");
        }
        Ok(body)
    }

    fn groups(&self) -> Vec<(&str, Vec<&Curve>)> {
        let prefix = |curve: &Curve| curve.name.split_once('/').map_or(0, |(p, _)| p.len());
        let count = |name: &str| {
            let same = |c: &&Curve| &c.name[..prefix(c)] == name;
            self.curves.iter().filter(same).count()
        };
        let mut groups: Vec<(&str, Vec<&Curve>)> = GROUPS.map(|g| (g, Vec::new())).into();
        for curve in &self.curves {
            let name = &curve.name[..prefix(curve)];
            let alone = !GROUPS.contains(&name) && count(name) < 2;
            let name = if alone { "" } else { name };
            match groups.iter_mut().find(|(group, _)| *group == name) {
                Some((_, curves)) => curves.push(curve),
                None => groups.push((name, vec![curve])),
            }
        }
        groups.retain(|(_, curves)| !curves.is_empty());
        groups
    }
}

impl Curve {
    fn figure(&self, alarms: &[f64]) -> Result<String, EvalError> {
        let (train, val) = (averaged(&self.train), averaged(&self.val));
        let all = || train.iter().chain(&val);
        let from = all().map(|p| p.0).fold(f64::INFINITY, f64::min);
        let to = all().map(|p| p.0).fold(f64::NEG_INFINITY, f64::max);
        let to = to.max(from + 1.0);
        let mut marks: Vec<f64> = alarms.to_vec();
        marks.retain(|step| (from..=to).contains(step));
        marks.sort_by(f64::total_cmp);
        marks.dedup();
        let svg = draw(&train, &val, &marks, from..to).map_err(|reason| EvalError::Figure {
            name: self.name.clone(),
            reason,
        })?;

        let mut key = String::new();
        if !train.is_empty() && !val.is_empty() {
            key.push_str("<li><i class=train></i>training</li>");
        }
        if !val.is_empty() {
            key.push_str("<li><i class=val></i>held out</li>");
        }
        if !marks.is_empty() {
            let steps: Vec<String> = marks.iter().take(5).map(f64::to_string).collect();
            let more = if marks.len() > 5 { ", …" } else { "" };
            let steps = steps.join(", ");
            let _ = write!(
                key,
                "<li><i class=mark></i>▲ alarm, step {steps}{more}</li>"
            );
        }
        let last = |points: &Points| points.last().map_or(f64::NAN, |p| p.1);
        let shown = if self.train.is_empty() {
            &self.val
        } else {
            &self.train
        };
        let (name, value) = (escape(&self.name), number(last(shown)));
        let mut label = format!("{}, steps {from} to {to}, last {value}", self.name);
        if !val.is_empty() && !train.is_empty() {
            let _ = write!(label, ", held out last {}", number(last(&self.val)));
        }
        let mut figure = format!(
            "<figure><figcaption>{name} <span>last {value}</span></figcaption>{}",
            labelled(&svg, &label)
        );
        if !key.is_empty() {
            let _ = write!(figure, "<ul class=key>{key}</ul>");
        }
        Ok(figure + "</figure>")
    }
}

fn averaged(points: &Points) -> Points {
    let run = points.len().div_ceil(POINTS).max(1);
    points
        .chunks(run)
        .map(|c| {
            let mean = c.iter().map(|p| p.1).sum::<f64>() / c.len() as f64;
            (c[c.len() - 1].0, mean)
        })
        .collect()
}

#[cfg(test)]
mod tests;
