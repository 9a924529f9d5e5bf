//! Reward models from rankings of several answers: Plackett-Luce, all pairs, and ties.

use burn::tensor::Tensor;
use togi_data::RankedSample;
use togi_policy::{Decoder, Weights};
use togi_rl_algos::{
    Normalisation,
    plackett_luce::{all_pairs_loss, plackett_luce_loss},
    ties::{Outcome, rao_kupper_loss},
};

use crate::{
    error::TrainError,
    metrics::Row,
    offline::{Objective, host},
    reward::RewardLoss,
    sft::EVAL_PART,
};

/// The objective over ranked answers.
#[derive(Debug)]
pub struct Rankings<'a> {
    train: &'a [RankedSample],
    valid: &'a [RankedSample],
    loss: RewardLoss,
}

impl<'a> Rankings<'a> {
    /// The objective with a loss for rankings.
    ///
    /// # Errors
    /// When a row has ties and the loss knows none.
    pub fn new(
        train: &'a [RankedSample],
        valid: &'a [RankedSample],
        loss: RewardLoss,
    ) -> Result<Self, TrainError> {
        let tied = |row: &RankedSample| row.ranks.windows(2).any(|r| r[0] == r[1]);
        if !matches!(loss, RewardLoss::Ties { .. })
            && let Some(number) = train.iter().chain(valid).position(tied)
        {
            let reason = format!(
                "knows no ties, and ranking {} has answers of equal rank; use loss.kind=ties",
                number + 1
            );
            return Err(TrainError::config("loss.kind", reason));
        }
        Ok(Self { train, valid, loss })
    }

    /// The summed loss of rankings, and how many of their strict comparisons the scores get right.
    fn score(
        &self,
        decoder: &Decoder,
        weights: &Weights,
        rankings: &[&RankedSample],
    ) -> Result<(Tensor<1>, [f64; 2]), TrainError> {
        let sequences: Vec<&[u32]> = rankings
            .iter()
            .flat_map(|row| row.answers.iter().map(|answer| &answer.ids[..]))
            .collect();
        let scores = decoder.scores(weights, &sequences)?;
        let values = host(&scores);
        let (mut losses, mut right, mut start) = (Vec::new(), [0.0; 2], 0);
        for row in rankings {
            let k = row.answers.len();
            let own = scores.clone().narrow(0, start, k);
            losses.push(self.loss_of(&own, &row.ranks)?);
            for (i, j) in strict(&row.ranks) {
                right[0] += f64::from(u8::from(values[start + i] > values[start + j]));
                right[1] += 1.0;
            }
            start += k;
        }
        Ok((Tensor::cat(losses, 0), right))
    }

    fn loss_of(&self, scores: &Tensor<1>, ranks: &[u32]) -> Result<Tensor<1>, TrainError> {
        let k = ranks.len();
        let one = || scores.clone().reshape([1, k]);
        Ok(match self.loss {
            RewardLoss::PlackettLuce => plackett_luce_loss(&one())?,
            RewardLoss::Ties { theta } => {
                let pairs = (0..k).flat_map(|i| (i + 1..k).map(move |j| (i, j)));
                let side = |of: fn((usize, usize)) -> usize| {
                    let rows: Vec<usize> = pairs.clone().map(of).collect();
                    crate::online_dpo::rows(scores, &rows)
                };
                let outcome = |(i, j): (usize, usize)| match ranks[i] == ranks[j] {
                    true => Outcome::Tie,
                    false => Outcome::First,
                };
                let outcomes: Vec<Outcome> = pairs.clone().map(outcome).collect();
                rao_kupper_loss(&side(|p| p.0), &side(|p| p.1), &outcomes, theta)?.mean()
            }
            _ => all_pairs_loss(&one())?,
        })
    }
}

/// Pairs of answers of which the first has the better rank.
fn strict(ranks: &[u32]) -> impl Iterator<Item = (usize, usize)> + '_ {
    let all = (0..ranks.len()).flat_map(|i| (i + 1..ranks.len()).map(move |j| (i, j)));
    all.filter(|(i, j)| ranks[*i] < ranks[*j])
}

impl Objective for Rankings<'_> {
    /// Rankings, and strict comparisons in them.
    type Whole = [f64; 2];

    fn len(&self) -> usize {
        self.train.len()
    }

    fn tokens(&self, sample: usize) -> usize {
        let answers = self.train[sample].answers.iter();
        answers.map(togi_data::Sample::len).sum()
    }

    fn begin(&self, _: &Decoder, batch: &[usize]) -> Result<[f64; 2], TrainError> {
        let comparisons = batch.iter().map(|i| strict(&self.train[*i].ranks).count());
        Ok([batch.len() as f64, comparisons.sum::<usize>() as f64])
    }

    fn loss(
        &self,
        decoder: &Decoder,
        weights: &Weights,
        part: &[usize],
        [denominator, comparisons]: &[f64; 2],
    ) -> Result<(Tensor<1>, Row), TrainError> {
        let rankings: Vec<&RankedSample> = part.iter().map(|i| &self.train[*i]).collect();
        let (losses, [right, _]) = self.score(decoder, weights, &rankings)?;
        let denominator = *denominator;
        let loss = Normalisation::Sequence { denominator }.sequences(losses)?;
        let mut row = Row::default();
        row.add("loss", host(&loss)[0]);
        row.add("rewards/accuracies", right / comparisons.max(1.0));
        Ok((loss, row))
    }

    fn evaluate(&self, decoder: &Decoder, limit: usize) -> Result<Option<Row>, TrainError> {
        let rankings: Vec<&RankedSample> = self.valid.iter().take(limit).collect();
        if rankings.is_empty() {
            return Ok(None);
        }
        let weights = decoder.frozen();
        let (mut sum, mut right) = (0.0, [0.0; 2]);
        for part in rankings.chunks(EVAL_PART) {
            let (losses, counts) = self.score(decoder, &weights, part)?;
            sum += host(&losses).iter().sum::<f64>();
            right = [right[0] + counts[0], right[1] + counts[1]];
        }
        let mut row = Row::default();
        row.set("loss", sum / rankings.len() as f64);
        row.set("rewards/accuracies", right[0] / right[1].max(1.0));
        row.set("samples", right[1]);
        Ok(Some(row))
    }
}
