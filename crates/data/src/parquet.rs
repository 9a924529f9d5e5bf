//! Parquet files through the row interface of the `parquet` crate, without Arrow.

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use parquet::{
    errors::ParquetError,
    file::reader::{FileReader, SerializedFileReader},
    record::Field,
    schema::types::Type,
};
use serde_json::Value;

use crate::{
    error::DataError,
    formats::{Row, Sink},
    layout,
};

/// Feeds the rows to the sink one by one. Columns that no layout knows are not read; they are
/// null in the row, so that an error can name them.
pub(crate) fn rows(path: &Path, file: File, sink: &mut Sink<'_>) -> Result<(), DataError> {
    // The crate indexes by what the file says and may panic on a hostile file: that is an error
    // of the file like any other.
    match catch_unwind(AssertUnwindSafe(|| read(path, file, sink))) {
        Ok(result) => result,
        Err(_) => Err(DataError::File {
            path: path.to_owned(),
            reason: "is not a valid Parquet file: its metadata or pages contradict themselves"
                .to_owned(),
        }),
    }
}

fn read(path: &Path, file: File, sink: &mut Sink<'_>) -> Result<(), DataError> {
    let wrong = |e: ParquetError| DataError::File {
        path: path.to_owned(),
        reason: format!("{e} (is the file whole?)"),
    };
    let reader = SerializedFileReader::new(file).map_err(wrong)?;
    let metadata = reader.metadata().file_metadata();
    let schema = metadata.schema();
    let (known, other): (Vec<_>, Vec<_>) = schema
        .get_fields()
        .iter()
        .cloned()
        .partition(|field| layout::COLUMNS.contains(&field.name()));
    let other: Vec<String> = other.iter().map(|field| field.name().to_owned()).collect();
    let nulls = || other.iter().map(|name| (name.clone(), Value::Null));
    if known.is_empty() {
        sink(nulls().collect(), path.display().to_string())?;
        return Ok(());
    }
    let projection = projection(schema, known).map_err(wrong)?;
    let rows = reader.get_row_iter(Some(projection)).map_err(wrong)?;
    for (index, row) in rows.enumerate() {
        let place = format!("{}: row {}", path.display(), index + 1);
        let row =
            row.map_err(|e| DataError::malformed(&place, format!("{e} (is the file whole?)")))?;
        let mut fields = Row::new();
        for (name, field) in row.get_column_iter() {
            let value = json(field)
                .map_err(|reason| DataError::row(&place, format!("field `{name}`: {reason}")))?;
            fields.insert(name.clone(), value);
        }
        fields.extend(nulls());
        if !sink(fields, place)? {
            break;
        }
    }
    Ok(())
}

fn projection(schema: &Type, fields: Vec<Arc<Type>>) -> Result<Type, ParquetError> {
    Type::group_type_builder(schema.name())
        .with_fields(fields)
        .build()
}

/// A Parquet value as JSON, as far as text data goes.
fn json(value: &Field) -> Result<Value, String> {
    Ok(match value {
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
        Field::Float16(x) => Value::from(x.to_f32()),
        Field::Float(x) => Value::from(*x),
        Field::Double(x) => Value::from(*x),
        Field::Str(text) => Value::from(text.as_str()),
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => Value::from(text),
            Err(_) => return Err("is binary data, not UTF-8 text".to_owned()),
        },
        Field::Group(row) => {
            let mut fields = Row::new();
            for (name, value) in row.get_column_iter() {
                fields.insert(name.clone(), json(value)?);
            }
            Value::Object(fields)
        }
        Field::ListInternal(list) => {
            Value::Array(list.elements().iter().map(json).collect::<Result<_, _>>()?)
        }
        // Dates, decimals and maps are in no column of a layout that is used.
        other => Value::from(other.to_string()),
    })
}
