//! Judgements as rows to train on: pairs, rankings, or answers with a thumb up or down.
//!
//! Every judgement is a set of comparisons of two answers each. With [`Aggregate::Each`] each
//! judgement makes rows of its own; with [`Aggregate::Majority`] an answer is better than another
//! where more than half of those who compared the two say so.

use std::{
    collections::HashMap,
    fs::OpenOptions,
    io::{BufWriter, Write},
    path::Path,
};

use serde_json::{Value, json};

use crate::{
    annotation::{Annotation, Verdict},
    choices::latest,
    comparison::{Comparisons, Outcome},
    error::FeedbackError,
};

/// The columns that are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExportLayout {
    /// `prompt`, `chosen`, `rejected`, and `margin` where a strength was said.
    #[default]
    Pairs,
    /// `prompt`, `completions` (the best first) and `ranks`.
    Rankings,
    /// `prompt`, `completion` and `label`: true for an answer that is better than more answers than
    /// it is worse than, false for one that is worse than more.
    Unpaired,
}

/// How the judgements of an item become rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aggregate {
    /// One voice each, and more than half decide.
    #[default]
    Majority,
    /// Each judgement for itself.
    Each,
}

/// Rows, and what became none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Export {
    /// The rows.
    pub rows: Vec<Value>,
    /// Judgements that count. Of several by one annotator of one item and pass, the latest does.
    pub judgements: usize,
    /// Items that were judged, whether they became rows or not.
    pub items: usize,
    /// Comparisons of two answers that were ties; they become no pair.
    pub ties: usize,
    /// Comparisons without a majority; they become no pair either.
    pub undecided: usize,
    /// Items of which somebody said the opposite of what somebody, perhaps the same, had said.
    pub contradictory: usize,
    /// Judgements `skipped`; they become nothing.
    pub skipped: usize,
    /// Judgements of repetitions. They count for `contradictory`; rows are made of first passes.
    pub repetitions: usize,
}

/// The rows of judgements, as [`read`](crate::read) returns them.
pub fn export(annotations: &[Annotation], layout: ExportLayout, aggregate: Aggregate) -> Export {
    let mut export = Export::default();
    let mut items: Vec<Vec<&Annotation>> = Vec::new();
    let mut by_id: HashMap<&str, usize> = HashMap::new();
    for annotation in latest(annotations) {
        if annotation.verdict == Verdict::Skipped {
            export.skipped += 1;
            continue;
        }
        export.judgements += 1;
        let index = *by_id.entry(&annotation.item).or_insert(items.len());
        if index == items.len() {
            items.push(Vec::new());
        }
        items[index].push(annotation);
    }
    export.items = items.len();
    for judgements in &items {
        if Comparisons::of(judgements).contradict() {
            export.contradictory += 1;
        }
        let mut first: Vec<&Annotation> = Vec::new();
        for judgement in judgements {
            // Who judged a repetition only, has said it once.
            let who = |a: &&&Annotation| a.annotator == judgement.annotator;
            let passes = judgements.iter().filter(who).map(|a| a.pass);
            if passes.min() == Some(judgement.pass) {
                first.push(judgement);
            } else {
                export.repetitions += 1;
            }
        }
        match aggregate {
            Aggregate::Majority => export.add(&first, layout),
            Aggregate::Each => first.iter().for_each(|one| export.add(&[one], layout)),
        }
    }
    export
}

/// Writes rows to a new file, one a line.
///
/// # Errors
/// When the file is there already or cannot be written.
pub fn write(path: &Path, rows: &[Value]) -> Result<(), FeedbackError> {
    let io = |error| FeedbackError::io(path)(error);
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = BufWriter::new(file.map_err(io)?);
    for row in rows {
        writeln!(file, "{row}").map_err(io)?;
    }
    file.flush().map_err(io)
}

impl Export {
    /// Adds the rows of judgements of one item.
    fn add(&mut self, judgements: &[&Annotation], layout: ExportLayout) {
        let Some(item) = judgements.first() else {
            return;
        };
        let comparisons = Comparisons::of(judgements);
        let k = item.answers.len();
        let mut decided = Vec::new();
        for a in 0..k {
            for b in a + 1..k {
                match comparisons.outcome(a, b) {
                    Outcome::Better(margin) => decided.push((a, b, margin)),
                    Outcome::Worse(margin) => decided.push((b, a, margin)),
                    Outcome::Tie => self.ties += 1,
                    Outcome::Undecided => self.undecided += 1,
                    Outcome::Unsaid => {}
                }
            }
        }
        if decided.is_empty() {
            return;
        }
        let (prompt, answers) = (&item.prompt, &item.answers);
        match layout {
            ExportLayout::Pairs => {
                for (better, worse, margin) in decided {
                    let mut row = json!({
                        "prompt": prompt, "chosen": answers[better], "rejected": answers[worse],
                    });
                    if let Some(margin) = margin {
                        row["margin"] = json!(margin);
                    }
                    self.rows.push(row);
                }
            }
            ExportLayout::Rankings => {
                for order in comparisons.rankings() {
                    let completions: Vec<_> = order.iter().map(|(a, _)| &answers[*a]).collect();
                    let ranks: Vec<_> = order.iter().map(|(_, rank)| rank).collect();
                    self.rows.push(json!({
                        "prompt": prompt, "completions": completions, "ranks": ranks,
                    }));
                }
            }
            ExportLayout::Unpaired => {
                for (answer, completion) in answers.iter().enumerate() {
                    let balance = comparisons.balance(answer);
                    if balance != 0 {
                        self.rows.push(json!({
                            "prompt": prompt, "completion": completion, "label": balance > 0,
                        }));
                    }
                }
            }
        }
    }
}
