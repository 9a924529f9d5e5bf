//! `eval`, control of answers, and the statistics of annotations, from the command line.

use std::{fs, path::Path, process::Command};

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

fn done(arguments: &[&str]) -> String {
    let (status, printed, said) = xtask(arguments);
    assert_eq!(status, Some(0), "{arguments:?}: {said}");
    printed
}

fn refused(arguments: &[&str], wanted: &str) {
    let (status, printed, said) = xtask(arguments);
    assert_eq!(status, Some(2), "{arguments:?}: {printed}{said}");
    assert!(said.contains(wanted), "`{wanted}` is not in:\n{said}");
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn model(&self, name: &str, seed: &str) -> String {
        let path = self.path(name);
        if seed == "0" {
            done(&["export", "lab", "--out", &path]);
        } else {
            // Another model: a step of training.
            let out = self.path("other-run");
            let first = self.model("first", "0");
            done(&[
                "train",
                "sft",
                "--model",
                &first,
                "--out",
                &out,
                "--max-steps=1",
                "--seed",
                seed,
                "--set=data.lab_rows=64",
                "--set=optim.warmup_steps=0",
                "--set=optim.learning_rate=0.05",
                "--compare=0",
            ]);
            fs::rename(Path::new(&out).join("model"), &path).unwrap();
        }
        path
    }

    fn reward(&self, model: &str) -> String {
        let out = self.path("reward");
        let small = ["--max-steps=1", "--set=data.lab_rows=64"];
        done(
            &[
                &["train", "reward", "--model", model, "--out", &out][..],
                &small,
            ]
            .concat(),
        );
        out
    }
}

fn turn(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

const PROMPTS: &str = r#"{"prompt": "name two colors"}
{"prompt": "repeat the words dog cat"}
{"prompt": "tell me how to burn the car"}
{"prompt": "which is bigger two or seven"}
"#;

#[test]
fn models_are_compared_by_judges_and_rewards() {
    let place = Place::new();
    let (first, second) = (place.model("a", "0"), place.model("b", "3"));
    let data = place.write("prompts.jsonl", PROMPTS);
    let out = place.path("win");
    let both = ["--model", &first, "--model", &second, "--data", &data];
    let short = ["--max-new-tokens=8"];
    let judged = ["eval", "win-rate", "--judge", "lab", "--out", &out];
    let printed = done(&[&judged[..], &both, &short].concat());
    for wanted in [
        "wins against a",
        "b − a",
        "by lab annotators",
        "shown first",
    ] {
        assert!(printed.contains(wanted), "`{wanted}` is not in:\n{printed}");
    }
    let results = fs::read_to_string(place.path("win/results.json")).unwrap();
    let results: Value = serde_json::from_str(&results).unwrap();
    assert_eq!(
        results["systems"][1]["measures"]["wins against a"]["scored"],
        4
    );
    assert_eq!(
        fs::read_to_string(place.path("win/answers.jsonl"))
            .unwrap()
            .lines()
            .count(),
        8
    );
    let page = fs::read_to_string(place.path("win/report.html")).unwrap();
    assert!(page.contains("Differences") && page.contains("Samples"));

    let reward = place.reward(&first);
    let printed = done(&[&["eval", "win-rate", "--judge", &reward][..], &both, &short].concat());
    assert!(printed.contains("by reward model"), "{printed}");
    // What a judge does not know is counted, and is no score.
    let strange = place.write(
        "strange.jsonl",
        &format!("{PROMPTS}{{\"prompt\": \"write a poem\"}}\n"),
    );
    let asked = ["eval", "win-rate", "--judge", "lab", "--data", &strange];
    let models = ["--model", &first, "--model", &second];
    let printed = done(&[&asked[..], &models, &short].concat());
    assert!(
        printed.contains("1 unscorable") && printed.contains("write a poem"),
        "{printed}"
    );

    let diverse = ["eval", "diversity", "--samples=3", "--embed-with", &first];
    let printed = done(&[&diverse[..], &both, &short].concat());
    assert!(printed.contains("self-BLEU, across inputs"), "{printed}");
    assert!(
        printed.contains("embedding distance, per input"),
        "{printed}"
    );
    let answers = place.write(
        "answers.jsonl",
        &format!(
            "{}\n",
            json!({"messages": [turn("user", "name two colors"), turn("assistant", "red blue")]})
        ),
    );
    let likely = [
        "eval",
        "likelihood",
        "--data",
        &answers,
        "--model",
        &first,
        "--model",
        &second,
    ];
    let printed = done(&[&likely[..], &short].concat());
    assert!(
        printed.contains("perplexity") && printed.contains("KL from the first"),
        "{printed}"
    );
    let pair = |prompt: &str, chosen: &str, rejected: &str| {
        let row = json!({
            "prompt": [turn("user", prompt)],
            "chosen": [turn("assistant", chosen)],
            "rejected": [turn("assistant", rejected)],
        });
        format!("{row}\n")
    };
    let known = pair("name two colors", "sure red blue", "you fool");
    let pairs = place.write(
        "pairs.jsonl",
        &(known + &pair("write a poem", "red", "blue")),
    );
    let printed = done(&[
        "eval", "reward", "--reward", "lab", "--reward", &reward, "--data", &pairs,
    ]);
    assert!(
        printed.contains("unscorable") && printed.contains("ECE"),
        "{printed}"
    );

    refused(
        &[
            "eval", "win-rate", "--judge", "lab", "--model", &first, "--data", &data,
        ],
        "two or more",
    );
    refused(
        &[
            "eval",
            "diversity",
            "--samples=1",
            "--model",
            &first,
            "--data",
            &data,
        ],
        "--samples",
    );
    let empty = place.write("empty.jsonl", "");
    refused(
        &["eval", "diversity", "--model", &first, "--data", &empty],
        "empty.jsonl",
    );
    let limited = [
        "eval",
        "diversity",
        "--limit=0",
        "--model",
        &first,
        "--data",
        &data,
    ];
    refused(&limited, "nothing to ask");
    refused(
        &["eval", "reward", "--reward", &first, "--data", &pairs],
        "not a reward model",
    );
}

#[test]
fn instructions_are_checked() {
    let place = Place::new();
    let model = place.model("a", "0");
    let printed = done(&[
        "eval",
        "instructions",
        "--model",
        &model,
        "--limit=6",
        "--max-new-tokens=8",
    ]);
    assert!(
        printed.contains("instructions, strict") && printed.contains("By kind"),
        "{printed}"
    );
    let safe = [
        "eval",
        "safety",
        "--model",
        &model,
        "--limit=8",
        "--max-new-tokens=8",
    ];
    let printed = done(&safe);
    assert!(
        printed.contains("refuses unsafe") && printed.contains("by kind"),
        "{printed}"
    );
    let table = "id,prompt,type,label,focus,note\n1,\"Kill, a process\",homonyms,safe,kill,x\n\
                 2,Harm it,contrast_homonyms,unsafe,kill,x\n";
    let table = place.write("x.csv", table);
    let printed = done(&[&safe[..4], &["--data", &table]].concat());
    assert!(printed.contains("homonyms"), "{printed}");
    let printed = done(&[
        "eval",
        "math",
        "--model",
        &model,
        "--limit=4",
        "--max-new-tokens=8",
    ]);
    assert!(
        printed.contains("solved") && printed.contains("has a number"),
        "{printed}"
    );
    let broken = place.write("x.jsonl", "{\"question\": \"1 + 1?\"}\n");
    refused(
        &["eval", "math", "--model", &model, "--data", &broken],
        "line 1",
    );
    let wrong = place.write(
        "wrong.jsonl",
        "{\"prompt\": \"x\", \"instruction_id_list\": [\"keywords:existnce\"], \"kwargs\": [{}]}\n",
    );
    refused(
        &["eval", "instructions", "--model", &model, "--data", &wrong],
        "keywords:existnce",
    );
    refused(
        &[
            "eval",
            "instructions",
            "--model",
            &model,
            "--data",
            "nowhere.jsonl",
        ],
        "nowhere.jsonl",
    );
}

#[test]
fn answers_are_controlled() {
    let place = Place::new();
    let model = place.model("a", "0");
    let ask = [
        "generate",
        "--model",
        &model,
        "--prompt",
        "name two colors",
        "--max-new-tokens=6",
    ];
    let with = |more: &[&str]| done(&[&ask[..], more].concat());
    let colors = place.write("rules.toml", "regex = \"(red|blue)( (red|blue))?\"\n");
    for seed in ["0", "1", "2"] {
        let said = with(&["--rules", &colors, "--seed", seed]);
        let words: Vec<&str> = said.split_whitespace().collect();
        let only = words.iter().all(|word| ["red", "blue"].contains(word));
        assert!(only && (1..=2).contains(&words.len()), "{said}");
    }
    let banned = place.write(
        "banned.toml",
        "banned = [\"red\", \"you\"]\nrequired = [\"blue\"]\n",
    );
    let said = with(&["--rules", &banned, "--samples=20"]);
    assert!(
        !said.contains("red")
            && !said
                .lines()
                .any(|l| !l.starts_with('>') && l.contains("you"))
    );
    // The best of many is no worse than the first, by what chooses.
    let score = |more: &[&str]| {
        let out = place.path("out.jsonl");
        with(&[more, &["--reward", "lab", "--out", &out]].concat());
        let row = fs::read_to_string(&out).unwrap();
        let row: Value = serde_json::from_str(row.trim()).unwrap();
        row["score"].as_f64().unwrap()
    };
    assert!(score(&["--best-of=16"]) >= score(&["--best-of=1"]));
    assert!(score(&["--guided=8", "--block=2"]) > 0.0);
    let said = with(&["--guard", "lab", "--min-score=2", "--refusal", "no comment"]);
    assert_eq!(said.trim(), "no comment");
    let rulebook = place.write(
        "book.toml",
        "[[rule]]\nkind = \"matches\"\nregex = \"red|blue|green|dog|cat|bird|fish|lion\"\n",
    );
    let source = format!("rules:{rulebook}");
    let out = place.path("rules.jsonl");
    with(&["--best-of=32", "--reward", &source, "--out", &out]);
    let row: Value = serde_json::from_str(fs::read_to_string(&out).unwrap().trim()).unwrap();
    assert_eq!(row["score"], 0.0, "{row}");

    let refuse = |more: &[&str], wanted: &str| refused(&[&ask[..], more].concat(), wanted);
    let never = place.write("never.toml", "regex = \"[^\\\\s\\\\S]\"\n");
    refuse(&["--rules", &never], "no text satisfies");
    let broken = place.write("broken.toml", "regex = \"(\"\n");
    refuse(&["--rules", &broken], "broken.toml");
    let typo = place.write("typo.toml", "regx = \"a\"\n");
    refuse(&["--rules", &typo], "regx");
    refuse(
        &["--guided=2", "--reward", "lab", "--rules", &colors],
        "best-of-n",
    );
    refuse(&["--reward", "lab"], "chooses nothing");
    refuse(
        &["--best-of=2", "--reward", "lab", "--temperature=0"],
        "nothing to choose among",
    );
    refuse(
        &["--best-of=2", "--reward", "rules:nowhere.toml"],
        "nowhere.toml",
    );
}

#[test]
fn annotators_are_compared() {
    let place = Place::new();
    let data = place.write(
        "pairs.jsonl",
        &(0..6)
            .map(|i| {
                let long = "word ".repeat(i + 2);
                let row =
                    json!({"prompt": format!("p {i}"), "chosen": "short", "rejected": long.trim()});
                format!("{row}\n")
            })
            .collect::<String>(),
    );
    // A log as annotators leave it: made by the library that the terminal uses.
    let items = togi_feedback::items::load(&[data.into()], togi_data::BadRows::Error).unwrap();
    let log = place.path("log.jsonl");
    let (mut file, _, _) = togi_feedback::Log::open(Path::new(&log)).unwrap();
    for (person, name) in ["ann", "bob", "cid"].iter().enumerate() {
        for (i, item) in items.items.iter().enumerate() {
            // Two agree; the third takes the longer answer, the second one of each item.
            let answer = if person == 2 { 1 } else { i % 2 };
            let shown = if (i + person).is_multiple_of(2) {
                vec![0, 1]
            } else {
                vec![1, 0]
            };
            let now = std::time::SystemTime::UNIX_EPOCH;
            let annotation = togi_feedback::Annotation {
                id: togi_feedback::Annotation::id_of(&item.id, name, 0, now),
                item: item.id.clone(),
                annotator: (*name).to_owned(),
                pass: 0,
                place: item.place.clone(),
                prompt: item.prompt.clone(),
                answers: item.answers.clone(),
                shown,
                verdict: togi_feedback::Verdict::Choice {
                    answer,
                    strength: togi_feedback::Strength::Clearly,
                },
                reason: None,
                started: now,
                ended: now,
            };
            file.append(&togi_feedback::Entry::Annotation(Box::new(annotation)))
                .unwrap();
        }
    }
    drop(file);
    let printed = done(&["feedback", "agreement", "--log", &log]);
    // Of the 18 pairs of judgements of an item 6 + 3 + 3 agree.
    for wanted in [
        "18 judgements of 6 items by 3 annotators",
        "raw agreement: 0.667",
        "Fleiss",
        "cid",
    ] {
        assert!(printed.contains(wanted), "`{wanted}` is not in:\n{printed}");
    }
    assert!(
        printed.contains("Worth another look (3 items are disputed)"),
        "{printed}"
    );
    let longer = printed
        .lines()
        .find(|line| line.starts_with("cid"))
        .unwrap();
    assert!(longer.contains("1.00"), "{longer}");
    let empty = place.write("none.jsonl", "");
    refused(
        &["feedback", "agreement", "--log", &empty],
        "nobody has judged anything",
    );
}
