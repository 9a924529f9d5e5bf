//! KTO: single answers with a thumb up or down (Ethayarajh et al. 2024).
//!
//! The reference point is estimated as in TRL: each completion of a batch is put after the prompt of
//! the next sample of that batch, the last one's after the first prompt. The reference is the model
//! that training starts from. Left out: the paper's variant without a reference point.

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use togi_data::{LabelledSample, Sample, lab::AnnotatorConfig};
use togi_policy::{Decoder, LoraConfig, Weights};
use togi_rl_algos::{
    Normalisation,
    kto::{KtoWeights, kto_loss, reference_point},
};

use crate::{
    checkpoint::{Checkpoint, Stored},
    config::{DataSection, LoopSection, OptimSection, RecipeConfig, positive, within},
    error::TrainError,
    metrics::Row,
    offline::{Objective, host},
    reference_logps::{ReferenceLogps, Unit},
    sft::EVAL_PART,
};

/// Configuration of the recipe `kto`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KtoConfig {
    /// Of data order, dropout and adapters.
    pub seed: u64,
    /// Strength of the pull towards the reference.
    pub beta: f64,
    /// Weight of wanted answers.
    pub desirable_weight: f64,
    /// Weight of the others. The paper wants weight times number of the two kinds about equal.
    pub undesirable_weight: f64,
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

impl Default for KtoConfig {
    /// The paper's, which are TRL's.
    fn default() -> Self {
        Self {
            seed: 0,
            beta: 0.1,
            desirable_weight: 1.0,
            undesirable_weight: 1.0,
            train: LoopSection::default(),
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

impl RecipeConfig for KtoConfig {
    fn validate(&self) -> Result<(), TrainError> {
        positive("beta", self.beta)?;
        within("desirable_weight", self.desirable_weight, 0.0, f64::MAX)?;
        within("undesirable_weight", self.undesirable_weight, 0.0, f64::MAX)?;
        self.train.validate()?;
        if self.train.batch_size < 2 {
            let reason = "must be at least 2: the reference point pairs answers with other prompts";
            return Err(TrainError::config("train.batch_size", reason));
        }
        self.optim.validate()?;
        self.data.validate()?;
        if let Some(lora) = &self.lora {
            lora.validate()?;
        }
        Ok(())
    }
}

/// The objective over labelled samples.
#[derive(Debug)]
pub struct Kto<'a> {
    train: &'a [LabelledSample],
    valid: &'a [LabelledSample],
    reference: ReferenceLogps,
    beta: f64,
    weights: KtoWeights,
}

impl<'a> Kto<'a> {
    /// The objective with the model that training starts from as the reference.
    pub fn new(
        train: &'a [LabelledSample],
        valid: &'a [LabelledSample],
        settings: &KtoConfig,
        reference: &Decoder,
    ) -> Self {
        Self {
            train,
            valid,
            reference: ReferenceLogps::new(reference.clone(), 1.0),
            beta: settings.beta,
            weights: KtoWeights {
                desirable: settings.desirable_weight,
                undesirable: settings.undesirable_weight,
            },
        }
    }

    /// `max(0, mean log π/ref)` of each completion after the next sample's prompt, cut where the model's positions end.
    fn mismatch(&self, decoder: &Decoder, samples: &[&LabelledSample]) -> Result<f64, TrainError> {
        let count = samples.len();
        let positions = decoder.config.max_position_embeddings;
        let others: Vec<Sample> = (0..count)
            .filter_map(|i| {
                let (prompt, _) = samples[i].split();
                let (_, completion) = samples[(i + count - 1) % count].split();
                let fits = completion.len().min(positions.saturating_sub(prompt.len()));
                (fits > 0).then(|| Sample::from_parts(prompt, &completion[..fits], &[]))
            })
            .collect();
        if others.is_empty() {
            return Ok(0.0);
        }
        let (weights, reference) = (decoder.frozen(), self.reference.decoder().frozen());
        let mut ratios = Vec::with_capacity(count);
        for part in others.chunks(EVAL_PART) {
            let views: Vec<&Sample> = part.iter().collect();
            let ours = decoder.log_probs(&weights, &views, 1.0)?.sums();
            let model = self.reference.decoder();
            let theirs = model.log_probs(&reference, &views, 1.0)?.sums();
            ratios.extend(host(&(ours - theirs)));
        }
        Ok(reference_point(&ratios)?)
    }

    /// Loss an answer, and its implicit reward.
    fn score(
        &self,
        decoder: &Decoder,
        weights: &Weights,
        samples: &[&LabelledSample],
        z: f64,
    ) -> Result<[Tensor<1>; 2], TrainError> {
        let views: Vec<&Sample> = samples.iter().map(|s| &s.sample).collect();
        let units: Vec<Unit<'_>> = views.iter().map(|sample| vec![*sample]).collect();
        let reference: Vec<f32> = self.reference.of(&units)?.concat();
        // After the reference, whose forward pass is over then: this one's activations stay.
        let policy = decoder.log_probs(weights, &views, 1.0)?.sums();
        let data = TensorData::new(reference, [samples.len()]);
        let reference = Tensor::from_data(data, decoder.device());
        let labels: Vec<bool> = samples.iter().map(|s| s.desirable).collect();
        let loss = kto_loss(&policy, &reference, &labels, z, self.beta, self.weights)?;
        Ok([loss, (policy.detach() - reference) * self.beta])
    }
}

/// Adds the mean implicit reward of each kind of answers, each over its own number in the batch.
fn log_kinds(row: &mut Row, samples: &[&LabelledSample], rewards: &[f64], counts: [f64; 2]) {
    for (sample, reward) in samples.iter().zip(rewards) {
        let (name, count) = match sample.desirable {
            true => ("rewards/chosen", counts[0]),
            false => ("rewards/rejected", counts[1]),
        };
        row.add(name, reward / count);
    }
}

/// Wanted and unwanted answers.
fn counts<'a>(samples: impl Iterator<Item = &'a LabelledSample>) -> [f64; 2] {
    samples.fold([0.0; 2], |mut counts, sample| {
        counts[usize::from(!sample.desirable)] += 1.0;
        counts
    })
}

/// What the parts of a batch have to know of it.
#[derive(Clone, Copy, Debug)]
pub struct KtoBatch {
    denominator: f64,
    reference_point: f64,
    kinds: [f64; 2],
}

impl Objective for Kto<'_> {
    type Whole = KtoBatch;

    fn len(&self) -> usize {
        self.train.len()
    }

    fn tokens(&self, sample: usize) -> usize {
        self.train[sample].sample.len()
    }

    fn begin(&self, decoder: &Decoder, batch: &[usize]) -> Result<KtoBatch, TrainError> {
        let samples: Vec<&LabelledSample> = batch.iter().map(|i| &self.train[*i]).collect();
        Ok(KtoBatch {
            denominator: batch.len() as f64,
            reference_point: self.mismatch(decoder, &samples)?,
            kinds: counts(samples.iter().copied()),
        })
    }

    fn loss(
        &self,
        decoder: &Decoder,
        weights: &Weights,
        part: &[usize],
        whole: &KtoBatch,
    ) -> Result<(Tensor<1>, Row), TrainError> {
        let samples: Vec<&LabelledSample> = part.iter().map(|i| &self.train[*i]).collect();
        let [losses, rewards] = self.score(decoder, weights, &samples, whole.reference_point)?;
        let denominator = whole.denominator;
        let loss = Normalisation::Sequence { denominator }.sequences(losses)?;
        let mut row = Row::default();
        row.add("loss", host(&loss)[0]);
        row.add(
            "kl",
            whole.reference_point * part.len() as f64 / denominator,
        );
        log_kinds(&mut row, &samples, &host(&rewards), whole.kinds);
        Ok((loss, row))
    }

    fn save(&mut self, checkpoint: &mut Checkpoint) -> Result<Value, TrainError> {
        self.reference.save(checkpoint);
        Ok(Value::Null)
    }

    fn restore(&mut self, stored: &Stored, _: &Value) -> Result<(), TrainError> {
        self.reference.restore(stored)
    }

    fn evaluate(&self, decoder: &Decoder, limit: usize) -> Result<Option<Row>, TrainError> {
        let samples: Vec<&LabelledSample> = self.valid.iter().take(limit).collect();
        if samples.len() < 2 {
            return Ok(None);
        }
        let z = self.mismatch(decoder, &samples)?;
        let weights = decoder.frozen();
        let kinds = counts(samples.iter().copied());
        let denominator = samples.len() as f64;
        let mut row = Row::default();
        for part in samples.chunks(EVAL_PART) {
            let [losses, rewards] = self.score(decoder, &weights, part, z)?;
            row.add("loss", host(&losses).iter().sum::<f64>() / denominator);
            log_kinds(&mut row, part, &host(&rewards), kinds);
        }
        row.set("kl", z);
        Ok(Some(row))
    }
}
