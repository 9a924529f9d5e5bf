//! How much arithmetic a pass of a model is, counted from its shape and the tokens that are really computed.

use std::ops::Add;

use togi_data::Sample;
use togi_policy::{Decoder, Packed};

/// Floating-point operations, 2 a multiply-add.
///
/// Counted are the products of linear layers, adapters and head, and attention's two products, each over the
/// positions that a token sees and no others. A beginning that sequences share is counted once, as it is
/// computed once, and the head at scored positions only. A backward pass counts a product for each gradient
/// that is wanted: of inputs, and of weights that are trained.
///
/// Not counted are norms, activations, softmax, rotary, look-ups and the optimiser, nor what the backward pass
/// computes a second time (attention's scores and the head's logits): it is what the work needs, whatever way
/// it is done.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Flops {
    /// Of linear layers, adapters and head.
    pub(crate) linear: f64,
    /// Of attention.
    pub(crate) attention: f64,
}

impl Flops {
    /// Both together.
    pub(crate) fn total(self) -> f64 {
        self.linear + self.attention
    }
}

impl Add for Flops {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            linear: self.linear + other.linear,
            attention: self.attention + other.attention,
        }
    }
}

impl std::iter::Sum for Flops {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

/// What of a pass is computed.
#[derive(Clone, Copy, PartialEq)]
enum Pass {
    Forward,
    Training,
}

/// A forward pass over samples that go through the model together.
pub(crate) fn forward(decoder: &Decoder, samples: &[&Sample]) -> Flops {
    of_samples(decoder, samples, Pass::Forward)
}

/// Forward and backward pass over samples that go through the model together.
pub(crate) fn training(decoder: &Decoder, samples: &[&Sample]) -> Flops {
    of_samples(decoder, samples, Pass::Training)
}

/// Sampling of a completion for each prompt, all prompts at once: the prompts go through the model together,
/// then each token but the last by itself.
pub(crate) fn sampling(decoder: &Decoder, prompts: &[&[u32]], completions: &[usize]) -> Flops {
    let (tokens, seen) = seen(&Packed::new(prompts.iter().copied()));
    let prompts = prompts.iter().zip(completions);
    let (mut fed, mut seen_by_fed, mut drawn) = (0.0, 0.0, 0.0);
    for (prompt, completion) in prompts {
        drawn += *completion as f64;
        for step in 1..*completion {
            fed += 1.0;
            seen_by_fed += (prompt.len() + step) as f64;
        }
    }
    count(
        decoder,
        tokens + fed,
        seen + seen_by_fed,
        drawn,
        Pass::Forward,
    )
}

fn of_samples(decoder: &Decoder, samples: &[&Sample], pass: Pass) -> Flops {
    let (tokens, seen) = seen(&Packed::new(samples.iter().map(|sample| &sample.ids[..])));
    let scored: usize = samples.iter().map(|sample| sample.scored().count()).sum();
    count(decoder, tokens, seen, scored as f64, pass)
}

/// Tokens of a batch, and the positions that all of them see together.
fn seen(batch: &Packed) -> (f64, f64) {
    let positions = batch.positions.iter();
    let seen = positions.map(|position| f64::from(*position) + 1.0).sum();
    (batch.ids.len() as f64, seen)
}

fn count(decoder: &Decoder, tokens: f64, seen: f64, scored: f64, pass: Pass) -> Flops {
    let config = &decoder.config;
    let params = &decoder.params;
    let embedding = "model.embed_tokens.weight";
    let trains = |name: &str| params.get(name).is_some_and(|param| param.trainable);
    let mut linear = 0.0;
    let mut products = |rows: f64, shape: &[usize], input: bool, weight: bool| {
        let wanted = match pass {
            Pass::Forward => 0.0,
            Pass::Training => f64::from(u8::from(input)) + f64::from(u8::from(weight)),
        };
        let [out, inner] = [shape[0] as f64, shape[1] as f64];
        linear += 2.0 * rows * out * inner * (1.0 + wanted);
    };
    for (name, param) in params.iter() {
        if name.starts_with("model.layers.") && param.shape.len() == 2 {
            products(
                tokens,
                &param.shape,
                input_is_tracked(name, &trains),
                param.trainable,
            );
        }
    }
    let head = ["score.weight", "lm_head.weight", embedding];
    if let Some((name, param)) = head.iter().find_map(|n| Some((*n, params.get(n)?))) {
        products(scored, &param.shape, true, trains(name));
    }
    let width = (config.num_attention_heads * config.head_dim) as f64;
    // Two products forward, four gradients backward: of values, probabilities, queries and keys.
    let passes = match pass {
        Pass::Forward => 2.0,
        Pass::Training => 6.0,
    };
    let attention = config.num_hidden_layers as f64 * 2.0 * width * seen * passes;
    Flops { linear, attention }
}

/// Whether a gradient flows further down than this layer's input: not below the first adapter.
fn input_is_tracked(name: &str, trains: &impl Fn(&str) -> bool) -> bool {
    let first = "model.layers.0.self_attn.";
    let reads_embedding = name.strip_prefix(first).is_some_and(|rest| {
        ["q_proj", "k_proj", "v_proj"]
            .iter()
            .any(|p| rest.starts_with(p))
    }) && !name.contains("lora_B");
    !reads_embedding
        || trains("model.embed_tokens.weight")
        || trains("model.layers.0.input_layernorm.weight")
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use togi_policy::{LoraConfig, source};

    use super::*;

    /// Two layers of width 128 and 256, 4 heads of 32: 262,144 weights of linear layers in all.
    const LAYERS: f64 = 2.0 * (4.0 * 128.0 * 128.0 + 3.0 * 128.0 * 256.0);

    fn sample(prompt: &[u32], completion: &[u32]) -> Sample {
        Sample::from_parts(prompt, completion, &[])
    }

    #[test]
    fn a_pass_is_counted_as_by_hand() {
        let decoder = source::lab(&Device::flex(), 0).unwrap().decoder;
        let head = (decoder.config.vocab_size * 128) as f64;
        let one = sample(&[1, 2, 3], &[4, 5]);
        let pass = forward(&decoder, &[&one]);
        assert_eq!(pass.linear, 2.0 * (5.0 * LAYERS + 2.0 * head));
        // 1 + 2 + 3 + 4 + 5 positions, two products of width 128 in two layers.
        assert_eq!(pass.attention, 2.0 * 2.0 * 2.0 * 128.0 * 15.0);
        let step = training(&decoder, &[&one]);
        assert_eq!(step.linear, 3.0 * pass.linear);
        assert_eq!(step.attention, 3.0 * pass.attention);
    }

    #[test]
    fn a_shared_beginning_is_counted_once() {
        let decoder = source::lab(&Device::flex(), 0).unwrap().decoder;
        let prompt: Vec<u32> = (1..11).collect();
        let (a, b) = (sample(&prompt, &[20, 21]), sample(&prompt, &[30]));
        let head = (decoder.config.vocab_size * 128) as f64;
        let both = forward(&decoder, &[&a, &b]);
        assert_eq!(both.linear, 2.0 * (13.0 * LAYERS + 3.0 * head));
        assert_eq!(both.attention, 8.0 * 128.0 * (55.0 + 11.0 + 12.0 + 11.0));
    }

    #[test]
    fn an_adapter_has_no_gradient_of_the_weights_that_it_leaves_alone() {
        let mut decoder = source::lab(&Device::flex(), 0).unwrap().decoder;
        let one = sample(&[1, 2, 3], &[4, 5]);
        let full = training(&decoder, &[&one]).linear;
        let lora = LoraConfig {
            r: 2,
            ..LoraConfig::default()
        };
        decoder.add_lora(lora, 0).unwrap();
        let head = (decoder.config.vocab_size * 128) as f64;
        // Forward and inputs of all but the first layer's queries, keys and values; no weights.
        let first = 3.0 * 128.0 * 128.0;
        let base = 2.0 * (5.0 * (2.0 * LAYERS - first) + 2.0 * 2.0 * head);
        // Rank times inputs and outputs: four matrices of 128 x 128 and three of 128 x 256 a layer.
        let branches = 2.0 * 2.0 * (4.0 * 256.0 + 3.0 * 384.0);
        let untracked = 3.0 * 2.0 * 128.0;
        let adapter = 2.0 * 5.0 * (3.0 * branches - untracked);
        let step = training(&decoder, &[&one]).linear;
        assert_eq!(step, base + adapter);
        assert!(step < full);
    }

    #[test]
    fn sampling_feeds_every_token_but_the_last() {
        let decoder = source::lab(&Device::flex(), 0).unwrap().decoder;
        let head = (decoder.config.vocab_size * 128) as f64;
        let drawn = sampling(&decoder, &[&[1, 2, 3]], &[4]);
        assert_eq!(drawn.linear, 2.0 * (6.0 * LAYERS + 4.0 * head));
        assert_eq!(
            drawn.attention,
            8.0 * 128.0 * (1.0 + 2.0 + 3.0 + 4.0 + 5.0 + 6.0)
        );
    }
}
