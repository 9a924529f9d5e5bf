//! Writers that answer prompts with known faults.

use crate::{
    lab::{
        prompts::{LabPrompt, Task},
        words::{CATEGORIES, CLOSINGS, FILLERS, NUMBERS, OPENINGS, REFUSALS, RUDE},
    },
    rng::CounterRng,
};

/// How often a writer commits each fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Writer {
    /// Answers another question.
    pub ignores: f64,
    /// Adds sentences that say nothing.
    pub rambles: f64,
    /// Adds an insult.
    pub insults: f64,
    /// Does what a harmful request asks.
    pub complies: f64,
    /// Opens or closes with a friendly phrase.
    pub greets: f64,
}

impl Writer {
    /// What a language model has read: every fault, often.
    pub fn base() -> Self {
        Self {
            ignores: 0.5,
            rambles: 0.5,
            insults: 0.35,
            complies: 0.9,
            greets: 0.3,
        }
    }

    /// What SFT imitates: better, not good.
    pub fn demonstrator() -> Self {
        Self {
            ignores: 0.25,
            rambles: 0.4,
            insults: 0.2,
            complies: 0.6,
            greets: 0.4,
        }
    }

    /// Without faults.
    pub fn ideal() -> Self {
        Self {
            ignores: 0.0,
            rambles: 0.0,
            insults: 0.0,
            complies: 0.0,
            greets: 1.0,
        }
    }

    /// Tells writers apart in random streams.
    pub(super) fn stream(&self) -> u64 {
        [
            self.ignores,
            self.rambles,
            self.insults,
            self.complies,
            self.greets,
        ]
        .iter()
        .fold(0, |hash, rate| hash * 1001 + (rate * 1000.0).round() as u64)
    }

    /// An answer in the lab's words.
    pub fn write(&self, prompt: &LabPrompt, rng: &mut CounterRng) -> String {
        let mut words: Vec<&'static str> = Vec::new();
        let refuses = prompt.is_harmful() && !rng.chance(self.complies);
        if refuses {
            words.extend(REFUSALS[rng.below(REFUSALS.len())]);
        } else {
            let opens = rng.chance(self.greets);
            let closes = rng.chance(self.greets / 2.0);
            if opens {
                words.extend(OPENINGS[rng.below(OPENINGS.len())]);
            }
            if rng.chance(self.ignores) {
                let count = 1 + rng.below(3);
                words.extend(some_items(count, rng));
            } else {
                words.extend(answer(&prompt.task, rng));
            }
            if closes {
                words.extend(CLOSINGS[rng.below(CLOSINGS.len())]);
            }
        }
        if rng.chance(self.rambles) {
            for _ in 0..1 + rng.below(3) {
                let filler = FILLERS[rng.below(FILLERS.len())];
                if rng.chance(0.5) {
                    words.extend(filler);
                } else {
                    words.splice(0..0, filler.iter().copied());
                }
            }
        }
        if rng.chance(self.insults) {
            words.extend(RUDE[rng.below(RUDE.len())]);
        }
        words.join(" ")
    }
}

fn some_items(count: usize, rng: &mut CounterRng) -> Vec<&'static str> {
    let mut items = CATEGORIES[rng.below(CATEGORIES.len())].1;
    rng.shuffle(&mut items);
    items[..count].to_vec()
}

fn answer(task: &Task, rng: &mut CounterRng) -> Vec<&'static str> {
    match task {
        Task::Name { category, count } => {
            let mut items = CATEGORIES[*category].1;
            rng.shuffle(&mut items);
            items[..*count].to_vec()
        }
        Task::Repeat { words } => words.clone(),
        Task::Backwards { words } => words.iter().rev().copied().collect(),
        Task::Bigger { first, second } => vec![NUMBERS[(*first).max(*second)]],
        Task::How { verb, object, .. } => {
            let mut words = if rng.chance(0.5) {
                vec!["take", "your", "hands", "then"]
            } else {
                vec!["to"]
            };
            words.extend([*verb, "the", *object, "with", "care"]);
            words
        }
    }
}
