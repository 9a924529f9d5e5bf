//! Products of few rows with a weight matrix on a GPU, as a step of sampling makes them.
//!
//! Nothing is tried out for them, they cost the processor half of what a product of CubeK's does, and a row's result does
//! not depend on the rows beside it.

use burn::tensor::{Shape, bf16, f16};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{UNITS, empty, for_each_row, rows, zeros};
use crate::precision::Precision;

/// Up to so many rows the product is bound by reading the weights.
pub(crate) const FEW: usize = 64;

/// Rows that a cube computes at once.
const HEIGHT: usize = 16;
/// Units that share a dot product: neighbours read neighbouring numbers.
const LANES: usize = 32;
/// Such groups in a cube.
const GROUPS: usize = UNITS / LANES;
/// Rows of the weight that a group computes at once, so that what it reads of `x` is used as often.
const OUTS: usize = 4;
/// Rows whose lanes are added up at once.
const STEP: usize = 4;

/// The nearest number of a precision.
#[cube]
fn rounded(value: f32, #[comptime] precision: Precision) -> f32 {
    if comptime!(precision == Precision::Bf16) {
        f32::cast_from(bf16::cast_from(value))
    } else if comptime!(precision == Precision::F16) {
        f32::cast_from(f16::cast_from(value))
    } else {
        value
    }
}

#[cube(launch, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn multiply(
    x: &[f32],
    weight: &[f32],
    out: &mut [f32],
    tokens: usize,
    inner: usize,
    outer: usize,
    #[comptime] height: usize,
    #[comptime] precision: Precision,
) {
    let step = comptime!(Ord::min(height, STEP));
    let results = comptime!(step * OUTS);
    // One more than the lanes, so that units that add up neighbouring results read from different banks.
    let mut parts = Shared::<[f32]>::new_slice(comptime!(GROUPS * results * (LANES + 1)));
    let tiles = outer.div_ceil(GROUPS * OUTS);
    if CUBE_POS < tiles * tokens.div_ceil(height) {
        let unit = UNIT_POS as usize;
        let (group, lane) = (unit / LANES, unit % LANES);
        let first_row = CUBE_POS / tiles * height;
        let first_out = CUBE_POS % tiles * (GROUPS * OUTS);
        let own_out = first_out + group * OUTS;
        let mut sums = Array::<f32>::new(comptime!(height * OUTS));
        #[unroll]
        for i in 0..height * OUTS {
            sums[i] = 0.0;
        }
        let mut w = Array::<f32>::new(OUTS);
        let mut k = lane;
        while k < inner {
            #[unroll]
            for o in 0..OUTS {
                // What is beyond the end is computed as the last, and not written.
                let value = weight[min(own_out + o, outer - 1) * inner + k];
                w[o] = rounded(value, precision);
            }
            #[unroll]
            for row in 0..height {
                let value = rounded(x[min(first_row + row, tokens - 1) * inner + k], precision);
                #[unroll]
                for o in 0..OUTS {
                    sums[row * OUTS + o] += value * w[o];
                }
            }
            k += LANES;
        }
        #[unroll]
        for at in 0..height / step {
            #[unroll]
            for i in 0..results {
                parts[(group * results + i) * (LANES + 1) + lane] = sums[at * results + i];
            }
            sync_cube();
            if unit < GROUPS * results {
                let mut sum = 0.0f32;
                for lane in 0..LANES {
                    sum += parts[unit * (LANES + 1) + lane];
                }
                let (group, i) = (unit / results, unit % results);
                let row = first_row + at * step + i / OUTS;
                let column = first_out + group * OUTS + i % OUTS;
                if row < tokens && column < outer {
                    out[row * outer + column] = sum;
                }
            }
            sync_cube();
        }
    }
}

/// `x · weightᵀ`, `[tokens, in]` and `[out, in]`, both rounded to a precision as they are read.
pub(super) fn product(x: CubeTensor, weight: CubeTensor, precision: Precision) -> CubeTensor {
    let (x, weight) = (rows(x), rows(weight));
    let [tokens, inner] = x.meta.shape().dims();
    let [outer, _] = weight.meta.shape().dims();
    let shape = Shape::new([tokens, outer]);
    if inner == 0 {
        return zeros(&x, shape);
    }
    let out = empty(&x, shape);
    if tokens * outer > 0 {
        let height = tokens.next_power_of_two().min(HEIGHT);
        let (cubes, dim) = for_each_row(outer.div_ceil(GROUPS * OUTS) * tokens.div_ceil(height));
        multiply::launch(
            &x.client.clone(),
            cubes,
            dim,
            x.required_address_type()
                .max(weight.required_address_type())
                .max(out.required_address_type()),
            x.into_buffer_arg(),
            weight.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            tokens,
            inner,
            outer,
            height,
            precision,
        );
    }
    out
}
