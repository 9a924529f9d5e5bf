//! Activation checkpointing changes no gradient, whatever is trained and however samples are packed.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use togi_data::Sample;
use togi_policy::{Decoder, DropoutKey, LoraConfig, Weights, hf};

/// Llama; grouped heads; tied embeddings; biases (qwen2); norms of queries and keys (qwen3).
const FAMILIES: [&str; 5] = ["llama", "llama3", "mistral", "qwen2", "qwen3"];

fn load(name: &str) -> Decoder {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    hf::load(&folder.join(name), &Device::flex())
        .unwrap()
        .decoder
}

/// Two answers to one prompt, which they share, and a sequence by itself.
fn samples() -> Vec<Sample> {
    let prompt: Vec<u32> = (0..11).map(|i| 3 + i * 5 % 60).collect();
    let answers: [&[u32]; 2] = [&[9, 4, 7], &[9, 4, 2, 30, 31]];
    let mut all: Vec<Sample> = answers
        .iter()
        .map(|answer| Sample::from_parts(&prompt, answer, &[2]))
        .collect();
    all.push(Sample::from_parts(&[5, 6], &[40, 41, 42, 2], &[2]));
    all
}

type Grads = Vec<(String, Vec<f32>)>;

/// The loss of log-probabilities, entropies and their squares, as bits, and the gradients.
fn of_log_probs(decoder: &Decoder, weights: &Weights) -> (u32, Grads) {
    let samples = samples();
    let views: Vec<&Sample> = samples.iter().collect();
    let logps = decoder.log_probs(weights, &views, 1.3).unwrap();
    let loss = logps.values.clone().square().sum() + logps.entropy.sum() * 0.1;
    gradients(decoder, weights, loss)
}

fn gradients(decoder: &Decoder, weights: &Weights, loss: Tensor<1>) -> (u32, Grads) {
    let value = loss
        .clone()
        .detach()
        .into_data()
        .try_to_vec::<f32>()
        .unwrap()[0];
    let grads = decoder.gradients(weights, loss).unwrap();
    let host = |(name, grad): (String, Tensor<1>)| (name, grad.into_data().try_to_vec().unwrap());
    (value.to_bits(), grads.into_iter().map(host).collect())
}

/// Both ways give the same bits; and not all of them are 0, for each parameter that is named.
fn same(what: &str, kept: (u32, Grads), again: (u32, Grads), moved: &[&str]) {
    assert_eq!(kept.0, again.0, "{what}: loss");
    assert_eq!(kept.1.len(), again.1.len(), "{what}");
    for ((name, kept), (other, again)) in kept.1.iter().zip(&again.1) {
        assert_eq!(name, other, "{what}: order");
        let off = kept
            .iter()
            .zip(again)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(kept == again, "{what}: gradient of {name} is off by {off}");
    }
    for part in moved {
        let mut of = kept.1.iter().filter(|(name, _)| name.contains(part));
        let moves = of.any(|(_, grad)| grad.iter().any(|x| *x != 0.0));
        assert!(moves, "{what}: nothing flows into {part}");
    }
}

#[test]
fn full_weights() {
    for name in FAMILIES {
        let decoder = load(name);
        let run = |recompute| {
            let weights = decoder.tracked().with_checkpointing(recompute);
            of_log_probs(&decoder, &weights)
        };
        let moved = ["embed_tokens", "layers.0.", "layers.1.", "model.norm"];
        same(name, run(false), run(true), &moved);
    }
}

#[test]
fn adapters_with_dropout() {
    for name in FAMILIES {
        let mut decoder = load(name);
        let lora = LoraConfig {
            r: 3,
            dropout: 0.25,
            ..LoraConfig::default()
        };
        decoder.add_lora(lora, 1).unwrap();
        // `B` begins as zeros, through which nothing reaches `A`.
        for (index, (name, param)) in decoder.params.iter_mut().enumerate() {
            if name.ends_with("lora_B.weight") {
                let count = param.shape.iter().product::<usize>();
                let data: Vec<f32> = (0..count)
                    .map(|i| ((i * 7 + index) % 11) as f32 * 0.02 - 0.1)
                    .collect();
                let data = TensorData::new(data, [count]);
                param.tensor = Tensor::from_data(data, &Device::flex());
            }
        }
        let run = |recompute, pass| {
            let weights = decoder
                .tracked()
                .with_dropout(DropoutKey { seed: 4, pass })
                .with_checkpointing(recompute);
            of_log_probs(&decoder, &weights)
        };
        let (kept, again) = (run(false, 7), run(true, 7));
        assert_ne!(
            kept.0,
            run(false, 8).0,
            "{name}: another pass, another mask"
        );
        same(name, kept, again, &["lora_A", "lora_B"]);
    }
}

/// Only a layer in the middle is trained: what comes before it needs no gradient.
#[test]
fn one_layer() {
    for trained in ["layers.0.mlp", "layers.1.self_attn", "model.norm"] {
        let mut decoder = load("llama");
        for (name, param) in decoder.params.iter_mut() {
            param.trainable = name.contains(trained);
        }
        let run = |recompute| {
            let weights = decoder.tracked().with_checkpointing(recompute);
            of_log_probs(&decoder, &weights)
        };
        same(trained, run(false), run(true), &[trained]);
    }
}

#[test]
fn scalar_heads_and_two_passes_of_one_loss() {
    let decoder = load("llama").with_score_head(Some(3)).unwrap();
    let sequences: [&[u32]; 3] = [&[3, 4, 5], &[6, 7, 8, 9], &[10]];
    let run = |recompute| {
        let weights = decoder.tracked().with_checkpointing(recompute);
        let one = decoder.scores(&weights, &sequences).unwrap();
        let two = decoder.scores(&weights, &sequences[..1]).unwrap();
        gradients(&decoder, &weights, one.square().sum() + two.sum())
    };
    let (kept, again) = (run(false), run(true));
    assert_eq!(kept.0, again.0);
    for ((name, kept), (_, again)) in kept.1.iter().zip(&again.1) {
        // The two passes are added in another order.
        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * (1.0 + a.abs());
        assert!(kept.iter().zip(again).all(close), "{name}");
    }
    let moved = |part: &str| {
        let mut of = again.1.iter().filter(|(name, _)| name.contains(part));
        of.any(|(_, grad)| grad.iter().any(|x| *x != 0.0))
    };
    assert!(moved("score") && moved("embed_tokens") && moved("layers.0."));
}
