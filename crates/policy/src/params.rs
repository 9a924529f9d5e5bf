//! A model's parameters under Hugging Face's names.

use burn::tensor::{Device, Tensor, TensorData};
use togi_data::rng::CounterRng;

use crate::{
    config::{Head, ModelConfig},
    decoder::SCORE_HEAD,
    error::PolicyError,
};

/// One parameter.
#[derive(Clone, Debug)]
pub struct Param {
    /// Its shape, in Hugging Face's orientation (`[out, in]` for a linear layer).
    pub shape: Vec<usize>,
    /// Its values in row-major order, float32, off autodiff.
    pub tensor: Tensor<1>,
    /// Whether training changes it.
    pub trainable: bool,
}

/// Parameters in a fixed order, by name.
#[derive(Clone, Debug, Default)]
pub struct Params {
    entries: Vec<(String, Param)>,
}

impl Params {
    /// Adds a trainable parameter, or replaces the one of this name.
    pub fn insert(&mut self, name: &str, shape: Vec<usize>, tensor: Tensor<1>) {
        let param = Param {
            shape,
            tensor,
            trainable: true,
        };
        match self.get_mut(name) {
            Some(old) => *old = param,
            None => self.entries.push((name.to_owned(), param)),
        }
    }

    /// The parameter of this name.
    pub fn get(&self, name: &str) -> Option<&Param> {
        self.entries.iter().find(|(n, _)| n == name).map(|(_, p)| p)
    }

    /// The parameter of this name.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Param> {
        self.entries
            .iter_mut()
            .find(|(n, _)| n == name)
            .map(|(_, p)| p)
    }

    /// Takes the parameter of this name out.
    pub fn remove(&mut self, name: &str) -> Option<Param> {
        let at = self.entries.iter().position(|(n, _)| n == name)?;
        Some(self.entries.remove(at).1)
    }

    /// True if there is a parameter of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All parameters, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Param)> {
        self.entries
            .iter()
            .map(|(name, param)| (name.as_str(), param))
    }

    /// All parameters, in order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Param)> {
        self.entries
            .iter_mut()
            .map(|(name, param)| (name.as_str(), param))
    }

    /// Numbers in all parameters, and in those that training changes.
    pub fn count(&self) -> (usize, usize) {
        let sum = |trainable_only: bool| {
            self.entries
                .iter()
                .filter(|(_, p)| p.trainable || !trainable_only)
                .map(|(_, p)| p.shape.iter().product::<usize>())
                .sum()
        };
        (sum(false), sum(true))
    }

    /// Moves every parameter towards that of another model: `θ ← (1 - share) θ + share other`. With
    /// `share` 1 it becomes the other.
    ///
    /// # Errors
    /// When the other model lacks a parameter or has one of another shape; nothing is changed then.
    pub fn mix(&mut self, other: &Self, share: f64) -> Result<(), PolicyError> {
        let fits = |name: &str, param: &Param| {
            other
                .get(name)
                .is_some_and(|theirs| theirs.shape == param.shape)
        };
        let names: Vec<String> = self
            .iter()
            .filter(|(name, param)| !fits(name, param))
            .map(|(name, _)| name.to_owned())
            .collect();
        if !names.is_empty() {
            let place = "the model that is mixed in".to_owned();
            return Err(PolicyError::MissingTensors { place, names });
        }
        for (name, param) in self.iter_mut() {
            if let Some(theirs) = other.get(name) {
                param.tensor = if share == 1.0 {
                    // A copy: updates of the other are in place.
                    theirs.tensor.clone() * 1.0
                } else {
                    param.tensor.clone() * (1.0 - share) + theirs.tensor.clone() * share
                };
            }
        }
        Ok(())
    }

    /// Fresh parameters: matrices normal with deviation 0.02 (GPT-2's and Llama's), norms 1,
    /// biases 0; a scalar head normal with deviation `1 / sqrt(hidden_size + 1)` (Stiennon et
    /// al. 2020).
    pub fn random(config: &ModelConfig, head: Head, seed: u64, device: &Device) -> Self {
        let mut params = Self::default();
        for (index, (name, shape)) in config.expected(head).into_iter().enumerate() {
            let count: usize = shape.iter().product();
            let mut rng = CounterRng::new(seed, &[0x696e_6974, index as u64]);
            let data: Vec<f32> = if name.ends_with("norm.weight") {
                vec![1.0; count]
            } else if name.ends_with(".bias") {
                vec![0.0; count]
            } else {
                let deviation = if name == SCORE_HEAD {
                    1.0 / (config.hidden_size as f64 + 1.0).sqrt()
                } else {
                    0.02
                };
                (0..count)
                    .map(|_| (rng.gaussian() * deviation) as f32)
                    .collect()
            };
            let tensor = Tensor::from_data(TensorData::new(data, [count]), device);
            params.insert(&name, shape, tensor);
        }
        params
    }
}
