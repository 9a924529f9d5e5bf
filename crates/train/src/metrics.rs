//! Rows of metrics, and who is told about them.

use serde_json::{Map, Value};
use togi_eval::report::Alarm;

use crate::error::TrainError;

/// Metrics of one step, in the order they were added. Additive: the rows of micro-batches are
/// added up, each already divided by the whole batch's denominator.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row(Vec<(String, f64)>);

impl Row {
    /// Adds `value` to the metric, which starts at 0.
    pub fn add(&mut self, name: &str, value: f64) {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some((_, sum)) => *sum += value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Sets the metric.
    pub fn set(&mut self, name: &str, value: f64) {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Adds each metric of another row.
    pub fn merge(&mut self, other: &Row) {
        for (name, value) in &other.0 {
            self.add(name, *value);
        }
    }

    /// The metric, if it is there.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| *v)
    }

    /// All metrics, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// # Errors
    /// Names the first metric that is NaN or infinite.
    pub fn check(&self, stage: &str, step: u64) -> Result<(), TrainError> {
        match self.0.iter().find(|(_, v)| !v.is_finite()) {
            None => Ok(()),
            Some((name, value)) => Err(TrainError::Run {
                stage: stage.to_owned(),
                step,
                reason: format!(
                    "`{name}` is {value}; the last checkpoint is whole. Try a lower learning \
                     rate, a lower max_grad_norm, or look at this step's samples"
                ),
            }),
        }
    }

    /// As one JSON object with `stage` and `step` first.
    pub fn to_json(&self, stage: &str, step: u64) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("stage".to_owned(), Value::from(stage));
        map.insert("step".to_owned(), Value::from(step));
        for (name, value) in &self.0 {
            map.insert(name.clone(), Value::from(*value));
        }
        map
    }
}

/// What happens in a run.
#[derive(Debug)]
pub enum Event<'a> {
    /// A stage begins; `step` of `total` steps are done.
    Stage {
        /// Its name.
        name: &'a str,
        /// Steps done before (a resumed run).
        step: u64,
        /// Steps in all.
        total: u64,
    },
    /// A step is done.
    Step {
        /// Steps done.
        step: u64,
        /// Its metrics.
        row: &'a Row,
        /// Tokens that went through the model, per second.
        tokens_per_second: f64,
    },
    /// Held-out data was looked at.
    Eval {
        /// Steps done.
        step: u64,
        /// The metrics, with `val/` before their names.
        row: &'a Row,
    },
    /// A monitor's signal has passed its threshold.
    Alarm(&'a Alarm),
    /// Something to say.
    Message(&'a str),
    /// The stage is over.
    Done,
}

/// Is told what happens in a run.
pub trait Observer {
    /// Called on each event.
    fn on(&mut self, event: Event<'_>);
}

/// Says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn on(&mut self, _: Event<'_>) {}
}
