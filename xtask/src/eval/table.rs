//! What a suite measured of several systems: a table, differences from the first, a report.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use togi_eval::{
    EvalError, Interval,
    bootstrap::mean_interval,
    comparison::{Table, plain},
    paired::sign_flip_test,
    report::{BrowserAnswer, BrowserItem, Report},
};

/// A measure of one system: a value for each item, none where the item could not be scored.
#[derive(Clone, Debug)]
pub(crate) struct Measure {
    pub(crate) name: String,
    pub(crate) values: Vec<Option<f64>>,
}

impl Measure {
    pub(crate) fn new(name: &str, values: Vec<Option<f64>>) -> Self {
        Self {
            name: name.to_owned(),
            values,
        }
    }

    /// Of values that are all there.
    pub(crate) fn whole(name: &str, values: impl IntoIterator<Item = f64>) -> Self {
        Self::new(name, values.into_iter().map(Some).collect())
    }

    /// 1 where it holds, 0 where not.
    pub(crate) fn holds(name: &str, values: impl IntoIterator<Item = bool>) -> Self {
        let number = |holds| Some(f64::from(u8::from(holds)));
        Self::new(name, values.into_iter().map(number).collect())
    }
}

/// One system.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) measures: Vec<Measure>,
    /// Numbers of the system as a whole.
    pub(crate) totals: Vec<(String, f64)>,
    /// Its answer to each item, where it gave one.
    pub(crate) answers: Vec<String>,
}

/// What a suite came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) suite: String,
    /// What was asked, one text an item.
    pub(crate) items: Vec<String>,
    pub(crate) systems: Vec<Measured>,
    /// Further tables, with a heading and a sentence.
    pub(crate) tables: Vec<(String, Table, String)>,
    /// Further sentences.
    pub(crate) notes: Vec<String>,
    pub(crate) seed: u64,
}

impl Outcome {
    fn table(&self) -> Result<Table, EvalError> {
        let mut heading = vec![String::new()];
        heading.extend(self.systems.iter().map(|s| s.name.clone()));
        let Some(first) = self.systems.first() else {
            return Err(EvalError::Empty("systems".to_owned()));
        };
        let mut rows = Vec::new();
        for measure in &first.measures {
            let mut row = vec![measure.name.clone()];
            let mut unscorable = vec!["  unscorable".to_owned()];
            let mut any = false;
            for system in &self.systems {
                let values = values_of(system, &measure.name);
                let known: Vec<f64> = values.iter().copied().flatten().collect();
                row.push(match mean_interval(&measure.name, &known, self.seed) {
                    Ok(interval) => cell(interval),
                    Err(EvalError::Empty(_)) => "-".to_owned(),
                    Err(error) => return Err(error),
                });
                any |= known.len() < values.len();
                unscorable.push((values.len() - known.len()).to_string());
            }
            rows.push(row);
            if any {
                rows.push(unscorable);
            }
        }
        for (total, _) in &first.totals {
            let mut row = vec![total.clone()];
            for system in &self.systems {
                let value = system.totals.iter().find(|(name, _)| name == total);
                row.push(value.map_or("-".to_owned(), |(_, v)| format!("{v:.3}")));
            }
            rows.push(row);
        }
        Ok((heading, rows))
    }

    /// Each further system against the first, over the items that both were scored on.
    fn differences(&self) -> Result<Option<Table>, EvalError> {
        let [first, others @ ..] = &self.systems[..] else {
            return Ok(None);
        };
        if others.is_empty() {
            return Ok(None);
        }
        let heading = ["", "difference", "95% interval", "p", "items"];
        let mut rows = Vec::new();
        for system in others {
            for measure in &first.measures {
                let theirs = values_of(system, &measure.name);
                let both = measure.values.iter().zip(theirs);
                let (a, b): (Vec<f64>, Vec<f64>) =
                    both.filter_map(|(x, y)| Some(((*y)?, (*x)?))).unzip();
                if a.is_empty() {
                    continue;
                }
                let off: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
                let Interval { value, low, high } = mean_interval(&measure.name, &off, self.seed)?;
                let p = sign_flip_test(&measure.name, &a, &b, self.seed)?;
                rows.push(vec![
                    format!("{} − {}: {}", system.name, first.name, measure.name.trim()),
                    format!("{value:+.3}"),
                    format!("{low:+.3} to {high:+.3}"),
                    format!("{p:.4}"),
                    a.len().to_string(),
                ]);
            }
        }
        Ok(Some((heading.map(str::to_owned).to_vec(), rows)))
    }

    /// Prints the tables, and writes `results.json`, `answers.jsonl` and `report.html` into a folder.
    pub(crate) fn finish(&self, out: Option<&Path>) -> Result<()> {
        let table = self.table()?;
        println!("{}", plain(&table));
        let differences = self.differences()?;
        if let Some(differences) = &differences {
            println!("{}", plain(differences));
        }
        for (heading, table, note) in &self.tables {
            println!("{heading}\n{}", plain(table));
            if !note.is_empty() {
                println!("{note}\n");
            }
        }
        for note in &self.notes {
            println!("{note}");
        }
        let Some(out) = out else {
            return Ok(());
        };
        fs::create_dir_all(out).with_context(|| out.display().to_string())?;
        let mut tables = vec![(
            "Results".to_owned(),
            table,
            "Means over the items; ± is half of the 95% bootstrap interval.".to_owned(),
        )];
        if let Some(differences) = differences {
            let note = "Paired over the items that both systems were scored on; p is of a sign-flip \
                        permutation test.";
            tables.push(("Differences".to_owned(), differences, note.to_owned()));
        }
        tables.extend(self.tables.iter().cloned());
        let system = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
        let report = Report {
            title: format!("eval {}", self.suite),
            summary: self.notes.join("\n"),
            tables,
            samples: self.samples(),
            environment: vec![
                ("Togi".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
                ("System".to_owned(), system),
            ],
            ..Report::default()
        };
        let write = |name: &str, bytes: &[u8]| {
            let path = out.join(name);
            fs::write(&path, bytes).with_context(|| path.display().to_string())
        };
        write("report.html", report.html()?.as_bytes())?;
        write("results.json", self.json().to_string().as_bytes())?;
        let mut lines = String::new();
        for (i, item) in self.items.iter().enumerate() {
            for system in self.systems.iter().filter(|s| !s.answers.is_empty()) {
                let mut row =
                    json!({"prompt": item, "model": system.name, "completion": system.answers[i]});
                for measure in &system.measures {
                    row[measure.name.trim()] = json!(measure.values[i]);
                }
                lines.push_str(&row.to_string());
                lines.push('\n');
            }
        }
        write("answers.jsonl", lines.as_bytes())?;
        println!("Report: {}", out.join("report.html").display());
        Ok(())
    }

    fn samples(&self) -> Vec<BrowserItem> {
        let answer = |system: &Measured, i: usize| BrowserAnswer {
            system: system.name.clone(),
            text: system.answers.get(i).cloned().unwrap_or_default(),
            scores: system
                .measures
                .iter()
                .filter_map(|m| Some((m.name.trim().to_owned(), m.values.get(i).copied()??)))
                .collect(),
            unscorable: system
                .measures
                .iter()
                .find(|m| m.values.get(i).is_some_and(Option::is_none))
                .map(|m| format!("no value of `{}`", m.name.trim())),
            tokens: Vec::new(),
        };
        let answered = |s: &&Measured| !s.answers.is_empty();
        if !self.systems.iter().any(|s| answered(&s)) {
            return Vec::new();
        }
        let item = |(i, prompt): (usize, &String)| BrowserItem {
            prompt: prompt.clone(),
            answers: self
                .systems
                .iter()
                .filter(answered)
                .map(|s| answer(s, i))
                .collect(),
        };
        self.items.iter().enumerate().map(item).collect()
    }

    fn json(&self) -> Value {
        let systems: Vec<Value> = self
            .systems
            .iter()
            .map(|system| {
                let mut measures = json!({});
                for measure in &system.measures {
                    let known: Vec<f64> = measure.values.iter().copied().flatten().collect();
                    let interval = mean_interval(&measure.name, &known, self.seed).ok();
                    measures[measure.name.trim()] = json!({
                        "mean": interval.map(|i| i.value),
                        "low": interval.map(|i| i.low),
                        "high": interval.map(|i| i.high),
                        "scored": known.len(),
                        "unscorable": measure.values.len() - known.len(),
                    });
                }
                for (name, value) in &system.totals {
                    measures[name] = json!({"value": value});
                }
                json!({"name": system.name, "measures": measures})
            })
            .collect();
        json!({"suite": self.suite, "items": self.items.len(), "systems": systems, "notes": self.notes})
    }
}

fn values_of<'a>(system: &'a Measured, name: &str) -> &'a [Option<f64>] {
    let found = system.measures.iter().find(|m| m.name == name);
    found.map_or(&[], |m| &m.values)
}

fn cell(Interval { value, low, high }: Interval) -> String {
    format!("{value:.3} ±{:.3}", (high - low) / 2.0)
}
