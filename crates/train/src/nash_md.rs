//! Nash-MD (Munos et al. 2023): the policy learns to be preferred to the geometric mixture of itself and
//! its reference, which leads to an equilibrium of the preference instead of a maximum of a score.

use serde::{Deserialize, Serialize};
use togi_rl_algos::{Normalisation, nash_md::nash_md_loss};

use crate::{
    config::{positive, within},
    error::TrainError,
    metrics::Row,
    online::{OnlineAlgorithm, OnlineConfig, Part, PartLoss, Scored},
    sampler::Importance,
    xpo::halves,
};

/// Fields of the recipe `nash-md`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NashMd {
    /// The reference's share of the mixture that the policy plays against.
    pub mixture: f64,
    /// Weight of the KL to the reference.
    pub tau: f64,
    /// `P(y > y') = σ(scale (r - r'))`: how sure a difference of scores is.
    pub preference_scale: f64,
}

impl Default for NashMd {
    /// TRL's former ones; scores are read as Bradley-Terry's.
    fn default() -> Self {
        Self {
            mixture: 0.5,
            tau: 0.1,
            preference_scale: 1.0,
        }
    }
}

impl OnlineAlgorithm for NashMd {
    type Memory = ();

    fn defaults() -> OnlineConfig<Self> {
        OnlineConfig::shared().paired()
    }

    fn validate(&self) -> Result<(), TrainError> {
        within("algorithm.mixture", self.mixture, 0.0, 1.0)?;
        within("algorithm.tau", self.tau, 0.0, f64::MAX)?;
        positive("algorithm.preference_scale", self.preference_scale)
    }

    fn fits(&self, config: &OnlineConfig<Self>) -> Result<(), TrainError> {
        config.whole_groups()?;
        halves(config.completions_per_prompt)?;
        config.one_pass()?;
        config.own_kl("algorithm.tau")
    }

    fn opponent(&self) -> Option<f64> {
        Some(self.mixture)
    }

    fn keeps_groups(&self) -> bool {
        true
    }

    /// The probability that the policy's completion is preferred to the mixture's, and 0 for the
    /// mixture's, which are not learnt from.
    fn importance(&self) -> Importance {
        Importance::Nothing
    }

    fn advantages(&self, scored: &Scored<'_>, (): &mut ()) -> Result<Vec<Vec<f64>>, TrainError> {
        let half = scored.group_size / 2;
        let mut likes = Vec::with_capacity(scored.scores.len());
        for group in scored.scores.chunks(scored.group_size) {
            let preferred = |i: usize| {
                let difference = group[i] - group[i + half];
                1.0 / (1.0 + (-self.preference_scale * difference).exp())
            };
            likes.extend((0..half).map(preferred));
            likes.extend(std::iter::repeat_n(0.0, half));
        }
        Ok(scored.spread(likes))
    }

    fn normalisation(&self, part: &Part) -> Normalisation {
        Normalisation::Token {
            denominator: part.whole.completions,
        }
    }

    fn loss(&self, part: &Part) -> Result<PartLoss, TrainError> {
        let group = part.whole.group_size;
        let own = |i: &usize| i % group < group / 2;
        let rows: Vec<usize> = (0..part.lens.len()).filter(own).collect();
        let likes = part.first_advantages();
        let likes: Vec<f64> = rows.iter().map(|i| likes[*i]).collect();
        let pick = |x| crate::online_dpo::rows(&part.sums(x), &rows);
        let (policy, reference) = (pick(&part.logps), pick(&part.reference));
        let losses = nash_md_loss(&policy, &reference, &likes, self.tau)?;
        let denominator = part.whole.completions / 2.0;
        let mut row = Row::default();
        let preferred = likes.iter().sum::<f64>() / denominator;
        row.add("objective/preferred", preferred);
        let loss = Normalisation::Sequence { denominator }.sequences(losses)?;
        Ok(PartLoss { loss, row })
    }
}
