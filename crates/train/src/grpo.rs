//! GRPO: group relative policy optimisation (Shao et al. 2024), with the choices of DAPO (Yu et al.
//! 2025: bounds of their own above and below, one weight a token) and of Dr. GRPO (Liu et al. 2025:
//! a constant denominator, no division by the deviation). DAPO's dynamic sampling and overlong
//! shaping are fields of every online recipe.

use serde::{Deserialize, Serialize};
use togi_rl_algos::{
    Normalisation,
    group::{GroupScale, group_relative},
    ppo::ClipRange,
};

use crate::{
    config::{positive, within},
    error::TrainError,
    online::{OnlineAlgorithm, OnlineConfig, Part, PartLoss, Scored},
    online_algorithm::clipped_loss,
};

/// What the tokens' losses are averaged over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// Over each completion's tokens, then over completions: every completion weighs the same.
    Grpo,
    /// Over all tokens of the minibatch: every token weighs the same (DAPO; TRL's `dapo`).
    Dapo,
    /// Over the tokens of each part that goes through the model, then over the parts by their
    /// completions (TRL's `bnpo`). The only one that depends on `micro_batch_size`; with whole
    /// minibatches it is `dapo`.
    Bnpo,
    /// Summed, divided by completions times the longest length allowed: a constant (Dr. GRPO).
    DrGrpo,
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
}

impl Default for Grpo {
    /// TRL's.
    fn default() -> Self {
        Self {
            scale: GroupScale::Group,
            aggregation: Aggregation::Dapo,
            clip_low: 0.2,
            clip_high: 0.2,
        }
    }
}

impl Grpo {
    /// The recipe `dapo` (Yu et al. 2025): clip-higher, no KL, dynamic sampling, and a soft punishment
    /// of answers near the longest length (a fifth of it, as 4,096 of 20,480 tokens in the paper).
    pub fn dapo() -> OnlineConfig<Self> {
        let shared = OnlineConfig::shared();
        OnlineConfig {
            algorithm: Self {
                clip_high: 0.28,
                ..Self::default()
            },
            dynamic_sampling: 3,
            overlong_buffer: shared.sampling.max_new_tokens / 5,
            ..shared
        }
    }
}

impl OnlineAlgorithm for Grpo {
    type Memory = ();

    /// TRL's, but for the KL: the paper's 0.04 keeps small models from drifting; TRL has 0.
    fn defaults() -> OnlineConfig<Self> {
        OnlineConfig {
            kl_coef: 0.04,
            ..OnlineConfig::shared()
        }
    }

    /// DAPO has no KL term: small steps hold it back.
    fn on_lab(mut config: OnlineConfig<Self>) -> OnlineConfig<Self> {
        if config.kl_coef > 0.0 {
            config.kl_coef = 0.5;
        } else {
            config.optim.learning_rate = 3e-5;
        }
        config
    }

    fn validate(&self) -> Result<(), TrainError> {
        positive("algorithm.clip_low", self.clip_low)?;
        within("algorithm.clip_low", self.clip_low, 0.0, 1.0)?;
        positive("algorithm.clip_high", self.clip_high)
    }

    fn fits(&self, config: &OnlineConfig<Self>) -> Result<(), TrainError> {
        config.in_groups()
    }

    fn advantages(&self, scored: &Scored<'_>, (): &mut ()) -> Result<Vec<Vec<f64>>, TrainError> {
        let relative = group_relative(&scored.penalised(), scored.group_size, self.scale)?;
        Ok(scored.spread(relative))
    }

    fn normalisation(&self, part: &Part) -> Normalisation {
        let whole = part.whole;
        match self.aggregation {
            Aggregation::Grpo => Normalisation::Sequence {
                denominator: whole.completions,
            },
            Aggregation::Dapo => Normalisation::Token {
                denominator: whole.tokens,
            },
            Aggregation::Bnpo => {
                let tokens = part.lens.iter().sum::<usize>() as f64;
                Normalisation::Token {
                    denominator: tokens * whole.completions / part.lens.len() as f64,
                }
            }
            Aggregation::DrGrpo => Normalisation::Token {
                denominator: whole.completions * whole.max_new_tokens,
            },
        }
    }

    fn loss(&self, part: &Part) -> Result<PartLoss, TrainError> {
        let clip = ClipRange {
            low: self.clip_low,
            high: self.clip_high,
        };
        clipped_loss(part, clip, &self.normalisation(part))
    }
}
