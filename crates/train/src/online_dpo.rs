//! Online preference optimisation (Guo et al. 2024): draw completions of each prompt from the policy,
//! let the reward rank them, and take a step of DPO, IPO, SLiC or a relative on the best against the
//! worst.

use burn::tensor::{Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use togi_rl_algos::{Normalisation, PairLogps, dpo::implicit_rewards};

use crate::{
    error::TrainError,
    metrics::Row,
    offline::host,
    online::{OnlineAlgorithm, OnlineConfig, Part, PartLoss, Scored},
    preference_loss::{PairTokens, PreferenceLoss},
    reward::log_pairs,
    sampler::Importance,
};

/// Fields of the recipe `online-dpo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OnlineDpo {
    /// Any loss of the recipe `dpo` that looks at one pair at a time.
    pub loss: PreferenceLoss,
}

impl Default for OnlineDpo {
    /// TRL's.
    fn default() -> Self {
        Self {
            loss: PreferenceLoss::Sigmoid {
                beta: 0.1,
                label_smoothing: 0.0,
            },
        }
    }
}

/// 1 for the best completion of each group, -1 for the worst, 0 for the others and where all score the
/// same. Of equal scores the first is the better one.
pub(crate) fn best_and_worst(scores: &[f64], group_size: usize) -> Vec<f64> {
    let mut marks = vec![0.0; scores.len()];
    for (group, marks) in scores.chunks(group_size).zip(marks.chunks_mut(group_size)) {
        let (mut best, mut worst) = (0, 0);
        for (i, score) in group.iter().enumerate() {
            if *score > group[best] {
                best = i;
            }
            if *score < group[worst] {
                worst = i;
            }
        }
        if best != worst {
            (marks[best], marks[worst]) = (1.0, -1.0);
        }
    }
    marks
}

/// The pairs of a part: rows of the better and of the worse completions.
pub(crate) struct Pairs {
    better: Vec<usize>,
    worse: Vec<usize>,
}

impl Pairs {
    /// The best and the worst of each prompt, from marks of [`best_and_worst`], which a part has as
    /// its advantages.
    pub(crate) fn of(part: &Part) -> Self {
        let marks = part.first_advantages();
        let rows = |sign: f64| {
            (0..marks.len())
                .filter(|i| marks[*i] * sign > 0.0)
                .collect()
        };
        Self {
            better: rows(1.0),
            worse: rows(-1.0),
        }
    }

    /// Each completion of the first half of a prompt's with the one in the same place of the second
    /// half, where the marks tell them apart.
    pub(crate) fn matched(part: &Part) -> Self {
        let (marks, group) = (part.first_advantages(), part.whole.group_size);
        let (mut better, mut worse) = (Vec::new(), Vec::new());
        for i in (0..marks.len()).filter(|i| i % group < group / 2) {
            let other = i + group / 2;
            if marks[i] == 0.0 {
                continue;
            }
            let first = marks[i] > 0.0;
            better.push(if first { i } else { other });
            worse.push(if first { other } else { i });
        }
        Self { better, worse }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.better.is_empty()
    }

    /// Of one value a completion, those of both sides.
    pub(crate) fn pick(&self, x: &Tensor<1>) -> PairLogps {
        PairLogps {
            chosen: rows(x, &self.better),
            rejected: rows(x, &self.worse),
        }
    }

    /// Of one value a completion, those of the second half's completions.
    pub(crate) fn of_opponent(&self, group: usize, x: &Tensor<1>) -> Tensor<1> {
        let second = |i: &usize| i % group >= group / 2;
        let both = self.better.iter().zip(&self.worse);
        let theirs: Vec<usize> = both
            .map(|(better, worse)| if second(better) { *better } else { *worse })
            .collect();
        rows(x, &theirs)
    }
}

/// Entries of a vector.
pub(crate) fn rows(x: &Tensor<1>, rows: &[usize]) -> Tensor<1> {
    let rows: Vec<i32> = rows.iter().map(|row| *row as i32).collect();
    let data = TensorData::new(rows.clone(), [rows.len()]);
    x.clone()
        .select(0, Tensor::<1, Int>::from_data(data, &x.device()))
}

/// One loss a pair, averaged over the pairs of the minibatch, with the implicit rewards of both sides.
pub(crate) fn over_pairs(
    part: &Part,
    losses: Tensor<1>,
    policy: &PairLogps,
    reference: &PairLogps,
    scale: f64,
) -> Result<PartLoss, TrainError> {
    let denominator = part.whole.used / 2.0;
    let loss = Normalisation::Sequence { denominator }.sequences(losses)?;
    let mut row = Row::default();
    let (chosen, rejected) = implicit_rewards(policy, reference, scale)?;
    log_pairs(&mut row, &host(&chosen), &host(&rejected), denominator);
    Ok(PartLoss { loss, row })
}

/// A loss of 0 that has a gradient of 0: for parts without a pair.
pub(crate) fn nothing(part: &Part) -> PartLoss {
    PartLoss {
        loss: part.sums(&part.logps).sum() * 0.0,
        row: Row::default(),
    }
}

impl OnlineAlgorithm for OnlineDpo {
    type Memory = ();

    /// Two completions of each prompt, as TRL.
    fn defaults() -> OnlineConfig<Self> {
        OnlineConfig::shared().paired()
    }

    fn validate(&self) -> Result<(), TrainError> {
        self.loss.validate()?;
        if self.loss.needs_probability() {
            let reason = "`soft_labels`: a reward's order has no probability";
            return Err(TrainError::config("algorithm.loss", reason));
        }
        if self.loss.is_of_batch() {
            let reason = "sorts over a batch: not for pairs that are drawn online";
            return Err(TrainError::config("algorithm.loss", reason));
        }
        if self.loss.shift().is_some() {
            let reason = "is not kept from step to step here";
            return Err(TrainError::config("algorithm.loss.shift_decay", reason));
        }
        Ok(())
    }

    fn fits(&self, config: &OnlineConfig<Self>) -> Result<(), TrainError> {
        config.whole_groups()?;
        if self.loss.needs_reference() {
            config.own_kl("algorithm.loss.beta")?;
        }
        config.kl_in_loss()
    }

    fn keeps_groups(&self) -> bool {
        true
    }

    fn importance(&self) -> Importance {
        Importance::Nothing
    }

    fn advantages(&self, scored: &Scored<'_>, (): &mut ()) -> Result<Vec<Vec<f64>>, TrainError> {
        Ok(scored.spread(best_and_worst(scored.scores, scored.group_size)))
    }

    /// For a KL term beside a loss without a reference.
    fn normalisation(&self, part: &Part) -> Normalisation {
        Normalisation::Token {
            denominator: part.whole.completions,
        }
    }

    fn loss(&self, part: &Part) -> Result<PartLoss, TrainError> {
        let pairs = Pairs::of(part);
        if pairs.is_empty() {
            return Ok(nothing(part));
        }
        let policy = pairs.pick(&part.sums(&part.logps));
        let reference = pairs.pick(&part.sums(&part.reference));
        let lens: Vec<f32> = part.lens.iter().map(|n| *n as f32).collect();
        let count = lens.len();
        let lens = Tensor::from_data(TensorData::new(lens, [count]), &part.logps.device());
        let PairLogps { chosen, rejected } = pairs.pick(&lens);
        let tokens = PairTokens {
            chosen,
            rejected,
            probability: None,
        };
        let losses = self.loss.losses(&policy, &reference, &tokens, 0.0)?;
        over_pairs(part, losses, &policy, &reference, self.loss.reward_scale())
    }
}

#[cfg(test)]
mod tests {
    use super::best_and_worst;

    #[test]
    fn the_best_and_the_worst_of_each_prompt() {
        let scores = [0.1, 0.9, 0.9, 0.0, 0.5, 0.5, 0.5, 0.5];
        let marks = best_and_worst(&scores, 4);
        assert_eq!(marks, [0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0]);
    }
}
