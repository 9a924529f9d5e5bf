//! `bench`: what it measures, and what it says of what it cannot measure.

use std::{fs, io::Write, process::Command};

use serde_json::Value;

fn xtask(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("bench")
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, said) = (text(&output.stdout), text(&output.stderr));
    assert!(!said.contains("panicked"), "{arguments:?}: {said}");
    (output.status.code(), out, said)
}

fn json(arguments: &[&str]) -> Value {
    let (status, out, said) = xtask(&[arguments, &["--json"]].concat());
    assert_eq!(status, Some(0), "{arguments:?}: {said}");
    serde_json::from_str(out.trim()).unwrap()
}

/// The 500 steps of docs/results.md, cut to what fits in a test.
#[test]
fn memory_is_flat_over_a_hundred_steps_of_ppo() {
    let (status, out, said) = xtask(&["memory", "--steps=120", "--check", "--json"]);
    if said.contains("does not tell") {
        let _ = writeln!(std::io::stderr(), "skipped: {said}");
        return;
    }
    assert_eq!(status, Some(0), "{out}{said}");
    let found: Value = serde_json::from_str(out.trim()).unwrap();
    assert_eq!(found["resident"].as_array().unwrap().len(), 120);
}

/// Pairs in the lab's words, whose prompts are long enough to be cut.
fn pairs(folder: &std::path::Path) -> String {
    let path = folder.join("pairs.jsonl");
    let words = ["red", "dog", "sun", "blue", "cat", "tree", "green", "bird"];
    let rows = (0..32).map(|i| {
        let word = |j: usize| words[(i * j + i / 8 + j) % 8];
        let prompt: Vec<&str> = (1..13).map(word).collect();
        let said = |role: &str, text: String| serde_json::json!([{"role": role, "content": text}]);
        let answer = |k: usize| {
            let text = (1..5).map(|j| words[(i + j * k) % 8]).collect::<Vec<_>>();
            said("assistant", text.join(" "))
        };
        let row = serde_json::json!({
            "prompt": said("user", prompt.join(" ")), "chosen": answer(1), "rejected": answer(3),
        });
        format!("{row}\n")
    });
    fs::write(&path, rows.collect::<String>()).unwrap();
    path.display().to_string()
}

#[test]
fn steps_are_timed_and_their_arithmetic_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let data = pairs(folder.path());
    for what in ["dpo", "sft"] {
        let found = json(&[
            what,
            "--model=lab",
            "--data",
            &data,
            "--batch=2",
            "--steps=2",
        ]);
        let steps = found["steps"].as_array().unwrap();
        assert_eq!(steps.len(), 2, "{what}");
        for step in steps {
            for key in ["seconds", "loss", "grad_norm", "tokens", "flops"] {
                assert!(step[key].as_f64().unwrap() > 0.0, "{what}: {key} of {step}");
            }
        }
        assert!(found["matmul_peak"].as_f64().unwrap() > 1e8, "{what}");
        // More than the program alone.
        assert!(
            found["estimate_bytes"].as_f64().unwrap() > 116e6,
            "{what}: {found}"
        );
    }
}

#[test]
fn online_steps_draw_completions_of_the_length_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let data = pairs(folder.path());
    let sizes = [
        "--model=lab",
        "--data",
        &data,
        "--completions=8",
        "--prompt=6",
        "--new=5",
    ];
    for what in ["grpo", "ppo"] {
        let found = json(&[&[what], &sizes[..], &["--steps=2"]].concat());
        assert_eq!(found["steps"].as_array().unwrap().len(), 2, "{what}");
        for drawn in found["drawn"].as_array().unwrap() {
            assert_eq!(drawn["tokens"], 8 * 5, "{what}");
            assert!(
                (0.0..=1.0).contains(&drawn["reward"].as_f64().unwrap()),
                "{what}"
            );
        }
        assert!(found["steps"][0]["flops"].as_f64().unwrap() > 0.0, "{what}");
        assert!(
            found["estimate_bytes"].as_f64().unwrap() > 116e6,
            "{what}: {found}"
        );
    }
}

#[test]
fn cost_is_compared_with_the_arithmetic_of_each_length() {
    let found = json(&[
        "context",
        "--model=lab",
        "--lengths=16,64",
        "--tokens=128",
        "--repeats=1",
    ]);
    let costs = found.as_array().unwrap();
    assert_eq!(costs.len(), 2);
    assert_eq!(costs[0]["growth"], 1.0);
    let share = |i: usize| costs[i]["attention_share"].as_f64().unwrap();
    assert!(share(1) > share(0) && costs[1]["growth_of_flops"].as_f64().unwrap() > 1.0);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = pairs(folder.path());
    let refused = |arguments: &[&str], expected: &str| {
        let (status, _, said) = xtask(arguments);
        assert_eq!(status, Some(2), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    };
    let long = ["context", "--model=lab", "--lengths=4096"];
    refused(&long, "--lengths 4096: must be from 2 to 128");
    let many = ["sft", "--model=lab", "--data", &data, "--steps=100"];
    refused(&many, "pairs of at most 512 tokens, 400 are needed");
    let prompts = ["grpo", "--model=lab", "--data", &data, "--prompt=60"];
    refused(&prompts, "prompts of at least 60 tokens");
    let row = [
        "peers",
        "--python=p",
        "--model=m",
        "--data=d",
        "--only=dpo,ddpo",
    ];
    refused(&row, "dpo-lora");
    let on = |device| ["peers", "--python=p", "--model=m", "--data=d", device];
    refused(&on("--device=wgpu"), "PyTorch computes on cpu and cuda[:n]");
    refused(&on("--device=cuda:x"), "`x` is not a number");
    refused(&["memory", "--steps=10"], "60");
    refused(
        &["sft", "--model=lab", "--data", &data, "--batch=0"],
        "batch",
    );
}
