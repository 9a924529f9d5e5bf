//! What Togi writes, `transformers` and `peft` read. Needs a Python that has both (`TOGI_PYTHON`,
//! by default `python3`); with `TOGI_REQUIRE_PYTHON` set it may not be missing.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use burn::tensor::Device;
use serde_json::Value;
use togi_data::Message;
use togi_policy::{Policy, source::Source};

/// Prints logits (or scores) of the token ids on standard input, and what the tokenizer makes of a
/// conversation.
const SCRIPT: &str = r#"
import json, os, sys, torch
os.environ["HF_HUB_OFFLINE"] = "1"
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
folder, head = sys.argv[1:3]
given = json.load(sys.stdin)
auto = AutoModelForCausalLM if head == "lm" else AutoModelForSequenceClassification
more = {} if head == "lm" else {"num_labels": 1}
adapter = os.path.join(folder, "adapter_config.json")
if os.path.exists(adapter):
    from peft import PeftModel
    base = json.load(open(adapter))["base_model_name_or_path"]
    model = PeftModel.from_pretrained(auto.from_pretrained(base, dtype=torch.float32, **more), folder)
else:
    model, info = auto.from_pretrained(folder, dtype=torch.float32, output_loading_info=True, **more)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
model.eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
with torch.no_grad():
    out = model(torch.tensor([given["ids"]])).logits[0]
text = tokenizer.apply_chat_template(given["messages"], tokenize=False, add_generation_prompt=True) if tokenizer.chat_template else ""
print(json.dumps(dict(logits=out.reshape(-1).tolist(), text=text, ids=tokenizer(text, add_special_tokens=False).input_ids,
                      eos=tokenizer.eos_token)))
"#;

fn python() -> Option<String> {
    let python = std::env::var("TOGI_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let probe = Command::new(&python)
        .args(["-c", "import torch, transformers, peft"])
        .output();
    if probe.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    assert!(
        std::env::var_os("TOGI_REQUIRE_PYTHON").is_none(),
        "TOGI_REQUIRE_PYTHON is set, and {python} has no torch, transformers and peft"
    );
    let _ = writeln!(
        std::io::stderr(),
        "skipped: {python} has no torch, transformers and peft"
    );
    None
}

fn xtask(arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
}

fn messages() -> Vec<Message> {
    vec![
        Message::new("user", "say red"),
        Message::new("assistant", "red"),
        Message::new("user", "say blue"),
    ]
}

/// Compares a folder's logits, scores and tokenizer in Python with ours.
fn same(python: &str, folder: &Path, head: &str) {
    let policy = Source::parse(folder.to_str().unwrap())
        .and_then(|source| source.load(&Device::flex(), 0))
        .unwrap();
    let end = policy.tokenizer.ids_end() as u32;
    let ids: Vec<u32> = (0..17).map(|i| 3 + i * 7 % (end - 3)).collect();
    let mut child = Command::new(python)
        .args(["-c", SCRIPT, folder.to_str().unwrap(), head])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let given = serde_json::json!({"ids": ids, "messages": messages()});
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(given.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", folder.display());
    let theirs: Value = serde_json::from_slice(&output.stdout).unwrap();
    let logits = ours(&policy, &ids, head);
    let expected = theirs["logits"].as_array().unwrap();
    assert_eq!(logits.len(), expected.len(), "{}", folder.display());
    for (a, b) in logits.iter().zip(expected) {
        let off = (f64::from(*a) - b.as_f64().unwrap()).abs();
        assert!(off < 1e-4, "{}: off by {off}", folder.display());
    }
    let tokenizer = &policy.tokenizer;
    assert_eq!(theirs["eos"], Value::from(tokenizer.eos_token()));
    if tokenizer.has_template() {
        let text = tokenizer.render(&messages(), true).unwrap();
        assert_eq!(theirs["text"], Value::from(text.as_str()));
        assert_eq!(theirs["ids"], Value::from(tokenizer.encode(&text).unwrap()));
    }
}

fn ours(policy: &Policy, ids: &[u32], head: &str) -> Vec<f32> {
    let decoder = &policy.decoder;
    let weights = decoder.frozen();
    let values = if head == "lm" {
        decoder.logits(&weights, ids).unwrap().into_data()
    } else {
        decoder.scores(&weights, &[ids]).unwrap().into_data()
    };
    values.try_to_vec().unwrap()
}

/// Trains a few steps on the lab; large ones, so that adapters and heads are far from where they
/// started.
fn trained(folder: &Path, recipe: &str, more: &[&str]) -> PathBuf {
    let out = folder.join(format!("{recipe}-{}", more.len()));
    let lab = folder.join("lab-model");
    if !lab.exists() {
        xtask(&["export", "lab", "--out", lab.to_str().unwrap()]);
    }
    let mut arguments = vec![
        "train",
        recipe,
        "--model",
        lab.to_str().unwrap(),
        "--compare=0",
        "--max-steps",
        "3",
        "--out",
        out.to_str().unwrap(),
    ];
    arguments.extend([
        "--set=data.lab_rows=100",
        "--set=optim.learning_rate=0.02",
        "--set=train.batch_size=8",
    ]);
    arguments.extend(more);
    xtask(&arguments);
    out.join("model")
}

#[test]
fn models_adapters_and_merged_adapters_load_elsewhere() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let lora = ["--set=lora.r=4", "--set=lora.alpha=16"];
    for (recipe, head) in [("sft", "lm"), ("dpo", "lm"), ("reward", "score")] {
        same(&python, &trained(folder.path(), recipe, &[]), head);
        let adapter = trained(folder.path(), recipe, &lora);
        assert!(adapter.join("adapter_model.safetensors").is_file());
        same(&python, &adapter, head);
        let merged = folder.path().join(format!("{recipe}-merged"));
        let paths = [adapter.to_str().unwrap(), merged.to_str().unwrap()];
        xtask(&["export", paths[0], "--merge", "--out", paths[1]]);
        assert!(!merged.join("adapter_config.json").exists());
        same(&python, &merged, head);
    }
}

#[test]
fn every_family_is_exported_as_transformers_reads_it() {
    let Some(python) = python() else { return };
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/policy/tests/fixtures");
    let folder = tempfile::tempdir().unwrap();
    for family in ["llama", "llama3", "mistral", "qwen2", "qwen3"] {
        let out = folder.path().join(family);
        let source = fixtures.join(family);
        let paths = [source.to_str().unwrap(), out.to_str().unwrap()];
        xtask(&["export", paths[0], "--out", paths[1]]);
        same(&python, &out, "lm");
    }
}
