//! What people do wrong ends with exit status 1 or 2 and a message that says where and what to do.

use std::{fs, path::Path, process::Command};

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{arguments:?}: {said}");
    (output.status.code(), said)
}

/// Runs a recipe for a step and expects exit status 2 and a message with all of `needles`.
fn refused(arguments: &[&str], needles: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let mut all = vec!["train"];
    all.extend(arguments);
    all.extend(["--max-steps", "1", "--out", out.to_str().unwrap()]);
    let (status, said) = run(&all);
    assert_eq!(status, Some(2), "{arguments:?}: {said}");
    for needle in needles {
        assert!(
            said.contains(needle),
            "{arguments:?}: `{needle}` is not in: {said}"
        );
    }
}

fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn configuration() {
    let folder = tempfile::tempdir().unwrap();
    refused(
        &["sft", "--set", "optim.learnin_rate=1"],
        &["optim.learnin_rate", "did you mean `learning_rate`?"],
    );
    refused(
        &["sft", "--set", "optim.learning_rate=fast"],
        &["learning_rate"],
    );
    refused(
        &["sft", "--set", "optim.learning_rate=nan"],
        &["learning_rate"],
    );
    refused(
        &["sft", "--set", "train.batch_size=0"],
        &["train.batch_size"],
    );
    // A field that the loss does not read.
    refused(
        &[
            "dpo",
            "--set",
            "loss={kind=\"hinge\",beta=0.1,label_smoothing=0.1}",
        ],
        &["label_smoothing"],
    );
    let config = file(folder.path(), "c.toml", "[train]\nmax_step = 3\n");
    refused(
        &["dpo", "--config", &config],
        &["c.toml", "did you mean `max_steps`?"],
    );
    let config = file(folder.path(), "d.toml", "[train\n");
    refused(&["dpo", "--config", &config], &["d.toml", "1"]);
    refused(
        &["sft", "--set", "lora.target_modules=[\"q_prj\"]"],
        &["q_prj"],
    );
}

#[test]
fn data() {
    let folder = tempfile::tempdir().unwrap();
    let rows = |name: &str, text: &str, recipe: &str, needles: &[&str]| {
        let file = file(folder.path(), name, text);
        refused(&[recipe, "--data", &file], needles);
    };
    let good = "{\"prompt\": \"say\", \"completion\": \"red\"}\n";
    rows(
        "a.jsonl",
        &format!("{good}{{\"prompt\": "),
        "sft",
        &["a.jsonl:2", "column"],
    );
    rows(
        "b.jsonl",
        &format!("{good}{{\"prompt\": \"say\", \"completion\": \"\"}}\n"),
        "sft",
        &["b.jsonl:2", "`completion` is empty", "data.bad_rows=skip"],
    );
    rows(
        "c.jsonl",
        "{\"prompt\": \"say\", \"chosen\": \"red\", \"rejected\": \"red\"}\n",
        "dpo",
        &["c.jsonl:1", "are the same"],
    );
    rows("d.jsonl", "", "sft", &["d.jsonl", "no rows"]);
    rows("e.csv", "a,b\n", "sft", &["e.csv", ".jsonl", ".parquet"]);
    rows("f.parquet", "PAR1 no", "sft", &["f.parquet"]);
    rows("g.jsonl.gz", "not gzip", "sft", &["g.jsonl.gz"]);
    rows("h.jsonl", "{\"text\": 3}\n", "dpo", &["h.jsonl:1"]);
    refused(&["sft", "--data", "/nowhere.jsonl"], &["/nowhere.jsonl"]);
}

#[test]
fn models_and_devices() {
    let folder = tempfile::tempdir().unwrap();
    refused(
        &["sft", "--model", "/nowhere"],
        &["/nowhere", "does not exist"],
    );
    let empty = folder.path().display().to_string();
    refused(&["sft", "--model", &empty], &["config.json"]);
    refused(&["sft", "--device", "tpu"], &["tpu", "cuda"]);
    if cfg!(not(feature = "wgpu")) {
        refused(&["sft", "--device", "wgpu"], &["--features wgpu"]);
    }
    if cfg!(not(feature = "cuda")) {
        refused(&["sft", "--device", "cuda:1"], &["--features cuda"]);
    }
}

#[test]
fn an_output_folder_in_use_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let note = file(folder.path(), "thesis.txt", "mine");
    let out = folder.path().to_str().unwrap();
    let (status, said) = run(&["train", "sft", "--max-steps", "1", "--out", out]);
    assert_eq!(status, Some(2), "{said}");
    assert!(
        said.contains("is not empty") && said.contains("--out"),
        "{said}"
    );
    let (status, said) = run(&["train", "sft", "--max-steps", "1", "--out", out, "--resume"]);
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("no run folder"), "{said}");
    assert_eq!(fs::read_to_string(note).unwrap(), "mine");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
