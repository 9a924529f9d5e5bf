//! Rows as items: what is one item, and what is refused.

use std::{fs, path::PathBuf};

use togi_data::{BadRows, Content};
use togi_feedback::{Items, items};

fn load(bad_rows: BadRows, files: &[&str]) -> Result<Items, String> {
    let folder = tempfile::tempdir().unwrap();
    let mut paths: Vec<PathBuf> = Vec::new();
    for (i, text) in files.iter().enumerate() {
        let path = folder.path().join(format!("{i}.jsonl"));
        fs::write(&path, text).unwrap();
        paths.push(path);
    }
    let prefix = format!("{}/", folder.path().display());
    items::load(&paths, bad_rows).map_err(|error| {
        assert!(error.is_input());
        error.to_string().replace(&prefix, "")
    })
}

fn refused(rows: &[&str], said: &str) {
    let text = rows.join("\n");
    assert_eq!(load(BadRows::Error, &[&text]).unwrap_err(), said);
}

#[test]
fn pairs_rankings_dialogues_and_single_answers_are_items() {
    let files = [
        r#"{"prompt": "p", "chosen": "a", "rejected": "b", "margin": 2}"#,
        r#"{"prompt": "q", "completions": ["a", "b", "c"]}"#,
        r#"{"chosen": "\n\nHuman: hi\n\nAssistant: a", "rejected": "\n\nHuman: hi\n\nAssistant: b"}"#,
        "{\"prompt\": \"r\", \"completion\": \"a\"}\n{\"prompt\": \"s\", \"completion\": \"a\"}\n\
         {\"prompt\": \"r\", \"completion\": \"b\"}",
        "{\"prompt\": \"s\", \"completion\": \"b\", \"score\": 2.5}",
        r#"{"prompt": [{"role": "user", "content": "p"}], "chosen": [{"role": "assistant", "content": "a"}], "rejected": [{"role": "assistant", "content": "b"}]}"#,
    ];
    let items = load(BadRows::Error, &files).unwrap();
    let sizes: Vec<usize> = items.items.iter().map(|i| i.answers.len()).collect();
    assert_eq!(sizes, [2, 3, 2, 2, 2, 2]);
    let text = |text: &str| Content::Text(text.to_owned());
    assert_eq!(items.items[4].prompt, text("r"));
    assert_eq!(items.items[4].answers, [text("a"), text("b")]);
    assert!(
        items.items[4].place.ends_with("3.jsonl:3"),
        "{}",
        items.items[4].place
    );
    assert_eq!(items.items[5].place.matches(".jsonl").count(), 2);
    let mut ids: Vec<&str> = items.items.iter().map(|i| i.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 6);
}

#[test]
fn rows_that_cannot_be_judged_are_refused_by_place() {
    let pair = r#"{"prompt": "p", "chosen": "a", "rejected": "b"}"#;
    let swapped = r#"{"prompt": "p", "chosen": "b", "rejected": "a"}"#;
    refused(
        &[pair, pair, swapped],
        "0.jsonl:3: contradicts 0.jsonl:1: the same answers in another order",
    );
    let same = r#"{"prompt": "p", "chosen": "a", "rejected": "a"}"#;
    refused(
        &[same],
        "0.jsonl:1: fields `chosen` and `rejected` are the same",
    );
    let nearly = r#"{"prompt": "p", "chosen": "a", "rejected": "a\n"}"#;
    refused(&[nearly], "0.jsonl:1: has answers that are the same");
    let three = r#"{"prompt": "p", "completions": ["a", "b", "a"]}"#;
    refused(&[three], "0.jsonl:1: has answers that are the same");
    let one = r#"{"prompt": "p", "completions": ["a"]}"#;
    refused(&[one], "0.jsonl:1: field `completions` has fewer than two");
    let answer = r#"{"prompt": "p", "completion": "a"}"#;
    refused(
        &[answer],
        "0.jsonl:1: has one answer to its prompt, and two are needed",
    );
    refused(
        &[answer, answer],
        "0.jsonl:2: is the same answer as 0.jsonl:1",
    );
    let ten = r#"{"prompt": "p", "completions": ["a","b","c","d","e","f","g","h","i","j"]}"#;
    refused(&[ten], "0.jsonl:1: has 10 answers, and 9 can be shown");
    let prompt = r#"{"prompt": "p"}"#;
    let said = load(BadRows::Skip, &[prompt]).unwrap_err();
    assert!(
        said.starts_with("0.jsonl:1: has no answers to compare"),
        "{said}"
    );
}

#[test]
fn bad_rows_are_skipped_and_counted_on_request() {
    let rows = [
        r#"{"prompt": "p", "chosen": "a", "rejected": "b"}"#,
        r#"{"prompt": "p", "chosen": "b", "rejected": "a"}"#,
        r#"{"prompt": "p", "chosen": "a", "rejected": "a"}"#,
        r#"{"prompt": "p", "chosen": "a", "rejected": "b"}"#,
        r#"{"prompt": "", "chosen": "a", "rejected": "b"}"#,
    ];
    let items = load(BadRows::Skip, &[&rows.join("\n")]).unwrap();
    assert_eq!(
        (items.items.len(), items.skipped.len(), items.repeated),
        (1, 3, 1)
    );
    let nothing = r#"{"prompt": "p", "completion": "a"}"#;
    let said = load(BadRows::Skip, &[nothing]).unwrap_err();
    assert!(
        said.contains("no row can be judged; the first: has one answer"),
        "{said}"
    );
}
