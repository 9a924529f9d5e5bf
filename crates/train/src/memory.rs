//! How much memory a recipe will take, before it starts.
//!
//! A [`Demand`] says what a recipe holds and does; [`Demand::estimate`] counts it. Some things last:
//! parameters, moments, copies that stay. Of the things that come and go (a step's activations and
//! gradients, the copy of the weights that sampling reads, what held-out samples need) the largest
//! counts, since none is there with another. All of that is float32; a GPU has copies of a product's factors in a lower
//! precision.

use togi_data::batch::Order;
use togi_kernels::{ATTENTION_TASKS, KEPT_LOGITS, LOGITS_AT_ONCE, SCORES_AT_ONCE};
use togi_policy::{LoraConfig, ModelConfig, Precision, WeightFormat};

mod available;
mod choose;
mod extent;
mod of_recipes;
mod of_stages;
mod pools;
mod refusal;
mod watch;

pub(crate) use available::note_peak;
pub use available::{Available, available, parse_size, peak, peak_of, resident, used};
pub use choose::{Keys, Setting};
pub use extent::{Extent, PromptSizes, Sizes, sizes};
pub use of_stages::{OfStage, RlhfSizes};
pub use refusal::{refused, unless_refused};
pub use watch::{Watch, Watching};

const FLOAT: u64 = 4;
/// The program itself: code, tokenizer, data, threads, and what the allocator cannot use again.
const PROGRAM: u64 = 110 << 20;
/// Numbers in a block of logits (togi-kernels makes no more at a time).
const LOGITS: usize = 1 << 23;

/// How the backend computes: it decides what a forward pass keeps for its backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Fused operations with their own backward pass: the CPU.
    Fused,
    /// Kernels and Burn's operations on a GPU, which keep what goes into each linear layer.
    Composed,
}

/// What the tokens of a step are.
#[derive(Clone, Debug)]
pub enum Work {
    /// Samples that are there.
    Fixed {
        /// `(tokens through the model, scored tokens)` of each, in their order.
        sizes: Vec<(usize, usize)>,
        /// Sequences of a sample: 2 of a pair.
        sides: usize,
        /// Of the order of the samples.
        seed: u64,
        /// Updates.
        steps: u64,
        /// Held-out samples that go through the model at a time.
        looked_at: usize,
    },
    /// Completions that are drawn first.
    Drawn {
        /// Tokens of the longest prompt.
        prompt: usize,
        /// Tokens of the longest completion: of the shortest prompt, where the model has no more positions.
        new: usize,
        /// Completions of a prompt that stay together in a micro-batch: the prompt goes through the model
        /// once for all of them.
        group: usize,
        /// Completions that are drawn at a time.
        at_once: usize,
        /// Models that draw, each from a copy of its weights.
        voices: usize,
        /// What those copies are held in.
        sampler: WeightFormat,
        /// Completions that go through the model at a time to be scored, micro-batches aside.
        scored: usize,
        /// Held-out prompts that the policy answers at a time.
        held_out: usize,
    },
}

/// Answers that are drawn by the model that training starts from, before it starts.
#[derive(Clone, Debug)]
pub struct Drawing {
    /// Tokens of the longest prompt.
    pub prompt: usize,
    /// Tokens of the longest answer.
    pub new: usize,
    /// Answers that are drawn at a time.
    pub at_once: usize,
    /// What the copy of the weights that draws is held in.
    pub sampler: WeightFormat,
}

/// What a recipe holds in memory, and what it does.
#[derive(Clone, Debug)]
pub struct Demand {
    /// Shape of the models: all of a recipe's are taken to be alike.
    pub config: ModelConfig,
    /// Numbers in the parameters of the model that is trained, without an adapter.
    pub parameters: usize,
    /// The adapter that is trained instead of them.
    pub lora: Option<LoraConfig>,
    /// Numbers in the parameters of models that stay as they are.
    pub frozen: usize,
    /// The model that training starts from is kept: a copy where the weights are trained.
    pub keeps_start: bool,
    /// A reference follows the policy: a copy even where an adapter is trained.
    pub moving_reference: bool,
    /// A value model is trained beside, its weights and all.
    pub value: bool,
    /// Samples an update.
    pub batch: usize,
    /// Samples that go through the model at a time.
    pub micro: usize,
    /// What `micro` is a multiple of.
    pub unit: usize,
    /// What goes into each layer is kept, and nothing else.
    pub gradient_checkpointing: bool,
    /// Logits are made of scored tokens: not by a scalar head.
    pub logits: bool,
    /// The longest sample in tokens that is let in.
    pub max_length: usize,
    /// Tokens.
    pub work: Work,
    /// The samples are made of answers that are drawn first.
    pub drawing: Option<Drawing>,
    /// How the backend computes.
    pub form: Form,
    /// What products are computed in.
    pub precision: Precision,
}

/// Bytes of a recipe's parts, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryEstimate {
    lasting: Vec<(&'static str, u64)>,
    passing: Vec<(&'static str, u64)>,
}

impl MemoryEstimate {
    /// What lasts, by name, and the largest of what comes and goes.
    pub fn parts(&self) -> Vec<(&'static str, u64)> {
        let mut parts = self.lasting.clone();
        parts.extend(self.passing.iter().max_by_key(|(_, bytes)| *bytes));
        parts
    }

    /// What comes and goes, by name: only the largest counts.
    pub fn passing(&self) -> &[(&'static str, u64)] {
        &self.passing
    }

    /// Bytes at the highest point.
    pub fn total(&self) -> u64 {
        self.parts().iter().map(|(_, bytes)| bytes).sum()
    }

    fn lasts(&mut self, name: &'static str, floats: usize) {
        if floats > 0 {
            self.lasting.push((name, floats as u64 * FLOAT));
        }
    }

    fn passes(&mut self, name: &'static str, floats: usize) {
        self.passing.push((name, floats as u64 * FLOAT));
    }
}

impl Demand {
    /// Bytes at the highest point, by what takes them.
    pub fn estimate(&self) -> MemoryEstimate {
        let mut estimate = MemoryEstimate::default();
        if self.form == Form::Fused {
            // Elsewhere it is not in the device's memory.
            estimate.lasting.push(("program and data", PROGRAM));
        }
        let own = self.adapter();
        let trainable = if self.lora.is_some() {
            own
        } else {
            self.parameters
        };
        // The value model has no adapter.
        let value = if self.value { self.parameters } else { 0 };
        estimate.lasts("weights", self.parameters + own + value);
        estimate.lasts("moments", 2 * (trainable + value));
        let copied = self.lora.is_none() && self.keeps_start;
        let copies = usize::from(copied) + usize::from(self.moving_reference);
        estimate.lasts("frozen models", self.frozen + copies * self.parameters);
        if let Some(drawing) = &self.drawing {
            let Drawing {
                prompt,
                new,
                at_once,
                sampler,
            } = *drawing;
            let drawn = self.sampling((prompt, new), (at_once, 1), sampler);
            // Neither moments nor copies are there yet.
            let later = 2 * trainable + copies * self.parameters;
            estimate.passes("drawing answers", drawn.saturating_sub(later));
        }

        let (tokens, scored, longest) = self.largest();
        let step = self.backward(tokens, scored, longest, trainable);
        estimate.passes("a training step", step);
        if self.value {
            let scalar = Self {
                lora: None,
                logits: false,
                ..self.clone()
            };
            let step = scalar.backward(tokens, 0, longest, value);
            estimate.passes("a step of the value model", step);
        }
        match &self.work {
            Work::Fixed {
                sizes, looked_at, ..
            } => {
                let of = |size: &(usize, usize)| size.0;
                let largest = sizes.iter().map(of).max().unwrap_or(0);
                let scored = sizes.iter().map(|size| size.1).max().unwrap_or(0);
                let (tokens, scored) = (looked_at * largest, looked_at * scored);
                let looking = self.forward(tokens, scored, largest);
                estimate.passes("held-out samples", looking);
            }
            Work::Drawn {
                prompt,
                new,
                group,
                at_once,
                voices,
                sampler,
                scored,
                held_out,
            } => {
                let drawn = self.sampling((*prompt, *new), (*at_once, *group), *sampler);
                let voice = self.voice((*prompt, *new), *at_once, *sampler);
                estimate.passes("sampling", drawn + (voices - 1) * voice);
                if *held_out > 0 {
                    // Each has a prompt of its own, and the policy computes as it is.
                    let own = WeightFormat::of(self.precision).unwrap_or(WeightFormat::F32);
                    let answers = self.sampling((*prompt, *new), (*held_out, 1), own);
                    estimate.passes("held-out prompts", answers);
                }
                let length = self.together(*prompt, *new);
                let scoring = self.forward(scored * length, scored * new, length);
                estimate.passes("scoring", scoring);
            }
        }
        if self.form == Form::Composed {
            let page = self.largest_tensor((tokens, scored, longest));
            let rounded = self.pages_not_filled(estimate.total(), page);
            estimate.lasting.push(("pages not filled", rounded));
        }
        estimate
    }

    /// Tokens of a prompt and its completion, which end with the model's positions.
    fn together(&self, prompt: usize, new: usize) -> usize {
        (prompt + new).min(self.config.max_position_embeddings.max(new))
    }

    /// Logits that a GPU makes at a time of so many scored tokens.
    fn block_of_logits(&self, scored: usize) -> usize {
        match self.logits {
            true => LOGITS_AT_ONCE.min(scored * self.config.vocab_size),
            false => 0,
        }
    }

    /// Numbers, counted as float32, in a copy of so many in the precision of products; none where that is float32.
    fn copy(&self, numbers: usize) -> usize {
        match (self.form, self.precision) {
            (Form::Fused, _) | (_, Precision::F32) => 0,
            (Form::Composed, _) => numbers.div_ceil(2),
        }
    }

    /// What one model holds to draw so many completions at a time: the cache, and the weights that are read.
    fn voice(&self, (prompt, new): (usize, usize), at_once: usize, sampler: WeightFormat) -> usize {
        let config = &self.config;
        let row = 2 * config.num_key_value_heads * config.head_dim;
        // The cache rounds up to 16 positions.
        let positions = self.together(prompt, new).next_multiple_of(16);
        let cache = at_once * positions * row * config.num_hidden_layers;
        // On the CPU sampling reads a copy of the weights.
        let copy = match self.form {
            Form::Fused => self.parameters * sampler.bytes() / WeightFormat::F32.bytes(),
            Form::Composed => 0,
        };
        cache + copy
    }

    /// What drawing takes with the pass of the prompts, of which a group shares one.
    fn sampling(
        &self,
        (prompt, new): (usize, usize),
        (at_once, group): (usize, usize),
        sampler: WeightFormat,
    ) -> usize {
        let entering = prompts(at_once, group) * prompt;
        let entering = self.forward(entering, at_once, prompt);
        self.voice((prompt, new), at_once, sampler) + entering
    }

    /// Numbers in the adapter.
    fn adapter(&self) -> usize {
        let Some(lora) = &self.lora else { return 0 };
        let of = |module: &String| {
            let (inner, outer) = self.linear(module);
            lora.r * (inner + outer)
        };
        self.config.num_hidden_layers * lora.target_modules.iter().map(of).sum::<usize>()
    }

    /// Inputs and outputs of a linear layer.
    fn linear(&self, module: &str) -> (usize, usize) {
        let (d, f, q, kv) = self.widths();
        match module {
            "gate_proj" | "up_proj" => (d, f),
            "q_proj" => (d, q),
            "k_proj" | "v_proj" => (d, kv),
            "o_proj" => (q, d),
            _ => (f, d),
        }
    }

    /// Hidden size, intermediate size, widths of queries and of keys.
    fn widths(&self) -> (usize, usize, usize, usize) {
        let config = &self.config;
        (
            config.hidden_size,
            config.intermediate_size,
            config.num_attention_heads * config.head_dim,
            config.num_key_value_heads * config.head_dim,
        )
    }

    /// `(tokens, scored tokens, tokens of the longest sample)`, the most of each in a micro-batch.
    pub fn largest(&self) -> (usize, usize, usize) {
        let micro = self.micro.min(self.batch).max(1);
        match &self.work {
            Work::Drawn {
                prompt, new, group, ..
            } => {
                let length = self.together(*prompt, *new);
                let tokens = prompts(micro, *group) * (length - new) + micro * new;
                (tokens, micro * new, length)
            }
            Work::Fixed {
                sizes, seed, steps, ..
            } => {
                let mut order = Order::new(*seed, sizes.len());
                let mut largest = (0, 0);
                for step in 0..*steps {
                    if sizes.is_empty() {
                        break;
                    }
                    for part in order.batch(step, self.batch).chunks(micro) {
                        let sizes = part.iter().map(|i| sizes[*i]);
                        let sum = sizes.fold((0, 0), |(t, s), size| (t + size.0, s + size.1));
                        largest = (largest.0.max(sum.0), largest.1.max(sum.1));
                    }
                }
                let longest = sizes.iter().map(|size| size.0).max().unwrap_or(0);
                (largest.0, largest.1, longest)
            }
        }
    }

    /// A forward pass without gradients: the widest part of a layer, and the logits.
    fn forward(&self, tokens: usize, scored: usize, longest: usize) -> usize {
        let (d, f, ..) = self.widths();
        let copies = self.copy(d * f);
        tokens * (3 * d + 3 * f)
            + copies
            + 2 * self.scores(tokens, longest)
            + self.made_logits(scored)
    }

    /// Scores of attention that are made at a time.
    fn scores(&self, tokens: usize, longest: usize) -> usize {
        let heads = self.config.num_attention_heads;
        match self.form {
            Form::Fused => 0,
            Form::Composed => {
                (heads * tokens * longest).min(SCORES_AT_ONCE.max(heads * longest * longest))
            }
        }
    }

    /// Numbers in the embedding, or the head.
    fn embedding(&self) -> usize {
        self.config.vocab_size * self.config.hidden_size
    }

    /// The head's copy in the precision of products.
    fn head_copy(&self) -> usize {
        match self.logits {
            true => self.copy(self.embedding()),
            false => 0,
        }
    }

    /// Blocks of logits, of which nothing is kept.
    fn made_logits(&self, scored: usize) -> usize {
        let numbers = scored * self.config.vocab_size;
        match self.form {
            _ if !self.logits => 0,
            Form::Fused => 2 * LOGITS.min(numbers),
            Form::Composed => self.block_of_logits(scored) + self.head_copy(),
        }
    }

    /// What a layer keeps of each token for its backward pass.
    fn layer(&self) -> usize {
        let (d, f, q, kv) = self.widths();
        let heads = self.config.num_attention_heads;
        // What goes into the norms, queries, keys, values, attention's result and log-sums, gate and up.
        let mut kept = 2 * d + 2 * q + 2 * kv + heads + 2 * f;
        if self.config.qk_norm {
            kept += q + kv;
        }
        if let Some(lora) = &self.lora {
            let branch = |module: &String| {
                let inner = self.linear(module).0;
                // What was let through is another tensor; so is the mask.
                lora.r + if lora.dropout > 0.0 { 2 * inner } else { 0 }
            };
            kept += lora.target_modules.iter().map(branch).sum::<usize>();
        }
        if self.form == Form::Composed {
            // What goes into linear layers, beside attention's result.
            kept += 2 * d + f;
        }
        kept
    }

    /// The highest point of forward and backward pass. While the backward pass frees what the forward pass
    /// kept, it makes gradients: the highest point is at its beginning or at its end.
    fn backward(&self, tokens: usize, scored: usize, longest: usize, trainable: usize) -> usize {
        let (d, f, _, kv) = self.widths();
        let (layers, vocabulary) = (self.config.num_hidden_layers, self.config.vocab_size);
        let layer = tokens * self.layer();
        let numbers = scored * vocabulary;
        let (logits, kept_logits) = match self.form {
            _ if !self.logits => (0, 0),
            // Made again, and turned into their gradient where they are.
            Form::Composed => {
                let block = self.block_of_logits(scored);
                (block + self.copy(block), 0)
            }
            // Blocks beyond those that are kept are made again.
            Form::Fused => (
                (2 * LOGITS).min(numbers.saturating_sub(KEPT_LOGITS)),
                KEPT_LOGITS.min(numbers),
            ),
        };
        let full = self.lora.is_none();
        let matrix = self.embedding();
        let mut head = if full && self.logits { matrix } else { 0 };
        let mut gradients = trainable;
        // Gradients of the micro-batches before.
        let sums = match self.micro < self.batch {
            true => trainable,
            false => 0,
        };
        match self.form {
            // Operations add to them.
            Form::Fused if sums > 0 => (head, gradients) = (0, 0),
            Form::Fused => {}
            // Embedding and tied head have a gradient each before they are added up.
            Form::Composed if self.logits && self.config.tie_word_embeddings => gradients += head,
            Form::Composed => {}
        }
        let ends = tokens * 3 * d + 2 * scored * d;
        // Gradients of what is wide in a layer, or what attention makes: scores, or gradients of keys and values by pieces.
        let pieces = match self.form {
            Form::Fused => ATTENTION_TASKS.div_ceil(self.config.num_key_value_heads),
            Form::Composed => 1,
        };
        // The head's gradient of a block is made before it is added to the others'; the head has a copy all the while.
        let head_at_work = match self.form {
            Form::Fused => head,
            Form::Composed if numbers > LOGITS_AT_ONCE => 2 * head + self.head_copy(),
            Form::Composed => head + self.head_copy(),
        };
        let attention = (4 * self.scores(tokens, longest)).max(tokens * 2 * kv * pieces);
        // Factors of a product in the layer.
        let copies = self.copy(d * f + tokens * (d + f));
        let moving = (tokens * 2 * f).max(attention) + copies;
        if self.gradient_checkpointing {
            let inputs = tokens * layers * d;
            let at_head = inputs + ends + kept_logits + logits + head_at_work;
            let at_last_layer = inputs + layer + moving + head;
            let at_first_layer = layer + moving + gradients;
            sums + at_head.max(at_last_layer).max(at_first_layer)
        } else {
            let kept = layers * layer + ends + kept_logits;
            let at_head = kept + logits + head_at_work;
            sums + at_head
                .max(kept + moving + head)
                .max(gradients + layer + moving)
        }
    }
}

/// Prompts of so many neighbouring completions, in groups of a prompt each.
fn prompts(completions: usize, group: usize) -> usize {
    let group = group.max(1);
    if completions.is_multiple_of(group) || group.is_multiple_of(completions.max(1)) {
        return completions.div_ceil(group);
    }
    // A group may be cut at both ends.
    completions.min(completions.div_ceil(group) + 1)
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use togi_policy::{LoraConfig, ModelConfig, Precision, WeightFormat};

    use super::{Demand, Form, Work, prompts};

    /// SmolLM2-135M on a GPU.
    fn smollm2(work: Work) -> Demand {
        let config = json!({
            "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
            "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "vocab_size": 49152,
            "rms_norm_eps": 1e-5, "rope_theta": 100000.0, "tie_word_embeddings": true,
            "max_position_embeddings": 8192, "hidden_act": "silu",
        });
        Demand {
            config: ModelConfig::from_hf_json(&config, "here").expect("a configuration"),
            parameters: 134_515_008,
            lora: None,
            frozen: 0,
            keeps_start: false,
            moving_reference: false,
            value: false,
            batch: 2,
            micro: 2,
            unit: 1,
            gradient_checkpointing: false,
            logits: true,
            max_length: 512,
            work,
            drawing: None,
            form: Form::Composed,
            precision: Precision::F32,
        }
    }

    #[test]
    fn completions_end_with_the_models_positions() {
        // A prompt of 7,000 tokens and others of 1,000, whose completions are of 4,000: there is no longer one.
        let demand = Demand {
            batch: 8,
            micro: 8,
            ..smollm2(Work::Drawn {
                prompt: 7000,
                new: 4000,
                group: 8,
                at_once: 8,
                voices: 1,
                sampler: WeightFormat::F32,
                scored: 8,
                held_out: 0,
            })
        };
        let (tokens, scored, longest) = demand.largest();
        assert_eq!((scored, longest), (32_000, 8192));
        // The most that a prompt of any length between them comes to.
        let of = |prompt: usize| prompt + 8 * 4000.min(8192 - prompt);
        assert_eq!(Some(tokens), (1000..=7000).map(of).max());
    }

    #[test]
    fn the_largest_micro_batch_is_that_of_tokens_and_that_of_scored_ones() {
        let sizes = vec![(2000, 20), (1980, 1400)];
        let work = Work::Fixed {
            sizes,
            sides: 1,
            seed: 0,
            steps: 2,
            looked_at: 1,
        };
        let demand = Demand {
            batch: 1,
            micro: 1,
            ..smollm2(work)
        };
        assert_eq!(demand.largest(), (2000, 1400, 2000));
    }

    /// SmolLM2-135M on wgpu (llvmpipe), two steps of two samples of 72 tokens (68 scored) or pairs of 114 (110 scored):
    /// what the device's pools had reserved at most, on 2026-11-30 (docs/gpu.md).
    #[test]
    fn composed_forms_are_within_15_percent_of_what_was_measured() {
        let of = |size: (usize, usize), sides: usize| Demand {
            keeps_start: sides == 2,
            ..smollm2(Work::Fixed {
                sizes: vec![size; 23],
                sides,
                seed: 0,
                steps: 2,
                looked_at: 2,
            })
        };
        let (sft, dpo) = (of((72, 68), 1), of((114, 110), 2));
        let lora = |demand: &Demand| Demand {
            lora: Some(LoraConfig::default()),
            ..demand.clone()
        };
        let checkpointed = Demand {
            gradient_checkpointing: true,
            ..sft.clone()
        };
        let reward = Demand {
            keeps_start: false,
            logits: false,
            ..dpo.clone()
        };
        for (name, demand, measured) in [
            ("sft", &sft, 2.41e9),
            ("sft, checkpointing", &checkpointed, 2.29e9),
            ("sft, LoRA", &lora(&sft), 0.850e9),
            ("dpo", &dpo, 2.98e9),
            ("dpo, LoRA", &lora(&dpo), 0.965e9),
            ("reward", &reward, 2.41e9),
        ] {
            let ratio = demand.estimate().total() as f64 / measured;
            println!("{name}: {ratio:.3}");
            assert!((0.85..1.15).contains(&ratio), "{name}: {ratio:.3}");
        }
    }

    #[test]
    fn prompts_of_a_micro_batch() {
        assert_eq!(prompts(4, 1), 4);
        assert_eq!(prompts(8, 4), 2);
        assert_eq!(prompts(2, 4), 1);
        assert_eq!(prompts(6, 4), 3);
        assert_eq!(prompts(3, 4), 2);
        assert_eq!(prompts(0, 4), 0);
    }
}
