//! The container: header, metadata, table of tensors, data.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use crate::{error::PolicyError, gguf::quant::TensorType};

const ALIGNMENT: &str = "general.alignment";
/// Arrays within arrays, at most.
const NESTING: usize = 4;
/// Dimensions of a tensor, at most.
const DIMENSIONS: u32 = 4;

/// The element types of metadata that have a fixed size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// Unsigned, 8 bits.
    U8,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 16 bits.
    U16,
    /// Signed, 16 bits.
    I16,
    /// Unsigned, 32 bits.
    U32,
    /// Signed, 32 bits.
    I32,
    /// Unsigned, 64 bits.
    U64,
    /// Signed, 64 bits.
    I64,
    /// Single precision.
    F32,
    /// Double precision.
    F64,
    /// A byte that is 0 or 1.
    Bool,
}

impl Scalar {
    fn of(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }

    fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// Reads one value of `bytes`, which has this type's size.
    fn read<'a>(self, bytes: &[u8]) -> Value<'a> {
        let mut raw = [0; 8];
        raw[..bytes.len()].copy_from_slice(bytes);
        let bits = u64::from_le_bytes(raw);
        match self {
            Self::U8 | Self::U16 | Self::U32 | Self::U64 => Value::Unsigned(bits),
            Self::I8 => Value::Signed(i64::from(bits as i8)),
            Self::I16 => Value::Signed(i64::from(bits as i16)),
            Self::I32 => Value::Signed(i64::from(bits as i32)),
            Self::I64 => Value::Signed(bits as i64),
            Self::F32 => Value::Float(widen(f32::from_bits(bits as u32))),
            Self::F64 => Value::Float(f64::from_bits(bits)),
            Self::Bool => Value::Bool(bits != 0),
        }
    }
}

/// The double that is written like this single: 1e-5 stays 1e-5, as a `config.json` has it.
fn widen(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

/// A value of the metadata. Texts are bytes until they are asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// A whole number of an unsigned type.
    Unsigned(u64),
    /// A whole number of a signed type.
    Signed(i64),
    /// A number of either precision.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// Text.
    Text(&'a [u8]),
    /// An array of numbers or truth values, as it lies in the file.
    Scalars(Scalar, &'a [u8]),
    /// An array of texts.
    Texts(Vec<&'a [u8]>),
    /// An array of arrays.
    Arrays(Vec<Value<'a>>),
}

impl Value<'_> {
    /// The whole number, if it is one and not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Unsigned(n) => Some(*n),
            Self::Signed(n) => u64::try_from(*n).ok(),
            _ => None,
        }
    }

    /// The number, whole or not.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Unsigned(n) => Some(*n as f64),
            Self::Signed(n) => Some(*n as f64),
            Self::Float(x) => Some(*x),
            _ => None,
        }
    }

    /// The truth value.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// The text, if it is valid UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The values of an array of numbers or truth values.
    pub fn scalars(&self) -> Option<impl ExactSizeIterator<Item = Value<'static>>> {
        match self {
            Self::Scalars(kind, bytes) => {
                Some(bytes.chunks_exact(kind.size()).map(|b| kind.read(b)))
            }
            _ => None,
        }
    }

    /// The texts of an array of texts.
    pub fn texts(&self) -> Option<&[&[u8]]> {
        match self {
            Self::Texts(texts) => Some(texts),
            _ => None,
        }
    }
}

/// One tensor of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub kind: TensorType,
    /// Its bytes.
    pub bytes: &'a [u8],
}

impl Info<'_> {
    /// Its numbers.
    pub fn values(&self) -> Vec<f32> {
        self.kind.dequantise(self.bytes)
    }
}

/// A parsed file. It borrows the file's bytes.
#[derive(Clone, Debug)]
pub struct Gguf<'a> {
    path: PathBuf,
    metadata: HashMap<&'a str, Value<'a>>,
    tensors: Vec<Info<'a>>,
}

/// Reads fields one after the other; every read is checked against what is left.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    path: &'a Path,
}

impl<'a> Reader<'a> {
    fn wrong<T>(&self, reason: impl Into<String>) -> Result<T, PolicyError> {
        Err(PolicyError::malformed(self.path, reason))
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8], PolicyError> {
        if count > self.left() {
            let (at, left) = (self.at, self.left());
            return self.wrong(format!(
                "{what} at byte {at} needs {count} bytes and the file has {left} more"
            ));
        }
        let bytes = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(bytes)
    }

    fn u32(&mut self, what: &str) -> Result<u32, PolicyError> {
        let mut raw = [0; 4];
        raw.copy_from_slice(self.take(4, what)?);
        Ok(u32::from_le_bytes(raw))
    }

    fn u64(&mut self, what: &str) -> Result<u64, PolicyError> {
        let mut raw = [0; 8];
        raw.copy_from_slice(self.take(8, what)?);
        Ok(u64::from_le_bytes(raw))
    }

    /// How many things follow, each of `least` bytes or more.
    fn count(&mut self, least: usize, what: &str) -> Result<usize, PolicyError> {
        let count = self.u64(what)?;
        let most = self.left() / least;
        match usize::try_from(count) {
            Ok(n) if n <= most => Ok(n),
            _ => {
                let left = self.left();
                self.wrong(format!(
                    "{what} says {count}, too many for the {left} bytes that follow"
                ))
            }
        }
    }

    fn text(&mut self, what: &str) -> Result<&'a [u8], PolicyError> {
        let count = self.count(1, what)?;
        self.take(count, what)
    }

    fn name(&mut self, what: &str) -> Result<&'a str, PolicyError> {
        let bytes = self.text(what)?;
        match std::str::from_utf8(bytes) {
            Ok(name) => Ok(name),
            Err(_) => self.wrong(format!(
                "{what}: `{}` is not UTF-8",
                String::from_utf8_lossy(bytes)
            )),
        }
    }

    fn value(&mut self, kind: u32, key: &str, depth: usize) -> Result<Value<'a>, PolicyError> {
        if let Some(scalar) = Scalar::of(kind) {
            return Ok(scalar.read(self.take(scalar.size(), key)?));
        }
        match kind {
            8 => Ok(Value::Text(self.text(key)?)),
            9 if depth == NESTING => self.wrong(format!(
                "field `{key}`: arrays nested deeper than {NESTING}"
            )),
            9 => {
                let inner = self.u32(key)?;
                if let Some(scalar) = Scalar::of(inner) {
                    let count = self.count(scalar.size(), key)?;
                    // No overflow: `count` elements fit into what is left of the file.
                    return Ok(Value::Scalars(
                        scalar,
                        self.take(count * scalar.size(), key)?,
                    ));
                }
                match inner {
                    8 => {
                        let count = self.count(8, key)?;
                        let texts = (0..count).map(|_| self.text(key));
                        Ok(Value::Texts(texts.collect::<Result<_, _>>()?))
                    }
                    9 => {
                        let count = self.count(12, key)?;
                        let arrays = (0..count).map(|_| self.value(9, key, depth + 1));
                        Ok(Value::Arrays(arrays.collect::<Result<_, _>>()?))
                    }
                    _ => self.wrong(format!("field `{key}`: no element type {inner}")),
                }
            }
            _ => self.wrong(format!("field `{key}`: no value type {kind}")),
        }
    }
}

/// A tensor's row in the table, before the data's place is known.
struct Row<'a> {
    name: &'a str,
    shape: Vec<usize>,
    kind: TensorType,
    offset: u64,
    size: usize,
}

impl<'a> Reader<'a> {
    fn row(&mut self) -> Result<Row<'a>, PolicyError> {
        let name = self.name("a tensor's name")?;
        let count = self.u32(name)?;
        if count == 0 || count > DIMENSIONS {
            return self.wrong(format!("tensor `{name}` has {count} dimensions"));
        }
        let mut shape = Vec::new();
        for _ in 0..count {
            match usize::try_from(self.u64(name)?) {
                Ok(n) if n > 0 => shape.push(n),
                _ => return self.wrong(format!("tensor `{name}` has a dimension out of range")),
            }
        }
        let id = self.u32(name)?;
        let Some(kind) = TensorType::of(id) else {
            return Err(PolicyError::Unsupported {
                place: self.path.display().to_string(),
                what: format!("tensor `{name}` of type {}", TensorType::name_of(id)),
                supported: TensorType::NAMES.to_owned(),
            });
        };
        let offset = self.u64(name)?;
        let (block, block_bytes) = kind.block();
        if shape[0] % block != 0 {
            let width = shape[0];
            return self.wrong(format!(
                "tensor `{name}`: rows of {width} are not made of {kind:?} blocks of {block}"
            ));
        }
        let size = shape[1..]
            .iter()
            .try_fold(shape[0] / block, |n, d| n.checked_mul(*d))
            .and_then(|blocks| blocks.checked_mul(block_bytes));
        let Some(size) = size.filter(|size| *size <= self.bytes.len()) else {
            return self.wrong(format!(
                "tensor `{name}` of {shape:?} is larger than the file"
            ));
        };
        shape.reverse();
        Ok(Row {
            name,
            shape,
            kind,
            offset,
            size,
        })
    }
}

impl<'a> Gguf<'a> {
    /// Parses a file's bytes; `path` names it in errors.
    ///
    /// # Errors
    /// Names the field or tensor that is cut off, out of range or of a type that is not supported.
    pub fn parse(bytes: &'a [u8], path: &'a Path) -> Result<Self, PolicyError> {
        let mut reader = Reader { bytes, at: 0, path };
        if reader.take(4, "the magic number")? != b"GGUF" {
            return reader.wrong("not a GGUF file: it does not begin with `GGUF`");
        }
        let version = reader.u32("the version")?;
        if !matches!(version, 2 | 3) {
            let order = match version.swap_bytes() {
                2 | 3 => " (big endian)",
                _ => "",
            };
            return Err(PolicyError::Unsupported {
                place: path.display().to_string(),
                what: format!("GGUF version {version}{order}"),
                supported: "versions 2 and 3, little endian".to_owned(),
            });
        }
        // A row: two lengths or counts of 8 and 4, one dimension, a type, an offset.
        let tensors = reader.count(32, "the number of tensors")?;
        let fields = reader.count(13, "the number of fields")?;
        let mut metadata = HashMap::new();
        for _ in 0..fields {
            let key = reader.name("a field's name")?;
            let kind = reader.u32(key)?;
            let value = reader.value(kind, key, 1)?;
            if metadata.insert(key, value).is_some() {
                return reader.wrong(format!("field `{key}` is there twice"));
            }
        }
        let mut seen = HashSet::new();
        let mut rows = Vec::new();
        for _ in 0..tensors {
            let row = reader.row()?;
            if !seen.insert(row.name) {
                return reader.wrong(format!("tensor `{}` is there twice", row.name));
            }
            rows.push(row);
        }
        let alignment = match metadata.get(ALIGNMENT) {
            None => 32,
            Some(value) => match value.as_u64().filter(|n| n.is_power_of_two()) {
                Some(n) => n,
                None => return reader.wrong(format!("field `{ALIGNMENT}` is no power of two")),
            },
        };
        let start = (reader.at as u64)
            .checked_next_multiple_of(alignment)
            .and_then(|start| usize::try_from(start).ok());
        let data = start
            .and_then(|start| bytes.get(start..))
            .unwrap_or_default();
        let mut ends = Vec::new();
        let mut tensors = Vec::new();
        for row in rows {
            let name = row.name;
            if row.offset % alignment != 0 {
                let offset = row.offset;
                return reader.wrong(format!(
                    "tensor `{name}`: its offset {offset} is not a multiple of {alignment}"
                ));
            }
            let range = usize::try_from(row.offset)
                .ok()
                .and_then(|from| Some(from..from.checked_add(row.size)?));
            let Some((range, bytes)) =
                range.and_then(|range| data.get(range.clone()).map(|b| (range, b)))
            else {
                let (offset, size, len) = (row.offset, row.size, data.len());
                return reader.wrong(format!(
                    "tensor `{name}` of {size} bytes at {offset} ends outside the {len} bytes of \
                     data; the file is cut off or damaged"
                ));
            };
            ends.push((range.start, range.end, name));
            tensors.push(Info {
                name,
                shape: row.shape,
                kind: row.kind,
                bytes,
            });
        }
        // Tensors that share bytes would take more memory than the file's size allows for.
        ends.sort_unstable();
        if let Some([a, b]) = ends.array_windows().find(|[a, b]| a.1 > b.0) {
            return reader.wrong(format!("tensors `{}` and `{}` overlap", a.2, b.2));
        }
        Ok(Self {
            path: path.to_owned(),
            metadata,
            tensors,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A field of the metadata.
    pub fn field(&self, key: &str) -> Option<&Value<'a>> {
        self.metadata.get(key)
    }

    /// All tensors, in the file's order.
    pub fn tensors(&self) -> &[Info<'a>] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&Info<'a>> {
        self.tensors.iter().find(|t| t.name == name)
    }

    /// An error about a field.
    pub(super) fn wrong<T>(
        &self,
        field: &str,
        reason: impl Into<String>,
    ) -> Result<T, PolicyError> {
        Err(PolicyError::Config {
            place: self.path.display().to_string(),
            field: field.to_owned(),
            reason: reason.into(),
        })
    }

    /// An error about something that is not supported.
    pub(super) fn unsupported<T>(
        &self,
        what: impl Into<String>,
        supported: &str,
    ) -> Result<T, PolicyError> {
        Err(PolicyError::Unsupported {
            place: self.path.display().to_string(),
            what: what.into(),
            supported: supported.to_owned(),
        })
    }

    /// A text field; its absence is no error.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, PolicyError> {
        match self.field(key) {
            None => Ok(None),
            Some(value) => match value.as_str() {
                Some(text) => Ok(Some(text)),
                None => self.wrong(key, "is not text in UTF-8"),
            },
        }
    }

    /// A size from 1 to `most`; its absence is no error.
    pub(super) fn size(&self, key: &str, most: u64) -> Result<Option<usize>, PolicyError> {
        match self.field(key) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(n) if (1..=most).contains(&n) => Ok(Some(n as usize)),
                _ => self.wrong(key, format!("is not a whole number from 1 to {most}")),
            },
        }
    }

    /// A positive number; its absence is no error.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, PolicyError> {
        match self.field(key) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(x) if x.is_finite() && x > 0.0 => Ok(Some(x)),
                _ => self.wrong(key, "is not a positive number"),
            },
        }
    }

    /// True or false; its absence is no error.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, PolicyError> {
        match self.field(key) {
            None => Ok(None),
            Some(value) => match value.as_bool() {
                Some(flag) => Ok(Some(flag)),
                None => self.wrong(key, "is not true or false"),
            },
        }
    }
}
