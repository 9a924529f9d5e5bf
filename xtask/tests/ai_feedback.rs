//! `train rlaif` and `train cai` from the command line: with the lab's judge and critic, and with a server
//! that this test runs.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use serde_json::{Value, json};

fn xtask(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, said) = (text(&output.stdout), text(&output.stderr));
    (output.status.code(), out, said)
}

/// The lab's untrained model, as a folder.
fn lab_model(folder: &Path) -> String {
    let out = folder.join("lab-model").display().to_string();
    assert_eq!(xtask(&["export", "lab", "--out", &out]).0, Some(0));
    out
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A chat server that answers by `script`, which hears the last message and the number of the request, and
/// gives a status and what the assistant says. Returns its address and the count of requests.
fn serve(
    script: impl Fn(&str, usize) -> (u16, String) + Send + Sync + 'static,
) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let (script, counted) = (Arc::new(script), count.clone());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (script, counted) = (script.clone(), counted.clone());
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                loop {
                    let (mut length, mut line) = (0, String::new());
                    loop {
                        line.clear();
                        if reader.read_line(&mut line).unwrap_or(0) == 0 {
                            return;
                        }
                        let lower = line.to_lowercase();
                        if let Some(value) = lower.strip_prefix("content-length:") {
                            length = value.trim().parse().unwrap();
                        }
                        if line == "\r\n" {
                            break;
                        }
                    }
                    let mut body = vec![0; length];
                    reader.read_exact(&mut body).unwrap();
                    let request: Value = serde_json::from_slice(&body).unwrap();
                    let messages = request["messages"].as_array().unwrap();
                    let last = messages.last().unwrap()["content"].as_str().unwrap();
                    let (status, text) = script(last, counted.fetch_add(1, Ordering::SeqCst));
                    let body = match status {
                        200 => json!({"choices": [{"message": {"content": text}}],
                            "usage": {"prompt_tokens": 10, "completion_tokens": 2}})
                        .to_string(),
                        _ => text,
                    };
                    let head = format!(
                        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                        body.len()
                    );
                    let mut out = &stream;
                    if out.write_all(format!("{head}{body}").as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (url, count)
}

const SMALL: [&str; 6] = [
    "--set=label.prompts=24",
    "--set=label.batch_size=8",
    "--set=label.sampling.max_new_tokens=8",
    "--compare=12",
    "--set=judge.server.model=judge",
    "--set=judge.server.backoff_s=0.01",
];

fn with<'a>(parts: &[&[&'a str]]) -> Vec<&'a str> {
    parts.concat()
}

#[test]
fn a_served_judge_labels_and_is_not_paid_twice() {
    let folder = tempfile::tempdir().unwrap();
    let model = lab_model(folder.path());
    // Prefers the longer answer; the first requests fail in passing, one conversation is never answered.
    let (url, count) = serve(|text, number| match number {
        0 => (429, "{}".to_owned()),
        1 => (500, "{}".to_owned()),
        2 => (200, String::new()),
        _ => {
            let a = text.split("Answer A:").nth(1).unwrap();
            let (a, b) = a.split_once("Answer B:").unwrap();
            let b = b.split("Which answer").next().unwrap();
            let label = if a.trim().len() >= b.trim().len() {
                "A"
            } else {
                "B"
            };
            (200, format!("{label}."))
        }
    });
    let cache = format!(
        "--set=judge.server.cache=\"{}\"",
        folder.path().join("cache.jsonl").display()
    );
    let prices = "--set=judge.server.price_in=1000";
    let train = |out: &str| {
        let out = folder.path().join(out).display().to_string();
        let head = [
            "train", "rlaif", "--model", &model, "--judge", &url, "--out", &out,
        ];
        let tail = ["--set=learn.train.max_steps=2", &cache, prices];
        xtask(&with(&[&head, &SMALL, &tail]))
    };
    let (status, printed, said) = train("first");
    assert_eq!(status, Some(0), "{said}");
    for wanted in ["gold reward", "position bias", "violations"] {
        assert!(printed.contains(wanted), "`{wanted}` is not in:\n{printed}");
    }
    assert!(
        said.contains("sent again") && said.contains("cost 0."),
        "{said}"
    );
    let labels = lines(&folder.path().join("first/labels.jsonl"));
    assert_eq!(labels.len(), 24);
    for label in labels.iter().filter(|l| !l["probability"].is_null()) {
        let length = |name: &str| label[name].as_str().unwrap().trim().len();
        assert!(length("chosen") >= length("rejected"), "{label}");
        assert!(label["probability"].as_f64().unwrap() >= 0.5);
    }
    let asked = count.load(Ordering::SeqCst);
    assert!(asked > 24, "{asked} requests: both orders of each pair");
    let (status, _, said) = train("second");
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(count.load(Ordering::SeqCst), asked, "all answers were kept");
    let weights = |out: &str| fs::read(folder.path().join(out).join("model/model.safetensors"));
    assert_eq!(weights("first").unwrap(), weights("second").unwrap());
}

#[test]
fn a_judge_that_answers_nonsense_ends_the_run_and_names_why() {
    let folder = tempfile::tempdir().unwrap();
    let model = lab_model(folder.path());
    let (url, _) = serve(|_, _| (200, "I like both".to_owned()));
    let out = folder.path().join("out").display().to_string();
    let head = [
        "train", "rlaif", "--model", &model, "--judge", &url, "--out", &out,
    ];
    let (status, _, said) = xtask(&with(&[&head, &SMALL]));
    assert_eq!(status, Some(1), "{said}");
    for wanted in ["label.max_unscorable", "I like both", "not one of A, B"] {
        assert!(said.contains(wanted), "`{wanted}` is not in:\n{said}");
    }
    let refused = |arguments: &[&str], wanted: &str| {
        let (status, _, said) = xtask(&with(&[&["train"], arguments, &["--out", "unused"]]));
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains(wanted), "`{wanted}` is not in:\n{said}");
    };
    refused(&["dpo", "--judge", "lab"], "only rlaif and cai ask a judge");
    refused(
        &[
            "rlaif",
            "--model",
            &model,
            "--set=judge.criteria=[\"x\"]",
            "--set=label.prompts=2",
        ],
        "judge.criteria: is not read by this judge",
    );
    refused(&["rlaif", "--set=judge.clamp=[0.6, 0.4]"], "judge.clamp");
    refused(&["rlaif", "--set=learn.seed=4"], "learn.seed");
    refused(
        &["cai", "--set=constitution=\"nowhere.toml\""],
        "nowhere.toml",
    );
    fs::remove_dir_all("unused").ok();
}

#[test]
fn rlaif_teaches_a_reward_model_and_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let model = lab_model(folder.path());
    let out = folder.path().join("out").display().to_string();
    let settings = [
        "--set=learn.kind=reward_model",
        "--set=learn.loss.kind=soft_labels",
        "--set=learn.train.max_steps=2",
        "--set=learn.train.batch_size=4",
        "--set=learn.data.lab_rows=64",
        "--set=label.valid_fraction=0.3",
    ];
    let head = ["train", "rlaif", "--model", &model, "--out", &out];
    let small = &SMALL[..4];
    let (status, printed, said) = xtask(&with(&[&head, small, &settings]));
    assert_eq!(status, Some(0), "{said}");
    assert!(printed.contains("accuracies"), "{printed}");
    assert!(said.contains("agrees with the true preference"), "{said}");
    let weights = || fs::read(folder.path().join("out/model/model.safetensors")).unwrap();
    let before = weights();
    // Killed while it labelled: half of the lines are there, and a torn one.
    let path = folder.path().join("out/labels.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let cut = text.match_indices('\n').nth(10).unwrap().0 + 30;
    fs::write(&path, &text[..cut]).unwrap();
    for gone in ["checkpoints", "model"] {
        fs::remove_dir_all(folder.path().join("out").join(gone)).unwrap();
    }
    let (status, _, said) = xtask(&with(&[&head, small, &settings, &["--resume"]]));
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    assert!(
        before == weights(),
        "the resumed run ended with other weights"
    );
}

#[test]
fn constitutional_ai_on_the_lab_keeps_every_step() {
    let folder = tempfile::tempdir().unwrap();
    let model = lab_model(folder.path());
    let out = folder.path().join("out").display().to_string();
    let settings = [
        "--set=prompts=24",
        "--set=batch_size=8",
        "--set=sampling.max_new_tokens=8",
        "--set=sft.train.max_steps=2",
        "--set=preference.train.max_steps=2",
    ];
    let head = ["train", "cai", "--model", &model, "--out", &out];
    let small = &SMALL[..4];
    let (status, printed, said) = xtask(&with(&[&head, small, &settings]));
    assert_eq!(status, Some(0), "{said}");
    for wanted in ["start", "revisions", "cai", "violations"] {
        assert!(printed.contains(wanted), "`{wanted}` is not in:\n{printed}");
    }
    assert!(
        said.contains("of drafts") && said.contains("of revisions"),
        "{said}"
    );
    let chains = lines(&folder.path().join("out/chains.jsonl"));
    assert_eq!(chains.len(), 24);
    for chain in &chains {
        let steps = chain["steps"].as_array().unwrap();
        assert_eq!(steps.len(), 2);
        for step in steps {
            let principle = step["principle"].as_str().unwrap();
            assert!(["kindness", "safety", "brevity", "helpfulness"].contains(&principle));
            assert!(!step["critique"].as_str().unwrap().is_empty());
        }
    }
    let page = fs::read_to_string(folder.path().join("out/report.html")).unwrap();
    assert!(page.contains("Samples"));
    let own = folder.path().join("own.toml");
    let text = "[[principle]]\nname='thrift'\ncritique='a'\nrevision='b'\npreference='c'\n";
    fs::write(&own, text).unwrap();
    let own = format!("--set=constitution=\"{}\"", own.display());
    let other = folder.path().join("other").display().to_string();
    let head = ["train", "cai", "--model", &model, "--out", &other];
    let (status, _, said) = xtask(&with(&[&head, small, &settings, &[&own]]));
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.contains("`thrift` is not a principle of the lab"),
        "{said}"
    );
}

#[test]
fn a_served_model_criticises_revises_and_compares() {
    let folder = tempfile::tempdir().unwrap();
    let model = lab_model(folder.path());
    let (url, _) = serve(|text, _| {
        let said = if text.contains("Which answer is better?") {
            "A"
        } else if text.contains("Reply with the new answer alone") {
            "sure red blue"
        } else {
            "it could be kinder"
        };
        (200, said.to_owned())
    });
    let out = folder.path().join("out").display().to_string();
    let settings = [
        "--set=prompts=8",
        "--set=rounds=1",
        "--set=sampling.max_new_tokens=8",
        "--set=sft.train.max_steps=2",
        "--set=preference.train.max_steps=1",
        "--set=label.indifference=0.0",
    ];
    // Of a judge that always says A nothing is left to learn: both orders cancel out.
    let head = [
        "train", "cai", "--model", &model, "--judge", &url, "--out", &out,
    ];
    let (status, _, said) = xtask(&with(&[&head, &SMALL, &settings]));
    assert_eq!(status, Some(2), "{said}");
    assert!(
        said.contains("24 undecided") || said.contains("undecided"),
        "{said}"
    );
    let chains = lines(&folder.path().join("out/chains.jsonl"));
    assert_eq!(chains.len(), 8);
    assert!(
        chains
            .iter()
            .all(|c| c["steps"][0]["revision"] == "sure red blue")
    );
    assert!(
        chains
            .iter()
            .all(|c| c["steps"][0]["critique"] == "it could be kinder")
    );
}

#[test]
fn a_served_model_rates_answers_and_rules_judge() {
    let folder = tempfile::tempdir().unwrap();
    let model = lab_model(folder.path());
    // Rates by the number of words: an answer of many is a 9.
    let (url, count) = serve(|text, _| {
        let answer = text.split("Answer:").nth(1).unwrap();
        let answer = answer.split("Rate the answer").next().unwrap();
        let words = answer.split_whitespace().count().clamp(1, 9);
        (200, words.to_string())
    });
    let config = folder.path().join("judge.toml");
    fs::write(&config, "[server]\nmodel = \"rater\"\n").unwrap();
    let (config, out) = (config.display().to_string(), folder.path().join("out"));
    let (source, path) = (format!("judge:{url}"), out.display().to_string());
    let head = [
        "train", "rloo", "--model", &model, "--reward", &source, "--out", &path,
    ];
    let small = [
        "--judge-config",
        &config,
        "--max-steps=2",
        "--set=prompts_per_step=4",
        "--set=completions_per_prompt=2",
        "--set=sampling.max_new_tokens=8",
        "--set=data.lab_rows=64",
        "--set=eval_samples=4",
        "--compare=0",
    ];
    let (status, _, said) = xtask(&with(&[&head, &small]));
    assert_eq!(status, Some(0), "{said}");
    assert!(count.load(Ordering::SeqCst) >= 8);
    let metrics = lines(&out.join("metrics.jsonl"));
    let score = metrics[0]["objective/scores"].as_f64().unwrap();
    assert!((-1.0..=1.0).contains(&score));
    // Without its model's name a server cannot be asked.
    let other = folder.path().join("other").display().to_string();
    let head = [
        "train", "rloo", "--model", &model, "--reward", &source, "--out", &other,
    ];
    let (status, _, said) = xtask(&with(&[&head, &small[2..]]));
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("model"), "{said}");

    let rules = folder.path().join("rules.toml");
    fs::write(&rules, "[[rule]]\nkind = \"max_words\"\nwords = 4\n").unwrap();
    let (judge, out) = (
        format!("rules:{}", rules.display()),
        folder.path().join("ruled"),
    );
    let path = out.display().to_string();
    let head = [
        "train", "rlaif", "--model", &model, "--judge", &judge, "--out", &path,
    ];
    // Untrained answers are mostly cut at 8 tokens; some end before.
    let settings = ["--set=label.prompts=96", "--set=learn.train.max_steps=1"];
    let (status, _, said) = xtask(&with(&[&head, &SMALL[1..4], &settings]));
    assert_eq!(status, Some(0), "{said}");
    for label in lines(&out.join("labels.jsonl")) {
        let words = |name: &str| label[name].as_str().unwrap().split_whitespace().count();
        if label["probability"].as_f64().is_some_and(|p| p > 0.5) {
            assert!(words("chosen") <= 4 && words("rejected") > 4, "{label}");
        }
    }
}
