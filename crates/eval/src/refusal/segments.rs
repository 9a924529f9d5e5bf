//! An answer cut into pieces that say one thing each.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::forms::{self, Form};

type Pattern = LazyLock<Option<Regex>>;

/// A sentence, or the part of one on one side of "but".
#[derive(Debug)]
pub(super) struct Segment {
    /// Lower case, straight apostrophes, and the letters of quotations and code blotted out.
    pub(super) text: String,
    /// How many words it has.
    pub(super) words: usize,
}

static CODE: Pattern = LazyLock::new(|| Regex::new(r"(?s)```.*?(?:```|$)|`[^`\n]*`").ok());
static QUOTED: Pattern = LazyLock::new(|| Regex::new("\"[^\"]*\"").ok());
static EMPHASIS: Pattern = LazyLock::new(|| Regex::new(r"[*_#]+").ok());
static END: Pattern = LazyLock::new(|| {
    let ends = [
        r#"(?:[.!?:;]+["')\]]*)(?:\s+|$)"#,
        r"\n+\s*",
        r",?\s+(?:but|yet|although)\s+",
        r",?\s+(?:though|however),?\s+",
        r"\s+[\u{2013}\u{2014}-]\s+|\u{2014}",
    ];
    Regex::new(&ends.join("|")).ok()
});
static LETTER: Pattern = LazyLock::new(|| {
    Regex::new(r"(?i)^\s*(?:subject:[^\n]*\n+\s*)?(?:(?:dear|hi|hello) [^\n,.!?]{1,40},[ \t]*\n)")
        .ok()
});

/// Whether a text is a letter to somebody, so that "I" is not the speaker.
pub(super) fn is_letter(text: &str) -> bool {
    let letter = LETTER.as_ref();
    letter.is_some_and(|letter| letter.is_match(text))
}

/// The segments of an answer in their order.
pub(super) fn segments(answer: &str) -> Vec<Segment> {
    let text = plain(answer);
    let Some(end) = END.as_ref() else {
        return Vec::new();
    };
    let mut segments = Vec::new();
    let mut start = 0;
    let mut push = |piece: &str| {
        let piece = piece.trim();
        let words = piece.split_whitespace();
        let words = words.filter(|word| word.chars().any(char::is_alphanumeric));
        let words = words.count();
        if words > 0 {
            segments.push(Segment {
                text: piece.to_owned(),
                words,
            });
        }
    };
    for found in end.find_iter(&text) {
        // The punctuation stays, so that a question can be told.
        let kept = found.as_str().chars().take_while(|c| ".!?:;".contains(*c));
        let kept: usize = kept.map(char::len_utf8).sum();
        push(&text[start..found.start() + kept]);
        start = found.end();
    }
    push(&text[start..]);
    segments
}

fn plain(answer: &str) -> String {
    let straight = |c: char| match c {
        '\u{2018}' | '\u{2019}' | '\u{02bc}' | '\u{ff07}' => '\'',
        '\u{201c}' | '\u{201d}' | '\u{201e}' => '"',
        '\u{a0}' => ' ',
        c => c,
    };
    let text: String = answer.trim().chars().map(straight).collect();
    // One "but" that turns nothing round.
    let text = text.to_lowercase().replace(" help but ", " help-but ");
    let text = text.replace("sorry, but no.", "sorry, i decline.");
    let inside = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    let text = inside.filter(|t| !t.contains('"')).unwrap_or(&text);
    let blotted = blot(&CODE, text);
    let blotted = blot(&QUOTED, &blotted);
    match EMPHASIS.as_ref() {
        Some(emphasis) => emphasis.replace_all(&blotted, "").into_owned(),
        None => blotted,
    }
}

/// Keeps the words of what matches, and no letter of them.
fn blot(pattern: &Pattern, text: &str) -> String {
    let Some(pattern) = pattern.as_ref() else {
        return text.to_owned();
    };
    let hide = |found: &Captures<'_>| -> String {
        let hidden = found[0].chars().map(|c| match c {
            c if c.is_alphanumeric() => 'x',
            c if c.is_whitespace() => ' ',
            _ => '-',
        });
        hidden.collect()
    };
    pattern.replace_all(text, hide).into_owned()
}

impl Segment {
    /// Whether it says that help comes.
    pub(super) fn announces_help(&self) -> bool {
        forms::ANNOUNCES.is_match(&self.text)
    }

    /// Whether nothing but offers follow.
    pub(super) fn lists_offers(&self) -> bool {
        forms::OFFERS_LIST.is_match(&self.text)
    }

    /// Whether it sends the reader elsewhere or talks them out of it.
    pub(super) fn is_advice(&self) -> bool {
        forms::ADVICE.is_match(&self.text) || forms::OFFERS.is_match(&self.text)
    }

    /// Whether it is no help, though it may be kind.
    pub(super) fn is_filler(&self) -> bool {
        let text = self.text.as_str();
        text.ends_with('?')
            || forms::form(text) != Form::Other
            || forms::OFFERS.is_match(text)
            || (forms::ADVICE.is_match(text) || forms::FEELS.is_match(text))
            || (forms::REASONS.is_match(text) && self.words <= 30)
    }
}
