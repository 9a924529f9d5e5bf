//! Sentences, as Punkt finds them (Kiss and Strunk 2006) with the English model of NLTK.
//!
//! The decisions are Punkt's. What it learnt from a corpus, which words are abbreviations and which words
//! begin sentences, is replaced by short lists of what those came to.

/// What ends in a period without ending a sentence, in lower case and sorted. `etc.`, `e.g.` and `i.e.`
/// are not among them: the English model does not know them.
const ABBREVIATIONS: [&str; 76] = [
    "a.d", "a.m", "ariz", "aug", "ave", "bros", "calif", "co", "col", "colo", "conn", "corp",
    "d.c", "dec", "dr", "feb", "fla", "fri", "ft", "ga", "gen", "ill", "inc", "j.k", "j.r", "jan",
    "jr", "kan", "ky", "l.a", "lt", "ltd", "m.b.a", "maj", "messrs", "mich", "minn", "mr", "mrs",
    "ms", "n.c", "n.h", "n.j", "n.m", "n.y", "nev", "nov", "oct", "okla", "ore", "p.m", "pa",
    "ph.d", "prof", "r.i", "rep", "reps", "s.c", "sen", "sep", "sept", "sr", "st", "tenn", "tues",
    "u.k", "u.n", "u.s", "u.s.a", "u.s.s.r", "va", "vs", "vt", "wash", "wed", "wis",
];

/// Single letters that are abbreviations before any word. The others are before a name only.
const LETTERS: &str = "cdefghklmnprstvw";

/// Words that, with a capital after an abbreviation or an ellipsis, begin a sentence; sorted.
const STARTERS: [&str; 52] = [
    "although",
    "both",
    "but",
    "consider",
    "does",
    "either",
    "even",
    "finally",
    "furthermore",
    "he",
    "her",
    "here",
    "however",
    "i",
    "if",
    "in",
    "instead",
    "it",
    "many",
    "meanwhile",
    "moreover",
    "most",
    "neither",
    "note",
    "overall",
    "please",
    "put",
    "remember",
    "since",
    "so",
    "some",
    "soon",
    "such",
    "the",
    "there",
    "therefore",
    "these",
    "they",
    "think",
    "this",
    "though",
    "thus",
    "tomorrow",
    "try",
    "were",
    "when",
    "which",
    "while",
    "without",
    "yes",
    "yesterday",
    "your",
];

/// Words that stand under a number in the newspaper that the model comes from, and so belong to `4.`
/// before them; sorted.
const HEADINGS: [&str; 13] = [
    "business",
    "commodities",
    "corrections",
    "credit",
    "dividend",
    "financing",
    "insider",
    "international",
    "leisure",
    "letters",
    "notable",
    "review",
    "who",
];

/// More words that are no names, and so begin a sentence after an initial; sorted.
const COMMON: [&str; 89] = [
    "a", "add", "after", "all", "also", "an", "and", "another", "are", "as", "at", "b", "be",
    "because", "before", "by", "can", "could", "did", "do", "during", "each", "every", "find",
    "first", "for", "from", "get", "give", "go", "had", "has", "have", "his", "how", "is", "its",
    "just", "keep", "later", "let", "look", "make", "may", "might", "my", "next", "no", "not",
    "now", "of", "on", "once", "one", "only", "or", "other", "our", "run", "second", "see", "set",
    "she", "should", "start", "stop", "take", "that", "their", "then", "third", "those", "three",
    "to", "today", "two", "until", "use", "was", "we", "what", "where", "who", "why", "will",
    "with", "would", "you", "z",
];

/// How many sentences a text has. Line ends do not end a sentence; `1.` before a capital does.
pub fn count_sentences(text: &str) -> usize {
    let mut chunks = Vec::new();
    for line in text.lines() {
        let before = std::iter::once("").chain(line.split_whitespace());
        chunks.extend(before.zip(line.split_whitespace()));
    }
    let mut count = usize::from(!chunks.is_empty());
    for (place, (before, chunk)) in chunks.iter().enumerate() {
        let next = chunks.get(place + 1).map(|(_, next)| *next);
        if let Some(rest) = ends_sentence(before, chunk, next) {
            // Closing marks at the very end belong to the last sentence.
            let closing = !rest.is_empty() && rest.chars().all(is_closing);
            count += usize::from(!(closing && next.is_none()));
        }
    }
    count
}

/// Whether a sentence ends in a chunk between white space: what is left of the chunk after the end.
/// `before` is the chunk before it on its line, if any.
fn ends_sentence<'a>(before: &str, chunk: &'a str, next: Option<&str>) -> Option<&'a str> {
    let mut end = None;
    let mut chars = chunk.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let candidate = match chars.peek() {
            Some((_, following)) => is_mark(*following),
            None => next.is_some(),
        };
        if candidate && matches!(c, '.' | '?' | '!') {
            end = Some(at + c.len_utf8());
        }
    }
    // Only the last candidate of a chunk counts.
    let (start, rest) = chunk.split_at(end?);
    let mut words = tokens(start);
    match rest.chars().next() {
        Some(mark) => words.push(&rest[..mark.len_utf8()]),
        None => words.extend(tokens(next.unwrap_or_default())),
    }
    let label = is_label(before);
    let mut ended = words.windows(2).map(|pair| is_end(pair[0], pair[1], label));
    ended.any(|end| end).then_some(rest)
}

/// Whether `A.` or `B.` after this is the label of an answer and not the initial of a name. Punkt goes by
/// the word after it alone, of which it has seen many more than the lists here have.
fn is_label(before: &str) -> bool {
    let name = before.starts_with(char::is_uppercase) && !before.ends_with(':');
    !(name || before.ends_with(',') || matches!(before, "and" | "&" | "by" | "of" | "with"))
}

/// What ends a word, beside white space.
fn is_mark(c: char) -> bool {
    matches!(
        c,
        ')' | '"' | ';' | '}' | ']' | '*' | ':' | '@' | '\'' | '(' | '{' | '[' | '?' | '!'
    ) || is_quote(c)
}

fn is_quote(c: char) -> bool {
    matches!(c, '‘' | '’' | '“' | '”' | '«' | '»')
}

/// What belongs to the sentence that it follows.
fn is_closing(c: char) -> bool {
    matches!(c, '"' | '\'' | ')' | ']' | '}') || is_quote(c)
}

/// Words and marks of a chunk. A period stays with its word.
fn tokens(chunk: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = chunk;
    while !rest.is_empty() {
        let (token, after) = rest.split_at(token_len(rest));
        tokens.push(token);
        rest = after;
    }
    tokens
}

fn token_len(text: &str) -> usize {
    if let Some(run) = run_len(text) {
        return run;
    }
    let ends = |rest: &str| match rest.chars().next() {
        None => true,
        Some(c) => is_mark(c) || run_len(rest).is_some(),
    };
    let is_single = |c: char| "(\"`{[:;&#*@)}]-,".contains(c);
    let mut chars = text.char_indices();
    let first = chars.next();
    if first.is_some_and(|(_, c)| is_single(c)) {
        return first.map_or(0, |(_, c)| c.len_utf8());
    }
    for (at, c) in chars {
        let rest = &text[at..];
        if ends(rest) || (c == ',' && ends(&rest[1..])) {
            return at;
        }
    }
    text.len()
}

/// The length of a run of two or more hyphens or periods.
fn run_len(text: &str) -> Option<usize> {
    let run = |mark| text.len() - text.trim_start_matches(mark).len();
    [run('-'), run('.')].into_iter().find(|len| *len > 1)
}

/// Whether a sentence ends between two tokens, where `A.` would be a label or would not.
fn is_end(token: &str, next: &str, label: bool) -> bool {
    if matches!(token, "?" | "!" | ".") {
        return true;
    }
    let Some(word) = token.strip_suffix('.') else {
        return false;
    };
    let first = next.chars().next();
    let capital = first.is_some_and(char::is_uppercase);
    let small = first.is_some_and(char::is_lowercase);
    let mark = matches!(next, ";" | ":" | "," | "." | "!" | "?");
    let key = next.trim_end_matches('.').to_lowercase();
    let among = |words: &[&str]| words.binary_search(&key.as_str()).is_ok();
    let starter = capital && among(&STARTERS);
    if word.ends_with('.') {
        // An ellipsis.
        return starter;
    }
    let lower = word.to_lowercase();
    if is_initial(word) {
        let label = label && matches!(lower.as_str(), "a" | "b");
        let name = capital && !label && !starter && !among(&COMMON);
        return !(LETTERS.contains(&lower) || mark || small || name);
    }
    let part = lower.rsplit('-').next().unwrap_or_default();
    let known = |word| ABBREVIATIONS.binary_search(&word).is_ok() || is_letter(word);
    if known(&lower) || known(part) {
        return starter;
    }
    !(is_number(word) && (mark || small || among(&HEADINGS)))
}

/// Whether a word is one letter.
fn is_initial(word: &str) -> bool {
    let mut chars = word.chars();
    chars.next().is_some_and(char::is_alphabetic) && chars.next().is_none()
}

/// Whether a part of a word is one of [`LETTERS`].
fn is_letter(part: &str) -> bool {
    is_initial(part) && LETTERS.contains(part)
}

/// Whether a word is written in digits.
fn is_number(word: &str) -> bool {
    let word = word.strip_prefix('-').unwrap_or(word);
    let word = word.strip_prefix(['.', ',']).unwrap_or(word);
    word.starts_with(char::is_numeric) && word.chars().all(|c| c.is_numeric() || ",.-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted() {
        assert!(ABBREVIATIONS.is_sorted() && STARTERS.is_sorted());
        assert!(HEADINGS.is_sorted() && COMMON.is_sorted());
    }

    #[test]
    fn sentences_end_where_punkt_ends_them() {
        // Counts by NLTK 3.10.4.
        for (text, count) in [
            ("", 0),
            (" \n", 0),
            ("No end", 1),
            ("Mr. Fox met Dr. Owl at 5 p.m. sharp. They talked!", 2),
            ("Really?! \"Yes!\" she said. (Or so.) End", 5),
            ("1. Cut it\n2. Cook it\n3. eat it", 3),
            ("Wait... what? Well...The end", 2),
            ("**Bold.** Then plain.", 2),
            ("He was born in the U.S. The town was small.", 2),
            ("A. Loud sounds\nB. The rest, by J. Smith", 3),
            ("3. Start\n4. Review", 2),
        ] {
            assert_eq!(count_sentences(text), count, "{text}");
        }
    }
}
