//! Which of the field's layouts a row has, and the row as a record.

use serde_json::{Map, Value};

use crate::{
    error::DataError,
    record::{Content, Message, Record},
};

/// The layouts of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `messages`.
    Messages,
    /// `prompt` and `completion`.
    PromptCompletion,
    /// `prompt`, `chosen` and `rejected`; or `chosen` and `rejected` as message lists that share
    /// their beginning.
    Preference,
    /// `chosen` and `rejected` as dialogues with `\n\nHuman:` and `\n\nAssistant:`.
    HhDialogues,
    /// `prompt` alone.
    PromptOnly,
    /// `prompt`, `completion` and `label`.
    Unpaired,
}

impl Layout {
    /// The columns, for people.
    pub fn columns(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::PromptCompletion => "prompt + completion",
            Self::Preference => "prompt + chosen + rejected",
            Self::HhDialogues => "chosen + rejected (HH dialogues)",
            Self::PromptOnly => "prompt",
            Self::Unpaired => "prompt + completion + label",
        }
    }
}

const HUMAN: &str = "\n\nHuman:";
const ASSISTANT: &str = "\n\nAssistant:";

/// Recognises the layout of a dataset by its first row.
///
/// # Errors
/// When the columns are none of the known layouts; `images` are refused by name.
pub fn detect(row: &Map<String, Value>, place: &str) -> Result<Layout, DataError> {
    let has = |name: &str| row.get(name).is_some_and(|v| !v.is_null());
    if has("images") || has("image") {
        return Err(DataError::row(place, "field `images`: only text is supported"));
    }
    let hh = |name: &str| row.get(name).and_then(Value::as_str).is_some_and(|t| t.contains(ASSISTANT));
    let layout = if has("messages") {
        Layout::Messages
    } else if has("chosen") && has("rejected") {
        if !has("prompt") && hh("chosen") && hh("rejected") {
            Layout::HhDialogues
        } else if has("prompt") || row["chosen"].is_array() {
            Layout::Preference
        } else {
            let reason = "`chosen` and `rejected` without `prompt` must be message lists or HH \
                          dialogues with \"\\n\\nHuman:\" and \"\\n\\nAssistant:\"";
            return Err(DataError::row(place, reason));
        }
    } else if has("prompt") && has("completion") && has("label") {
        Layout::Unpaired
    } else if has("prompt") && has("completion") {
        Layout::PromptCompletion
    } else if has("prompt") {
        Layout::PromptOnly
    } else {
        let seen: Vec<&str> = row.keys().map(String::as_str).collect();
        let reason = format!(
            "columns `{}` are no known layout; there are: messages | prompt + completion | prompt \
             + chosen + rejected | chosen + rejected as HH dialogues | prompt | prompt + \
             completion + label",
            seen.join("`, `")
        );
        return Err(DataError::row(place, reason));
    };
    Ok(layout)
}

fn field<'a>(row: &'a Map<String, Value>, name: &str, place: &str) -> Result<&'a Value, DataError> {
    match row.get(name) {
        Some(value) if !value.is_null() => Ok(value),
        _ => Err(DataError::row(place, format!("field `{name}` is missing"))),
    }
}

fn messages(value: &Value, name: &str, place: &str) -> Result<Vec<Message>, DataError> {
    let Value::Array(items) = value else {
        let reason = format!("field `{name}` is not a list of messages");
        return Err(DataError::row(place, reason));
    };
    items
        .iter()
        .enumerate()
        .map(|(i, item)| {
            let text = |key: &str| {
                item.get(key).and_then(Value::as_str).ok_or_else(|| {
                    let reason = format!("field `{name}[{i}].{key}` is missing or not text");
                    DataError::row(place, reason)
                })
            };
            Ok(Message::new(text("role")?, text("content")?))
        })
        .collect()
}

fn content(row: &Map<String, Value>, name: &str, place: &str) -> Result<Content, DataError> {
    let content = match field(row, name, place)? {
        Value::String(text) => Content::Text(text.clone()),
        value @ Value::Array(_) => Content::Messages(messages(value, name, place)?),
        _ => {
            let reason = format!("field `{name}` is neither text nor a list of messages");
            return Err(DataError::row(place, reason));
        }
    };
    if content.is_empty() {
        return Err(DataError::row(place, format!("field `{name}` is empty")));
    }
    Ok(content)
}

/// Turns one row into a record of the given layout.
///
/// # Errors
/// Names place and field of what is missing, empty or of the wrong type.
pub fn record(row: &Map<String, Value>, layout: Layout, place: &str) -> Result<Record, DataError> {
    let get = |name: &str| content(row, name, place);
    let record = match layout {
        Layout::Messages => {
            let turns = messages(field(row, "messages", place)?, "messages", place)?;
            if !turns.iter().any(|m| m.role == "assistant") {
                let reason = "field `messages` has no message of role `assistant` to learn";
                return Err(DataError::row(place, reason));
            }
            Record::Messages(turns)
        }
        Layout::PromptCompletion => Record::PromptCompletion {
            prompt: get("prompt")?,
            completion: get("completion")?,
        },
        Layout::Preference => preference(row, place)?,
        Layout::HhDialogues => dialogues(row, place)?,
        Layout::PromptOnly => Record::Prompt(get("prompt")?),
        Layout::Unpaired => Record::Unpaired {
            prompt: get("prompt")?,
            completion: get("completion")?,
            label: field(row, "label", place)?.as_bool().ok_or_else(|| {
                DataError::row(place, "field `label` is not true or false")
            })?,
        },
    };
    if let Record::Preference { chosen, rejected, .. } = &record
        && chosen == rejected
    {
        return Err(DataError::row(place, "fields `chosen` and `rejected` are the same"));
    }
    Ok(record)
}

fn preference(row: &Map<String, Value>, place: &str) -> Result<Record, DataError> {
    let margin = match row.get("margin") {
        None | Some(Value::Null) => None,
        Some(value) => Some(value.as_f64().filter(|m| m.is_finite()).ok_or_else(|| {
            DataError::row(place, "field `margin` is not a number")
        })?),
    };
    let (chosen, rejected) = (content(row, "chosen", place)?, content(row, "rejected", place)?);
    if row.get("prompt").is_some_and(|p| !p.is_null()) {
        let prompt = content(row, "prompt", place)?;
        return Ok(Record::Preference { prompt, chosen, rejected, margin });
    }
    let (Content::Messages(chosen), Content::Messages(rejected)) = (chosen, rejected) else {
        let reason = "field `prompt` is missing: without it `chosen` and `rejected` must be \
                      message lists that share their beginning";
        return Err(DataError::row(place, reason));
    };
    let shared = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
    if shared == 0 || shared == chosen.len() || shared == rejected.len() {
        let reason = "fields `chosen` and `rejected` must share their first messages and differ \
                      in the last ones";
        return Err(DataError::row(place, reason));
    }
    Ok(Record::Preference {
        prompt: Content::Messages(chosen[..shared].to_vec()),
        chosen: Content::Messages(chosen[shared..].to_vec()),
        rejected: Content::Messages(rejected[shared..].to_vec()),
        margin,
    })
}

/// Cut each dialogue after its last `\n\nAssistant:`; what is before is the prompt.
fn dialogues(row: &Map<String, Value>, place: &str) -> Result<Record, DataError> {
    let text = |name: &str| {
        field(row, name, place)?
            .as_str()
            .ok_or_else(|| DataError::row(place, format!("field `{name}` is not text")))
    };
    let cut = |name: &str, text: &str| match text.rfind(ASSISTANT) {
        Some(at) => Ok(at + ASSISTANT.len()),
        None => {
            let reason = format!("field `{name}` has no \"\\n\\nAssistant:\" turn");
            Err(DataError::row(place, reason))
        }
    };
    let (chosen, rejected) = (text("chosen")?, text("rejected")?);
    let (at, other) = (cut("chosen", chosen)?, cut("rejected", rejected)?);
    for (name, answer) in [("chosen", &chosen[at..]), ("rejected", &rejected[other..])] {
        if answer.trim().is_empty() {
            let reason = format!("field `{name}`: the last assistant turn is empty");
            return Err(DataError::row(place, reason));
        }
    }
    Ok(Record::Preference {
        prompt: Content::Text(chosen[..at].to_owned()),
        chosen: Content::Text(chosen[at..].to_owned()),
        rejected: Content::Text(rejected[other..].to_owned()),
        margin: None,
    })
}

/// The turns of an HH dialogue as messages, without an empty last assistant turn.
///
/// # Errors
/// When the text does not start with a human turn.
pub fn hh_messages(text: &str, place: &str) -> Result<Vec<Message>, DataError> {
    let mut rest = text;
    let mut turns = Vec::new();
    while !rest.is_empty() {
        let (role, after) = if let Some(after) = rest.strip_prefix(HUMAN) {
            ("user", after)
        } else if let Some(after) = rest.strip_prefix(ASSISTANT) {
            ("assistant", after)
        } else {
            let reason = "a dialogue must start with \"\\n\\nHuman:\"";
            return Err(DataError::row(place, reason));
        };
        let end = [after.find(HUMAN), after.find(ASSISTANT)]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(after.len());
        let said = after[..end].trim();
        if !said.is_empty() || end < after.len() {
            turns.push(Message::new(role, said));
        }
        rest = &after[end..];
    }
    Ok(turns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(json: &str) -> Map<String, Value> {
        serde_json::from_str(json).unwrap()
    }

    fn read(json: &str) -> Result<Record, DataError> {
        let row = row(json);
        record(&row, detect(&row, "f:1")?, "f:1")
    }

    #[test]
    fn each_layout_is_recognised() {
        let cases = [
            (r#"{"messages": []}"#, Layout::Messages),
            (r#"{"prompt": "a", "completion": "b"}"#, Layout::PromptCompletion),
            (r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#, Layout::Preference),
            (r#"{"prompt": "a"}"#, Layout::PromptOnly),
            (r#"{"prompt": "a", "completion": "b", "label": true}"#, Layout::Unpaired),
        ];
        for (json, layout) in cases {
            assert_eq!(detect(&row(json), "f:1").unwrap(), layout, "{json}");
        }
    }

    #[test]
    fn hh_dialogues_are_cut_after_the_last_assistant() {
        let json = r#"{"chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d",
                       "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: e"}"#;
        let Record::Preference { prompt, chosen, rejected, .. } = read(json).unwrap() else {
            panic!("not a preference");
        };
        let prompt = prompt.text();
        assert_eq!(prompt, "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:");
        assert_eq!((chosen.text().as_str(), rejected.text().as_str()), (" d", " e"));
        let turns = hh_messages(&prompt, "f:1").unwrap();
        let said: Vec<_> = turns.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect();
        assert_eq!(said, [("user", "a"), ("assistant", "b"), ("user", "c")]);
    }

    #[test]
    fn errors_name_place_and_field() {
        let cases = [
            (r#"{"images": ["x"], "prompt": "a"}"#, "`images`"),
            (r#"{"text": "a"}"#, "`text`"),
            (r#"{"prompt": " ", "completion": "b"}"#, "`prompt` is empty"),
            (r#"{"prompt": "a", "chosen": "b", "rejected": "b"}"#, "are the same"),
            (r#"{"prompt": "a", "chosen": 3, "rejected": "b"}"#, "`chosen`"),
            (r#"{"prompt": "a", "completion": "b", "label": "yes"}"#, "`label`"),
            (r#"{"messages": [{"role": "user"}]}"#, "`messages[0].content`"),
            (r#"{"messages": [{"role": "user", "content": "x"}]}"#, "assistant"),
            (r#"{"chosen": "a", "rejected": "b"}"#, "`prompt`"),
        ];
        for (json, needle) in cases {
            let error = read(json).unwrap_err().to_string();
            assert!(error.starts_with("f:1: ") && error.contains(needle), "{json}: {error}");
        }
    }

    #[test]
    fn message_lists_share_their_beginning() {
        let json = r#"{"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
                       "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]}"#;
        let Record::Preference { prompt, .. } = read(json).unwrap() else {
            panic!("not a preference");
        };
        assert_eq!(prompt, Content::Messages(vec![Message::new("user", "q")]));
    }
}
