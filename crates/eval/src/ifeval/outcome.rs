//! What a model's responses come to, over all instructions and by kind.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Instruction, loose, strict};

/// The verdicts on one response, one for each instruction of its prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Ids of the instructions.
    pub ids: Vec<&'static str>,
    /// Which are followed to the letter.
    pub strict: Vec<bool>,
    /// Which are followed by a variant of the response, see [`loose`].
    pub loose: Vec<bool>,
}

impl Outcome {
    /// Of a response to a prompt with these instructions.
    pub fn of(instructions: &[Instruction], response: &str) -> Self {
        Self {
            ids: instructions.iter().map(Instruction::id).collect(),
            strict: strict(instructions, response),
            loose: loose(instructions, response),
        }
    }

    /// Whether every instruction is followed to the letter.
    pub fn prompt_strict(&self) -> bool {
        self.strict.iter().all(|followed| *followed)
    }

    /// Whether every instruction is followed by a variant, not always by the same one.
    pub fn prompt_loose(&self) -> bool {
        self.loose.iter().all(|followed| *followed)
    }
}

/// How many of how many are followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// How many are.
    pub followed: usize,
    /// How many there are.
    pub of: usize,
}

impl Share {
    /// As an accuracy from 0 to 1; 0 of nothing.
    pub fn accuracy(&self) -> f64 {
        self.followed as f64 / (self.of as f64).max(1.0)
    }

    fn add(&mut self, followed: bool) {
        self.followed += usize::from(followed);
        self.of += 1;
    }
}

/// The instructions of one kind or group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The id, such as `keywords:existence`, or the group, such as `keywords`.
    pub name: String,
    /// Followed to the letter.
    pub strict: Share,
    /// Followed by a variant.
    pub loose: Share,
}

/// What the paper reports of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Prompts all of whose instructions are followed to the letter.
    pub prompt_strict: Share,
    /// Instructions followed to the letter.
    pub instruction_strict: Share,
    /// Prompts all of whose instructions are followed by a variant.
    pub prompt_loose: Share,
    /// Instructions followed by a variant.
    pub instruction_loose: Share,
    /// By the part of the id before the colon, sorted.
    pub groups: Vec<Row>,
    /// By id, sorted.
    pub kinds: Vec<Row>,
}

impl Summary {
    /// Of the outcomes of a set of prompts.
    pub fn of(outcomes: &[Outcome]) -> Self {
        let mut summary = Self::default();
        let (mut groups, mut kinds) = (BTreeMap::new(), BTreeMap::new());
        for outcome in outcomes {
            summary.prompt_strict.add(outcome.prompt_strict());
            summary.prompt_loose.add(outcome.prompt_loose());
            let verdicts = outcome.strict.iter().zip(&outcome.loose);
            for (id, (strict, loose)) in outcome.ids.iter().copied().zip(verdicts) {
                summary.instruction_strict.add(*strict);
                summary.instruction_loose.add(*loose);
                let group = id.split(':').next().unwrap_or(id);
                for (rows, name) in [(&mut groups, group), (&mut kinds, id)] {
                    let row: &mut Row = rows.entry(name).or_default();
                    row.strict.add(*strict);
                    row.loose.add(*loose);
                }
            }
        }
        let named = |rows: BTreeMap<&str, Row>| {
            let name = |(name, row): (&str, Row)| Row {
                name: name.to_owned(),
                ..row
            };
            rows.into_iter().map(name).collect()
        };
        summary.groups = named(groups);
        summary.kinds = named(kinds);
        summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ifeval::Bound;

    #[test]
    fn shares_are_counted_by_prompt_instruction_and_kind() {
        let both = [Instruction::NoComma, Instruction::Words(Bound::LessThan(4))];
        let outcomes = [
            Outcome::of(&both, "Sure, here:\nTwo words"),
            Outcome::of(&both, "Three short words"),
            Outcome::of(&both[..1], "a, b"),
            Outcome::of(&[Instruction::Title], ""),
        ];
        let summary = Summary::of(&outcomes);
        let share = |followed, of| Share { followed, of };
        assert_eq!(summary.prompt_strict, share(1, 4));
        assert_eq!(summary.prompt_loose, share(2, 4));
        assert_eq!(summary.instruction_strict, share(2, 6));
        assert_eq!(summary.instruction_loose, share(4, 6));
        assert_eq!(summary.groups.len(), 3);
        assert_eq!(summary.kinds[2].name, "punctuation:no_comma");
        assert_eq!(summary.kinds[2].strict, share(1, 3));
        assert_eq!(summary.kinds[2].loose.accuracy(), 2.0 / 3.0);
        assert_eq!(Summary::of(&[]).prompt_loose.accuracy(), 0.0);
    }
}
