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
    online::{OnlineAlgorithm, OnlineConfig, Part, PartLoss, Scored},
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
    type Memory = ();

    fn defaults() -> OnlineConfig<Self> {
        OnlineConfig::shared()
    }

    fn on_lab(config: OnlineConfig<Self>) -> OnlineConfig<Self> {
        config.weighing_kl(0.5)
    }

    fn validate(&self) -> Result<(), TrainError> {
        positive("algorithm.epsilon", self.epsilon)
    }

    fn fits(&self, config: &OnlineConfig<Self>) -> Result<(), TrainError> {
        config.in_groups()
    }

    fn advantages(&self, scored: &Scored<'_>, (): &mut ()) -> Result<Vec<Vec<f64>>, TrainError> {
        let relative = group_relative(&scored.penalised(), scored.group_size, self.scale)?;
        Ok(scored.spread(relative))
    }

    fn normalisation(&self, part: &Part) -> Normalisation {
        Normalisation::Token {
            denominator: part.whole.tokens,
        }
    }

    fn loss(&self, part: &Part) -> Result<PartLoss, TrainError> {
        let (old, advantages) = (&part.old_logps, &part.advantages);
        let tokens = cispo_loss(&part.logps, old, advantages, &part.mask, self.epsilon)?;
        let loss = self.normalisation(part).tokens(tokens, &part.mask)?;
        let row = Row::default();
        Ok(PartLoss { loss, row })
    }
}
