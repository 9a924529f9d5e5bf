//! The sample browser: its data as JSON, its controls, and a plain list where scripts are off.

use std::borrow::Cow;
use std::fmt::Write;

use serde_json::{Value, json};

use super::page::{escape, script_json};
use crate::{EvalError, comparison::Comparison};

/// The browser holds at most this many samples; the page says how many were left out.
pub const MAX_ITEMS: usize = 500;

/// Values of single tokens are kept for at most this many tokens; later answers have none.
pub const MAX_TOKENS: usize = 200_000;

/// This many are listed where scripts are off.
const PLAIN: usize = 40;

/// One prompt and the answers to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BrowserItem {
    /// What was asked.
    pub prompt: String,
    /// The answers, one or more a system.
    pub answers: Vec<BrowserAnswer>,
}

/// One answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BrowserAnswer {
    /// Who gave it.
    pub system: String,
    /// What was answered.
    pub text: String,
    /// Its scores by name; higher is better, where one is compared with another.
    pub scores: Vec<(String, f64)>,
    /// Why it has no score, if it could not be scored.
    pub unscorable: Option<String>,
    /// Its tokens, if they are known; their texts make up `text`.
    pub tokens: Vec<TokenView>,
}

/// One token of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenView {
    /// What it adds to the text.
    pub text: String,
    /// Its log-probability under the system, in nats.
    pub logp: f64,
    /// Its part of the KL to the reference, in nats.
    pub kl: f64,
    /// Its reward, if there is one for each token.
    pub reward: Option<f64>,
}

/// The answers of a comparison one by one, with their metrics as scores.
pub fn items_of(comparison: &Comparison) -> Vec<BrowserItem> {
    items(&[], Some(comparison)).into_owned()
}

/// `samples`, or those of the comparison where there are none.
pub(super) fn items<'a>(
    samples: &'a [BrowserItem],
    comparison: Option<&Comparison>,
) -> Cow<'a, [BrowserItem]> {
    let Some(comparison) = comparison.filter(|_| samples.is_empty()) else {
        return Cow::Borrowed(samples);
    };
    let answers = |i: usize| {
        let answer = |system: &crate::System| BrowserAnswer {
            system: system.name.clone(),
            text: system.answers.get(i).cloned().unwrap_or_default(),
            scores: system
                .metrics
                .iter()
                .filter_map(|(name, values)| Some((name.trim().to_owned(), *values.get(i)?)))
                .collect(),
            ..BrowserAnswer::default()
        };
        comparison.systems.iter().map(answer).collect()
    };
    let item = |(i, prompt): (usize, &String)| BrowserItem {
        prompt: prompt.clone(),
        answers: answers(i),
    };
    Cow::Owned(comparison.prompts.iter().enumerate().map(item).collect())
}

/// True if a metric of this name is a KL divergence.
pub(super) fn is_kl(name: &str) -> bool {
    name.to_ascii_lowercase()
        .split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| word == "kl")
}

/// The scores of an answer, and its KL where only the tokens know it.
pub(super) fn scores(answer: &BrowserAnswer) -> Vec<(Cow<'_, str>, f64)> {
    let mut scores: Vec<(Cow<'_, str>, f64)> = answer
        .scores
        .iter()
        .map(|(name, value)| (Cow::Borrowed(name.trim()), *value))
        .collect();
    if !answer.tokens.is_empty() && !scores.iter().any(|(name, _)| is_kl(name)) {
        let kl = answer.tokens.iter().map(|t| t.kl).sum();
        scores.push((Cow::Borrowed("KL (nats)"), kl));
    }
    scores
}

/// The place of a name in a list, which grows by those that it lacks.
fn place(names: &mut Vec<String>, name: &str) -> usize {
    names.iter().position(|n| n == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    })
}

fn rounded(value: f64) -> Value {
    Value::from((value * 1e5).round() / 1e5)
}

fn data(items: &[BrowserItem]) -> Value {
    let (mut systems, mut metrics) = (Vec::new(), Vec::new());
    let (mut left, mut largest_reward) = (MAX_TOKENS, None::<f64>);
    let mut any_tokens = false;
    let mut rows = Vec::with_capacity(items.len());
    for item in items {
        let mut answers = Vec::with_capacity(item.answers.len());
        for answer in &item.answers {
            let mut values = Vec::new();
            for (name, value) in scores(answer) {
                let at = place(&mut metrics, &name);
                values.resize(values.len().max(at + 1), Value::Null);
                values[at] = rounded(value);
            }
            let mut tokens = Vec::new();
            if answer.tokens.len() <= left {
                left -= answer.tokens.len();
                for token in &answer.tokens {
                    any_tokens = true;
                    if let Some(reward) = token.reward.filter(|r| r.is_finite()) {
                        largest_reward = Some(largest_reward.unwrap_or(0.0).max(reward.abs()));
                    }
                    let reward = token.reward.map_or(Value::Null, rounded);
                    let (logp, kl) = (rounded(token.logp), rounded(token.kl));
                    tokens.push(json!([token.text, logp, kl, reward]));
                }
            }
            answers.push(json!({
                "s": place(&mut systems, &answer.system),
                "t": answer.text, "v": values, "u": answer.unscorable, "k": tokens,
            }));
        }
        rows.push(json!({"p": item.prompt, "a": answers}));
    }
    let kl = metrics.iter().position(|name| is_kl(name));
    json!({
        "systems": systems, "metrics": metrics, "kl": kl, "tokens": any_tokens,
        "rewards": largest_reward, "items": rows,
    })
}

/// The section's content.
///
/// # Errors
/// When the data cannot be written as JSON.
pub(super) fn browser(items: &[BrowserItem]) -> Result<String, EvalError> {
    let kept = &items[..items.len().min(MAX_ITEMS)];
    let mut body = String::new();
    if kept.len() < items.len() {
        let _ = write!(
            body,
            "<p class=dim>The first {} samples; {} more were left out.</p>",
            kept.len(),
            items.len() - kept.len()
        );
    }
    let data = data(kept);
    let tokens: usize = kept
        .iter()
        .flat_map(|i| &i.answers)
        .map(|a| a.tokens.len())
        .sum();
    if tokens > MAX_TOKENS {
        let _ = write!(
            body,
            "<p class=dim>Values of single tokens: only for the first {MAX_TOKENS} tokens.</p>"
        );
    }
    body.push_str(CONTROLS);
    let json = script_json(&data.to_string());
    let _ = write!(
        body,
        "<script type=\"application/json\" id=\"browser-data\">{json}</script><noscript>{}</noscript>",
        plain(kept)
    );
    Ok(body)
}

/// Without scripts: the first samples, folded.
fn plain(items: &[BrowserItem]) -> String {
    let mut body = String::new();
    for (i, item) in items.iter().enumerate().take(PLAIN) {
        let (id, prompt) = (i + 1, escape(&item.prompt));
        let _ = write!(
            body,
            "<details id=\"sample-{id}\"><summary>{prompt}</summary><dl>"
        );
        for answer in &item.answers {
            let score = match (&answer.unscorable, answer.scores.first()) {
                (Some(reason), _) => format!(" (not scorable: {})", escape(reason)),
                (None, Some((_, score))) => format!(" ({score:.2})"),
                (None, None) => String::new(),
            };
            let (name, text) = (escape(&answer.system), escape(&answer.text));
            let _ = write!(body, "<dt>{name}{score}</dt><dd>{text}</dd>");
        }
        body.push_str("</dl></details>");
    }
    body
}

/// What the script fills; hidden until it runs.
const CONTROLS: &str = include_str!("controls.html");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::System;

    fn answer(system: &str, tokens: usize) -> BrowserAnswer {
        let token = TokenView {
            text: "a".to_owned(),
            logp: -0.5,
            kl: 0.25,
            reward: Some(-2.0),
        };
        BrowserAnswer {
            system: system.to_owned(),
            text: "a".repeat(tokens),
            tokens: vec![token; tokens],
            ..BrowserAnswer::default()
        }
    }

    #[test]
    fn a_comparison_becomes_items_with_all_its_metrics() {
        let system = |name: &str, gold: f64| System {
            name: name.to_owned(),
            metrics: vec![
                ("gold".to_owned(), vec![gold]),
                ("  safety".to_owned(), vec![1.0]),
            ],
            totals: Vec::new(),
            answers: vec![format!("by {name}")],
        };
        let comparison = Comparison {
            prompts: vec!["p".to_owned()],
            systems: vec![system("sft", 0.5), system("ppo", f64::NAN)],
            seed: 0,
        };
        let found = items(&[], Some(&comparison));
        assert_eq!(found[0].answers[1].text, "by ppo");
        let data = data(&found);
        assert_eq!(data["metrics"], json!(["gold", "safety"]));
        assert_eq!(data["items"][0]["a"][0]["v"], json!([0.5, 1.0]));
        assert_eq!(data["items"][0]["a"][1]["v"], json!([null, 1.0]));
        let own = [BrowserItem::default()];
        assert_eq!(items(&own, Some(&comparison)).as_ref(), own);
    }

    #[test]
    fn tokens_give_a_kl_and_end_at_their_limit() {
        let item = BrowserItem {
            prompt: "p".to_owned(),
            answers: vec![answer("a", 4), answer("b", MAX_TOKENS), answer("c", 2)],
        };
        let data = data(std::slice::from_ref(&item));
        assert_eq!(data["metrics"], json!(["KL (nats)"]));
        assert_eq!((&data["kl"], &data["rewards"]), (&json!(0), &json!(2.0)));
        let answers = &data["items"][0]["a"];
        assert_eq!(answers[0]["v"], json!([1.0]));
        assert_eq!(answers[0]["k"][0], json!(["a", -0.5, 0.25, -2.0]));
        let kept = |i: usize| answers[i]["k"].as_array().map(Vec::len);
        assert_eq!((kept(1), kept(2)), (Some(0), Some(2)));
        assert!(browser(&[item]).unwrap().contains("only for the first"));
    }

    #[test]
    fn what_is_left_out_is_said() {
        let html = browser(&vec![BrowserItem::default(); MAX_ITEMS + 7]).unwrap();
        assert!(html.contains("7 more were left out"));
        assert_eq!(html.matches("<details").count(), PLAIN);
    }
}
