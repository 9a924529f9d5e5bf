//! `feedback select` finds the items that reward models differ about, and says what it cannot do.

use std::{collections::HashSet, fs, path::Path, process::Command};

use serde_json::{Value, json};

fn xtask(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, said) = (text(&output.stdout), text(&output.stderr));
    assert!(!said.contains("panicked"), "{arguments:?}: {said}");
    (output.status.code(), out, said)
}

/// The lab's untrained model, and two reward models of one step from it.
fn models(folder: &Path) -> [String; 3] {
    let at = |name: &str| folder.join(name).display().to_string();
    let lab = at("lab");
    assert_eq!(xtask(&["export", "lab", "--out", &lab]).0, Some(0));
    for seed in ["1", "2"] {
        let out = at(&format!("reward-{seed}"));
        let train = ["train", "reward", "--model", &lab, "--out", &out];
        let small = ["--seed", seed, "--max-steps=1", "--set=data.lab_rows=64"];
        let (status, _, said) = xtask(&[&train[..], &small].concat());
        assert_eq!(status, Some(0), "{said}");
    }
    [lab, at("reward-1"), at("reward-2")]
}

fn rows(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn said(role: &str, text: &str) -> Value {
    json!([{"role": role, "content": text}])
}

fn pair(id: u64, prompt: &str, chosen: &str, rejected: &str) -> Value {
    let [chosen, rejected] = [chosen, rejected].map(|text| said("assistant", text));
    json!({"id": id, "prompt": said("user", prompt), "chosen": chosen, "rejected": rejected})
}

fn pairs() -> Vec<Value> {
    vec![
        pair(1, "name two colors", "red blue", "dog"),
        pair(2, "name two colors", "sure green red", "you fool"),
        pair(3, "name two colors", "blue green", "cat dog cow"),
        pair(4, "repeat the words dog red", "dog red", "red"),
        pair(5, "which is bigger two or seven", "seven", "two"),
    ]
}

/// Writes rows and returns the place of the file.
fn file(path: &Path, rows: &[Value]) -> String {
    let lines: Vec<String> = rows.iter().map(|row| format!("{row}\n")).collect();
    fs::write(path, lines.concat()).unwrap();
    path.display().to_string()
}

#[test]
fn rows_come_out_most_worth_first() {
    let folder = tempfile::tempdir().unwrap();
    let [lab, one, two] = models(folder.path());
    let data = file(&folder.path().join("pairs.jsonl"), &pairs());
    let run = |name: &str, data: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let place = out.display().to_string();
        let all = ["feedback", "select", "--data", data, "--out", &place];
        let (status, printed, said) = xtask(&[&all[..], more].concat());
        (status, printed, said, out)
    };
    let good = |name: &str, data: &str, more: &[&str]| {
        let (status, printed, said, out) = run(name, data, more);
        assert_eq!(status, Some(0), "{said}");
        (printed, rows(&out))
    };
    let both = ["--reward", &one, "--reward", &two];

    let (printed, three) = good("a.jsonl", &data, &[&both[..], &["--count=3"]].concat());
    assert!(printed.contains("3 of 5 items"), "{printed}");
    let disagreement = |row: &Value| row["selection"]["disagreement"].as_f64().unwrap();
    assert!(
        three
            .windows(2)
            .all(|two| disagreement(&two[0]) >= disagreement(&two[1]))
    );
    assert!(disagreement(&three[2]) > 0.0);
    let prompts: HashSet<String> = three.iter().map(|r| r["prompt"].to_string()).collect();
    assert_eq!(prompts.len(), 3, "each prompt once before any twice");
    assert!(
        three
            .iter()
            .all(|row| row["id"].is_u64() && row["chosen"].is_array())
    );

    // Of a prompt the item with most, and the rest of them in the end.
    let (printed, all) = good("b.jsonl", &data, &[&both[..], &["--count=9"]].concat());
    assert!(printed.contains("there are 5 items"), "{printed}");
    assert_eq!(all[..3], three);
    let (of_one, rest) = (&all[..3], &all[3..]);
    let colors = of_one
        .iter()
        .find(|r| r["prompt"] == said("user", "name two colors"))
        .unwrap();
    assert!(
        rest.iter()
            .all(|row| disagreement(row) <= disagreement(colors))
    );

    // One model gives no disagreement, and its own doubt.
    let uncertain = ["--by=uncertainty", "--count=3", "--reward", &one];
    let (_, three) = good("c.jsonl", &data, &uncertain);
    let doubt = |row: &Value| (row["selection"]["probability"].as_f64().unwrap() - 0.5).abs();
    assert!(three.windows(2).all(|two| doubt(&two[0]) <= doubt(&two[1])));
    assert!(three[0]["selection"].get("disagreement").is_none());

    // Chance needs no model, and is the seed's.
    let (_, first) = good("d.jsonl", &data, &["--by=random", "--count=4", "--seed=1"]);
    let (_, again) = good("e.jsonl", &data, &["--by=random", "--count=4", "--seed=1"]);
    assert_eq!(first, again);
    assert!(first.iter().all(|row| row.get("selection").is_none()));
    let orders: HashSet<String> = (0..8)
        .map(|seed| {
            let seed = format!("--seed={seed}");
            let (_, rows) = good(
                &format!("{seed}.jsonl"),
                &data,
                &["--by=random", "--count=4", &seed],
            );
            format!("{rows:?}")
        })
        .collect();
    assert!(orders.len() > 1);

    // Items of many answers, and answers that are a row each.
    let three = ["red", "blue", "dog"].map(|text| said("assistant", text));
    let one_color = said("user", "name one colors");
    let lists = json!({"prompt": one_color, "completions": three, "k": 1});
    let more = file(&folder.path().join("more.jsonl"), &[lists]);
    let (_, lists) = good("f.jsonl", &more, &[&both[..], &["--count=1"]].concat());
    assert_eq!(
        lists[0]["selection"]["answers"].as_array().unwrap().len(),
        2
    );
    assert_eq!(lists[0]["k"], 1);
    let single = three.map(|text| json!({"prompt": one_color, "completion": text}));
    let single = file(&folder.path().join("single.jsonl"), &single);
    let (_, answers) = good("g.jsonl", &single, &[&both[..], &["--count=1"]].concat());
    assert_eq!(answers.len(), 3);
    assert_eq!(answers[0]["selection"], answers[1]["selection"]);

    // What cannot be scored is counted and named.
    let words = format!("repeat the words {}", "dog ".repeat(40));
    let rows = [pairs(), vec![pair(6, &words, "dog", "cat")]].concat();
    let long = file(&folder.path().join("long.jsonl"), &rows);
    let cut = [&both[..], &["--count=9", "--max-length=30"]].concat();
    let (printed, left) = good("h.jsonl", &long, &cut);
    assert!(printed.contains("cannot be scored: 1"), "{printed}");
    assert!(printed.contains("long.jsonl:6"), "{printed}");
    assert_eq!(left.len(), 5);

    let refused = |more: &[&str], needles: &[&str]| {
        let (status, _, said, _) = run("new.jsonl", &data, more);
        assert_eq!(status, Some(2), "{said}");
        for needle in needles {
            assert!(said.contains(needle), "`{needle}` is not in: {said}");
        }
    };
    let count = "--count=2";
    refused(
        &[count, "--reward", &one],
        &["needs two", "--by uncertainty"],
    );
    refused(&[count, "--by=uncertainty"], &["--reward"]);
    refused(&[count, "--reward", &one, "--reward", &one], &["twice"]);
    refused(&[count, "--reward", &one, "--reward", "lab"], &["truth"]);
    refused(
        &[count, "--reward", &one, "--reward", &lab],
        &["score.weight", "train reward"],
    );
    refused(&["--count=0", "--by=random"], &["--count 0"]);
    let (status, _, said, _) = run("a.jsonl", &data, &["--by=random", count]);
    assert_eq!(status, Some(2));
    assert!(
        said.contains("a.jsonl") && said.contains("there already"),
        "{said}"
    );
}
