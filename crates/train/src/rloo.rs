//! RLOO: REINFORCE with a leave-one-out baseline (Ahmadian et al. 2024). The KL to the reference is
//! part of the reward of the whole completion, and a completion is one action: its ratio is that of
//! the sequence. With one pass over the completions the ratio is 1 and the loss is REINFORCE's.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use togi_rl_algos::{Normalisation, group::leave_one_out, ppo::policy_loss};

use crate::{
    config::{positive, within},
    error::TrainError,
    metrics::Row,
    offline::host,
    online::{OnlineAlgorithm, Part, PartLoss, Scored},
};

/// Fields of the recipe `rloo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rloo {
    /// Weight of the KL to the reference in the reward.
    pub kl_coef: f64,
    /// Clip of the sequence's ratio, for several passes.
    pub clip_eps: f64,
}

impl Default for Rloo {
    /// TRL's.
    fn default() -> Self {
        Self {
            kl_coef: 0.05,
            clip_eps: 0.2,
        }
    }
}

impl OnlineAlgorithm for Rloo {
    fn validate(&self) -> Result<(), TrainError> {
        within("algorithm.kl_coef", self.kl_coef, 0.0, f64::MAX)?;
        positive("algorithm.clip_eps", self.clip_eps)
    }

    fn advantages(&self, scored: &Scored<'_>) -> Result<Vec<Vec<f64>>, TrainError> {
        let penalised: Vec<f64> = scored
            .scores
            .iter()
            .zip(scored.sequence_kl())
            .map(|(score, kl)| score - self.kl_coef * kl)
            .collect();
        Ok(scored.spread(leave_one_out(&penalised, scored.group_size)?))
    }

    fn loss(&self, part: &Part) -> Result<PartLoss, TrainError> {
        // Of a whole sequence: sums of log-probabilities, as one token.
        let outside = part.mask.clone().bool_not();
        let sum = |x: &Tensor<2>| x.clone().mask_fill(outside.clone(), 0.0).sum_dim(1);
        let (logps, old) = (sum(&part.logps), sum(&part.old_logps));
        let advantages = part.advantages.clone().narrow(1, 0, 1);
        let every = part.mask.clone().narrow(1, 0, 1);
        let surrogate = policy_loss(&logps, &old, &advantages, &every, self.clip_eps)?;
        let denominator = part.whole.completions;
        let mut row = Row::default();
        let share = |x: &Tensor<2>| host(x).iter().sum::<f64>() / denominator;
        row.add("policy/approx_kl", share(&surrogate.approx_kl));
        row.add("policy/clip_fraction", share(&surrogate.clipped));
        let loss = Normalisation::Sequence { denominator }.tokens(surrogate.loss, &every)?;
        Ok(PartLoss { loss, row })
    }
}
