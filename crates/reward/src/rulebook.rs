//! Rules about the form of answers, as a file: a reward, a judge or a guard without a model.

use std::{fs, path::Path};

use regex::Regex;
use serde::Deserialize;

use crate::{Reward, Scorable, Score, Unscorable};

/// One rule.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Rule {
    /// Has this text.
    Required { text: String },
    /// Does not have it.
    Banned { text: String },
    /// A part of it matches.
    Matches { regex: String },
    /// No part of it matches.
    NotMatches { regex: String },
    /// Has at least so many words.
    MinWords { words: usize },
    /// Has at most so many words.
    MaxWords { words: usize },
    /// Is JSON as a whole.
    Json {},
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default = "one")]
    weight: f64,
    #[serde(flatten)]
    rule: Rule,
}

fn one() -> f64 {
    1.0
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    rule: Vec<Entry>,
}

/// A test of an answer.
enum Test {
    Has(String),
    Lacks(String),
    Matches(Regex),
    Avoids(Regex),
    AtLeast(usize),
    AtMost(usize),
    Json,
}

impl Test {
    fn holds(&self, answer: &str) -> bool {
        match self {
            Self::Has(text) => answer.contains(text.as_str()),
            Self::Lacks(text) => !answer.contains(text.as_str()),
            Self::Matches(regex) => regex.is_match(answer),
            Self::Avoids(regex) => !regex.is_match(answer),
            Self::AtLeast(words) => answer.split_whitespace().count() >= *words,
            Self::AtMost(words) => answer.split_whitespace().count() <= *words,
            Self::Json => serde_json::from_str::<serde::de::IgnoredAny>(answer.trim()).is_ok(),
        }
    }
}

/// What is wrong with a file of rules.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct RulebookError {
    place: String,
    reason: String,
}

/// Rules with weights. The score is minus the weights of those that are broken, so 0 is the best.
///
/// ```toml
/// [[rule]]
/// kind = "banned"        # or required, matches, not_matches, min_words, max_words, json
/// text = "as an AI"
/// weight = 0.5           # 1 if not given
/// ```
pub struct Rulebook {
    name: String,
    rules: Vec<(f64, Test)>,
}

impl Rulebook {
    /// Reads a file.
    ///
    /// # Errors
    /// Names the file, and the rule that is wrong: an unknown kind, a regular expression that is none, an
    /// empty text, which everything has, a weight that is not a positive number.
    pub fn read(path: &Path) -> Result<Self, RulebookError> {
        let place = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|e| RulebookError {
            place: place.clone(),
            reason: e.to_string(),
        })?;
        Self::parse(&text, &place)
    }

    fn parse(text: &str, place: &str) -> Result<Self, RulebookError> {
        let wrong = |reason: String| RulebookError {
            place: place.to_owned(),
            reason,
        };
        let file: File = toml::from_str(text).map_err(|e| wrong(e.to_string()))?;
        if file.rule.is_empty() {
            return Err(wrong("has no [[rule]]".to_owned()));
        }
        let mut rules = Vec::with_capacity(file.rule.len());
        for (number, Entry { weight, rule }) in file.rule.into_iter().enumerate() {
            let wrong = |reason: String| wrong(format!("rule {}: {reason}", number + 1));
            if !(weight.is_finite() && weight > 0.0) {
                return Err(wrong(format!("weight {weight} is not a positive number")));
            }
            let text = |text: String| match text.is_empty() {
                true => Err(wrong("`text` is empty".to_owned())),
                false => Ok(text),
            };
            let regex = |regex: &str| Regex::new(regex).map_err(|e| wrong(e.to_string()));
            let test = match rule {
                Rule::Required { text: wanted } => Test::Has(text(wanted)?),
                Rule::Banned { text: banned } => Test::Lacks(text(banned)?),
                Rule::Matches { regex: wanted } => Test::Matches(regex(&wanted)?),
                Rule::NotMatches { regex: banned } => Test::Avoids(regex(&banned)?),
                Rule::MinWords { words } => Test::AtLeast(words),
                Rule::MaxWords { words } => Test::AtMost(words),
                Rule::Json {} => Test::Json,
            };
            rules.push((weight, test));
        }
        Ok(Self {
            name: format!("rules of {place}"),
            rules,
        })
    }
}

impl Reward for Rulebook {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn score(&self, batch: &[Scorable<'_>]) -> Vec<Result<Score, Unscorable>> {
        let broken = |item: &Scorable<'_>| {
            let broken = self
                .rules
                .iter()
                .filter(|(_, test)| !test.holds(item.completion));
            broken.map(|(weight, _)| weight).sum::<f64>()
        };
        batch
            .iter()
            .map(|item| Score::new(0.0 - broken(item)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(rules: &str, answer: &str) -> f64 {
        let rules = Rulebook::parse(rules, "r.toml").unwrap();
        let item = Scorable {
            prompt: "p",
            prompt_ids: &[],
            completion: answer,
            completion_ids: &[],
        };
        rules.score(&[item])[0].as_ref().unwrap().value
    }

    #[test]
    fn broken_rules_cost_their_weight() {
        let rules = r#"
            [[rule]]
            kind = "banned"
            text = "as an AI"
            weight = 0.5
            [[rule]]
            kind = "matches"
            regex = "^[A-Z]"
            [[rule]]
            kind = "max_words"
            words = 5
        "#;
        assert_eq!(score(rules, "Fine by me"), 0.0);
        assert_eq!(score(rules, "as an AI I am fine with all of it"), -2.5);
        let json = "[[rule]]\nkind = 'json'\n[[rule]]\nkind = 'min_words'\nwords = 2";
        assert_eq!(score(json, "{\"a\": 1}"), 0.0);
        assert_eq!(score(json, "{a}"), -2.0);
    }

    #[test]
    fn mistakes_are_named() {
        let error = |rules: &str| match Rulebook::parse(rules, "r.toml") {
            Ok(_) => panic!("{rules} was read"),
            Err(error) => error.to_string(),
        };
        assert!(error("rule = []").contains("r.toml: has no [[rule]]"));
        assert!(error("[[rule]]\nkind = 'matches'\nregex = '('").contains("rule 1: regex"));
        assert!(error("[[rule]]\nkind = 'banned'\ntext = ''").contains("`text` is empty"));
        assert!(error("[[rule]]\nkind = 'json'\nweight = -1").contains("weight -1"));
        assert!(error("[[rule]]\nkind = 'jsn'").contains("jsn"));
        assert!(error("[[rule]]\nkind = 'json'\ntext = 'x'").contains("text"));
    }
}
