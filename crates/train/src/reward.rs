//! Reward models from comparisons: a scalar head on the last token, Bradley-Terry loss.

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use togi_data::{PairSample, lab::AnnotatorConfig};
use togi_policy::{Decoder, LoraConfig, Weights};
use togi_rl_algos::{Normalisation, bradley_terry::bradley_terry_loss};

use crate::{
    config::{DataSection, LoopSection, OptimSection, RecipeConfig, within},
    error::TrainError,
    metrics::Row,
    offline::{Objective, host},
    sft::EVAL_PART,
};

/// Configuration of the recipe `reward`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RewardConfig {
    /// Of data order, head, dropout and adapters.
    pub seed: u64,
    /// Weight of `(r_chosen + r_rejected)²`, which keeps rewards around zero.
    pub centering: f64,
    /// Use the rows' `margin` column in the loss.
    pub use_margin: bool,
    /// Batches, evaluation, checkpoints.
    pub train: LoopSection,
    /// Optimiser.
    pub optim: OptimSection,
    /// Data.
    pub data: DataSection,
    /// The lab's annotators, where it is the data.
    pub annotators: AnnotatorConfig,
    /// Train an adapter and the head instead of the weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
}

impl Default for RewardConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            centering: 0.01,
            use_margin: false,
            train: LoopSection::default(),
            optim: OptimSection {
                learning_rate: 1e-5,
                ..OptimSection::default()
            },
            data: DataSection::default(),
            annotators: AnnotatorConfig::default(),
            lora: None,
        }
    }
}

impl RecipeConfig for RewardConfig {
    fn validate(&self) -> Result<(), TrainError> {
        within("centering", self.centering, 0.0, f64::MAX)?;
        self.train.validate()?;
        self.optim.validate()?;
        self.data.validate()?;
        if let Some(lora) = &self.lora {
            lora.validate()?;
        }
        Ok(())
    }
}

/// The objective over tokenised pairs.
#[derive(Debug)]
pub struct BradleyTerry<'a> {
    /// To train on.
    pub train: &'a [PairSample],
    /// Held out.
    pub valid: &'a [PairSample],
    /// See [`RewardConfig::centering`].
    pub centering: f64,
    /// See [`RewardConfig::use_margin`].
    pub use_margin: bool,
}

impl BradleyTerry<'_> {
    /// Loss a pair, and scores of both sides.
    fn score(
        &self,
        decoder: &Decoder,
        weights: &Weights,
        pairs: &[&PairSample],
    ) -> Result<[Tensor<1>; 3], TrainError> {
        let n = pairs.len();
        let chosen = pairs.iter().map(|p| &p.chosen.ids[..]);
        let sequences: Vec<&[u32]> = chosen
            .chain(pairs.iter().map(|p| &p.rejected.ids[..]))
            .collect();
        let scores = decoder.scores(weights, &sequences)?;
        let (chosen, rejected) = (scores.clone().narrow(0, 0, n), scores.narrow(0, n, n));
        let margin = self.use_margin.then(|| {
            let data: Vec<f32> = pairs
                .iter()
                .map(|p| p.margin.unwrap_or(0.0) as f32)
                .collect();
            Tensor::from_data(TensorData::new(data, [n]), decoder.device())
        });
        let loss = bradley_terry_loss(&chosen, &rejected, margin.as_ref(), self.centering, 0.0)?;
        Ok([loss, chosen, rejected])
    }
}

/// Adds the pairs' rewards, margins and accuracy to a row.
pub(crate) fn log_pairs(row: &mut Row, chosen: &[f64], rejected: &[f64], denominator: f64) {
    for (c, r) in chosen.iter().zip(rejected) {
        row.add("rewards/chosen", c / denominator);
        row.add("rewards/rejected", r / denominator);
        row.add("rewards/margins", (c - r) / denominator);
        row.add(
            "rewards/accuracies",
            f64::from(u8::from(c > r)) / denominator,
        );
    }
}

impl Objective for BradleyTerry<'_> {
    /// The denominator.
    type Whole = f64;

    fn len(&self) -> usize {
        self.train.len()
    }

    fn tokens(&self, pair: usize) -> usize {
        self.train[pair].chosen.len() + self.train[pair].rejected.len()
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
        let denominator = *denominator;
        let pairs: Vec<&PairSample> = part.iter().map(|i| &self.train[*i]).collect();
        let [losses, chosen, rejected] = self.score(decoder, weights, &pairs)?;
        let loss = Normalisation::Sequence { denominator }.sequences(losses)?;
        let mut row = Row::default();
        row.add("loss", host(&loss)[0]);
        log_pairs(&mut row, &host(&chosen), &host(&rejected), denominator);
        Ok((loss, row))
    }

    fn evaluate(&self, decoder: &Decoder, limit: usize) -> Result<Option<Row>, TrainError> {
        let pairs: Vec<&PairSample> = self.valid.iter().take(limit).collect();
        if pairs.is_empty() {
            return Ok(None);
        }
        let weights = decoder.frozen();
        let denominator = pairs.len() as f64;
        let mut row = Row::default();
        for part in pairs.chunks(EVAL_PART) {
            let [losses, chosen, rejected] = self.score(decoder, &weights, part)?;
            row.add("loss", host(&losses).iter().sum::<f64>() / denominator);
            log_pairs(&mut row, &host(&chosen), &host(&rejected), denominator);
        }
        row.set("samples", denominator);
        Ok(Some(row))
    }
}
