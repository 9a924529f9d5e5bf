//! Process reward models: each step of an answer is right or wrong.

use burn::tensor::{Bool, Tensor};
use togi_data::StepSample;
use togi_policy::{
    Decoder, Weights,
    log_probs::{completion_mask, pad},
};
use togi_rl_algos::{Normalisation, process_reward::step_loss};

use crate::{
    error::TrainError,
    metrics::Row,
    offline::{Objective, host},
    sft::EVAL_PART,
};

/// The objective over answers in steps.
#[derive(Debug)]
pub struct Steps<'a> {
    /// To train on.
    pub train: &'a [StepSample],
    /// Held out.
    pub valid: &'a [StepSample],
}

/// Loss a step with its mask, and how many steps are told rightly.
fn score(
    decoder: &Decoder,
    weights: &Weights,
    samples: &[&StepSample],
) -> Result<(Tensor<2>, Tensor<2, Bool>, f64), TrainError> {
    let sequences: Vec<&[u32]> = samples.iter().map(|s| &s.sample.ids[..]).collect();
    let ends: Vec<&[usize]> = samples.iter().map(|s| &s.ends[..]).collect();
    let flat = decoder.scores_at(weights, &sequences, &ends)?;
    let labels = || samples.iter().flat_map(|s| s.labels.iter().copied());
    let told = host(&flat).into_iter().zip(labels());
    let right = told
        .filter(|(score, label)| (*score > 0.0) == *label)
        .count();
    let lens: Vec<usize> = ends.iter().map(|ends| ends.len()).collect();
    let scores = pad(flat, &lens);
    let mask = completion_mask(&lens, decoder.device());
    let longest = scores.dims()[1];
    let mut padded = Vec::with_capacity(samples.len() * longest);
    for sample in samples {
        padded.extend_from_slice(&sample.labels);
        padded.resize(padded.len() + longest - sample.labels.len(), false);
    }
    Ok((step_loss(&scores, &padded, &mask)?, mask, right as f64))
}

impl Objective for Steps<'_> {
    /// Steps of the batch.
    type Whole = f64;

    fn len(&self) -> usize {
        self.train.len()
    }

    fn tokens(&self, sample: usize) -> usize {
        self.train[sample].sample.len()
    }

    fn begin(&self, _: &Decoder, batch: &[usize]) -> Result<f64, TrainError> {
        let steps = batch.iter().map(|i| self.train[*i].ends.len());
        Ok(steps.sum::<usize>() as f64)
    }

    fn loss(
        &self,
        decoder: &Decoder,
        weights: &Weights,
        part: &[usize],
        steps: &f64,
    ) -> Result<(Tensor<1>, Row), TrainError> {
        let samples: Vec<&StepSample> = part.iter().map(|i| &self.train[*i]).collect();
        let (losses, mask, right) = score(decoder, weights, &samples)?;
        let denominator = *steps;
        let loss = Normalisation::Token { denominator }.tokens(losses, &mask)?;
        let mut row = Row::default();
        row.add("loss", host(&loss)[0]);
        row.add("accuracy", right / denominator);
        Ok((loss, row))
    }

    fn evaluate(&self, decoder: &Decoder, limit: usize) -> Result<Option<Row>, TrainError> {
        let samples: Vec<&StepSample> = self.valid.iter().take(limit).collect();
        if samples.is_empty() {
            return Ok(None);
        }
        let weights = decoder.frozen();
        let count: usize = samples.iter().map(|s| s.ends.len()).sum();
        let (mut sum, mut right) = (0.0, 0.0);
        for part in samples.chunks(EVAL_PART) {
            let (losses, _, told) = score(decoder, &weights, part)?;
            sum += host(&losses).iter().sum::<f64>();
            right += told;
        }
        let mut row = Row::default();
        row.set("loss", sum / count as f64);
        row.set("accuracies", right / count as f64);
        row.set("samples", count as f64);
        Ok(Some(row))
    }
}
