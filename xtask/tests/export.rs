//! `export --random`: models of a given size to measure with.

use std::{fs, process::Command};

use serde_json::Value;

fn xtask(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(arguments)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn a_random_model_has_the_size_that_was_asked_for_and_answers() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model");
    let path = out.display().to_string();
    let (status, said) = xtask(&["export", "lab", "--random", "256x3", "--out", &path]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("random weights"), "{said}");
    let config = fs::read_to_string(out.join("config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    for (key, value) in [
        ("hidden_size", 256),
        ("intermediate_size", 1024),
        ("num_hidden_layers", 3),
        ("num_attention_heads", 4),
        ("num_key_value_heads", 1),
    ] {
        assert_eq!(config[key], value, "{key}");
    }
    let asked = ["--prompt", "name three colors", "--max-new-tokens", "4"];
    let (status, said) = xtask(&[&["generate", "--model", &path], &asked[..]].concat());
    assert_eq!(status, Some(0), "{said}");
}

#[test]
fn sizes_that_are_none_are_refused() {
    for size in ["100x2", "64x0", "0x2", "64", "ax2"] {
        let (status, said) = xtask(&["export", "lab", "--random", size, "--out", "unused"]);
        assert_eq!(status, Some(2), "{size}: {said}");
        assert!(said.contains("a multiple of 64"), "{size}: {said}");
    }
}
