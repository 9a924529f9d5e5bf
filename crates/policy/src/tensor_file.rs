//! Safetensors files of float32 parameters, a tensor at a time: beside the model, a file that is
//! written or read takes the memory of its largest tensor.

use std::{borrow::Cow, collections::HashMap, path::Path};

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::{Dtype, SafeTensorError, View};

use crate::{error::PolicyError, hf};

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

/// All tensors of a file, flat and in float32.
///
/// # Errors
/// When the file cannot be read or is not whole.
pub fn read(path: &Path, device: &Device) -> Result<Vec<(String, Tensor<1>)>, PolicyError> {
    let flat = |(name, (_, values)): (String, (Vec<usize>, Vec<f32>))| {
        let count = values.len();
        let data = TensorData::new(values, [count]);
        (name, Tensor::from_data(data, device))
    };
    Ok(hf::read_tensors(path)?.into_iter().map(flat).collect())
}
