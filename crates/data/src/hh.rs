//! Dialogues in the form of Anthropic's helpful and harmless data: `\n\nHuman: …` and
//! `\n\nAssistant: …` in turns, in one text.

use crate::{
    error::DataError,
    record::{Content, Message, Record},
};

const HUMAN: &str = "\n\nHuman:";
const ASSISTANT: &str = "\n\nAssistant:";

/// True for a text with an assistant's turn.
pub(crate) fn is_dialogue(text: &str) -> bool {
    text.contains(ASSISTANT)
}

/// True for a text that starts with a human turn and leaves the next one to the assistant.
pub(crate) fn is_prompt(text: &str) -> bool {
    text.starts_with(HUMAN) && text.ends_with(ASSISTANT)
}

/// Cuts both dialogues after their last `\n\nAssistant:`; what is before is the prompt, which they
/// must share.
pub(crate) fn preference(
    chosen: &str,
    rejected: &str,
    (margin, probability): (Option<f64>, Option<f64>),
    place: &str,
) -> Result<Record, DataError> {
    let cut = |name: &str, text: &str| match text.rfind(ASSISTANT) {
        Some(at) => Ok(at + ASSISTANT.len()),
        None => {
            let reason = format!("field `{name}` has no \"\\n\\nAssistant:\" turn");
            Err(DataError::row(place, reason))
        }
    };
    let (at, other) = (cut("chosen", chosen)?, cut("rejected", rejected)?);
    let ((prompt, chosen), (other_prompt, rejected)) =
        (chosen.split_at(at), rejected.split_at(other));
    for (name, answer) in [("chosen", chosen), ("rejected", rejected)] {
        if answer.trim().is_empty() {
            let reason = format!("field `{name}`: the last assistant turn is empty");
            return Err(DataError::row(place, reason));
        }
    }
    if prompt != other_prompt {
        let same = prompt
            .chars()
            .zip(other_prompt.chars())
            .take_while(|(a, b)| a == b)
            .count();
        let reason = format!(
            "fields `chosen` and `rejected`: the dialogues differ before the last assistant turn \
             (at character {}), so they are not two answers to one prompt",
            same + 1
        );
        return Err(DataError::row(place, reason));
    }
    Ok(Record::Preference {
        prompt: Content::Text(prompt.to_owned()),
        chosen: Content::Text(chosen.to_owned()),
        rejected: Content::Text(rejected.to_owned()),
        margin,
        probability,
    })
}

/// The turns of a dialogue as messages, without an empty last assistant turn. What the turns say
/// is trimmed; turns of one speaker in a row become one.
///
/// # Errors
/// When the text does not start with a human turn, or a turn is empty.
pub fn messages(text: &str, place: &str) -> Result<Vec<Message>, DataError> {
    if !text.starts_with(HUMAN) {
        let reason = "the dialogue does not start with \"\\n\\nHuman:\"";
        return Err(DataError::row(place, reason));
    }
    let mut rest = text;
    let mut turns: Vec<Message> = Vec::new();
    while !rest.is_empty() {
        let (role, after) = match rest.strip_prefix(HUMAN) {
            Some(after) => ("user", after),
            None => ("assistant", &rest[ASSISTANT.len()..]),
        };
        let end = [after.find(HUMAN), after.find(ASSISTANT)]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(after.len());
        let said = after[..end].trim();
        rest = &after[end..];
        match turns.last_mut() {
            _ if said.is_empty() => {}
            Some(last) if last.role == role => {
                last.content.push_str("\n\n");
                last.content.push_str(said);
            }
            _ => turns.push(Message::new(role, said)),
        }
    }
    if turns.first().is_none_or(|m| m.role != "user") {
        return Err(DataError::row(
            place,
            "the dialogue's first human turn is empty",
        ));
    }
    Ok(turns)
}
