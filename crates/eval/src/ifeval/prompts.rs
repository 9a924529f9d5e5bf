//! Prompts with their instructions, from JSONL; and a small set of our own.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Instruction;
use crate::EvalError;

/// A prompt with what a program checks of the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// What the model is asked.
    pub prompt: String,
    /// What the prompt asks for that can be checked.
    pub instructions: Vec<Instruction>,
}

/// A line as the paper's data has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default, rename = "key")]
    _key: Option<u64>,
    prompt: String,
    instruction_id_list: Vec<String>,
    kwargs: Vec<Map<String, Value>>,
}

/// Reads prompts from JSON lines with `prompt`, `instruction_id_list`, `kwargs` and perhaps `key`.
///
/// # Errors
/// If a line is not such an object, or an instruction of it cannot be checked.
pub fn prompts(jsonl: &str) -> Result<Vec<Prompt>, EvalError> {
    let lines = jsonl.lines().enumerate();
    let filled = lines.filter(|(_, line)| !line.trim().is_empty());
    filled
        .map(|(place, line)| prompt(place + 1, line))
        .collect()
}

fn prompt(number: usize, line: &str) -> Result<Prompt, EvalError> {
    let wrong = |reason: String| EvalError::Line { number, reason };
    let line: Line = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
    let (ids, kwargs) = (&line.instruction_id_list, &line.kwargs);
    if ids.len() != kwargs.len() {
        let counts = format!("{} instructions, {} kwargs", ids.len(), kwargs.len());
        return Err(wrong(counts));
    }
    let pairs = ids.iter().zip(kwargs);
    let parsed: Result<_, EvalError> = pairs.map(|(id, k)| Instruction::parse(id, k)).collect();
    Ok(Prompt {
        instructions: parsed.map_err(|error| wrong(error.to_string()))?,
        prompt: line.prompt,
    })
}

/// Prompts written for Togi, every kind at least twice, which a small model can answer in 128 tokens.
///
/// # Errors
/// None that a test would not have seen.
pub fn set() -> Result<Vec<Prompt>, EvalError> {
    prompts(include_str!("../../sets/instructions.jsonl"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ifeval::IDS;

    #[test]
    fn our_set_has_every_kind_twice() {
        let set = set().unwrap();
        assert!(set.len() >= 60, "{}", set.len());
        for id in IDS {
            let ids = set
                .iter()
                .flat_map(|p| p.instructions.iter().map(Instruction::id));
            let count = ids.filter(|other| *other == id).count();
            assert!(count >= 2, "{id}: {count}");
        }
        for (place, prompt) in set.iter().enumerate() {
            let same = |other: &Prompt| other.prompt == prompt.prompt;
            assert_eq!(set.iter().position(same), Some(place), "{}", prompt.prompt);
        }
    }

    #[test]
    fn a_wrong_line_is_named() {
        let good = r#"{"prompt": "a", "instruction_id_list": [], "kwargs": []}"#;
        let uneven = r#"{"prompt": "a", "instruction_id_list": ["x"], "kwargs": []}"#;
        let unknown = r#"{"prompt": "a", "instruction_id_list": ["x"], "kwargs": [{}]}"#;
        for (line, said) in [
            ("{}", "missing field"),
            (uneven, "1 inst"),
            (unknown, "`x`"),
        ] {
            let error = prompts(&format!("{good}\n\n{line}"))
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with("line 3: ") && error.contains(said),
                "{error}"
            );
        }
    }
}
