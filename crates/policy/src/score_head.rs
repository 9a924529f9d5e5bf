//! Reward and value models: a scalar head in the place of the output head.

use burn::tensor::{Tensor, TensorData};
use togi_data::rng::CounterRng;

use crate::{
    config::{Head, ModelConfig},
    decoder::{Decoder, SCORE_HEAD},
    error::PolicyError,
    params::Params,
};

impl Decoder {
    /// This model with a scalar head in the place of its output head, drawn from `seed`
    /// (deviation `1 / sqrt(hidden_size + 1)`, Stiennon et al. 2020) or zero. An adapter is folded
    /// in; a model that has a scalar head keeps it.
    ///
    /// # Errors
    /// When the parameters do not fit the configuration.
    pub fn with_score_head(&self, seed: Option<u64>) -> Result<Self, PolicyError> {
        let mut decoder = self.clone();
        decoder.merge_lora();
        if decoder.params.contains(SCORE_HEAD) {
            return Ok(decoder);
        }
        let config = ModelConfig {
            tie_word_embeddings: true,
            ..decoder.config.clone()
        };
        let width = config.hidden_size;
        let device = decoder.device().clone();
        let mut params = Params::default();
        for (name, shape) in config.expected(Head::Score) {
            match decoder.params.get(&name) {
                Some(param) => params.insert(&name, shape, param.tensor.clone()),
                None => {
                    let deviation = 1.0 / (width as f64 + 1.0).sqrt();
                    let data: Vec<f32> = match seed {
                        Some(seed) => {
                            let mut rng = CounterRng::new(seed, &[0x6865_6164]);
                            (0..width)
                                .map(|_| (rng.gaussian() * deviation) as f32)
                                .collect()
                        }
                        None => vec![0.0; width],
                    };
                    let tensor = Tensor::from_data(TensorData::new(data, [width]), &device);
                    params.insert(&name, shape, tensor);
                }
            }
        }
        Self::new(config, params, device)
    }
}
