//! Log-probabilities of given tokens.

use std::sync::Arc;

use burn::tensor::{Bool, Int, Tensor, TensorData};
use togi_data::Sample;
use togi_kernels::{embedding, selected_log_probs};

use crate::{decoder::Decoder, error::PolicyError, packed::Packed, weights::Weights};

/// Log-probabilities of the scored tokens of a batch, in nats.
#[derive(Clone, Debug)]
pub struct TokenLogps {
    /// One a scored token, all samples in a row: `[tokens]`.
    pub values: Tensor<1>,
    /// Entropy of the distribution that each was scored under: `[tokens]`.
    pub entropy: Tensor<1>,
    /// `log Σ p²` of that distribution: `[tokens]`, without gradient.
    pub collision: Tensor<1>,
    /// The loss weight of each.
    pub weights: Arc<[f32]>,
    /// Scored tokens of each sample.
    pub lens: Arc<[usize]>,
}

impl Decoder {
    /// Scores the samples' tokens of non-zero weight under `softmax(logits / temperature)`.
    ///
    /// The head is applied at the scored positions only, in blocks.
    ///
    /// # Errors
    /// As [`Decoder::hidden`]; when a sample scores its first token, which nothing predicts; when
    /// the temperature is not positive.
    pub fn log_probs(
        &self,
        weights: &Weights,
        samples: &[&Sample],
        temperature: f64,
    ) -> Result<TokenLogps, PolicyError> {
        if !(temperature.is_finite() && temperature > 0.0) {
            return Err(PolicyError::Sampling {
                field: "temperature",
                reason: format!("{temperature} is not a positive number"),
            });
        }
        let batch = Packed::new(samples.iter().map(|sample| &sample.ids[..]));
        let (mut rows, mut targets) = (Vec::new(), Vec::new());
        let (mut token_weights, mut lens) = (Vec::new(), Vec::new());
        for (number, sample) in samples.iter().enumerate() {
            let before = rows.len();
            for i in sample.scored() {
                rows.push(batch.row(number, i - 1));
                targets.push(sample.ids[i]);
                token_weights.push(sample.weights[i]);
            }
            lens.push(rows.len() - before);
        }
        let hidden = self.hidden(weights, &batch)?;
        // `embedding` is a gather of rows with a deterministic backward pass.
        let hidden = embedding(hidden, &rows.into());
        let head = self.head(weights)?;
        let targets = targets.into();
        let scored = selected_log_probs(self.precision, hidden, head, &targets, temperature);
        Ok(TokenLogps {
            values: scored.logps,
            entropy: scored.entropy,
            collision: scored.collision,
            weights: token_weights.into(),
            lens: lens.into(),
        })
    }

    /// Logits of every token of one sequence, `[tokens, vocabulary]`: for comparisons and small
    /// models, since it holds them all.
    ///
    /// # Errors
    /// As [`Decoder::hidden`].
    pub fn logits(&self, weights: &Weights, ids: &[u32]) -> Result<Tensor<2>, PolicyError> {
        let hidden = self.hidden(weights, &Packed::new([ids]))?;
        Ok(togi_kernels::linear_in(
            self.precision,
            hidden,
            self.head(weights)?,
        ))
    }
}

impl TokenLogps {
    /// The sum over each sample's scored tokens, weighted: `[batch]`.
    pub fn sums(&self) -> Tensor<1> {
        let count = self.weights.len();
        let values = if self.weights.iter().all(|w| *w == 1.0) {
            self.values.clone()
        } else {
            let weights = TensorData::new(self.weights.to_vec(), [count]);
            self.values.clone() * Tensor::from_data(weights, &self.values.device())
        };
        let padded = pad(values, &self.lens);
        let batch = self.lens.len();
        padded.sum_dim(1).reshape([batch])
    }

    /// `[batch, time]`, left-aligned, 0 where there is no token; and the mask, true where there
    /// is one.
    pub fn padded(&self) -> (Tensor<2>, Tensor<2, Bool>) {
        let mask = completion_mask(&self.lens, &self.values.device());
        (pad(self.values.clone(), &self.lens), mask)
    }
}

/// Runs of values as rows, left-aligned and filled up with zeros: `[batch, longest]`.
///
/// # Panics
/// When the lengths do not add up to the number of values.
pub fn pad(values: Tensor<1>, lens: &[usize]) -> Tensor<2> {
    let total: usize = lens.iter().sum();
    assert_eq!(
        values.dims()[0],
        total,
        "pad: lengths do not add up to the values"
    );
    let time = lens.iter().copied().max().unwrap_or(0);
    if time == 0 {
        return Tensor::zeros([lens.len(), 0], &values.device());
    }
    let device = values.device();
    let with_zero = Tensor::cat(vec![values, Tensor::zeros([1], &device)], 0);
    let mut index = vec![total as i32; lens.len() * time];
    let mut next = 0;
    for (row, len) in index.chunks_mut(time).zip(lens) {
        for place in &mut row[..*len] {
            *place = next;
            next += 1;
        }
    }
    let count = index.len();
    let index = Tensor::<1, Int>::from_data(TensorData::new(index, [count]), &device);
    with_zero.select(0, index).reshape([lens.len(), time])
}

/// True where a row of [`pad`] has a value.
pub fn completion_mask(lens: &[usize], device: &burn::tensor::Device) -> Tensor<2, Bool> {
    let time = lens.iter().copied().max().unwrap_or(0);
    let mask: Vec<bool> = lens
        .iter()
        .flat_map(|len| (0..time).map(move |t| t < *len))
        .collect();
    Tensor::from_data(TensorData::new(mask, [lens.len(), time]), device)
}
