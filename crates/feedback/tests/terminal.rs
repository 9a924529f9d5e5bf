//! The program in a pseudo-terminal, and without one.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The example, which `cargo test` builds beside the tests.
fn program() -> Option<PathBuf> {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap();
    let name = format!("annotate{}", std::env::consts::EXE_SUFFIX);
    let path = folder.join("examples").join(name);
    path.exists().then_some(path)
}

#[test]
fn a_person_judges_in_a_terminal_and_is_killed() {
    let python = Command::new("python3")
        .args(["-c", "import pty, termios"])
        .stderr(Stdio::null())
        .status();
    let (true, Some(program)) = (python.is_ok_and(|status| status.success()), program()) else {
        let _ = writeln!(
            std::io::stderr(),
            "skipped: no python3 with pty, or the example `annotate` is not built"
        );
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/person.py"))
        .args([&program, folder.path()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(said.trim_end().ends_with("ok"), "{said}\n{wrong}");
}

#[test]
fn without_a_terminal_it_says_so() {
    let Some(program) = program() else {
        let _ = writeln!(
            std::io::stderr(),
            "skipped: the example `annotate` is not built"
        );
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data.jsonl");
    fs::write(&data, "").unwrap();
    let output = Command::new(program)
        .args([&data, &folder.path().join("log.jsonl")])
        .arg("ann")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("NotATerminal(\"input\")"), "{said}");
    assert!(!folder.path().join("log.jsonl").exists());
}
