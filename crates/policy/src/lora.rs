//! Low-rank adapters (Hu et al. 2021).

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use togi_data::rng::CounterRng;
use togi_kernels::matmul;

use crate::{decoder::Decoder, error::PolicyError};

/// Which layers get an adapter, and of what rank.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Rank.
    pub r: usize,
    /// The branch is scaled by `alpha / r`.
    pub alpha: f64,
    /// Dropout on the branch's input during training.
    pub dropout: f64,
    /// Last parts of the names of the linear layers that are adapted, such as `q_proj`.
    pub target_modules: Vec<String>,
}

/// Every linear layer of a block, what PEFT calls `all-linear`.
pub const ALL_LINEAR: [&str; 7] = [
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
];

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            r: 16,
            alpha: 32.0,
            dropout: 0.0,
            target_modules: ALL_LINEAR.map(str::to_owned).to_vec(),
        }
    }
}

impl LoraConfig {
    /// What the branch is multiplied with.
    pub fn scale(&self) -> f64 {
        self.alpha / self.r as f64
    }

    /// # Errors
    /// Names the field that is out of range.
    pub fn validate(&self) -> Result<(), PolicyError> {
        let wrong = |field: &str, reason: String| {
            Err(PolicyError::Lora {
                field: field.to_owned(),
                reason,
            })
        };
        if self.r == 0 {
            return wrong("r", "the rank must be at least 1".to_owned());
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return wrong("alpha", format!("{} is not a positive number", self.alpha));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return wrong("dropout", format!("{} is not in [0, 1)", self.dropout));
        }
        if self.target_modules.is_empty() {
            return wrong("target_modules", "no module is named".to_owned());
        }
        for module in &self.target_modules {
            if !ALL_LINEAR.contains(&module.as_str()) {
                let all = ALL_LINEAR.join(", ");
                return wrong(
                    "target_modules",
                    format!("`{module}` is not a linear layer; there are {all}"),
                );
            }
        }
        Ok(())
    }
}

impl Decoder {
    /// Adds a fresh adapter and freezes every other parameter except a scalar head.
    ///
    /// `A` is drawn uniformly from ±sqrt(6 / ((1 + 5) in)) (Kaiming with a = √5, PEFT's and
    /// PyTorch's initialisation), `B` is zero, so the model is unchanged at first.
    ///
    /// # Errors
    /// When a field is out of range or there is an adapter already.
    pub fn add_lora(&mut self, lora: LoraConfig, seed: u64) -> Result<(), PolicyError> {
        lora.validate()?;
        if self.lora.is_some() {
            return Err(PolicyError::Lora {
                field: "model".to_owned(),
                reason: "the model has an adapter already; merge it first".to_owned(),
            });
        }
        self.freeze_base();
        let device = self.device().clone();
        for (index, (name, out, inner)) in self.adapted(&lora).into_iter().enumerate() {
            let bound = 1.0 / (inner as f64).sqrt();
            let mut rng = CounterRng::new(seed, &[0x6c6f_7261, index as u64]);
            let a: Vec<f32> = (0..lora.r * inner)
                .map(|_| ((2.0 * rng.next_f64() - 1.0) * bound) as f32)
                .collect();
            let tensor = |data: Vec<f32>| {
                let count = data.len();
                Tensor::<1>::from_data(TensorData::new(data, [count]), &device)
            };
            let (r, zeros) = (lora.r, vec![0.0; out * lora.r]);
            self.params
                .insert(&format!("{name}.lora_A.weight"), vec![r, inner], tensor(a));
            self.params.insert(
                &format!("{name}.lora_B.weight"),
                vec![out, r],
                tensor(zeros),
            );
        }
        self.lora = Some(lora);
        Ok(())
    }

    /// Makes everything but adapters and a scalar head untrainable.
    pub(crate) fn freeze_base(&mut self) {
        for (name, param) in self.params.iter_mut() {
            param.trainable = name == crate::decoder::SCORE_HEAD || name.contains(".lora_");
        }
    }

    /// `(layer, out, in)` of every linear layer that the adapter is on.
    pub(crate) fn adapted(&self, lora: &LoraConfig) -> Vec<(String, usize, usize)> {
        self.params
            .iter()
            .filter_map(|(name, param)| {
                let layer = name.strip_suffix(".weight")?;
                let module = layer.rsplit('.').next()?;
                let targeted = lora.target_modules.iter().any(|t| t == module);
                match param.shape[..] {
                    [out, inner] if targeted => Some((layer.to_owned(), out, inner)),
                    _ => None,
                }
            })
            .collect()
    }

    /// Folds the adapter into the weights, `W + (alpha / r) B A`, and removes it; every parameter
    /// is trainable afterwards. Does nothing without an adapter.
    pub fn merge_lora(&mut self) {
        let Some(lora) = self.lora.take() else {
            return;
        };
        for (layer, out, inner) in self.adapted(&lora) {
            let take = |params: &mut crate::params::Params, name: &str| {
                params.remove(&format!("{layer}.{name}.weight"))
            };
            let a = take(&mut self.params, "lora_A");
            let b = take(&mut self.params, "lora_B");
            let (Some(a), Some(b)) = (a, b) else { continue };
            let a = a.tensor.reshape([lora.r, inner]);
            let b = b.tensor.reshape([out, lora.r]);
            if let Some(param) = self.params.get_mut(&format!("{layer}.weight")) {
                let delta = matmul(b, a) * lora.scale();
                param.tensor = param.tensor.clone() + delta.reshape([out * inner]);
            }
        }
        for (_, param) in self.params.iter_mut() {
            param.trainable = true;
        }
    }
}
