//! Records to token ids, each token with its role and loss weight.

use serde::{Deserialize, Serialize};

use crate::{
    error::DataError,
    hh,
    record::{Content, Located, Message, Record},
    sample::{PairSample, PromptSample, Role, Sample},
    tokenizer::Tokenizer,
};

/// What happens to a sample that is longer than `max_length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverLong {
    /// An error that names the sample.
    Error,
    /// It is left out, and counted.
    Drop,
    /// Its end is cut off.
    Truncate,
}

/// Which tokens an SFT loss is taken on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossOn {
    /// The assistant's.
    Completion,
    /// Every one.
    All,
}

/// How HH dialogues are shown to the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HhAs {
    /// As they stand, with `Human:` and `Assistant:`.
    Text,
    /// As messages, through the chat template.
    Messages,
}

/// How records become samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenizeOptions {
    /// Longest sample, in tokens.
    pub max_length: usize,
    /// What happens to longer ones.
    pub over_long: OverLong,
    /// Which tokens are scored (SFT).
    pub loss_on: LossOn,
    /// How HH dialogues are shown.
    pub hh: HhAs,
}

/// Prompt ids and completion ids with the end token.
struct Parts {
    prompt: Vec<u32>,
    completion: Vec<u32>,
}

fn is_hh(prompt: &Content) -> bool {
    matches!(prompt, Content::Text(t) if t.starts_with("\n\nHuman:") && t.ends_with("\n\nAssistant:"))
}

/// Prompt and completion as one text each, as the model sees them.
fn texts(
    prompt: &Content,
    completion: Option<&Content>,
    tokenizer: &Tokenizer,
    options: &TokenizeOptions,
    place: &str,
) -> Result<(String, String), DataError> {
    let as_messages = |content: &Content, role: &str| match content {
        Content::Messages(messages) => messages.clone(),
        Content::Text(text) => vec![Message::new(role, text.trim())],
    };
    let messages = match prompt {
        Content::Text(text) if is_hh(prompt) && options.hh == HhAs::Messages => {
            hh::messages(text, place)?
        }
        Content::Text(text) if !matches!(completion, Some(Content::Messages(_))) => {
            let eos = match tokenizer.eos_ids().first() {
                Some(id) => tokenizer.token(*id),
                None => String::new(),
            };
            let completion = completion.map_or(String::new(), |c| c.text() + &eos);
            return Ok((text.clone(), completion));
        }
        prompt => as_messages(prompt, "user"),
    };
    let start = tokenizer.render(&messages, true)?;
    let Some(completion) = completion else {
        return Ok((start, String::new()));
    };
    let mut all = messages;
    all.extend(as_messages(completion, "assistant"));
    let whole = tokenizer.render(&all, false)?;
    match whole.strip_prefix(&start) {
        Some(rest) => Ok((start, rest.to_owned())),
        None => Err(DataError::row(
            place,
            "the chat template is not prefix-stable: the rendered prompt is not the beginning of \
             the rendered conversation, so the completion's tokens cannot be told apart",
        )),
    }
}

fn parts(
    prompt: &Content,
    completion: &Content,
    tokenizer: &Tokenizer,
    options: &TokenizeOptions,
    place: &str,
) -> Result<Parts, DataError> {
    let (start, rest) = texts(prompt, Some(completion), tokenizer, options, place)?;
    let prompt = tokenizer.encode(&start)?;
    let whole = tokenizer.encode(&(start + &rest))?;
    // Where tokens straddle the border, the prompt's own tokens win: they are what generation
    // starts from.
    let completion = match whole.strip_prefix(prompt.as_slice()) {
        Some(rest) => rest.to_vec(),
        None => tokenizer.encode(&rest)?,
    };
    if completion.is_empty() {
        return Err(DataError::row(place, "the completion has no tokens"));
    }
    Ok(Parts { prompt, completion })
}

/// Cuts, drops or refuses what is too long.
fn fit(
    mut sample: Sample,
    options: &TokenizeOptions,
    place: &str,
) -> Result<Option<Sample>, DataError> {
    if sample.len() <= options.max_length {
        return Ok(Some(sample));
    }
    match options.over_long {
        OverLong::Error => Err(DataError::row(
            place,
            format!(
                "{} tokens are more than max_length = {}; raise it, or set over_long to \
                 \"truncate\" or \"drop\"",
                sample.len(),
                options.max_length
            ),
        )),
        OverLong::Drop => Ok(None),
        OverLong::Truncate => {
            sample.truncate(options.max_length);
            // Nothing left to learn is the same as dropped.
            let scored = sample.scored().next().is_some();
            Ok(scored.then_some(sample))
        }
    }
}

/// A sample for SFT; `None` if it was dropped as too long.
///
/// # Errors
/// Names file, line and field.
pub fn sft(
    located: &Located,
    tokenizer: &Tokenizer,
    options: &TokenizeOptions,
) -> Result<Option<Sample>, DataError> {
    let place = &located.place;
    let mut sample = match &located.record {
        Record::PromptCompletion { prompt, completion } => {
            let parts = parts(prompt, completion, tokenizer, options, place)?;
            Sample::from_parts(&parts.prompt, &parts.completion, tokenizer.eos_ids())
        }
        Record::Messages(messages) => conversation(messages, tokenizer, place)?,
        _ => return Err(unusable(place, "SFT", "messages or prompt + completion")),
    };
    if options.loss_on == LossOn::All {
        sample.weights.fill(1.0);
    }
    fit(sample, options, place)
}

/// All assistant turns of a conversation are scored. The rendering must grow by appending only.
fn conversation(
    messages: &[Message],
    tokenizer: &Tokenizer,
    place: &str,
) -> Result<Sample, DataError> {
    let unstable = || {
        DataError::row(
            place,
            "the chat template is not prefix-stable: a later turn changes how an earlier one is \
             rendered, so the turns' tokens cannot be told apart",
        )
    };
    let mut sample = Sample::default();
    let mut done: Vec<u32> = Vec::new();
    let mut extend = |sample: &mut Sample, text: &str, completion: bool, role: Role| {
        let ids = tokenizer.encode(text)?;
        let new = ids.strip_prefix(done.as_slice()).ok_or_else(unstable)?;
        for id in new {
            let end = completion && tokenizer.eos_ids().contains(id);
            let weight = if completion { 1.0 } else { 0.0 };
            sample.push(*id, if end { Role::Eos } else { role }, weight);
        }
        done = ids;
        Ok::<(), DataError>(())
    };
    for (i, message) in messages.iter().enumerate() {
        if message.role == "assistant" {
            let start = tokenizer.render(&messages[..i], true)?;
            extend(&mut sample, &start, false, Role::Prompt)?;
            let whole = tokenizer.render(&messages[..=i], false)?;
            extend(&mut sample, &whole, true, Role::Completion)?;
        } else if message.role == "system" && i == 0 && messages.len() > 1 {
            // Some templates add a default system turn or refuse a lone one: its tokens are
            // told apart where the template can render it alone.
            if let Ok(text) = tokenizer.render(&messages[..1], false) {
                extend(&mut sample, &text, false, Role::System)?;
            }
        }
    }
    Ok(sample)
}

/// A preference pair; `None` if one side was dropped as too long.
///
/// # Errors
/// Names file, line and field.
pub fn pair(
    located: &Located,
    tokenizer: &Tokenizer,
    options: &TokenizeOptions,
) -> Result<Option<PairSample>, DataError> {
    let place = &located.place;
    let Record::Preference { prompt, chosen, rejected, margin } = &located.record else {
        return Err(unusable(place, "preference training", "chosen + rejected"));
    };
    let side = |completion: &Content| {
        let parts = parts(prompt, completion, tokenizer, options, place)?;
        let sample = Sample::from_parts(&parts.prompt, &parts.completion, tokenizer.eos_ids());
        fit(sample, options, place)
    };
    let (Some(chosen), Some(rejected)) = (side(chosen)?, side(rejected)?) else {
        return Ok(None);
    };
    if chosen.ids == rejected.ids {
        if options.over_long == OverLong::Truncate && chosen.len() == options.max_length {
            return Ok(None); // what made them differ was cut off
        }
        let reason = "fields `chosen` and `rejected` have the same tokens";
        return Err(DataError::row(place, reason));
    }
    Ok(Some(PairSample { chosen, rejected, margin: *margin }))
}

/// A prompt for generation, from any record; `None` if it was dropped as too long.
///
/// # Errors
/// Names file, line and field.
pub fn prompt(
    located: &Located,
    tokenizer: &Tokenizer,
    options: &TokenizeOptions,
) -> Result<Option<PromptSample>, DataError> {
    let place = &located.place;
    let content = match &located.record {
        Record::Prompt(prompt)
        | Record::PromptCompletion { prompt, .. }
        | Record::Preference { prompt, .. }
        | Record::Unpaired { prompt, .. } => prompt.clone(),
        Record::Messages(messages) => {
            let last = messages.iter().rposition(|m| m.role == "assistant");
            Content::Messages(messages[..last.unwrap_or(messages.len())].to_vec())
        }
    };
    let (start, _) = texts(&content, None, tokenizer, options, place)?;
    let ids = tokenizer.encode(&start)?;
    if ids.is_empty() {
        return Err(DataError::row(place, "field `prompt` has no tokens"));
    }
    if ids.len() > options.max_length {
        match options.over_long {
            OverLong::Error => {
                let reason = format!(
                    "the prompt's {} tokens are more than max_length = {}",
                    ids.len(),
                    options.max_length
                );
                return Err(DataError::row(place, reason));
            }
            // A cut prompt would be another question.
            OverLong::Drop | OverLong::Truncate => return Ok(None),
        }
    }
    Ok(Some(PromptSample { ids, text: content.text() }))
}

fn unusable(place: &str, what: &str, needed: &str) -> DataError {
    DataError::row(place, format!("rows of this layout cannot be used for {what}, which needs {needed}"))
}
