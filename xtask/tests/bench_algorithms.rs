//! `bench algorithms` runs, goes on where it was, and writes its page.

use std::{fs, path::Path, process::Command};

fn xtask(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, said) = (text(&output.stdout), text(&output.stderr));
    (output.status.code(), out, said)
}

/// Models that took no time to train stand for those of the seed.
fn models(out: &Path) {
    let stages = out.join("seed-0/models/stages");
    let lab = stages.join("sft").display().to_string();
    let reward = out.join("reward").display().to_string();
    assert_eq!(xtask(&["export", "lab", "--out", &lab]).0, Some(0));
    let base = stages.join("base").display().to_string();
    assert_eq!(xtask(&["export", "lab", "--out", &base]).0, Some(0));
    let train = ["train", "reward", "--model", &lab, "--out", &reward];
    let small = ["--max-steps=1", "--set=data.lab_rows=64"];
    assert_eq!(xtask(&[&train[..], &small].concat()).0, Some(0));
    fs::rename(out.join("reward/model"), stages.join("reward")).unwrap();
    fs::write(
        out.join("seed-0/models/config.toml"),
        "# models of seed 0\n",
    )
    .unwrap();
}

#[test]
fn a_small_benchmark() {
    let folder = tempfile::tempdir().unwrap();
    models(folder.path());
    let out = folder.path().display().to_string();
    let arguments = [
        "bench",
        "algorithms",
        "--seeds=1",
        "--only=raft,simpo",
        "--defaults-only",
        "--out",
        &out,
    ];
    let (status, printed, said) = xtask(&arguments);
    assert_eq!(status, Some(0), "{said}");
    for wanted in ["raft", "simpo", "gold - SFT", "Page:"] {
        assert!(printed.contains(wanted), "`{wanted}` is not in:\n{printed}");
    }
    let rows = fs::read_to_string(folder.path().join("results.jsonl")).unwrap();
    assert_eq!(rows.lines().count(), 2);
    let page = fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(page.contains("Frontier") && page.contains("<svg"));
    // A second time nothing is run again.
    let (status, again, said) = xtask(&arguments);
    assert_eq!(status, Some(0), "{said}");
    assert!(!said.contains("seed 0  raft"), "{said}");
    let table = |text: &str| text.lines().take(6).collect::<Vec<_>>().join("\n");
    assert_eq!(table(&printed), table(&again));
    let (status, _, said) = xtask(&["bench", "algorithms", "--only=dop", "--out", &out]);
    assert_eq!(status, Some(2));
    assert!(
        said.contains("--only dop") && said.contains("dpo"),
        "{said}"
    );
}
