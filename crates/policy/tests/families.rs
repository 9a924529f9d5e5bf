//! Tiny models of every family against what `transformers` computed (tools/golden/tiny_models.py).

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use serde_json::Value;
use togi_data::Sample;
use togi_policy::{Policy, PolicyError, Sampling, generate, hf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn load(name: &str) -> (Policy, Value) {
    let text = std::fs::read_to_string(fixture(name).join("expected.json")).unwrap();
    let policy = hf::load(&fixture(name), &Device::flex()).unwrap();
    (policy, serde_json::from_str(&text).unwrap())
}

fn numbers(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|x| x.as_f64().unwrap())
        .collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|x| x.as_u64().unwrap() as u32)
        .collect()
}

fn host<const D: usize>(x: Tensor<D>) -> Vec<f64> {
    x.into_data().iter::<f32>().map(f64::from).collect()
}

fn close(what: &str, ours: &[f64], theirs: &[f64], tolerance: f64) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!(
            (a - b).abs() <= tolerance,
            "{what}[{i}]: {a}, transformers has {b}"
        );
    }
}

fn whole(ids: &[u32]) -> Sample {
    Sample::from_parts(&ids[..1], &ids[1..], &[])
}

const FAMILIES: [&str; 5] = ["llama", "llama3", "mistral", "qwen2", "qwen3"];

#[test]
fn logits_and_log_probabilities_are_those_of_transformers() {
    for name in FAMILIES {
        let (policy, expected) = load(name);
        let weights = policy.decoder.frozen();
        let cases = expected["cases"].as_array().unwrap();
        for case in cases {
            let ids = ids(&case["ids"]);
            let logits = policy.decoder.logits(&weights, &ids).unwrap();
            let [tokens, vocabulary] = logits.dims();
            let logits = host(logits);
            let rows = [&logits[..vocabulary], &logits[(tokens - 1) * vocabulary..]];
            for (row, theirs) in rows.into_iter().zip(case["logits"].as_array().unwrap()) {
                close(&format!("{name}: logits"), row, &numbers(theirs), 1e-4);
            }
        }
        // All sequences packed into one run of tokens: none sees another.
        let samples: Vec<Sample> = cases.iter().map(|case| whole(&ids(&case["ids"]))).collect();
        let views: Vec<&Sample> = samples.iter().collect();
        let ours = host(
            policy
                .decoder
                .log_probs(&weights, &views, 1.0)
                .unwrap()
                .values,
        );
        let theirs: Vec<f64> = cases
            .iter()
            .flat_map(|case| numbers(&case["logps"]))
            .collect();
        close(&format!("{name}: log-probabilities"), &ours, &theirs, 1e-4);
    }
}

#[test]
fn gradients_are_those_of_transformers() {
    for name in FAMILIES {
        let (policy, expected) = load(name);
        let weights = policy.decoder.tracked();
        let cases = expected["cases"].as_array().unwrap();
        let samples: Vec<Sample> = cases.iter().map(|case| whole(&ids(&case["ids"]))).collect();
        let views: Vec<&Sample> = samples.iter().collect();
        let logps = policy
            .decoder
            .log_probs(&weights, &views, 1.0)
            .unwrap()
            .values;
        let loss = logps.mean().neg();
        let theirs = expected["loss"].as_f64().unwrap();
        close(
            &format!("{name}: loss"),
            &host(loss.clone().inner()),
            &[theirs],
            1e-5,
        );
        let grads = policy.decoder.gradients(&weights, loss).unwrap();
        for (parameter, theirs) in expected["grads"].as_object().unwrap() {
            let (_, grad) = grads.iter().find(|(n, _)| n == parameter).unwrap();
            let ours = host(grad.clone());
            let what = format!("{name}: gradient of {parameter}");
            close(&what, &ours[..8], &numbers(&theirs["first"]), 1e-5);
            let norm = ours.iter().map(|x| x * x).sum::<f64>().sqrt();
            let expected = theirs["norm"].as_f64().unwrap();
            assert!(
                (norm / expected - 1.0).abs() < 1e-4,
                "{what}: norm {norm}, {expected}"
            );
        }
    }
}

fn greedy() -> Sampling {
    Sampling {
        temperature: 0.0,
        max_new_tokens: 12,
        ..Sampling::default()
    }
}

#[test]
fn greedy_generation_is_that_of_transformers() {
    for name in FAMILIES {
        let (policy, expected) = load(name);
        let prompt = ids(&expected["cases"][1]["ids"]);
        let weights = policy.decoder.frozen();
        let drawn = generate(
            &policy.decoder,
            &weights,
            &[&prompt],
            &[],
            &greedy(),
            0,
            &[0],
        )
        .unwrap();
        assert_eq!(drawn[0].ids, ids(&expected["greedy"]), "{name}");
    }
}

#[test]
fn a_completion_does_not_depend_on_its_batch() {
    let (policy, expected) = load("qwen3");
    let cases = expected["cases"].as_array().unwrap();
    let prompts: Vec<Vec<u32>> = cases.iter().map(|case| ids(&case["ids"])).collect();
    let weights = policy.decoder.sampling();
    let sampling = |batch_size| Sampling {
        max_new_tokens: 15,
        batch_size,
        ..Sampling::default()
    };
    let views: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let draw = |views: &[&[u32]], streams: &[u64], size| {
        generate(
            &policy.decoder,
            &weights,
            views,
            &[2],
            &sampling(size),
            5,
            streams,
        )
        .unwrap()
    };
    let together = draw(&views, &[0, 1, 2, 3], 4);
    let refilled = draw(&views, &[0, 1, 2, 3], 2);
    for (i, view) in views.iter().enumerate() {
        let alone = draw(&[view], &[i as u64], 1);
        assert_eq!(alone[0].ids, together[i].ids, "prompt {i}");
        assert_eq!(alone[0].ids, refilled[i].ids, "prompt {i}, refilled");
    }
    // What the sampler saw is what scoring gives.
    for (prompt, drawn) in prompts.iter().zip(&together) {
        let sample = Sample::from_parts(prompt, &drawn.ids, &[2]);
        let frozen = policy.decoder.frozen();
        let scored = policy.decoder.log_probs(&frozen, &[&sample], 1.0).unwrap();
        let sampler: Vec<f64> = drawn.logps.iter().map(|x| f64::from(*x)).collect();
        close("sampler", &sampler, &host(scored.values), 1e-4);
    }
}

/// Answers to one prompt hold its tokens once; what comes out is what each gives alone.
#[test]
fn a_shared_prompt_changes_neither_values_nor_gradients() {
    for name in FAMILIES {
        let (policy, _) = load(name);
        let prompt: Vec<u32> = (0..11).map(|i| 3 + i * 5 % 60).collect();
        let answers: [&[u32]; 4] = [&[9, 4, 7], &[9, 4, 2, 30, 31], &[2], &[50, 3]];
        let samples: Vec<Sample> = answers
            .iter()
            .map(|answer| Sample::from_parts(&prompt, answer, &[2]))
            .collect();
        let run = |views: &[&Sample]| {
            let weights = policy.decoder.tracked();
            let logps = policy.decoder.log_probs(&weights, views, 1.0).unwrap();
            let loss = logps.values.clone().sum();
            let grads = policy.decoder.gradients(&weights, loss).unwrap();
            (host(logps.values.inner()), grads)
        };
        let (together, grads) = run(&samples.iter().collect::<Vec<_>>());
        let alone: Vec<_> = samples.iter().map(|sample| run(&[sample])).collect();
        let values: Vec<f64> = alone.iter().flat_map(|(v, _)| v.clone()).collect();
        close(
            &format!("{name}: log-probabilities"),
            &together,
            &values,
            1e-5,
        );
        for (i, (parameter, grad)) in grads.into_iter().enumerate() {
            let mut sum = vec![0.0; grad.dims()[0]];
            for (_, grads) in &alone {
                let one = host(grads[i].1.clone());
                sum.iter_mut().zip(one).for_each(|(sum, x)| *sum += x);
            }
            close(
                &format!("{name}: gradient of {parameter}"),
                &host(grad),
                &sum,
                1e-4,
            );
        }
    }
}

#[test]
fn a_saved_model_is_read_back_bit_by_bit() {
    for name in FAMILIES {
        let (policy, _) = load(name);
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("model");
        hf::save(&policy, &folder).unwrap();
        hf::save(&policy, &folder).unwrap(); // replaces what is there
        let again = hf::load(&folder, &Device::flex()).unwrap();
        assert_eq!(again.decoder.config, policy.decoder.config, "{name}");
        for (parameter, param) in policy.decoder.params.iter() {
            let other = again.decoder.params.get(parameter).unwrap();
            assert_eq!(
                host(other.tensor.clone()),
                host(param.tensor.clone()),
                "{parameter}"
            );
        }
    }
}

/// The fixture's tensors in half precision, in two files and an index.
#[test]
fn shards_in_half_precision_are_read() {
    use safetensors::{Dtype, tensor::TensorView};
    let (policy, _) = load("llama");
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(fixture("llama").join(file), folder.path().join(file)).unwrap();
    }
    let mut shards: [Vec<_>; 2] = Default::default();
    let mut index = serde_json::Map::new();
    for (i, (name, param)) in policy.decoder.params.iter().enumerate() {
        let values = host(param.tensor.clone());
        let bytes = values.iter().flat_map(|x| match i % 2 {
            0 => half::bf16::from_f64(*x).to_le_bytes(),
            _ => half::f16::from_f64(*x).to_le_bytes(),
        });
        let bytes: Vec<u8> = bytes.collect();
        shards[i % 2].push((name.to_owned(), param.shape.clone(), bytes));
        index.insert(
            name.to_owned(),
            format!("model-{}.safetensors", i % 2).into(),
        );
    }
    for (i, shard) in shards.iter().enumerate() {
        let dtype = [Dtype::BF16, Dtype::F16][i];
        let views = shard.iter().map(|(name, shape, bytes)| {
            (name, TensorView::new(dtype, shape.clone(), bytes).unwrap())
        });
        let path = folder.path().join(format!("model-{i}.safetensors"));
        safetensors::serialize_to_file(views, None, &path).unwrap();
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": index});
    let path = folder.path().join("model.safetensors.index.json");
    std::fs::write(path, index.to_string()).unwrap();
    let read = hf::load(folder.path(), &Device::flex()).unwrap();
    for (i, (name, param)) in policy.decoder.params.iter().enumerate() {
        let found = host(read.decoder.params.get(name).unwrap().tensor.clone());
        for (a, b) in found.into_iter().zip(host(param.tensor.clone())) {
            let rounded = match i % 2 {
                0 => half::bf16::from_f64(b).to_f64(),
                _ => half::f16::from_f64(b).to_f64(),
            };
            assert_eq!(a, rounded, "{name}");
        }
    }
}

#[test]
fn lora_starts_as_the_model_and_merges_into_it() {
    let (mut policy, expected) = load("llama");
    let ids = ids(&expected["cases"][2]["ids"]);
    let before = host(
        policy
            .decoder
            .logits(&policy.decoder.frozen(), &ids)
            .unwrap(),
    );
    let lora = togi_policy::LoraConfig {
        r: 3,
        alpha: 6.0,
        dropout: 0.0,
        target_modules: vec!["q_proj".to_owned(), "down_proj".to_owned()],
    };
    policy.decoder.add_lora(lora, 1).unwrap();
    let fresh = host(
        policy
            .decoder
            .logits(&policy.decoder.frozen(), &ids)
            .unwrap(),
    );
    close("fresh adapter", &fresh, &before, 1e-6);
    let (_, trainable) = policy.decoder.params.count();
    assert_eq!(trainable, 2 * (3 * (32 + 32) + 3 * (48 + 32)));
    for (name, param) in policy.decoder.params.iter_mut() {
        if name.ends_with("lora_B.weight") {
            param.tensor = param.tensor.ones_like() * 0.05;
        }
    }
    let with = host(
        policy
            .decoder
            .logits(&policy.decoder.frozen(), &ids)
            .unwrap(),
    );
    policy.decoder.merge_lora();
    let merged = host(
        policy
            .decoder
            .logits(&policy.decoder.frozen(), &ids)
            .unwrap(),
    );
    close("merged", &merged, &with, 1e-4);
    assert!(with.iter().zip(&before).any(|(a, b)| (a - b).abs() > 1e-2));
}

/// Copies a fixture, lets `spoil` change it, and returns the error of loading it.
fn spoiled(spoil: impl FnOnce(&Path)) -> PolicyError {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture("llama")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    spoil(dir.path());
    match hf::load(dir.path(), &Device::flex()) {
        Err(error) => error,
        Ok(_) => panic!("a spoiled model was loaded"),
    }
}

fn edit_config(field: &str, value: Value) -> PolicyError {
    spoiled(|dir| {
        let path = dir.join("config.json");
        let mut json: Value =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        json[field] = value;
        std::fs::write(&path, json.to_string()).unwrap();
    })
}

#[test]
fn bad_models_are_refused_by_name() {
    use serde_json::json;
    let cases = [
        (
            "architectures",
            json!(["GemmaForCausalLM"]),
            "GemmaForCausalLM",
        ),
        ("hidden_act", json!("gelu"), "gelu"),
        (
            "rope_parameters",
            json!({"rope_type": "yarn", "factor": 2.0}),
            "yarn",
        ),
        (
            "num_hidden_layers",
            json!(3),
            "model.layers.2.input_layernorm.weight",
        ),
        (
            "num_hidden_layers",
            json!(1),
            "model.layers.1.input_layernorm.weight",
        ),
        ("intermediate_size", json!(47), "[48, 32]"),
        ("vocab_size", json!(-1), "vocab_size"),
        ("hidden_size", json!(1e30), "hidden_size"),
        ("num_key_value_heads", json!(3), "num_key_value_heads"),
        ("quantization_config", json!({}), "quantization_config"),
    ];
    for (field, value, needle) in cases {
        let error = edit_config(field, value).to_string();
        assert!(error.contains(needle), "{field}: {error}");
    }
}

#[test]
fn truncated_weights_are_an_error_wherever_they_end() {
    let whole = std::fs::read(fixture("llama").join("model.safetensors")).unwrap();
    for end in (0..whole.len())
        .step_by(997)
        .chain([7, 8, 9, whole.len() - 1])
    {
        let error = spoiled(|dir| {
            std::fs::write(dir.join("model.safetensors"), &whole[..end]).unwrap();
        });
        assert!(
            error.to_string().contains("model.safetensors"),
            "{end}: {error}"
        );
    }
    // A header that claims to be enormous.
    let mut hostile = whole.clone();
    hostile[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    spoiled(|dir| std::fs::write(dir.join("model.safetensors"), &hostile).unwrap());
}
