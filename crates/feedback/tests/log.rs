//! The log: what was appended is there, once, whatever crashes.

mod support;

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    slice, thread,
};

use support::{annotation, choice, item, pairs, time};
use togi_feedback::{Annotation, Entry, Log, Retraction, Verdict, log::read_saying, read};

fn entry(annotation: &Annotation) -> Entry {
    Entry::Annotation(Box::new(annotation.clone()))
}

fn add(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

/// A log with three judgements.
fn three(path: &Path) -> Vec<Annotation> {
    let lines: Vec<Annotation> = pairs(3)
        .iter()
        .map(|item| annotation(item, "ann", 0, choice(1, 2)))
        .collect();
    let (mut log, before, torn) = Log::open(path).unwrap();
    assert!(before.is_empty() && torn.is_none());
    for line in &lines {
        assert_eq!(log.append(&entry(line)).unwrap(), None);
    }
    lines
}

#[test]
fn what_is_appended_is_read_and_what_is_retracted_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    let lines = three(&path);
    let (mut log, before, _) = Log::open(&path).unwrap();
    assert_eq!(before, lines);
    log.append(&Entry::Retraction(Retraction {
        retracted: lines[1].id.clone(),
        annotator: "ann".to_owned(),
        at: time(5),
    }))
    .unwrap();
    let live = [lines[0].clone(), lines[2].clone()];
    assert_eq!(read(slice::from_ref(&path)).unwrap(), live);
    // Nothing is rewritten: the line is there still.
    assert!(fs::read_to_string(&path).unwrap().contains(&lines[1].item));
    // A copy adds nothing.
    let copy = folder.path().join("copy.jsonl");
    fs::copy(&path, &copy).unwrap();
    assert_eq!(read(&[path, copy]).unwrap(), live);
}

#[test]
fn a_torn_line_is_cut_off_wherever_it_tore() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    let lines = three(&path);
    let whole = fs::read(&path).unwrap();
    let torn_at = whole[..whole.len() - 1]
        .iter()
        .rposition(|b| *b == b'\n')
        .unwrap()
        + 1;
    for end in torn_at..=whole.len() {
        fs::write(&path, &whole[..end]).unwrap();
        let (seen, said) = read_saying(slice::from_ref(&path)).unwrap();
        assert_eq!(
            fs::read(&path).unwrap().len(),
            end,
            "reading changes nothing"
        );
        let (mut log, opened, torn) = Log::open(&path).unwrap();
        assert_eq!(opened, seen);
        assert_eq!(torn.is_some(), said.len() == 1);
        if end + 1 >= whole.len() {
            // Only its newline is missing.
            assert_eq!((opened.len(), torn), (3, None), "{end}");
        } else if end > torn_at {
            let torn = torn.unwrap();
            assert_eq!((opened.len(), torn.line, torn.bytes), (2, 3, end - torn_at));
            assert!(torn.to_string().contains("log.jsonl:3: "), "{torn}");
        }
        log.append(&entry(&lines[2])).unwrap();
        assert_eq!(read(slice::from_ref(&path)).unwrap(), lines);
    }
    // What a lost page of the disk leaves.
    fs::write(&path, [&whole[..torn_at + 9], &[0; 40]].concat()).unwrap();
    assert_eq!(Log::open(&path).unwrap().2.unwrap().bytes, 49);
}

#[test]
fn what_another_program_tore_meanwhile_is_cut_off_before_appending() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    let lines = three(&path);
    let (mut log, _, _) = Log::open(&path).unwrap();
    add(&path, b"{\"id\":\"x");
    let one = annotation(&item("new", &["x", "y"]), "bob", 0, Verdict::Tie);
    assert_eq!(log.append(&entry(&one)).unwrap().unwrap().bytes, 8);
    assert_eq!(read(&[path]).unwrap(), [&lines[..], &[one]].concat());
}

#[test]
fn any_other_damage_names_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    let lines = three(&path);
    let whole = fs::read_to_string(&path).unwrap();
    let second = whole.lines().nth(1).unwrap();
    let damaged = |line: &str, with: &str, number: usize, reason: &str| {
        fs::write(&path, whole.replace(line, with)).unwrap();
        for error in [
            read(slice::from_ref(&path)).unwrap_err(),
            Log::open(&path).unwrap_err(),
        ] {
            assert!(error.is_input());
            let said = error.to_string();
            assert!(said.contains(&format!("log.jsonl:{number}: ")), "{said}");
            assert!(said.contains(reason), "{said}");
        }
    };
    damaged(second, &second[..40], 2, "no line of a log");
    damaged(second, "{\"prompt\": \"q\"}", 2, "missing field");
    damaged(second, "[]", 2, "no line of a log");
    damaged("prompt 1", "prompt X", 2, "field `item` does not fit");
    damaged("\"answer\":1", "\"answer\":2", 1, "answer 2 of 2");
    damaged("\"strength\":2", "\"strength\":4", 1, "1, 2 or 3");
    damaged(
        "\"pass\":0",
        "\"pass\":0,\"more\":1",
        1,
        "unknown field `more`",
    );
    damaged("-11-14T", "-11-44T", 1, "2023-11-44T");
    let retraction = |id: &str, who: &str| {
        format!(
            "{{\"retracted\":\"{id}\",\"annotator\":\"{who}\",\"at\":\"2024-01-01T00:00:00Z\"}}"
        )
    };
    damaged(
        second,
        &retraction(&lines[2].id, "ann"),
        2,
        "no earlier line",
    );
    damaged(
        second,
        &retraction(&lines[0].id, "bob"),
        2,
        "which ann judged",
    );
    // A whole last line without its newline is not torn, and not good either.
    fs::write(&path, format!("{whole}{{\"id\": 1}}")).unwrap();
    assert!(
        read(slice::from_ref(&path))
            .unwrap_err()
            .to_string()
            .contains(":4: ")
    );
    fs::write(
        &path,
        whole.replace("\"reason\":null", "\"reason\":\"\u{e9}\""),
    )
    .unwrap();
    assert!(read(slice::from_ref(&path)).is_ok());
    let twice = format!(
        "{whole}{}\n",
        second.replace("\"reason\":null", "\"reason\":\"x\"")
    );
    fs::write(&path, twice).unwrap();
    assert!(read(&[path]).unwrap_err().to_string().contains(":4: id "));
    let missing = read(&[PathBuf::from("no/such/log.jsonl")]).unwrap_err();
    assert!(missing.is_input() && missing.to_string().contains("no/such/log.jsonl"));
}

#[test]
fn several_append_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    let long = "long ".repeat(20_000);
    thread::scope(|scope| {
        for writer in 0..6 {
            let (path, long) = (&path, &long);
            scope.spawn(move || {
                let (mut log, _, _) = Log::open(path).unwrap();
                for i in 0..20 {
                    let item = item(&format!("{writer} {i}"), &[long, "short"]);
                    let line = annotation(&item, &format!("writer {writer}"), 0, Verdict::Tie);
                    assert_eq!(log.append(&entry(&line)).unwrap(), None);
                }
            });
        }
    });
    let all = read(&[path]).unwrap();
    assert_eq!(all.len(), 120);
    for writer in 0..6 {
        let name = format!("writer {writer}");
        assert_eq!(all.iter().filter(|a| a.annotator == name).count(), 20);
    }
}
