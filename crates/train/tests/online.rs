//! Twenty steps of the online algorithms on given completions and rewards against TRL 1.16
//! (tools/golden/online_trajectories.py), however a minibatch is cut.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;
use togi_data::Sample;
use togi_policy::{Decoder, hf, log_probs::pad};
use togi_rl_algos::group::GroupScale;
use togi_train::{
    cispo::Cispo,
    config::OptimSection,
    grpo::{Aggregation, Grpo, LossKl},
    gspo::Gspo,
    online::{Minibatch, OnlineAlgorithm, Part, Scored},
    optimizer::AdamW,
    rloo::Rloo,
    schedule::Schedule,
};

/// Updates with each generation's completions.
const PASSES: usize = 2;

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/online.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    let all = value.as_array().unwrap().iter();
    all.map(|x| x.as_u64().unwrap() as u32).collect()
}

fn host(x: &Tensor<1>) -> Vec<f64> {
    x.clone().detach().into_data().iter::<f64>().collect()
}

/// `log π` of each completion's tokens.
fn logps(decoder: &Decoder, samples: &[Sample]) -> Vec<Vec<f64>> {
    let views: Vec<&Sample> = samples.iter().collect();
    let scored = decoder.log_probs(&decoder.frozen(), &views, 1.0).unwrap();
    let mut all = host(&scored.values).into_iter();
    let rows = scored.lens.iter();
    rows.map(|len| all.by_ref().take(*len).collect()).collect()
}

fn padded(rows: &[&Vec<f64>]) -> Tensor<2> {
    let flat: Vec<f32> = rows
        .iter()
        .flat_map(|r| r.iter().map(|x| *x as f32))
        .collect();
    let lens: Vec<usize> = rows.iter().map(|r| r.len()).collect();
    let count = flat.len();
    pad(
        Tensor::from_data(TensorData::new(flat, [count]), &Device::flex()),
        &lens,
    )
}

fn follows(name: &str, golden: &Value, algorithm: &impl OnlineAlgorithm) {
    for micro_batch in [8, 3, 1] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/tests/fixtures/llama");
        let mut decoder = hf::load(&folder, &Device::flex()).unwrap().decoder;
        let reference = decoder.clone();
        let optim = OptimSection {
            learning_rate: golden["learning_rate"].as_f64().unwrap(),
            schedule: Schedule::Constant,
            ..OptimSection::default()
        };
        let mut adam = AdamW::new(&decoder.params);
        let group = golden["group"].as_u64().unwrap() as usize;
        let mut theirs = golden[name].as_array().unwrap().iter().enumerate();
        for generation in golden["generations"].as_array().unwrap() {
            let prompts: Vec<Vec<u32>> = generation["prompts"]
                .as_array()
                .unwrap()
                .iter()
                .map(ids)
                .collect();
            let completions = generation["completions"].as_array().unwrap().iter();
            let samples: Vec<Sample> = completions
                .enumerate()
                .map(|(i, c)| Sample::from_parts(&prompts[i / group], &ids(c), &[2]))
                .collect();
            let rewards = generation["rewards"].as_array().unwrap().iter();
            let scores: Vec<f64> = rewards.map(|r| r.as_f64().unwrap()).collect();
            let (old, frozen) = (logps(&decoder, &samples), logps(&reference, &samples));
            let scored = Scored {
                scores: &scores,
                group_size: group,
                logps: &old,
                reference: &frozen,
            };
            let advantages = algorithm.advantages(&scored).unwrap();
            let whole = Minibatch {
                tokens: old.iter().map(Vec::len).sum::<usize>() as f64,
                completions: samples.len() as f64,
                max_new_tokens: golden["longest"].as_f64().unwrap(),
            };
            for _ in 0..PASSES {
                let mut loss = 0.0;
                let mut total: Option<Vec<(String, Tensor<1>)>> = None;
                let all: Vec<usize> = (0..samples.len()).collect();
                for part in all.chunks(micro_batch) {
                    let weights = decoder.tracked();
                    let views: Vec<&Sample> = part.iter().map(|i| &samples[*i]).collect();
                    let scored = decoder.log_probs(&weights, &views, 1.0).unwrap();
                    let (now, mask) = scored.padded();
                    let pick = |rows: &[Vec<f64>]| {
                        padded(&part.iter().map(|i| &rows[*i]).collect::<Vec<_>>())
                    };
                    let out = algorithm
                        .loss(&Part {
                            logps: now,
                            old_logps: pick(&old),
                            reference: pick(&frozen),
                            advantages: pick(&advantages),
                            mask,
                            whole,
                        })
                        .unwrap();
                    loss += host(&out.loss)[0];
                    let grads = weights.gradients(&mut out.loss.backward());
                    total = Some(match total {
                        None => grads,
                        Some(sum) => sum
                            .into_iter()
                            .zip(grads)
                            .map(|((name, a), (_, b))| (name, a + b))
                            .collect(),
                    });
                }
                let rate = optim.learning_rate;
                let norm = adam.update(&mut decoder.params, total.unwrap(), &optim, rate);
                let (step, theirs) = theirs.next().unwrap();
                let number = |key: &str| theirs[key].as_f64().unwrap();
                let place = format!("{name}, step {step}, micro-batch {micro_batch}");
                let off = (loss - number("loss")).abs();
                assert!(
                    off <= 1e-4,
                    "{place}: loss {loss}, TRL has {}",
                    number("loss")
                );
                let their_norm = number("grad_norm");
                assert!(
                    (norm - their_norm).abs() <= 1e-3 * their_norm + 1e-5,
                    "{place}: gradient norm {norm}, TRL has {their_norm}"
                );
            }
        }
        assert!(theirs.next().is_none(), "{name}: steps are left");
    }
}

#[test]
fn grpo_follows_trl_in_every_aggregation() {
    let golden = golden();
    let grpo = Grpo {
        aggregation: Aggregation::Grpo,
        ..Grpo::default()
    };
    follows("grpo", &golden, &grpo);
    let dapo = Grpo {
        clip_high: 0.28,
        kl: LossKl::K3,
        ..Grpo::default()
    };
    follows("dapo", &golden, &dapo);
    let dr_grpo = Grpo {
        aggregation: Aggregation::DrGrpo,
        scale: GroupScale::None,
        kl_coef: 0.0,
        ..Grpo::default()
    };
    follows("dr_grpo", &golden, &dr_grpo);
    let batch = Grpo {
        scale: GroupScale::Batch,
        kl_coef: 0.0,
        ..Grpo::default()
    };
    follows("batch", &golden, &batch);
}

#[test]
fn gspo_follows_trl() {
    follows("gspo", &golden(), &Gspo::default());
}

#[test]
fn cispo_follows_trl() {
    follows("cispo", &golden(), &Cispo::default());
}

#[test]
fn rloo_follows_trl() {
    follows("rloo", &golden(), &Rloo::default());
}
