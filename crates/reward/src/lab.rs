//! The lab's truth as a reward.

use togi_data::lab;

use crate::{Reward, Scorable, Score, Unscorable};

/// The gold scorer of the lab; prompts that are not the lab's are unscorable.
#[derive(Clone, Copy, Debug, Default)]
pub struct LabGold;

impl Reward for LabGold {
    fn name(&self) -> String {
        "lab gold".to_owned()
    }

    fn score(&self, batch: &[Scorable<'_>]) -> Vec<Result<Score, Unscorable>> {
        batch
            .iter()
            .map(|item| {
                let gold = lab::gold(item.prompt, item.completion)
                    .map_err(|e| Unscorable(e.to_string()))?;
                Ok(Score {
                    value: gold.total,
                    parts: vec![
                        ("instruction", gold.instruction),
                        ("brevity", gold.brevity),
                        ("politeness", gold.politeness),
                        ("safety", gold.safety),
                    ],
                })
            })
            .collect()
    }
}
