//! `--dtype` and `sampler.dtype`: bfloat16 follows float32 as far as it says.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{arguments:?}: {said}");
    (output.status.code(), said)
}

fn done(arguments: &[&str]) {
    let (status, said) = run(arguments);
    assert_eq!(status, Some(0), "{arguments:?}: {said}");
}

fn metrics(out: &Path) -> Vec<Value> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str(line).unwrap());
    rows.collect()
}

const SHORT: [&str; 6] = [
    "--set=base.train.max_steps=30",
    "--set=sft.train.max_steps=10",
    "--set=reward.train.max_steps=10",
    "--set=ppo.max_steps=3",
    "--set=eval_prompts=8",
    "--set=ppo.eval_samples=8",
];

/// How far the losses of bfloat16 are from those of float32 from the same start, as a share of them, in
/// the first steps of each stage; gradient norms may be ten times that.
const BAND: f64 = 0.003;

#[test]
fn bfloat16_follows_the_trajectory_of_float32() {
    let folder = tempfile::tempdir().unwrap();
    let train = |dtype: &str| {
        let out = folder.path().join(dtype);
        let path = out.display().to_string();
        let mut arguments = vec!["train", "rlhf", "--dtype", dtype, "--out", &path];
        arguments.extend(SHORT);
        done(&arguments);
        metrics(&out)
    };
    let (full, low) = (train("f32"), train("bf16"));
    assert_eq!(full.len(), low.len());
    let (mut compared, mut apart, mut ratios) = (0, 0.0_f64, 0);
    for (full, low) in full.iter().zip(&low) {
        let (stage, step) = (full["stage"].as_str().unwrap(), &full["step"]);
        if stage == "ppo" {
            if low["objective/scores"].is_number() {
                let of = |key: &str| low[key].as_f64().unwrap_or(f64::NAN);
                let ratio = of("policy/ratio_first");
                assert!(
                    ratio - 1.0 < 0.02,
                    "step {step}: the first ratio is {ratio}"
                );
                // Sampling and scoring round differently; they are one model all the same.
                let off = of("sampling/logp_difference_max");
                assert!(off < 0.2, "step {step}: the sampler is off by {off}");
                assert_eq!(
                    low["sampling/importance_mean"],
                    Value::Null,
                    "nothing is weighted"
                );
                ratios += 1;
            }
            continue;
        }
        for (key, band) in [
            ("loss", BAND),
            ("val/loss", BAND),
            ("grad_norm", 10.0 * BAND),
        ] {
            let (Some(x), Some(y)) = (full[key].as_f64(), low[key].as_f64()) else {
                continue;
            };
            let off = (x - y).abs() / x.abs();
            assert!(
                off < band,
                "{stage}, step {step}: {key} is {y} in bf16, {x} in f32"
            );
            compared += 1;
            apart = apart.max(off);
        }
    }
    assert_eq!(ratios, 3, "steps of PPO");
    assert!(compared > 90, "{compared} numbers were compared");
    assert!(apart > 1e-6, "bf16 computes as f32 does");

    // What a run was started with is part of it.
    let path = folder.path().join("bf16").display().to_string();
    let mut arguments = vec!["train", "rlhf", "--resume", "--out", &path];
    arguments.extend(SHORT);
    let (status, said) = run(&arguments);
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("--dtype bf16"), "{said}");
}

#[test]
fn a_sampler_in_bfloat16_is_weighted_and_a_sampler_as_the_policy_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("lab-model").display().to_string();
    done(&["export", "lab", "--out", &model]);
    for (recipe, is_weighted) in [
        ("ppo", true),
        ("grpo", true),
        ("gspo", true),
        ("raft", false),
    ] {
        for dtype in ["same", "bf16", "int8"] {
            let out = folder.path().join(format!("{recipe}-{dtype}"));
            let path = out.display().to_string();
            let sampler = format!("--set=sampler.dtype=\"{dtype}\"");
            done(&[
                "train",
                recipe,
                "--model",
                &model,
                "--out",
                &path,
                "--compare=0",
                "--max-steps=2",
                "--set=prompts_per_step=4",
                "--set=minibatch_size=8",
                "--set=micro_batch_size=8",
                "--set=eval_samples=2",
                "--set=sampling.max_new_tokens=8",
                &sampler,
            ]);
            let rows = metrics(&out);
            let of = |key: &str| rows.iter().find_map(|row| row[key].as_f64());
            let name = format!("{recipe}, {dtype}");
            if !is_weighted {
                assert_eq!(of("sampling/logp_difference_max"), None, "{name}");
                assert_eq!(of("sampling/importance_mean"), None, "{name}");
                continue;
            }
            if dtype == "same" {
                // The sampler's log-probabilities serve as the policy's.
                let ratio = of("policy/ratio_first").expect("it is logged");
                assert!((ratio - 1.0).abs() < 1e-4, "{name}: {ratio}");
                assert_eq!(of("sampling/logp_difference_max"), None, "{name}");
                assert_eq!(of("sampling/importance_mean"), None, "{name}");
            } else {
                let off = of("sampling/logp_difference_max").expect("it is logged");
                assert!(off > 1e-4 && off < 0.1, "{name}: {off}");
                let mean = of("sampling/importance_mean").expect("it is logged");
                assert!((mean - 1.0).abs() < 0.02, "{name}: {mean}");
            }
        }
    }
}

#[test]
fn precisions_that_are_not_there_are_refused() {
    for (arguments, needles) in [
        (
            &["train", "sft", "--dtype", "f16"][..],
            &["--dtype f16", "f32 and bf16"][..],
        ),
        (
            &[
                "generate", "--model", "lab", "--prompt", "x", "--dtype", "f16",
            ],
            &["--dtype f16", "f32 and bf16"],
        ),
        (
            &["train", "sft", "--dtype", "f8"],
            &["--dtype", "f8", "f32, bf16 and f16"],
        ),
        (
            &["train", "ppo", "--set", "sampler.importance_cap=0.5"],
            &["sampler.importance_cap"],
        ),
        (
            &["train", "grpo", "--set", "sampler.dtype=\"int4\""],
            &["sampler.dtype", "int8"],
        ),
    ] {
        let (status, said) = run(arguments);
        assert_eq!(status, Some(2), "{arguments:?}: {said}");
        for needle in needles {
            assert!(
                said.contains(needle),
                "{arguments:?}: `{needle}` is not in: {said}"
            );
        }
    }
}
