//! Preference optimisation without a reward model: DPO and its relatives, IPO, SLiC-HF, and losses
//! without a reference.
//!
//! The reference is the model that training starts from; its log-probabilities are computed once a
//! pair and kept.

use std::cell::RefCell;

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use togi_data::{PairSample, Sample, lab::AnnotatorConfig};
use togi_policy::{Decoder, LoraConfig, Weights};
use togi_rl_algos::{Normalisation, PairLogps, dpo};

use crate::{
    config::{DataSection, LoopSection, OptimSection, RecipeConfig},
    error::TrainError,
    metrics::Row,
    offline::{Objective, host},
    preference_loss::PairTokens,
    reward::log_pairs,
    sft::EVAL_PART,
};

pub use crate::preference_loss::PreferenceLoss;

/// Configuration of the recipes `dpo`, `ipo`, `slic`, `simpo`, `cpo` and `orpo`, which differ in the
/// default loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PreferenceConfig {
    /// Of data order, dropout and adapters.
    pub seed: u64,
    /// The loss.
    pub loss: PreferenceLoss,
    /// Batches, evaluation, checkpoints.
    pub train: LoopSection,
    /// Optimiser.
    pub optim: OptimSection,
    /// Data.
    pub data: DataSection,
    /// The lab's annotators, where it is the data.
    pub annotators: AnnotatorConfig,
    /// Train an adapter instead of the weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
}

impl PreferenceConfig {
    /// Defaults with this loss.
    pub fn with(loss: PreferenceLoss) -> Self {
        Self {
            loss,
            ..Self::default()
        }
    }
}

impl Default for PreferenceConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            loss: PreferenceLoss::Sigmoid {
                beta: 0.1,
                label_smoothing: 0.0,
            },
            train: LoopSection {
                batch_size: 8,
                micro_batch_size: 4,
                ..LoopSection::default()
            },
            optim: OptimSection {
                learning_rate: 1e-6,
                ..OptimSection::default()
            },
            data: DataSection::default(),
            annotators: AnnotatorConfig::default(),
            lora: None,
        }
    }
}

impl RecipeConfig for PreferenceConfig {
    fn validate(&self) -> Result<(), TrainError> {
        self.loss.validate()?;
        if self.loss.is_of_batch() && self.train.micro_batch_size < self.train.batch_size {
            let reason = "must be train.batch_size: this loss sorts over the batch, which cannot \
                          be cut";
            return Err(TrainError::config("train.micro_batch_size", reason));
        }
        self.train.validate()?;
        self.optim.validate()?;
        self.data.validate()?;
        if let Some(lora) = &self.lora {
            lora.validate()?;
        }
        Ok(())
    }
}

/// `(chosen, rejected)`, once computed.
type Known = Option<(f32, f32)>;

/// The objective over tokenised pairs.
#[derive(Debug)]
pub struct Preference<'a> {
    train: &'a [PairSample],
    valid: &'a [PairSample],
    loss: PreferenceLoss,
    reference: Decoder,
    /// `(chosen, rejected)` log-probabilities under the reference, of training pairs and of
    /// held-out ones: each is computed when it is first needed, and kept.
    known: [RefCell<Vec<Known>>; 2],
}

impl<'a> Preference<'a> {
    /// The objective with the model that training starts from as the reference.
    pub fn new(
        train: &'a [PairSample],
        valid: &'a [PairSample],
        loss: PreferenceLoss,
        reference: &Decoder,
    ) -> Self {
        let known = [train, valid].map(|pairs| RefCell::new(vec![None; pairs.len()]));
        Self {
            train,
            valid,
            loss,
            reference: reference.clone(),
            known,
        }
    }

    /// Log-probabilities of the pairs of these numbers under the reference; zeros for a loss
    /// without one.
    fn reference(&self, set: usize, numbers: &[usize]) -> Result<Vec<(f32, f32)>, TrainError> {
        if !self.loss.needs_reference() {
            return Ok(vec![(0.0, 0.0); numbers.len()]);
        }
        let mut known = self.known[set].borrow_mut();
        let missing: Vec<usize> = numbers
            .iter()
            .copied()
            .filter(|i| known[*i].is_none())
            .collect();
        if !missing.is_empty() {
            let all = [self.train, self.valid][set];
            let pairs: Vec<&PairSample> = missing.iter().map(|i| &all[*i]).collect();
            let logps = pair_logps(&self.reference, &self.reference.frozen(), &pairs)?;
            let sides = host(&logps.chosen).into_iter().zip(host(&logps.rejected));
            for (number, (chosen, rejected)) in missing.into_iter().zip(sides) {
                known[number] = Some((chosen as f32, rejected as f32));
            }
        }
        Ok(numbers.iter().filter_map(|i| known[*i]).collect())
    }

    /// Loss a pair, and implicit rewards of both sides.
    fn score(
        &self,
        decoder: &Decoder,
        weights: &Weights,
        pairs: &[&PairSample],
        reference: &[(f32, f32)],
    ) -> Result<[Tensor<1>; 3], TrainError> {
        let policy = pair_logps(decoder, weights, pairs)?;
        let n = pairs.len();
        let tensor = |data: Vec<f32>| -> Tensor<1> {
            Tensor::from_data(TensorData::new(data, [n]), decoder.device())
        };
        let reference = PairLogps {
            chosen: tensor(reference.iter().map(|r| r.0).collect()),
            rejected: tensor(reference.iter().map(|r| r.1).collect()),
        };
        let count = |side: fn(&PairSample) -> &Sample| {
            tensor(
                pairs
                    .iter()
                    .map(|p| side(p).scored().count() as f32)
                    .collect(),
            )
        };
        let tokens = PairTokens {
            chosen: count(|p| &p.chosen),
            rejected: count(|p| &p.rejected),
        };
        let losses = self.loss.losses(&policy, &reference, &tokens)?;
        let scale = self.loss.reward_scale();
        let (chosen, rejected) = dpo::implicit_rewards(&policy, &reference, scale)?;
        Ok([losses, chosen, rejected])
    }
}

/// Summed log-probabilities of both sides.
fn pair_logps(
    decoder: &Decoder,
    weights: &Weights,
    pairs: &[&PairSample],
) -> Result<PairLogps, TrainError> {
    let n = pairs.len();
    let chosen = pairs.iter().map(|p| &p.chosen);
    let samples: Vec<&Sample> = chosen.chain(pairs.iter().map(|p| &p.rejected)).collect();
    let sums = decoder.log_probs(weights, &samples, 1.0)?.sums();
    Ok(PairLogps {
        chosen: sums.clone().narrow(0, 0, n),
        rejected: sums.narrow(0, n, n),
    })
}

impl Objective for Preference<'_> {
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
        let reference = self.reference(0, part)?;
        let [losses, chosen, rejected] = self.score(decoder, weights, &pairs, &reference)?;
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
        let numbers: Vec<usize> = (0..pairs.len()).collect();
        for numbers in numbers.chunks(EVAL_PART / 2) {
            let reference = self.reference(1, numbers)?;
            let part = &pairs[numbers[0]..numbers[0] + numbers.len()];
            let [losses, chosen, rejected] = self.score(decoder, &weights, part, &reference)?;
            row.add("loss", host(&losses).iter().sum::<f64>() / denominator);
            log_pairs(&mut row, &host(&chosen), &host(&rejected), denominator);
        }
        row.set("samples", denominator);
        Ok(Some(row))
    }
}
