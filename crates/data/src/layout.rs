//! Which of the field's layouts a row has, and the row as a record.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    error::DataError,
    hh,
    jsonl::kind,
    record::{Content, Message, Record},
};

/// The layouts of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// `messages`.
    Messages,
    /// `prompt` and `completion`.
    PromptCompletion,
    /// `prompt`, `chosen` and `rejected`; or `chosen` and `rejected` as message lists that share
    /// their beginning, which is the prompt.
    Preference,
    /// `chosen` and `rejected` as dialogues with `\n\nHuman:` and `\n\nAssistant:`.
    HhDialogues,
    /// `prompt` alone.
    PromptOnly,
    /// `prompt`, `completion` and `label`.
    Unpaired,
    /// `prompt` and `completions`, best first or with `ranks`.
    Ranking,
    /// `prompt`, `completion` and a number `score`.
    Rated,
    /// `prompt`, `completions` (steps) and `labels`.
    Steps,
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
            Self::Ranking => "prompt + completions (ranked)",
            Self::Rated => "prompt + completion + score",
            Self::Steps => "prompt + completions + labels (steps)",
        }
    }
}

/// Columns that mean something here. `images` and `tools` are refused where they hold something.
pub(crate) const COLUMNS: [&str; 16] = [
    "messages",
    "prompt",
    "completion",
    "completions",
    "ranks",
    "labels",
    "score",
    "chosen",
    "rejected",
    "label",
    "margin",
    "probability",
    "images",
    "image",
    "tools",
    "videos",
];

fn has(row: &Map<String, Value>, name: &str) -> bool {
    row.get(name).is_some_and(|v| !v.is_null())
}

/// Recognises the layout of a dataset by its first row. Where a row has both, `chosen` and
/// `rejected` count more than `messages` (which then repeat the chosen side).
///
/// # Errors
/// When the columns are none of the known layouts; `images` are refused by name.
pub fn detect(row: &Map<String, Value>, place: &str) -> Result<Layout, DataError> {
    refuse_media(row, place)?;
    let has = |name: &str| has(row, name);
    let layout = if has("chosen") && has("rejected") {
        let text = |name: &str| row.get(name).and_then(Value::as_str);
        if has("prompt") || row["chosen"].is_array() || row["rejected"].is_array() {
            Layout::Preference
        } else if let (Some(chosen), Some(rejected)) = (text("chosen"), text("rejected")) {
            if !hh::is_dialogue(chosen) && !hh::is_dialogue(rejected) {
                let reason = "field `prompt` is missing: without it `chosen` and `rejected` must \
                              be message lists or HH dialogues with \"\\n\\nHuman:\" and \
                              \"\\n\\nAssistant:\"";
                return Err(DataError::row(place, reason));
            }
            Layout::HhDialogues
        } else {
            let name = if text("chosen").is_none() {
                "chosen"
            } else {
                "rejected"
            };
            let reason = format!("field `{name}` is {}, not text", kind(&row[name]));
            return Err(DataError::row(place, reason));
        }
    } else if has("messages") {
        Layout::Messages
    } else if has("prompt") && has("completion") && has("label") {
        Layout::Unpaired
    } else if has("prompt") && has("completions") && has("labels") {
        Layout::Steps
    } else if has("prompt") && has("completions") {
        Layout::Ranking
    } else if has("prompt") && has("completion") && row.get("score").is_some_and(Value::is_number) {
        Layout::Rated
    } else if has("prompt") && has("completion") {
        Layout::PromptCompletion
    } else if has("prompt") {
        Layout::PromptOnly
    } else {
        let seen: Vec<&str> = row.keys().map(String::as_str).collect();
        let reason = format!(
            "columns `{}` are no known layout; there are: messages | prompt + completion | prompt \
             + chosen + rejected | chosen + rejected as HH dialogues or message lists | prompt | \
             prompt + completion + label | prompt + completion + score | prompt + completions (+ \
             ranks) | prompt + completions + labels",
            seen.join("`, `")
        );
        return Err(DataError::row(place, reason));
    };
    Ok(layout)
}

fn refuse_media(row: &Map<String, Value>, place: &str) -> Result<(), DataError> {
    for name in ["images", "image", "videos"] {
        if has(row, name) {
            let reason = format!("field `{name}`: only text is supported");
            return Err(DataError::row(place, reason));
        }
    }
    let empty = |v: &Value| {
        v.is_null() || v.as_array().is_some_and(Vec::is_empty) || v.as_str() == Some("")
    };
    if row.get("tools").is_some_and(|v| !empty(v)) {
        let reason = "field `tools`: tool definitions are not supported";
        return Err(DataError::row(place, reason));
    }
    Ok(())
}

fn field<'a>(row: &'a Map<String, Value>, name: &str, place: &str) -> Result<&'a Value, DataError> {
    match row.get(name) {
        Some(value) if !value.is_null() => Ok(value),
        Some(_) => Err(DataError::row(place, format!("field `{name}` is null"))),
        None => Err(DataError::row(place, format!("field `{name}` is missing"))),
    }
}

fn messages(value: &Value, name: &str, place: &str) -> Result<Vec<Message>, DataError> {
    let wrong = |reason: String| DataError::row(place, reason);
    let Value::Array(items) = value else {
        let what = kind(value);
        return Err(wrong(format!(
            "field `{name}` is {what}, not a list of messages"
        )));
    };
    if items.is_empty() {
        return Err(wrong(format!("field `{name}` is empty")));
    }
    items
        .iter()
        .enumerate()
        .map(|(i, item)| {
            let at = format!("{name}[{i}]");
            let Value::Object(item) = item else {
                let what = kind(item);
                return Err(wrong(format!(
                    "field `{at}` is {what}, not a message object"
                )));
            };
            if let Some(key) = [
                "tool_calls",
                "function_call",
                "reasoning_content",
                "thinking",
            ]
            .iter()
            .find(|key| {
                item.get(**key).is_some_and(|v| {
                    !v.is_null()
                        && v.as_str() != Some("")
                        && v.as_array().is_none_or(|a| !a.is_empty())
                })
            }) {
                return Err(wrong(format!("field `{at}.{key}` is not supported")));
            }
            let role = match field(item, "role", place) {
                Ok(Value::String(role)) if !role.trim().is_empty() => role.clone(),
                _ if item.contains_key("from") => {
                    let reason = "has `from` and `value`; rename them to `role` (system, user, \
                                  assistant) and `content`";
                    return Err(wrong(format!("field `{at}` {reason}")));
                }
                _ => return Err(wrong(format!("field `{at}.role` is missing or not text"))),
            };
            let content = said(item.get("content"), &at, place)?;
            // An empty system turn is how some say "none".
            if content.trim().is_empty() && role != "system" {
                return Err(wrong(format!("field `{at}.content` is empty")));
            }
            Ok(Message { role, content })
        })
        .collect()
}

/// A message's content: text, or a list of parts that are all text.
fn said(value: Option<&Value>, at: &str, place: &str) -> Result<String, DataError> {
    let wrong = |reason: &str| {
        Err(DataError::row(
            place,
            format!("field `{at}.content` {reason}"),
        ))
    };
    match value {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => {
            let mut all = String::new();
            for part in parts {
                match (part.get("type").and_then(Value::as_str), part.get("text")) {
                    (Some("text"), Some(Value::String(text))) => all.push_str(text),
                    (Some(other), _) if other != "text" => {
                        let reason =
                            format!("has a part of type `{other}`; only text is supported");
                        return wrong(&reason);
                    }
                    _ => return wrong("has a part without `type` and `text`"),
                }
            }
            Ok(all)
        }
        _ => wrong("is missing or not text"),
    }
}

fn content(row: &Map<String, Value>, name: &str, place: &str) -> Result<Content, DataError> {
    let content = match field(row, name, place)? {
        Value::String(text) => Content::Text(text.clone()),
        value @ Value::Array(_) => Content::Messages(messages(value, name, place)?),
        other => {
            let what = kind(other);
            let reason = format!("field `{name}` is {what}, neither text nor a list of messages");
            return Err(DataError::row(place, reason));
        }
    };
    if content.is_empty() {
        return Err(DataError::row(place, format!("field `{name}` is empty")));
    }
    Ok(content)
}

/// A prompt: as messages it must leave the next turn to the assistant.
fn prompt(row: &Map<String, Value>, place: &str) -> Result<Content, DataError> {
    let content = content(row, "prompt", place)?;
    match &content {
        Content::Messages(turns) if turns.last().is_some_and(|m| m.role == "assistant") => {
            let reason = "field `prompt` ends with an assistant message; it must end before one";
            Err(DataError::row(place, reason))
        }
        _ => Ok(content),
    }
}

/// An answer: as messages it must start with the assistant's.
fn answer(row: &Map<String, Value>, name: &str, place: &str) -> Result<Content, DataError> {
    let content = content(row, name, place)?;
    match &content {
        Content::Messages(turns) if turns[0].role != "assistant" => {
            let reason = format!("field `{name}` does not start with an assistant message");
            Err(DataError::row(place, reason))
        }
        _ => Ok(content),
    }
}

/// Turns one row into a record of the given layout.
///
/// # Errors
/// Names place and field of what is missing, empty or of the wrong type.
pub fn record(row: &Map<String, Value>, layout: Layout, place: &str) -> Result<Record, DataError> {
    refuse_media(row, place)?;
    let record = match layout {
        Layout::Messages => {
            let turns = messages(field(row, "messages", place)?, "messages", place)?;
            if !turns.iter().any(|m| m.role == "assistant") {
                let reason = "field `messages` has no message of role `assistant` to learn";
                return Err(DataError::row(place, reason));
            }
            if turns[0].role == "assistant" {
                let reason = "field `messages` starts with an assistant message that answers \
                              nothing";
                return Err(DataError::row(place, reason));
            }
            Record::Messages(turns)
        }
        Layout::PromptCompletion => Record::PromptCompletion {
            prompt: prompt(row, place)?,
            completion: answer(row, "completion", place)?,
        },
        Layout::Preference => preference(row, place)?,
        Layout::HhDialogues => {
            let text = |name: &str| match field(row, name, place)? {
                Value::String(text) => Ok(text.as_str()),
                other => {
                    let reason = format!("field `{name}` is {}, not text", kind(other));
                    Err(DataError::row(place, reason))
                }
            };
            hh::preference(
                text("chosen")?,
                text("rejected")?,
                strength(row, place)?,
                place,
            )?
        }
        Layout::PromptOnly => Record::Prompt(prompt(row, place)?),
        Layout::Unpaired => Record::Unpaired {
            prompt: prompt(row, place)?,
            completion: answer(row, "completion", place)?,
            label: match field(row, "label", place)? {
                Value::Bool(label) => *label,
                other => {
                    let reason = format!("field `label` is {}, not true or false", kind(other));
                    return Err(DataError::row(place, reason));
                }
            },
        },
        Layout::Ranking => ranking(row, place)?,
        Layout::Rated => Record::Rated {
            prompt: prompt(row, place)?,
            completion: answer(row, "completion", place)?,
            score: number(field(row, "score", place)?, "score", place)?,
        },
        Layout::Steps => steps(row, place)?,
    };
    if let Record::Preference {
        chosen, rejected, ..
    } = &record
        && chosen == rejected
    {
        return Err(DataError::row(
            place,
            "fields `chosen` and `rejected` are the same",
        ));
    }
    Ok(record)
}

fn number(value: &Value, name: &str, place: &str) -> Result<f64, DataError> {
    value.as_f64().filter(|x| x.is_finite()).ok_or_else(|| {
        let reason = format!("field `{name}` is {}, not a finite number", kind(value));
        DataError::row(place, reason)
    })
}

fn list<'a>(
    row: &'a Map<String, Value>,
    name: &str,
    place: &str,
) -> Result<&'a Vec<Value>, DataError> {
    match field(row, name, place)? {
        Value::Array(items) => Ok(items),
        other => {
            let reason = format!("field `{name}` is {}, not a list", kind(other));
            Err(DataError::row(place, reason))
        }
    }
}

/// As many as there are completions.
fn matching<'a>(
    row: &'a Map<String, Value>,
    name: &str,
    count: usize,
    place: &str,
) -> Result<&'a Vec<Value>, DataError> {
    let items = list(row, name, place)?;
    if items.len() == count {
        return Ok(items);
    }
    let (found, reason) = (items.len(), "one for each of `completions` is needed");
    Err(DataError::row(
        place,
        format!("field `{name}` has {found} entries; {reason} ({count})"),
    ))
}

fn ranking(row: &Map<String, Value>, place: &str) -> Result<Record, DataError> {
    let wrong = |reason: String| DataError::row(place, reason);
    let items = list(row, "completions", place)?;
    if items.len() < 2 {
        return Err(wrong("field `completions` has fewer than two".to_owned()));
    }
    let mut answers = Vec::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        let name = format!("completions[{i}]");
        let one = Map::from_iter([(name.clone(), item.clone())]);
        answers.push(answer(&one, &name, place)?);
    }
    let ranks: Vec<u32> = if has(row, "ranks") {
        let rank = |value: &Value| {
            let rank = value.as_u64().filter(|rank| (1..1 << 20).contains(rank));
            rank.map(|rank| rank as u32).ok_or_else(|| {
                let reason = "is not a list of whole numbers from 1 (the best)";
                wrong(format!("field `ranks` {reason}"))
            })
        };
        let ranks = matching(row, "ranks", items.len(), place)?;
        ranks.iter().map(rank).collect::<Result<_, _>>()?
    } else {
        (1..=items.len() as u32).collect()
    };
    let mut both: Vec<(u32, Content)> = ranks.into_iter().zip(answers).collect();
    both.sort_by_key(|(rank, _)| *rank);
    let (ranks, answers) = both.into_iter().unzip();
    Ok(Record::Ranking {
        prompt: prompt(row, place)?,
        answers,
        ranks,
    })
}

fn steps(row: &Map<String, Value>, place: &str) -> Result<Record, DataError> {
    let wrong = |name: &str, i: usize, value: &Value, must: &str| {
        let reason = format!("field `{name}[{i}]` is {}, not {must}", kind(value));
        DataError::row(place, reason)
    };
    let items = list(row, "completions", place)?;
    if items.is_empty() {
        return Err(DataError::row(place, "field `completions` is empty"));
    }
    let mut steps = Vec::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        match item {
            Value::String(text) if !text.trim().is_empty() => steps.push(text.clone()),
            Value::String(_) => {
                return Err(DataError::row(
                    place,
                    format!("field `completions[{i}]` is empty"),
                ));
            }
            other => return Err(wrong("completions", i, other, "text")),
        }
    }
    let labels = matching(row, "labels", items.len(), place)?;
    let labels = labels.iter().enumerate().map(|(i, value)| {
        let right = value.as_bool().or(match value.as_u64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        });
        right.ok_or_else(|| wrong("labels", i, value, "true or false"))
    });
    Ok(Record::Steps {
        prompt: prompt(row, place)?,
        steps,
        labels: labels.collect::<Result<_, _>>()?,
    })
}

/// A number of a column that may be missing.
fn optional_number(
    row: &Map<String, Value>,
    name: &str,
    place: &str,
) -> Result<Option<f64>, DataError> {
    match row.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => number(value, name, place).map(Some),
    }
}

/// By how much a pair's chosen answer is preferred: `margin`, `probability`.
fn strength(
    row: &Map<String, Value>,
    place: &str,
) -> Result<(Option<f64>, Option<f64>), DataError> {
    let probability = optional_number(row, "probability", place)?;
    match probability.filter(|p| !(0.0..=1.0).contains(p)) {
        None => Ok((optional_number(row, "margin", place)?, probability)),
        Some(p) => {
            let reason = format!("field `probability` is {p}, not in [0, 1]");
            Err(DataError::row(place, reason))
        }
    }
}

fn preference(row: &Map<String, Value>, place: &str) -> Result<Record, DataError> {
    let (margin, probability) = strength(row, place)?;
    let (chosen, rejected) = (
        content(row, "chosen", place)?,
        content(row, "rejected", place)?,
    );
    let (chosen, rejected) = match (chosen, rejected) {
        (Content::Messages(chosen), Content::Messages(rejected)) => (chosen, rejected),
        (Content::Text(_), Content::Text(_)) => {
            return Ok(Record::Preference {
                prompt: prompt(row, place)?,
                chosen: answer(row, "chosen", place)?,
                rejected: answer(row, "rejected", place)?,
                margin,
                probability,
            });
        }
        _ => {
            let reason = "fields `chosen` and `rejected` are not both text or both message lists";
            return Err(DataError::row(place, reason));
        }
    };
    // As in TRL, messages that both sides share are the prompt, even where a `prompt` column
    // repeats it as text.
    if chosen[0].role != "assistant" || rejected[0].role != "assistant" {
        if row.get("prompt").is_some_and(Value::is_array) {
            let name = if chosen[0].role == "assistant" {
                "rejected"
            } else {
                "chosen"
            };
            let reason = format!("field `{name}` does not start with an assistant message");
            return Err(DataError::row(place, reason));
        }
        return implicit_prompt(chosen, rejected, (margin, probability), place);
    }
    Ok(Record::Preference {
        prompt: prompt(row, place)?,
        chosen: Content::Messages(chosen),
        rejected: Content::Messages(rejected),
        margin,
        probability,
    })
}

fn implicit_prompt(
    chosen: Vec<Message>,
    rejected: Vec<Message>,
    (margin, probability): (Option<f64>, Option<f64>),
    place: &str,
) -> Result<Record, DataError> {
    if chosen == rejected {
        return Err(DataError::row(
            place,
            "fields `chosen` and `rejected` are the same",
        ));
    }
    let shared = chosen
        .iter()
        .zip(&rejected)
        .take_while(|(a, b)| a == b)
        .count();
    let answers = |turns: &[Message]| turns.get(shared).is_some_and(|m| m.role == "assistant");
    if shared == 0 || !answers(&chosen) || !answers(&rejected) {
        let reason = "fields `chosen` and `rejected` must share their first messages and differ \
                      from an assistant message on";
        return Err(DataError::row(place, reason));
    }
    Ok(Record::Preference {
        prompt: Content::Messages(chosen[..shared].to_vec()),
        chosen: Content::Messages(chosen[shared..].to_vec()),
        rejected: Content::Messages(rejected[shared..].to_vec()),
        margin,
        probability,
    })
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
            (
                r#"{"prompt": "a", "completion": "b"}"#,
                Layout::PromptCompletion,
            ),
            (
                r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#,
                Layout::Preference,
            ),
            (r#"{"prompt": "a"}"#, Layout::PromptOnly),
            (
                r#"{"prompt": "a", "completion": "b", "label": true}"#,
                Layout::Unpaired,
            ),
            (
                r#"{"prompt": "a", "completion": "b", "score": 3}"#,
                Layout::Rated,
            ),
            (
                r#"{"prompt": "a", "completion": "b", "score": "?"}"#,
                Layout::PromptCompletion,
            ),
            (
                r#"{"prompt": "a", "completions": ["b", "c"]}"#,
                Layout::Ranking,
            ),
            (
                r#"{"prompt": "a", "completions": ["b"], "labels": [true]}"#,
                Layout::Steps,
            ),
        ];
        for (json, layout) in cases {
            assert_eq!(detect(&row(json), "f:1").unwrap(), layout, "{json}");
        }
    }

    #[test]
    fn rankings_are_sorted_by_their_ranks() {
        let json = r#"{"prompt": "q", "completions": ["a", "b", "c"], "ranks": [2, 1, 2]}"#;
        let Record::Ranking { answers, ranks, .. } = read(json).unwrap() else {
            panic!("not a ranking");
        };
        let said: Vec<String> = answers.iter().map(Content::text).collect();
        assert_eq!(
            (said, ranks),
            (vec!["b".into(), "a".into(), "c".into()], vec![1, 2, 2])
        );
    }

    #[test]
    fn hh_dialogues_are_cut_after_the_last_assistant() {
        let json = r#"{"chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d",
                       "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: e"}"#;
        let Record::Preference {
            prompt,
            chosen,
            rejected,
            ..
        } = read(json).unwrap()
        else {
            panic!("not a preference");
        };
        let prompt = prompt.text();
        assert_eq!(
            prompt,
            "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
        );
        assert_eq!(
            (chosen.text().as_str(), rejected.text().as_str()),
            (" d", " e")
        );
        let turns = crate::hh::messages(&prompt, "f:1").unwrap();
        let said: Vec<_> = turns
            .iter()
            .map(|m| (m.role.as_str(), m.content.as_str()))
            .collect();
        assert_eq!(said, [("user", "a"), ("assistant", "b"), ("user", "c")]);
    }

    #[test]
    fn errors_name_place_and_field() {
        let cases = [
            (r#"{"images": ["x"], "prompt": "a"}"#, "`images`"),
            (r#"{"text": "a"}"#, "`text`"),
            (r#"{"prompt": " ", "completion": "b"}"#, "`prompt` is empty"),
            (
                r#"{"prompt": "a", "chosen": "b", "rejected": "b"}"#,
                "are the same",
            ),
            (
                r#"{"prompt": "a", "chosen": 3, "rejected": "b"}"#,
                "`chosen`",
            ),
            (
                r#"{"prompt": "a", "completion": "b", "label": "yes"}"#,
                "`label`",
            ),
            (
                r#"{"messages": [{"role": "user"}]}"#,
                "`messages[0].content`",
            ),
            (
                r#"{"messages": [{"role": "user", "content": "x"}]}"#,
                "assistant",
            ),
            (r#"{"chosen": "a", "rejected": "b"}"#, "`prompt`"),
            (r#"{"chosen": 1, "rejected": "b"}"#, "`chosen` is a number"),
            (
                r#"{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "b"}"#,
                "`rejected` has no",
            ),
            (
                r#"{"chosen": "\n\nHuman: a\n\nAssistant: b",
                    "rejected": "\n\nHuman: x\n\nAssistant: c"}"#,
                "differ before",
            ),
            (
                r#"{"chosen": "\n\nHuman: a\n\nAssistant: ", "rejected": "\n\nHuman: a\n\nAssistant: c"}"#,
                "`chosen`: the last assistant turn is empty",
            ),
            (
                r#"{"messages": [{"role": "user", "content": [{"type": "image"}]}]}"#,
                "`messages[0].content` has a part of type `image`",
            ),
            (
                r#"{"messages": [{"from": "human", "value": "x"}]}"#,
                "rename them",
            ),
            (
                r#"{"messages": [{"role": "user", "content": ""}]}"#,
                "`messages[0].content` is empty",
            ),
            (
                r#"{"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]}"#,
                "`messages[0].tool_calls`",
            ),
            (r#"{"messages": "x"}"#, "`messages` is text, not a list"),
            (r#"{"messages": [3]}"#, "`messages[0]` is a number"),
            (
                r#"{"prompt": "a", "completion": {"a": 1}}"#,
                "`completion` is an object",
            ),
            (r#"{"prompt": "a", "tools": [{"name": "f"}]}"#, "`tools`"),
            (
                r#"{"prompt": [{"role": "assistant", "content": "a"}], "completion": "b"}"#,
                "`prompt` ends with an assistant message",
            ),
            (
                r#"{"prompt": "a", "completion": [{"role": "user", "content": "a"}]}"#,
                "`completion` does not start with an assistant",
            ),
            (
                r#"{"prompt": "a", "chosen": "b", "rejected": "c", "margin": "big"}"#,
                "`margin` is text",
            ),
            (
                r#"{"prompt": "a", "chosen": "b", "rejected": "c", "probability": 1.5}"#,
                "`probability` is 1.5, not in [0, 1]",
            ),
        ];
        let of_lists = [
            (r#"{"prompt": "a", "completions": ["b"]}"#, "fewer than two"),
            (
                r#"{"prompt": "a", "completions": "b"}"#,
                "`completions` is text, not a list",
            ),
            (
                r#"{"prompt": "a", "completions": ["b", 3]}"#,
                "`completions[1]` is a number",
            ),
            (
                r#"{"prompt": "a", "completions": ["b", "c"], "ranks": [1]}"#,
                "`ranks` has 1 entries",
            ),
            (
                r#"{"prompt": "a", "completions": ["b", "c"], "ranks": [0, 1]}"#,
                "from 1",
            ),
            (
                r#"{"prompt": "a", "completions": ["b", " "], "labels": [true, false]}"#,
                "`completions[1]` is empty",
            ),
            (
                r#"{"prompt": "a", "completions": ["b"], "labels": ["yes"]}"#,
                "`labels[0]` is text, not true or false",
            ),
        ];
        for (json, needle) in cases.into_iter().chain(of_lists) {
            let error = read(json).unwrap_err().to_string();
            assert!(
                error.starts_with("f:1: ") && error.contains(needle),
                "{json}: {error}"
            );
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

    #[test]
    fn a_text_prompt_that_repeats_the_shared_messages_is_not_used_twice() {
        let json = r#"{"prompt": "q", "messages": [], "score_chosen": 8.0,
            "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]}"#;
        let Record::Preference { prompt, chosen, .. } = read(json).unwrap() else {
            panic!("not a preference");
        };
        assert_eq!(prompt, Content::Messages(vec![Message::new("user", "q")]));
        assert_eq!(
            chosen,
            Content::Messages(vec![Message::new("assistant", "a")])
        );
    }

    #[test]
    fn content_in_text_parts_is_joined_and_an_empty_system_turn_is_allowed() {
        let json = r#"{"messages": [{"role": "system", "content": ""},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "c"}]}"#;
        let Record::Messages(turns) = read(json).unwrap() else {
            panic!("not messages");
        };
        assert_eq!(turns[1], Message::new("user", "ab"));
    }
}
