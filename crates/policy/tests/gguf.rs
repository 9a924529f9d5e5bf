//! GGUF files against what the gguf package, tokenizers and transformers made of them
//! (tools/golden/gguf_fixtures.py), and files that are cut off or damaged.

use std::{
    fs,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use burn::tensor::Device;
use serde_json::Value;
use togi_data::{Message, Sample, Tokenizer};
use togi_policy::{
    Policy, PolicyError,
    config::RopeScaling,
    gguf::{self, Gguf, container::Value as Field},
    hf,
    source::Source,
};

const MODELS: [&str; 4] = ["llama", "llama_biases", "qwen2", "qwen3"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/gguf")
        .join(name)
}

fn model(name: &str) -> PathBuf {
    fixture(&format!("{name}.gguf"))
}

fn expected() -> Value {
    serde_json::from_str(&fs::read_to_string(fixture("expected.json")).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().unwrap();
    list.iter().map(|x| x.as_f64().unwrap()).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    let list = value.as_array().unwrap();
    list.iter().map(|x| x.as_u64().unwrap() as u32).collect()
}

fn load(path: &Path) -> Result<Policy, PolicyError> {
    gguf::load(path, &Device::flex())
}

fn host(policy: &Policy, name: &str) -> Vec<f32> {
    let param = policy.decoder.params.get(name).unwrap();
    param.tensor.clone().into_data().iter::<f32>().collect()
}

#[test]
fn every_tensor_type_has_the_numbers_of_the_gguf_package() {
    let path = fixture("quants.gguf");
    let bytes = fs::read(&path).unwrap();
    let gguf = Gguf::parse(&bytes, &path).unwrap();
    let expected = expected();
    let quants = expected["quants"].as_object().unwrap();
    assert_eq!(quants.len(), 10);
    assert_eq!(gguf.tensors().len(), 10);
    for (name, theirs) in quants {
        let tensor = gguf.tensor(name).unwrap();
        assert_eq!(format!("{:?}", tensor.kind), *name);
        let theirs: Vec<f32> = numbers(theirs).into_iter().map(|x| x as f32).collect();
        assert_eq!(tensor.shape, [2, theirs.len() / 2], "{name}");
        assert_eq!(tensor.values(), theirs, "{name}");
    }
}

#[test]
fn every_metadata_type_is_read() {
    let path = fixture("quants.gguf");
    let bytes = fs::read(&path).unwrap();
    let gguf = Gguf::parse(&bytes, &path).unwrap();
    let field = |name: &str| gguf.field(&format!("test.{name}")).unwrap();
    for (name, value) in [
        ("u8", Field::Unsigned(250)),
        ("i8", Field::Signed(-3)),
        ("u16", Field::Unsigned(65_000)),
        ("i16", Field::Signed(-300)),
        ("u32", Field::Unsigned(4_000_000_000)),
        ("i32", Field::Signed(-70_000)),
        ("u64", Field::Unsigned((1 << 63) + 5)),
        ("i64", Field::Signed(-(1 << 40))),
        ("f32", Field::Float(1e-5)),
        ("f64", Field::Float(0.1)),
        ("bool", Field::Bool(true)),
        ("text", Field::Text("naïve ☕".as_bytes())),
    ] {
        assert_eq!(*field(name), value, "{name}");
    }
    let texts: [&[u8]; 3] = [b"a", b"", "ü".as_bytes()];
    assert_eq!(field("texts").texts().unwrap(), texts);
    let list = |value: &Field<'_>| -> Vec<f64> {
        let values = value.scalars().unwrap();
        values.map(|v| v.as_f64().unwrap()).collect()
    };
    assert_eq!(list(field("numbers")), [1.0, -2.0, 3.0]);
    let Field::Arrays(nested) = field("nested") else {
        panic!("{:?}", field("nested"));
    };
    assert_eq!(
        nested.iter().map(list).collect::<Vec<_>>(),
        [vec![1.0, 2.0], vec![3.0]]
    );
}

#[test]
fn models_have_the_parameters_and_log_probabilities_of_transformers() {
    let expected = expected();
    for name in MODELS {
        let expected = &expected["models"][name];
        let policy = load(&model(name)).unwrap();
        let config = &policy.decoder.config;
        assert_eq!(config.rms_norm_eps, 1e-5);
        let linear = RopeScaling::Linear { factor: 2.0 };
        assert_eq!(config.rope_scaling == linear, name == "llama_biases");
        assert_eq!(
            config.vocab_size as u64,
            expected["vocab_size"].as_u64().unwrap()
        );
        assert_eq!(
            (
                config.bos_token_id,
                &config.eos_token_ids[..],
                config.pad_token_id
            ),
            (Some(1), [2].as_slice(), Some(0))
        );
        let params = expected["params"].as_object().unwrap();
        assert_eq!(params.len(), policy.decoder.params.iter().count(), "{name}");
        for (param, theirs) in params {
            let ours = host(&policy, param);
            let [first, last] = ["first", "last"].map(|part| {
                let theirs = numbers(&theirs[part]);
                theirs.into_iter().map(|x| x as f32).collect::<Vec<_>>()
            });
            assert_eq!(ours[..6], first, "{name} {param}");
            assert_eq!(ours[ours.len() - 6..], last, "{name} {param}");
        }
        let weights = policy.decoder.frozen();
        let cases = expected["cases"].as_array().unwrap();
        let samples: Vec<Sample> = cases
            .iter()
            .map(|case| ids(&case["ids"]))
            .map(|ids| Sample::from_parts(&ids[..1], &ids[1..], &[]))
            .collect();
        let views: Vec<&Sample> = samples.iter().collect();
        let ours = policy.decoder.log_probs(&weights, &views, 1.0).unwrap();
        let ours: Vec<f32> = ours.values.into_data().iter::<f32>().collect();
        let theirs = cases.iter().flat_map(|case| numbers(&case["logps"]));
        let theirs: Vec<f64> = theirs.collect();
        assert_eq!(ours.len(), theirs.len());
        for (a, b) in ours.iter().zip(theirs) {
            assert!((f64::from(*a) - b).abs() < 1e-4, "{name}: {a}, {b}");
        }
    }
}

#[test]
fn tokenizers_give_the_ids_of_hugging_face() {
    let expected = expected();
    for name in MODELS {
        let tokenizer = load(&model(name)).unwrap().tokenizer;
        for case in expected["models"][name]["texts"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            assert_eq!(
                tokenizer.encode(text).unwrap(),
                ids(&case["ids"]),
                "{name}: {text:?}"
            );
            let added = tokenizer.encode_with(text, true).unwrap();
            assert_eq!(added, ids(&case["added"]), "{name}: {text:?}");
        }
        let tool = tokenizer.id("<tool>").unwrap();
        assert_eq!(
            tokenizer.decode(&[1, tool]),
            "<tool>",
            "only control tokens are special"
        );
        let message = Message::new("user", "hi");
        assert_eq!(
            tokenizer.render(&[message], false).unwrap(),
            "<|im_start|>user\nhi<|im_end|>\n"
        );
    }
}

#[test]
fn a_source_may_be_a_gguf_file_and_saves_as_a_hugging_face_folder() {
    let path = model("llama_biases");
    let source = Source::parse(path.to_str().unwrap()).unwrap();
    assert_eq!(source, Source::Gguf(path));
    let policy = source.load(&Device::flex(), 0).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("model");
    hf::save(&policy, &saved).unwrap();
    let back = hf::load(&saved, &Device::flex()).unwrap();
    assert_eq!(back.decoder.config, policy.decoder.config);
    for (name, _) in policy.decoder.params.iter() {
        assert_eq!(host(&back, name), host(&policy, name), "{name}");
    }
    let text = "naïve 12345 <|im_end|>";
    assert_eq!(
        back.tokenizer.encode(text).unwrap(),
        policy.tokenizer.encode(text).unwrap()
    );
    let missing = Source::parse("/nowhere/x.gguf").unwrap_err().to_string();
    assert!(missing.contains("does not exist"), "{missing}");
}

/// Every `from` of the file becomes `to`, of the same length.
fn patched(name: &str, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(model(name)).unwrap();
    let places: Vec<usize> = (0..bytes.len() - from.len())
        .filter(|i| bytes[*i..].starts_with(from))
        .collect();
    assert!(!places.is_empty());
    for place in places {
        bytes[place..place + to.len()].copy_from_slice(to);
    }
    bytes
}

/// Where the field or tensor of this name has its value or shape.
fn after(bytes: &[u8], name: &str) -> usize {
    let place = bytes.windows(name.len()).position(|w| w == name.as_bytes());
    place.unwrap() + name.len()
}

fn put(name: &str, after_name: &str, skip: usize, new: &[u8]) -> Vec<u8> {
    let mut bytes = fs::read(model(name)).unwrap();
    let at = after(&bytes, after_name) + skip;
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

#[test]
fn what_is_not_supported_or_out_of_range_is_named() {
    let huge = u64::MAX.to_le_bytes();
    let offset = 4 + 2 * 8 + 4;
    let embedding = "token_embd.weight";
    let cases: [(Vec<u8>, &[&str]); 21] = [
        (patched("llama", b"GGUF", b"GGML"), &["not a GGUF file"]),
        (put("llama", "GGUF", 0, &[1]), &["version 1"]),
        (put("llama", "GGUF", 0, &[0, 0, 0, 3]), &["big endian"]),
        (put("llama", "GGUF", 4, &huge), &["number of tensors"]),
        (put("llama", "GGUF", 12, &huge), &["number of fields"]),
        (
            patched("llama", b"llama", b"gemma"),
            &["architecture `gemma`", "qwen3"],
        ),
        (patched("llama", b"gpt2", b"bert"), &["tokenizer `bert`"]),
        (
            patched("llama", b"smollm", b"strang"),
            &["pre-tokenizer `strang`"],
        ),
        (
            patched("llama_biases", b"linear", b"unyarn"),
            &["rope scaling `unyarn`"],
        ),
        (
            patched("qwen2", b"blk.0.attn_q.bias", b"rope_freqs.weight"),
            &["`rope_freqs.weight`"],
        ),
        (
            patched("llama", b"blk.1.ffn_up.", b"blk.1.ffn_xx."),
            &["does not have", "blk.1.ffn_xx.weight"],
        ),
        (
            patched("llama", b"blk.1.ffn_up.", b"blk.7.ffn_up."),
            &["missing", "layers.1.mlp.up_proj"],
        ),
        (
            put("llama", embedding, 4 + 16, &[13]),
            &["token_embd.weight", "Q5_K", "Q4_K"],
        ),
        (
            put("llama", embedding, 4 + 16, &[99]),
            &["token_embd.weight", "number 99"],
        ),
        (
            put("llama", embedding, 0, &[9]),
            &["token_embd.weight", "9 dimensions"],
        ),
        (
            put("llama", embedding, 4, &[33]),
            &["token_embd.weight", "rows of 33"],
        ),
        (
            put("llama", embedding, 12, &huge),
            &["token_embd.weight", "larger than the file"],
        ),
        (
            put("llama", embedding, offset, &huge[..5]),
            &["token_embd.weight", "offset"],
        ),
        (
            put("llama", embedding, offset, &[0, 0, 0, 64]),
            &["token_embd.weight", "ends outside"],
        ),
        (
            put("llama", "blk.0.attn_q.weight", offset, &[0; 4]),
            &["overlap", "blk.0.attn_q.weight"],
        ),
        (
            put("llama", "llama.block_count", 4, &huge[..3]),
            &["llama.block_count", "more than"],
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.gguf");
    for (bytes, needles) in cases {
        fs::write(&path, bytes).unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains("damaged.gguf"), "{error}");
        for needle in needles {
            assert!(error.contains(needle), "{needle}: {error}");
        }
    }
}

#[test]
fn arrays_may_not_nest_without_end() {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    bytes.push(b'x');
    bytes.extend(9u32.to_le_bytes());
    for _ in 0..100_000 {
        bytes.extend(9u32.to_le_bytes());
        bytes.extend(1u64.to_le_bytes());
    }
    let error = Gguf::parse(&bytes, Path::new("deep"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("deep: field `x`: arrays nested"), "{error}");
}

#[test]
fn cut_off_and_damaged_files_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.gguf");
    for name in ["llama", "qwen3"] {
        let whole = fs::read(model(name)).unwrap();
        let file = Gguf::parse(&whole, &path).unwrap();
        let starts = file.tensors().iter().map(|t| t.bytes.as_ptr() as usize);
        let header = starts.min().unwrap() - whole.as_ptr() as usize;
        let ends = file
            .tensors()
            .iter()
            .map(|t| t.bytes.as_ptr_range().end as usize);
        let end = ends.max().unwrap() - whole.as_ptr() as usize;
        for length in (0..header)
            .chain((header..end).step_by(97))
            .chain([end - 1])
        {
            assert!(
                Gguf::parse(&whole[..length], &path).is_err(),
                "{name} cut at {length}"
            );
        }
        Gguf::parse(&whole[..end], &path).unwrap();
        for length in (0..end).step_by(251) {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(load(&path).is_err(), "{name} cut at {length}");
        }
        // A flip may be harmless, as in a token's text; it must not bring the process down.
        let mut refused = 0;
        let mut flip = |at: usize, mask: u8, deep: bool| {
            let mut bytes = whole.clone();
            bytes[at] ^= mask;
            let wrong = catch_unwind(AssertUnwindSafe(|| {
                if !deep {
                    return Gguf::parse(&bytes, &path).is_err();
                }
                fs::write(&path, &bytes).unwrap();
                load(&path).is_err()
            }));
            refused += usize::from(wrong.unwrap_or_else(|_| panic!("{name}: {at} ^ {mask}")));
        };
        for at in 0..header {
            for mask in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
                flip(at, mask, false);
            }
        }
        let table = after(&whole, "tokenizer.chat_template");
        for at in (0..header).filter(|at| *at < 900 || *at > table || at % 7 == 0) {
            flip(at, [1, 64, 128, 255][at % 4], true);
        }
        assert!(
            refused > header,
            "{name}: {refused} of the flips in {header} bytes"
        );
    }
}

/// The tokenizer of a Hugging Face folder. `transformers` converts SmolLM2's GGUF without cutting
/// digits apart, as the model's own tokenizer.json does; this puts it back.
fn with_digits(folder: &Path) -> Tokenizer {
    let text = fs::read_to_string(folder.join("tokenizer.json")).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    if json["pre_tokenizer"]["type"] == "ByteLevel" {
        json["pre_tokenizer"] = serde_json::json!({"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true}, json["pre_tokenizer"]]});
    }
    let copy = tempfile::tempdir().unwrap();
    for name in [
        "tokenizer_config.json",
        "chat_template.jinja",
        "generation_config.json",
    ] {
        if folder.join(name).exists() {
            fs::copy(folder.join(name), copy.path().join(name)).unwrap();
        }
    }
    fs::write(copy.path().join("tokenizer.json"), json.to_string()).unwrap();
    Tokenizer::from_folder(copy.path()).unwrap()
}

#[test]
fn smollm2_is_the_same_as_its_hugging_face_folder() {
    let path = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let (Some(file), Some(folder)) = (path("TOGI_SMOLLM2_GGUF"), path("TOGI_SMOLLM2_HF")) else {
        let _ = writeln!(
            std::io::stderr(),
            "skipped: TOGI_SMOLLM2_GGUF and TOGI_SMOLLM2_HF are not set"
        );
        return;
    };
    let begin = std::time::Instant::now();
    let ours = load(&file).unwrap();
    println!("read in {:.2} s", begin.elapsed().as_secs_f64());
    let theirs = hf::load(&folder, &Device::flex()).unwrap();
    assert_eq!(ours.decoder.config, theirs.decoder.config);
    let mut largest = 0f32;
    for (name, _) in theirs.decoder.params.iter() {
        let (a, b) = (host(&ours, name), host(&theirs, name));
        assert_eq!(a.len(), b.len(), "{name}");
        let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs());
        largest = worst.fold(largest, f32::max);
    }
    println!("largest difference of a parameter: {largest:e}");
    assert!(largest <= 1e-6);
    let (ours, theirs) = (ours.tokenizer, with_digits(&folder));
    for text in [
        "The quick brown fox jumps over the lazy dog.",
        "",
        " leading and trailing  ",
        "naïve café in Zürich — “quoted” … ½",
        "日本語の文字と中文字符, 한국어",
        "🙂👩\u{200d}👩\u{200d}👧 emoji",
        "1234567890 3.14159 x2 2024-01-02",
        "  12 345   6789",
        "tabs\tand\r\nnew\n\n\nlines   \n  x",
        "fn main() {\n    println!(\"{}\", 1 + 2);\n}\n",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        "it's they're WE'VE don'T I'll",
        "<repo_name>a/b<file_sep>x<|endoftext|>",
        "e\u{301} \u{00a0} \u{feff} ١٢٣ Ⅷ",
    ] {
        assert_eq!(
            ours.encode(text).unwrap(),
            theirs.encode(text).unwrap(),
            "{text:?}"
        );
        assert_eq!(
            ours.encode_text(text).unwrap(),
            theirs.encode_text(text).unwrap()
        );
        assert_eq!(ours.decode_all(&ours.encode(text).unwrap()), text);
    }
    let chat = [
        Message::new("user", "What is 2 + 2?"),
        Message::new("assistant", "4"),
    ];
    for prompt in [false, true] {
        assert_eq!(
            ours.render(&chat, prompt).unwrap(),
            theirs.render(&chat, prompt).unwrap()
        );
    }
    assert_eq!(ours.eos_ids(), theirs.eos_ids());
    assert_eq!(
        (ours.bos_id(), ours.pad_id()),
        (theirs.bos_id(), theirs.pad_id())
    );
}
