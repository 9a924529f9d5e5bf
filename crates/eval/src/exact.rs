//! Word problems whose answer is one number, in the manner of GSM8K (Cobbe et al. 2021).

mod extract;
mod number;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{EvalError, Interval, bootstrap::share_interval};

pub use extract::answer_of;
pub use number::Number;

/// A problem with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What the model is asked.
    pub question: String,
    /// The number it should find.
    pub answer: Number,
}

/// A line; other fields are ignored.
#[derive(Deserialize)]
struct Line {
    #[serde(alias = "prompt")]
    question: String,
    answer: Value,
}

/// Reads problems from JSON lines with `question` (or `prompt`) and `answer`: a number, or a text from which
/// [`answer_of`] takes it. Other fields are ignored.
///
/// # Errors
/// If a line is not such an object, or its answer has no number.
pub fn problems(jsonl: &str) -> Result<Vec<Problem>, EvalError> {
    let lines = jsonl.lines().enumerate();
    let filled = lines.filter(|(_, line)| !line.trim().is_empty());
    filled
        .map(|(place, line)| problem(place + 1, line))
        .collect()
}

fn problem(number: usize, line: &str) -> Result<Problem, EvalError> {
    let line: Line =
        serde_json::from_str(line).map_err(|error| EvalError::line(number, error.to_string()))?;
    let answer = match &line.answer {
        Value::String(text) => answer_of(text),
        Value::Number(value) => answer_of(&value.to_string()),
        _ => None,
    };
    Ok(Problem {
        question: line.question,
        answer: answer.ok_or_else(|| EvalError::line(number, "`answer` has no number"))?,
    })
}

/// Problems written for Togi, which take one to three steps.
///
/// # Errors
/// None that a test would not have seen.
pub fn set() -> Result<Vec<Problem>, EvalError> {
    problems(include_str!("../sets/arithmetic.jsonl"))
}

/// The verdict on one response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// Its number is the answer.
    Correct,
    /// It has another number.
    Wrong,
    /// It has no number.
    Unscorable,
}

impl Problem {
    /// Compares the number of a response with the answer, exactly: `0.33` is not `1/3`.
    pub fn grade(&self, response: &str) -> Grade {
        match answer_of(response) {
            Some(number) if number == self.answer => Grade::Correct,
            Some(_) => Grade::Wrong,
            None => Grade::Unscorable,
        }
    }
}

/// What a model's responses come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Responses with the right number.
    pub correct: usize,
    /// Responses with another.
    pub wrong: usize,
    /// Responses without one.
    pub unscorable: usize,
}

impl Summary {
    /// Of the grades of a set of problems.
    pub fn of(grades: &[Grade]) -> Self {
        let count = |wanted| grades.iter().filter(|grade| **grade == wanted).count();
        Self {
            correct: count(Grade::Correct),
            wrong: count(Grade::Wrong),
            unscorable: count(Grade::Unscorable),
        }
    }

    /// The share of all problems that are solved, with its 95% Wilson interval. A response without a number
    /// solves none.
    ///
    /// # Errors
    /// Without problems.
    pub fn accuracy(&self) -> Result<Interval, EvalError> {
        let of = self.correct + self.wrong + self.unscorable;
        let share = self.correct as f64 / (of as f64).max(1.0);
        share_interval("problems", share, of)
    }
}

#[cfg(test)]
mod tests;
