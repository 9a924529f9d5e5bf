//! What was chosen, as numbers: for statistics of agreement and of bias.

use std::collections::HashMap;

use crate::annotation::{Annotation, Strength, Verdict};

/// What one annotator said of one item, at one pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The item's id.
    pub item: String,
    /// Who judged.
    pub annotator: String,
    /// 0 for the first time, 1 for the repetition.
    pub pass: u32,
    /// The best answer in the data's order, from 0; none where answers tie for the best.
    pub answer: Option<usize>,
    /// Where that answer was on the screen, from 0 for the first.
    pub position: Option<usize>,
    /// By how much it is better; none for a tie of all.
    pub strength: Option<Strength>,
    /// The rank of each answer in the data's order, where all were ranked.
    pub ranks: Option<Vec<u32>>,
    /// How long each answer is, in characters, in the data's order.
    pub lengths: Vec<usize>,
}

/// The choices of judgements (as [`read`](crate::read) returns them), in their order. Skipped items
/// have none; where an annotator judged an item twice at the same pass, the later one counts.
pub fn choices(annotations: &[Annotation]) -> Vec<Choice> {
    latest(annotations)
        .into_iter()
        .filter_map(Choice::of)
        .collect()
}

/// The latest judgement of each annotator, item and pass, in the order of the first ones.
pub(crate) fn latest(annotations: &[Annotation]) -> Vec<&Annotation> {
    let mut by_key = HashMap::new();
    let mut latest: Vec<&Annotation> = Vec::new();
    for annotation in annotations {
        let key = (&annotation.item, &annotation.annotator, annotation.pass);
        match by_key.get(&key) {
            Some(&at) => latest[at] = annotation,
            None => {
                by_key.insert(key, latest.len());
                latest.push(annotation);
            }
        }
    }
    latest
}

impl Choice {
    fn of(annotation: &Annotation) -> Option<Self> {
        let (answer, strength, ranks) = match &annotation.verdict {
            Verdict::Skipped => return None,
            Verdict::Tie => (None, None, None),
            Verdict::Choice { answer, strength } => (Some(*answer), Some(*strength), None),
            Verdict::Ranking { ranks, strength } => {
                let mut best = (0..ranks.len()).filter(|i| ranks[*i] == 1);
                let answer = best.next().filter(|_| best.next().is_none());
                (answer, Some(*strength), Some(ranks.clone()))
            }
        };
        let position = answer.and_then(|a| annotation.shown.iter().position(|s| *s == a));
        let length = |answer: &togi_data::Content| answer.text().chars().count();
        Some(Self {
            item: annotation.item.clone(),
            annotator: annotation.annotator.clone(),
            pass: annotation.pass,
            answer,
            position,
            strength,
            ranks,
            lengths: annotation.answers.iter().map(length).collect(),
        })
    }
}
