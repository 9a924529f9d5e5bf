//! The one decoder that serves every family: its configuration says which parts it has.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use togi_data::{Sample, rng::CounterRng};
use togi_kernels::{
    Activation, AttentionShape, KvCache, Precision, RotaryTable, WeightFormat, attention,
    embedding, linear, linear_for_sampling, linear_in, rms_norm, rotary,
};

use crate::{
    config::ModelConfig, error::PolicyError, lora::LoraConfig, packed::Packed, params::Params,
    weights::Weights,
};

/// A causal language model, or one with a scalar head (`score.weight`).
#[derive(Clone, Debug)]
pub struct Decoder {
    /// What the model is.
    pub config: ModelConfig,
    /// Its parameters, off autodiff, under Hugging Face's names.
    pub params: Params,
    /// The adapter whose `lora_A` and `lora_B` are among the parameters, if any.
    pub lora: Option<LoraConfig>,
    /// In what precision products with weights are computed; everything else is float32. It is the
    /// program's ([`Precision::of_program`]) when the decoder is made.
    pub precision: Precision,
    /// How sampling holds weights where it lays them out ([`Decoder::sampling`]): as `precision` computes
    /// if it is `None`.
    pub sampled_as: Option<WeightFormat>,
    device: Device,
    table: RotaryTable,
}

/// What attention does with keys and values: a whole packed batch, or one token more for each row.
pub(crate) enum Attend<'a> {
    Packed(&'a Packed),
    /// As `Packed`, and each sequence's keys and values go into its slot from position 0 on.
    Prefill(&'a Packed, &'a mut [KvCache], &'a [usize]),
    /// `(slot, position)` of each row.
    Step(&'a mut [KvCache], &'a [(usize, usize)]),
}

impl Decoder {
    /// Joins configuration and parameters.
    ///
    /// # Errors
    /// When a parameter that the configuration asks for is missing or has another shape.
    pub fn new(config: ModelConfig, params: Params, device: Device) -> Result<Self, PolicyError> {
        config.check_params(&params)?;
        let table = RotaryTable::new(
            &config.inverse_frequencies(),
            config.max_position_embeddings,
        );
        Ok(Self {
            config,
            params,
            lora: None,
            precision: Precision::of_program(),
            sampled_as: None,
            device: device.without_autodiff(),
            table,
        })
    }

    /// Where the parameters live; not on autodiff.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Weights for a training pass.
    pub fn tracked(&self) -> Weights {
        Weights::tracked(&self.params)
    }

    /// Weights for a pass without gradients.
    pub fn frozen(&self) -> Weights {
        Weights::frozen(&self.params)
    }

    /// Weights for sampling: linear layers and the head are laid out for it, in copies of their own.
    /// [`crate::generate()`] alone reads them.
    pub fn sampling(&self) -> Weights {
        let mut weights = self.frozen().for_sampling();
        if let Some(format) = self.sampling_format() {
            for group in self.packed_groups() {
                weights.pack(&group, format);
            }
        }
        weights
    }

    /// How weights are laid out for sampling; `None` where precision and format have no such form.
    fn sampling_format(&self) -> Option<WeightFormat> {
        self.sampled_as.or_else(|| WeightFormat::of(self.precision))
    }

    /// [`Decoder::sampling`] without a copy: the parameters are gone from this decoder afterwards,
    /// which has its configuration and its adapter still.
    pub fn into_sampling(&mut self) -> Weights {
        let mut weights = self.frozen().for_sampling();
        for (_, param) in self.params.iter_mut() {
            param.tensor = Tensor::zeros([0], &self.device);
        }
        let Some(format) = self.sampling_format() else {
            return weights;
        };
        for group in self.packed_groups() {
            match &group[..] {
                [alone] => weights.pack_whole(alone, format),
                _ => weights.pack(&group, format),
            }
        }
        weights
    }

    /// Names of the matrices that are read together.
    fn packed_groups(&self) -> Vec<Vec<String>> {
        let mut groups = Vec::new();
        for layer in 0..self.config.num_hidden_layers {
            for (block, parts) in [
                ("self_attn", &["q_proj", "k_proj", "v_proj"][..]),
                ("self_attn", &["o_proj"]),
                ("mlp", &["gate_proj", "up_proj"]),
                ("mlp", &["down_proj"]),
            ] {
                let name = |part: &&str| format!("model.layers.{layer}.{block}.{part}.weight");
                groups.push(parts.iter().map(name).collect());
            }
        }
        groups.push(vec![self.head_name().to_owned()]);
        groups
    }

    /// The layout of the attention heads.
    pub fn attention_shape(&self) -> AttentionShape {
        AttentionShape {
            heads: self.config.num_attention_heads,
            kv_heads: self.config.num_key_value_heads,
            head_dim: self.config.head_dim,
        }
    }

    /// Last hidden states after the final norm, `[tokens, hidden_size]`.
    ///
    /// # Errors
    /// When an id is outside the vocabulary or a sequence is longer than the model's positions.
    pub fn hidden(&self, weights: &Weights, batch: &Packed) -> Result<Tensor<2>, PolicyError> {
        self.check(batch)?;
        self.run(weights, &batch.ids, &batch.positions, Attend::Packed(batch))
    }

    /// Scores of the scalar head at each sequence's last token, `[batch]`.
    ///
    /// # Errors
    /// As [`Decoder::hidden`]; when a sequence is empty; when the model has no scalar head.
    pub fn scores(
        &self,
        weights: &Weights,
        sequences: &[&[u32]],
    ) -> Result<Tensor<1>, PolicyError> {
        if let Some(index) = sequences.iter().position(|s| s.is_empty()) {
            return Err(PolicyError::EmptySequence { index });
        }
        let batch = Packed::new(sequences.iter().copied());
        let last = (0..sequences.len()).map(|i| batch.last_row(i)).collect();
        let hidden = self.hidden(weights, &batch)?;
        self.scalar_head(weights, hidden, last)
    }

    /// Scores of the scalar head at given positions of each sequence, all in a row: where the steps of
    /// an answer end.
    ///
    /// # Errors
    /// As [`Decoder::scores`].
    ///
    /// # Panics
    /// When a position is outside its sequence.
    pub fn scores_at(
        &self,
        weights: &Weights,
        sequences: &[&[u32]],
        positions: &[&[usize]],
    ) -> Result<Tensor<1>, PolicyError> {
        let batch = Packed::new(sequences.iter().copied());
        let mut rows = Vec::new();
        for (number, positions) in positions.iter().enumerate() {
            for position in *positions {
                assert!(*position < sequences[number].len(), "scores_at: position");
                rows.push(batch.row(number, *position));
            }
        }
        let hidden = self.hidden(weights, &batch)?;
        self.scalar_head(weights, hidden, rows)
    }

    /// Scores of the scalar head where each scored token of the samples is predicted, in the
    /// order and with the lengths of [`Decoder::log_probs`].
    ///
    /// # Errors
    /// As [`Decoder::scores`].
    pub fn values(&self, weights: &Weights, samples: &[&Sample]) -> Result<Tensor<1>, PolicyError> {
        let batch = Packed::new(samples.iter().map(|sample| &sample.ids[..]));
        let mut rows = Vec::new();
        for (number, sample) in samples.iter().enumerate() {
            rows.extend(sample.scored().map(|i| batch.row(number, i - 1)));
        }
        let hidden = self.hidden(weights, &batch)?;
        self.scalar_head(weights, hidden, rows)
    }

    fn scalar_head(
        &self,
        weights: &Weights,
        hidden: Tensor<2>,
        rows: Vec<u32>,
    ) -> Result<Tensor<1>, PolicyError> {
        let head = self.matrix(weights, SCORE_HEAD)?;
        let count = rows.len();
        // `embedding` is a gather of rows with a deterministic backward pass.
        let rows = embedding(hidden, &rows.into());
        Ok(linear(rows, head).reshape([count]))
    }

    /// The matrix that turns hidden states into logits, `[vocabulary, hidden_size]`.
    pub(crate) fn head(&self, weights: &Weights) -> Result<Tensor<2>, PolicyError> {
        self.matrix(weights, self.head_name())
    }

    fn head_name(&self) -> &'static str {
        if self.config.tie_word_embeddings {
            EMBEDDING
        } else {
            LM_HEAD
        }
    }

    /// Logits of hidden states, `[rows, vocabulary]`.
    pub(crate) fn say(
        &self,
        weights: &Weights,
        hidden: Tensor<2>,
    ) -> Result<Tensor<2>, PolicyError> {
        let [logits] = self.products(weights, [self.head_name().to_owned()], &hidden.into())?;
        Ok(logits)
    }

    pub(crate) fn check(&self, batch: &Packed) -> Result<(), PolicyError> {
        if let Some(id) = batch
            .ids
            .iter()
            .find(|id| **id as usize >= self.config.vocab_size)
        {
            return Err(PolicyError::TokenOutsideVocabulary {
                id: *id,
                vocab_size: self.config.vocab_size,
            });
        }
        let (longest, limit) = (batch.longest(), self.table.positions());
        if longest > limit {
            return Err(PolicyError::TooLong {
                tokens: longest,
                limit,
            });
        }
        Ok(())
    }

    pub(crate) fn matrix(&self, weights: &Weights, name: &str) -> Result<Tensor<2>, PolicyError> {
        weights
            .matrix(name)
            .ok_or_else(|| PolicyError::MissingTensors {
                place: "the model".to_owned(),
                names: vec![name.to_owned()],
            })
    }

    fn vector(&self, weights: &Weights, name: &str) -> Result<Tensor<1>, PolicyError> {
        weights
            .vector(name)
            .ok_or_else(|| PolicyError::MissingTensors {
                place: "the model".to_owned(),
                names: vec![name.to_owned()],
            })
    }

    pub(crate) fn run(
        &self,
        weights: &Weights,
        ids: &Arc<[u32]>,
        positions: &Arc<[u32]>,
        mut attend: Attend<'_>,
    ) -> Result<Tensor<2>, PolicyError> {
        let mut x = match (weights.packed(EMBEDDING), weights.passes(), &attend) {
            (Some(packed), ..) => packed.rows(ids),
            (None, Some(passes), Attend::Packed(batch)) => {
                let x = self.run_layers_kept(weights, passes, batch)?;
                return self.last_norm(weights, x);
            }
            (None, ..) => self.embed(weights, ids)?,
        };
        for layer in 0..self.config.num_hidden_layers {
            x = self.layer(weights, layer, x, positions, &mut attend)?;
        }
        self.last_norm(weights, x)
    }

    /// The embeddings of ids, rounded as a packed matrix holds them.
    pub(crate) fn embed(
        &self,
        weights: &Weights,
        ids: &Arc<[u32]>,
    ) -> Result<Tensor<2>, PolicyError> {
        let rows = embedding(self.matrix(weights, EMBEDDING)?, ids);
        Ok(self.precision.round(rows))
    }

    /// `x Wᵀ` in the decoder's precision.
    fn product(&self, weights: &Weights, x: impl Into<Activation>, weight: Tensor<2>) -> Tensor<2> {
        let x = x.into();
        match weights.are_for_sampling() {
            true => linear_for_sampling(self.precision, x.value(), weight),
            false => linear_in(self.precision, x, weight),
        }
    }

    fn last_norm(&self, weights: &Weights, x: Tensor<2>) -> Result<Tensor<2>, PolicyError> {
        let norm = self.vector(weights, "model.norm.weight")?;
        Ok(rms_norm(x, norm, self.config.rms_norm_eps))
    }

    /// One decoder layer.
    pub(crate) fn layer(
        &self,
        weights: &Weights,
        layer: usize,
        x: Tensor<2>,
        positions: &Arc<[u32]>,
        attend: &mut Attend<'_>,
    ) -> Result<Tensor<2>, PolicyError> {
        let eps = self.config.rms_norm_eps;
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let mlp = |part: &str| format!("model.layers.{layer}.mlp.{part}");
        let norm = self.vector(weights, &name("input_layernorm.weight"))?;
        let normed = Activation::rms_norm(x.clone(), norm, eps);
        let attended = self.attend(weights, layer, normed, positions, attend)?;
        let [out] = self.project(weights, [name("self_attn.o_proj")], attended.into())?;
        let norm = self.vector(weights, &name("post_attention_layernorm.weight"))?;
        let (x, normed) = Activation::rms_norm_of_sum(x, out, norm, eps);
        let parts = [mlp("gate_proj"), mlp("up_proj")];
        let [gate, up] = self.project(weights, parts, normed)?;
        let gated = Activation::swiglu(gate, up);
        let [out] = self.project(weights, [mlp("down_proj")], gated)?;
        Ok(x + out)
    }

    fn attend(
        &self,
        weights: &Weights,
        layer: usize,
        x: Activation,
        positions: &Arc<[u32]>,
        attend: &mut Attend<'_>,
    ) -> Result<Tensor<2>, PolicyError> {
        let name = |part: &str| format!("model.layers.{layer}.self_attn.{part}");
        let parts = [name("q_proj"), name("k_proj"), name("v_proj")];
        let [mut q, mut k, v] = self.project(weights, parts, x)?;
        if self.config.qk_norm {
            q = self.head_norm(weights, &name("q_norm.weight"), q)?;
            k = self.head_norm(weights, &name("k_norm.weight"), k)?;
        }
        let q = rotary(q, positions, &self.table);
        let k = rotary(k, positions, &self.table);
        let shape = self.attention_shape();
        Ok(match attend {
            Attend::Packed(batch) => attention(q, k, v, &batch.runs, shape),
            Attend::Prefill(batch, caches, slots) => {
                for (sequence, slot) in slots.iter().enumerate() {
                    let mut position = 0;
                    for rows in batch.pieces(sequence) {
                        let part = |x: &Tensor<2>| x.clone().narrow(0, rows.start, rows.len());
                        caches[layer].write(*slot, position, part(&k), part(&v));
                        position += rows.len();
                    }
                }
                attention(q, k, v, &batch.runs, shape)
            }
            Attend::Step(caches, rows) => caches[layer].step(q, k, v, rows),
        })
    }

    /// RMS norm of each head by itself (Qwen3).
    fn head_norm(
        &self,
        weights: &Weights,
        name: &str,
        x: Tensor<2>,
    ) -> Result<Tensor<2>, PolicyError> {
        let [tokens, width] = x.dims();
        let head_dim = self.config.head_dim;
        let norm = self.vector(weights, name)?;
        let heads = x.reshape([tokens * width / head_dim, head_dim]);
        Ok(rms_norm(heads, norm, self.config.rms_norm_eps).reshape([tokens, width]))
    }

    /// Linear layers of one input with their biases and their low-rank branches, where there are
    /// any: `x Wᵀ + b + (alpha / r) (drop(x) Aᵀ) Bᵀ`.
    fn project<const N: usize>(
        &self,
        weights: &Weights,
        names: [String; N],
        x: Activation,
    ) -> Result<[Tensor<2>; N], PolicyError> {
        let matrices = names.each_ref().map(|name| format!("{name}.weight"));
        let outs = self.products(weights, matrices, &x)?;
        let mut sums = Vec::with_capacity(N);
        for (mut out, name) in outs.into_iter().zip(&names) {
            if let Some(bias) = weights.vector(&format!("{name}.bias")) {
                out = out + bias.unsqueeze();
            }
            if let Some(lora) = &self.lora
                && let Some(a) = weights.matrix(&format!("{name}.lora_A.weight"))
            {
                let b = self.matrix(weights, &format!("{name}.lora_B.weight"))?;
                let x = self.drop(weights, lora.dropout, name, &x);
                // The narrow side is scaled.
                let narrow = self.product(weights, x, a) * lora.scale();
                out = out + self.product(weights, narrow, b);
            }
            sums.push(out);
        }
        Ok(sums.try_into().expect("a result for each name"))
    }

    /// `x Wᵀ` for each matrix of this name.
    fn products<const N: usize>(
        &self,
        weights: &Weights,
        names: [String; N],
        x: &Activation,
    ) -> Result<[Tensor<2>; N], PolicyError> {
        let outs = match weights.packed(&names[0]) {
            Some(packed) => packed.apply(x.value()),
            None => {
                let mut outs = Vec::with_capacity(N);
                for name in &names {
                    let weight = self.matrix(weights, name)?;
                    outs.push(self.product(weights, x.clone(), weight));
                }
                outs
            }
        };
        Ok(outs
            .try_into()
            .expect("as many results as matrices are read together"))
    }

    /// Inverted dropout, keyed by the pass and the layer's name.
    fn drop(&self, weights: &Weights, rate: f64, name: &str, x: &Activation) -> Activation {
        let Some(key) = weights.dropout().filter(|_| rate > 0.0) else {
            return x.clone();
        };
        let x = x.value();
        let shape = x.dims();
        let layer = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        let mut rng = CounterRng::new(key.seed, &[0x0064_726f_7000, key.pass, layer]);
        let keep = (1.0 / (1.0 - rate)) as f32;
        let mask: Vec<f32> = (0..shape[0] * shape[1])
            .map(|_| if rng.next_f64() < rate { 0.0 } else { keep })
            .collect();
        (x * Tensor::from_data(TensorData::new(mask, shape), &self.device)).into()
    }
}

/// Name of the embedding matrix.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// Name of the output head of models whose head is not the embedding.
pub const LM_HEAD: &str = "lm_head.weight";
/// Name of the scalar head of reward and value models.
pub const SCORE_HEAD: &str = "score.weight";
