//! Adapters in the layout of PEFT: `adapter_config.json` and `adapter_model.safetensors`, with the
//! tokenizer beside them.

use std::{fs, path::Path};

use burn::tensor::{Device, Tensor, TensorData};
use serde_json::{Value, json};
use togi_data::Tokenizer;

use crate::{
    Policy,
    config::{Head, ModelConfig},
    decoder::SCORE_HEAD,
    error::PolicyError,
    hf::{read_json, read_tensors, replace_folder, save_tensors},
    lora::LoraConfig,
    source::Source,
};

/// The file that tells an adapter's folder.
pub const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";

/// Writes the model's adapter as PEFT reads it. `base` is where the model without the adapter is:
/// a folder, or a repository on the hub, `owner/name[@revision]`.
///
/// # Errors
/// When the model has no adapter, or a file cannot be written.
pub fn save(policy: &Policy, base: &str, folder: &Path) -> Result<(), PolicyError> {
    let decoder = &policy.decoder;
    let Some(lora) = &decoder.lora else {
        return Err(wrong("model", "the model has no adapter"));
    };
    let scores = ModelConfig::head_of(&decoder.params) == Head::Score;
    let (base, revision) = match base.split_once('@') {
        Some((name, revision)) if !Path::new(base).is_absolute() => (name, Some(revision)),
        _ => (base, None),
    };
    let config = json!({
        "peft_type": "LORA",
        "task_type": if scores { "SEQ_CLS" } else { "CAUSAL_LM" },
        "base_model_name_or_path": base,
        "revision": revision,
        "r": lora.r,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": lora.target_modules,
        "modules_to_save": scores.then(|| json!(["score"])),
        "bias": "none",
        "fan_in_fan_out": false,
        "use_rslora": false,
        "use_dora": false,
        "inference_mode": true,
    });
    let tensors = decoder
        .params
        .iter()
        .filter(|(name, _)| name.contains(".lora_") || *name == SCORE_HEAD)
        .map(|(name, param)| (format!("{PREFIX}{name}"), param));
    replace_folder(folder, |dir| {
        let path = dir.join(CONFIG);
        fs::write(&path, format!("{config:#}\n")).map_err(PolicyError::io(&path))?;
        save_tensors(tensors, &dir.join(TENSORS))?;
        Ok(policy.tokenizer.save(dir)?)
    })
}

/// Copies an adapter's folder as it is.
///
/// # Errors
/// When a file cannot be read or written.
pub fn copy(folder: &Path, to: &Path) -> Result<(), PolicyError> {
    replace_folder(to, |dir| {
        for entry in fs::read_dir(folder).map_err(PolicyError::io(folder))? {
            let path = entry.map_err(PolicyError::io(folder))?.path();
            if let Some(name) = path.file_name().filter(|_| path.is_file()) {
                fs::copy(&path, dir.join(name)).map_err(PolicyError::io(&path))?;
            }
        }
        Ok(())
    })
}

/// Reads an adapter and the model that it belongs to, and folds the one into the other.
///
/// # Errors
/// Names the field or tensor that is missing, left over, or not supported; as [`Source::load`] for
/// the base.
pub fn load_merged(folder: &Path, device: &Device, seed: u64) -> Result<Policy, PolicyError> {
    let path = folder.join(CONFIG);
    let json = read_json(&path)?;
    let place = path.display().to_string();
    let (lora, base) = read_config(&json, &place)?;
    let mut policy = source_of(&base, &json)?.load(device, seed)?;
    let score = json.get("task_type").and_then(Value::as_str) == Some("SEQ_CLS");
    if score {
        policy.decoder = policy.decoder.with_score_head(None)?;
    }
    policy.decoder.add_lora(lora, 0)?;
    fill(&mut policy, folder, device)?;
    policy.decoder.merge_lora();
    if folder.join("tokenizer.json").exists() {
        let tokenizer = Tokenizer::from_folder(folder)?;
        return Policy::new(policy.decoder, tokenizer, &folder.display().to_string());
    }
    Ok(policy)
}

/// The model that an adapter belongs to. A name that is no path here is a repository on the hub, as PEFT has it.
fn source_of(base: &str, json: &Value) -> Result<Source, PolicyError> {
    match Source::parse(base) {
        Err(_) if base.split('/').count() == 2 => {
            let revision = json.get("revision").and_then(Value::as_str);
            let revision = revision.map_or(String::new(), |revision| format!("@{revision}"));
            Source::parse(&format!("hf:{base}{revision}"))
        }
        other => other,
    }
}

/// Puts the adapter's tensors in the place of the fresh ones.
fn fill(policy: &mut Policy, folder: &Path, device: &Device) -> Result<(), PolicyError> {
    let path = folder.join(TENSORS);
    let place = || path.display().to_string();
    let params = &mut policy.decoder.params;
    let mut missing: Vec<String> = params
        .iter()
        .filter(|(_, param)| param.trainable)
        .map(|(name, _)| name.to_owned())
        .collect();
    let mut extra = Vec::new();
    for (key, (shape, data)) in read_tensors(&path)? {
        let name = key.strip_prefix(PREFIX).unwrap_or(&key);
        let Some(at) = missing.iter().position(|m| m == name) else {
            extra.push(key);
            continue;
        };
        let name = missing.swap_remove(at);
        let Some(param) = params.get_mut(&name) else {
            continue;
        };
        if param.shape != shape {
            return Err(PolicyError::Shape {
                place: place(),
                name: key,
                found: shape,
                expected: param.shape.clone(),
            });
        }
        let count = data.len();
        param.tensor = Tensor::from_data(TensorData::new(data, [count]), device);
    }
    if !missing.is_empty() {
        missing.sort();
        return Err(PolicyError::MissingTensors {
            place: place(),
            names: missing,
        });
    }
    if !extra.is_empty() {
        return Err(PolicyError::ExtraTensors {
            place: place(),
            names: extra,
        });
    }
    Ok(())
}

fn read_config(json: &Value, place: &str) -> Result<(LoraConfig, String), PolicyError> {
    let field = |name: &str, reason: String| PolicyError::Config {
        place: place.to_owned(),
        field: name.to_owned(),
        reason,
    };
    let text = |name: &str| json.get(name).and_then(Value::as_str);
    let number = |name: &str| json.get(name).and_then(Value::as_f64);
    if text("peft_type") != Some("LORA") {
        let found = json.get("peft_type").unwrap_or(&Value::Null);
        return Err(field("peft_type", format!("{found} is not \"LORA\"")));
    }
    let plain = [
        ("bias", json!("none")),
        ("fan_in_fan_out", json!(false)),
        ("use_rslora", json!(false)),
        ("use_dora", json!(false)),
        ("rank_pattern", json!({})),
        ("alpha_pattern", json!({})),
        ("layers_to_transform", Value::Null),
        ("layer_replication", Value::Null),
        ("trainable_token_indices", Value::Null),
        ("target_parameters", Value::Null),
    ];
    for (name, expected) in plain {
        match json.get(name) {
            None | Some(Value::Null) => {}
            Some(found) if *found == expected => {}
            Some(found) => {
                let reason = format!("{found} is not supported; only {expected} is");
                return Err(field(name, reason));
            }
        }
    }
    let rank = json.get("r").and_then(Value::as_u64);
    let rank = rank.ok_or_else(|| field("r", "is missing or not a whole number".to_owned()))?;
    let alpha = number("lora_alpha");
    let alpha = alpha.ok_or_else(|| field("lora_alpha", "is missing or no number".to_owned()))?;
    let target_modules = match json.get("target_modules") {
        Some(Value::String(all)) if all == "all-linear" => {
            crate::lora::ALL_LINEAR.map(str::to_owned).to_vec()
        }
        Some(Value::Array(names)) if names.iter().all(Value::is_string) => names
            .iter()
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect(),
        other => {
            let found = other.unwrap_or(&Value::Null);
            let reason = format!("{found} is not a list of names");
            return Err(field("target_modules", reason));
        }
    };
    let base = text("base_model_name_or_path").filter(|base| !base.is_empty());
    let base = base.ok_or_else(|| field("base_model_name_or_path", "is missing".to_owned()))?;
    let lora = LoraConfig {
        r: rank as usize,
        alpha,
        dropout: number("lora_dropout").unwrap_or(0.0),
        target_modules,
    };
    Ok((lora, base.to_owned()))
}

fn wrong(field: &str, reason: &str) -> PolicyError {
    PolicyError::Lora {
        field: field.to_owned(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_on_the_hub_keeps_its_revision() {
        let mut policy = crate::source::lab(&Device::flex(), 0).unwrap();
        policy.decoder.add_lora(LoraConfig::default(), 0).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (spec, name, revision) in [
            ("hf:owner/name@v1", "owner/name", Value::from("v1")),
            ("hf:owner/name", "owner/name", Value::Null),
        ] {
            let source = Source::parse(spec).unwrap();
            let out = folder.path().join("adapter");
            save(&policy, &source.base_name().unwrap(), &out).unwrap();
            let json = read_json(&out.join(CONFIG)).unwrap();
            assert_eq!(json["base_model_name_or_path"], name);
            assert_eq!(json["revision"], revision);
            let (_, base) = read_config(&json, spec).unwrap();
            assert_eq!(source_of(&base, &json).unwrap(), source);
        }
    }
}
