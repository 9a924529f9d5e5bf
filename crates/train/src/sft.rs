//! Supervised fine-tuning: the negative log-likelihood of the completions' tokens, averaged over
//! the tokens of the whole batch.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use togi_data::{LossOn, Sample};
use togi_policy::{Decoder, LoraConfig, Weights};

use crate::{
    config::{DataSection, LoopSection, OptimSection, RecipeConfig},
    error::TrainError,
    metrics::Row,
    offline::{Objective, host},
};

/// Configuration of the recipe `sft`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SftConfig {
    /// Of data order, dropout and adapters.
    pub seed: u64,
    /// Which tokens are learnt.
    pub loss_on: LossOn,
    /// Batches, evaluation, checkpoints.
    pub train: LoopSection,
    /// Optimiser.
    pub optim: OptimSection,
    /// Data.
    pub data: DataSection,
    /// Train an adapter instead of the weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
}

impl Default for SftConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            loss_on: LossOn::Completion,
            train: LoopSection::default(),
            optim: OptimSection {
                learning_rate: 2e-5,
                ..OptimSection::default()
            },
            data: DataSection::default(),
            lora: None,
        }
    }
}

impl RecipeConfig for SftConfig {
    fn validate(&self) -> Result<(), TrainError> {
        self.train.validate()?;
        self.optim.validate()?;
        self.data.validate()?;
        if let Some(lora) = &self.lora {
            lora.validate()?;
        }
        Ok(())
    }
}

/// The objective over tokenised samples.
#[derive(Debug)]
pub struct Sft<'a> {
    /// To train on.
    pub train: &'a [Sample],
    /// Held out.
    pub valid: &'a [Sample],
}

fn total_weight(sample: &Sample) -> f64 {
    sample.scored().map(|i| f64::from(sample.weights[i])).sum()
}

impl Objective for Sft<'_> {
    /// The denominator.
    type Whole = f64;

    fn len(&self) -> usize {
        self.train.len()
    }

    fn tokens(&self, sample: usize) -> usize {
        self.train[sample].len()
    }

    fn begin(&self, _: &Decoder, batch: &[usize]) -> Result<f64, TrainError> {
        Ok(batch.iter().map(|i| total_weight(&self.train[*i])).sum())
    }

    fn loss(
        &self,
        decoder: &Decoder,
        weights: &Weights,
        part: &[usize],
        denominator: &f64,
    ) -> Result<(Tensor<1>, Row), TrainError> {
        let denominator = *denominator;
        let samples: Vec<&Sample> = part.iter().map(|i| &self.train[*i]).collect();
        let scored = decoder.log_probs(weights, &samples, 1.0)?;
        let loss = scored.sums().sum().neg() / denominator;
        let mut row = Row::default();
        row.add("loss", host(&loss)[0]);
        let entropy: f64 = host(&scored.entropy)
            .iter()
            .zip(scored.weights.iter())
            .map(|(h, w)| h * f64::from(*w))
            .sum();
        row.add("entropy", entropy / denominator);
        Ok((loss, row))
    }

    fn evaluate(&self, decoder: &Decoder, limit: usize) -> Result<Option<Row>, TrainError> {
        let samples: Vec<&Sample> = self.valid.iter().take(limit).collect();
        if samples.is_empty() {
            return Ok(None);
        }
        let weights = decoder.frozen();
        let total: f64 = samples.iter().map(|s| total_weight(s)).sum();
        let mut loss = 0.0;
        for part in samples.chunks(EVAL_PART) {
            loss -= host(&decoder.log_probs(&weights, part, 1.0)?.sums())
                .iter()
                .sum::<f64>();
        }
        let mut row = Row::default();
        row.set("loss", loss / total);
        row.set("perplexity", (loss / total).exp());
        Ok(Some(row))
    }
}

/// Samples that go through the model at a time when held-out data is looked at.
pub(crate) const EVAL_PART: usize = 8;
