//! A tokenizer with its special tokens and chat template.

use std::path::Path;

use serde_json::{Value, json};

use crate::{error::DataError, record::Message, template::{ChatTemplate, TemplateTokens}};

/// The special tokens that tuning cares about, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Beginning of sequence.
    pub bos: Option<String>,
    /// End of sequence.
    pub eos: Option<String>,
    /// Padding.
    pub pad: Option<String>,
    /// Stands for what the vocabulary lacks.
    pub unk: Option<String>,
}

/// Text to ids and back.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    template: Option<ChatTemplate>,
    special: SpecialTokens,
    eos_ids: Vec<u32>,
}

fn error(place: &Path, reason: impl ToString) -> DataError {
    DataError::Tokenizer {
        place: format!(" of {}", place.display()),
        reason: reason.to_string(),
    }
}

fn read_json(path: &Path) -> Result<Option<Value>, DataError> {
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path).map_err(DataError::io(path))?;
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|e| error(path, e))
}

/// A special token is written as text or as an object with `content`.
fn token_text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text.clone()),
        Value::Object(map) => map.get("content")?.as_str().map(str::to_owned),
        _ => None,
    }
}

impl Tokenizer {
    /// Reads `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja` of a folder.
    ///
    /// # Errors
    /// Names the file that is missing or malformed.
    pub fn from_folder(folder: &Path) -> Result<Self, DataError> {
        let path = folder.join("tokenizer.json");
        let inner = tokenizers::Tokenizer::from_file(&path).map_err(|e| error(&path, e))?;
        let config = read_json(&folder.join("tokenizer_config.json"))?.unwrap_or(Value::Null);
        let map = read_json(&folder.join("special_tokens_map.json"))?.unwrap_or(Value::Null);
        let special = |name: &str| token_text(config.get(name)).or(token_text(map.get(name)));
        let jinja = folder.join("chat_template.jinja");
        let template = if jinja.exists() {
            Some(std::fs::read_to_string(&jinja).map_err(DataError::io(&jinja))?)
        } else {
            match config.get("chat_template") {
                Some(Value::String(text)) => Some(text.clone()),
                Some(Value::Array(named)) => named
                    .iter()
                    .find(|t| t.get("name").and_then(Value::as_str) == Some("default"))
                    .and_then(|t| t.get("template")?.as_str().map(str::to_owned)),
                _ => None,
            }
        };
        let special = SpecialTokens {
            bos: special("bos_token"),
            eos: special("eos_token"),
            pad: special("pad_token"),
            unk: special("unk_token"),
        };
        let mut tokenizer = Self::from_parts(inner, template, special)?;
        let generation = read_json(&folder.join("generation_config.json"))?;
        let more = generation.as_ref().and_then(|g| g.get("eos_token_id"));
        let more: Vec<u64> = match more {
            Some(Value::Array(ids)) => ids.iter().filter_map(Value::as_u64).collect(),
            Some(id) => id.as_u64().into_iter().collect(),
            None => Vec::new(),
        };
        tokenizer.add_eos(more.into_iter().filter_map(|id| u32::try_from(id).ok()));
        Ok(tokenizer)
    }

    /// Joins a tokenizer with its template and special tokens.
    ///
    /// # Errors
    /// When the template is not valid or a special token is not in the vocabulary.
    pub fn from_parts(
        mut inner: tokenizers::Tokenizer,
        template: Option<String>,
        special: SpecialTokens,
    ) -> Result<Self, DataError> {
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| DataError::Tokenizer {
            place: String::new(),
            reason: e.to_string(),
        })?;
        let template = template
            .map(|source| {
                let tokens = TemplateTokens {
                    bos: special.bos.clone(),
                    eos: special.eos.clone(),
                    pad: special.pad.clone(),
                    unk: special.unk.clone(),
                };
                ChatTemplate::new(&source, tokens)
            })
            .transpose()?;
        let mut eos_ids = Vec::new();
        if let Some(eos) = &special.eos {
            let Some(id) = inner.token_to_id(eos) else {
                return Err(DataError::Tokenizer {
                    place: String::new(),
                    reason: format!("the end token `{eos}` is not in the vocabulary"),
                });
            };
            eos_ids.push(id);
        }
        Ok(Self {
            inner,
            template,
            special,
            eos_ids,
        })
    }

    /// Adds ids that end a sequence too.
    pub fn add_eos(&mut self, ids: impl IntoIterator<Item = u32>) {
        for id in ids {
            if !self.eos_ids.contains(&id) {
                self.eos_ids.push(id);
            }
        }
    }

    /// Ids of a text; special tokens written in it are recognised, none is added.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        self.encode_with(text, false)
    }

    /// Ids of a text; `add_special` adds what the tokenizer's post-processor adds (such as BOS).
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode_with(&self, text: &str, add_special: bool) -> Result<Vec<u32>, DataError> {
        let encoding = self
            .inner
            .encode(text, add_special)
            .map_err(|e| DataError::Tokenizer {
                place: String::new(),
                reason: e.to_string(),
            })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of ids, without special tokens.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.inner.decode(ids, true).unwrap_or_default()
    }

    /// One token as it stands in the vocabulary.
    pub fn token(&self, id: u32) -> String {
        self.inner.id_to_token(id).unwrap_or_default()
    }

    /// The id of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Tokens in the vocabulary, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// One more than the largest id: the rows that a model's embedding needs.
    pub fn ids_end(&self) -> usize {
        self.inner
            .get_vocab(true)
            .values()
            .max()
            .map_or(0, |id| *id as usize + 1)
    }

    /// Ids that end a sequence; the first is the one that is appended to completions.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }

    /// Beginning of sequence.
    pub fn bos_id(&self) -> Option<u32> {
        self.inner.token_to_id(self.special.bos.as_ref()?)
    }

    /// Padding.
    pub fn pad_id(&self) -> Option<u32> {
        self.inner.token_to_id(self.special.pad.as_ref()?)
    }

    /// True if there is a chat template.
    pub fn has_template(&self) -> bool {
        self.template.is_some()
    }

    /// The conversation as text.
    ///
    /// # Errors
    /// Without a chat template, or when it refuses the conversation.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, DataError> {
        let Some(template) = &self.template else {
            return Err(DataError::Template {
                reason: "the tokenizer has none, so messages cannot be rendered; use `prompt`, \
                         `completion`, `chosen` and `rejected` as text"
                    .to_owned(),
            });
        };
        template.render(messages, add_generation_prompt)
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json` as `transformers` reads them.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), DataError> {
        let path = folder.join("tokenizer.json");
        self.inner
            .save(&path, true)
            .map_err(|e| error(&path, e))?;
        let mut config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": false,
        });
        let named = [
            ("bos_token", &self.special.bos),
            ("eos_token", &self.special.eos),
            ("pad_token", &self.special.pad),
            ("unk_token", &self.special.unk),
        ];
        for (name, token) in named {
            if let Some(token) = token {
                config[name] = json!(token);
            }
        }
        if let Some(template) = &self.template {
            config["chat_template"] = json!(template.source());
        }
        let path = folder.join("tokenizer_config.json");
        let text = format!("{config:#}\n");
        std::fs::write(&path, text).map_err(DataError::io(&path))
    }
}
