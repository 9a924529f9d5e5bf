//! Files of rows as records: which reader a file needs, which layout its rows have.

use std::{fs::File, io::BufReader, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    error::DataError,
    jsonl,
    layout::{self, Layout},
    parquet,
    record::Located,
};

/// The rows of one file.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// The file, for people.
    pub source: String,
    /// The layout, detected from the first row unless it was given.
    pub layout: Layout,
    /// The rows.
    pub records: Vec<Located>,
    /// Rows that cannot be used and were left out, with [`BadRows::Skip`] only.
    pub skipped: Vec<Skipped>,
}

/// A row that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// File and line.
    pub place: String,
    /// Why, with the field.
    pub reason: String,
}

/// What happens to a row that can be read but not used: a missing, empty or mistyped field, equal
/// answers, dialogues that part too early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadRows {
    /// An error that names it.
    #[default]
    Error,
    /// It is left out and listed in [`Dataset::skipped`]. A file that is broken as such (bad
    /// JSON, cut short) is an error all the same.
    Skip,
}

/// How a file is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// What happens to rows that cannot be used.
    pub bad_rows: BadRows,
    /// The layout; detected from the first row if not given.
    pub layout: Option<Layout>,
    /// Read this many rows at most.
    pub limit: Option<usize>,
}

/// One row, by column.
pub(crate) type Row = Map<String, Value>;

/// Takes a row and its place; false ends the reading.
pub(crate) type Sink<'a> = dyn FnMut(Row, String) -> Result<bool, DataError> + 'a;

/// Reads a `.jsonl`, `.ndjson` or `.json` file (plain, `.gz` or `.zst`), or a `.parquet` one,
/// strictly: [`load_with`] and its default options.
///
/// # Errors
/// Names file, line and field of the first bad row; an empty file is an error too.
pub fn load(path: &Path) -> Result<Dataset, DataError> {
    load_with(path, &LoadOptions::default())
}

/// Reads a file of rows. JSON is one object a line, or one array of objects in a `.json` file.
///
/// # Errors
/// Names file, line and field of the first bad row, unless such rows are skipped; a file that is
/// broken, empty, or has no usable row is always an error.
pub fn load_with(path: &Path, options: &LoadOptions) -> Result<Dataset, DataError> {
    let file_error = |reason: &str| file_error(path, reason);
    let mut layout = options.layout;
    let mut records = Vec::new();
    let mut skipped = Vec::new();
    let mut sink = |row: Row, place: String| {
        let layout = match layout {
            Some(layout) => layout,
            None => *layout.insert(layout::detect(&row, &place)?),
        };
        match layout::record(&row, layout, &place) {
            Ok(record) => records.push(Located { record, place }),
            Err(DataError::Row { place, reason }) if options.bad_rows == BadRows::Skip => {
                skipped.push(Skipped { place, reason });
            }
            Err(error) => return Err(error),
        }
        Ok(options.limit.is_none_or(|limit| records.len() < limit))
    };
    read(path, &mut sink)?;
    match layout {
        Some(layout) if !records.is_empty() => Ok(Dataset {
            source: path.display().to_string(),
            layout,
            records,
            skipped,
        }),
        _ if skipped.is_empty() => Err(file_error("has no rows")),
        _ => Err(DataError::File {
            path: path.to_owned(),
            reason: format!(
                "none of its {} rows can be used; the first: {}",
                skipped.len(),
                skipped[0].reason
            ),
        }),
    }
}

/// A row by column, after its place.
pub type PlacedRow = (String, Map<String, Value>);

/// Every row of a file as it stands, with the place that [`load`] gives it.
///
/// # Errors
/// When the file is broken.
pub fn rows(path: &Path) -> Result<Vec<PlacedRow>, DataError> {
    let mut rows = Vec::new();
    read(path, &mut |row, place| {
        rows.push((place, row));
        Ok(true)
    })?;
    Ok(rows)
}

fn file_error(path: &Path, reason: &str) -> DataError {
    DataError::File {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

/// Feeds the rows of a file to the sink by the reader that its name asks for.
fn read(path: &Path, sink: &mut Sink<'_>) -> Result<(), DataError> {
    let file = File::open(path).map_err(DataError::io(path))?;
    if path.is_dir() {
        return Err(file_error(path, "is a folder; name a file"));
    }
    let lower = path.display().to_string().to_lowercase();
    if lower.ends_with(".parquet") {
        parquet::rows(path, file, sink)
    } else if let Some(inner) = lower.strip_suffix(".gz").filter(|n| is_json(n)) {
        let reader = flate2::read::MultiGzDecoder::new(BufReader::new(file));
        jsonl::rows(path, inner, reader, sink)
    } else if let Some(inner) = lower.strip_suffix(".zst").filter(|n| is_json(n)) {
        let reader = zstd::Decoder::new(file).map_err(DataError::io(path))?;
        jsonl::rows(path, inner, reader, sink)
    } else if is_json(&lower) {
        jsonl::rows(path, &lower, file, sink)
    } else {
        Err(file_error(
            path,
            "unknown kind of file; there are .jsonl, .json, .ndjson (each also .gz or .zst) and \
             .parquet",
        ))
    }
}

fn is_json(name: &str) -> bool {
    [".jsonl", ".ndjson", ".json"]
        .iter()
        .any(|end| name.ends_with(end))
}
