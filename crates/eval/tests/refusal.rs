//! Replies sorted by hand, all written for this file.

use serde::Deserialize;
use togi_eval::refusal::{Reply, classify};

#[derive(Deserialize)]
struct Labelled {
    answer: String,
    reply: Reply,
}

#[test]
fn replies_are_sorted_as_by_hand() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/labelled/replies.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    let rows: Vec<Labelled> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for reply in [Reply::Complies, Reply::Refuses, Reply::Partly] {
        let count = rows.iter().filter(|row| row.reply == reply).count();
        assert!(count >= 30, "{reply:?}: {count}");
    }
    let mut wrong = Vec::new();
    for Labelled { answer, reply } in &rows {
        let ours = classify(answer);
        if ours != Some(*reply) {
            wrong.push(format!("{ours:?}, not {reply:?}: {answer}"));
        }
    }
    // A joke whose teller says "I can't tell you" himself is beyond rules of this kind.
    let known = |line: &String| line.contains("Knock, knock.");
    assert!(wrong.iter().all(known), "{}", wrong.join("\n"));
}

#[test]
fn answers_that_break_off_are_sorted_too() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/labelled/replies.jsonl");
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let row: Labelled = serde_json::from_str(line).unwrap();
        for (place, _) in row.answer.char_indices().skip(1).step_by(7) {
            let some = row.answer[..place].chars().any(char::is_alphanumeric);
            assert_eq!(classify(&row.answer[..place]).is_some(), some);
        }
    }
}
