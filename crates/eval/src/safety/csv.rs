//! Comma-separated values as RFC 4180 has them, and nothing more lenient.

use crate::EvalError;

/// The records with the line on which each begins, from 1. All have as many fields as the first; a blank
/// line is none.
///
/// # Errors
/// If a quotation has no end or stands inside a field, or the number of fields changes.
pub(super) fn records(text: &str) -> Result<Vec<(usize, Vec<String>)>, EvalError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut records: Vec<(usize, Vec<String>)> = Vec::new();
    let (mut line, mut rest) = (1, text);
    while !rest.is_empty() {
        let start = line;
        let mut fields = Vec::new();
        loop {
            let (field, length) = field(rest).map_err(|reason| EvalError::line(start, reason))?;
            line += rest[..length].matches('\n').count();
            fields.push(field);
            rest = &rest[length..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        let end = rest
            .strip_prefix("\r\n")
            .or_else(|| rest.strip_prefix('\n'));
        rest = end.unwrap_or(rest);
        line += 1;
        if fields.len() == 1 && fields[0].is_empty() {
            continue;
        }
        if let Some((_, first)) = records.first() {
            let (found, expected) = (fields.len(), first.len());
            if found != expected {
                let reason = format!("{found} fields where the header has {expected}");
                return Err(EvalError::line(start, reason));
            }
        }
        records.push((start, fields));
    }
    Ok(records)
}

/// The first field, and how long it is with its quotation marks.
fn field(text: &str) -> Result<(String, usize), &'static str> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', '\n']).unwrap_or(text.len());
        let plain = text[..end].strip_suffix('\r').unwrap_or(&text[..end]);
        if plain.contains('"') {
            return Err("a quotation mark inside a field");
        }
        return Ok((plain.to_owned(), plain.len()));
    };
    let mut from = 0;
    while let Some(mark) = quoted[from..].find('"') {
        let mark = from + mark;
        let after = &quoted[mark + 1..];
        if after.starts_with('"') {
            from = mark + 2;
        } else if after.is_empty() || after.starts_with([',', '\n']) || after.starts_with("\r\n") {
            return Ok((quoted[..mark].replace("\"\"", "\""), mark + 2));
        } else {
            return Err("text after a quotation");
        }
    }
    Err("a quotation has no end")
}
