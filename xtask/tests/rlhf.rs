//! `train rlhf` with a model and preference pairs of one's own.

use std::{fs, path::Path, process::Command};

fn train(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["train", "rlhf"])
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn the_pipeline_runs_on_files_too() {
    let folder = tempfile::tempdir().unwrap();
    let rows: String = (0..40)
        .map(|i| {
            let (a, b) = (4 + i % 7, 20 + i % 11);
            format!(
                "{{\"prompt\": \"w{b} w9\", \"chosen\": \" w{a} w{a}\", \"rejected\": \" w{b} w3 w{a}\"}}\n"
            )
        })
        .collect();
    let data = folder.path().join("pairs.jsonl");
    fs::write(&data, rows).unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/policy/tests/fixtures/llama");
    let out = folder.path().join("run");
    let paths = [&model, &data, &out].map(|p| p.to_str().unwrap());
    let mut arguments = vec!["--model", paths[0], "--data", paths[1], "--out", paths[2]];
    arguments.extend([
        "--set=sft.train.max_steps=2",
        "--set=reward.train.max_steps=2",
        "--set=reward.lora.r=2",
        "--set=ppo.max_steps=2",
        "--set=ppo.prompts_per_step=4",
        "--set=ppo.minibatch_size=2",
        "--set=ppo.sampling.max_new_tokens=5",
        "--set=sft.data.valid_fraction=0.2",
        "--set=reward.data.valid_fraction=0.2",
        "--set=ppo.data.valid_fraction=0.2",
    ]);
    let (status, printed, said) = train(&arguments);
    assert_eq!(status, Some(0), "{said}");
    assert!(
        printed.contains("proxy reward") && !printed.contains("gold"),
        "{printed}"
    );
    assert!(printed.contains("paired over 8 prompts"), "{printed}");
    for file in [
        "model/model.safetensors",
        "report.html",
        "stages/reward/model.safetensors",
    ] {
        assert!(out.join(file).is_file(), "{file}");
    }
}

#[test]
fn settings_that_would_not_be_read_are_refused() {
    let refused = |arguments: &[&str], needle: &str| {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("run");
        let all = [arguments, &["--out", out.to_str().unwrap()]].concat();
        let (status, _, said) = train(&all);
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains(needle), "`{needle}` is not in: {said}");
    };
    refused(&["--set=sft.seed=3"], "sft.seed");
    refused(
        &["--set=sft.data.hh=messages", "--set=base.train.max_steps=1"],
        "data.hh",
    );
    refused(&["--data", "pairs.jsonl"], "--model");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/policy/tests/fixtures/llama");
    let model = model.to_str().unwrap();
    refused(&["--model", model, "--set=base.train.max_steps=5"], "base");
}
