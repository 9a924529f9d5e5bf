//! Safetensors files of float32 parameters, a tensor at a time: beside the model, a file that is
//! written or read takes the memory of its largest tensor.

use std::{
    borrow::Cow,
    collections::HashMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use burn::tensor::Tensor;
use safetensors::{
    Dtype, SafeTensorError, View,
    tensor::{Metadata, TensorInfo, TensorView},
};

use crate::error::PolicyError;

/// A tensor whose bytes are fetched when they are written.
struct Lazy<'a> {
    shape: Vec<usize>,
    tensor: &'a Tensor<1>,
}

impl View for Lazy<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let data = self.tensor.clone().into_data().convert::<f32>();
        Cow::Owned(data.as_bytes().to_vec())
    }

    fn data_len(&self) -> usize {
        4 * self.shape.iter().product::<usize>()
    }
}

/// Writes tensors, each with its name and its shape, as float32.
///
/// # Errors
/// When the file cannot be written.
pub fn write<'a>(
    tensors: impl Iterator<Item = (String, Vec<usize>, &'a Tensor<1>)>,
    metadata: Option<HashMap<String, String>>,
    path: &Path,
) -> Result<(), PolicyError> {
    let views = tensors.map(|(name, shape, tensor)| (name, Lazy { shape, tensor }));
    safetensors::serialize_to_file(views, metadata, path).map_err(|error| match error {
        SafeTensorError::IoError(source) => PolicyError::io(path)(source),
        other => PolicyError::malformed(path, other.to_string()),
    })
}

/// A tensor in float32: shape and values.
pub type Raw = (Vec<usize>, Vec<f32>);

/// A file whose tensors are read one by one.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    /// Where the tensors begin.
    data: u64,
    /// In the order of the file.
    tensors: Vec<(String, TensorInfo)>,
}

impl TensorFile {
    /// Reads the header.
    ///
    /// # Errors
    /// When the file cannot be read or is not whole.
    pub fn open(path: &Path) -> Result<Self, PolicyError> {
        let not_whole =
            |e: String| PolicyError::malformed(path, format!("not a whole safetensors file: {e}"));
        let mut file = File::open(path).map_err(PolicyError::io(path))?;
        let size = file.metadata().map_err(PolicyError::io(path))?.len();
        let mut count = [0; 8];
        file.read_exact(&mut count)
            .map_err(|_| not_whole("it has no header".to_owned()))?;
        let count = u64::from_le_bytes(count);
        let data = (size.saturating_sub(8).checked_sub(count))
            .ok_or_else(|| not_whole(format!("a header of {count} bytes")))?;
        let mut header = vec![0; count as usize];
        file.read_exact(&mut header)
            .map_err(PolicyError::io(path))?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|e| not_whole(e.to_string()))?;
        let infos = metadata.tensors().into_iter();
        let mut tensors: Vec<_> = infos.map(|(name, info)| (name, info.clone())).collect();
        tensors.sort_by_key(|(_, info)| info.data_offsets);
        // Tensors follow one another and fill the file.
        let mut reached = 0;
        for (name, info) in &tensors {
            let (start, end) = info.data_offsets;
            if start != reached || end < start {
                return Err(not_whole(format!("tensor `{name}` is at {start}..{end}")));
            }
            reached = end;
        }
        if reached as u64 != data {
            return Err(not_whole(format!(
                "{data} bytes of data, {reached} are named"
            )));
        }
        Ok(Self {
            path: path.to_owned(),
            data: size - data,
            tensors,
        })
    }

    /// Names of the tensors, in the order of the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(|(name, _)| name.as_str())
    }

    /// One of the tensors, in float32.
    ///
    /// # Errors
    /// When the file has no such tensor, it is of a type that is not read, or the file cannot be read.
    pub fn read(&self, name: &str) -> Result<Raw, PolicyError> {
        let malformed = |e: String| PolicyError::malformed(&self.path, e);
        let found = self.tensors.iter().find(|(known, _)| known == name);
        let (_, info) = found.ok_or_else(|| malformed(format!("tensor `{name}` is missing")))?;
        let (start, end) = info.data_offsets;
        let mut bytes = vec![0; end - start];
        let io = PolicyError::io(&self.path);
        // Opened anew, so that tensors may be read in parallel.
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.data + start as u64))?;
            file.read_exact(&mut bytes)
        });
        read.map_err(io)?;
        let view = TensorView::new(info.dtype, info.shape.clone(), &bytes)
            .map_err(|e| malformed(format!("tensor `{name}`: {e}")))?;
        let values = to_f32(&view).ok_or_else(|| PolicyError::Unsupported {
            place: self.path.display().to_string(),
            what: format!("tensor `{name}` of type {:?}", view.dtype()),
            supported: "f32, f16, bf16".to_owned(),
        })?;
        Ok((info.shape.clone(), values))
    }
}

fn to_f32(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let bytes = view.data();
    Some(match view.dtype() {
        Dtype::F32 => bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect(),
        Dtype::F16 => bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|b| half::f16::from_le_bytes(*b).to_f32())
            .collect(),
        Dtype::BF16 => bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|b| half::bf16::from_le_bytes(*b).to_f32())
            .collect(),
        _ => return None,
    })
}
