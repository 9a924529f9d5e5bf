//! Causal language models: weights in and out, adapters, log-probabilities, generation.

pub mod adapter;
pub mod config;
pub mod constraint;
pub mod decoder;
pub mod error;
pub mod generate;
pub mod gguf;
pub mod hf;
pub mod hub;
pub mod known;
pub mod log_probs;
pub mod lora;
pub mod packed;
pub mod params;
mod recompute;
mod score_head;
pub mod source;
pub mod tensor_file;
pub mod weights;

pub use config::{Head, ModelConfig};
pub use constraint::{Constraint, ConstraintError, Rules, Vocabulary};
pub use decoder::Decoder;
pub use error::PolicyError;
pub use generate::{Finish, Generation, Sampling, generate};
pub use log_probs::TokenLogps;
pub use lora::LoraConfig;
pub use packed::Packed;
pub use params::{Param, Params};
pub use togi_kernels::{Precision, WeightFormat};
pub use weights::{DropoutKey, GradientSums, Weights};

use togi_data::Tokenizer;

/// A model and its tokenizer.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The model.
    pub decoder: Decoder,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
}

impl Policy {
    /// Joins a model and its tokenizer.
    ///
    /// # Errors
    /// When the tokenizer has tokens that the model has not.
    pub fn new(decoder: Decoder, tokenizer: Tokenizer, place: &str) -> Result<Self, PolicyError> {
        let (tokens, vocab_size) = (tokenizer.ids_end(), decoder.config.vocab_size);
        if tokens > vocab_size {
            return Err(PolicyError::Vocabulary {
                place: place.to_owned(),
                tokens,
                vocab_size,
            });
        }
        Ok(Self { decoder, tokenizer })
    }
}
