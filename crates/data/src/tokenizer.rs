//! A tokenizer with its special tokens and chat template.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::{
    error::DataError,
    record::Message,
    template::{ChatTemplate, TemplateTokens},
    token_bytes::{TokenBytes, token_bytes},
};

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

/// What a chat template writes around an answer, as ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerFrame {
    /// Before it.
    pub before: Vec<u32>,
    /// The token that ends it.
    pub end: u32,
    /// Behind that: a line break in ChatML.
    pub after: Vec<u32>,
}

impl AnswerFrame {
    /// What belongs behind an answer that a model has ended after a prompt of the template's; nothing where it was cut, the
    /// prompt is another text, or the whole would be longer than `limit`.
    pub fn rest(&self, prompt: &[u32], answer: &[u32], limit: usize) -> &[u32] {
        let fits = prompt.len() + answer.len() + self.after.len() <= limit;
        match fits && prompt.ends_with(&self.before) && answer.last() == Some(&self.end) {
            true => &self.after,
            false => &[],
        }
    }
}

/// Text to ids and back.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    template: Option<ChatTemplate>,
    special: SpecialTokens,
    eos_ids: Vec<u32>,
    kept: Map<String, Value>,
}

/// Fields of `tokenizer_config.json` that are read and written back as they are.
const KEPT: [&str; 9] = [
    "additional_special_tokens",
    "cls_token",
    "extra_special_tokens",
    "mask_token",
    "model_input_names",
    "model_max_length",
    "padding_side",
    "sep_token",
    "truncation_side",
];

fn error(place: &Path, reason: impl ToString) -> DataError {
    DataError::Tokenizer {
        place: format!(" of {}", place.display()),
        reason: reason.to_string(),
    }
}

pub(crate) fn failure(reason: impl ToString) -> DataError {
    DataError::Tokenizer {
        place: String::new(),
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

/// `chat_template.jinja`, or the field of `tokenizer_config.json`: text, or a list of named
/// templates of which `default` is taken.
fn template_of(folder: &Path, config: &Value) -> Result<Option<String>, DataError> {
    let jinja = folder.join("chat_template.jinja");
    if jinja.exists() {
        let text = std::fs::read_to_string(&jinja).map_err(DataError::io(&jinja))?;
        return Ok(Some(text));
    }
    let wrong = |reason: &str| Err(error(&folder.join("tokenizer_config.json"), reason));
    match config.get("chat_template") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Array(named)) => {
            let default = named
                .iter()
                .find(|t| t.get("name").and_then(Value::as_str) == Some("default"))
                .and_then(|t| t.get("template")?.as_str());
            match default {
                Some(text) => Ok(Some(text.to_owned())),
                None => wrong("`chat_template` is a list without one named `default`"),
            }
        }
        Some(_) => wrong("`chat_template` is neither text nor a list of named templates"),
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
        let template = template_of(folder, &config)?;
        let special = SpecialTokens {
            bos: special("bos_token"),
            eos: special("eos_token"),
            pad: special("pad_token"),
            unk: special("unk_token"),
        };
        let mut tokenizer = Self::from_parts(inner, template, special)?;
        let path = folder.join("generation_config.json");
        let generation = read_json(&path)?.unwrap_or(Value::Null);
        let ids = match generation.get("eos_token_id") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(ids)) => ids.clone(),
            Some(id) => vec![id.clone()],
        };
        for id in ids {
            let id = id
                .as_u64()
                .and_then(|id| u32::try_from(id).ok())
                .ok_or_else(|| error(&path, format!("`eos_token_id` {id} is not a token id")))?;
            tokenizer.add_eos([id]);
        }
        if let Value::Object(config) = config {
            tokenizer.kept = config
                .into_iter()
                .filter(|(name, _)| KEPT.contains(&name.as_str()))
                .collect();
        }
        Ok(tokenizer)
    }

    /// Makes a tokenizer of what a `tokenizer.json` holds; `place` names its origin in errors.
    ///
    /// # Errors
    /// When it is malformed, the template is not valid or a special token is not in the vocabulary.
    pub fn from_json(
        json: &Value,
        place: &str,
        template: Option<String>,
        special: SpecialTokens,
    ) -> Result<Self, DataError> {
        let inner = json.to_string().parse::<tokenizers::Tokenizer>();
        let inner = inner.map_err(|e| error(Path::new(place), e))?;
        Self::from_parts(inner, template, special)
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
        inner.with_truncation(None).map_err(failure)?;
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
            kept: Map::new(),
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

    /// This tokenizer without tokens that end a sequence: what is sampled with it is as long as it may be.
    #[must_use]
    pub fn without_eos(mut self) -> Self {
        self.eos_ids.clear();
        self
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
        let encoding = self.inner.encode(text, add_special).map_err(failure)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Ids of a plain text as a model is given it: with the special tokens that the tokenizer puts
    /// before a text (BOS), once, and without those that it puts after one.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let encoding = self.inner.encode(text, true).map_err(failure)?;
        let (ids, added) = (encoding.get_ids(), encoding.get_special_tokens_mask());
        let after = added.iter().rev().take_while(|added| **added == 1).count();
        let end = ids.len() - if after == ids.len() { 0 } else { after };
        let twice = self.bos_id().is_some_and(|bos| {
            added.first() == Some(&1) && added.get(1) == Some(&0) && ids[..2] == [bos, bos]
        });
        Ok(ids[usize::from(twice)..end].to_vec())
    }

    /// Text of ids, special tokens included.
    pub fn decode_all(&self, ids: &[u32]) -> String {
        self.inner.decode(ids, false).unwrap_or_default()
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

    /// What each token adds to a decoded text.
    ///
    /// # Errors
    /// When the tokenizer's decoder gives tokens texts that depend on their neighbours.
    pub fn token_bytes(&self) -> Result<TokenBytes, DataError> {
        let special = &self.special;
        let mut hidden: Vec<String> = [&special.bos, &special.pad, &special.unk]
            .into_iter()
            .filter_map(Option::clone)
            .collect();
        hidden.extend(self.eos_ids.iter().map(|id| self.token(*id)));
        token_bytes(&self.inner, &hidden)
    }

    /// True if every id of another tokenizer is the same token here, so that its ids can be read.
    pub fn reads_ids_of(&self, other: &Self) -> bool {
        let end = other.ids_end();
        self.ids_end() >= end && (0..end as u32).all(|id| self.token(id) == other.token(id))
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

    /// The text of the token that is appended to completions.
    pub fn eos_token(&self) -> Option<String> {
        self.inner.id_to_token(*self.eos_ids.first()?)
    }

    /// The text of the chat template.
    pub fn template(&self) -> Option<&str> {
        self.template.as_ref().map(ChatTemplate::source)
    }

    /// The date that the chat template is told by `strftime_now`, in seconds since 1970; see
    /// [`crate::template`] for why it does not move by itself.
    pub fn set_date(&mut self, seconds: i64) {
        if let Some(template) = &mut self.template {
            template.set_date(seconds);
        }
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

    /// What the chat template writes around an answer; none without a template, and where it writes nothing behind the
    /// token that ends one.
    pub fn answer_frame(&self) -> Option<AnswerFrame> {
        let mut messages = vec![Message::new("user", "a")];
        let asked = self.render(&messages, false).ok()?;
        let opened = self.render(&messages, true).ok()?;
        messages.push(Message::new("assistant", "b"));
        let answered = self.render(&messages, false).ok()?;
        let before = self.encode(opened.strip_prefix(&asked)?).ok()?;
        let ids = self.encode(answered.strip_prefix(&opened)?).ok()?;
        let end = ids.iter().rposition(|id| self.eos_ids.contains(id))?;
        let (end, after) = (ids[end], ids[end + 1..].to_vec());
        let both = !before.is_empty() && !after.is_empty();
        both.then_some(AnswerFrame { before, end, after })
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json` as `transformers` reads them.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), DataError> {
        let path = folder.join("tokenizer.json");
        self.inner.save(&path, true).map_err(|e| error(&path, e))?;
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
        for (name, value) in &self.kept {
            config[name] = value.clone();
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr;

    /// A word-level tokenizer whose post-processor puts `<s>` before and `</s>` after a text.
    fn with_post_processor() -> Tokenizer {
        with_template("{{ bos_token }}x")
    }

    fn with_template(template: &str) -> Tokenizer {
        let added = |id: u32, content: &str| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        };
        let description = json!({
            "version": "1.0", "truncation": {"direction": "Right", "max_length": 3,
                "strategy": "LongestFirst", "stride": 0},
            "padding": null, "normalizer": null,
            "added_tokens": [added(0, "<s>"), added(1, "</s>")],
            "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                           {"Sequence": {"id": "A", "type_id": 0}},
                           {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                         {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]},
                                   "</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}},
            "decoder": null,
            "model": {"type": "WordLevel", "vocab": {"<s>": 0, "</s>": 1, "a": 2, "b": 3, "<unk>": 4},
                      "unk_token": "<unk>"},
        });
        let inner = tokenizers::Tokenizer::from_str(&description.to_string()).unwrap();
        let special = SpecialTokens {
            bos: Some("<s>".to_owned()),
            eos: Some("</s>".to_owned()),
            ..SpecialTokens::default()
        };
        Tokenizer::from_parts(inner, Some(template.to_owned()), special).unwrap()
    }

    #[test]
    fn what_a_template_writes_around_an_answer_is_found() {
        let template = |behind: &str| {
            with_template(&format!(
                "{{% for m in messages %}}<s>{{{{ m.role }}}} {{{{ m.content }}}}</s>{behind}{{% endfor %}}\
                 {{% if add_generation_prompt %}}<s>assistant {{% endif %}}"
            ))
        };
        let frame = template(" b").answer_frame().unwrap();
        let (before, after) = (vec![0, 4], vec![3]);
        assert_eq!(
            frame,
            AnswerFrame {
                before,
                end: 1,
                after
            }
        );
        let prompt = [0, 4, 2, 1, 3, 0, 4];
        assert_eq!(frame.rest(&prompt, &[3, 1], 10), [3]);
        assert!(frame.rest(&prompt, &[3, 1], 9).is_empty(), "no room");
        assert!(frame.rest(&prompt, &[3], 10).is_empty(), "it was cut");
        assert!(frame.rest(&[2], &[3, 1], 10).is_empty(), "a plain prompt");
        assert_eq!(template("").answer_frame(), None);
        assert_eq!(with_post_processor().answer_frame(), None);
    }

    #[test]
    fn plain_text_gets_one_beginning_and_no_end() {
        let tokenizer = with_post_processor();
        assert_eq!(tokenizer.encode("a b").unwrap(), [2, 3]);
        assert_eq!(tokenizer.encode_text("a b a b").unwrap(), [0, 2, 3, 2, 3]);
        assert_eq!(tokenizer.encode_text("<s>a</s>").unwrap(), [0, 2, 1]);
        assert_eq!(tokenizer.decode(&[0, 2, 1]), "a");
        assert_eq!(tokenizer.decode_all(&[0, 2, 1]), "<s> a </s>");
    }

    #[test]
    fn a_saved_folder_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = with_post_processor();
        tokenizer.save(folder.path()).unwrap();
        let back = Tokenizer::from_folder(folder.path()).unwrap();
        assert_eq!(back.template(), tokenizer.template());
        assert_eq!(back.special, tokenizer.special);
        assert_eq!(back.eos_ids(), [1]);
        assert_eq!(back.encode_text("a").unwrap(), [0, 2]);
    }

    #[test]
    fn templates_and_ends_are_found_where_they_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        with_post_processor().save(folder.path()).unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "tokenizer_config.json",
            r#"{"eos_token": {"content": "</s>"}, "model_max_length": 77,
                "chat_template": [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]}"#,
        );
        write("special_tokens_map.json", r#"{"bos_token": "<s>"}"#);
        write("generation_config.json", r#"{"eos_token_id": [1, 3]}"#);
        let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
        assert_eq!(tokenizer.template(), Some("d"));
        assert_eq!(
            (tokenizer.eos_ids(), tokenizer.bos_id()),
            ([1, 3].as_slice(), Some(0))
        );
        write("chat_template.jinja", "from a file");
        let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
        assert_eq!(tokenizer.template(), Some("from a file"));
        tokenizer.save(folder.path()).unwrap();
        let config = std::fs::read_to_string(folder.path().join("tokenizer_config.json")).unwrap();
        assert!(config.contains("\"model_max_length\": 77"), "{config}");
    }

    #[test]
    fn what_is_wrong_in_a_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let read = || {
            Tokenizer::from_folder(folder.path())
                .unwrap_err()
                .to_string()
        };
        assert!(read().contains("tokenizer.json"));
        with_post_processor().save(folder.path()).unwrap();
        let cases = [
            (
                "tokenizer_config.json",
                r#"{"chat_template": 3}"#,
                "neither text nor",
            ),
            (
                "tokenizer_config.json",
                r#"{"chat_template": []}"#,
                "without one named `default`",
            ),
            (
                "tokenizer_config.json",
                r#"{"eos_token": "<none>"}"#,
                "`<none>` is not in",
            ),
            ("tokenizer_config.json", "{", "tokenizer_config.json"),
            (
                "generation_config.json",
                r#"{"eos_token_id": "x"}"#,
                "is not a token id",
            ),
            ("tokenizer.json", "{}", "tokenizer.json"),
        ];
        for (name, text, needle) in cases {
            let path = folder.path().join(name);
            let before = std::fs::read(&path);
            std::fs::write(&path, text).unwrap();
            assert!(read().contains(needle), "{name} {text}: {}", read());
            match before {
                Ok(before) => std::fs::write(&path, before).unwrap(),
                Err(_) => std::fs::remove_file(&path).unwrap(),
            }
        }
    }
}
