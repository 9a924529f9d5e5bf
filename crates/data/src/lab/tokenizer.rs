//! The lab's tokenizer: one token a word.

use std::str::FromStr;

use serde_json::{Map, json};

use crate::{
    error::DataError,
    lab::words,
    tokenizer::{SpecialTokens, Tokenizer},
};

const SPECIAL: [&str; 5] = ["<pad>", "<eos>", "<unk>", "<|user|>", "<|assistant|>"];

const TEMPLATE: &str = "{% for message in messages %}{% if not loop.first %} {% endif %}\
<|{{ message['role'] }}|> {{ message['content'] }}\
{% if message['role'] == 'assistant' %} <eos>{% endif %}{% endfor %}\
{% if add_generation_prompt %} <|assistant|>{% endif %}";

/// The tokenizer of the lab: `<|user|> … <|assistant|> … <eos>`.
///
/// # Errors
/// When the tokenizer library refuses the vocabulary.
pub fn tokenizer() -> Result<Tokenizer, DataError> {
    let mut vocabulary = Map::new();
    for (id, word) in SPECIAL.into_iter().chain(words::all()).enumerate() {
        vocabulary.insert(word.to_owned(), json!(id));
    }
    let added: Vec<_> = SPECIAL
        .iter()
        .enumerate()
        .map(|(id, content)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": true,
                   "rstrip": true, "normalized": false, "special": true})
        })
        .collect();
    let description = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": null,
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    });
    let inner = tokenizers::Tokenizer::from_str(&description.to_string()).map_err(|e| {
        DataError::Tokenizer {
            place: " of the lab".to_owned(),
            reason: e.to_string(),
        }
    })?;
    let special = |text: &str| Some(text.to_owned());
    Tokenizer::from_parts(
        inner,
        Some(TEMPLATE.to_owned()),
        SpecialTokens {
            bos: None,
            eos: special("<eos>"),
            pad: special("<pad>"),
            unk: special("<unk>"),
        },
    )
}
