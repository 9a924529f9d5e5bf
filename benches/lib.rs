//! Inputs that the benchmarks share.

use burn::tensor::{Device, Tensor, TensorData};
use togi_data::rng::CounterRng;

/// Numbers in [-1, 1): the same on every run.
pub fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = CounterRng::new(seed, &[0x6265_6e63]);
    (0..count)
        .map(|_| (2.0 * rng.next_f64() - 1.0) as f32)
        .collect()
}

/// [`numbers`] as a tensor on the CPU, off autodiff.
pub fn tensor<const D: usize>(seed: u64, shape: [usize; D]) -> Tensor<D> {
    let data = TensorData::new(numbers(seed, shape.iter().product()), shape);
    Tensor::from_data(data, &Device::flex())
}

/// [`numbers`] as a tensor whose gradient is wanted.
pub fn leaf<const D: usize>(seed: u64, shape: [usize; D]) -> Tensor<D> {
    let data = TensorData::new(numbers(seed, shape.iter().product()), shape);
    Tensor::from_data(data, &Device::flex().autodiff()).require_grad()
}
