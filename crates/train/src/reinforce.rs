//! REINFORCE with a baseline (Williams 1992), a completion being one action: the gradient of the
//! expected score of whole completions, less a baseline that keeps its variance down.

use serde::{Deserialize, Serialize};
use togi_rl_algos::{Normalisation, group::against_baseline, reinforce::reinforce_loss};

use crate::{
    config::within,
    error::TrainError,
    metrics::Row,
    online::{OnlineAlgorithm, OnlineConfig, Part, PartLoss, Scored},
};

/// What is subtracted from the scores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Baseline {
    /// Nothing.
    Zero,
    /// The mean of the step's other completions, of whatever prompt.
    Batch,
    /// The mean of all scores so far, as Ahmadian et al. 2024 have it for REINFORCE; before the first
    /// step it is that step's own mean.
    Running,
    /// An exponential average of the steps' mean scores.
    MovingAverage {
        /// The share of the average that stays at each step.
        decay: f64,
    },
}

/// What the baseline has seen.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    completions: f64,
    mean: f64,
}

/// Fields of the recipe `reinforce`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reinforce {
    /// What is subtracted from the scores.
    pub baseline: Baseline,
}

impl Default for Reinforce {
    fn default() -> Self {
        Self {
            baseline: Baseline::Running,
        }
    }
}

impl Reinforce {
    fn baselines(&self, scores: &[f64], seen: &mut Seen) -> Vec<f64> {
        let count = scores.len() as f64;
        let sum: f64 = scores.iter().sum();
        let first = seen.completions == 0.0;
        let before = if first { sum / count } else { seen.mean };
        seen.completions += count;
        match self.baseline {
            Baseline::Zero => vec![0.0; scores.len()],
            Baseline::Batch => {
                let others = (count - 1.0).max(1.0);
                scores.iter().map(|r| (sum - r) / others).collect()
            }
            Baseline::Running => {
                seen.mean = before + (sum / count - before) * count / seen.completions;
                vec![before; scores.len()]
            }
            Baseline::MovingAverage { decay } => {
                seen.mean = decay * before + (1.0 - decay) * sum / count;
                vec![before; scores.len()]
            }
        }
    }
}

impl OnlineAlgorithm for Reinforce {
    type Memory = Seen;

    /// The KL is part of the reward, as in RLOO; one completion of each prompt.
    fn defaults() -> OnlineConfig<Self> {
        OnlineConfig::shared().single().kl_in_reward(0.05)
    }

    fn on_lab(config: OnlineConfig<Self>) -> OnlineConfig<Self> {
        config.weighing_kl(0.5)
    }

    fn validate(&self) -> Result<(), TrainError> {
        match self.baseline {
            Baseline::MovingAverage { decay } => {
                within("algorithm.baseline.decay", decay, 0.0, 0.999_999_9)
            }
            _ => Ok(()),
        }
    }

    fn fits(&self, config: &OnlineConfig<Self>) -> Result<(), TrainError> {
        let completions = config.prompts_per_step * config.completions_per_prompt;
        if self.baseline == Baseline::Batch && completions < 2 {
            let reason = "`batch` is the mean of the step's other completions: there is only one";
            return Err(TrainError::config("algorithm.baseline", reason));
        }
        config.one_pass()
    }

    fn advantages(
        &self,
        scored: &Scored<'_>,
        seen: &mut Seen,
    ) -> Result<Vec<Vec<f64>>, TrainError> {
        let scores = scored.penalised();
        let baselines = self.baselines(&scores, seen);
        Ok(scored.spread(against_baseline(&scores, &baselines)?))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn baselines_are_what_they_say() {
        let of = |baseline, steps: &[&[f64]]| {
            let (reinforce, mut seen) = (Reinforce { baseline }, Seen::default());
            let all = steps.iter().map(|s| reinforce.baselines(s, &mut seen));
            all.collect::<Vec<_>>()
        };
        let steps: [&[f64]; 3] = [&[1.0, 3.0], &[5.0, 7.0], &[0.0, 0.0]];
        let running = of(Baseline::Running, &steps);
        assert_eq!(running, [[2.0, 2.0], [2.0, 2.0], [4.0, 4.0]]);
        let moving = of(Baseline::MovingAverage { decay: 0.75 }, &steps);
        assert_eq!(moving, [[2.0, 2.0], [2.0, 2.0], [3.0, 3.0]]);
        assert_eq!(of(Baseline::Batch, &steps[..1]), [[3.0, 1.0]]);
        assert_eq!(of(Baseline::Zero, &steps[..1]), [[0.0, 0.0]]);
    }
}
