//! XPO: exploratory preference optimisation (Xie et al. 2024). Half of each prompt's completions are
//! the policy's, half the reference's; the reward ranks them, the better and the worse go into DPO's
//! loss, and the policy is paid for leaving what the reference says.

use serde::{Deserialize, Serialize};
use togi_rl_algos::{Normalisation, xpo::xpo_loss};

use crate::{
    config::{positive, within},
    error::TrainError,
    online::{OnlineAlgorithm, OnlineConfig, Part, PartLoss, Scored},
    online_dpo::{Pairs, nothing, over_pairs},
    sampler::Importance,
};

/// Fields of the recipe `xpo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Xpo {
    /// Strength of the pull towards the reference.
    pub beta: f64,
    /// Weight of the exploration.
    pub alpha: f64,
}

impl Default for Xpo {
    /// TRL's former ones.
    fn default() -> Self {
        Self {
            beta: 0.1,
            alpha: 1e-5,
        }
    }
}

impl OnlineAlgorithm for Xpo {
    type Memory = ();

    fn defaults() -> OnlineConfig<Self> {
        OnlineConfig::shared().paired()
    }

    fn on_lab(mut config: OnlineConfig<Self>) -> OnlineConfig<Self> {
        config.algorithm.beta = 0.3;
        config
    }

    fn validate(&self) -> Result<(), TrainError> {
        positive("algorithm.beta", self.beta)?;
        within("algorithm.alpha", self.alpha, 0.0, f64::MAX)
    }

    fn fits(&self, config: &OnlineConfig<Self>) -> Result<(), TrainError> {
        config.whole_groups()?;
        halves(config.completions_per_prompt)?;
        config.own_kl("algorithm.beta")
    }

    fn opponent(&self) -> Option<f64> {
        Some(1.0)
    }

    fn keeps_groups(&self) -> bool {
        true
    }

    /// Each completion of the policy against one of the reference: 1 for the better, -1 for the other.
    fn importance(&self) -> Importance {
        Importance::Nothing
    }

    fn advantages(&self, scored: &Scored<'_>, (): &mut ()) -> Result<Vec<Vec<f64>>, TrainError> {
        let half = scored.group_size / 2;
        let mut marks = Vec::with_capacity(scored.scores.len());
        for group in scored.scores.chunks(scored.group_size) {
            let sign = |i: usize, j: usize| match group[i].total_cmp(&group[j]) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Less => -1.0,
                std::cmp::Ordering::Equal => 0.0,
            };
            marks.extend((0..half).map(|i| sign(i, i + half)));
            marks.extend((0..half).map(|i| sign(i + half, i)));
        }
        Ok(scored.spread(marks))
    }

    fn normalisation(&self, part: &Part) -> Normalisation {
        Normalisation::Token {
            denominator: part.whole.completions,
        }
    }

    fn loss(&self, part: &Part) -> Result<PartLoss, TrainError> {
        let pairs = Pairs::matched(part);
        if pairs.is_empty() {
            return Ok(nothing(part));
        }
        let sums = part.sums(&part.logps);
        let policy = pairs.pick(&sums);
        let reference = pairs.pick(&part.sums(&part.reference));
        let of_reference = pairs.of_opponent(part.whole.group_size, &sums);
        let losses = xpo_loss(&policy, &reference, &of_reference, self.beta, self.alpha)?;
        over_pairs(part, losses, &policy, &reference, self.beta)
    }
}

/// # Errors
/// When the completions of a prompt cannot be halved.
pub(crate) fn halves(completions: usize) -> Result<(), TrainError> {
    if completions.is_multiple_of(2) {
        return Ok(());
    }
    let reason = "must be even: half are the policy's, half its opponent's";
    Err(TrainError::config("completions_per_prompt", reason))
}
