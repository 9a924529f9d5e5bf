//! Each fused operation on the shapes of a model of 135 million parameters (SmolLM2): width 576, 9 query and 3 key
//! heads of 64, feed-forward 1,536, vocabulary 49,152. `cargo bench --workspace --profile dev --bench kernels`.

use std::{hint::black_box, sync::Arc, time::Duration};

use burn::tensor::{Device, Tensor};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use togi_benches::{leaf, tensor};
use togi_kernels::{
    AdamWStep, AttentionShape, KvCache, PackedLinear, Precision, RotaryTable, Run, WeightFormat,
    adamw_step, attention, embedding, linear_in, rms_norm, rotary, selected_log_probs, swiglu,
};

const TOKENS: usize = 512;
const WIDTH: usize = 576;
const FEED_FORWARD: usize = 1536;
const VOCABULARY: usize = 49_152;
/// More than a cache holds, as in a model.
const LAYERS: usize = 20;
const HEADS: AttentionShape = AttentionShape {
    heads: 9,
    kv_heads: 3,
    head_dim: 64,
};

/// Measures an operation without gradients, and with its backward pass.
fn both<const N: usize>(
    criterion: &mut Criterion,
    name: &str,
    elements: usize,
    shapes: [[usize; 2]; N],
    operation: impl Fn(&[Tensor<2>; N]) -> Tensor<2>,
) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(elements as u64));
    let mut seeds = 0..;
    let plain = shapes.map(|shape| tensor(seeds.next().unwrap_or(0), shape));
    group.bench_function("forward", |b| b.iter(|| black_box(operation(&plain))));
    let mut seeds = 0..;
    let leaves = shapes.map(|shape| leaf(seeds.next().unwrap_or(0), shape));
    group.bench_function("forward and backward", |b| {
        b.iter(|| black_box(operation(&leaves).sum().backward()));
    });
    group.finish();
}

/// Elements are multiply-adds of the forward pass.
fn products(criterion: &mut Criterion) {
    let shapes = [[TOKENS, WIDTH], [FEED_FORWARD, WIDTH]];
    let work = TOKENS * WIDTH * FEED_FORWARD;
    for precision in [Precision::F32, Precision::Bf16] {
        let name = format!("linear, {precision}");
        both(criterion, &name, work, shapes, |[x, w]| {
            linear_in(precision, x.clone(), w.clone())
        });
    }
    let layers = |seed: u64, shape: [usize; 2]| -> Vec<Tensor<2>> {
        (0..LAYERS as u64)
            .map(|i| tensor(seed + i, shape))
            .collect()
    };
    let wide = layers(1, [2 * FEED_FORWARD, WIDTH]);
    let deep = layers(2, [WIDTH, FEED_FORWARD]);
    let mut group = criterion.benchmark_group("packed linear");
    for (format_name, format) in [
        ("f32", WeightFormat::F32),
        ("bf16", WeightFormat::Bf16),
        ("int8", WeightFormat::Int8),
    ] {
        for (name, matrices) in [("wide", &wide), ("deep", &deep)] {
            let [outer, inner] = matrices[0].dims();
            let packed: Vec<PackedLinear> = matrices
                .iter()
                .map(|m| PackedLinear::new(std::slice::from_ref(m), format))
                .collect::<Option<_>>()
                .expect("the CPU has the form");
            let mut in_turn = packed.iter().cycle();
            for rows in [1, 4, 16, 512] {
                let x: Tensor<2> = tensor(0, [rows, inner]);
                group.throughput(Throughput::Elements((2 * rows * inner * outer) as u64));
                group.bench_function(format!("{format_name}, {name}, {rows} rows"), |b| {
                    b.iter(|| {
                        in_turn
                            .next()
                            .map(|packed| black_box(packed.apply(x.clone())))
                    });
                });
            }
        }
    }
    group.finish();
}

/// Elements are tokens.
fn attention_of_sequences(criterion: &mut Criterion) {
    let shapes = [[TOKENS, 576], [TOKENS, 192], [TOKENS, 192]];
    let whole: Arc<[Run]> = [Run::whole(TOKENS)].into();
    let pair = Run {
        len: 128,
        prefix: Some(0),
    };
    let shared: Arc<[Run]> = [Run::whole(256), pair, pair].into();
    for (name, runs) in [("attention", whole), ("attention, shared prompt", shared)] {
        both(criterion, name, TOKENS, shapes, |[q, k, v]| {
            attention(q.clone(), k.clone(), v.clone(), &runs, HEADS)
        });
    }
}

/// Elements are scored tokens.
fn log_probabilities(criterion: &mut Criterion) {
    let rows = 64;
    let targets: Arc<[u32]> = (0..rows as u32)
        .map(|i| i * 701 % VOCABULARY as u32)
        .collect();
    let shapes = [[rows, WIDTH], [VOCABULARY, WIDTH]];
    both(criterion, "selected_log_probs", rows, shapes, |[h, w]| {
        let scored = selected_log_probs(Precision::F32, h.clone(), w.clone(), &targets, 1.0);
        scored.logps.unsqueeze()
    });
}

/// Elements are numbers of the result.
fn pointwise(criterion: &mut Criterion) {
    let size = TOKENS * WIDTH;
    let shapes = [[TOKENS, WIDTH], [1, WIDTH]];
    both(criterion, "rms_norm", size, shapes, |[x, w]| {
        rms_norm(x.clone(), w.clone().reshape([WIDTH]), 1e-5)
    });
    let shapes = [[TOKENS, FEED_FORWARD]; 2];
    both(
        criterion,
        "swiglu",
        TOKENS * FEED_FORWARD,
        shapes,
        |[gate, up]| swiglu(gate.clone(), up.clone()),
    );
    let frequencies: Vec<f32> = (0..32).map(|i| 1e5_f32.powf(-(i as f32) / 32.0)).collect();
    let table = RotaryTable::new(&frequencies, TOKENS);
    let positions: Arc<[u32]> = (0..TOKENS as u32).collect();
    both(criterion, "rotary", size, [[TOKENS, WIDTH]], |[x]| {
        rotary(x.clone(), &positions, &table)
    });
    let ids: Arc<[u32]> = (0..TOKENS as u32).map(|i| i * 7 % 8192).collect();
    both(criterion, "embedding", size, [[8192, WIDTH]], |[w]| {
        embedding(w.clone(), &ids)
    });
}

/// Elements are parameters.
fn optimiser(criterion: &mut Criterion) {
    let size = FEED_FORWARD * WIDTH;
    let step = AdamWStep {
        lr: 1e-4,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.01,
        bias_correction1: 0.1,
        bias_correction2: 0.001,
        grad_scale: 1.0,
    };
    let grad: Tensor<1> = tensor(1, [size]);
    let mut group = criterion.benchmark_group("adamw");
    group.throughput(Throughput::Elements(size as u64));
    group.bench_function("step", |b| {
        // Tensors that nobody else holds, as the optimiser has them: the update is in place.
        b.iter_batched(
            || {
                let param = tensor(0, [size]);
                (
                    param,
                    Tensor::zeros([size], &Device::flex()),
                    tensor::<1>(2, [size]).square(),
                )
            },
            |(param, m, v)| black_box(adamw_step(param, grad.clone(), m, v, &step)),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

/// One token more for each of 16 sequences of 128; elements are positions that are seen.
fn cache(criterion: &mut Criterion) {
    let (rows, seen) = (16, 128);
    let mut cache = KvCache::new(rows, seen + 1, HEADS, &Device::flex());
    for slot in 0..rows {
        let [key, value] = [1, 2].map(|seed| tensor(seed + slot as u64, [seen, 192]));
        cache.write(slot, 0, key, value);
    }
    let (q, k, v): (Tensor<2>, Tensor<2>, Tensor<2>) = (
        tensor(0, [rows, 576]),
        tensor(1, [rows, 192]),
        tensor(2, [rows, 192]),
    );
    let places: Vec<(usize, usize)> = (0..rows).map(|slot| (slot, seen)).collect();
    let mut group = criterion.benchmark_group("kv cache");
    group.throughput(Throughput::Elements((rows * (seen + 1)) as u64));
    group.bench_function("step", |b| {
        b.iter(|| black_box(cache.step(q.clone(), k.clone(), v.clone(), &places)));
    });
    group.finish();
}

criterion_group! {
    name = kernels;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = products, attention_of_sequences, log_probabilities, pointwise, optimiser, cache
}
criterion_main!(kernels);
