//! GRPO: group relative policy optimisation (Shao et al. 2024), with the choices of DAPO (Yu et al.
//! 2025: bounds of their own above and below, one weight a token) and of Dr. GRPO (Liu et al. 2025:
//! a constant denominator, no division by the deviation).
//!
//! Left out: DAPO's dynamic sampling and overlong shaping.

use serde::{Deserialize, Serialize};
use togi_rl_algos::{
    Normalisation,
    group::{GroupScale, group_relative},
    kl::{KlEstimator, kl_per_token},
    ppo::{ClipRange, asymmetric_policy_loss},
};

use crate::{
    config::{positive, within},
    error::TrainError,
    online::{OnlineAlgorithm, Part, PartLoss, Scored, log_surrogate},
};

/// What the tokens' losses are averaged over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// Over each completion's tokens, then over completions: every completion weighs the same.
    Grpo,
    /// Over all tokens of the minibatch: every token weighs the same (DAPO; TRL's `dapo`).
    Dapo,
    /// Summed, divided by completions times the longest length allowed: a constant (Dr. GRPO).
    DrGrpo,
}

/// How the KL to the reference is put into the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossKl {
    /// k3, as in the paper. Its gradient is that of the forward KL, not of the KL it estimates.
    K3,
    /// k3 times the ratio, whose gradient is that of the KL (DeepSeek-V3.2; TRL's default).
    K3Corrected,
}

/// Fields of the recipe `grpo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grpo {
    /// What advantages are divided by.
    pub scale: GroupScale,
    /// What the tokens' losses are averaged over.
    pub aggregation: Aggregation,
    /// The ratio may fall to `1 - clip_low`.
    pub clip_low: f64,
    /// The ratio may rise to `1 + clip_high`.
    pub clip_high: f64,
    /// Weight of the KL to the reference in the loss.
    pub kl_coef: f64,
    /// How that KL is estimated.
    pub kl: LossKl,
}

impl Default for Grpo {
    /// TRL's, but for the KL: the paper's 0.04 keeps small models from drifting; TRL has 0.
    fn default() -> Self {
        Self {
            scale: GroupScale::Group,
            aggregation: Aggregation::Dapo,
            clip_low: 0.2,
            clip_high: 0.2,
            kl_coef: 0.04,
            kl: LossKl::K3Corrected,
        }
    }
}

impl OnlineAlgorithm for Grpo {
    fn validate(&self) -> Result<(), TrainError> {
        positive("algorithm.clip_low", self.clip_low)?;
        within("algorithm.clip_low", self.clip_low, 0.0, 1.0)?;
        positive("algorithm.clip_high", self.clip_high)?;
        within("algorithm.kl_coef", self.kl_coef, 0.0, f64::MAX)
    }

    fn advantages(&self, scored: &Scored<'_>) -> Result<Vec<Vec<f64>>, TrainError> {
        let relative = group_relative(scored.scores, scored.group_size, self.scale)?;
        Ok(scored.spread(relative))
    }

    fn loss(&self, part: &Part) -> Result<PartLoss, TrainError> {
        let clip = ClipRange {
            low: self.clip_low,
            high: self.clip_high,
        };
        let Part {
            logps,
            old_logps,
            advantages,
            mask,
            whole,
            ..
        } = part;
        let surrogate = asymmetric_policy_loss(logps, old_logps, advantages, mask, clip)?;
        let row = log_surrogate(part, &surrogate);
        let mut tokens = surrogate.loss;
        if self.kl_coef > 0.0 {
            let mut kl = kl_per_token(logps, &part.reference, KlEstimator::K3)?;
            if self.kl == LossKl::K3Corrected {
                kl = kl * (logps.clone() - old_logps.clone()).exp();
            }
            tokens = tokens + kl * self.kl_coef;
        }
        let normalisation = match self.aggregation {
            Aggregation::Grpo => Normalisation::Sequence {
                denominator: whole.completions,
            },
            Aggregation::Dapo => Normalisation::Token {
                denominator: whole.tokens,
            },
            Aggregation::DrGrpo => Normalisation::Token {
                denominator: whole.completions * whole.max_new_tokens,
            },
        };
        let loss = normalisation.tokens(tokens, mask)?;
        Ok(PartLoss { loss, row })
    }
}
