//! Open questions and tasks for comparing two models' answers.

use serde::{Deserialize, Serialize};

use crate::EvalError;

/// A question that has no single right answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// What the models are asked.
    pub prompt: String,
    /// What sort of task it is, such as `explain` or `code`.
    pub kind: String,
}

/// Reads questions from JSON lines with `prompt` and `kind`.
///
/// # Errors
/// If a line is not such an object, or its prompt is empty.
pub fn questions(jsonl: &str) -> Result<Vec<Question>, EvalError> {
    let lines = jsonl.lines().enumerate();
    let filled = lines.filter(|(_, line)| !line.trim().is_empty());
    filled
        .map(|(place, line)| {
            let question: Question = serde_json::from_str(line)
                .map_err(|error| EvalError::line(place + 1, error.to_string()))?;
            if question.prompt.trim().is_empty() {
                return Err(EvalError::line(place + 1, "`prompt` is empty"));
            }
            Ok(question)
        })
        .collect()
}

/// Questions written for Togi: eight kinds, ten of each.
///
/// # Errors
/// None that a test would not have seen.
pub fn set() -> Result<Vec<Question>, EvalError> {
    questions(include_str!("../sets/questions.jsonl"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn our_set_has_eight_kinds_of_ten() {
        let set = set().unwrap();
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for (place, question) in set.iter().enumerate() {
            *kinds.entry(&question.kind).or_default() += 1;
            let same = set.iter().position(|q| q.prompt == question.prompt);
            assert_eq!(same, Some(place), "{}", question.prompt);
            assert!(question.prompt.split_whitespace().count() <= 60);
        }
        assert_eq!(kinds.len(), 8);
        assert!(kinds.values().all(|count| *count == 10), "{kinds:?}");
    }

    #[test]
    fn a_wrong_line_is_named() {
        let good = r#"{"prompt": "a", "kind": "b"}"#;
        for (line, said) in [
            ("{}", "line 2: missing field"),
            (
                r#"{"prompt": " ", "kind": "b"}"#,
                "line 2: `prompt` is empty",
            ),
        ] {
            let error = questions(&format!("{good}\n{line}")).unwrap_err();
            assert!(error.to_string().starts_with(said), "{error}");
        }
    }
}
