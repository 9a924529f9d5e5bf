//! What each token adds to a text.
//!
//! Constraints on a text are followed token by token, so they need to know which bytes a token
//! stands for. That is the tokenizer's decoder's business: byte-level vocabularies write bytes as
//! characters, SentencePiece's write spaces as `▁` and rare bytes as `<0x..>`, and without a decoder
//! words are joined by spaces, so that the first token of a text differs from the others.

use std::collections::HashMap;

use serde_json::Value;

use crate::{error::DataError, tokenizer::failure};

/// The bytes that tokens add to a text, by id; `None` where an id has no token or one that no text
/// shows (special tokens, and those that would add nothing).
///
/// The texts of a sequence's tokens, joined, are what [`crate::Tokenizer::decode`] gives if they are
/// valid UTF-8 together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenBytes {
    /// Of a text's first token.
    pub first: Vec<Option<Vec<u8>>>,
    /// Of the others.
    pub later: Vec<Option<Vec<u8>>>,
}

/// Parts of a decoder whose work on one token does not depend on what follows it.
enum Kind {
    Words,
    ByteLevel,
    Pieces { byte_fallback: bool },
}

fn kind(decoder: &Value) -> Result<Kind, DataError> {
    let parts = match decoder {
        Value::Null => return Ok(Kind::Words),
        Value::Object(map) if map.contains_key("decoders") => {
            map["decoders"].as_array().cloned().unwrap_or_default()
        }
        other => vec![other.clone()],
    };
    let unknown = |part: &Value| {
        failure(format!(
            "its decoder has a part whose effect on single tokens is not known: {part}; known are \
             ByteLevel, Metaspace, ByteFallback, Fuse, Replace of one character and Strip of one \
             at the start"
        ))
    };
    let name = |part: &Value| part["type"].as_str().unwrap_or_default().to_owned();
    let names: Vec<String> = parts.iter().map(name).collect();
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    for (part, name) in parts.iter().zip(&names) {
        let known = match name.as_str() {
            "ByteLevel" | "Fuse" => true,
            "Metaspace" | "ByteFallback" => !has("ByteLevel"),
            "Replace" => {
                let pattern = part["pattern"]["String"].as_str();
                !has("ByteLevel") && pattern.is_some_and(|p| p.chars().count() == 1)
            }
            "Strip" => {
                let (start, stop) = (part["start"].as_u64(), part["stop"].as_u64());
                !has("ByteLevel") && start.is_some_and(|n| n <= 1) && stop == Some(0)
            }
            _ => false,
        };
        if !known {
            return Err(unknown(part));
        }
    }
    Ok(if has("ByteLevel") {
        Kind::ByteLevel
    } else {
        let byte_fallback = has("ByteFallback");
        Kind::Pieces { byte_fallback }
    })
}

/// The characters that byte-level vocabularies write bytes with: printable ones of Latin-1 stand for
/// themselves, the others are numbered from 256 on.
fn byte_characters() -> HashMap<char, u8> {
    let mut next = 256;
    (0..=255_u8)
        .map(|byte| {
            let shown = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
            let code = if shown {
                u32::from(byte)
            } else {
                next += 1;
                next - 1
            };
            (char::from_u32(code).unwrap_or_default(), byte)
        })
        .collect()
}

/// The byte of a token such as `<0x0A>`.
fn fallback_byte(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (token.len() == 6)
        .then(|| u8::from_str_radix(hex, 16).ok())
        .flatten()
}

/// The bytes of the tokens; `hidden` are those that no text shows.
pub(crate) fn token_bytes(
    inner: &tokenizers::Tokenizer,
    hidden: &[String],
) -> Result<TokenBytes, DataError> {
    let decoder = serde_json::to_value(inner.get_decoder()).map_err(failure)?;
    let kind = kind(&decoder)?;
    let mut tokens: Vec<(u32, String)> = inner
        .get_vocab(true)
        .into_iter()
        .map(|(token, id)| (id, token))
        .collect();
    tokens.sort_unstable();
    let size = tokens.last().map_or(0, |(id, _)| *id as usize + 1);
    let added = inner.get_added_tokens_decoder();
    let special: Vec<&String> = added
        .values()
        .filter_map(|token| token.special.then_some(&token.content))
        .collect();
    tokens.retain(|(_, token)| !hidden.contains(token) && !special.contains(&token));
    let mut bytes = TokenBytes {
        first: vec![None; size],
        later: vec![None; size],
    };
    let characters = byte_characters();
    let decode = |ids: &[u32]| inner.decode(ids, true).map_err(failure);
    let before = match kind {
        Kind::Pieces { .. } => reference(&tokens, &decode)?,
        _ => (0, String::new()),
    };
    for (id, token) in tokens {
        let (first, later) = match kind {
            Kind::Words => (token.clone().into_bytes(), format!(" {token}").into_bytes()),
            Kind::ByteLevel => {
                let mapped: Option<Vec<u8>> =
                    token.chars().map(|c| characters.get(&c).copied()).collect();
                let bytes = mapped.unwrap_or_else(|| token.into_bytes());
                (bytes.clone(), bytes)
            }
            Kind::Pieces { byte_fallback } => match fallback_byte(&token) {
                Some(byte) if byte_fallback && !byte.is_ascii() => (vec![byte], vec![byte]),
                _ => {
                    let after = decode(&[before.0, id])?;
                    let Some(later) = after.strip_prefix(&before.1) else {
                        let reason = format!("`{token}` changes the text of the token before it");
                        return Err(failure(reason));
                    };
                    (decode(&[id])?.into_bytes(), later.as_bytes().to_vec())
                }
            },
        };
        let shown = |bytes: Vec<u8>| (!bytes.is_empty()).then_some(bytes);
        bytes.first[id as usize] = shown(first);
        bytes.later[id as usize] = shown(later);
    }
    Ok(bytes)
}

/// A token with a text of its own, after which the others are tried.
fn reference(
    tokens: &[(u32, String)],
    decode: &dyn Fn(&[u32]) -> Result<String, DataError>,
) -> Result<(u32, String), DataError> {
    for (id, token) in tokens {
        if fallback_byte(token).is_none() && token.chars().all(char::is_alphanumeric) {
            let text = decode(&[*id])?;
            if !text.is_empty() && decode(&[*id, *id])?.starts_with(&text) {
                return Ok((*id, text));
            }
        }
    }
    Err(failure("it has no token of letters"))
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use serde_json::json;

    use super::*;
    use crate::{SpecialTokens, Tokenizer};

    fn tokenizer(vocabulary: &[&str], decoder: &Value) -> Tokenizer {
        let vocabulary: serde_json::Map<String, Value> = vocabulary
            .iter()
            .enumerate()
            .map(|(id, token)| ((*token).to_owned(), json!(id)))
            .collect();
        let description = json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
            "added_tokens": [{"id": 0, "content": "<s>", "single_word": false, "lstrip": false,
                              "rstrip": false, "normalized": false, "special": true}],
            "pre_tokenizer": null, "post_processor": null, "decoder": decoder,
            "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
        });
        let inner = tokenizers::Tokenizer::from_str(&description.to_string()).unwrap();
        Tokenizer::from_parts(inner, None, SpecialTokens::default()).unwrap()
    }

    /// Every pair of tokens whose bytes are valid together has the text that decoding gives.
    fn check(vocabulary: &[&str], decoder: &Value, first: &[Option<&str>], later: &[Option<&str>]) {
        let tokenizer = tokenizer(vocabulary, decoder);
        let bytes = tokenizer.token_bytes().unwrap();
        let texts = |bytes: &[Option<Vec<u8>>]| -> Vec<Option<String>> {
            bytes
                .iter()
                .map(|b| b.as_ref().map(|b| String::from_utf8_lossy(b).into_owned()))
                .collect()
        };
        let owned = |texts: &[Option<&str>]| -> Vec<Option<String>> {
            texts.iter().map(|t| t.map(str::to_owned)).collect()
        };
        assert_eq!(texts(&bytes.first), owned(first), "{decoder}");
        assert_eq!(texts(&bytes.later), owned(later), "{decoder}");
        let ids = 0..vocabulary.len();
        for a in ids.clone() {
            for b in ids.clone() {
                for c in ids.clone() {
                    let parts = [&bytes.first[a], &bytes.later[b], &bytes.later[c]];
                    let joined = parts.into_iter().cloned().collect::<Option<Vec<_>>>();
                    let joined = joined.map(|parts| String::from_utf8(parts.concat()));
                    if let Some(Ok(text)) = joined {
                        let decoded = tokenizer.decode(&[a as u32, b as u32, c as u32]);
                        assert_eq!(decoded, text, "{decoder}");
                    }
                }
            }
        }
    }

    #[test]
    fn texts_of_tokens_join_to_the_decoded_text() {
        let words = ["<s>", "a", "bc"];
        check(
            &words,
            &Value::Null,
            &[None, Some("a"), Some("bc")],
            &[None, Some(" a"), Some(" bc")],
        );
        let byte_level = json!({"type": "ByteLevel", "add_prefix_space": true,
                                "trim_offsets": true, "use_regex": true});
        let texts = [None, Some("a"), Some(" bé"), Some("\u{fffd}"), Some("\n")];
        check(&["<s>", "a", "ĠbÃ©", "Ã", "Ċ"], &byte_level, &texts, &texts);
        let llama = json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
        check(
            &["<s>", "▁", "▁a", "b", "<0xC3>", "<0xA9>", "<0x20>", "▁▁"],
            &llama,
            &[
                None,
                None,
                Some("a"),
                Some("b"),
                Some("\u{fffd}"),
                Some("\u{fffd}"),
                None,
                Some(" "),
            ],
            &[
                None,
                Some(" "),
                Some(" a"),
                Some("b"),
                Some("\u{fffd}"),
                Some("\u{fffd}"),
                Some(" "),
                Some("  "),
            ],
        );
        let metaspace = json!({"type": "Metaspace", "replacement": "▁",
                               "prepend_scheme": "always", "split": true});
        check(
            &["<s>", "▁a", "b"],
            &metaspace,
            &[None, Some("a"), Some("b")],
            &[None, Some(" a"), Some("b")],
        );
    }

    #[test]
    fn decoders_that_look_around_are_refused() {
        let decoder = json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
        let error = tokenizer(&["<s>", "a"], &decoder).token_bytes();
        assert!(error.unwrap_err().to_string().contains("WordPiece"));
    }
}
