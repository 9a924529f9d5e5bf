//! ReMax (Li et al. 2023): REINFORCE whose baseline is the score of the likeliest completion of the
//! same prompt. It costs one greedy completion a prompt, and no value model.

use serde::{Deserialize, Serialize};
use togi_rl_algos::{Normalisation, group::against_baseline, reinforce::reinforce_loss};

use crate::{
    error::TrainError,
    metrics::Row,
    online::{OnlineAlgorithm, OnlineConfig, Part, PartLoss, Scored},
};

/// The recipe `remax` has no fields of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Remax {}

impl OnlineAlgorithm for Remax {
    type Memory = ();

    /// One completion of each prompt beside the greedy one, and the KL in the reward, as in the paper.
    fn defaults() -> OnlineConfig<Self> {
        OnlineConfig::shared().single().kl_in_reward(0.05)
    }

    fn on_lab(config: OnlineConfig<Self>) -> OnlineConfig<Self> {
        config.weighing_kl(0.5)
    }

    fn validate(&self) -> Result<(), TrainError> {
        Ok(())
    }

    fn fits(&self, config: &OnlineConfig<Self>) -> Result<(), TrainError> {
        config.one_pass()
    }

    fn wants_greedy(&self) -> bool {
        true
    }

    fn advantages(&self, scored: &Scored<'_>, (): &mut ()) -> Result<Vec<Vec<f64>>, TrainError> {
        let each = |score: &f64| std::iter::repeat_n(*score, scored.group_size);
        let baseline: Vec<f64> = scored.greedy.iter().flat_map(each).collect();
        Ok(scored.spread(against_baseline(&scored.penalised(), &baseline)?))
    }

    /// A completion's log-probability is a sum over its tokens.
    fn normalisation(&self, part: &Part) -> Normalisation {
        Normalisation::Token {
            denominator: part.whole.completions,
        }
    }

    fn loss(&self, part: &Part) -> Result<PartLoss, TrainError> {
        let tokens = reinforce_loss(&part.logps, &part.advantages, &part.mask)?;
        let loss = self.normalisation(part).tokens(tokens, &part.mask)?;
        let row = Row::default();
        Ok(PartLoss { loss, row })
    }
}
