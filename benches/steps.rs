//! Generation and training steps of the lab's model (0.5 million parameters, random weights).
//! `cargo bench --workspace --profile dev --bench steps`; `cargo xtask bench` measures models of any size.

use std::{hint::black_box, time::Duration};

use burn::tensor::Device;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use togi_data::{PairSample, Sample, rng::CounterRng};
use togi_policy::{Decoder, Sampling, generate, source};
use togi_train::{
    config::OptimSection,
    offline::Objective,
    optimizer::AdamW,
    preference::{Preference, PreferenceConfig},
    sft::Sft,
};

const BATCH: usize = 32;
const PROMPT: usize = 16;
const COMPLETION: usize = 32;

fn lab() -> Decoder {
    source::lab(&Device::flex(), 0)
        .expect("the lab's model is built in")
        .decoder
}

fn ids(decoder: &Decoder, rng: &mut CounterRng, count: usize) -> Vec<u32> {
    let vocabulary = decoder.config.vocab_size;
    (0..count).map(|_| rng.below(vocabulary) as u32).collect()
}

fn pairs(decoder: &Decoder) -> Vec<PairSample> {
    let mut rng = CounterRng::new(0, &[0x7061_6972]);
    (0..BATCH)
        .map(|_| {
            let prompt = ids(decoder, &mut rng, PROMPT);
            let mut side = || Sample::from_parts(&prompt, &ids(decoder, &mut rng, COMPLETION), &[]);
            PairSample {
                chosen: side(),
                rejected: side(),
                margin: None,
                probability: None,
            }
        })
        .collect()
}

/// Elements are tokens of the sequences.
fn step(criterion: &mut Criterion, name: &str, decoder: &mut Decoder, objective: &impl Objective) {
    let batch: Vec<usize> = (0..BATCH).collect();
    let tokens: usize = batch.iter().map(|i| objective.tokens(*i)).sum();
    let optim = OptimSection::default();
    let mut adam = AdamW::new(&decoder.params);
    let mut group = criterion.benchmark_group("training step");
    group.throughput(Throughput::Elements(tokens as u64));
    group.bench_function(name, |b| {
        b.iter(|| {
            let weights = decoder.tracked();
            let whole = objective
                .begin(decoder, &batch)
                .expect("a batch of samples");
            let (loss, _) = objective
                .loss(decoder, &weights, &batch, &whole)
                .expect("the samples fit the model");
            let grads = decoder
                .gradients(&weights, loss)
                .expect("the loss is of these weights");
            drop(weights);
            black_box(adam.update(&mut decoder.params, grads, &optim, 1e-4))
        });
    });
    group.finish();
}

fn training(criterion: &mut Criterion) {
    let mut decoder = lab();
    let pairs = pairs(&decoder);
    let train: Vec<Sample> = pairs.iter().map(|pair| pair.chosen.clone()).collect();
    let sft = Sft {
        train: &train,
        valid: &[],
    };
    step(criterion, "sft", &mut decoder, &sft);
    let settings = PreferenceConfig::default();
    let (dpo, _) = Preference::new(&pairs, &[], &settings, &lab()).expect("no cache on disk");
    step(criterion, "dpo", &mut decoder, &dpo);
}

/// Elements are tokens that are drawn.
fn generation(criterion: &mut Criterion) {
    let decoder = lab();
    let weights = decoder.sampling();
    let mut group = criterion.benchmark_group("generation");
    for batch in [1, 16] {
        let mut rng = CounterRng::new(0, &[0x7072_6f6d]);
        let prompts: Vec<Vec<u32>> = (0..batch)
            .map(|_| ids(&decoder, &mut rng, PROMPT))
            .collect();
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let streams: Vec<u64> = (0..batch as u64).collect();
        let sampling = Sampling {
            max_new_tokens: COMPLETION,
            ..Sampling::default()
        };
        group.throughput(Throughput::Elements((batch * COMPLETION) as u64));
        group.bench_function(format!("batch {batch}"), |b| {
            b.iter(|| {
                let drawn = generate(&decoder, &weights, &prompts, &[], &sampling, 0, &streams);
                black_box(drawn.expect("the prompts fit the model"))
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = steps;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = training, generation
}
criterion_main!(steps);
