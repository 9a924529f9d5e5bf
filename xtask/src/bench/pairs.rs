//! Pairs and prompts out of a file, the same for every program that is measured.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use togi_data::{
    BadRows, HhAs, LoadOptions, Located, LossOn, OverLong, PairSample, PromptSample, Sample,
    TokenizeOptions, Tokenizer, load_with, tokenize,
};

use crate::InputError;

fn rows(data: &Path) -> Result<Vec<Located>> {
    let load = LoadOptions {
        bad_rows: BadRows::Skip,
        ..LoadOptions::default()
    };
    Ok(load_with(data, &load)?.records)
}

fn options(max_length: usize) -> TokenizeOptions {
    TokenizeOptions {
        max_length,
        over_long: OverLong::Drop,
        loss_on: LossOn::Completion,
        hh: HhAs::Text,
    }
}

/// The first pairs of a file whose sides are both short enough.
pub(crate) fn pairs(
    data: &Path,
    tokenizer: &Tokenizer,
    max_length: usize,
    wanted: usize,
) -> Result<Vec<PairSample>> {
    let mut pairs = Vec::with_capacity(wanted);
    for row in rows(data)? {
        if pairs.len() == wanted {
            break;
        }
        pairs.extend(tokenize::pair(&row, tokenizer, &options(max_length))?);
    }
    if pairs.len() < wanted {
        let text = format!(
            "--data {}: has {} pairs of at most {max_length} tokens, {wanted} are needed",
            data.display(),
            pairs.len()
        );
        return Err(InputError(text).into());
    }
    Ok(pairs)
}

/// Tokens at their beginning that two prompts may have in common: fewer than what is worth computing once.
const COMMON: usize = 7;

/// The first prompts of a file that are long enough, cut to `tokens`, whose text is read back as the same tokens
/// and that have no beginning in common: all programs then work on equal lengths, and nothing but completions of
/// one prompt is shared.
pub(crate) fn prompts(
    data: &Path,
    tokenizer: &Tokenizer,
    tokens: usize,
    wanted: usize,
) -> Result<Vec<PromptSample>> {
    let mut prompts: Vec<PromptSample> = Vec::with_capacity(wanted);
    for row in rows(data)? {
        if prompts.len() == wanted {
            break;
        }
        let Some(mut prompt) = tokenize::prompt(&row, tokenizer, &options(usize::MAX))? else {
            continue;
        };
        if prompt.ids.len() < tokens {
            continue;
        }
        // Dialogues all begin alike: the last tokens of a prompt tell it from others.
        let ids = prompt.ids.split_off(prompt.ids.len() - tokens);
        let text = tokenizer.decode_all(&ids);
        let shared = |other: &PromptSample| {
            let same = other.ids.iter().zip(&ids).take_while(|(a, b)| a == b);
            same.count() > COMMON
        };
        if tokenizer.encode_text(&text)? != ids || prompts.iter().any(shared) {
            continue;
        }
        prompts.push(PromptSample { ids, text });
    }
    if prompts.len() < wanted {
        let text = format!(
            "--data {}: has {} prompts of at least {tokens} tokens that can be used, {wanted} are needed",
            data.display(),
            prompts.len()
        );
        return Err(InputError(text).into());
    }
    Ok(prompts)
}

/// Writes pairs as text.
pub(crate) fn write_pairs(pairs: &[PairSample], tokenizer: &Tokenizer, path: &Path) -> Result<()> {
    let eos = tokenizer.eos_token().unwrap_or_default();
    let split = |sample: &Sample| {
        let at = sample.scored().next().unwrap_or(sample.len());
        let answer = tokenizer.decode_all(&sample.ids[at..]);
        let answer = answer.strip_suffix(&eos).unwrap_or(&answer).to_owned();
        (tokenizer.decode_all(&sample.ids[..at]), answer)
    };
    let rows = pairs.iter().map(|pair| {
        let (prompt, chosen) = split(&pair.chosen);
        let (_, rejected) = split(&pair.rejected);
        serde_json::json!({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    });
    write_rows(rows, path)
}

/// Writes prompts as text.
pub(crate) fn write_prompts(prompts: &[PromptSample], path: &Path) -> Result<()> {
    write_rows(
        prompts
            .iter()
            .map(|prompt| serde_json::json!({"prompt": prompt.text})),
        path,
    )
}

fn write_rows(rows: impl Iterator<Item = serde_json::Value>, path: &Path) -> Result<()> {
    let text: String = rows.map(|row| format!("{row}\n")).collect();
    fs::write(path, text).with_context(|| path.display().to_string())
}
