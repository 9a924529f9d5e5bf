//! Hugging Face folders: `config.json`, safetensors (one file or shards), tokenizer.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;
use togi_data::Tokenizer;

use crate::{
    Policy,
    config::{Head, ModelConfig},
    decoder::{Decoder, LM_HEAD},
    error::PolicyError,
    params::{Param, Params},
    tensor_file::{self, Raw, TensorFile},
};

pub(crate) fn read_json(path: &Path) -> Result<Value, PolicyError> {
    let text = fs::read_to_string(path).map_err(PolicyError::io(path))?;
    serde_json::from_str(&text).map_err(|e| PolicyError::malformed(path, e.to_string()))
}

/// Reads a model and its tokenizer. A causal language model's folder can be read with
/// [`Head::Score`] wanted only if it has the scalar head.
///
/// # Errors
/// Names the file, field or tensor that is missing, left over, malformed or of the wrong shape.
pub fn load(folder: &Path, device: &Device) -> Result<Policy, PolicyError> {
    let place = folder.display().to_string();
    let config_path = folder.join("config.json");
    let json = read_json(&config_path)?;
    let mut config = ModelConfig::from_hf_json(&json, &config_path.display().to_string())?;
    let params = load_params(folder, &config, device)?;
    let mut tokenizer = Tokenizer::from_folder(folder)?;
    if tokenizer.eos_ids().is_empty() {
        tokenizer.add_eos(config.eos_token_ids.iter().copied());
    }
    if config.eos_token_ids.is_empty() {
        config.eos_token_ids = tokenizer.eos_ids().to_vec();
    }
    Policy::new(
        Decoder::new(config, params, device.clone())?,
        tokenizer,
        &place,
    )
}

/// Files that hold the tensors: the shards of an index, or one file.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, PolicyError> {
    let index = folder.join("model.safetensors.index.json");
    if !index.exists() {
        return Ok(vec![folder.join("model.safetensors")]);
    }
    let names = shard_names(&index)?;
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// The files that an index of shards names.
pub(crate) fn shard_names(index: &Path) -> Result<BTreeSet<String>, PolicyError> {
    let json = read_json(index)?;
    let map = json.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| PolicyError::malformed(index, "field `weight_map` is missing"))?;
    let mut files = BTreeSet::new();
    for (tensor, file) in map {
        // A shard lies in the folder itself: anything else could lead out of it.
        let name = file
            .as_str()
            .filter(|f| !f.contains(['/', '\\']) && !f.starts_with('.'));
        let Some(name) = name else {
            let reason = format!("`weight_map.{tensor}` is not a file name: {file}");
            return Err(PolicyError::malformed(index, reason));
        };
        files.insert(name.to_owned());
    }
    Ok(files)
}

/// All tensors of a safetensors file, in float32.
pub(crate) fn read_tensors(path: &Path) -> Result<Vec<(String, Raw)>, PolicyError> {
    let file = TensorFile::open(path)?;
    let read = |name: &str| Ok((name.to_owned(), file.read(name)?));
    file.names().map(read).collect()
}

fn load_params(
    folder: &Path,
    config: &ModelConfig,
    device: &Device,
) -> Result<Params, PolicyError> {
    let place = folder.display().to_string();
    let mut found: HashMap<String, Raw> = HashMap::new();
    for path in weight_files(folder)? {
        for (name, raw) in read_tensors(&path)? {
            let name = match name.strip_prefix("model.") {
                Some(_) => name,
                // The headless `LlamaModel` saves its tensors without the prefix.
                None if name.starts_with("layers.") || name.starts_with("embed_tokens.") => {
                    format!("model.{name}")
                }
                None if name == "norm.weight" => "model.norm.weight".to_owned(),
                None => name,
            };
            found.insert(name, raw);
        }
    }
    assemble(found, config, &place, device)
}

/// Orders tensors as the configuration asks for and refuses what does not fit.
pub(crate) fn assemble(
    mut found: HashMap<String, Raw>,
    config: &ModelConfig,
    place: &str,
    device: &Device,
) -> Result<Params, PolicyError> {
    let head = if found.contains_key(crate::decoder::SCORE_HEAD) {
        Head::Score
    } else {
        Head::LanguageModel
    };
    let mut params = Params::default();
    let mut missing = Vec::new();
    for (name, expected) in config.expected(head) {
        let Some((shape, data)) = found.remove(&name) else {
            missing.push(name);
            continue;
        };
        if shape != expected {
            let place = place.to_owned();
            return Err(PolicyError::Shape {
                place,
                name,
                found: shape,
                expected,
            });
        }
        let count = data.len();
        let tensor = Tensor::from_data(TensorData::new(data, [count]), device);
        params.insert(&name, shape, tensor);
    }
    if !missing.is_empty() {
        return Err(PolicyError::MissingTensors {
            place: place.to_owned(),
            names: missing,
        });
    }
    // A tied head may be saved once more, and old files hold the rotary frequencies.
    let mut extra: Vec<String> = found
        .into_keys()
        .filter(|name| {
            let tied = name == LM_HEAD && (config.tie_word_embeddings || head == Head::Score);
            !tied && !name.ends_with("rotary_emb.inv_freq")
        })
        .collect();
    if extra.is_empty() {
        return Ok(params);
    }
    extra.sort();
    Err(PolicyError::ExtraTensors {
        place: place.to_owned(),
        names: extra,
    })
}

/// Writes a folder that `transformers` loads: `config.json`, `generation_config.json`,
/// `model.safetensors` and the tokenizer. An adapter must be merged first, or it is saved by
/// itself. Files are written into a folder beside and renamed into place.
///
/// # Errors
/// When a file cannot be written; the old folder, if any, is untouched then.
pub fn save(policy: &Policy, folder: &Path) -> Result<(), PolicyError> {
    let decoder = &policy.decoder;
    let head = ModelConfig::head_of(&decoder.params);
    replace_folder(folder, |dir| {
        let write = |name: &str, text: String| {
            let path = dir.join(name);
            fs::write(&path, text).map_err(PolicyError::io(&path))
        };
        write(
            "config.json",
            format!("{:#}\n", decoder.config.to_hf_json(head)),
        )?;
        let generation = serde_json::json!({
            "bos_token_id": decoder.config.bos_token_id,
            "eos_token_id": decoder.config.eos_token_ids,
            "pad_token_id": decoder.config.pad_token_id,
        });
        write("generation_config.json", format!("{generation:#}\n"))?;
        let all = decoder
            .params
            .iter()
            .map(|(name, param)| (name.to_owned(), param));
        save_tensors(all, &dir.join("model.safetensors"))?;
        policy.tokenizer.save(dir)?;
        Ok(())
    })
}

/// Writes parameters under the names given, as float32 safetensors.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn save_tensors<'a>(
    params: impl Iterator<Item = (String, &'a Param)>,
    path: &Path,
) -> Result<(), PolicyError> {
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let tensors = params.map(|(name, param)| (name, param.shape.clone(), &param.tensor));
    tensor_file::write(tensors, Some(metadata), path)
}

/// Fills a new folder and puts it in the place of `folder`.
pub(crate) fn replace_folder(
    folder: &Path,
    fill: impl FnOnce(&Path) -> Result<(), PolicyError>,
) -> Result<(), PolicyError> {
    let parent = folder.parent().filter(|p| !p.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(PolicyError::io(parent))?;
    let name = folder
        .file_name()
        .map_or("model".into(), |n| n.to_string_lossy());
    let fresh = parent.join(format!(".{name}.new"));
    let old = parent.join(format!(".{name}.old"));
    for left in [&fresh, &old] {
        if left.exists() {
            fs::remove_dir_all(left).map_err(PolicyError::io(left))?;
        }
    }
    fs::create_dir(&fresh).map_err(PolicyError::io(&fresh))?;
    fill(&fresh)?;
    if folder.exists() {
        fs::rename(folder, &old).map_err(PolicyError::io(folder))?;
    }
    fs::rename(&fresh, folder).map_err(PolicyError::io(folder))?;
    if old.exists() {
        fs::remove_dir_all(&old).map_err(PolicyError::io(&old))?;
    }
    Ok(())
}
