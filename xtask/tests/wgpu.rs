//! Recipes, generation and checkpoints on WGPU beside the CPU. CI has a software Vulkan driver; where
//! there is no adapter the tests say that they were skipped.
#![cfg(feature = "wgpu")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

fn xtask(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// True if there is an adapter.
fn there() -> bool {
    let devices = xtask(&["devices"]);
    let found = devices.lines().any(|line| line.starts_with("wgpu:0"));
    if !found {
        assert!(
            std::env::var_os("TOGI_REQUIRE_WGPU").is_none(),
            "TOGI_REQUIRE_WGPU is set, and there is no adapter:\n{devices}"
        );
        println!("skipped: no WGPU adapter here");
    }
    found
}

fn lab_model(folder: &Path) -> String {
    let out = folder.join("lab-model").display().to_string();
    xtask(&["export", "lab", "--out", &out]);
    out
}

struct Run {
    metrics: Vec<Value>,
    weights: Vec<f32>,
}

/// Trains on a device, from the untrained lab model.
fn train(folder: &Path, model: &str, recipe: &str, device: &str, settings: &[&str]) -> Run {
    let out = folder.join(format!("{recipe}-{device}"));
    let path = out.display().to_string();
    let mut arguments = vec![
        "train", recipe, "--model", model, "--device", device, "--out", &path,
    ];
    arguments.push("--compare=0");
    arguments.extend(settings);
    xtask(&arguments);
    read(&out)
}

fn read(out: &Path) -> Run {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let metrics = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let bytes = fs::read(out.join("model/model.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (values, _) = bytes[header..].as_chunks::<4>();
    Run {
        metrics,
        weights: values.iter().map(|v| f32::from_le_bytes(*v)).collect(),
    }
}

fn close(name: &str, a: &Run, b: &Run) {
    assert_eq!(a.metrics.len(), b.metrics.len(), "{name}: steps");
    for (step, (a, b)) in a.metrics.iter().zip(&b.metrics).enumerate() {
        for key in ["loss", "grad_norm", "loss/policy", "loss/value"] {
            let (Some(x), Some(y)) = (a[key].as_f64(), b[key].as_f64()) else {
                continue;
            };
            assert!(
                (x - y).abs() <= 1e-4 + 1e-3 * y.abs(),
                "{name}, step {step}: {key} is {x} on wgpu, {y} on the CPU"
            );
        }
    }
    let worst = a.weights.iter().zip(&b.weights);
    let worst = worst.map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
    assert_eq!(a.weights.len(), b.weights.len(), "{name}: weights");
    assert!(worst <= WEIGHTS, "{name}: a weight is off by {worst}");
}

/// How far weights may be apart after a step with a learning rate of 1e-4: Adam turns a gradient that is
/// only noise into a step of that size in either direction.
const WEIGHTS: f32 = 2.1e-4;

const STEP: [&str; 2] = ["--max-steps=1", "--set=optim.learning_rate=1e-4"];
const OFFLINE: [&str; 4] = [
    "--set=data.lab_rows=64",
    "--set=train.batch_size=8",
    "--set=train.micro_batch_size=4",
    "--set=optim.warmup_steps=0",
];
const ONLINE: [&str; 6] = [
    "--set=prompts_per_step=4",
    "--set=minibatch_size=8",
    "--set=micro_batch_size=8",
    "--set=eval_samples=2",
    "--set=sampling.max_new_tokens=6",
    "--set=optim.warmup_steps=0",
];

#[test]
fn a_step_of_each_recipe_is_that_of_the_cpu() {
    if !there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let model = lab_model(folder.path());
    let offline = ["sft", "reward", "dpo", "kto", "orpo"];
    let online = ["ppo", "grpo", "rloo", "nash-md"];
    for recipe in offline.into_iter().chain(online) {
        let more: &[&str] = if offline.contains(&recipe) {
            &OFFLINE
        } else {
            &ONLINE
        };
        let settings = [&STEP, more].concat();
        let run = |device| train(folder.path(), &model, recipe, device, &settings);
        close(recipe, &run("wgpu"), &run("cpu"));
    }
}

#[test]
fn generation_draws_the_same_tokens() {
    if !there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let model = lab_model(folder.path());
    for temperature in ["0", "1"] {
        let said = |device| {
            xtask(&[
                "generate",
                "--model",
                &model,
                "--device",
                device,
                "--temperature",
                temperature,
                "--max-new-tokens",
                "12",
                "--samples",
                "3",
                "--prompt",
                "name three colors",
                "--prompt",
                "repeat the words red dog sun",
            ])
        };
        assert_eq!(said("wgpu"), said("cpu"), "temperature {temperature}");
    }
}

#[test]
fn a_checkpoint_of_one_device_is_gone_on_with_on_the_other() {
    if !there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let model = lab_model(folder.path());
    let start = |name: &str, device: &str, steps: &str| -> PathBuf {
        let out = folder.path().join(name);
        let path = out.display().to_string();
        let mut arguments = vec!["train", "sft", "--model", &model, "--device", device];
        arguments.extend(["--out", &path, "--resume", "--compare=0"]);
        arguments.extend(OFFLINE);
        arguments.extend([
            "--set=train.checkpoint_every=2",
            "--set=optim.schedule=constant",
        ]);
        arguments.extend(["--set=optim.learning_rate=1e-4", steps]);
        xtask(&arguments);
        out
    };
    // The second half of the steps after the checkpoint of the first half.
    for (first, second) in [("cpu", "wgpu"), ("wgpu", "cpu")] {
        let name = format!("{first}-{second}");
        let out = start(&name, first, "--max-steps=2");
        let config = out.join("config.toml");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace("max_steps = 2", "max_steps = 4")).unwrap();
        fs::remove_dir_all(out.join("model")).unwrap();
        start(&name, second, "--max-steps=4");
        let whole = start(&format!("{name}-whole"), "cpu", "--max-steps=4");
        // The short run looked at held-out samples at its end, which the long one did not.
        let losses = |out: &Path| -> Vec<f64> {
            let rows = read(out).metrics;
            rows.iter().filter_map(|row| row["loss"].as_f64()).collect()
        };
        let (found, expected) = (losses(&out), losses(&whole));
        assert_eq!((found.len(), expected.len()), (4, 4), "{name}");
        for (x, y) in found.iter().zip(&expected) {
            assert!((x - y).abs() <= 1e-3 * (1.0 + y), "{name}: {x}, {y}");
        }
    }
}
