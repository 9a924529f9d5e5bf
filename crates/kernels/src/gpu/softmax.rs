//! Softmax of attention's scores on a GPU, over the positions that a query may see.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{UNITS, empty_like, for_each_row, max_of_cube, rows, sum_of_cube};

#[cube(launch, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn causal_softmax(
    scores: &[f32],
    last_seen: &[i32],
    out: &mut [f32],
    count: usize,
    heads: usize,
    queries: usize,
    positions: usize,
    scale: f32,
) {
    if CUBE_POS < count {
        let start = CUBE_POS * positions;
        let query = CUBE_POS / (heads * queries) * queries + CUBE_POS % queries;
        let seen = last_seen[query] as usize + 1;
        let mut largest = scores[start];
        let mut i = UNIT_POS as usize;
        while i < seen {
            largest = max(largest, scores[start + i]);
            i += UNITS;
        }
        let largest = max_of_cube(largest);
        let mut sum = 0.0f32;
        let mut i = UNIT_POS as usize;
        while i < positions {
            let mut value = 0.0f32;
            if i < seen {
                value = ((scores[start + i] - largest) * scale).exp();
            }
            out[start + i] = value;
            sum += value;
            i += UNITS;
        }
        let inverse = 1.0 / sum_of_cube(sum);
        let mut i = UNIT_POS as usize;
        while i < seen {
            out[start + i] *= inverse;
            i += UNITS;
        }
    }
}

/// `softmax(scores * scale)` of `[rows, heads, queries, positions]` over positions up to `last_seen`
/// `[rows, queries]`; the others become 0. `scale` is positive.
pub(super) fn forward(scores: CubeTensor, last_seen: CubeTensor, scale: f32) -> CubeTensor {
    let (scores, last_seen) = (rows(scores), rows(last_seen));
    let [batch, heads, queries, positions] = scores.meta.shape().dims();
    let out = empty_like(&scores);
    let count = batch * heads * queries;
    if count * positions > 0 {
        let (cubes, dim) = for_each_row(count);
        causal_softmax::launch(
            &out.client.clone(),
            cubes,
            dim,
            out.required_address_type(),
            scores.into_buffer_arg(),
            last_seen.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            count,
            heads,
            queries,
            positions,
            scale,
        );
    }
    out
}

#[cube(launch, address_type = "dynamic")]
fn softmax_backward(
    shares: &[f32],
    grad: &[f32],
    out: &mut [f32],
    count: usize,
    positions: usize,
    scale: f32,
) {
    if CUBE_POS < count {
        let start = CUBE_POS * positions;
        let mut sum = 0.0f32;
        let mut i = UNIT_POS as usize;
        while i < positions {
            sum += shares[start + i] * grad[start + i];
            i += UNITS;
        }
        let mean = sum_of_cube(sum);
        let mut i = UNIT_POS as usize;
        while i < positions {
            out[start + i] = (grad[start + i] - mean) * shares[start + i] * scale;
            i += UNITS;
        }
    }
}

/// The gradient of the scores from that of the shares.
pub(super) fn backward(shares: CubeTensor, grad: CubeTensor, scale: f32) -> CubeTensor {
    let (shares, grad) = (rows(shares), rows(grad));
    let [batch, heads, queries, positions] = shares.meta.shape().dims();
    let out = empty_like(&shares);
    let count = batch * heads * queries;
    if count * positions > 0 {
        let (cubes, dim) = for_each_row(count);
        softmax_backward::launch(
            &out.client.clone(),
            cubes,
            dim,
            out.required_address_type(),
            shares.into_buffer_arg(),
            grad.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            count,
            positions,
            scale,
        );
    }
    out
}
