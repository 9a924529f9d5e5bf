//! `inspect` shows what a recipe would train on, for every recipe, and trains nothing.

use std::{fs, process::Command};

fn inspect(folder: &std::path::Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("inspect")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn contains(text: &str, needles: &[&str]) {
    for needle in needles {
        assert!(text.contains(needle), "`{needle}` is not in:\n{text}");
    }
}

#[test]
fn samples_lengths_configuration_and_memory() {
    let folder = tempfile::tempdir().unwrap();
    let exported = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["export", "lab", "--out", "lab-model"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(exported.status.success());
    let row = |answer: &str| {
        format!(
            "{{\"prompt\": \"name 1 fruit\", \"chosen\": \"{answer}\", \"rejected\": \" no\"}}\n"
        )
    };
    let long = " red".repeat(30);
    let rows = [row(" red"), row(" blue"), row(&long), row(" no")].concat();
    fs::write(folder.path().join("p.jsonl"), rows).unwrap();
    let text = inspect(
        folder.path(),
        &[
            "dpo",
            "--model",
            "lab-model",
            "--data",
            "p.jsonl",
            "--set=data.max_length=20",
            "--set=data.over_long=truncate",
            "--set=data.valid_fraction=0",
            "--samples=1",
        ],
    );
    contains(
        &text,
        &[
            "prompt + chosen + rejected",
            "max_length = 20",
            "p.jsonl:1 chosen:",
            "p.jsonl:1 rejected:",
            "prompt      x0",
            "completion  x1    red|",
            "eos         x1",
            "1 of 3 are longer than data.max_length = 20; they are cut:",
            "p.jsonl:3: 3",
            "1 rows cannot be used; training refuses them",
            "p.jsonl:4: ",
            "are the same",
            "Memory (estimate)",
            "frozen models",
            "together",
        ],
    );
    assert!(
        !text.contains("p.jsonl:2 chosen"),
        "one sample was asked for:\n{text}"
    );
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        2,
        "nothing is written"
    );
}

#[test]
fn every_recipe_on_the_lab() {
    let folder = tempfile::tempdir().unwrap();
    for recipe in [
        "sft",
        "reward",
        "dpo",
        "ipo",
        "slic",
        "kto",
        "rso",
        "simpo",
        "cpo",
        "orpo",
        "ppo",
        "grpo",
        "dapo",
        "gspo",
        "cispo",
        "rloo",
        "reinforce",
        "reinforce-plus-plus",
        "remax",
        "raft",
        "online-dpo",
        "xpo",
        "nash-md",
        "rlhf",
        "rlaif",
        "cai",
    ] {
        let rows: &[&str] = match recipe {
            "rso" => &["--set=preference.data.lab_rows=300"],
            "rlhf" => &[
                "--set=base.data.lab_rows=300",
                "--set=sft.data.lab_rows=300",
                "--set=reward.data.lab_rows=300",
                "--set=ppo.data.lab_rows=300",
            ],
            "rlaif" => &["--set=learn.data.lab_rows=300"],
            "cai" => &[
                "--set=sft.data.lab_rows=300",
                "--set=preference.data.lab_rows=300",
            ],
            _ => &["--set=data.lab_rows=300"],
        };
        let text = inspect(folder.path(), &[&[recipe], rows].concat());
        let largest = match recipe {
            "rlhf" => "largest stage, ppo",
            "cai" => "largest stage, ",
            _ => "",
        };
        contains(&text, &[largest]);
        contains(
            &text,
            &["Configuration", "seed = 0", "layout: lab", "together"],
        );
    }
    for kind in ["plackett_luce", "all_pairs", "regression"] {
        let text = inspect(
            folder.path(),
            &["reward", &format!("--set=loss.kind={kind}")],
        );
        contains(&text, &[kind, "layout: lab"]);
    }
    let text = inspect(
        folder.path(),
        &["sft", "--set=lora.r=4", "--set=data.lab_rows=300"],
    );
    contains(&text, &["adapter of rank 4 on q_proj"]);
}
