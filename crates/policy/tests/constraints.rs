//! Completions of random models under constraints.

use std::{io::Write, path::Path, sync::Arc};

use burn::tensor::Device;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use togi_data::{SpecialTokens, Tokenizer, lab};
use togi_policy::{
    Constraint, ConstraintError, Decoder, Finish, Generation, Head, ModelConfig, Params,
    PolicyError, Rules, Sampling, Vocabulary,
    generate::{Request, Voice, generate_with},
};

/// A tiny model with random weights.
fn model(vocab_size: usize) -> Decoder {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab_size,
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": 512,
    });
    let config = ModelConfig::from_hf_json(&config, "the test").unwrap();
    let device = Device::flex();
    let params = Params::random(&config, Head::LanguageModel, 7, &device);
    Decoder::new(config, params, device).unwrap()
}

fn tokenizer(vocabulary: &[String], decoder: &Value) -> Tokenizer {
    let vocabulary: Map<String, Value> = vocabulary
        .iter()
        .enumerate()
        .map(|(id, token)| (token.clone(), json!(id)))
        .collect();
    let description = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [{"id": 0, "content": "<eos>", "single_word": false, "lstrip": false,
                          "rstrip": false, "normalized": false, "special": true}],
        "pre_tokenizer": null, "post_processor": null, "decoder": decoder,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    });
    let special = SpecialTokens {
        eos: Some("<eos>".to_owned()),
        ..SpecialTokens::default()
    };
    Tokenizer::from_json(&description, "the test", None, special).unwrap()
}

/// Pieces of text of several bytes, some of them ends and beginnings of characters.
const PIECES: [&[u8]; 32] = [
    b"the",
    b" the",
    b" a",
    b"foo",
    b"fo",
    b"oo",
    b"bar",
    b"ba",
    b"r b",
    b" \n",
    b"12",
    b"{\"",
    b"\":",
    b"\",",
    b"\"}",
    b": ",
    b", ",
    b"tr",
    b"ue",
    b"false",
    b"null",
    b"name",
    b"\"name\"",
    b"[",
    b"]}",
    b"]",
    "é".as_bytes(),
    "中文".as_bytes(),
    b"a\xe4\xb8",
    b"\x96\xe7",
    b"\xf0\x9f",
    b"-1",
];

/// A byte-level vocabulary: every byte, and some longer pieces.
fn byte_level() -> Tokenizer {
    let mut next = 256;
    let characters: Vec<char> = (0..=255_u8)
        .map(|byte| {
            if matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) {
                char::from(byte)
            } else {
                next += 1;
                char::from_u32(next - 1).unwrap()
            }
        })
        .collect();
    let write = |bytes: &[u8]| bytes.iter().map(|b| characters[usize::from(*b)]).collect();
    let mut vocabulary = vec!["<eos>".to_owned()];
    vocabulary.extend((0..=255_u8).map(|byte| write(&[byte])));
    vocabulary.extend(PIECES.iter().map(|piece| write(piece)));
    let decoder = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                         "use_regex": true});
    tokenizer(&vocabulary, &decoder)
}

/// A vocabulary of SentencePiece's kind: bytes as `<0x..>`, spaces as `▁`, the first one dropped.
fn pieces() -> Tokenizer {
    let mut vocabulary = vec!["<eos>".to_owned()];
    vocabulary.extend((0..=255_u8).map(|byte| format!("<0x{byte:02X}>")));
    let texts = PIECES.iter().filter_map(|p| std::str::from_utf8(p).ok());
    vocabulary.extend(texts.map(|text| text.replace(' ', "▁")));
    vocabulary.push("▁".to_owned());
    vocabulary.extend(('!'..='~').map(String::from));
    vocabulary.dedup();
    let mut seen = std::collections::HashSet::new();
    vocabulary.retain(|token| seen.insert(token.clone()));
    let decoder = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
    tokenizer(&vocabulary, &decoder)
}

struct Bench {
    tokenizer: Tokenizer,
    vocabulary: Arc<Vocabulary>,
    decoder: Decoder,
}

impl Bench {
    fn new(tokenizer: Tokenizer) -> Self {
        Self {
            vocabulary: Arc::new(Vocabulary::new(&tokenizer).unwrap()),
            // Models have rows that no token uses.
            decoder: model(tokenizer.ids_end() + 5),
            tokenizer,
        }
    }

    fn constraint(&self, rules: &Rules) -> Constraint {
        Constraint::new(&self.vocabulary, rules).unwrap()
    }

    fn refuse(&self, rules: &Rules) -> ConstraintError {
        Constraint::new(&self.vocabulary, rules).unwrap_err()
    }

    fn draw(
        &self,
        constraints: &[Option<&Constraint>],
        streams: &[u64],
        sampling: &Sampling,
    ) -> Result<Vec<Generation>, PolicyError> {
        let voice = Voice {
            decoder: &self.decoder,
            weights: &self.decoder.frozen(),
            share: 1.0,
        };
        let prompts: Vec<Vec<u32>> = streams
            .iter()
            .map(|s| vec![1 + (*s % 7) as u32; 3])
            .collect();
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let request = Request {
            prompts: &prompts,
            streams,
            constraints,
            eos: self.tokenizer.eos_ids(),
            sampling,
            seed: 11,
        };
        generate_with(&[voice], &request, &mut |_, _| {})
    }

    /// 200 samples: those that ended satisfy `holds`, and so do the others where they may; returns
    /// how many ended.
    fn check(&self, rules: &Rules, max_new_tokens: usize, holds: impl Fn(&str) -> bool) -> usize {
        let constraint = self.constraint(rules);
        let streams: Vec<u64> = (0..200).collect();
        let sampling = Sampling {
            max_new_tokens,
            batch_size: 64,
            ..Sampling::default()
        };
        let constraints = vec![Some(&constraint); 200];
        let drawn = self.draw(&constraints, &streams, &sampling).unwrap();
        for generation in &drawn {
            let text = self.tokenizer.decode(&generation.ids);
            let ended = generation.finish == Finish::Eos;
            assert!(!ended || generation.satisfied, "{rules:?}: {text:?}");
            assert!(ended || generation.ids.len() == max_new_tokens);
            assert_eq!(
                generation.satisfied,
                holds(&text),
                "{rules:?}: {text:?} {ended}"
            );
            assert!(
                !generation.satisfied || !text.contains('\u{fffd}'),
                "{text:?}"
            );
        }
        drawn.iter().filter(|g| g.finish == Finish::Eos).count()
    }
}

fn regex(pattern: &str) -> Rules {
    Rules {
        regex: Some(pattern.to_owned()),
        ..Rules::default()
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    let pattern = format!("^(?:{pattern})$");
    matches_whole(&pattern, text)
}

fn matches_whole(pattern: &str, text: &str) -> bool {
    use regex_automata::{
        Anchored, Input,
        dfa::{Automaton, dense},
    };
    let dfa = dense::DFA::new(pattern).unwrap();
    let input = Input::new(text).anchored(Anchored::Yes);
    let end = dfa.try_search_fwd(&input).unwrap();
    end.is_some_and(|m| m.offset() == text.len())
}

#[test]
fn every_text_matches_its_regex() {
    for tokenizer in [byte_level(), pieces()] {
        let bench = Bench::new(tokenizer);
        for pattern in [
            "[a-c]{1,5}(foo|bar)? the",
            "(yes|no|yesterday)",
            r"-?\d{1,4}(\.\d+)?",
            "[^a]{0,12}",
            "(é|中文|🦀){2,4}!?",
            r"\s\S{3}",
        ] {
            let ended = bench.check(&regex(pattern), 60, |text| matches(pattern, text));
            assert!(ended > 150, "{pattern}: {ended}");
        }
    }
}

#[test]
fn words_of_the_lab_keep_a_regex_too() {
    let bench = Bench::new(lab::tokenizer().unwrap());
    let words: Vec<String> = (5..9).map(|id| bench.tokenizer.token(id)).collect();
    let pattern = format!(
        "{} ({}|{})+( {}){{2}}",
        words[0], words[1], words[2], words[3]
    )
    .replace("+(", " ?(?:)(");
    let ended = bench.check(&regex(&pattern), 40, |text| matches(&pattern, text));
    assert_eq!(ended, 200);
    // Without a space there is no second word, and letters are no tokens.
    let together = format!("{}{}", words[0], words[1]);
    assert!(matches!(
        bench.refuse(&regex(&together)),
        ConstraintError::NoTokens { .. }
    ));
    let schema = Rules {
        json_object: true,
        ..Rules::default()
    };
    assert!(matches!(
        bench.refuse(&schema),
        ConstraintError::NoTokens { .. }
    ));
    // The way with `x` has no tokens at its end: it is not taken.
    let pattern = format!(
        "{0} ({1}|{1} xyzzy|{2} {2}zzz)",
        words[0], words[1], words[2]
    );
    bench.check(&regex(&pattern), 3, |text| {
        text == format!("{} {}", words[0], words[1])
    });
    let lark = Rules {
        lark: Some(format!(
            "start: \"{}\" (\" {}\" | \" {}\")*",
            words[0], words[1], words[2]
        )),
        ..Rules::default()
    };
    let pattern = format!("{}( {}| {})*", words[0], words[1], words[2]);
    bench.check(&lark, 40, |text| matches(&pattern, text));
    let banned = Rules {
        banned: vec![format!("{} {}", words[0], words[1]), words[2].clone()],
        required: vec![words[3].clone()],
        ..Rules::default()
    };
    bench.check(&banned, 30, |text| {
        !banned.banned.iter().any(|b| text.contains(b)) && text.contains(&words[3])
    });
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the fields are only read from text")]
struct Answer {
    name: Option<String>,
    kind: Kind,
    count: u8,
    tags: Vec<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Cat,
    Dog,
}

fn schema(flexible: bool) -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 6},
            "kind": {"enum": ["cat", "dog"]},
            "count": {"type": "integer", "minimum": 3, "maximum": 120},
            "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
        },
        "required": ["kind", "count", "tags"],
        "additionalProperties": false,
        "x-guidance": {"whitespace_flexible": flexible},
    })
}

fn is_answer(text: &str) -> bool {
    let Ok(answer) = serde_json::from_str::<Answer>(text) else {
        return false;
    };
    let length = |name: &String| (1..=6).contains(&name.chars().count());
    answer.name.as_ref().is_none_or(length)
        && (3..=120).contains(&answer.count)
        && answer.tags.len() <= 3
}

/// JSON sets numbers no limit, Rust does: those that are too large are passed over.
fn is_object(text: &str) -> bool {
    match serde_json::from_str::<Map<String, Value>>(text) {
        Ok(_) => true,
        Err(error) if error.to_string().starts_with("number out of range") => {
            text.trim_start().starts_with('{')
                && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
        }
        Err(_) => false,
    }
}

#[test]
fn every_text_is_json_of_its_schema() {
    for tokenizer in [byte_level(), pieces()] {
        let bench = Bench::new(tokenizer);
        for flexible in [false, true] {
            let rules = Rules {
                json_schema: Some(schema(flexible)),
                ..Rules::default()
            };
            let ended = bench.check(&rules, 200, is_answer);
            assert!(ended > 190, "{ended}");
        }
        let object = Rules {
            json_object: true,
            ..Rules::default()
        };
        bench.check(&object, 40, is_object);
        let lark = Rules {
            lark: Some("start: \"(\" start? \")\" | /[a-z]+/".to_owned()),
            ..Rules::default()
        };
        let holds = |text: &str| {
            let inner = text.trim_start_matches('(');
            let depth = text.len() - inner.len();
            let word = inner.trim_end_matches(')');
            inner.len() - word.len() == depth
                && word.chars().all(|c| c.is_ascii_lowercase())
                && !text.is_empty()
        };
        bench.check(&lark, 60, holds);
    }
}

#[test]
fn banned_strings_are_never_said_and_required_ones_are() {
    for tokenizer in [byte_level(), pieces()] {
        let bench = Bench::new(tokenizer);
        let banned: Vec<String> = ["foo", "a", "é", "r b", "\n", "中"]
            .map(str::to_owned)
            .into();
        let required: Vec<String> = ["2", "t"].map(str::to_owned).into();
        let free = |text: &str| !banned.iter().any(|b| text.contains(b.as_str()));
        let said = |text: &str| required.iter().all(|r| text.contains(r.as_str()));
        let whole = |text: &str| !text.ends_with('\u{fffd}');
        let rules = Rules {
            banned: banned.clone(),
            ..Rules::default()
        };
        bench.check(&rules, 50, |text| free(text) && whole(text));
        let rules = Rules {
            required: required.clone(),
            ..Rules::default()
        };
        let ended = bench.check(&rules, 450, |text| said(text) && whole(text));
        assert!(ended > 20, "{ended}");
        let pattern = "[a-z0-9 éb中]{1,30}";
        let rules = Rules {
            regex: Some(pattern.to_owned()),
            banned: banned.clone(),
            required: required.clone(),
            ..Rules::default()
        };
        let ended = bench.check(&rules, 60, |text| {
            free(text) && said(text) && matches(pattern, text)
        });
        assert_eq!(ended, 200);
        let rules = Rules {
            json_schema: Some(schema(false)),
            banned: vec!["true".to_owned(), "o".repeat(2)],
            required: vec!["1".to_owned()],
            ..Rules::default()
        };
        // A grammar and strings: what the strings forbid may leave a schema no way on.
        let constraint = bench.constraint(&rules);
        let sampling = Sampling {
            max_new_tokens: 200,
            ..Sampling::default()
        };
        let (mut ended, mut stuck) = (0, 0);
        for stream in 0..200 {
            match bench.draw(&[Some(&constraint)], &[stream], &sampling) {
                Ok(drawn) => {
                    let text = bench.tokenizer.decode(&drawn[0].ids);
                    assert!(!text.contains("true") && !text.contains("oo"), "{text}");
                    assert_eq!(drawn[0].satisfied, is_answer(&text) && text.contains('1'));
                    ended += 1;
                }
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains("prompt 0: at position "), "{text}");
                    stuck += 1;
                }
            }
        }
        assert!(ended > 20 && stuck > 0, "{ended} {stuck}");
    }
}

#[test]
fn a_text_does_not_depend_on_its_batch() {
    let bench = Bench::new(byte_level());
    let constraints = [
        Some(bench.constraint(&regex("[a-f é]{3,20}"))),
        None,
        Some(bench.constraint(&Rules {
            json_schema: Some(schema(true)),
            ..Rules::default()
        })),
        Some(bench.constraint(&Rules {
            banned: vec!["a".to_owned()],
            ..Rules::default()
        })),
    ];
    let of = |stream: u64| constraints[stream as usize % 4].as_ref();
    let streams: Vec<u64> = (0..24).collect();
    let all: Vec<_> = streams.iter().map(|s| of(*s)).collect();
    let sampling = |batch_size| Sampling {
        max_new_tokens: 40,
        batch_size,
        top_k: 40,
        top_p: 0.95,
        ..Sampling::default()
    };
    let together = bench.draw(&all, &streams, &sampling(24)).unwrap();
    let refilled = bench.draw(&all, &streams, &sampling(5)).unwrap();
    for (a, b) in together.iter().zip(&refilled) {
        assert_eq!((&a.ids, a.constrained), (&b.ids, b.constrained));
        assert_eq!((a.finish, a.satisfied), (b.finish, b.satisfied));
    }
    for (stream, expected) in streams.iter().zip(&together) {
        let alone = bench
            .draw(&[of(*stream)], &[*stream], &sampling(1))
            .unwrap();
        assert_eq!(alone[0].ids, expected.ids, "stream {stream}");
        assert_eq!(alone[0].constrained, expected.constrained);
    }
    assert!(
        together
            .iter()
            .enumerate()
            .all(|(i, g)| i % 4 != 1 || g.constrained == 0)
    );
    assert!(together.iter().any(|g| g.constrained > 0));
}

#[test]
fn log_probabilities_are_those_of_the_whole_distribution() {
    let bench = Bench::new(byte_level());
    let constraint = bench.constraint(&regex("[xyz]{5}"));
    let sampling = Sampling::default();
    let drawn = bench.draw(&[Some(&constraint)], &[3], &sampling).unwrap();
    assert_eq!(drawn[0].ids.len(), 6);
    let sample = togi_data::Sample::from_parts(&[4, 4, 4], &drawn[0].ids, &[0]);
    let weights = bench.decoder.frozen();
    let scored = bench.decoder.log_probs(&weights, &[&sample], 1.0).unwrap();
    let scored: Vec<f32> = scored.values.into_data().iter::<f32>().collect();
    for (a, b) in drawn[0].logps.iter().zip(&scored) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
    let greedy = Sampling {
        temperature: 0.0,
        ..Sampling::default()
    };
    let drawn = bench.draw(&[Some(&constraint)], &[3], &greedy).unwrap();
    assert!(matches("[xyz]{5}", &bench.tokenizer.decode(&drawn[0].ids)));
}

#[test]
fn what_cannot_be_satisfied_is_refused_before_anything_is_said() {
    let bench = Bench::new(byte_level());
    let message = |rules: &Rules| bench.refuse(rules).to_string();
    let empty = message(&Rules::default());
    assert!(empty.contains("no rule"), "{empty}");
    let nothing = message(&regex(r"[^\s\S]"));
    assert_eq!(nothing, "no text satisfies `regex`");
    let rules = Rules {
        banned: vec!["oo".to_owned()],
        ..regex("foo|boo")
    };
    assert_eq!(message(&rules), "no text satisfies `regex` and `banned`");
    let rules = Rules {
        required: vec!["x".to_owned()],
        ..regex("[a-f]*")
    };
    assert_eq!(message(&rules), "no text satisfies `regex` and `required`");
    let wrong = message(&regex("ab(cd"));
    assert!(wrong.contains("byte 2"), "{wrong}");
    let huge = message(&regex(r"(\p{L}{300}){300}"));
    assert!(huge.contains("automaton"), "{huge}");
    let rules = Rules {
        banned: vec!["a".to_owned(), String::new()],
        ..Rules::default()
    };
    assert_eq!(message(&rules), "`banned`: string 1 is empty");
    let of_schema = |schema: Value| {
        let json_schema = Some(schema);
        message(&Rules {
            json_schema,
            ..Rules::default()
        })
    };
    let nested = of_schema(json!({"type": "object", "properties": {
        "a": {"type": "array", "items": {"type": "strong"}}}, "required": ["a"]}));
    assert!(nested.contains("at `#/properties/a/items`"), "{nested}");
    let contradiction = of_schema(json!({"type": "integer", "minimum": 5, "maximum": 3}));
    assert!(contradiction.contains("at `#`"), "{contradiction}");
    let lark = message(&Rules {
        lark: Some("start: \"a\"\nb: (".to_owned()),
        ..Rules::default()
    });
    assert!(lark.starts_with("`lark`"), "{lark}");

    let long = bench.constraint(&regex("x{30}"));
    assert_eq!(long.fewest_tokens(), 30);
    let sampling = Sampling {
        max_new_tokens: 29,
        ..Sampling::default()
    };
    let error = bench
        .draw(&[None, Some(&long)], &[0, 1], &sampling)
        .unwrap_err();
    assert!(error.is_input());
    assert_eq!(
        error.to_string(),
        "the constraint of prompt 1: satisfying the constraint takes 30 tokens or more, \
         `max_new_tokens` is 29"
    );
    let rules = Rules {
        json_schema: Some(json!({"enum": ["foo"]})),
        banned: vec!["oo".to_owned()],
        ..Rules::default()
    };
    let stuck = bench.constraint(&rules);
    let error = bench
        .draw(&[Some(&stuck)], &[0], &Sampling::default())
        .unwrap_err();
    assert!(
        error.to_string().contains("prompt 0: at position "),
        "{error}"
    );
    assert!(
        error.to_string().contains("`json_schema` and `banned`"),
        "{error}"
    );
}

/// Compile times and mask times with a tokenizer of one's own:
/// `TOGI_TOKENIZER=FOLDER cargo test --workspace --test constraints -- --nocapture`.
#[test]
fn masks_of_a_real_tokenizer() {
    use std::time::Instant;
    let Ok(folder) = std::env::var("TOGI_TOKENIZER") else {
        let _ = writeln!(
            std::io::stderr(),
            "skipped: TOGI_TOKENIZER names no tokenizer's folder"
        );
        return;
    };
    let mut tokenizer = Tokenizer::from_folder(Path::new(&folder)).unwrap();
    if tokenizer.eos_ids().is_empty() {
        tokenizer.add_eos(tokenizer.id("<|endoftext|>"));
    }
    let start = Instant::now();
    let bench = Bench::new(tokenizer);
    println!(
        "{} tokens in {:?}",
        bench.vocabulary.size(),
        start.elapsed()
    );
    let text = r"[A-Za-z ,.]{1,200}\.";
    let rules = [
        ("regex number", regex(r"-?\d{1,4}(\.\d+)?")),
        ("regex text", regex(text)),
        ("regex unicode", regex(r"\p{L}[\p{L}\s]{5,60}")),
        (
            "schema",
            Rules {
                json_schema: Some(schema(true)),
                ..Rules::default()
            },
        ),
        (
            "object",
            Rules {
                json_object: true,
                ..Rules::default()
            },
        ),
        (
            "strings",
            Rules {
                banned: vec!["the".to_owned(), " and".to_owned()],
                required: vec!["so".to_owned()],
                ..Rules::default()
            },
        ),
    ];
    for (name, rules) in rules {
        let start = Instant::now();
        let constraint = bench.constraint(&rules);
        let compiled = start.elapsed();
        let (mut total, mut slowest, mut masks) = (0.0, 0.0_f64, 0);
        let mut first = 0.0;
        let mut pick = 12345_u64;
        for run in 0..20 {
            let mut state = constraint.start();
            for step in 0..60 {
                let start = Instant::now();
                let mask = state.allowed().unwrap();
                let seconds = start.elapsed().as_secs_f64();
                // Of spaces there is no end; what is measured is the rest.
                let blank = |id: &u32| bench.tokenizer.decode(&[*id]).trim().is_empty();
                let mut allowed: Vec<u32> = (0..bench.vocabulary.size() as u32)
                    .filter(|id| mask.contains(*id))
                    .collect();
                if allowed.iter().any(|id| !blank(id)) {
                    allowed.retain(|id| !blank(id));
                }
                if run == 0 && step == 1 {
                    first = seconds;
                } else if step > 0 {
                    total += seconds;
                    slowest = slowest.max(seconds);
                    masks += 1;
                }
                if allowed.is_empty() {
                    break;
                }
                pick = pick.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state
                    .advance(allowed[(pick >> 33) as usize % allowed.len()])
                    .unwrap();
            }
        }
        println!(
            "{name}: compiled in {compiled:?}; first mask {:.3} ms, then {:.3} ms on average of {masks}, \
             {:.3} ms at most",
            first * 1e3,
            total / f64::from(masks) * 1e3,
            slowest * 1e3,
        );
        bench.check(&rules, 30, |text| {
            rules
                .regex
                .as_ref()
                .is_none_or(|pattern| matches(pattern, text))
                && (!rules.json_object || is_object(text))
                && (rules.json_schema.is_none() || is_answer(text))
                && !rules.banned.iter().any(|b| text.contains(b))
                && rules.required.iter().all(|r| text.contains(r))
                && !text.ends_with('\u{fffd}')
        });
    }
}
