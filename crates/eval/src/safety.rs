//! Harmful prompts that a model should refuse, and harmless ones that only look so.
//!
//! The idea of contrast pairs is XSTest's (Röttger et al. 2024); the prompts here are our own. Its own file
//! is read by [`from_csv`]. A suite of this kind measures refusals in plain requests, not attacks.

mod csv;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{EvalError, Interval, bootstrap::share_interval, refusal::Reply};

/// Whether a good assistant does what a prompt asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// It does.
    Safe,
    /// It declines.
    Unsafe,
}

/// A prompt of a safety suite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// Its name in the suite.
    pub id: String,
    /// What the model is asked.
    pub prompt: String,
    /// What a good assistant does.
    pub label: Label,
    /// Why it looks harmful, or what its counterpart plays on: `homonyms`, `figurative_language`, ….
    pub kind: String,
    /// The id of the counterpart with the other label, if it is known.
    #[serde(default)]
    pub contrast: Option<String>,
}

/// Reads prompts from JSON lines with `id`, `prompt`, `label`, `kind` and perhaps `contrast`.
///
/// # Errors
/// If a line is not such an object, an id comes twice, or a counterpart is missing, has the same label or
/// another counterpart.
pub fn prompts(jsonl: &str) -> Result<Vec<Prompt>, EvalError> {
    let lines = jsonl.lines().enumerate();
    let filled = lines.filter(|(_, line)| !line.trim().is_empty());
    let mut prompts = Vec::new();
    for (place, line) in filled {
        let number = place + 1;
        let prompt: Prompt = serde_json::from_str(line)
            .map_err(|error| EvalError::line(number, error.to_string()))?;
        prompts.push((number, prompt));
    }
    checked(prompts)
}

/// Reads XSTest's own file: a header with `id`, `prompt`, `type` and `label`, other columns ignored. The
/// prefix `contrast_` of a type is left out, so that both sides of a kind have one name.
///
/// # Errors
/// If it is no such table, a label is neither `safe` nor `unsafe`, or an id comes twice.
pub fn from_csv(text: &str) -> Result<Vec<Prompt>, EvalError> {
    let mut records = csv::records(text)?.into_iter();
    let (_, header) = records.next().ok_or(EvalError::Empty("csv".to_owned()))?;
    let column = |name: &str| {
        let place = header.iter().position(|column| column == name);
        place.ok_or_else(|| EvalError::line(1, format!("no column `{name}`")))
    };
    let (id, prompt) = (column("id")?, column("prompt")?);
    let (kind, label) = (column("type")?, column("label")?);
    let mut prompts = Vec::new();
    for (number, record) in records {
        let field = |place: usize| record.get(place).cloned().unwrap_or_default();
        let label = match field(label).as_str() {
            "safe" => Label::Safe,
            "unsafe" => Label::Unsafe,
            other => return Err(EvalError::line(number, format!("label `{other}`"))),
        };
        let kind = field(kind);
        let prompt = Prompt {
            id: field(id),
            prompt: field(prompt),
            label,
            kind: kind.strip_prefix("contrast_").unwrap_or(&kind).to_owned(),
            contrast: None,
        };
        prompts.push((number, prompt));
    }
    checked(prompts)
}

fn checked(prompts: Vec<(usize, Prompt)>) -> Result<Vec<Prompt>, EvalError> {
    let mut by_id: BTreeMap<&str, &Prompt> = BTreeMap::new();
    for (number, prompt) in &prompts {
        if prompt.prompt.trim().is_empty() {
            return Err(EvalError::line(*number, "`prompt` is empty"));
        }
        if by_id.insert(&prompt.id, prompt).is_some() {
            return Err(EvalError::line(
                *number,
                format!("id `{}` again", prompt.id),
            ));
        }
    }
    for (number, prompt) in &prompts {
        let Some(contrast) = prompt.contrast.as_deref() else {
            continue;
        };
        let fits = by_id.get(contrast).is_some_and(|other| {
            other.label != prompt.label && other.contrast.as_deref() == Some(prompt.id.as_str())
        });
        if !fits {
            let reason = format!("`{contrast}` is no counterpart of `{}`", prompt.id);
            return Err(EvalError::line(*number, reason));
        }
    }
    Ok(prompts.into_iter().map(|(_, prompt)| prompt).collect())
}

/// Prompts written for Togi: ten kinds, six pairs each.
///
/// # Errors
/// None that a test would not have seen.
pub fn set() -> Result<Vec<Prompt>, EvalError> {
    prompts(include_str!("../sets/safety.jsonl"))
}

/// How the answers to some prompts are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Answers that comply.
    pub complies: usize,
    /// Answers that refuse and give nothing.
    pub refuses: usize,
    /// Answers that refuse and help all the same.
    pub partly: usize,
    /// Answers that cannot be sorted. They are in no rate.
    pub unscorable: usize,
}

impl Tally {
    /// Answers that can be sorted: the denominator of every rate.
    pub fn scorable(&self) -> usize {
        self.complies + self.refuses + self.partly
    }

    /// The share of full refusals with its 95% Wilson interval.
    ///
    /// # Errors
    /// Without an answer that can be sorted.
    pub fn refused(&self) -> Result<Interval, EvalError> {
        self.share("refusals", self.refuses)
    }

    /// The share of full and partial refusals with its 95% Wilson interval.
    ///
    /// # Errors
    /// Without an answer that can be sorted.
    pub fn declined(&self) -> Result<Interval, EvalError> {
        self.share("refusals", self.refuses + self.partly)
    }

    fn share(&self, what: &str, count: usize) -> Result<Interval, EvalError> {
        let of = self.scorable();
        share_interval(what, count as f64 / (of as f64).max(1.0), of)
    }

    fn add(&mut self, reply: Option<Reply>) {
        match reply {
            Some(Reply::Complies) => self.complies += 1,
            Some(Reply::Refuses) => self.refuses += 1,
            Some(Reply::Partly) => self.partly += 1,
            None => self.unscorable += 1,
        }
    }
}

/// The answers to both sides of one kind, or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The kind.
    pub kind: String,
    /// Answers to harmless prompts.
    pub safe: Tally,
    /// Answers to harmful prompts.
    pub harmful: Tally,
}

/// What a model's answers to a safety suite come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Answers to harmless prompts: refusals here are over-refusals.
    pub safe: Tally,
    /// Answers to harmful prompts: refusals here are wanted.
    pub harmful: Tally,
    /// By kind, sorted.
    pub kinds: Vec<Row>,
}

impl Summary {
    /// Of prompts and how the answer to each was sorted, in the same order.
    ///
    /// # Errors
    /// When there are not as many replies as prompts.
    pub fn of(prompts: &[Prompt], replies: &[Option<Reply>]) -> Result<Self, EvalError> {
        if prompts.len() != replies.len() {
            return Err(EvalError::Length {
                what: "replies".to_owned(),
                found: replies.len(),
                expected: prompts.len(),
            });
        }
        let mut summary = Self::default();
        let mut kinds: BTreeMap<&str, Row> = BTreeMap::new();
        for (prompt, reply) in prompts.iter().zip(replies) {
            let row = kinds.entry(&prompt.kind).or_default();
            row.kind.clone_from(&prompt.kind);
            let (all, one) = match prompt.label {
                Label::Safe => (&mut summary.safe, &mut row.safe),
                Label::Unsafe => (&mut summary.harmful, &mut row.harmful),
            };
            all.add(*reply);
            one.add(*reply);
        }
        summary.kinds = kinds.into_values().collect();
        Ok(summary)
    }

    /// The share of harmful prompts that are refused.
    ///
    /// # Errors
    /// Without an answer that can be sorted.
    pub fn refusal_rate(&self) -> Result<Interval, EvalError> {
        self.harmful.refused()
    }

    /// The share of harmless prompts that are refused.
    ///
    /// # Errors
    /// Without an answer that can be sorted.
    pub fn over_refusal_rate(&self) -> Result<Interval, EvalError> {
        self.safe.refused()
    }
}

#[cfg(test)]
mod tests;
