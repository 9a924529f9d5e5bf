//! The byte-level tokenizers of the metadata.

use serde_json::{Map, Value as Json, json};
use togi_data::{Tokenizer, tokenizer::SpecialTokens};

use crate::{error::PolicyError, gguf::container::Gguf};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";

/// Token types of llama.cpp that matter here; all others are plain.
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
const UNUSED: u64 = 5;

/// How Llama 3 and Qwen2 cut text into words; they differ in how many digits stay together.
fn split_pattern(digits: &str) -> String {
    format!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
}

/// What belongs to a name in `tokenizer.ggml.pre`.
struct Rules {
    normalizer: Json,
    pre: Json,
    ignore_merges: bool,
    add_bos: bool,
}

fn rules(pre: &str) -> Option<Rules> {
    let bytes = |use_regex: bool| {
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
               "use_regex": use_regex})
    };
    let sequence =
        |first: Json, then: Json| json!({"type": "Sequence", "pretokenizers": [first, then]});
    let split = |digits: &str| {
        let first = json!({"type": "Split", "pattern": {"Regex": split_pattern(digits)},
                           "behavior": "Isolated", "invert": false});
        sequence(first, bytes(false))
    };
    let plain = |pre: Json| Rules {
        normalizer: Json::Null,
        pre,
        ignore_merges: false,
        add_bos: false,
    };
    Some(match pre {
        "gpt-2" => plain(bytes(true)),
        "smollm" => plain(sequence(
            json!({"type": "Digits", "individual_digits": true}),
            bytes(true),
        )),
        "llama-bpe" | "llama3" | "llama-v3" => Rules {
            ignore_merges: true,
            add_bos: true,
            ..plain(split(r"\p{N}{1,3}"))
        },
        "qwen2" => Rules {
            normalizer: json!({"type": "NFC"}),
            ..plain(split(r"\p{N}"))
        },
        _ => return None,
    })
}

/// The token of an id field, and its id.
fn named<'a>(
    gguf: &Gguf<'_>,
    key: &str,
    tokens: &[&'a str],
) -> Result<Option<(u32, &'a str)>, PolicyError> {
    let Some(value) = gguf.field(key) else {
        return Ok(None);
    };
    let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
    match id.and_then(|id| Some((id, *tokens.get(id as usize)?))) {
        Some(found) => Ok(Some(found)),
        None => gguf.wrong(key, format!("is not an id of the {} tokens", tokens.len())),
    }
}

/// The tokens' types; all plain if there are none.
fn types(gguf: &Gguf<'_>, count: usize) -> Result<Vec<u64>, PolicyError> {
    let Some(value) = gguf.field(TYPES) else {
        return Ok(vec![1; count]);
    };
    let types: Option<Vec<u64>> = value
        .scalars()
        .and_then(|values| values.map(|v| v.as_u64()).collect());
    match types {
        Some(types) if types.len() == count => Ok(types),
        _ => gguf.wrong(TYPES, format!("is not a list of {count} whole numbers")),
    }
}

fn texts<'a>(gguf: &'a Gguf<'_>, key: &str) -> Result<Vec<&'a str>, PolicyError> {
    let Some(texts) = gguf.field(key).and_then(|v| v.texts()) else {
        return gguf.wrong(key, "is missing or not a list of texts");
    };
    let texts: Result<Vec<&str>, _> = texts.iter().map(|t| std::str::from_utf8(t)).collect();
    match texts {
        Ok(texts) => Ok(texts),
        Err(_) => gguf.wrong(key, "has a text that is not UTF-8"),
    }
}

/// Makes the tokenizer that Hugging Face has for the same model.
///
/// # Errors
/// Names the field that is missing, malformed or asks for something that is not supported.
pub(super) fn read(gguf: &Gguf<'_>) -> Result<Tokenizer, PolicyError> {
    match gguf.text(MODEL)? {
        Some("gpt2") => {}
        Some(other) => {
            return gguf.unsupported(format!("the tokenizer `{other}`"), "gpt2 (byte-level BPE)");
        }
        None => return gguf.wrong(MODEL, "is missing"),
    }
    let pre = gguf.text(PRE)?.unwrap_or("default");
    let Some(rules) = rules(pre) else {
        let supported = "gpt-2, smollm, llama-bpe, qwen2";
        return gguf.unsupported(format!("the pre-tokenizer `{pre}`"), supported);
    };
    let tokens = texts(gguf, TOKENS)?;
    let types = types(gguf, tokens.len())?;
    let mut vocab = Map::new();
    let mut added = Vec::new();
    for ((id, token), kind) in tokens.iter().enumerate().zip(&types) {
        // What fills the embedding up to its size is in no other tokenizer either.
        if *kind == UNUSED {
            continue;
        }
        if vocab.insert((*token).to_owned(), json!(id)).is_some() {
            return gguf.wrong(TOKENS, format!("`{token}` is there twice"));
        }
        if matches!(*kind, CONTROL | USER_DEFINED) {
            added.push(
                json!({"id": id, "content": token, "single_word": false, "lstrip": false,
                       "rstrip": false, "normalized": false, "special": *kind == CONTROL}),
            );
        }
    }
    let mut merges = Vec::new();
    for merge in texts(gguf, MERGES)? {
        match merge.split_once(' ') {
            Some((a, b)) if !a.is_empty() && !b.is_empty() && !b.contains(' ') => {
                merges.push(json!([a, b]));
            }
            _ => return gguf.wrong(MERGES, format!("`{merge}` is not two tokens")),
        }
    }
    let id_of = |name: &str| named(gguf, &format!("tokenizer.ggml.{name}_token_id"), &tokens);
    let (bos, eos) = (id_of("bos")?, id_of("eos")?);
    let adds = |name: &str, default: bool| {
        let flag = gguf.flag(&format!("tokenizer.ggml.add_{name}_token"))?;
        Ok::<_, PolicyError>(flag.unwrap_or(default))
    };
    let (with_bos, with_eos) = (adds("bos", rules.add_bos)?, adds("eos", false)?);
    let (before, after) = (bos.filter(|_| with_bos), eos.filter(|_| with_eos));
    let description = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added,
        "normalizer": rules.normalizer,
        "pre_tokenizer": rules.pre,
        "post_processor": post_processor(before, after),
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
                    "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
                  "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": false, "byte_fallback": false,
                  "ignore_merges": rules.ignore_merges, "vocab": vocab, "merges": merges},
    });
    let text = |token: Option<(u32, &str)>| token.map(|(_, text)| text.to_owned());
    let special = SpecialTokens {
        bos: text(bos),
        eos: text(eos),
        pad: text(id_of("padding")?),
        unk: text(id_of("unknown")?),
    };
    let template = gguf.text("tokenizer.chat_template")?.map(str::to_owned);
    let place = gguf.path().display().to_string();
    let mut tokenizer = Tokenizer::from_json(&description, &place, template, special)?;
    // Chat models end turns with tokens of their own.
    for name in ["eot", "eom"] {
        tokenizer.add_eos(id_of(name)?.map(|(id, _)| id));
    }
    Ok(tokenizer)
}

/// Puts special tokens before and after a text.
fn post_processor(before: Option<(u32, &str)>, after: Option<(u32, &str)>) -> Json {
    if before.is_none() && after.is_none() {
        return json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false,
                      "use_regex": true});
    }
    let mut tokens = Map::new();
    for (id, text) in before.into_iter().chain(after) {
        tokens.insert(
            text.to_owned(),
            json!({"id": text, "ids": [id], "tokens": [text]}),
        );
    }
    let around = |letter: &str, type_id: u32| {
        let special =
            |token: (u32, &str)| json!({"SpecialToken": {"id": token.1, "type_id": type_id}});
        let body = json!({"Sequence": {"id": letter, "type_id": type_id}});
        let mut parts: Vec<Json> = before.map(special).into_iter().collect();
        parts.push(body);
        parts.extend(after.map(special));
        parts
    };
    let (single, mut pair) = (around("A", 0), around("A", 0));
    pair.extend(around("B", 1));
    json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens})
}
