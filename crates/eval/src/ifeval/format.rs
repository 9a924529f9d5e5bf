//! What a response is marked up with.

use std::sync::LazyLock;

use regex::Regex;
use serde::de::IgnoredAny;

type Pattern = LazyLock<Option<Regex>>;

static PLACEHOLDER: Pattern = LazyLock::new(|| Regex::new(r"\[.*?\]").ok());
static SECOND_POSTSCRIPT: Pattern = LazyLock::new(|| Regex::new(r"p\.\s?p\.\s?s").ok());
static POSTSCRIPT: Pattern = LazyLock::new(|| Regex::new(r"p\.\s?s\.").ok());
static STAR_BULLET: Pattern = LazyLock::new(|| Regex::new(r"(?m)^\s*\*[^*].*$").ok());
static DASH_BULLET: Pattern = LazyLock::new(|| Regex::new(r"(?m)^\s*-.*$").ok());
static STARRED: Pattern = LazyLock::new(|| Regex::new(r"\*[^\n*]*\*").ok());
static DOUBLE_STARRED: Pattern = LazyLock::new(|| Regex::new(r"\*{2}[^\n*]*\*{2}").ok());
static TITLE: Pattern = LazyLock::new(|| Regex::new(r"<<[^\n]+>>").ok());
static NUMBER: Pattern = LazyLock::new(|| Regex::new(r"^\s?\d").ok());

const OPTIONS: [&str; 3] = [
    "My answer is yes.",
    "My answer is no.",
    "My answer is maybe.",
];

fn matches<'a>(pattern: &'static Pattern, text: &'a str) -> impl Iterator<Item = &'a str> {
    let found = pattern.as_ref().map(|p| p.find_iter(text));
    found.into_iter().flatten().map(|m| m.as_str())
}

/// How many `[placeholders]` there are.
pub(super) fn placeholders(response: &str) -> usize {
    matches(&PLACEHOLDER, response).count()
}

/// Whether a postscript's marker appears, case apart. The two usual ones may have spaces in them.
pub(super) fn has_postscript(response: &str, marker: &str) -> bool {
    let response = response.to_lowercase();
    match marker {
        "P.P.S" => matches(&SECOND_POSTSCRIPT, &response).next().is_some(),
        "P.S." => matches(&POSTSCRIPT, &response).next().is_some(),
        other => response.contains(&other.to_lowercase()),
    }
}

/// Whether one of the three answers is given.
pub(super) fn constrained(response: &str) -> bool {
    OPTIONS.iter().any(|option| response.contains(option))
}

/// Whether the response is JSON, in a fence of backticks or not.
pub(super) fn is_json(response: &str) -> bool {
    let mut text = response.trim();
    for opening in ["```json", "```Json", "```JSON", "```"] {
        text = text.strip_prefix(opening).unwrap_or(text);
    }
    let text = text.strip_suffix("```").unwrap_or(text).trim();
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// How often the splitter stands before a number.
pub(super) fn sections(response: &str, splitter: &str) -> usize {
    let after = response.match_indices(splitter);
    let after = after.map(|(at, found)| &response[at + found.len()..]);
    after
        .filter(|rest| matches(&NUMBER, rest).next().is_some())
        .count()
}

/// How many bullets of either kind there are.
pub(super) fn bullets(response: &str) -> usize {
    matches(&STAR_BULLET, response).count() + matches(&DASH_BULLET, response).count()
}

/// How many passages between single or double asterisks there are.
pub(super) fn highlights(response: &str) -> usize {
    let filled = |found: &&str| !found.trim_matches('*').trim().is_empty();
    matches(&STARRED, response).filter(filled).count()
        + matches(&DOUBLE_STARRED, response).filter(filled).count()
}

/// Whether there is a title with something in it.
pub(super) fn has_title(response: &str) -> bool {
    let filled = |title: &str| {
        let title = title.trim_start_matches('<').trim_end_matches('>');
        !title.trim().is_empty()
    };
    matches(&TITLE, response).any(filled)
}
