//! Where things stand in a response: its parts, how it begins, how it ends.

use std::sync::LazyLock;

use regex::Regex;

// At most one space belongs to a divider: a second one makes the paragraph after it.
static DIVIDER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\s?\*{3}\s?").ok());

/// Paragraphs between `***`. An empty one is no paragraph at either end, and makes the whole wrong
/// (`None`) elsewhere.
pub(super) fn paragraphs(response: &str) -> Option<usize> {
    let parts: Vec<&str> = DIVIDER.as_ref()?.split(response).collect();
    let last = parts.len() - 1;
    let mut count = 0;
    for (place, part) in parts.iter().enumerate() {
        if !part.trim().is_empty() {
            count += 1;
        } else if place != 0 && place != last {
            return None;
        }
    }
    Some(count)
}

/// Whether there are `paragraphs` with blank lines between them, the `nth` of which begins with
/// `first_word`. Empty paragraphs are not counted but do take a place.
pub(super) fn nth_paragraph_begins(
    response: &str,
    paragraphs: usize,
    nth: usize,
    first_word: &str,
) -> bool {
    let parts: Vec<&str> = response.split("\n\n").map(str::trim).collect();
    let count = parts.iter().filter(|part| !part.is_empty()).count();
    let part = nth.checked_sub(1).and_then(|place| parts.get(place));
    let Some(word) = part.and_then(|part| part.split_whitespace().next()) else {
        return false;
    };
    let word = word.trim_start_matches('\'').trim_start_matches('"');
    let word = word.split(['.', ',', '?', '!', '\'', '"']).next();
    nth <= count
        && count == paragraphs
        && word.is_some_and(|word| word.to_lowercase() == first_word)
}

/// Whether there are two different answers with `******` between them, and nothing else is.
pub(super) fn two_responses(response: &str) -> bool {
    let parts: Vec<&str> = response.split("******").map(str::trim).collect();
    let last = parts.len() - 1;
    let hole = |place: usize| place != 0 && place != last && parts[place].is_empty();
    if (0..parts.len()).any(hole) {
        return false;
    }
    let answers: Vec<&&str> = parts.iter().filter(|part| !part.is_empty()).collect();
    matches!(answers[..], [first, second] if first != second)
}

/// Whether the response begins with `prompt`, case apart.
pub(super) fn repeats(response: &str, prompt: &str) -> bool {
    let response = response.trim().to_lowercase();
    response.starts_with(&prompt.trim().to_lowercase())
}

/// Whether the response ends with `phrase`, case and closing quotation marks apart.
pub(super) fn ends_with(response: &str, phrase: &str) -> bool {
    let response = response.trim().trim_matches('"').to_lowercase();
    response.ends_with(&phrase.trim().to_lowercase())
}

/// Whether the response begins and ends with a double quotation mark.
pub(super) fn is_quoted(response: &str) -> bool {
    let response = response.trim();
    response.len() > 1 && response.starts_with('"') && response.ends_with('"')
}
