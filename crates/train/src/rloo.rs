//! RLOO: REINFORCE with a leave-one-out baseline (Ahmadian et al. 2024). The KL to the reference is
//! part of the reward of the whole completion, and a completion is one action: its ratio is that of
//! the sequence. With one pass over the completions the ratio is 1 and the loss is REINFORCE's.

use serde::{Deserialize, Serialize};
use togi_rl_algos::{Normalisation, group::leave_one_out, ppo::policy_loss};

use crate::{
    config::positive,
    error::TrainError,
    metrics::Row,
    offline::host,
    online::{OnlineAlgorithm, OnlineConfig, Part, PartLoss, Scored},
};

/// Fields of the recipe `rloo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rloo {
    /// Clip of the sequence's ratio, for several passes.
    pub clip_eps: f64,
}

impl Default for Rloo {
    fn default() -> Self {
        Self { clip_eps: 0.2 }
    }
}

impl OnlineAlgorithm for Rloo {
    type Memory = ();

    /// TRL's.
    fn defaults() -> OnlineConfig<Self> {
        OnlineConfig::shared().kl_in_reward(0.05)
    }

    fn on_lab(config: OnlineConfig<Self>) -> OnlineConfig<Self> {
        config.weighing_kl(0.5)
    }

    fn validate(&self) -> Result<(), TrainError> {
        positive("algorithm.clip_eps", self.clip_eps)
    }

    fn fits(&self, config: &OnlineConfig<Self>) -> Result<(), TrainError> {
        config.in_groups()
    }

    fn advantages(&self, scored: &Scored<'_>, (): &mut ()) -> Result<Vec<Vec<f64>>, TrainError> {
        Ok(scored.spread(leave_one_out(&scored.penalised(), scored.group_size)?))
    }

    /// A completion's log-probability is a sum over its tokens, and so is its KL.
    fn normalisation(&self, part: &Part) -> Normalisation {
        Normalisation::Token {
            denominator: part.whole.completions,
        }
    }

    fn loss(&self, part: &Part) -> Result<PartLoss, TrainError> {
        // Of a whole sequence: sums of log-probabilities, as one token.
        let column = |x| part.sums(x).reshape([part.lens.len(), 1]);
        let (logps, old) = (column(&part.logps), column(&part.old_logps));
        let advantages = part.advantages.clone().narrow(1, 0, 1);
        let every = part.mask.clone().narrow(1, 0, 1);
        let surrogate = policy_loss(&logps, &old, &advantages, &every, self.clip_eps)?;
        let mut row = Row::default();
        let clipped: f64 = host(&surrogate.clipped).iter().sum();
        row.add("policy/clip_fraction", clipped / part.whole.completions);
        let loss = self.normalisation(part).tokens(surrogate.loss, &every)?;
        Ok(PartLoss { loss, row })
    }
}
