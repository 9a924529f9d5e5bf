//! The objectives on 256 pairs, or 64 completions of 128 tokens, with their backward pass.
//! `cargo bench --workspace --profile dev --bench losses`.

use std::{hint::black_box, time::Duration};

use burn::tensor::{Bool, Device, Tensor, TensorData};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use togi_benches::{leaf, tensor};
use togi_rl_algos::{
    AlgoError, Normalisation, PairLogps,
    bradley_terry::bradley_terry_loss,
    cispo::cispo_loss,
    cpo::cpo_loss,
    dpo,
    gae::gae,
    group::{GroupScale, group_relative, leave_one_out},
    gspo::gspo_loss,
    ipo,
    kl::{KlEstimator, kl_per_token},
    kto::{KtoWeights, kto_loss},
    orpo::orpo_loss,
    ppo::{ClipRange, policy_loss, token_rewards, value_loss},
    reinforce::reinforce_loss,
    sft::nll_loss,
    simpo::simpo_loss,
    slic::slic_hf_loss,
    whiten::whiten,
};

const PAIRS: usize = 256;
const COMPLETIONS: usize = 64;
const TOKENS: usize = 128;

type Loss<const D: usize> = Result<Tensor<D>, AlgoError>;

/// Log-probabilities of answers of 20 tokens or so: all below 0.
fn sums(seed: u64, tracked: bool) -> Tensor<1> {
    let raw = match tracked {
        true => leaf(seed, [PAIRS]),
        false => tensor(seed, [PAIRS]),
    };
    raw * 5.0 - 30.0
}

fn pair(seed: u64, tracked: bool) -> PairLogps {
    PairLogps {
        chosen: sums(seed, tracked),
        rejected: sums(seed + 1, tracked),
    }
}

/// Measures a loss of pairs or answers with its backward pass.
fn of_pairs(criterion: &mut Criterion, name: &str, loss: impl Fn(&PairLogps) -> Loss<1>) {
    let mut group = criterion.benchmark_group("pairs");
    group.throughput(Throughput::Elements(PAIRS as u64));
    let normalisation = Normalisation::Sequence {
        denominator: PAIRS as f64,
    };
    group.bench_function(name, |b| {
        b.iter(|| {
            let policy = pair(1, true);
            let losses = loss(&policy).and_then(|losses| normalisation.sequences(losses));
            black_box(losses.expect("the inputs are in range").backward())
        });
    });
    group.finish();
}

fn preference(criterion: &mut Criterion) {
    let reference = pair(5, false);
    let tokens: Tensor<1> = tensor::<1>(7, [PAIRS]) * 4.0 + 20.0;
    let labels: Vec<bool> = (0..PAIRS).map(|i| i % 2 == 0).collect();
    let weights = KtoWeights {
        desirable: 1.0,
        undesirable: 1.0,
    };
    let n = || tokens.clone();
    of_pairs(criterion, "dpo", |p| {
        dpo::sigmoid_loss(p, &reference, 0.1, 0.0)
    });
    of_pairs(criterion, "dpo robust", |p| {
        dpo::robust_loss(p, &reference, 0.1, 0.1)
    });
    of_pairs(criterion, "dpo hinge", |p| {
        dpo::hinge_loss(p, &reference, 0.1)
    });
    of_pairs(criterion, "ipo", |p| ipo::summed_loss(p, &reference, 0.1));
    of_pairs(criterion, "slic", |p| {
        slic_hf_loss(p, &p.chosen.clone(), 1.0, 0.1)
    });
    of_pairs(criterion, "simpo", |p| simpo_loss(p, &n(), &n(), 2.0, 0.5));
    of_pairs(criterion, "cpo", |p| cpo_loss(p, &n(), 0.1, 1.0, 0.0));
    of_pairs(criterion, "orpo", |p| orpo_loss(p, &n(), &n(), 0.1));
    of_pairs(criterion, "kto", |p| {
        kto_loss(&p.chosen, &reference.chosen, &labels, 0.1, 0.1, weights)
    });
    of_pairs(criterion, "bradley-terry", |p| {
        bradley_terry_loss(&p.chosen, &p.rejected, None, 0.0, 0.0)
    });
}

/// What losses of tokens read: all completions are whole.
struct Tokens {
    old: Tensor<2>,
    advantages: Tensor<2>,
    mask: Tensor<2, Bool>,
}

fn tokens() -> Tokens {
    let shape = [COMPLETIONS, TOKENS];
    let mask = TensorData::new(vec![true; COMPLETIONS * TOKENS], shape);
    Tokens {
        old: tensor::<2>(2, shape) * 0.5 - 2.0,
        advantages: tensor(3, shape),
        mask: Tensor::from_data(mask, &Device::flex()),
    }
}

/// Measures a loss of tokens with its backward pass.
fn of_tokens(criterion: &mut Criterion, name: &str, loss: impl Fn(&Tensor<2>) -> Loss<2>) {
    let mut group = criterion.benchmark_group("tokens");
    group.throughput(Throughput::Elements((COMPLETIONS * TOKENS) as u64));
    group.bench_function(name, |b| {
        b.iter(|| {
            let logps = leaf(1, [COMPLETIONS, TOKENS]) * 0.5 - 2.0;
            let losses = loss(&logps).expect("the inputs are in range");
            black_box(losses.sum().backward())
        });
    });
    group.finish();
}

fn online(criterion: &mut Criterion) {
    let Tokens {
        old,
        advantages,
        mask,
    } = tokens();
    let clip = ClipRange {
        low: 0.2,
        high: 0.2,
    };
    let of_sequences: Tensor<1> = tensor(4, [COMPLETIONS]);
    of_tokens(criterion, "sft", |p| nll_loss(p, &mask));
    of_tokens(criterion, "reinforce", |p| {
        reinforce_loss(p, &advantages, &mask)
    });
    of_tokens(criterion, "ppo and grpo", |p| {
        Ok(policy_loss(p, &old, &advantages, &mask, 0.2)?.loss)
    });
    of_tokens(criterion, "cispo", |p| {
        cispo_loss(p, &old, &advantages, &mask, 0.2)
    });
    of_tokens(criterion, "gspo", |p| {
        Ok(gspo_loss(p, &old, &of_sequences, &mask, clip)?
            .loss
            .unsqueeze())
    });
    of_tokens(criterion, "ppo's value", |p| {
        value_loss(p, &old, &advantages, &mask, 0.2)
    });
    of_tokens(criterion, "kl k3", |p| {
        kl_per_token(p, &old, KlEstimator::K3)
    });
}

/// What is computed of rewards before a loss; no gradients.
fn advantages(criterion: &mut Criterion) {
    let Tokens { old, mask, .. } = tokens();
    let scores: Vec<f64> = (0..COMPLETIONS).map(|i| (i * 37 % 11) as f64).collect();
    let score_tensor: Tensor<1> = tensor(5, [COMPLETIONS]);
    let mut group = criterion.benchmark_group("advantages");
    group.bench_function("token rewards and gae", |b| {
        b.iter(|| {
            let rewards = token_rewards(&score_tensor, &old, &mask, 0.05);
            let rewards = rewards.expect("the inputs are in range");
            black_box(gae(&rewards, &old, &mask, 1.0, 0.95))
        });
    });
    group.bench_function("whiten", |b| b.iter(|| black_box(whiten(&old, &mask))));
    group.bench_function("group relative", |b| {
        b.iter(|| black_box(group_relative(&scores, 8, GroupScale::Group)));
    });
    group.bench_function("leave one out", |b| {
        b.iter(|| black_box(leave_one_out(&scores, 8)));
    });
    group.finish();
}

criterion_group! {
    name = losses;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    targets = preference, online, advantages
}
criterion_main!(losses);
