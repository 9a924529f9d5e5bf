//! Alarms of online runs: written down, shown in the report, and acted upon.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

fn xtask(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

fn rows(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A run of six steps of which the lengths differ from the first step's by more than nothing.
fn train(
    folder: &Path,
    recipe: &str,
    name: &str,
    settings: &[&str],
) -> (std::path::PathBuf, String) {
    let model = folder.join("lab-model");
    if !model.exists() {
        let model = model.display().to_string();
        assert_eq!(xtask(&["export", "lab", "--out", &model]).0, Some(0));
    }
    let (model, out) = (model.display().to_string(), folder.join(name));
    let path = out.display().to_string();
    let mut arguments = vec![
        "train",
        recipe,
        "--model",
        &model,
        "--out",
        &path,
        "--compare=0",
    ];
    arguments.extend([
        "--max-steps=6",
        "--set=prompts_per_step=8",
        "--set=micro_batch_size=8",
        "--set=minibatch_size=8",
        "--set=sampling.max_new_tokens=12",
        "--set=data.lab_rows=64",
        "--set=eval_samples=8",
        "--set=checkpoint_every=1",
        "--set=keep_checkpoints=8",
        "--set=optim.learning_rate=0.01",
        "--set=monitor.window=1",
        "--set=monitor.length_rise=0.0001",
        "--set=monitor.length_fall=0.0001",
    ]);
    arguments.extend(settings);
    let (status, said) = xtask(&arguments);
    assert_eq!(status, Some(0), "{said}");
    (out, said)
}

#[test]
fn alarms_are_written_shown_and_may_end_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let group = "--set=completions_per_prompt=2";
    let (warned, said) = train(folder.path(), "grpo", "warned", &[group]);
    let alarms = rows(&warned.join("alarms.jsonl"));
    assert!(!alarms.is_empty(), "{said}");
    let first = &alarms[0];
    assert_eq!(first["action"], "warn");
    assert!(said.contains("ALARM"), "{said}");
    let page = fs::read_to_string(warned.join("report.html")).unwrap();
    assert!(page.contains(first["text"].as_str().unwrap()));
    let steps = |out: &Path| {
        let steps = rows(&out.join("metrics.jsonl")).into_iter();
        steps.filter_map(|row| row["step"].as_u64()).max().unwrap()
    };
    assert_eq!(steps(&warned), 6);
    let at = first["step"].as_u64().unwrap();

    let (stopped, said) = train(
        folder.path(),
        "grpo",
        "stopped",
        &[group, "--set=monitor.action=stop"],
    );
    assert!(
        said.contains(&format!("stopped at step {at} by an alarm")),
        "{said}"
    );
    assert_eq!(steps(&stopped), at);

    let back = [group, "--set=monitor.action=roll_back"];
    let (back, said) = train(folder.path(), "grpo", "back", &back);
    assert!(
        said.contains(&format!("that of step {}'s checkpoint", at - 1)),
        "{said}"
    );
    // The weights are those that the run without an alarm's end had one step before.
    let weights = |path: &Path| fs::read(path).unwrap();
    let model = "model/model.safetensors";
    assert_ne!(weights(&back.join(model)), weights(&stopped.join(model)));
    assert_eq!(steps(&back), at);

    let (quiet, said) = train(
        folder.path(),
        "grpo",
        "quiet",
        &[group, "--set=monitor.action=log"],
    );
    assert!(
        !quiet.join("alarms.jsonl").exists() && !said.contains("ALARM"),
        "{said}"
    );
    assert!(rows(&quiet.join("metrics.jsonl"))[0]["monitor/repetition"].is_number());
}

#[test]
fn ppo_is_watched_too() {
    let folder = tempfile::tempdir().unwrap();
    let (out, said) = train(
        folder.path(),
        "ppo",
        "ppo",
        &["--set=monitor.action=roll_back"],
    );
    assert!(
        said.contains("by an alarm; the model is that of step"),
        "{said}"
    );
    assert_eq!(rows(&out.join("alarms.jsonl"))[0]["stage"], "ppo");
}
