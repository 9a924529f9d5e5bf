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

const FIXTURE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../crates/policy/tests/fixtures/llama"
);

/// The lab's model before any training, as a folder.
fn lab_model(folder: &Path) -> String {
    let out = folder.join("lab-model").display().to_string();
    let (status, said) = run(&["export", "lab", "--out", &out]);
    assert_eq!(status, Some(0), "{said}");
    out
}

fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Nobody reads what is printed: as of `cargo xtask recipes | true`.
#[test]
fn a_reader_that_has_gone() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("recipes")
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
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
        refused(&[recipe, "--model", FIXTURE, "--data", &file], needles);
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
    rows("i.jsonl", good, "ppo", &["--reward", "train reward"]);
    rows("j.jsonl", good, "kto", &["j.jsonl:1", "KTO", "label"]);
    refused(
        &["sft", "--model", FIXTURE, "--data", "/nowhere.jsonl"],
        &["/nowhere.jsonl"],
    );
    // The lab's model knows only the lab's words.
    refused(&["dpo", "--data", "x.jsonl"], &["--data FILE", "--model"]);
    // Kinds of rows that a reward model's loss cannot learn from.
    let reward = |name: &str, text: &str, kind: &str, needles: &[&str]| {
        let file = file(folder.path(), name, text);
        let kind = format!("loss.kind={kind}");
        let arguments = [
            "reward", "--model", FIXTURE, "--data", &file, "--set", &kind,
        ];
        refused(&arguments, needles);
    };
    reward(
        "k.jsonl",
        good,
        "plack",
        &["loss.kind=plack", "plackett_luce"],
    );
    reward("l.jsonl", good, "regression", &["l.jsonl:1", "score"]);
    reward("m.jsonl", good, "steps", &["m.jsonl:1", "labels"]);
    let tied = "{\"prompt\": \"w4\", \"completions\": [\" w5\", \" w6\"], \"ranks\": [1, 1]}\n";
    reward("n.jsonl", tied, "all_pairs", &["ties", "ranking 1"]);
    refused(
        &["reward", "--set", "loss.kind=steps", "--model", "lab"],
        &["the lab has no answers in steps", "--data FILE"],
    );
}

/// Settings of the online recipes that do not go with the method are refused by name.
#[test]
fn online_settings() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        (
            "grpo",
            &["completions_per_prompt=1"],
            &["completions_per_prompt", "at least 2"],
        ),
        ("reinforce", &["epochs=2"], &["epochs", "must be 1"]),
        ("remax", &["epochs=2"], &["epochs"]),
        (
            "online-dpo",
            &["micro_batch_size=3"],
            &["micro_batch_size", "multiple"],
        ),
        (
            "online-dpo",
            &["kl_coef=0.1"],
            &["kl_coef", "algorithm.loss.beta"],
        ),
        (
            "online-dpo",
            &["algorithm.loss={kind=\"aot\",beta=0.1}"],
            &["algorithm.loss", "sorts"],
        ),
        (
            "xpo",
            &[
                "completions_per_prompt=3",
                "minibatch_size=6",
                "micro_batch_size=6",
            ],
            &["even"],
        ),
        ("nash-md", &["kl_coef=0.1"], &["kl_coef", "algorithm.tau"]),
        ("raft", &["algorithm.keep=8"], &["algorithm.keep"]),
        ("raft", &["kl_coef=0.1", "kl_place=reward"], &["kl_place"]),
        (
            "reinforce-plus-plus",
            &["algorithm.group_baseline=true"],
            &["completions_per_prompt"],
        ),
        ("dapo", &["overlong_buffer=500"], &["overlong_buffer"]),
        (
            "rloo",
            &["kl_budget=1", "reference={kind=\"ema\",decay=0.9}"],
            &["kl_budget", "frozen"],
        ),
        (
            "ppo",
            &["kl_budget=1", "reference={kind=\"ema\",decay=0.9}"],
            &["kl_budget"],
        ),
        (
            "grpo",
            &["reference={kind=\"synced\",every=0,alpha=0.5}"],
            &["reference.every"],
        ),
        ("dpo", &["ld_alpha=2"], &["ld_alpha"]),
        (
            "dpo",
            &["use_weighting=true", "loss={kind=\"aot\",beta=0.1}"],
            &["micro_batch_size"],
        ),
        (
            "simpo",
            &["cache_reference=true"],
            &["cache_reference", "no reference"],
        ),
        (
            "slic",
            &["reference={kind=\"ema\",decay=0.9}"],
            &["reference.kind"],
        ),
        (
            "dpo",
            &["loss={kind=\"weighted_sum\",terms=[]}"],
            &["loss.terms"],
        ),
        ("rso", &["accepted=1"], &["accepted"]),
    ];
    for (recipe, settings, needles) in cases {
        let mut arguments = vec![*recipe, "--model", FIXTURE];
        for setting in *settings {
            arguments.extend(["--set", setting]);
        }
        refused(&arguments, needles);
    }
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

/// Every command that has `--device` refuses one that there is not, and writes nothing.
#[test]
fn a_device_of_no_kind() {
    let folder = tempfile::tempdir().unwrap();
    let pair = "{\"prompt\": \"say\", \"chosen\": \"red\", \"rejected\": \"blue\"}\n";
    let data = &*file(folder.path(), "pairs.jsonl", pair);
    let out = &*folder.path().join("out").display().to_string();
    let commands: &[&[&str]] = &[
        &["train", "sft", "--out", out],
        &["inspect", "sft"],
        &["score", "--reward=lab", "--data", data],
        &[
            "feedback",
            "select",
            "--by=random",
            "--count=1",
            "--data",
            data,
            "--out",
            out,
        ],
        &["eval", "instructions", "--model=lab"],
        &["eval", "safety", "--model=lab"],
        &["eval", "math", "--model=lab"],
        &[
            "eval",
            "win-rate",
            "--model=lab",
            "--model=lab",
            "--judge=lab",
        ],
        &["eval", "diversity", "--model=lab"],
        &["eval", "likelihood", "--model=lab", "--data", data],
        &["eval", "reward", "--reward=lab", "--data", data],
        &["generate", "--model=lab", "--prompt=say"],
        &["chat", "--model=lab"],
        &["bench", "dpo", "--model=lab", "--data", data],
        &["bench", "sft", "--model=lab", "--data", data],
        &["bench", "grpo", "--model=lab", "--data", data],
        &["bench", "ppo", "--model=lab", "--data", data],
        &["bench", "generate", "--model=lab"],
        &["bench", "tiny"],
        &["bench", "matmul"],
        &["bench", "context", "--model=lab"],
        &["bench", "memory"],
        &[
            "bench",
            "peers",
            "--python=python",
            "--model=lab",
            "--data",
            data,
        ],
        &["bench", "algorithms", "--out", out],
        &["bench", "annotation", "--out", out],
        &["export", "lab", "--out", out],
    ];
    for command in commands {
        let (status, said) = run(&[*command, &["--device=tpu"]].concat());
        assert_eq!(status, Some(2), "{command:?}: {said}");
        assert!(said.contains("--device tpu"), "{command:?}: {said}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// `export` computes in no precision, and a benchmark does not go on with what was computed in another.
#[test]
fn precisions_that_do_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().display().to_string();
    let refused = |arguments: &[&str], needles: &[&str]| {
        let (status, said) = run(&[arguments, &["--dtype=bf16", "--out", &out]].concat());
        assert_eq!(status, Some(2), "{arguments:?}: {said}");
        for needle in needles {
            assert!(
                said.contains(needle),
                "{arguments:?}: `{needle}` is not in: {said}"
            );
        }
    };
    refused(&["export", "lab"], &["--dtype bf16", "writes float32"]);
    for models in ["models", "seed-0/models"] {
        let models = folder.path().join(models);
        fs::create_dir_all(&models).unwrap();
        file(&models, "config.toml", "# models of seed 0\n");
    }
    let other = ["another configuration", "models of seed 0 --dtype bf16"];
    refused(&["bench", "annotation"], &other);
    refused(&["bench", "algorithms", "--seeds=1"], &other);
}

/// A copy of a fixture model, changed.
fn model(folder: &Path, name: &str, change: impl FnOnce(&Path)) -> String {
    let fixture =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/policy/tests/fixtures/llama");
    let copy = folder.join(name);
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(fixture).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
    }
    change(&copy);
    copy.display().to_string()
}

/// Replaces text in a file of the model.
fn replace(folder: &Path, name: &str, from: &str, to: &str) {
    let path = folder.join(name);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{name} has no {from}");
    fs::write(&path, text.replacen(from, to, 1)).unwrap();
}

/// Rewrites the header of the model's safetensors file; the data stays.
fn header(folder: &Path, change: impl FnOnce(String) -> String) {
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = change(String::from_utf8(bytes[8..8 + length].to_vec()).unwrap());
    let mut all = (header.len() as u64).to_le_bytes().to_vec();
    all.extend_from_slice(header.as_bytes());
    all.extend_from_slice(&bytes[8 + length..]);
    fs::write(&path, all).unwrap();
}

#[test]
fn models_that_are_not_whole_or_do_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let bad = |name: &str, needles: &[&str], change: &dyn Fn(&Path)| {
        let model = model(folder.path(), name, change);
        refused(&["sft", "--model", &model], needles);
    };
    let weights = |dir: &Path| dir.join("model.safetensors");
    for cut in [0, 5, 8, 300, 20_000] {
        bad(
            &format!("cut-{cut}"),
            &["model.safetensors", "not a whole"],
            &|dir| {
                let bytes = fs::read(weights(dir)).unwrap();
                fs::write(weights(dir), &bytes[..cut.min(bytes.len() - 1)]).unwrap();
            },
        );
    }
    bad("huge-header", &["model.safetensors"], &|dir| {
        let mut bytes = fs::read(weights(dir)).unwrap();
        bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        fs::write(weights(dir), bytes).unwrap();
    });
    bad("offsets", &["model.safetensors"], &|dir| {
        header(dir, |text| {
            text.replacen("\"data_offsets\":[0,", "\"data_offsets\":[7,", 1)
        });
    });
    bad("dimensions", &["model.safetensors"], &|dir| {
        header(dir, |text| {
            text.replacen("[96,32]", "[9223372036854775807,32]", 1)
        });
    });
    bad(
        "shape",
        &["model.embed_tokens.weight", "[32, 96]", "[96, 32]"],
        &|dir| {
            header(dir, |text| text.replacen("[96,32]", "[32,96]", 1));
        },
    );
    bad("name", &["missing tensors", "model.norm.weight"], &|dir| {
        header(dir, |text| {
            text.replacen("\"model.norm.weight\"", "\"model.norm.weigth\"", 1)
        });
    });
    bad("extra", &["model.layers.1", "does not have"], &|dir| {
        replace(
            dir,
            "config.json",
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 1",
        );
    });
    bad(
        "architecture",
        &["GPT2LMHeadModel", "LlamaForCausalLM"],
        &|dir| {
            replace(dir, "config.json", "LlamaForCausalLM", "GPT2LMHeadModel");
        },
    );
    bad("rope", &["yarn"], &|dir| {
        replace(
            dir,
            "config.json",
            "\"rope_type\": \"default\"",
            "\"rope_type\": \"yarn\"",
        );
    });
    bad("vocabulary", &["tokenizer has", "vocabulary"], &|dir| {
        replace(
            dir,
            "tokenizer.json",
            "\"w95\": 95",
            "\"w95\": 95, \"w96\": 96",
        );
    });
    bad("no-json", &["config.json"], &|dir| {
        fs::write(dir.join("config.json"), "{\"architectures\": [").unwrap();
    });
    bad("pickle", &["model.safetensors"], &|dir| {
        fs::rename(weights(dir), dir.join("pytorch_model.bin")).unwrap();
    });
    let gguf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../crates/policy/tests/fixtures/gguf/llama.gguf");
    let bytes = fs::read(gguf).unwrap();
    for cut in [3, 30, 500, bytes.len() - 1] {
        let path = folder.path().join(format!("cut-{cut}.gguf"));
        fs::write(&path, &bytes[..cut]).unwrap();
        refused(&["sft", "--model", path.to_str().unwrap()], &["gguf"]);
    }
}

#[test]
fn samples_that_are_too_long() {
    let folder = tempfile::tempdir().unwrap();
    let lab = lab_model(folder.path());
    let words = " red".repeat(60);
    let rows = format!("{{\"prompt\": \"say\", \"completion\": \"{words}\"}}\n");
    let data = file(folder.path(), "long.jsonl", &rows);
    refused(
        &[
            "sft",
            "--model",
            &lab,
            "--data",
            &data,
            "--set",
            "data.max_length=20",
        ],
        &["long.jsonl:1", "max_length = 20", "truncate"],
    );
    // Longer than the model's positions.
    let words = " red".repeat(300);
    let rows = format!("{{\"prompt\": \"say\", \"completion\": \"{words}\"}}\n");
    let data = file(folder.path(), "longer.jsonl", &rows);
    refused(
        &["sft", "--model", &lab, "--data", &data],
        &["128 positions"],
    );
}

#[test]
fn numbers_that_are_not_finite_end_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let failed = |name: &str, arguments: &[&str], needles: &[&str]| {
        let out = folder.path().join(name);
        let mut all = vec!["train"];
        all.extend(arguments);
        all.extend(["--out", out.to_str().unwrap()]);
        let (status, said) = run(&all);
        assert_eq!(status, Some(1), "{arguments:?}: {said}");
        for needle in needles {
            assert!(said.contains(needle), "`{needle}` is not in: {said}");
        }
        // Nothing that is not finite was written down.
        let metrics = fs::read_to_string(out.join("metrics.jsonl")).unwrap_or_default();
        assert!(
            !metrics.to_lowercase().contains("nan") && !metrics.contains("null"),
            "{metrics}"
        );
    };
    let lab = lab_model(folder.path());
    let wild = [
        "sft",
        "--model",
        &lab,
        "--set=optim.learning_rate=1e30",
        "--set=data.lab_rows=100",
        "--max-steps=9",
    ];
    failed(
        "loss",
        &wild,
        &["sft, step", "is NaN", "lower learning rate"],
    );
    // A reward model whose scores are no numbers.
    let small = ["--set=data.lab_rows=100", "--max-steps=1"];
    let reward = folder.path().join("reward");
    let mut train = vec!["train", "reward", "--out", reward.to_str().unwrap()];
    train.extend(["--model", &lab]);
    train.extend(small);
    let (status, said) = run(&train);
    assert_eq!(status, Some(0), "{said}");
    let path = reward.join("model/model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let names: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let at = names["score.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[8 + length + at..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let reward = reward.to_str().unwrap();
    let ppo = [
        "ppo",
        "--model",
        &lab,
        "--reward",
        reward,
        "--set=prompts_per_step=4",
        "--max-steps=1",
    ];
    failed(
        "ppo",
        &ppo,
        &["ppo, step 1", "unscorable: the score is NaN"],
    );
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
