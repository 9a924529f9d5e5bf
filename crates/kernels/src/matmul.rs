//! Products of float32 matrices that are float32's on every device.

use burn::tensor::Tensor;

#[cfg(feature = "gpu")]
use crate::gpu::matmul::{matmul_in_units, rounds};

/// `a · b`, of matrices or of batches of them, with float32's precision, forward and backward.
///
/// Where a device's float32 products may round the factors to TF32's 11 bits (NVIDIA's tensor cores, as Burn uses
/// them), kernels that multiply and add in float32 are tried, and the fastest is taken.
///
/// # Shapes
/// `a` `[…, m, k]`, `b` `[…, k, n]`; the result `[…, m, n]`. What is before the last two is the same in both.
///
/// # Panics
/// When the shapes do not fit.
pub fn matmul<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "gpu")]
    if rounds(&a) {
        return matmul_in_units(a, b);
    }
    a.matmul(b)
}
