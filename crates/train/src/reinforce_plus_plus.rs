//! REINFORCE++ (Hu 2025): the KL is taken from the reward of each token, returns are whitened over the
//! whole step, and the update is PPO's clipped one, without a value model.

use serde::{Deserialize, Serialize};
use togi_policy::log_probs::completion_mask;
use togi_rl_algos::{Normalisation, gae::discounted_returns, ppo::ClipRange, whiten::whiten};

use crate::{
    config::{positive, within},
    error::TrainError,
    online::{OnlineAlgorithm, OnlineConfig, Part, PartLoss, Scored},
    online_algorithm::clipped_loss,
    rollout::{join, mean, rows_of},
};

/// Fields of the recipe `reinforce-plus-plus`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReinforcePlusPlus {
    /// Discount of later tokens' rewards.
    pub gamma: f64,
    /// Subtract the mean score of the prompt's completions first (REINFORCE++-baseline).
    pub group_baseline: bool,
    /// The ratio may fall to `1 - clip_low`.
    pub clip_low: f64,
    /// The ratio may rise to `1 + clip_high`.
    pub clip_high: f64,
}

impl Default for ReinforcePlusPlus {
    fn default() -> Self {
        Self {
            gamma: 1.0,
            group_baseline: false,
            clip_low: 0.2,
            clip_high: 0.2,
        }
    }
}

impl OnlineAlgorithm for ReinforcePlusPlus {
    type Memory = ();

    /// One completion of each prompt, and the paper's weight of the KL.
    fn defaults() -> OnlineConfig<Self> {
        OnlineConfig::shared().single().kl_in_reward(0.01)
    }

    fn on_lab(config: OnlineConfig<Self>) -> OnlineConfig<Self> {
        config.weighing_kl(0.5)
    }

    fn validate(&self) -> Result<(), TrainError> {
        within("algorithm.gamma", self.gamma, 0.0, 1.0)?;
        positive("algorithm.clip_low", self.clip_low)?;
        within("algorithm.clip_low", self.clip_low, 0.0, 1.0)?;
        positive("algorithm.clip_high", self.clip_high)
    }

    fn fits(&self, config: &OnlineConfig<Self>) -> Result<(), TrainError> {
        if self.group_baseline {
            return config.in_groups();
        }
        Ok(())
    }

    fn advantages(&self, scored: &Scored<'_>, (): &mut ()) -> Result<Vec<Vec<f64>>, TrainError> {
        let mut rewards = scored.token_rewards();
        if self.group_baseline {
            let groups = scored.scores.chunks(scored.group_size);
            let means = groups.flat_map(|g| vec![mean(g.iter().copied()); g.len()]);
            for (rewards, mean) in rewards.iter_mut().zip(means) {
                if let Some(last) = rewards.last_mut() {
                    *last -= mean;
                }
            }
        }
        let device = scored.device;
        let lens: Vec<usize> = rewards.iter().map(Vec::len).collect();
        let mask = completion_mask(&lens, device);
        let returns = discounted_returns(&join(&rewards, device), &mask, self.gamma)?;
        Ok(rows_of(&whiten(&returns, &mask)?, &rewards))
    }

    fn normalisation(&self, part: &Part) -> Normalisation {
        Normalisation::Token {
            denominator: part.whole.tokens,
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
