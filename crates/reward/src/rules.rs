//! Rules that need no model.

use crate::{Reward, Scorable, Score, Unscorable};

/// Minus the number of the answer's tokens over `target`, times `weight`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LengthPenalty {
    /// Tokens that cost nothing.
    pub target: usize,
    /// What each further token costs.
    pub weight: f64,
}

impl Reward for LengthPenalty {
    fn name(&self) -> String {
        "length penalty".to_owned()
    }

    fn score(&self, batch: &[Scorable<'_>]) -> Vec<Result<Score, Unscorable>> {
        batch
            .iter()
            .map(|item| {
                let over = item.completion_ids.len().saturating_sub(self.target);
                Score::new(-self.weight * over as f64)
            })
            .collect()
    }
}

/// 1 if the answer contains a text, 0 if not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contains {
    /// The text.
    pub text: String,
}

impl Reward for Contains {
    fn name(&self) -> String {
        format!("contains `{}`", self.text)
    }

    fn score(&self, batch: &[Scorable<'_>]) -> Vec<Result<Score, Unscorable>> {
        let value = |item: &Scorable<'_>| f64::from(u8::from(item.completion.contains(&self.text)));
        batch.iter().map(|item| Score::new(value(item))).collect()
    }
}
