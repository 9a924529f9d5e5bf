//! Preference optimisation without a reward model: DPO and its relatives, IPO, SLiC-HF, and losses
//! without a reference.
//!
//! The reference is the model that training starts from, or follows the policy (TR-DPO); its
//! log-probabilities are computed once a pair and kept.

use std::cell::RefCell;

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use togi_data::{PairSample, lab::AnnotatorConfig};
use togi_policy::{Decoder, LoraConfig, Weights, log_probs::pad};
use togi_rl_algos::{Normalisation, PairLogps, bco::RewardShift, dpo, wpo::wpo_weights};

use crate::{
    checkpoint::{Checkpoint, Stored},
    config::{DataSection, LoopSection, OptimSection, RecipeConfig, within},
    error::TrainError,
    metrics::Row,
    offline::{Objective, host},
    preference_loss::PairTokens,
    reference::{self, ReferenceUpdate},
    reference_logps::{ReferenceLogps, Unit, summed},
    reward::log_pairs,
    sft::EVAL_PART,
};

pub use crate::preference_loss::{PreferenceLoss, Term};

/// Configuration of the recipes `dpo`, `ipo`, `slic`, `simpo`, `cpo` and `orpo`, which differ in the
/// default loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PreferenceConfig {
    /// Of data order, dropout and adapters.
    pub seed: u64,
    /// The loss.
    pub loss: PreferenceLoss,
    /// Weigh pairs by how likely the policy is to write them (WPO).
    pub use_weighting: bool,
    /// What tokens past the length of the shorter answer count (LD-DPO); 1 is as much as the others.
    pub ld_alpha: f64,
    /// Whether the reference stays or follows the policy.
    pub reference: ReferenceUpdate,
    /// Keep the reference's log-probabilities on disk, by content, for later runs with the same model
    /// and data. Each pair then goes through the reference by itself.
    pub cache_reference: bool,
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
            use_weighting: false,
            ld_alpha: 1.0,
            reference: ReferenceUpdate::Frozen,
            cache_reference: false,
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
        if self.loss.is_of_batch() && self.use_weighting {
            let reason = "is not read: this loss sorts, and has no value of a single pair";
            return Err(TrainError::config("use_weighting", reason));
        }
        within("ld_alpha", self.ld_alpha, 0.0, 1.0)?;
        self.reference.validate()?;
        let unread = if !self.loss.needs_reference() {
            "is not read: this loss has no reference"
        } else {
            "is not of use: the reference moves"
        };
        let moves = self.reference.moves();
        if moves && !self.loss.needs_reference() {
            return Err(TrainError::config("reference.kind", unread));
        }
        if self.cache_reference && (moves || !self.loss.needs_reference()) {
            return Err(TrainError::config("cache_reference", unread));
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

/// The objective over tokenised pairs.
#[derive(Debug)]
pub struct Preference<'a> {
    train: &'a [PairSample],
    valid: &'a [PairSample],
    settings: PreferenceConfig,
    /// Where the loss has one.
    reference: Option<ReferenceLogps>,
    /// Implicit rewards of the update that is going on, chosen and rejected.
    rewards: RefCell<[Vec<f64>; 2]>,
    shift: Option<RewardShift>,
}

impl<'a> Preference<'a> {
    /// The objective with the model that training starts from as the reference. The second result
    /// says that values on disk are damaged and not used.
    ///
    /// # Errors
    /// When the cache on disk cannot be used; when the loss needs a pair's probability and there is none.
    pub fn new(
        train: &'a [PairSample],
        valid: &'a [PairSample],
        settings: &PreferenceConfig,
        reference: &Decoder,
    ) -> Result<(Self, Option<String>), TrainError> {
        if settings.loss.needs_probability() {
            labelled(train.iter().chain(valid), "loss.kind")?;
        }
        let (mut kept, mut note) = (None, None);
        if settings.loss.needs_reference() {
            let in_memory = ReferenceLogps::new(reference.clone(), settings.ld_alpha);
            kept = Some(if settings.cache_reference {
                let (on_disk, said) = in_memory.on_disk()?;
                note = said;
                on_disk
            } else {
                in_memory
            });
        }
        let shift = match settings.loss.shift() {
            Some((_, decay)) => Some(RewardShift::new(decay)?),
            None => None,
        };
        let objective = Self {
            train,
            valid,
            settings: settings.clone(),
            reference: kept,
            rewards: RefCell::default(),
            shift,
        };
        Ok((objective, note))
    }

    /// Loss a pair, and implicit rewards of both sides.
    fn score(
        &self,
        decoder: &Decoder,
        weights: &Weights,
        pairs: &[&PairSample],
    ) -> Result<[Tensor<1>; 3], TrainError> {
        let (n, loss) = (pairs.len(), &self.settings.loss);
        let units: Vec<Unit<'_>> = pairs.iter().map(|p| vec![&p.chosen, &p.rejected]).collect();
        let tensor = |data: Vec<f32>| -> Tensor<1> {
            Tensor::from_data(TensorData::new(data, [n]), decoder.device())
        };
        let reference = if let Some(reference) = &self.reference {
            let known = reference.of(&units)?;
            PairLogps {
                chosen: tensor(known.iter().map(|pair| pair[0]).collect()),
                rejected: tensor(known.iter().map(|pair| pair[1]).collect()),
            }
        } else {
            PairLogps {
                chosen: tensor(vec![0.0; n]),
                rejected: tensor(vec![0.0; n]),
            }
        };
        // After the reference, whose forward pass is over then: this one's activations stay.
        let (sums, tokens) = summed(decoder, weights, &units, self.settings.ld_alpha)?;
        let policy = both(&sums);
        let lens: Vec<f32> = tokens.lens.iter().map(|len| *len as f32).collect();
        let lens: Tensor<1> = Tensor::from_data(TensorData::new(lens, [2 * n]), decoder.device());
        let PairLogps { chosen, rejected } = both(&lens);
        let certain: Option<Vec<f32>> = pairs
            .iter()
            .map(|pair| pair.probability.map(|p| p as f32))
            .collect();
        let counts = PairTokens {
            chosen,
            rejected,
            probability: certain.map(tensor),
        };
        let shift = self.shift.map_or(0.0, |shift| shift.mean);
        let mut losses = loss.losses(&policy, &reference, &counts, shift)?;
        if self.settings.use_weighting {
            let collisions = pad(tokens.collision.clone(), &tokens.lens);
            let collisions = both(&collisions.sum_dim(1).reshape([2 * n]));
            let (n, m) = (&counts.chosen, &counts.rejected);
            losses = losses * wpo_weights(&policy, &collisions, n, m)?;
        }
        let scale = loss.reward_scale();
        let (chosen, rejected) = dpo::implicit_rewards(&policy, &reference, scale)?;
        Ok([losses, chosen, rejected])
    }
}

/// # Errors
/// When a pair has no probability: names its number, and the setting that asks for one.
pub(crate) fn labelled<'a>(
    mut pairs: impl Iterator<Item = &'a PairSample>,
    setting: &str,
) -> Result<(), TrainError> {
    match pairs.position(|pair| pair.probability.is_none()) {
        None => Ok(()),
        Some(number) => {
            let reason = format!(
                "learns from each pair's `probability`, and pair {} has none",
                number + 1
            );
            Err(TrainError::config(setting, reason))
        }
    }
}

/// The sides of pairs that stand side by side.
fn both(x: &Tensor<1>) -> PairLogps {
    let n = x.dims()[0] / 2;
    let pairs: Tensor<2> = x.clone().reshape([n, 2]);
    let side = |i| pairs.clone().narrow(1, i, 1).reshape([n]);
    PairLogps {
        chosen: side(0),
        rejected: side(1),
    }
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
        let [losses, chosen, rejected] = self.score(decoder, weights, &pairs)?;
        let loss = Normalisation::Sequence { denominator }.sequences(losses)?;
        let mut row = Row::default();
        row.add("loss", host(&loss)[0]);
        let (chosen, rejected) = (host(&chosen), host(&rejected));
        log_pairs(&mut row, &chosen, &rejected, denominator);
        if self.shift.is_some() {
            let [first, second] = &mut *self.rewards.borrow_mut();
            first.extend(chosen);
            second.extend(rejected);
        }
        Ok((loss, row))
    }

    fn updated(&mut self, decoder: &Decoder, update: u64) -> Result<(), TrainError> {
        if let (Some(shift), Some((beta, _))) = (&mut self.shift, self.settings.loss.shift()) {
            // What is logged has the scale of the whole loss; the shift has that of its term.
            let scale = beta / self.settings.loss.reward_scale();
            let [chosen, rejected] = self.rewards.get_mut();
            let scaled = |x: &mut Vec<f64>| -> Vec<f64> {
                std::mem::take(x).iter().map(|r| r * scale).collect()
            };
            shift.update(&scaled(chosen), &scaled(rejected))?;
        }
        match &mut self.reference {
            Some(reference) => reference.follow(self.settings.reference, decoder, update),
            None => Ok(()),
        }
    }

    fn save(&mut self, checkpoint: &mut Checkpoint) -> Result<Value, TrainError> {
        if let Some(kept) = &self.reference {
            if self.settings.reference.moves() {
                reference::save(checkpoint, kept.decoder());
            }
            kept.save(checkpoint);
            kept.store()?;
        }
        Ok(json!({"shift": self.shift.map(|shift| shift.mean)}))
    }

    fn restore(&mut self, stored: &Stored, kept: &Value) -> Result<(), TrainError> {
        if let Some(kept) = &mut self.reference {
            if self.settings.reference.moves() {
                reference::restore(stored, kept.decoder_mut())?;
            }
            kept.restore(stored)?;
        }
        if let Some(shift) = &mut self.shift {
            let reason = "its state has no `shift`";
            shift.mean = kept["shift"]
                .as_f64()
                .ok_or_else(|| TrainError::config("checkpoint", reason))?;
        }
        Ok(())
    }

    fn evaluate(&self, decoder: &Decoder, limit: usize) -> Result<Option<Row>, TrainError> {
        let pairs: Vec<&PairSample> = self.valid.iter().take(limit).collect();
        if pairs.is_empty() {
            return Ok(None);
        }
        let weights = decoder.frozen();
        let denominator = pairs.len() as f64;
        let mut row = Row::default();
        for part in pairs.chunks(EVAL_PART / 2) {
            let [losses, chosen, rejected] = self.score(decoder, &weights, part)?;
            row.add("loss", host(&losses).iter().sum::<f64>() / denominator);
            log_pairs(&mut row, &host(&chosen), &host(&rejected), denominator);
        }
        row.set("samples", denominator);
        Ok(Some(row))
    }
}
