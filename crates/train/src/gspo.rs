//! GSPO: group sequence policy optimisation (Zheng et al. 2025): GRPO's advantages, one ratio and one
//! clip a completion.

use serde::{Deserialize, Serialize};
use togi_rl_algos::{
    Normalisation,
    group::{GroupScale, group_relative},
    gspo::gspo_loss,
    ppo::ClipRange,
};

use crate::{
    config::positive,
    error::TrainError,
    metrics::Row,
    offline::host,
    online::{OnlineAlgorithm, OnlineConfig, Part, PartLoss, Scored},
    sampler::Importance,
};

/// Fields of the recipe `gspo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gspo {
    /// What advantages are divided by.
    pub scale: GroupScale,
    /// The ratio may fall to `1 - clip_low`.
    pub clip_low: f64,
    /// The ratio may rise to `1 + clip_high`.
    pub clip_high: f64,
}

impl Default for Gspo {
    /// The paper's.
    fn default() -> Self {
        Self {
            scale: GroupScale::Group,
            clip_low: 3e-4,
            clip_high: 4e-4,
        }
    }
}

impl OnlineAlgorithm for Gspo {
    type Memory = ();

    fn defaults() -> OnlineConfig<Self> {
        OnlineConfig::shared()
    }

    fn on_lab(config: OnlineConfig<Self>) -> OnlineConfig<Self> {
        config.weighing_kl(0.3)
    }

    fn validate(&self) -> Result<(), TrainError> {
        positive("algorithm.clip_low", self.clip_low)?;
        positive("algorithm.clip_high", self.clip_high)
    }

    fn fits(&self, config: &OnlineConfig<Self>) -> Result<(), TrainError> {
        config.in_groups()
    }

    fn importance(&self) -> Importance {
        Importance::Sequences
    }

    fn advantages(&self, scored: &Scored<'_>, (): &mut ()) -> Result<Vec<Vec<f64>>, TrainError> {
        let relative = group_relative(&scored.penalised(), scored.group_size, self.scale)?;
        Ok(scored.spread(relative))
    }

    fn normalisation(&self, part: &Part) -> Normalisation {
        Normalisation::Sequence {
            denominator: part.whole.completions,
        }
    }

    fn loss(&self, part: &Part) -> Result<PartLoss, TrainError> {
        let clip = ClipRange {
            low: self.clip_low,
            high: self.clip_high,
        };
        let [batch, _] = part.advantages.dims();
        let advantages = part.advantages.clone().narrow(1, 0, 1).reshape([batch]);
        let out = gspo_loss(&part.logps, &part.old_logps, &advantages, &part.mask, clip)?;
        let completions = part.whole.completions;
        let mut row = Row::default();
        let clipped: f64 = host(&out.clipped).iter().sum();
        row.add("policy/clip_fraction", clipped / completions);
        let ratio: f64 = host(&out.ratio).iter().sum();
        row.add("policy/ratio", ratio / completions);
        let loss = self.normalisation(part).sequences(out.loss)?;
        Ok(PartLoss { loss, row })
    }
}
