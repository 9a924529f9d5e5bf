//! Sums of squares on a GPU.

use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::extension::squares_into;
use super::launch::{UNITS, for_each_row, own, rows, sum_of_cube};

/// Numbers that a cube adds up.
const BLOCK: usize = 1 << 14;

/// How many sums a tensor of `len` numbers has.
fn sums_of(len: usize) -> usize {
    len.div_ceil(BLOCK)
}

/// `Σ x²` of all the tensors: blocks are added up where they are, in float32; their sums here, read once.
pub(crate) fn sum_of_squares(tensors: &[&Tensor<1>]) -> f64 {
    let count: usize = tensors.iter().map(|x| sums_of(x.dims()[0])).sum();
    let Some(device) = tensors.first().map(|x| x.device()).filter(|_| count > 0) else {
        return 0.0;
    };
    let mut sums = Tensor::<1>::zeros([count], &device);
    let mut first = 0;
    for x in tensors {
        sums = squares_into(sums, (*x).clone(), first);
        first += sums_of(x.dims()[0]);
    }
    sums.into_data().iter::<f32>().map(f64::from).sum()
}

#[cube(launch)]
fn add_up(x: &[f32], sums: &mut [f32], len: usize, first: usize, count: usize) {
    let block = CUBE_POS;
    if block < count {
        let end = min(len, (block + 1) * BLOCK);
        let mut sum = 0.0f32;
        let mut i = block * BLOCK + UNIT_POS as usize;
        while i < end {
            sum += x[i] * x[i];
            i += UNITS;
        }
        let sum = sum_of_cube(sum);
        if UNIT_POS == 0 {
            sums[first + block] = sum;
        }
    }
}

/// Writes the sums of the squares of blocks of `x` to `sums`, from the place `first` on.
pub(super) fn squares(sums: CubeTensor, x: CubeTensor, first: usize) -> CubeTensor {
    let (sums, x) = (own(sums), rows(x));
    let len = x.meta.num_elements();
    let count = sums_of(len);
    if count > 0 {
        let (cubes, dim) = for_each_row(count);
        add_up::launch(
            &x.client.clone(),
            cubes,
            dim,
            x.into_buffer_arg(),
            sums.clone().into_buffer_arg(),
            len,
            first,
            count,
        );
    }
    sums
}
