//! Reward models from ratings of single answers: squared error.

use burn::tensor::{Tensor, TensorData};
use togi_data::RatedSample;
use togi_eval::calibration::correlation;
use togi_policy::{Decoder, Weights};
use togi_rl_algos::{Normalisation, regression::regression_loss};

use crate::{
    error::TrainError,
    metrics::Row,
    offline::{Objective, host},
    sft::EVAL_PART,
};

/// The objective over rated answers.
#[derive(Debug)]
pub struct Ratings<'a> {
    /// To train on.
    pub train: &'a [RatedSample],
    /// Held out.
    pub valid: &'a [RatedSample],
}

/// Loss an answer, and its score.
fn score(
    decoder: &Decoder,
    weights: &Weights,
    samples: &[&RatedSample],
) -> Result<[Tensor<1>; 2], TrainError> {
    let sequences: Vec<&[u32]> = samples.iter().map(|s| &s.sample.ids[..]).collect();
    let scores = decoder.scores(weights, &sequences)?;
    let ratings: Vec<f32> = samples.iter().map(|s| s.score as f32).collect();
    let data = TensorData::new(ratings, [samples.len()]);
    let ratings = Tensor::from_data(data, decoder.device());
    Ok([regression_loss(&scores, &ratings)?, scores])
}

impl Objective for Ratings<'_> {
    /// The denominator.
    type Whole = f64;

    fn len(&self) -> usize {
        self.train.len()
    }

    fn tokens(&self, sample: usize) -> usize {
        self.train[sample].sample.len()
    }

    fn begin(&self, _: &Decoder, batch: &[usize]) -> Result<f64, TrainError> {
        Ok(batch.len() as f64)
    }

    fn loss(
        &self,
        decoder: &Decoder,
        weights: &Weights,
        part: &[usize],
        denominator: &f64,
    ) -> Result<(Tensor<1>, Row), TrainError> {
        let samples: Vec<&RatedSample> = part.iter().map(|i| &self.train[*i]).collect();
        let [losses, _] = score(decoder, weights, &samples)?;
        let denominator = *denominator;
        let loss = Normalisation::Sequence { denominator }.sequences(losses)?;
        let mut row = Row::default();
        row.add("loss", host(&loss)[0]);
        Ok((loss, row))
    }

    fn evaluate(&self, decoder: &Decoder, limit: usize) -> Result<Option<Row>, TrainError> {
        let samples: Vec<&RatedSample> = self.valid.iter().take(limit).collect();
        if samples.is_empty() {
            return Ok(None);
        }
        let weights = decoder.frozen();
        let (mut sum, mut scores) = (0.0, Vec::new());
        for part in samples.chunks(EVAL_PART) {
            let [losses, own] = score(decoder, &weights, part)?;
            sum += host(&losses).iter().sum::<f64>();
            scores.extend(host(&own));
        }
        let ratings: Vec<f64> = samples.iter().map(|s| s.score).collect();
        let mut row = Row::default();
        row.set("loss", sum / samples.len() as f64);
        row.set("correlation", correlation(&scores, &ratings));
        Ok(Some(row))
    }
}
