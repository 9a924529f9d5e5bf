//! What all kernels are launched with.

use burn::tensor::Shape;
use burn_cubecl::{
    kernel::into_contiguous,
    ops::numeric::{empty_device_contiguous_dtype, zeros_client},
    tensor::CubeTensor,
};
use cubecl::{calculate_cube_count_elemwise, prelude::*};

/// Units of a cube, a power of two.
pub(super) const UNITS: usize = 128;

/// The tensor with its numbers one after the other.
pub(super) fn rows(tensor: CubeTensor) -> CubeTensor {
    into_contiguous(tensor)
}

/// A tensor of a shape that nothing has been written to, without the gaps between rows that CUDA would leave.
pub(super) fn empty(like: &CubeTensor, shape: Shape) -> CubeTensor {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape, like.dtype)
}

/// A tensor of zeros.
pub(super) fn zeros(like: &CubeTensor, shape: Shape) -> CubeTensor {
    zeros_client(like.client.clone(), like.device.clone(), shape, like.dtype)
}

/// A tensor of the same shape that nothing has been written to.
pub(super) fn empty_like(like: &CubeTensor) -> CubeTensor {
    empty(like, like.meta.shape().clone())
}

/// The same vector, to be written over: a copy where somebody else holds it.
pub(super) fn own(tensor: CubeTensor) -> CubeTensor {
    debug_assert_eq!(
        tensor.meta.shape().num_dims(),
        1,
        "copies of matrices may have gaps"
    );
    let tensor = rows(tensor);
    if tensor.can_mut() {
        tensor
    } else {
        tensor.copy()
    }
}

/// A unit for each of `count` elements, and some more: a kernel is told the count. In a kernel `len()` is what was
/// allocated, which on CUDA is up to 127 numbers more than a tensor has.
pub(super) fn for_each(tensor: &CubeTensor, count: usize) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new_1d(UNITS as u32);
    (
        calculate_cube_count_elemwise(&tensor.client, count, dim),
        dim,
    )
}

/// A cube for each of `count` rows, some more in the last line of the grid: kernels look at `CUBE_POS`.
pub(super) fn for_each_row(count: usize) -> (CubeCount, CubeDim) {
    // WebGPU allows 65,535 a dimension.
    let wide = count.clamp(1, 1 << 15);
    let count = CubeCount::Static(wide as u32, count.div_ceil(wide).max(1) as u32, 1);
    (count, CubeDim::new_1d(UNITS as u32))
}

/// The sum of a value of each unit of a cube, for all of them. In a loop the cube has to wait between two of these: the
/// next one writes where a slower unit still reads.
#[cube]
pub(super) fn sum_of_cube(value: f32) -> f32 {
    over_cube(value, false)
}

/// The largest of a value of each unit of a cube, for all of them.
#[cube]
pub(super) fn max_of_cube(value: f32) -> f32 {
    over_cube(value, true)
}

#[cube]
fn over_cube(value: f32, #[comptime] largest: bool) -> f32 {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let unit = UNIT_POS as usize;
    shared[unit] = value;
    let mut half = CUBE_DIM as usize / 2; // `CUBE_DIM` is `UNITS`, but not a constant
    while half > 0 {
        sync_cube();
        if unit < half {
            let other = shared[unit + half];
            if largest {
                shared[unit] = max(shared[unit], other);
            } else {
                shared[unit] += other;
            }
        }
        half /= 2;
    }
    sync_cube();
    shared[0]
}
