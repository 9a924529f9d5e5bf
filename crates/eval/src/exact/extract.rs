//! Where the final answer of a worked solution stands.

use std::sync::LazyLock;

use regex::Regex;

use super::number::{Number, numbers, plain};

type Pattern = LazyLock<Option<Regex>>;

static NEXT_QUESTION: Pattern = LazyLock::new(|| Regex::new(r"\n\s*(?:Question|Q):").ok());
// What may stand between `####` and the number.
static LEAD: Pattern = LazyLock::new(|| {
    Regex::new(r"(?i)^(?:[^\p{L}0-9]|\b(?:the|final|answer|is|usd|eur|gbp|rs|negative|minus)\b|\b[a-z]\s*=)*$").ok()
});
static FIRST_DIGIT: Pattern = LazyLock::new(|| Regex::new(r"\.?[0-9]").ok());
// A numbered heading, such as `#### 1. Add them up`.
static HEADING: Pattern = LazyLock::new(|| Regex::new(r"^\W*[0-9]+\s*[.):]\s*\p{L}").ok());
static SAID: Pattern = LazyLock::new(|| {
    Regex::new(r"(?i)\banswer\b[^.\n0-9]{0,40}?(?:\b(?:is|are|was|equals|be)\b|[:=]|\n)").ok()
});
static SENTENCE_END: Pattern = LazyLock::new(|| Regex::new(r"\n|[.!?](?:\s|$)").ok());

/// The final number of a text; `None` if it has none, or one that no `i128` holds.
///
/// In this order, and the last of each: after `####`; in `\boxed{}` (where other content than a number is
/// an answer without one); in a sentence after "answer is", "answer:" and the like; anywhere. Separators of
/// thousands, signs, decimals, fractions, mixed numbers, powers of ten and "million" are read; currencies,
/// percent signs and units are passed over, so `50%` is 50. Where a text goes on with another `Question:`,
/// the rest is ignored.
///
/// Other than the two regular expressions of lm-eval's `gsm8k`, on purpose:
/// - its strict one takes the *first* `####` (here a numbered heading is none, and the last counts), wants one
///   space and then the number, and knows no currency there (`#### $5`);
/// - its flexible one takes the last number, whatever was announced before it in a box or a sentence;
/// - it takes dots or commas alone for a number, and has signs where there are subtractions and ranges
///   (`10-3`), 1 and 2 in `1/2`, and 2 in `H2O2` and `m^2`;
/// - it compares texts, so that `5.00` is not `5`.
pub fn answer_of(text: &str) -> Option<Number> {
    let end = NEXT_QUESTION.as_ref().and_then(|q| q.find(text));
    let end = end.filter(|end| !text[..end.start()].trim().is_empty());
    let text = plain(end.map_or(text, |end| &text[..end.start()]));
    let found = after_marker(&text)
        .or_else(|| in_box(&text))
        .or_else(|| said(&text))
        .or_else(|| numbers(&text).pop());
    found.flatten()
}

/// The first number after the last equals sign, if there is one.
fn result(clause: &str) -> Option<Option<Number>> {
    let parts = clause.rsplit(['=', '≈']);
    let mut read = parts.map(numbers).filter(|found| !found.is_empty());
    read.next().and_then(|found| found.into_iter().next())
}

fn after_marker(text: &str) -> Option<Option<Number>> {
    for (place, marker) in text.rmatch_indices("####") {
        let rest = text[place + marker.len()..].trim_start();
        let line = rest.lines().next().unwrap_or_default();
        let digit = FIRST_DIGIT.as_ref()?.find(line);
        let Some(digit) = digit else { continue };
        let lead = LEAD.as_ref()?.is_match(&line[..digit.start()]);
        if lead && !HEADING.as_ref()?.is_match(line) {
            return result(line);
        }
    }
    None
}

fn in_box(text: &str) -> Option<Option<Number>> {
    for (place, opening) in text.rmatch_indices("boxed{") {
        let rest = &text[place + opening.len()..];
        let mut depth = 1;
        let end = rest.find(|c| {
            depth += match c {
                '{' => 1,
                '}' => -1,
                _ => 0,
            };
            depth == 0
        });
        let inside = rest[..end.unwrap_or(rest.len())].trim();
        if !inside.is_empty() {
            return Some(result(inside).flatten());
        }
    }
    None
}

fn said(text: &str) -> Option<Option<Number>> {
    let found: Vec<_> = SAID.as_ref()?.find_iter(text).collect();
    for said in found.iter().rev() {
        let rest = text[said.end()..].trim_start();
        if rest.starts_with("not ") {
            continue;
        }
        // A dot before a digit, as in `.5`, ends no sentence.
        let end = SENTENCE_END.as_ref()?.find(rest);
        let clause = &rest[..end.map_or(rest.len(), |end| end.start())];
        if let Some(number) = result(clause) {
            return Some(number);
        }
    }
    None
}
