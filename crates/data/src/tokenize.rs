//! Records to token ids, each token with its role and loss weight.
//!
//! **Text** (`prompt`, `completion`, `chosen`, `rejected` as text, and HH dialogues with
//! [`HhAs::Text`]) is encoded as TRL 1.16 does: the end token's text is appended to the completion
//! unless it is there, the prompt and the prompt with the completion are encoded, each with what the
//! tokenizer puts before a text (BOS), and the completion is what follows the prompt's ids.
//!
//! **Messages** are rendered by the chat template and encoded without additions. Each rendering
//! must begin with the one before it, or the row is refused: a template that changes earlier turns
//! when later ones come would train on what is never generated. As in TRL, what the template
//! writes after the end token of an answer (`"\n"` in ChatML) counts as completion. Unlike in TRL,
//! only the assistant's turns of a completion of several turns are scored.
//!
//! **At the border** of prompt and completion, tokens of the two may merge when encoded together.
//! Generation starts from the prompt's own tokens, so these win and the completion is encoded by
//! itself, if that spells the same text; otherwise the row is refused. (TRL leaves the end of the
//! prompt out and warns.)

use serde::{Deserialize, Serialize};

use crate::{
    error::DataError,
    hh,
    record::{Content, Located, Message, Record},
    sample::{
        LabelledSample, PairSample, PromptSample, RankedSample, RatedSample, Role, Sample,
        StepSample,
    },
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
    /// Its end is cut off. A sample of which nothing scored is left, and a pair of which nothing
    /// different is left, is left out. A prompt for generation is never cut: it is left out.
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

/// A sample for SFT; `None` if it was dropped as too long. Of a preference, the chosen answer is
/// learnt.
///
/// # Errors
/// Names file, line and field.
pub fn sft(
    located: &Located,
    tokenizer: &Tokenizer,
    options: &TokenizeOptions,
) -> Result<Option<Sample>, DataError> {
    let row = RowContext {
        tokenizer,
        options,
        place: &located.place,
    };
    let mut sample = match &located.record {
        Record::PromptCompletion { prompt, completion }
        | Record::Rated {
            prompt, completion, ..
        } => row.answered(prompt, completion, "completion")?,
        Record::Ranking {
            prompt, answers, ..
        } => row.answered(prompt, &answers[0], "completions[0]")?,
        Record::Preference { prompt, chosen, .. } => row.answered(prompt, chosen, "chosen")?,
        Record::Messages(messages) => row.conversation(&[], messages, "messages")?,
        Record::Prompt(_) | Record::Unpaired { .. } | Record::Steps { .. } => {
            return Err(row.unusable("SFT", "messages, prompt + completion or chosen + rejected"));
        }
    };
    if options.loss_on == LossOn::All {
        sample.weights.fill(1.0);
    }
    row.fit(sample)
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
    let row = RowContext {
        tokenizer,
        options,
        place: &located.place,
    };
    let Record::Preference {
        prompt,
        chosen,
        rejected,
        margin,
        probability,
    } = &located.record
    else {
        return Err(row.unusable("preference training", "chosen + rejected"));
    };
    let chosen = row.answered(prompt, chosen, "chosen")?;
    let rejected = row.answered(prompt, rejected, "rejected")?;
    if chosen.ids == rejected.ids {
        return Err(row.wrong("fields `chosen` and `rejected` have the same tokens"));
    }
    let (Some(chosen), Some(rejected)) = (row.fit(chosen)?, row.fit(rejected)?) else {
        return Ok(None);
    };
    // What made them differ may have been cut off.
    Ok((chosen.ids != rejected.ids).then_some(PairSample {
        chosen,
        rejected,
        margin: *margin,
        probability: *probability,
    }))
}

/// Completions with a label each: one of a row with a label, two of a pair (the chosen one wanted);
/// `None` if one was dropped as too long.
///
/// # Errors
/// Names file, line and field.
pub fn labelled(
    located: &Located,
    tokenizer: &Tokenizer,
    options: &TokenizeOptions,
) -> Result<Option<Vec<LabelledSample>>, DataError> {
    let row = RowContext {
        tokenizer,
        options,
        place: &located.place,
    };
    let answers = match &located.record {
        Record::Unpaired {
            prompt,
            completion,
            label,
        } => vec![(prompt, completion, "completion", *label)],
        Record::Preference {
            prompt,
            chosen,
            rejected,
            ..
        } => vec![
            (prompt, chosen, "chosen", true),
            (prompt, rejected, "rejected", false),
        ],
        _ => {
            let needed = "prompt + completion + label, or chosen + rejected";
            return Err(row.unusable("KTO", needed));
        }
    };
    let mut samples = Vec::with_capacity(answers.len());
    for (prompt, answer, field, desirable) in answers {
        let Some(sample) = row.fit(row.answered(prompt, answer, field)?)? else {
            return Ok(None);
        };
        samples.push(LabelledSample { sample, desirable });
    }
    Ok(Some(samples))
}

/// Ranked completions: of a ranking, or the two of a pair; `None` if one was dropped as too long.
///
/// # Errors
/// Names file, line and field.
pub fn ranking(
    located: &Located,
    tokenizer: &Tokenizer,
    options: &TokenizeOptions,
) -> Result<Option<RankedSample>, DataError> {
    let row = RowContext {
        tokenizer,
        options,
        place: &located.place,
    };
    let (prompt, answers, ranks) = match &located.record {
        Record::Ranking {
            prompt,
            answers,
            ranks,
        } => (prompt, answers.iter().collect(), ranks.clone()),
        Record::Preference {
            prompt,
            chosen,
            rejected,
            ..
        } => (prompt, vec![chosen, rejected], vec![1, 2]),
        _ => {
            let needed = "completions, or chosen + rejected";
            return Err(row.unusable("learning from rankings", needed));
        }
    };
    let mut samples = Vec::with_capacity(answers.len());
    for (i, answer) in answers.into_iter().enumerate() {
        let sample = row.answered(prompt, answer, &format!("completions[{i}]"))?;
        match row.fit(sample)? {
            Some(sample) => samples.push(sample),
            None => return Ok(None),
        }
    }
    Ok(Some(RankedSample {
        answers: samples,
        ranks,
    }))
}

/// A completion with its rating; a label counts 1 or 0. `None` if it was dropped as too long.
///
/// # Errors
/// Names file, line and field.
pub fn rated(
    located: &Located,
    tokenizer: &Tokenizer,
    options: &TokenizeOptions,
) -> Result<Option<RatedSample>, DataError> {
    let row = RowContext {
        tokenizer,
        options,
        place: &located.place,
    };
    let (prompt, completion, score) = match &located.record {
        Record::Rated {
            prompt,
            completion,
            score,
        } => (prompt, completion, *score),
        Record::Unpaired {
            prompt,
            completion,
            label,
        } => (prompt, completion, f64::from(u8::from(*label))),
        _ => {
            let needed = "prompt + completion + score, or + label";
            return Err(row.unusable("learning from ratings", needed));
        }
    };
    let sample = row.fit(row.answered(prompt, completion, "completion")?)?;
    Ok(sample.map(|sample| RatedSample { sample, score }))
}

/// A completion in steps, each followed by a line break as in TRL's process reward models; `None` if it
/// was dropped as too long. A cut sample keeps its whole steps.
///
/// # Errors
/// Names file, line and field.
pub fn steps(
    located: &Located,
    tokenizer: &Tokenizer,
    options: &TokenizeOptions,
) -> Result<Option<StepSample>, DataError> {
    let row = RowContext {
        tokenizer,
        options,
        place: &located.place,
    };
    let Record::Steps {
        prompt,
        steps,
        labels,
    } = &located.record
    else {
        return Err(row.unusable("learning from steps", "completions + labels"));
    };
    let mut sample = Sample::default();
    for id in row.prompt_ids(prompt)? {
        sample.push(id, Role::Prompt, 0.0);
    }
    let mut ends = Vec::with_capacity(steps.len());
    for (i, step) in steps.iter().enumerate() {
        let ids = tokenizer.encode_with(&format!("{step}\n"), false)?;
        if ids.is_empty() {
            return Err(row.wrong(format!("field `completions[{i}]` has no tokens")));
        }
        for id in ids {
            sample.push(id, Role::Completion, 1.0);
        }
        ends.push(sample.len() - 1);
    }
    let Some(sample) = row.fit(sample)? else {
        return Ok(None);
    };
    ends.retain(|end| *end < sample.len());
    let labels = labels[..ends.len()].to_vec();
    Ok((!ends.is_empty()).then_some(StepSample {
        sample,
        ends,
        labels,
    }))
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
    let row = RowContext {
        tokenizer,
        options,
        place: &located.place,
    };
    let content = match &located.record {
        Record::Prompt(prompt)
        | Record::PromptCompletion { prompt, .. }
        | Record::Preference { prompt, .. }
        | Record::Ranking { prompt, .. }
        | Record::Rated { prompt, .. }
        | Record::Steps { prompt, .. }
        | Record::Unpaired { prompt, .. } => prompt.clone(),
        Record::Messages(messages) => {
            let last = messages.iter().rposition(|m| m.role == "assistant");
            Content::Messages(messages[..last.unwrap_or(messages.len())].to_vec())
        }
    };
    let ids = row.prompt_ids(&content)?;
    if ids.len() > options.max_length {
        return match options.over_long {
            OverLong::Error => Err(row.too_long("the prompt has", ids.len())),
            // A cut prompt would be another question.
            OverLong::Drop | OverLong::Truncate => Ok(None),
        };
    }
    Ok(Some(PromptSample {
        ids,
        text: content.text(),
    }))
}

/// What every step about one row needs.
struct RowContext<'a> {
    tokenizer: &'a Tokenizer,
    options: &'a TokenizeOptions,
    place: &'a str,
}

impl RowContext<'_> {
    fn wrong(&self, reason: impl Into<String>) -> DataError {
        DataError::row(self.place, reason)
    }

    fn unusable(&self, what: &str, needed: &str) -> DataError {
        self.wrong(format!(
            "rows of this layout cannot be used for {what}, which needs {needed}"
        ))
    }

    fn too_long(&self, what: &str, tokens: usize) -> DataError {
        self.wrong(format!(
            "{what} {tokens} tokens, more than max_length = {}; raise it, or set over_long to \
             \"truncate\" or \"drop\"",
            self.options.max_length
        ))
    }

    /// Renders messages; errors of the template get the row's place.
    fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, DataError> {
        self.tokenizer
            .render(messages, add_generation_prompt)
            .map_err(|e| self.wrong(e.to_string()))
    }

    /// The tokens of a prompt that an answer goes on from.
    fn prompt_ids(&self, prompt: &Content) -> Result<Vec<u32>, DataError> {
        let ids = match self.prompt_messages(prompt)? {
            Some(messages) => self.tokenizer.encode(&self.render(&messages, true)?)?,
            None => self.tokenizer.encode_text(&prompt.text())?,
        };
        if ids.is_empty() {
            return Err(self.wrong("field `prompt` has no tokens"));
        }
        Ok(ids)
    }

    /// The prompt as messages if it is to be rendered by the chat template.
    fn prompt_messages(&self, prompt: &Content) -> Result<Option<Vec<Message>>, DataError> {
        let messages = match prompt {
            Content::Messages(messages) => messages.clone(),
            Content::Text(text) if hh::is_prompt(text) && self.options.hh == HhAs::Messages => {
                hh::messages(text, self.place)?
            }
            Content::Text(_) => return Ok(None),
        };
        if messages.last().is_some_and(|m| m.role == "assistant") {
            let reason = "the prompt ends with an assistant turn, so a chat template cannot render \
                          the answer as a turn of its own";
            return Err(self.wrong(reason));
        }
        Ok(Some(messages))
    }

    /// A prompt and the answer to learn, which is in the named field.
    fn answered(
        &self,
        prompt: &Content,
        answer: &Content,
        field: &str,
    ) -> Result<Sample, DataError> {
        let context = match (self.prompt_messages(prompt)?, prompt, answer) {
            (Some(messages), ..) => messages,
            (None, prompt, Content::Messages(_)) => vec![Message::new("user", &prompt.text())],
            (None, prompt, Content::Text(answer)) => {
                return self.text(&prompt.text(), answer, field);
            }
        };
        match answer {
            Content::Messages(turns) => self.conversation(&context, turns, field),
            Content::Text(text) => {
                let turn = Message::new("assistant", text.trim());
                self.conversation(&context, &[turn], field)
            }
        }
    }

    fn text(&self, prompt: &str, answer: &str, field: &str) -> Result<Sample, DataError> {
        let eos = self.tokenizer.eos_token().ok_or_else(|| {
            let reason = "the tokenizer has no end token (`eos_token`), so a model cannot learn \
                          where an answer ends";
            self.wrong(reason)
        })?;
        let mut answer = answer.to_owned();
        if !answer.ends_with(&eos) {
            answer.push_str(&eos);
        }
        let mut sample = Sample::default();
        for id in self.tokenizer.encode_text(prompt)? {
            sample.push(id, Role::Prompt, 0.0);
        }
        let whole = self.tokenizer.encode_text(&format!("{prompt}{answer}"))?;
        let answer = self.after(&sample.ids, &whole, &answer)?;
        self.push_answer(&mut sample, &answer, field)?;
        Ok(sample)
    }

    /// The ids that follow `start` where `whole` is the same text and `rest` encoded together.
    fn after(&self, start: &[u32], whole: &[u32], rest: &str) -> Result<Vec<u32>, DataError> {
        if let Some(ids) = whole.strip_prefix(start) {
            return Ok(ids.to_vec());
        }
        let ids = self.tokenizer.encode(rest)?;
        let spelled = self.tokenizer.decode_all(&[start, &ids].concat());
        if spelled == self.tokenizer.decode_all(whole) {
            return Ok(ids);
        }
        Err(self.wrong(
            "tokens merge across the border of prompt and completion, and encoding the two apart \
             spells another text; end the prompt where a word ends",
        ))
    }

    fn push_answer(&self, sample: &mut Sample, ids: &[u32], field: &str) -> Result<(), DataError> {
        let eos = self.tokenizer.eos_ids();
        if ids.iter().all(|id| eos.contains(id)) {
            return Err(self.wrong(format!("field `{field}` has no tokens")));
        }
        for id in ids {
            let role = if eos.contains(id) {
                Role::Eos
            } else {
                Role::Completion
            };
            sample.push(*id, role, 1.0);
        }
        Ok(())
    }

    /// Messages that are given and messages that are learnt: the assistant's turns of the latter
    /// are scored.
    fn conversation(
        &self,
        given: &[Message],
        learnt: &[Message],
        field: &str,
    ) -> Result<Sample, DataError> {
        let messages = [given, learnt].concat();
        let mut sample = Sample::default();
        let mut done = String::new();
        for (i, message) in messages.iter().enumerate().skip(given.len()) {
            if message.role == "assistant" {
                let start = self.render(&messages[..i], true)?;
                self.push_context(&mut sample, &done, &start, &messages[..i])?;
                done = self.render(&messages[..=i], false)?;
                let new = self.new_ids(&sample, &start, &done)?;
                self.push_answer(&mut sample, &new, field)?;
                self.check_end(&new)?;
            }
        }
        let last = messages.iter().rposition(|m| m.role == "assistant");
        if self.options.loss_on == LossOn::All && last.is_some_and(|last| last + 1 < messages.len())
        {
            let whole = self.render(&messages, false)?;
            self.push_context(&mut sample, &done, &whole, &messages)?;
        }
        Ok(sample)
    }

    fn new_ids(&self, sample: &Sample, done: &str, text: &str) -> Result<Vec<u32>, DataError> {
        let Some(new) = text.strip_prefix(done) else {
            return Err(self.wrong(
                "the chat template is not prefix-stable: a later turn changes how an earlier one \
                 is rendered, so the turns' tokens cannot be told apart; use rows of one answer, \
                 or a template that only appends",
            ));
        };
        self.after(&sample.ids, &self.tokenizer.encode(text)?, new)
    }

    /// Adds what is rendered before an answer: the system turn where the template renders it
    /// alone, what tools said since the last answer, and the rest.
    fn push_context(
        &self,
        sample: &mut Sample,
        done: &str,
        text: &str,
        messages: &[Message],
    ) -> Result<(), DataError> {
        let new = self.new_ids(sample, done, text)?;
        let mut system = 0;
        if done.is_empty() && messages.len() > 1 && messages[0].role == "system" {
            // Templates may refuse a lone system turn; then its tokens are the prompt's.
            if let Ok(alone) = self.tokenizer.render(&messages[..1], false) {
                let ids = self.tokenizer.encode(&alone)?;
                system = if new.starts_with(&ids) { ids.len() } else { 0 };
            }
        }
        let tool = messages
            .iter()
            .rev()
            .take_while(|m| m.role != "assistant")
            .any(|m| matches!(m.role.as_str(), "tool" | "function" | "ipython"));
        let role = if tool {
            Role::Observation
        } else {
            Role::Prompt
        };
        for (i, id) in new.into_iter().enumerate() {
            sample.push(id, if i < system { Role::System } else { role }, 0.0);
        }
        Ok(())
    }

    /// Without an end token in its answers, a model would learn never to stop.
    fn check_end(&self, answer: &[u32]) -> Result<(), DataError> {
        let eos = self.tokenizer.eos_ids();
        if answer.iter().any(|id| eos.contains(id)) {
            return Ok(());
        }
        let names: Vec<String> = eos.iter().map(|id| self.tokenizer.token(*id)).collect();
        Err(self.wrong(format!(
            "the chat template ends an answer without an end token (the tokenizer's: `{}`), so a \
             model would not learn to stop; set `eos_token` in tokenizer_config.json to what the \
             template writes after an answer",
            names.join("`, `")
        )))
    }

    /// Cuts, drops or refuses what is too long.
    fn fit(&self, mut sample: Sample) -> Result<Option<Sample>, DataError> {
        if sample.len() > self.options.max_length {
            match self.options.over_long {
                OverLong::Error => return Err(self.too_long("the sample has", sample.len())),
                OverLong::Drop => return Ok(None),
                OverLong::Truncate => sample.truncate(self.options.max_length),
            }
        }
        let scored = sample.scored().next().is_some();
        Ok(scored.then_some(sample))
    }
}
