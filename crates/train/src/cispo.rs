//! CISPO: clipped importance sampling policy optimisation (MiniMax-M1, Chen et al. 2025): GRPO's
//! advantages and REINFORCE's gradient, weighed by a ratio that is held back above.

use serde::{Deserialize, Serialize};
use togi_rl_algos::{
    Normalisation,
    cispo::cispo_loss,
    group::{GroupScale, group_relative},
};

use crate::{
    config::positive,
    error::TrainError,
    metrics::Row,
    online::{OnlineAlgorithm, Part, PartLoss, Scored},
};

/// Fields of the recipe `cispo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cispo {
    /// What advantages are divided by.
    pub scale: GroupScale,
    /// The ratio's weight is at most `1 + epsilon`.
    pub epsilon: f64,
}

impl Default for Cispo {
    /// A bound of 5, which TRL recommends.
    fn default() -> Self {
        Self {
            scale: GroupScale::Group,
            epsilon: 4.0,
        }
    }
}

impl OnlineAlgorithm for Cispo {
    fn validate(&self) -> Result<(), TrainError> {
        positive("algorithm.epsilon", self.epsilon)
    }

    fn advantages(&self, scored: &Scored<'_>) -> Result<Vec<Vec<f64>>, TrainError> {
        let relative = group_relative(scored.scores, scored.group_size, self.scale)?;
        Ok(scored.spread(relative))
    }

    fn loss(&self, part: &Part) -> Result<PartLoss, TrainError> {
        let Part {
            logps,
            old_logps,
            advantages,
            mask,
            whole,
            ..
        } = part;
        let tokens = cispo_loss(logps, old_logps, advantages, mask, self.epsilon)?;
        let normalisation = Normalisation::Token {
            denominator: whole.tokens,
        };
        let loss = normalisation.tokens(tokens, mask)?;
        let row = Row::default();
        Ok(PartLoss { loss, row })
    }
}
