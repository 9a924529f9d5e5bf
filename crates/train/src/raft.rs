//! RAFT (Dong et al. 2023), rejection sampling fine-tuning: draw several completions of each prompt,
//! keep the best, and learn them as demonstrations. With one pass it is on-policy best-of-n
//! distillation.

use serde::{Deserialize, Serialize};
use togi_rl_algos::{Normalisation, reinforce::reinforce_loss};

use crate::{
    config::at_least_one,
    error::TrainError,
    metrics::Row,
    online::{OnlineAlgorithm, OnlineConfig, Part, PartLoss, Scored},
    sampler::Importance,
};

/// Fields of the recipe `raft`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raft {
    /// Completions of each prompt that are learnt: the best ones.
    pub keep: usize,
}

impl Default for Raft {
    /// The paper's.
    fn default() -> Self {
        Self { keep: 1 }
    }
}

impl OnlineAlgorithm for Raft {
    type Memory = ();

    fn defaults() -> OnlineConfig<Self> {
        OnlineConfig::shared()
    }

    fn on_lab(config: OnlineConfig<Self>) -> OnlineConfig<Self> {
        OnlineConfig {
            kl_budget: 1.5,
            ..config
        }
    }

    fn validate(&self) -> Result<(), TrainError> {
        at_least_one("algorithm.keep", self.keep)
    }

    fn fits(&self, config: &OnlineConfig<Self>) -> Result<(), TrainError> {
        config.whole_groups()?;
        config.kl_in_loss()?;
        if self.keep < config.completions_per_prompt {
            return Ok(());
        }
        let reason = "must be less than completions_per_prompt: nothing would be rejected";
        Err(TrainError::config("algorithm.keep", reason))
    }

    fn keeps_groups(&self) -> bool {
        true
    }

    /// 1 for what is learnt, 0 for the others. Equal scores: the one that was drawn first. Of
    /// completions that all score the same none is better, and none is learnt.
    fn importance(&self) -> Importance {
        Importance::Nothing
    }

    fn advantages(&self, scored: &Scored<'_>, (): &mut ()) -> Result<Vec<Vec<f64>>, TrainError> {
        let mut kept = Vec::with_capacity(scored.scores.len());
        for group in scored.scores.chunks(scored.group_size) {
            let flat = group.iter().all(|score| *score == group[0]);
            let mut order: Vec<usize> = (0..group.len()).collect();
            order.sort_by(|a, b| group[*b].total_cmp(&group[*a]));
            let best = &order[..self.keep.min(group.len())];
            let is_kept = |i| f64::from(u8::from(!flat && best.contains(&i)));
            kept.extend((0..group.len()).map(is_kept));
        }
        Ok(scored.spread(kept))
    }

    /// All tokens that are learnt.
    fn normalisation(&self, part: &Part) -> Normalisation {
        Normalisation::Token {
            denominator: part.whole.used_tokens.max(1.0),
        }
    }

    fn loss(&self, part: &Part) -> Result<PartLoss, TrainError> {
        let tokens = reinforce_loss(&part.logps, &part.advantages, &part.mask)?;
        let loss = self.normalisation(part).tokens(tokens, &part.mask)?;
        let row = Row::default();
        Ok(PartLoss { loss, row })
    }
}
