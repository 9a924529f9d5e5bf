//! Where models come from.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use togi_data::{Tokenizer, lab as world};

use crate::{
    Policy, adapter,
    config::{Family, Head, ModelConfig, RopeScaling},
    decoder::Decoder,
    error::PolicyError,
    gguf, hf,
    hub::RepoId,
    known::Known,
    params::Params,
};

/// A model source as people write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The lab's untrained model.
    Lab,
    /// A Hugging Face folder.
    Folder(PathBuf),
    /// A PEFT folder: an adapter, with the place of the model that it belongs to.
    Adapter(PathBuf),
    /// A GGUF file.
    Gguf(PathBuf),
    /// A repository on the Hugging Face hub.
    Hub(RepoId),
}

impl Source {
    /// Reads a source: `lab`, the path of a Hugging Face or PEFT folder, of a run folder or a GGUF
    /// file, `hf:owner/name[@revision]`, or the short name of a model that was fetched.
    ///
    /// # Errors
    /// When there is nothing of this kind at the path.
    pub fn parse(spec: &str) -> Result<Self, PolicyError> {
        if spec == "lab" {
            return Ok(Self::Lab);
        }
        if let Some(repo) = spec.strip_prefix("hf:") {
            return Ok(Self::Hub(RepoId::parse(repo)?));
        }
        let path = Path::new(spec);
        if let Some(source) = Self::at(path).or_else(|| Self::at(&path.join("model"))) {
            return Ok(source);
        }
        let wrong = |reason: String| PolicyError::Source {
            spec: spec.to_owned(),
            reason,
        };
        if path.exists() {
            return Err(wrong(
                "is neither a Hugging Face folder (no config.json, no adapter_config.json) nor a \
                 finished run folder (no model/config.json) nor a .gguf file"
                    .to_owned(),
            ));
        }
        if let Some(known) = Known::find(spec) {
            let found = known.cached()?.and_then(|path| Self::at(&path));
            return found.ok_or_else(|| {
                wrong(format!(
                    "is not here yet; bring it with `cargo xtask fetch {spec}`"
                ))
            });
        }
        Err(wrong(
            "does not exist; a model is `lab`, a Hugging Face folder, a run folder, a .gguf file, \
             hf:owner/name, or what `cargo xtask fetch` lists"
                .to_owned(),
        ))
    }

    fn at(path: &Path) -> Option<Self> {
        if path.join(adapter::CONFIG).is_file() {
            return Some(Self::Adapter(path.to_owned()));
        }
        if path.join("config.json").is_file() {
            return Some(Self::Folder(path.to_owned()));
        }
        let is_gguf = path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
        (is_gguf && path.is_file()).then(|| Self::Gguf(path.to_owned()))
    }

    /// True for the lab's model, and for one that was trained from it: its words are the lab's.
    pub fn is_of_lab(&self) -> bool {
        let (Self::Folder(folder) | Self::Adapter(folder)) = self else {
            return *self == Self::Lab;
        };
        let (Ok(theirs), Ok(ours)) = (Tokenizer::from_folder(folder), world::tokenizer()) else {
            return false;
        };
        let size = ours.vocab_size() as u32;
        theirs.vocab_size() as u32 == size && (0..size).all(|id| theirs.token(id) == ours.token(id))
    }

    /// Loads the model, an adapter folded in; the lab's is drawn from `seed`.
    ///
    /// # Errors
    /// As [`hf::load`], [`gguf::load`], [`adapter::load_merged`] and [`RepoId::fetch`].
    pub fn load(&self, device: &Device, seed: u64) -> Result<Policy, PolicyError> {
        match self {
            Self::Lab => lab(device, seed),
            Self::Folder(folder) => hf::load(folder, device),
            Self::Adapter(folder) => adapter::load_merged(folder, device, seed),
            Self::Gguf(path) => gguf::load(path, device),
            Self::Hub(repo) => {
                let folder = repo.fetch()?;
                match Self::at(&folder) {
                    Some(Self::Hub(_)) | None => hf::load(&folder, device),
                    Some(source) => source.load(device, seed),
                }
            }
        }
    }

    /// What [`adapter::save`] can name this model by: PEFT finds it from any folder.
    /// `None` for a model that is in no file of its own.
    pub fn base_name(&self) -> Option<String> {
        match self {
            Self::Lab | Self::Adapter(_) => None,
            Self::Folder(path) | Self::Gguf(path) => {
                let whole = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                Some(whole.display().to_string())
            }
            // Without `hf:`, which is ours.
            Self::Hub(repo) => Some(repo.to_string().trim_start_matches("hf:").to_owned()),
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
