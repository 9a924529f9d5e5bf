//! Text of strangers on a terminal: made harmless, and broken into lines.

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

/// The text without anything that a terminal obeys or that reorders what is read. Control
/// characters become their pictures (escape is `␛`), invisible ones `<U+202E>`; tabs become
/// spaces, and line ends `\n`.
pub(crate) fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\n' => safe.push('\n'),
            '\r' if characters.peek() == Some(&'\n') => {}
            '\t' => safe.push_str("    "),
            '\u{0}'..='\u{1f}' => {
                safe.push(char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}'));
            }
            '\u{7f}' => safe.push('\u{2421}'),
            '\u{80}'..='\u{9f}'
            | '\u{ad}'
            | '\u{61c}'
            | '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}' => safe.push_str(&format!("<U+{:04X}>", u32::from(c))),
            c => safe.push(c),
        }
    }
    safe
}

/// [`safe`], on one line.
pub(crate) fn safe_line(text: &str) -> String {
    safe(text).replace('\n', "\u{2424}")
}

/// How many cells a safe text takes on a line.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// Breaks a safe text into lines of at most `columns` cells: between words, between wide
/// characters, and inside words that are longer than a line.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(2);
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        wrap_paragraph(paragraph, columns, &mut lines);
    }
    lines
}

fn wrap_paragraph(paragraph: &str, columns: usize, lines: &mut Vec<String>) {
    let (mut line, mut used) = (String::new(), 0);
    for (word, size) in words(paragraph) {
        if used + size <= columns {
            line.push_str(word);
            used += size;
            continue;
        }
        if word.starts_with(' ') {
            // Spaces end a line without starting the next.
            lines.push(std::mem::take(&mut line));
            used = 0;
            continue;
        }
        if size <= columns {
            lines.push(line.trim_end_matches(' ').to_owned());
            line = word.to_owned();
            used = size;
            continue;
        }
        for grapheme in word.graphemes(true) {
            let size = grapheme.width();
            if used + size > columns {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            line.push_str(grapheme);
            used += size;
        }
    }
    lines.push(line.trim_end_matches(' ').to_owned());
}

/// Runs of spaces, runs of other narrow characters, and wide characters one by one, with widths.
fn words(text: &str) -> Vec<(&str, usize)> {
    #[derive(PartialEq, Clone, Copy)]
    enum Kind {
        Space,
        Narrow,
        Wide,
    }
    let mut words: Vec<(&str, usize)> = Vec::new();
    let (mut start, mut size, mut last) = (0, 0, None);
    for (at, grapheme) in text.grapheme_indices(true) {
        let kind = match grapheme.width() {
            _ if grapheme == " " => Kind::Space,
            2.. => Kind::Wide,
            _ => Kind::Narrow,
        };
        if last.is_some_and(|last| last != kind || kind == Kind::Wide) {
            words.push((&text[start..at], size));
            (start, size) = (at, 0);
        }
        size += grapheme.width();
        last = Some(kind);
    }
    words.push((&text[start..], size));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_only_shown() {
        let said = safe("a\u{1b}[2Jb\u{7}\r\nc\rd\u{9b}31m\te\u{202e}f\u{7f}\u{200b}");
        assert_eq!(said, "a␛[2Jb␇\nc␍d<U+009B>31m    e<U+202E>f␡<U+200B>");
        assert_eq!(safe_line("a\nb"), "a␤b");
        let every: String = (0..0xa0).filter_map(char::from_u32).collect();
        assert!(!safe(&every).chars().any(|c| c.is_control() && c != '\n'));
    }

    #[test]
    fn lines_break_between_words_and_fit() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij kl", 4), ["abcd", "efgh", "ij", "kl"]);
        assert_eq!(wrap("a\n\nb", 10), ["a", "", "b"]);
        assert_eq!(wrap("", 10), [""]);
        assert_eq!(wrap("日本語のテキスト", 6), ["日本語", "のテキ", "スト"]);
        assert_eq!(wrap("ab 日本語", 7), ["ab 日本", "語"]);
        assert_eq!(wrap("    indented", 20), ["    indented"]);
    }

    #[test]
    fn no_line_is_too_wide_and_nothing_is_lost() {
        let text =
            "mixed 日本語 text, e\u{301}\u{301} 👩‍👩‍👧 family, averyveryverylongwordindeed   spaces";
        for columns in 2..40 {
            let lines = wrap(text, columns);
            assert!(
                lines.iter().all(|line| width(line) <= columns),
                "{columns}: {lines:?}"
            );
            let bare = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(bare(&lines.concat()), bare(text), "{columns}");
        }
    }
}
