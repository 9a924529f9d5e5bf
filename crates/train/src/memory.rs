//! How much memory a recipe will take, before it starts.
//!
//! Counted is what lives at the highest point of a step: parameters and moments, copies that stay
//! (reference, value and reward model), gradients of micro-batches before, what a micro-batch keeps
//! for its backward pass, and the cache of generation. A backward pass frees what the forward pass
//! kept while it makes gradients, so of the two only the larger counts. Everything is float32.

use togi_policy::{Decoder, ModelConfig};

/// Bytes of a recipe's parts, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryEstimate {
    lasting: Vec<(&'static str, u64)>,
    gradients: u64,
    activations: u64,
}

const FLOAT: u64 = 4;
/// The program itself: code, tokenizer, data, the thread pool's and the allocator's slack.
const PROGRAM: u64 = 150 << 20;

impl MemoryEstimate {
    /// An estimate without any model.
    pub fn new() -> Self {
        Self {
            lasting: vec![("program and data", PROGRAM)],
            ..Self::default()
        }
    }

    /// Name and bytes of each part.
    pub fn parts(&self) -> Vec<(&'static str, u64)> {
        let mut parts = self.lasting.clone();
        parts.push(if self.activations >= self.gradients {
            ("activations", self.activations)
        } else {
            ("gradients", self.gradients)
        });
        parts
    }

    /// All parts together.
    pub fn total(&self) -> u64 {
        self.parts().iter().map(|(_, bytes)| bytes).sum()
    }

    fn add(&mut self, name: &'static str, floats: u64) {
        match self.lasting.iter_mut().find(|(n, _)| *n == name) {
            Some((_, bytes)) => *bytes += floats * FLOAT,
            None => self.lasting.push((name, floats * FLOAT)),
        }
    }

    /// A model that is trained. `accumulates`: a batch is more than one micro-batch.
    pub fn trained(&mut self, decoder: &Decoder, accumulates: bool) {
        let (all, trainable) = decoder.params.count();
        let (all, trainable) = (all as u64, trainable as u64);
        self.add("weights", all);
        self.add("moments", 2 * trainable);
        if accumulates {
            self.add("accumulated gradients", trainable);
        }
        // Embedding and tied head have a gradient each before they are added up.
        let ModelConfig {
            vocab_size,
            hidden_size,
            tie_word_embeddings,
            ..
        } = decoder.config;
        let twice = trainable == all && tie_word_embeddings;
        let twice = if twice { vocab_size * hidden_size } else { 0 };
        self.gradients = self.gradients.max((trainable + twice as u64) * FLOAT);
    }

    /// A further model that stays as it is.
    pub fn frozen(&mut self, decoder: &Decoder) {
        self.add("frozen models", decoder.params.count().0 as u64);
    }

    /// What one micro-batch keeps from its forward for its backward pass: `tokens` go through the
    /// model, `scored` of them through the head.
    pub fn activations(&mut self, decoder: &Decoder, tokens: usize, scored: usize) {
        let config = &decoder.config;
        let (d, f) = (config.hidden_size, config.intermediate_size);
        let q = config.num_attention_heads * config.head_dim;
        let kv = config.num_key_value_heads * config.head_dim;
        // Residuals and norms (4 d), queries, keys and values before and after rotary, attention's
        // result and log-sums, gate, up and their product.
        let layer = 4 * d + 3 * q + 3 * kv + config.num_attention_heads + 3 * f;
        let branches = decoder.lora.as_ref().map_or(0, |lora| {
            let one = |module: &String| match module.as_str() {
                "gate_proj" | "up_proj" => 2 * f,
                "q_proj" => 2 * q,
                "k_proj" | "v_proj" => 2 * kv,
                _ => 2 * d,
            };
            let outputs: usize = lora.target_modules.iter().map(one).sum();
            outputs + lora.r * lora.target_modules.len()
        });
        let per_token = config.num_hidden_layers * (layer + branches) + 3 * d;
        // Blocks of logits: they are made again in the backward pass.
        let logits = (1_usize << 23).min(scored * config.vocab_size);
        let floats = tokens * per_token + 2 * scored * d + 2 * logits;
        self.activations = self.activations.max(floats as u64 * FLOAT);
    }

    /// Keys and values of `sequences` of up to `length` tokens.
    pub fn cache(&mut self, config: &ModelConfig, sequences: usize, length: usize) {
        let row = 2 * config.num_key_value_heads * config.head_dim * config.num_hidden_layers;
        self.add("generation cache", (sequences * length * row) as u64);
    }
}

/// The most memory that this process has used, in bytes, where the system tells.
pub fn peak() -> Option<u64> {
    status("VmHWM:")
}

/// The memory that this process has now, in bytes, where the system tells.
pub fn resident() -> Option<u64> {
    status("VmRSS:")
}

/// A line of what Linux says of this process.
fn status(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// Bytes for people.
pub fn human(bytes: u64) -> String {
    if bytes < 10 << 20 {
        format!("{:.1} MB", bytes as f64 / 1e6)
    } else if bytes < 1_000_000_000 {
        format!("{:.0} MB", bytes as f64 / 1e6)
    } else {
        format!("{:.2} GB", bytes as f64 / 1e9)
    }
}
