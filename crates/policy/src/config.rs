//! What a decoder is made of, read from Hugging Face's `config.json`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    decoder::{EMBEDDING, LM_HEAD, SCORE_HEAD},
    error::PolicyError,
    params::Params,
};

/// The model families that the decoder covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    /// Llama 2 and 3, SmolLM2 and what shares their layout.
    Llama,
    /// Mistral without sliding window.
    Mistral,
    /// Qwen2: biases on q, k and v.
    Qwen2,
    /// Qwen3: RMS norm on each query and key head.
    Qwen3,
}

/// How rotary frequencies are stretched for longer contexts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum RopeScaling {
    /// As trained.
    None,
    /// Every frequency divided by the factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3.1's: low frequencies divided by the factor, high ones kept, a blend between.
    Llama3 {
        /// The factor.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are stretched in full.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// The context that the model was trained on first.
        original_max_position_embeddings: f64,
    },
}

/// What sits on top of the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// Next-token logits.
    LanguageModel,
    /// One number a position: reward and value models.
    Score,
}

/// The configuration of a decoder. Names as in `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub family: Family,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Longest sequence.
    pub max_position_embeddings: usize,
    /// Added to the mean square in the norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Their stretching.
    pub rope_scaling: RopeScaling,
    /// Whether the output head is the embedding.
    pub tie_word_embeddings: bool,
    /// Biases on q, k and v.
    pub qkv_bias: bool,
    /// A bias on the attention's output.
    pub o_bias: bool,
    /// Biases in the feed-forward layer.
    pub mlp_bias: bool,
    /// RMS norm on each query and key head.
    pub qk_norm: bool,
    /// Beginning of sequence.
    pub bos_token_id: Option<u32>,
    /// Ends of sequence.
    pub eos_token_ids: Vec<u32>,
    /// Padding.
    pub pad_token_id: Option<u32>,
}

const FAMILIES: &str = "LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM \
                        (and their ForSequenceClassification forms with one label)";

/// Reads fields of one JSON object with errors that name them.
struct Fields<'a> {
    map: &'a Map<String, Value>,
    place: &'a str,
}

impl Fields<'_> {
    fn wrong<T>(&self, field: &str, reason: impl Into<String>) -> Result<T, PolicyError> {
        Err(PolicyError::Config {
            place: self.place.to_owned(),
            field: field.to_owned(),
            reason: reason.into(),
        })
    }

    fn present(&self, field: &str) -> Option<&Value> {
        self.map.get(field).filter(|v| !v.is_null())
    }

    fn size(&self, field: &str) -> Result<Option<usize>, PolicyError> {
        let Some(value) = self.present(field) else {
            return Ok(None);
        };
        // Bounded, so that a hostile file cannot ask for an absurd amount of memory.
        match value.as_u64() {
            Some(n) if (1..=1 << 28).contains(&n) => Ok(Some(n as usize)),
            _ => self.wrong(
                field,
                format!("{value} is not a whole number from 1 to 2^28"),
            ),
        }
    }

    fn required(&self, field: &str) -> Result<usize, PolicyError> {
        match self.size(field)? {
            Some(n) => Ok(n),
            None => self.wrong(field, "is missing"),
        }
    }

    fn number(&self, field: &str) -> Result<Option<f64>, PolicyError> {
        let Some(value) = self.present(field) else {
            return Ok(None);
        };
        match value.as_f64() {
            Some(x) if x.is_finite() && x > 0.0 => Ok(Some(x)),
            _ => self.wrong(field, format!("{value} is not a positive number")),
        }
    }

    fn flag(&self, field: &str, default: bool) -> Result<bool, PolicyError> {
        match self.present(field) {
            None => Ok(default),
            Some(Value::Bool(b)) => Ok(*b),
            Some(value) => self.wrong(field, format!("{value} is not true or false")),
        }
    }

    fn ids(&self, field: &str) -> Result<Vec<u32>, PolicyError> {
        let Some(value) = self.present(field) else {
            return Ok(Vec::new());
        };
        let many = match value {
            Value::Array(many) => many.clone(),
            one => vec![one.clone()],
        };
        many.iter()
            .map(
                |id| match id.as_u64().and_then(|id| u32::try_from(id).ok()) {
                    Some(id) => Ok(id),
                    None => self.wrong(field, format!("{id} is not a token id")),
                },
            )
            .collect()
    }
}

impl ModelConfig {
    /// Reads `config.json`. `place` names the file in errors.
    ///
    /// # Errors
    /// Names the field that is missing, out of range or asks for something unsupported.
    pub fn from_hf_json(value: &Value, place: &str) -> Result<Self, PolicyError> {
        let Some(map) = value.as_object() else {
            return Err(PolicyError::Config {
                place: place.to_owned(),
                field: "(top level)".to_owned(),
                reason: "is not a JSON object".to_owned(),
            });
        };
        let fields = Fields { map, place };
        let unsupported = |what: String, supported: &str| {
            Err(PolicyError::Unsupported {
                place: place.to_owned(),
                what,
                supported: supported.to_owned(),
            })
        };
        let family = match family(&fields)? {
            Ok(family) => family,
            Err(name) => return unsupported(format!("the architecture `{name}`"), FAMILIES),
        };
        if fields.present("quantization_config").is_some() {
            let supported = "safetensors in f32, f16 or bf16, or a GGUF file";
            return unsupported("`quantization_config`".to_owned(), supported);
        }
        let activation = fields.present("hidden_act").and_then(Value::as_str);
        if let Some(name) = activation.filter(|a| *a != "silu" && *a != "swish") {
            return unsupported(format!("hidden_act `{name}`"), "silu");
        }
        let windowed = match family {
            Family::Mistral => fields.present("sliding_window").is_some(),
            _ => {
                fields.flag("use_sliding_window", false)?
                    && fields.present("sliding_window").is_some()
            }
        };
        if windowed {
            return unsupported("sliding-window attention".to_owned(), "full attention");
        }
        let hidden_size = fields.required("hidden_size")?;
        let heads = fields.required("num_attention_heads")?;
        let kv_heads = fields.size("num_key_value_heads")?.unwrap_or(heads);
        if heads % kv_heads != 0 {
            return fields.wrong(
                "num_key_value_heads",
                format!("{kv_heads} does not divide the {heads} attention heads"),
            );
        }
        let head_dim = match fields.size("head_dim")? {
            Some(dim) => dim,
            None if hidden_size % heads == 0 => hidden_size / heads,
            None => {
                return fields.wrong("head_dim", "is missing and heads do not divide hidden_size");
            }
        };
        if head_dim % 2 != 0 {
            return fields.wrong("head_dim", format!("{head_dim} is odd; rotary needs pairs"));
        }
        let max_position_embeddings = fields.size("max_position_embeddings")?.unwrap_or(2048);
        let (rope_theta, rope_scaling) = rope(&fields, max_position_embeddings)?;
        let bias = fields.flag("attention_bias", false)?;
        Ok(Self {
            family,
            vocab_size: fields.required("vocab_size")?,
            hidden_size,
            intermediate_size: fields.required("intermediate_size")?,
            num_hidden_layers: fields.required("num_hidden_layers")?,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            max_position_embeddings,
            rms_norm_eps: fields.number("rms_norm_eps")?.unwrap_or(1e-6),
            rope_theta,
            rope_scaling,
            tie_word_embeddings: fields.flag("tie_word_embeddings", false)?,
            qkv_bias: bias || family == Family::Qwen2,
            o_bias: bias && family != Family::Qwen2,
            mlp_bias: fields.flag("mlp_bias", false)?,
            qk_norm: family == Family::Qwen3,
            bos_token_id: fields.ids("bos_token_id")?.first().copied(),
            eos_token_ids: fields.ids("eos_token_id")?,
            pad_token_id: fields.ids("pad_token_id")?.first().copied(),
        })
    }

    /// The `config.json` that `transformers` reads.
    pub fn to_hf_json(&self, head: Head) -> Value {
        let (name, model_type) = match self.family {
            Family::Llama => ("Llama", "llama"),
            Family::Mistral => ("Mistral", "mistral"),
            Family::Qwen2 => ("Qwen2", "qwen2"),
            Family::Qwen3 => ("Qwen3", "qwen3"),
        };
        let kind = match head {
            Head::LanguageModel => "ForCausalLM",
            Head::Score => "ForSequenceClassification",
        };
        let mut rope = json!({"rope_type": "default", "rope_theta": self.rope_theta});
        match self.rope_scaling {
            RopeScaling::None => {}
            RopeScaling::Linear { factor } => {
                rope["rope_type"] = json!("linear");
                rope["factor"] = json!(factor);
            }
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                rope["rope_type"] = json!("llama3");
                rope["factor"] = json!(factor);
                rope["low_freq_factor"] = json!(low_freq_factor);
                rope["high_freq_factor"] = json!(high_freq_factor);
                rope["original_max_position_embeddings"] =
                    json!(original_max_position_embeddings as u64);
            }
        }
        let mut config = json!({
            "architectures": [format!("{name}{kind}")],
            "model_type": model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
            // Both forms: the newer one is an object, older readers want the two fields.
            "rope_parameters": rope.clone(),
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "attention_bias": self.qkv_bias,
            "mlp_bias": self.mlp_bias,
            "bos_token_id": self.bos_token_id,
            "pad_token_id": self.pad_token_id,
            "torch_dtype": "float32",
            "use_cache": true,
        });
        if self.rope_scaling != RopeScaling::None {
            config["rope_scaling"] = rope;
        }
        config["eos_token_id"] = match self.eos_token_ids[..] {
            [] => Value::Null,
            [one] => json!(one),
            _ => json!(self.eos_token_ids),
        };
        match self.family {
            Family::Mistral => config["sliding_window"] = Value::Null,
            Family::Qwen2 | Family::Qwen3 => config["use_sliding_window"] = json!(false),
            Family::Llama => {}
        }
        if head == Head::Score {
            config["num_labels"] = json!(1);
            config["id2label"] = json!({"0": "LABEL_0"});
            config["label2id"] = json!({"LABEL_0": 0});
        }
        config
    }

    /// Names and shapes of the tensors that a model of this configuration has.
    pub fn expected(&self, head: Head) -> Vec<(String, Vec<usize>)> {
        let (d, f) = (self.hidden_size, self.intermediate_size);
        let q = self.num_attention_heads * self.head_dim;
        let kv = self.num_key_value_heads * self.head_dim;
        let mut all = vec![(EMBEDDING.to_owned(), vec![self.vocab_size, d])];
        for layer in 0..self.num_hidden_layers {
            let mut add = |part: &str, shape: Vec<usize>| {
                all.push((format!("model.layers.{layer}.{part}"), shape));
            };
            add("input_layernorm.weight", vec![d]);
            for (part, out, inner, bias) in [
                ("self_attn.q_proj", q, d, self.qkv_bias),
                ("self_attn.k_proj", kv, d, self.qkv_bias),
                ("self_attn.v_proj", kv, d, self.qkv_bias),
                ("self_attn.o_proj", d, q, self.o_bias),
                ("mlp.gate_proj", f, d, self.mlp_bias),
                ("mlp.up_proj", f, d, self.mlp_bias),
                ("mlp.down_proj", d, f, self.mlp_bias),
            ] {
                add(&format!("{part}.weight"), vec![out, inner]);
                if bias {
                    add(&format!("{part}.bias"), vec![out]);
                }
            }
            if self.qk_norm {
                add("self_attn.q_norm.weight", vec![self.head_dim]);
                add("self_attn.k_norm.weight", vec![self.head_dim]);
            }
            add("post_attention_layernorm.weight", vec![d]);
        }
        all.push(("model.norm.weight".to_owned(), vec![d]));
        match head {
            Head::Score => all.push((SCORE_HEAD.to_owned(), vec![1, d])),
            Head::LanguageModel if !self.tie_word_embeddings => {
                all.push((LM_HEAD.to_owned(), vec![self.vocab_size, d]));
            }
            Head::LanguageModel => {}
        }
        all
    }

    /// Which head the parameters have.
    pub fn head_of(params: &Params) -> Head {
        if params.contains(SCORE_HEAD) {
            Head::Score
        } else {
            Head::LanguageModel
        }
    }

    /// # Errors
    /// When a parameter that the configuration asks for is missing or has another shape.
    pub fn check_params(&self, params: &Params) -> Result<(), PolicyError> {
        let place = || "the model".to_owned();
        let mut missing = Vec::new();
        for (name, expected) in self.expected(Self::head_of(params)) {
            match params.get(&name) {
                None => missing.push(name),
                Some(param) if param.shape != expected => {
                    return Err(PolicyError::Shape {
                        place: place(),
                        name,
                        found: param.shape.clone(),
                        expected,
                    });
                }
                Some(_) => {}
            }
        }
        if missing.is_empty() {
            Ok(())
        } else {
            Err(PolicyError::MissingTensors {
                place: place(),
                names: missing,
            })
        }
    }

    /// Rotary frequencies, `[head_dim / 2]`: `theta^(-2i / head_dim)`, stretched as configured.
    pub fn inverse_frequencies(&self) -> Vec<f32> {
        (0..self.head_dim / 2)
            .map(|i| {
                let exponent = (2 * i) as f32 / self.head_dim as f32;
                let frequency = 1.0 / (self.rope_theta as f32).powf(exponent);
                self.stretch(f64::from(frequency)) as f32
            })
            .collect()
    }

    fn stretch(&self, frequency: f64) -> f64 {
        match self.rope_scaling {
            RopeScaling::None => frequency,
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings: original,
            } => {
                let wavelength = std::f64::consts::TAU / frequency;
                if wavelength > original / low_freq_factor {
                    frequency / factor
                } else if wavelength < original / high_freq_factor {
                    frequency
                } else {
                    let blend = (original / wavelength - low_freq_factor)
                        / (high_freq_factor - low_freq_factor);
                    (1.0 - blend) * frequency / factor + blend * frequency
                }
            }
        }
    }
}

/// The family, or the name of the architecture that is not supported.
fn family(fields: &Fields<'_>) -> Result<Result<Family, String>, PolicyError> {
    let architecture = match fields.present("architectures") {
        Some(Value::Array(names)) => names.first().and_then(Value::as_str).unwrap_or(""),
        Some(other) => return fields.wrong("architectures", format!("{other} is not a list")),
        None => "",
    };
    let model_type = fields
        .present("model_type")
        .and_then(Value::as_str)
        .unwrap_or("");
    let base = architecture
        .strip_suffix("ForCausalLM")
        .or_else(|| architecture.strip_suffix("ForSequenceClassification"));
    Ok(match (base, architecture, model_type) {
        (Some("Llama"), ..) | (None, "", "llama") => Ok(Family::Llama),
        (Some("Mistral"), ..) | (None, "", "mistral") => Ok(Family::Mistral),
        (Some("Qwen2"), ..) | (None, "", "qwen2") => Ok(Family::Qwen2),
        (Some("Qwen3"), ..) | (None, "", "qwen3") => Ok(Family::Qwen3),
        (_, "", "") => return fields.wrong("architectures", "is missing"),
        (_, "", model_type) => Err(model_type.to_owned()),
        (_, architecture, _) => Err(architecture.to_owned()),
    })
}

/// Base and stretching, from `rope_parameters` or from the older `rope_theta` and `rope_scaling`.
fn rope(fields: &Fields<'_>, positions: usize) -> Result<(f64, RopeScaling), PolicyError> {
    let object = |field: &str| match fields.present(field) {
        None => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map.clone())),
        Some(other) => fields.wrong(field, format!("{other} is not an object")),
    };
    let map = match object("rope_parameters")? {
        Some(map) => map,
        None => object("rope_scaling")?.unwrap_or_default(),
    };
    let place = format!("{}: rope_parameters", fields.place);
    let inner = Fields {
        map: &map,
        place: &place,
    };
    let theta = match inner.number("rope_theta")? {
        Some(theta) => theta,
        None => fields.number("rope_theta")?.unwrap_or(10_000.0),
    };
    let partial = inner.number("partial_rotary_factor")?.unwrap_or(1.0);
    let kind = inner
        .present("rope_type")
        .or_else(|| inner.present("type"))
        .and_then(Value::as_str)
        .unwrap_or("default");
    let needed = |field: &str| match inner.number(field)? {
        Some(x) => Ok(x),
        None => inner.wrong(field, format!("is missing for rope_type `{kind}`")),
    };
    let unsupported = |what: String| {
        Err(PolicyError::Unsupported {
            place: fields.place.to_owned(),
            what,
            supported: "default, linear, llama3".to_owned(),
        })
    };
    if partial != 1.0 {
        return unsupported(format!("partial_rotary_factor {partial}"));
    }
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear {
            factor: needed("factor")?,
        },
        "llama3" => RopeScaling::Llama3 {
            factor: needed("factor")?,
            low_freq_factor: needed("low_freq_factor")?,
            high_freq_factor: needed("high_freq_factor")?,
            original_max_position_embeddings: inner
                .number("original_max_position_embeddings")?
                .unwrap_or(positions as f64),
        },
        other => return unsupported(format!("rope scaling `{other}`")),
    };
    Ok((theta, scaling))
}
