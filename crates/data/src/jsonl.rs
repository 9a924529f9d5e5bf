//! JSON rows: one object a line, or one array of objects.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
};

use serde_json::Value;

use crate::{error::DataError, formats::Sink};

/// Feeds the rows to the sink one by one. `name` is the file's name without compression.
pub(crate) fn rows(
    path: &Path,
    name: &str,
    reader: impl Read,
    sink: &mut Sink<'_>,
) -> Result<(), DataError> {
    let mut reader = BufReader::new(reader);
    let mut bytes = Vec::new();
    for line in 1_usize.. {
        bytes.clear();
        let read = reader
            .read_until(b'\n', &mut bytes)
            .map_err(|e| DataError::File {
                path: path.to_owned(),
                reason: format!("line {line}: {e} (is the file whole?)"),
            })?;
        if read == 0 {
            break;
        }
        if line == 1 && bytes.starts_with(b"\xef\xbb\xbf") {
            bytes.drain(..3);
        }
        let mut text = bytes.trim_ascii();
        if text.is_empty() {
            continue;
        }
        if text.first() == Some(&b'[') && name.ends_with(".json") {
            reader
                .read_to_end(&mut bytes)
                .map_err(DataError::io(path))?;
            text = bytes.trim_ascii();
            return array(path, text, line, sink);
        }
        let place = format!("{}:{line}", path.display());
        match serde_json::from_slice::<Value>(text) {
            Ok(Value::Object(row)) => {
                if !sink(row, place)? {
                    break;
                }
            }
            Ok(other) => {
                let reason = format!("is {} where one JSON object is expected", kind(&other));
                return Err(DataError::malformed(&place, reason));
            }
            Err(e) => {
                let reason = format!("column {}: {}", e.column(), without_position(&e));
                return Err(DataError::malformed(&place, reason));
            }
        }
    }
    Ok(())
}

fn array(path: &Path, text: &[u8], first: usize, sink: &mut Sink<'_>) -> Result<(), DataError> {
    let items: Vec<Value> = serde_json::from_slice(text).map_err(|e| {
        let place = format!("{}:{}", path.display(), first + e.line().saturating_sub(1));
        DataError::malformed(
            &place,
            format!("column {}: {}", e.column(), without_position(&e)),
        )
    })?;
    for (index, item) in items.into_iter().enumerate() {
        let place = format!("{}: row {}", path.display(), index + 1);
        match item {
            Value::Object(row) => {
                if !sink(row, place)? {
                    break;
                }
            }
            other => {
                let reason = format!("is {} where a JSON object is expected", kind(&other));
                return Err(DataError::malformed(&place, reason));
            }
        }
    }
    Ok(())
}

/// The parser counts lines within one row; the file's line is in the place.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

/// What a JSON value is, for messages.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
