//! Files of rows: JSONL (plain, gzip, zstd) and Parquet.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Map, Value};

use crate::{
    error::DataError,
    layout::{self, Layout},
    record::Located,
};

/// The rows of one file.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// The file, for people.
    pub source: String,
    /// The layout that was detected from the first row.
    pub layout: Layout,
    /// The rows.
    pub records: Vec<Located>,
}

/// Reads a `.jsonl` / `.json` (one object a line), `.jsonl.gz`, `.jsonl.zst` or `.parquet` file.
///
/// # Errors
/// Names file, line and field of the first bad row; an empty file is an error too.
pub fn load(path: &Path) -> Result<Dataset, DataError> {
    let name = path.display().to_string();
    let file_error = |reason: String| DataError::File { path: path.to_owned(), reason };
    let file = File::open(path).map_err(DataError::io(path))?;
    if path.is_dir() {
        return Err(file_error("is a folder; name a file".to_owned()));
    }
    let rows = if name.ends_with(".parquet") {
        parquet_rows(path, file)?
    } else if name.ends_with(".gz") {
        json_rows(path, flate2::read::MultiGzDecoder::new(BufReader::new(file)))?
    } else if name.ends_with(".zst") {
        let reader = zstd::Decoder::new(file).map_err(DataError::io(path))?;
        json_rows(path, reader)?
    } else if name.ends_with(".jsonl") || name.ends_with(".json") || name.ends_with(".ndjson") {
        json_rows(path, file)?
    } else {
        let reason = "unknown kind of file; there are .jsonl, .jsonl.gz, .jsonl.zst and .parquet";
        return Err(file_error(reason.to_owned()));
    };
    let mut layout = None;
    let mut records = Vec::with_capacity(rows.len());
    for (line, row) in rows {
        let place = format!("{name}:{line}");
        let layout = match layout {
            Some(layout) => layout,
            None => *layout.insert(layout::detect(&row, &place)?),
        };
        let record = layout::record(&row, layout, &place)?;
        records.push(Located { record, place });
    }
    match layout {
        Some(layout) => Ok(Dataset { source: name, layout, records }),
        None => Err(file_error("has no rows".to_owned())),
    }
}

type Row = (usize, Map<String, Value>);

fn json_rows(path: &Path, reader: impl Read) -> Result<Vec<Row>, DataError> {
    let mut rows = Vec::new();
    let mut reader = BufReader::new(reader);
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let read = reader.read_until(b'\n', &mut bytes).map_err(|e| DataError::File {
            path: path.to_owned(),
            reason: format!("line {line}: {e} (is the file whole?)"),
        })?;
        if read == 0 {
            break;
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let row = serde_json::from_slice::<Value>(&bytes);
        let place = || format!("{}:{line}", path.display());
        match row {
            Ok(Value::Object(row)) => rows.push((line, row)),
            Ok(_) => return Err(DataError::row(&place(), "is not a JSON object")),
            Err(e) => {
                let reason = format!("column {}: {e}", e.column());
                return Err(DataError::row(&place(), reason));
            }
        }
    }
    Ok(rows)
}

fn parquet_rows(path: &Path, file: File) -> Result<Vec<Row>, DataError> {
    let wrong = |e: parquet::errors::ParquetError| DataError::File {
        path: path.to_owned(),
        reason: e.to_string(),
    };
    let reader = SerializedFileReader::new(file).map_err(wrong)?;
    let rows = reader.get_row_iter(None).map_err(wrong)?;
    let mut all = Vec::new();
    for (index, row) in rows.enumerate() {
        let row = row.map_err(wrong)?;
        let fields = row
            .get_column_iter()
            .map(|(name, value)| (name.clone(), json(value)))
            .collect();
        all.push((index + 1, fields));
    }
    Ok(all)
}

/// A Parquet value as JSON, as far as text data goes.
fn json(value: &parquet::record::Field) -> Value {
    use parquet::record::Field;
    match value {
        Field::Null => Value::Null,
        Field::Bool(x) => Value::from(*x),
        Field::Byte(x) => Value::from(*x),
        Field::Short(x) => Value::from(*x),
        Field::Int(x) => Value::from(*x),
        Field::Long(x) => Value::from(*x),
        Field::UByte(x) => Value::from(*x),
        Field::UShort(x) => Value::from(*x),
        Field::UInt(x) => Value::from(*x),
        Field::ULong(x) => Value::from(*x),
        Field::Float(x) => Value::from(*x),
        Field::Double(x) => Value::from(*x),
        Field::Str(text) => Value::from(text.as_str()),
        Field::Group(row) => Value::Object(
            row.get_column_iter()
                .map(|(name, value)| (name.clone(), json(value)))
                .collect(),
        ),
        Field::ListInternal(list) => Value::Array(list.elements().iter().map(json).collect()),
        other => Value::from(other.to_string()),
    }
}
