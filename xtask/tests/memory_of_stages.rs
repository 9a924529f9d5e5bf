//! Memory of the recipes with several stages: each stage ends the run with a whole checkpoint where it uses
//! more than it may, and `auto` chooses for each by its own estimate.

mod common;

use std::{fs, path::Path};

use common::{said, xtask};

fn contains(text: &str, needles: &[&str]) {
    for needle in needles {
        assert!(text.contains(needle), "`{needle}` is not in: {text}");
    }
}

/// Ends by its limit, and says so.
fn ends(arguments: &[&[&str]], needles: &[&str]) {
    let all = [&arguments.concat()[..], &["--memory-limit=1MB"]].concat();
    let output = xtask(&all);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    contains(&text, needles);
    contains(
        &text,
        &[
            "the run uses more memory than --memory-limit 1.0 MB",
            "was estimated at",
            "its peak is",
            "--resume",
        ],
    );
}

fn ok(arguments: &[&[&str]]) -> (String, String) {
    let output = xtask(&arguments.concat());
    let text = said(&output);
    assert!(output.status.success(), "{arguments:?}: {text}");
    (String::from_utf8(output.stdout.clone()).unwrap(), text)
}

/// Numbers of the updates of a stage.
fn steps(out: &Path, stage: &str) -> Vec<u64> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|row| row["stage"] == stage && row["learning_rate"].is_number())
        .map(|row| row["step"].as_u64().unwrap())
        .collect()
}

/// The micro-batch of a section of the run's configuration.
fn micro(out: &Path, section: &str) -> i64 {
    let text = fs::read_to_string(out.join("config.toml")).unwrap();
    let table: toml::Table = text.parse().unwrap();
    let mut value = &toml::Value::Table(table);
    for part in section.split('.') {
        value = &value[part];
    }
    value["micro_batch_size"].as_integer().unwrap()
}

/// One step of base and reward model, two of the others.
const RLHF: [&str; 22] = [
    "--set=eval_prompts=8",
    "--set=base.data.lab_rows=100",
    "--set=base.train.max_steps=1",
    "--set=base.train.eval_samples=8",
    "--set=sft.data.lab_rows=200",
    "--set=sft.train.max_steps=2",
    "--set=sft.train.batch_size=16",
    "--set=sft.train.eval_samples=8",
    "--set=reward.data.lab_rows=100",
    "--set=reward.train.max_steps=1",
    "--set=reward.train.batch_size=16",
    "--set=reward.train.eval_samples=8",
    "--set=ppo.data.lab_rows=100",
    "--set=ppo.max_steps=2",
    "--set=ppo.prompts_per_step=8",
    "--set=ppo.minibatch_size=8",
    "--set=ppo.epochs=1",
    "--set=ppo.eval_samples=8",
    "--set=ppo.sampling.max_new_tokens=8",
    "--set=ppo.sampling.batch_size=8",
    "--set=ppo.micro_batch_size=8",
    "--seed=3",
];

#[test]
fn a_stage_of_rlhf_that_uses_too_much_ends_with_a_whole_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let out = path.display().to_string();
    let head: [&str; 4] = ["train", "rlhf", "--out", &out];
    let first = ["--set=sft.train.micro_batch_size=16"];
    // The base model's only step is its last: it is saved, and the next stage is watched.
    ends(
        &[&head, &RLHF, &first],
        &[
            "base is estimated to need",
            "sft is estimated to need",
            "sft, step 1:",
            "--set sft.train.micro_batch_size=1 (",
            "--set sft.train.gradient_checkpointing=true (",
        ],
    );
    assert!(
        path.join("checkpoints/sft-00000001/manifest.json")
            .is_file()
    );
    let saved = |stage: &str| path.join("stages").join(stage).is_dir();
    assert!(saved("base") && !saved("sft"));

    let smaller = ["--resume", "--set=sft.train.micro_batch_size=4"];
    ends(
        &[&head, &RLHF, &smaller],
        &[
            "goes on with sft.train.micro_batch_size = 4 instead of sft.train.micro_batch_size = 16",
            "ppo, step 1:",
            "--set ppo.micro_batch_size=1 (",
        ],
    );
    assert_eq!(steps(&path, "sft"), [1, 2]);
    assert!(saved("reward") && !saved("ppo"));

    let last = [
        "--set=ppo.micro_batch_size=2",
        "--set=ppo.sampling.batch_size=4",
    ];
    ok(&[&head, &RLHF, &smaller, &last]);
    assert_eq!(steps(&path, "ppo"), [1, 2]);
    assert!(path.join("model/model.safetensors").is_file());
    // Anything else stays as it was.
    let output = xtask(&[&head[..], &RLHF, &smaller, &["--set=sft.lora.r=2"]].concat());
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}

/// A stage's line of `inspect`'s estimates, in bytes.
fn estimate(text: &str, stage: &str) -> f64 {
    let line = text
        .lines()
        .skip_while(|line| !line.contains("Memory by stage"))
        .find(|line| line.split_whitespace().next() == Some(stage))
        .unwrap_or_else(|| panic!("no estimate of {stage} in:\n{text}"));
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[2], "MB", "{line}");
    words[1].parse::<f64>().unwrap() * 1e6
}

#[test]
fn the_micro_batch_of_each_stage_of_rlhf_is_the_largest_that_fits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let out = path.display().to_string();
    let large = ["--set=sft.train.batch_size=128"];
    let of = |micro: usize| {
        let micro = format!("--set=sft.train.micro_batch_size={micro}");
        let (text, _) = ok(&[&["inspect", "rlhf"], &RLHF, &large, &[&micro]]);
        estimate(&text, "sft")
    };
    let (small, all) = (of(4), of(128));
    assert!(small + 4e6 < all, "{small} {all}");
    let bytes = (small + all) / 2.0;
    let limit = format!("--memory-limit={}", bytes as u64);
    let auto = ["--set=sft.train.micro_batch_size=auto"];
    let head: [&str; 4] = ["train", "rlhf", "--out", &out];
    // It may end by its limit after a step; what was chosen is written before.
    let output = xtask(&[&head[..], &RLHF, &large, &auto, &[&limit]].concat());
    let chosen = micro(&path, "sft.train") as usize;
    assert!(chosen > 4 && chosen < 128, "{chosen}: {}", said(&output));
    let line = format!("sft.train.micro_batch_size = {chosen}: estimated at");
    contains(&said(&output), &[&line, "--memory-limit"]);
    // `inspect` prints whole megabytes.
    assert!(of(chosen) <= bytes + 1e6 && of(chosen + 1) >= bytes - 1e6);
    // A resumed run has the number that it was started with, whatever there is now.
    ok(&[&head, &RLHF, &large, &auto, &["--resume"]]);
    assert_eq!(micro(&path, "sft.train") as usize, chosen);

    // On the command line it is of every stage; what `--set` says counts.
    let every = ["--micro-batch=auto", "--memory-limit=4GB"];
    let (_, text) = ok(&[&["inspect", "rlhf"], &RLHF, &every]);
    for key in ["base.train", "sft.train", "reward.train"] {
        contains(&text, &[&format!("{key}.micro_batch_size = ")]);
    }
    assert!(!text.contains("ppo.micro_batch_size = "), "{text}");
    let output = xtask(&[&["inspect", "rlhf"], &RLHF[..], &["--micro-batch=0"]].concat());
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let none = [
        "--set=sft.train.micro_batch_size=auto",
        "--memory-limit=1MB",
    ];
    let output = xtask(&[&["inspect", "rlhf"], &RLHF[..], &none].concat());
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    contains(
        &said(&output),
        &[
            "sft.train.micro_batch_size = auto: even 1 needs",
            "sft.lora.r=16",
        ],
    );
}

/// The lab's model before any training, as a folder.
fn lab_model(folder: &Path) -> String {
    let out = folder.join("lab-model").display().to_string();
    ok(&[&["export", "lab", "--out", &out]]);
    out
}

const LABELS: [&str; 6] = [
    "--compare=0",
    "--set=label.prompts=8",
    "--set=label.batch_size=8",
    "--set=label.sampling.max_new_tokens=8",
    "--set=label.valid_fraction=0",
    "--seed=1",
];

#[test]
fn every_part_of_cai_is_watched() {
    let folder = tempfile::tempdir().unwrap();
    let model = lab_model(folder.path());
    let path = folder.path().join("run");
    let out = path.display().to_string();
    let head: [&str; 6] = ["train", "cai", "--model", &model, "--out", &out];
    let small = [
        "--set=prompts=8",
        "--set=batch_size=8",
        "--set=sampling.max_new_tokens=8",
        "--set=sft.data.lab_rows=100",
        "--set=preference.data.lab_rows=100",
        "--set=sft.train.max_steps=2",
        "--set=preference.train.max_steps=2",
    ];
    let again = ["--resume"];
    let lines = |file: &str| fs::read_to_string(path.join(file)).unwrap().lines().count();
    // The first answers are few, and kept.
    ends(&[&head, &LABELS, &small], &["revise, step 4:"]);
    assert_eq!(lines("chains.jsonl"), 4);
    ends(
        &[&head, &LABELS, &small, &again],
        &["revisions, step 1:", "--set sft.train.micro_batch_size=1 ("],
    );
    ends(&[&head, &LABELS, &small, &again], &["labels, step 4:"]);
    assert_eq!(lines("labels.jsonl"), 4);
    ends(
        &[&head, &LABELS, &small, &again],
        &[
            "cai, step 1:",
            "--set preference.train.micro_batch_size=1 (",
        ],
    );
    let smaller = ["--micro-batch=2", "--set=label.sampling.batch_size=2"];
    ok(&[&head, &LABELS, &small, &again, &smaller]);
    assert_eq!(steps(&path, "revisions"), [1, 2]);
    assert_eq!(steps(&path, "cai"), [1, 2]);
    assert_eq!(micro(&path, "preference.train"), 2);
}

#[test]
fn rlaif_chooses_its_micro_batch_and_is_watched() {
    let folder = tempfile::tempdir().unwrap();
    let model = lab_model(folder.path());
    for kind in ["policy", "reward_model"] {
        let path = folder.path().join(kind);
        let out = path.display().to_string();
        let head: [&str; 6] = ["train", "rlaif", "--model", &model, "--out", &out];
        let learn = match kind {
            "policy" => "--set=learn.kind=policy",
            _ => "--set=learn.kind=reward_model",
        };
        let small = [
            learn,
            "--set=learn.data.lab_rows=100",
            "--set=learn.train.max_steps=2",
        ];
        let auto = ["--micro-batch=auto"];
        let needles = ["rlaif is estimated to need", "labels, step 4:"];
        let number = ["--set=learn.train.micro_batch_size=4"];
        ends(&[&head, &LABELS, &small, &number], &needles);
        fs::remove_dir_all(&path).unwrap();
        // All that is drawn is there at once.
        let (_, text) = ok(&[&head, &LABELS, &small, &auto, &["--memory-limit=4GB"]]);
        let chosen = micro(&path, "learn.train");
        let line = format!("learn.train.micro_batch_size = {chosen}: estimated at");
        contains(&text, &[&line]);
        assert_eq!(steps(&path, "rlaif"), [1, 2]);
    }
}
