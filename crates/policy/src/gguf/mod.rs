//! GGUF files: one file with a model, mostly quantised, and its tokenizer.
//!
//! Weights are dequantised to float32 when they are read. Nothing in a file is trusted: every
//! length, count and offset is checked against the file's size before anything is allocated.

use std::{collections::HashMap, fs, path::Path};

use burn::tensor::Device;
use rayon::prelude::*;

pub mod container;
pub mod quant;
mod tokenizer;

pub use container::{Gguf, Info};
pub use quant::TensorType;

use crate::{
    Policy,
    config::{Family, ModelConfig, RopeScaling},
    decoder::{Decoder, EMBEDDING, LM_HEAD},
    error::PolicyError,
    hf,
};

const ARCHITECTURE: &str = "general.architecture";
const ROPE_FREQUENCIES: &str = "rope_freqs.weight";
/// Sizes of a model, at most: a hostile file cannot ask for an absurd amount of memory.
const MOST: u64 = 1 << 28;
/// Positions, at most; the rotary table has a row for each.
const POSITIONS: u64 = 1 << 20;

/// Reads a model and its tokenizer, weights as float32.
///
/// # Errors
/// Names the field or tensor that is missing, left over, malformed, of the wrong shape, or asks
/// for something that is not supported.
pub fn load(path: &Path, device: &Device) -> Result<Policy, PolicyError> {
    let bytes = fs::read(path).map_err(PolicyError::io(path))?;
    let place = path.display().to_string();
    let gguf = Gguf::parse(&bytes, path)?;
    let mut config = config(&gguf)?;
    let tokenizer = tokenizer::read(&gguf)?;
    config.bos_token_id = tokenizer.bos_id();
    config.eos_token_ids = tokenizer.eos_ids().to_vec();
    config.pad_token_id = tokenizer.pad_id();
    let params = hf::assemble(weights(&gguf, &config)?, &config, &place, device)?;
    Policy::new(
        Decoder::new(config, params, device.clone())?,
        tokenizer,
        &place,
    )
}

fn config(gguf: &Gguf<'_>) -> Result<ModelConfig, PolicyError> {
    let (name, family) = match gguf.text(ARCHITECTURE)? {
        Some(name @ "llama") => (name, Family::Llama),
        Some(name @ "qwen2") => (name, Family::Qwen2),
        Some(name @ "qwen3") => (name, Family::Qwen3),
        Some(other) => {
            let what = format!("the architecture `{other}`");
            return gguf.unsupported(what, "llama, qwen2, qwen3");
        }
        None => return gguf.wrong(ARCHITECTURE, "is missing"),
    };
    let key = |field: &str| format!("{name}.{field}");
    let required = |field: &str| match gguf.size(&key(field), MOST)? {
        Some(n) => Ok(n),
        None => gguf.wrong(&key(field), "is missing"),
    };
    let unsupported = |field: &str| gguf.unsupported(format!("`{name}.{field}`"), "none");
    // Each of them changes what the model computes.
    for field in ["expert_count", "attention.sliding_window"] {
        if gguf
            .field(&key(field))
            .is_some_and(|v| v.as_u64() != Some(0))
        {
            return unsupported(field);
        }
    }
    let layers = required("block_count")?;
    if layers > gguf.tensors().len() {
        let reason = format!("is {layers}, more than the file has tensors");
        return gguf.wrong(&key("block_count"), reason);
    }
    let hidden_size = required("embedding_length")?;
    let heads = required("attention.head_count")?;
    let kv = "attention.head_count_kv";
    let kv_heads = gguf.size(&key(kv), MOST)?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        let reason = format!("{kv_heads} does not divide the {heads} attention heads");
        return gguf.wrong(&key(kv), reason);
    }
    let length = "attention.key_length";
    let head_dim = match gguf.size(&key(length), MOST)? {
        Some(n) => n,
        None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            let reason = "is missing and heads do not divide the embedding's length";
            return gguf.wrong(&key(length), reason);
        }
    };
    if head_dim % 2 != 0 {
        return gguf.wrong(
            &key(length),
            format!("{head_dim} is odd; rotary needs pairs"),
        );
    }
    for field in ["attention.value_length", "rope.dimension_count"] {
        if let Some(n) = gguf.size(&key(field), MOST)?.filter(|n| *n != head_dim) {
            let what = format!("`{name}.{field}` of {n}");
            return gguf.unsupported(what, &format!("the head's width, {head_dim}"));
        }
    }
    let Some(embedding) = gguf.tensor("token_embd.weight") else {
        return Err(PolicyError::MissingTensors {
            place: gguf.path().display().to_string(),
            names: vec!["token_embd.weight".to_owned()],
        });
    };
    let has = |part: &str| gguf.tensor(&format!("blk.0.{part}.bias")).is_some();
    let bias = ["attn_q", "attn_k", "attn_v", "attn_output"]
        .into_iter()
        .any(has);
    let positions = gguf.size(&key("context_length"), POSITIONS)?;
    let epsilon = "attention.layer_norm_rms_epsilon";
    let Some(rms_norm_eps) = gguf.number(&key(epsilon))? else {
        return gguf.wrong(&key(epsilon), "is missing");
    };
    Ok(ModelConfig {
        family,
        vocab_size: embedding.shape[0],
        hidden_size,
        intermediate_size: required("feed_forward_length")?,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        head_dim,
        max_position_embeddings: positions.unwrap_or(2048),
        rms_norm_eps,
        rope_theta: gguf.number(&key("rope.freq_base"))?.unwrap_or(10_000.0),
        rope_scaling: rope_scaling(gguf, name)?,
        tie_word_embeddings: gguf.tensor("output.weight").is_none(),
        qkv_bias: bias || family == Family::Qwen2,
        o_bias: bias && family != Family::Qwen2,
        mlp_bias: ["ffn_gate", "ffn_up", "ffn_down"].into_iter().any(has),
        qk_norm: family == Family::Qwen3,
        bos_token_id: None,
        eos_token_ids: Vec::new(),
        pad_token_id: None,
    })
}

fn rope_scaling(gguf: &Gguf<'_>, architecture: &str) -> Result<RopeScaling, PolicyError> {
    if let Some(tensor) = gguf.tensor(ROPE_FREQUENCIES)
        && tensor.values().iter().any(|x| *x != 1.0)
    {
        let what = format!("rotary frequencies of their own (tensor `{ROPE_FREQUENCIES}`)");
        return gguf.unsupported(what, "rope scaling none, linear");
    }
    let key = |field: &str| format!("{architecture}.rope.{field}");
    // The older field has no type beside it.
    let old = gguf.number(&key("scale_linear"))?;
    let factor = gguf.number(&key("scaling.factor"))?.or(old);
    match gguf.text(&key("scaling.type"))? {
        Some("none") => Ok(RopeScaling::None),
        None if old.is_none() => Ok(RopeScaling::None),
        None | Some("linear") => match factor {
            Some(factor) => Ok(RopeScaling::Linear { factor }),
            None => gguf.wrong(&key("scaling.factor"), "is missing"),
        },
        Some(other) => gguf.unsupported(format!("rope scaling `{other}`"), "none, linear"),
    }
}

/// Hugging Face's name of a tensor.
fn hf_name(name: &str) -> Option<String> {
    match name {
        "token_embd.weight" => return Some(EMBEDDING.to_owned()),
        "output_norm.weight" => return Some("model.norm.weight".to_owned()),
        "output.weight" => return Some(LM_HEAD.to_owned()),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let (part, kind) = rest.rsplit_once('.')?;
    let part = match part {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{part}.{kind}"))
}

/// A tensor's shape and values.
type Values = (Vec<usize>, Vec<f32>);

/// All tensors under Hugging Face's names; those that have none keep their own, for the error.
fn weights(gguf: &Gguf<'_>, config: &ModelConfig) -> Result<HashMap<String, Values>, PolicyError> {
    let extra: Vec<String> = gguf
        .tensors()
        .iter()
        .filter(|t| t.name != ROPE_FREQUENCIES && hf_name(t.name).is_none())
        .map(|t| t.name.to_owned())
        .collect();
    if !extra.is_empty() {
        return Err(PolicyError::ExtraTensors {
            place: gguf.path().display().to_string(),
            names: extra,
        });
    }
    let read = |info: &Info<'_>| -> Option<(String, Values)> {
        let name = hf_name(info.name)?;
        let mut values = info.values();
        if config.family == Family::Llama {
            let heads = match name.rsplit('.').nth(1) {
                Some("q_proj") => config.num_attention_heads,
                Some("k_proj") => config.num_key_value_heads,
                _ => 0,
            };
            if heads > 0 && info.shape[0] == heads * config.head_dim {
                values = halves(&values, info.shape[0], config.head_dim);
            }
        }
        Some((name, (info.shape.clone(), values)))
    };
    Ok(gguf.tensors().par_iter().filter_map(read).collect())
}

/// llama.cpp stores the rows of a head as the pairs that its rotary turns together, first and
/// second of each pair side by side; here all first ones come before all second ones.
fn halves(values: &[f32], rows: usize, head_dim: usize) -> Vec<f32> {
    let width = values.len() / rows;
    let mut out = Vec::with_capacity(values.len());
    for head in values.chunks_exact(head_dim * width) {
        for second in 0..2 {
            for pair in 0..head_dim / 2 {
                let row = pair * 2 + second;
                out.extend_from_slice(&head[row * width..(row + 1) * width]);
            }
        }
    }
    out
}
