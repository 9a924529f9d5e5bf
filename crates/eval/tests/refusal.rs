//! Replies sorted by hand, all written for this file.

use serde::Deserialize;
use togi_eval::refusal::{Reply, classify};

#[derive(Deserialize)]
struct Labelled {
    answer: String,
    reply: Reply,
}

fn read(path: &str) -> Vec<Labelled> {
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str(line).unwrap());
    rows.collect()
}

#[test]
fn replies_are_sorted_as_by_hand() {
    let path = std::env::var("X")
        .unwrap_or(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/labelled/replies.jsonl").into());
    let rows = read(&path);
    let mut wrong = Vec::new();
    for Labelled { answer, reply } in &rows {
        let ours = classify(answer);
        if ours != Some(*reply) {
            wrong.push(format!("{ours:?} not {reply:?}: {answer:?}"));
        }
    }
    println!(
        "{}/{} wrong:\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n")
    );
    assert!(wrong.is_empty());
}
