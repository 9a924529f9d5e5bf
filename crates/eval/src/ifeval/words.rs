//! Words, keywords and letters.

use std::sync::LazyLock;

use regex::Regex;

use super::language::is_upper;

// Words with their combining marks, as NLTK has them from 3.10.
static WORD: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\w+").ok());
// What Python's `re` reads as words, without such marks: forbidden words have these edges.
static PLAIN_WORD: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"[\p{L}\p{N}_]+").ok());
// What the Penn Treebank's tokens never have inside.
static SEPARATOR: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new("[«“‘„»”’`\";@#$%&?!*\\[\\](){}<>\u{2012}-\u{2015}]|''|\\.{2,}|--|[:,](?:\\D|$)")
        .ok()
});
// Words that the Penn Treebank reads as two.
static FUSED: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?i)\b(can|gim|gon|got|lem|wan|d|more)(not|me|na|ta|'ye|'n)\b").ok()
});
const FUSIONS: [&str; 8] = [
    "cannot", "gimme", "gonna", "gotta", "lemme", "wanna", "d'ye", "more'n",
];
const SHORT_CLITICS: [&str; 6] = ["'s", "'S", "'m", "'M", "'d", "'D"];
const LONG_CLITICS: [&str; 8] = ["'ll", "'LL", "'re", "'RE", "'ve", "'VE", "n't", "N'T"];

/// How many words a text has: runs of letters, digits and `_`.
pub fn count_words(text: &str) -> usize {
    WORD.as_ref().map_or(0, |word| word.find_iter(text).count())
}

/// A text whose letters are the same in any case.
fn folded(text: &str) -> String {
    let lower = text.chars().flat_map(char::to_lowercase);
    let one_form = |c| match c {
        'ς' => 'σ',
        'ſ' => 's',
        c => c,
    };
    lower.map(one_form).collect()
}

/// How often a keyword appears, case apart, in words too.
pub(super) fn occurrences(text: &str, keyword: &str) -> usize {
    folded(text).matches(&folded(keyword)).count()
}

/// Whether a word appears, case apart, and no other word goes on where it begins or ends.
pub(super) fn has_word(text: &str, word: &str) -> bool {
    let (text, word) = (folded(text), folded(word));
    let words = PLAIN_WORD.as_ref().map(|word| word.find_iter(&text));
    let words = words.into_iter().flatten();
    let edges: Vec<usize> = words.flat_map(|w| [w.start(), w.end()]).collect();
    let is_edge = |at: usize| edges.binary_search(&at).is_ok();
    let mut from = 0;
    while let Some(at) = text[from..].find(&word).map(|at| from + at) {
        if is_edge(at) && is_edge(at + word.len()) {
            return true;
        }
        // Places may overlap: go on one character later.
        from = at + text[at..].chars().next().map_or(1, char::len_utf8);
    }
    false
}

/// How often a character appears, case apart.
pub(super) fn count_letter(text: &str, letter: char) -> usize {
    text.to_lowercase().chars().filter(|c| *c == letter).count()
}

/// How many words are in capitals alone. Words are the Penn Treebank's: `WELL-KNOWN` is one, `DON'T` and
/// `CANNOT` are two.
pub(super) fn count_capital_words(text: &str) -> usize {
    let mut count = 0;
    for chunk in separated(text).split_whitespace() {
        let (word, clitic) = split_clitic(chunk.trim_end_matches(['.', '\'']), &SHORT_CLITICS);
        for part in [Some(word), clitic].into_iter().flatten() {
            let (word, clitic) = split_clitic(part, &LONG_CLITICS);
            for part in [Some(word), clitic].into_iter().flatten() {
                count += split_fused(part).split(' ').filter(|w| is_upper(w)).count();
            }
        }
    }
    count
}

/// The text with spaces where a token ends. A colon or a comma before a digit does not end one.
fn separated(text: &str) -> String {
    let Some(separator) = SEPARATOR.as_ref() else {
        return text.to_owned();
    };
    let kept = |found: &regex::Captures<'_>| match found[0].strip_prefix([':', ',']) {
        Some(next) => format!(" {next}"),
        None => " ".to_owned(),
    };
    // Twice, for what follows a colon or a comma is passed over the first time.
    let once = separator.replace_all(text, kept);
    separator.replace_all(&once, kept).into_owned()
}

fn split_clitic<'a>(word: &'a str, clitics: &[&str]) -> (&'a str, Option<&'a str>) {
    for clitic in clitics {
        if let Some(stem) = word.strip_suffix(clitic)
            && !stem.is_empty()
            && !stem.ends_with('\'')
        {
            return (stem, Some(&word[stem.len()..]));
        }
    }
    (word, None)
}

fn split_fused(word: &str) -> String {
    let Some(fused) = FUSED.as_ref() else {
        return word.to_owned();
    };
    let split = |found: &regex::Captures<'_>| {
        if FUSIONS.contains(&found[0].to_lowercase().as_str()) {
            format!(" {} {} ", &found[1], &found[2])
        } else {
            found[0].to_owned()
        }
    };
    fused.replace_all(word, split).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capital_words_are_treebank_words() {
        for (text, count) in [
            ("WELL-KNOWN words, NASA's and the U.S. too", 3),
            ("I DON'T KNOW; I CANNOT SAY", 8),
            ("GOT'EM? A:B 3PM, 2:30PM \"YES\"", 6),
            ("Mixed Case and it's I'm", 1),
        ] {
            assert_eq!(count_capital_words(text), count, "{text}");
        }
    }

    #[test]
    fn words_have_edges() {
        assert!(has_word("Go, NO one", "no") && !has_word("know nothing", "no"));
        assert!(has_word("aa-aab b", "b") && !has_word("naïve", "na"));
        assert!(has_word("the ice cream man", "ice cream"));
        assert_eq!(occurrences("Banana BANANA", "ana"), 2);
    }
}
