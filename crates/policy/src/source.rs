//! Where models come from.

use std::path::{Path, PathBuf};

use burn::tensor::Device;

use crate::{
    Policy,
    config::{Family, Head, ModelConfig, RopeScaling},
    decoder::Decoder,
    error::PolicyError,
    gguf, hf,
    params::Params,
};

/// A model source as people write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The lab's untrained model.
    Lab,
    /// A Hugging Face folder.
    Folder(PathBuf),
    /// A run folder: the model in its `model/`.
    Run(PathBuf),
    /// A GGUF file.
    Gguf(PathBuf),
}

impl Source {
    /// Reads a source: `lab`, or the path of a Hugging Face folder, a run folder or a GGUF file.
    ///
    /// # Errors
    /// When there is nothing of this kind at the path.
    pub fn parse(spec: &str) -> Result<Self, PolicyError> {
        if spec == "lab" {
            return Ok(Self::Lab);
        }
        let path = Path::new(spec);
        if path.join("config.json").is_file() {
            return Ok(Self::Folder(path.to_owned()));
        }
        if path.join("model").join("config.json").is_file() {
            return Ok(Self::Run(path.to_owned()));
        }
        let is_gguf = path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
        if is_gguf && path.is_file() {
            return Ok(Self::Gguf(path.to_owned()));
        }
        let reason = if path.exists() {
            "is neither a Hugging Face folder (no config.json) nor a finished run folder (no \
             model/config.json) nor a .gguf file"
        } else {
            "does not exist; a model is `lab`, a Hugging Face folder, a run folder or a .gguf file"
        };
        Err(PolicyError::Source {
            spec: spec.to_owned(),
            reason: reason.to_owned(),
        })
    }

    /// Loads the model; the lab's is drawn from `seed`.
    ///
    /// # Errors
    /// As [`hf::load`] and [`gguf::load`].
    pub fn load(&self, device: &Device, seed: u64) -> Result<Policy, PolicyError> {
        match self {
            Self::Lab => lab(device, seed),
            Self::Folder(folder) => hf::load(folder, device),
            Self::Run(folder) => hf::load(&folder.join("model"), device),
            Self::Gguf(path) => gguf::load(path, device),
        }
    }
}

/// The lab's model before any training: two layers of width 128 over the lab's words.
///
/// # Errors
/// When the lab's tokenizer cannot be made.
pub fn lab(device: &Device, seed: u64) -> Result<Policy, PolicyError> {
    let tokenizer = togi_data::lab::tokenizer()?;
    let config = ModelConfig {
        family: Family::Llama,
        vocab_size: tokenizer.ids_end(),
        hidden_size: 128,
        intermediate_size: 256,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 4,
        head_dim: 32,
        max_position_embeddings: 128,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        tie_word_embeddings: true,
        qkv_bias: false,
        o_bias: false,
        mlp_bias: false,
        qk_norm: false,
        bos_token_id: None,
        eos_token_ids: tokenizer.eos_ids().to_vec(),
        pad_token_id: tokenizer.pad_id(),
    };
    let params = Params::random(&config, Head::LanguageModel, seed, device);
    Policy::new(
        Decoder::new(config, params, device.clone())?,
        tokenizer,
        "lab",
    )
}
