//! Models, recipes, generation, checkpoints and the pipeline on a GPU beside the CPU: on WGPU or on CUDA,
//! whichever the build has (`TOGI_TEST_DEVICE` chooses where it has both). CI has a software Vulkan
//! driver; where there is no device the tests say that they were skipped, unless `TOGI_REQUIRE_WGPU` or
//! `TOGI_REQUIRE_CUDA` is set.
#![cfg(any(feature = "wgpu", feature = "cuda"))]

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use burn::tensor::{Device, DeviceType};
use serde_json::Value;
use togi_data::Sample;
use togi_policy::{Decoder, Head, ModelConfig, Params, Policy, hf, source};

fn xtask(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// `wgpu` or `cuda`.
fn kind() -> String {
    let only = if cfg!(feature = "wgpu") {
        "wgpu"
    } else {
        "cuda"
    };
    std::env::var("TOGI_TEST_DEVICE").unwrap_or_else(|_| only.to_owned())
}

/// Says so where the test runner does not keep it to itself.
fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// The kind of the GPU, if there is one.
fn gpu() -> Option<String> {
    let (kind, listed) = (kind(), xtask(&["devices"]));
    let line = listed.lines().find(|line| line.starts_with(&kind)).unwrap();
    // A device that is there is listed with what it can compute in.
    if line.starts_with(&format!("{kind}:0")) && line.contains(" f32") {
        return Some(kind);
    }
    let variable = format!("TOGI_REQUIRE_{}", kind.to_uppercase());
    assert!(
        std::env::var_os(&variable).is_none(),
        "{variable} is set, and there is no device:\n{listed}"
    );
    skipped(line);
    None
}

/// The GPU for what is computed in this process.
fn device(kind: &str) -> Device {
    let wanted = match kind {
        #[cfg(feature = "cuda")]
        "cuda" => DeviceType::Cuda,
        #[cfg(feature = "wgpu")]
        "wgpu" => DeviceType::Wgpu,
        other => panic!("TOGI_TEST_DEVICE={other} is not in this build"),
    };
    Device::enumerate(wanted).into_vec().swap_remove(0)
}

fn host<const D: usize>(x: burn::tensor::Tensor<D>) -> Vec<f32> {
    x.into_data().iter().collect()
}

/// Every number within `tolerance` of `1 + |expected|`.
fn close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}: lengths");
    for (i, (x, y)) in found.iter().zip(expected).enumerate() {
        assert!(
            (x - y).abs() <= tolerance * (1.0 + y.abs()),
            "{what}[{i}]: {x} on the GPU, {y} on the CPU"
        );
    }
}

/// Logits of models; of their log-probabilities' mean, gradients.
fn same_model(name: &str, there: &Decoder, here: &Decoder) {
    let vocabulary = here.config.vocab_size as u32;
    let ids: Vec<Vec<u32>> = [17, 1, 5]
        .into_iter()
        .map(|len| (0..len).map(|i| (i * 37 + len) % vocabulary).collect())
        .collect();
    for ids in &ids {
        let logits = |decoder: &Decoder| host(decoder.logits(&decoder.frozen(), ids).unwrap());
        close(
            &format!("{name}: logits"),
            &logits(there),
            &logits(here),
            1e-4,
        );
    }
    let gradients = |decoder: &Decoder| {
        let samples: Vec<Sample> = ids
            .iter()
            .filter(|ids| ids.len() > 1)
            .map(|ids| Sample::from_parts(&ids[..1], &ids[1..], &[]))
            .collect();
        let samples: Vec<&Sample> = samples.iter().collect();
        let weights = decoder.tracked();
        let logps = decoder.log_probs(&weights, &samples, 1.0).unwrap();
        let grads = decoder.gradients(&weights, logps.values.mean()).unwrap();
        grads
            .into_iter()
            .map(|(name, grad)| (name, host(grad)))
            .collect::<Vec<_>>()
    };
    for ((parameter, there), (_, here)) in gradients(there).iter().zip(&gradients(here)) {
        let what = format!("{name}: gradient of {parameter}");
        close(&what, there, here, 1e-4);
    }
}

#[test]
fn a_model_says_there_what_it_says_on_the_cpu() {
    let Some(kind) = gpu() else { return };
    let (there, here) = (device(&kind), Device::flex());
    // SmolLM2's proportions: nine query heads of three key heads, tied embeddings.
    let config = ModelConfig {
        vocab_size: 1000,
        hidden_size: 144,
        intermediate_size: 384,
        num_hidden_layers: 3,
        num_attention_heads: 9,
        num_key_value_heads: 3,
        head_dim: 16,
        ..source::lab(&here, 0).unwrap().decoder.config
    };
    let decoder = |device: &Device| {
        let params = Params::random(&config, Head::LanguageModel, 3, device);
        Decoder::new(config.clone(), params, device.clone()).unwrap()
    };
    same_model("SmolLM2's shape", &decoder(&there), &decoder(&here));
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/policy/tests/fixtures");
    for family in ["llama", "llama3", "mistral", "qwen2", "qwen3"] {
        let load =
            |device: &Device| -> Policy { hf::load(&fixtures.join(family), device).unwrap() };
        same_model(family, &load(&there).decoder, &load(&here).decoder);
    }
}

fn lab_model(folder: &Path) -> String {
    let out = folder.join("lab-model").display().to_string();
    xtask(&["export", "lab", "--out", &out]);
    out
}

/// What a run wrote.
struct Run {
    metrics: Vec<Value>,
    weights: Vec<f32>,
}

impl Run {
    fn read(out: &Path) -> Self {
        let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
        let metrics = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let whole = out.join("model/model.safetensors");
        let adapter = out.join("model/adapter_model.safetensors");
        let bytes = fs::read(if whole.exists() { whole } else { adapter }).unwrap();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let (values, _) = bytes[header..].as_chunks::<4>();
        Self {
            metrics,
            weights: values.iter().map(|v| f32::from_le_bytes(*v)).collect(),
        }
    }

    /// Every metric but times, and every weight.
    fn is_close_to(&self, expected: &Self, name: &str) {
        let rows = |run: &Self| -> Vec<(String, f64)> {
            let rows = run.metrics.iter().filter_map(Value::as_object).enumerate();
            rows.flat_map(|(i, row)| {
                row.iter().filter_map(move |(key, value)| {
                    let counted = key != "seconds" && key != "tokens_per_second";
                    let value = value.as_f64().filter(|_| counted)?;
                    Some((format!("row {i}, {key}"), value))
                })
            })
            .collect()
        };
        let (ours, theirs) = (rows(self), rows(expected));
        for wanted in ["loss", "grad_norm"] {
            let is_there = theirs.iter().any(|(key, _)| key.contains(wanted));
            assert!(is_there, "{name}: `{wanted}` is not among the metrics");
        }
        assert_eq!(ours.len(), theirs.len(), "{name}: metrics");
        for ((key, x), (other, y)) in ours.iter().zip(&theirs) {
            assert_eq!(key, other, "{name}");
            assert!(
                (x - y).abs() <= 1e-4 + 1e-3 * y.abs(),
                "{name}: {key} is {x} on the GPU, {y} on the CPU"
            );
        }
        self.has_weights_of(expected, name, (WEIGHTS, SAME));
    }

    /// All weights within `most`, and all but a few of them within `same`.
    fn has_weights_of(&self, expected: &Self, name: &str, (most, same): (f32, f32)) {
        assert_eq!(self.weights.len(), expected.weights.len(), "{name}");
        let beyond = |limit: f32| {
            let pairs = self.weights.iter().zip(&expected.weights);
            let off = pairs.map(|(x, y)| (x - y).abs());
            off.filter(|off| *off > limit || off.is_nan()).count()
        };
        assert_eq!(
            beyond(most),
            0,
            "{name}: weights are off by more than {most}"
        );
        let share = beyond(same) as f64 / expected.weights.len() as f64;
        println!("{name}: {share:.5} of the weights are off by more than {same}");
        assert!(
            share <= NOISE,
            "{name}: {share} of the weights are off by more than {same}"
        );
    }
}

/// How far weights may be apart after a step with a learning rate of 1e-4: Adam turns a gradient that is
/// only noise into a step of that size in either direction.
const WEIGHTS: f32 = 2.1e-4;

/// How far they may be apart where a gradient is more than noise: a hundredth of the step.
const SAME: f32 = 1e-6;

/// The share of weights whose gradient may be noise.
const NOISE: f64 = 0.001;

/// A recipe, and what is set beside the sizes.
type Case = (&'static str, &'static [&'static str]);

const RATE: &str = "--set=optim.learning_rate=1e-4";
const OFFLINE: [&str; 7] = [
    "--max-steps=1",
    "--set=data.lab_rows=64",
    "--set=train.batch_size=8",
    "--set=train.micro_batch_size=4",
    "--set=train.eval_samples=8",
    "--set=optim.warmup_steps=0",
    RATE,
];
const LORA: &[&str] = &["--set=lora.r=4", "--set=lora.dropout=0.1"];
const OFFLINE_CASES: [Case; 16] = [
    ("sft", &[]),
    ("sft", LORA),
    ("reward", &[]),
    ("reward", &["--set=loss.kind=plackett_luce"]),
    ("reward", &["--set=loss.kind=regression"]),
    ("dpo", &[]),
    ("dpo", LORA),
    ("dpo", &["--set=train.gradient_checkpointing=true"]),
    ("ipo", &[]),
    ("slic", &[]),
    ("simpo", &[]),
    ("cpo", &[]),
    ("orpo", &[]),
    ("kto", &[]),
    ("dpo", &["--set=loss={kind=\"hinge\",beta=0.05}"]),
    // Sorts over the batch.
    (
        "dpo",
        &[
            "--set=loss={kind=\"aot\",beta=0.1}",
            "--set=train.micro_batch_size=8",
        ],
    ),
];

const ONLINE: [&str; 8] = [
    "--max-steps=1",
    "--set=prompts_per_step=4",
    "--set=minibatch_size=8",
    "--set=micro_batch_size=8",
    "--set=eval_samples=2",
    "--set=sampling.max_new_tokens=6",
    "--set=optim.warmup_steps=0",
    RATE,
];
const ONLINE_CASES: [Case; 15] = [
    ("ppo", &[]),
    ("ppo", LORA),
    ("grpo", &[]),
    ("grpo", &["--set=gradient_checkpointing=true"]),
    ("dapo", &["--set=overlong_buffer=2"]),
    ("gspo", &[]),
    ("cispo", &[]),
    ("rloo", &[]),
    ("reinforce", &[]),
    ("reinforce-plus-plus", &[]),
    ("remax", &[]),
    ("raft", &[]),
    ("online-dpo", &[]),
    ("xpo", &[]),
    ("nash-md", &[]),
];

/// Recipes that make their rows first.
const STAGED: [Case; 3] = [
    (
        "rso",
        &[
            "--max-steps=1",
            "--set=prompts=8",
            "--set=candidates=4",
            "--set=accepted=2",
            "--set=sampling.max_new_tokens=6",
            "--set=preference.data.lab_rows=64",
            "--set=preference.train.batch_size=8",
            "--set=preference.train.micro_batch_size=4",
            "--set=preference.optim.warmup_steps=0",
            "--set=preference.optim.learning_rate=1e-4",
        ],
    ),
    (
        "rlaif",
        &[
            "--max-steps=1",
            "--set=label.prompts=24",
            "--set=label.batch_size=24",
            "--set=label.sampling.max_new_tokens=8",
            "--set=learn.data.lab_rows=64",
            "--set=learn.train.batch_size=8",
            "--set=learn.train.micro_batch_size=8",
            "--set=learn.optim.warmup_steps=0",
            "--set=learn.optim.learning_rate=1e-4",
        ],
    ),
    (
        "cai",
        &[
            "--set=prompts=24",
            "--set=batch_size=24",
            "--set=sampling.max_new_tokens=8",
            "--set=sft.train.max_steps=1",
            "--set=sft.train.batch_size=8",
            "--set=sft.train.micro_batch_size=8",
            "--set=sft.optim.warmup_steps=0",
            "--set=sft.optim.learning_rate=5e-5",
            "--set=label.prompts=24",
            "--set=label.batch_size=24",
            "--set=label.sampling.max_new_tokens=8",
            "--set=preference.train.max_steps=1",
            "--set=preference.train.batch_size=8",
            "--set=preference.train.micro_batch_size=8",
            "--set=preference.optim.warmup_steps=0",
            "--set=preference.optim.learning_rate=5e-5",
        ],
    ),
];

/// One step of each on both devices, from the untrained lab model.
fn steps_agree(sizes: &[&str], cases: &[Case]) {
    let Some(kind) = gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let model = lab_model(folder.path());
    for (number, (recipe, settings)) in cases.iter().enumerate() {
        let run = |device: &str| {
            let out = folder.path().join(format!("{number}-{device}"));
            let path = out.display().to_string();
            let mut arguments = vec!["train", recipe, "--model", &model, "--device", device];
            arguments.extend(["--out", &path, "--compare=0"]);
            arguments.extend(sizes);
            arguments.extend(*settings);
            xtask(&arguments);
            Run::read(&out)
        };
        let name = format!("{recipe} {}", settings.join(" "));
        run(&kind).is_close_to(&run("cpu"), &name);
    }
}

#[test]
fn a_step_on_rows_is_that_of_the_cpu() {
    steps_agree(&OFFLINE, &OFFLINE_CASES);
}

#[test]
fn a_step_on_completions_is_that_of_the_cpu() {
    steps_agree(&ONLINE, &ONLINE_CASES);
}

#[test]
fn a_step_on_rows_of_its_own_is_that_of_the_cpu() {
    steps_agree(&[], &STAGED);
}

#[test]
fn no_recipe_is_left_out() {
    let cases = OFFLINE_CASES.iter().chain(&ONLINE_CASES).chain(&STAGED);
    let mut here: BTreeSet<&str> = cases.map(|(recipe, _)| *recipe).collect();
    // The pipeline has a test of its own.
    here.insert("rlhf");
    let listed = xtask(&["recipes"]);
    let there = listed.lines().filter_map(|l| l.split_whitespace().next());
    assert_eq!(here, there.collect());
}

#[test]
fn generation_draws_the_same_tokens() {
    let Some(kind) = gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let model = lab_model(folder.path());
    let said = |device: &str, more: &[&str]| {
        let mut arguments = vec!["generate", "--model", &model, "--device", device];
        arguments.extend(["--max-new-tokens", "12", "--prompt", "name three colors"]);
        arguments.extend(["--prompt", "repeat the words red dog sun"]);
        arguments.extend(more);
        xtask(&arguments)
    };
    let rules = folder.path().join("rules.toml");
    fs::write(&rules, "regex = '(red|blue)( dog)*'\n").unwrap();
    let rules = rules.display().to_string();
    let judged = folder.path().join("judged.toml");
    fs::write(&judged, "[[rule]]\nkind = \"max_words\"\nwords = 4\n").unwrap();
    let judged = format!("rules:{}", judged.display());
    let ways: [&[&str]; 5] = [
        &["--temperature", "0"],
        &["--samples", "3"],
        &["--top-k", "5", "--top-p", "0.9", "--seed", "7"],
        &["--rules", &rules],
        &["--best-of", "3", "--reward", &judged],
    ];
    for way in ways {
        assert_eq!(said(&kind, way), said("cpu", way), "{way:?}");
    }
}

#[test]
fn a_checkpoint_of_one_device_is_gone_on_with_on_the_other() {
    let Some(kind) = gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let model = lab_model(folder.path());
    let start = |name: &str, device: &str, steps: &str| -> PathBuf {
        let out = folder.path().join(name);
        let path = out.display().to_string();
        let mut arguments = vec!["train", "sft", "--model", &model, "--device", device];
        arguments.extend(["--out", &path, "--resume", "--compare=0"]);
        arguments.extend(&OFFLINE[1..]);
        arguments.extend([
            "--set=train.checkpoint_every=2",
            "--set=optim.schedule=constant",
            steps,
        ]);
        xtask(&arguments);
        out
    };
    let losses = |out: &Path| -> Vec<f64> {
        let rows = Run::read(out).metrics;
        rows.iter().filter_map(|row| row["loss"].as_f64()).collect()
    };
    let whole = start("whole", "cpu", "--max-steps=4");
    let expected = losses(&whole);
    // The second half of the steps after the checkpoint of the first half.
    for (first, second) in [("cpu", kind.as_str()), (kind.as_str(), "cpu")] {
        let name = format!("{first}-{second}");
        let out = start(&name, first, "--max-steps=2");
        let config = out.join("config.toml");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace("max_steps = 2", "max_steps = 4")).unwrap();
        fs::remove_dir_all(out.join("model")).unwrap();
        start(&name, second, "--max-steps=4");
        // The short run looked at held-out samples at its end, which the long one did not.
        let found = losses(&out);
        assert_eq!((found.len(), expected.len()), (4, 4), "{name}");
        for (x, y) in found.iter().zip(&expected) {
            assert!((x - y).abs() <= 1e-3 * (1.0 + y), "{name}: {x}, {y}");
        }
        // Four steps.
        Run::read(&out).has_weights_of(&Run::read(&whole), &name, (4.0 * WEIGHTS, 10.0 * SAME));
    }
}

/// The bytes behind a word.
fn bytes(text: &str, label: &str) -> f64 {
    let rest = text
        .split(label)
        .nth(1)
        .unwrap_or_else(|| panic!("no `{label}` in {text}"));
    let mut words = rest.split_whitespace();
    let number: f64 = words.next().unwrap().parse().unwrap();
    number
        * match words.next().unwrap() {
            "MB" => 1e6,
            "GB" => 1e9,
            other => panic!("{other}: {text}"),
        }
}

#[test]
fn the_estimate_is_within_15_percent_of_what_the_pools_reserve() {
    let Some(kind) = gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).display().to_string();
    let (model, data, rules) = (place("model"), place("pairs.jsonl"), place("rules.toml"));
    let long = place("prompts.jsonl");
    xtask(&["export", "lab", "--random", "512x4", "--out", &model]);
    let said = |role: &str, text: &str| serde_json::json!([{"role": role, "content": text}]);
    let row = serde_json::json!({
        "prompt": said("user", "name three colors"),
        "chosen": said("assistant", &["red blue green"; 12].join(" ")),
        "rejected": said("assistant", &["dog sun"; 9].join(" ")),
    });
    fs::write(&data, format!("{row}\n").repeat(12)).unwrap();
    // What prompts share goes through a model once: these share nothing.
    let words = [
        "red", "blue", "green", "dog", "sun", "tree", "house", "book",
    ];
    let rows: String = (0..64)
        .map(|i| {
            let word = |j: usize| words[(i / 8_usize.pow(j as u32 % 2) + j) % 8];
            let words: Vec<&str> = (0..60).map(word).collect();
            format!(
                "{}\n",
                serde_json::json!({"prompt": said("user", &words.join(" "))})
            )
        })
        .collect();
    fs::write(&long, rows).unwrap();
    fs::write(&rules, "[[rule]]\nkind = \"max_words\"\nwords = 4\n").unwrap();
    let rules = format!("--reward=rules:{rules}");
    let rows: &[&str] = &["--set=train.batch_size=4", "--set=train.micro_batch_size=2"];
    let drawn: &[&str] = &[
        &rules,
        "--set=prompts_per_step=2",
        "--set=minibatch_size=4",
        "--set=micro_batch_size=4",
        "--set=eval_samples=2",
        "--set=sampling.max_new_tokens=8",
    ];
    // More prompts are answered at a look than in a step.
    let looks: &[&str] = &[
        "--set=completions_per_prompt=2",
        "--set=lora.r=16",
        "--set=eval_samples=32",
        "--set=data.valid_fraction=0.5",
    ];
    for (recipe, data, sizes, own) in [
        ("sft", &data, rows, &[][..]),
        ("sft", &data, rows, &["--set=lora.r=16"]),
        (
            "sft",
            &data,
            rows,
            &["--set=train.gradient_checkpointing=true"],
        ),
        ("dpo", &data, rows, &[]),
        ("reward", &data, rows, &[]),
        ("grpo", &data, drawn, &["--set=completions_per_prompt=2"]),
        ("grpo", &long, drawn, looks),
        ("ppo", &data, drawn, &[]),
    ] {
        let mut all = vec![recipe, "--model", &model, "--data", data, "--device", &kind];
        all.extend(sizes);
        all.extend(own);
        let out = place("run");
        let run = ["--out", &out, "--compare=0"];
        let holds = |what: &str, more: &[&str]| {
            let estimate = [&["inspect"][..], &all, &more[..1]].concat();
            let estimate = bytes(&xtask(&estimate), "\n  together");
            let said = xtask(&[&["train"][..], &all, &run, more].concat());
            let reserved = bytes(&said, "Peak memory of the device:");
            let off = estimate / reserved - 1.0;
            let name = format!("{what}{recipe} {own:?}");
            println!("{name}: estimate {estimate:.3e}, reserved {reserved:.3e}, {off:+.3}");
            assert!(
                off.abs() < 0.15,
                "{name}: {estimate} for {reserved}, {off:+.3}"
            );
        };
        holds("", &["--max-steps=2"]);
        if matches!(recipe, "sft" | "ppo") && own.is_empty() {
            // Going on from a checkpoint takes no more.
            let config = Path::new(&out).join("config.toml");
            let text = fs::read_to_string(&config).unwrap();
            fs::write(&config, text.replace("max_steps = 2", "max_steps = 3")).unwrap();
            fs::remove_dir_all(Path::new(&out).join("model")).unwrap();
            holds("resumed: ", &["--max-steps=3", "--resume"]);
        }
        fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn a_gpu_without_memory_ends_the_run_with_what_would_help() {
    let Some(kind) = gpu() else { return };
    // What leaves the device without: of a driver whose memory is the program's, and of tools/cuda-stand-in.
    let short = if kind == "wgpu" && xtask(&["devices"]).contains("llvmpipe") {
        "ulimit -v 1000000"
    } else if kind == "cuda" && std::env::var_os("STAND_IN_KERNELS").is_some() {
        "export STAND_IN_MEMORY=25000000"
    } else {
        skipped("no driver that can be left without memory");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (lab_model(folder.path()), folder.path().join("run"));
    let path = out.display().to_string();
    let train = |before: &str, more: &[&str]| {
        let output = Command::new("sh")
            .args(["-c", &format!("{before}; exec \"$@\""), "sh"])
            .arg(env!("CARGO_BIN_EXE_xtask"))
            .args(["train", "sft", "--model", &model, "--out", &path])
            .args(["--max-steps=3", "--compare=0", "--set=data.lab_rows=3000"])
            .args(["--set=train.batch_size=2048", "--set=train.eval_samples=8"])
            .args(more)
            // Threads take address space.
            .envs(["LP_NUM_THREADS", "RAYON_NUM_THREADS", "MALLOC_ARENA_MAX"].map(|n| (n, "2")))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let (status, said) = train(
        ":",
        &["--memory-limit=1MB", "--set=train.micro_batch_size=256"],
    );
    assert!(status == Some(1) && said.contains("sft, step 1"), "{said}");
    let device = format!("--device={kind}");
    let all = ["--resume", &device, "--set=train.micro_batch_size=2048"];
    let (status, said) = train(short, &all);
    assert_eq!(status, Some(1), "{said}");
    for needle in [
        "sft, after step 1: the device refused memory",
        "It was estimated at",
        "were reserved",
        "--set train.micro_batch_size=1 (",
        "--set train.gradient_checkpointing=true (",
        "--resume",
    ] {
        assert!(said.contains(needle), "`{needle}` is not in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    let (status, said) = train(":", &["--resume", "--set=train.micro_batch_size=256"]);
    assert_eq!(status, Some(0), "{said}");
    let steps: Vec<f64> = Run::read(&out)
        .metrics
        .iter()
        .filter(|row| row["loss"].is_number())
        .filter_map(|row| row["step"].as_f64())
        .collect();
    assert_eq!(steps, [1.0, 2.0, 3.0]);
}

#[test]
fn the_pipeline_runs() {
    let Some(kind) = gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let path = out.display().to_string();
    let mut arguments: Vec<String> = ["train", "rlhf", "--device", &kind, "--out", &path]
        .map(str::to_owned)
        .into();
    for stage in ["base", "sft", "reward"] {
        for size in [
            "train.max_steps=2",
            "train.batch_size=8",
            "train.micro_batch_size=8",
            "train.eval_samples=8",
            "data.lab_rows=64",
        ] {
            arguments.push(format!("--set={stage}.{size}"));
        }
    }
    for size in [
        "ppo.max_steps=2",
        "ppo.prompts_per_step=8",
        "ppo.minibatch_size=8",
        "ppo.micro_batch_size=8",
        "ppo.sampling.max_new_tokens=8",
        "ppo.eval_samples=4",
        "ppo.data.lab_rows=64",
        "eval_prompts=8",
    ] {
        arguments.push(format!("--set={size}"));
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let printed = xtask(&arguments);
    assert!(printed.contains("PPO's gold reward"), "{printed}");
    for file in [
        "model/model.safetensors",
        "report.html",
        "stages/reward/model.safetensors",
    ] {
        assert!(out.join(file).is_file(), "{file}");
    }
}

#[test]
fn a_device_that_is_not_there_is_refused() {
    let Some(kind) = gpu() else { return };
    let refused = |device: &str, wanted: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args([
                "generate", "--model", "lab", "--prompt", "hello", "--device", device,
            ])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(wanted), "`{wanted}` is not in: {said}");
    };
    refused(&format!("{kind}:99"), "cargo xtask devices");
    refused(&format!("{kind}:x"), "`x` is not a number");
    refused("tpu", "cpu, wgpu[:n] and cuda[:n]");
}
