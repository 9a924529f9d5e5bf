//! RMSNorm on a GPU: a kernel forward, two backward.

use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{
    GpuOp,
    extension::{rms_norm, rms_norm_to_weight, rms_norm_to_x},
    launch::{UNITS, empty, empty_like, for_each_row, rows, sum_of_cube, zeros},
};

#[cube]
fn inverse_root(x: &[f32], row: usize, width: usize, eps: f32) -> f32 {
    let mut squares = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < width {
        let value = x[row + i];
        squares += value * value;
        i += UNITS;
    }
    scale_of(squares, width, eps)
}

/// A row's scale, from each unit's part of the sum of its squares.
#[cube]
fn scale_of(squares: f32, width: usize, eps: f32) -> f32 {
    1.0 / (sum_of_cube(squares) / f32::cast_from(width) + eps).sqrt()
}

#[cube(launch)]
fn normalise(x: &[f32], weight: &[f32], out: &mut [f32], tokens: usize, width: usize, eps: f32) {
    if CUBE_POS < tokens {
        let row = CUBE_POS * width;
        let scale = inverse_root(x, row, width, eps);
        let mut i = UNIT_POS as usize;
        while i < width {
            out[row + i] = x[row + i] * scale * weight[i];
            i += UNITS;
        }
    }
}

/// `[tokens, width]`.
pub(super) fn forward(x: CubeTensor, weight: CubeTensor, eps: f32) -> CubeTensor {
    let (x, weight) = (rows(x), rows(weight));
    let [tokens, width] = x.meta.shape().dims();
    let out = empty_like(&x);
    if tokens * width > 0 {
        let (cubes, dim) = for_each_row(tokens);
        normalise::launch(
            &x.client.clone(),
            cubes,
            dim,
            x.into_buffer_arg(),
            weight.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            tokens,
            width,
            eps,
        );
    }
    out
}

#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn add_and_normalise(
    x: &[f32],
    y: &[f32],
    weight: &[f32],
    sum: &mut [f32],
    out: &mut [f32],
    tokens: usize,
    width: usize,
    eps: f32,
) {
    if CUBE_POS < tokens {
        let row = CUBE_POS * width;
        let mut squares = 0.0f32;
        let mut i = UNIT_POS as usize;
        while i < width {
            let value = x[row + i] + y[row + i];
            sum[row + i] = value;
            squares += value * value;
            i += UNITS;
        }
        let scale = scale_of(squares, width, eps);
        let mut i = UNIT_POS as usize;
        while i < width {
            out[row + i] = sum[row + i] * scale * weight[i];
            i += UNITS;
        }
    }
}

/// `x + y`, and [`forward`] of that.
pub(super) fn of_sum(
    x: CubeTensor,
    y: CubeTensor,
    weight: CubeTensor,
    eps: f32,
) -> (CubeTensor, CubeTensor) {
    let (x, y, weight) = (rows(x), rows(y), rows(weight));
    let [tokens, width] = x.meta.shape().dims();
    let (sum, out) = (empty_like(&x), empty_like(&x));
    if tokens * width > 0 {
        let (cubes, dim) = for_each_row(tokens);
        add_and_normalise::launch(
            &x.client.clone(),
            cubes,
            dim,
            x.into_buffer_arg(),
            y.into_buffer_arg(),
            weight.into_buffer_arg(),
            sum.clone().into_buffer_arg(),
            out.clone().into_buffer_arg(),
            tokens,
            width,
            eps,
        );
    }
    (sum, out)
}

// dx = s (w∘dy) - x s³/d Σ w∘dy∘x with s the row's scale, which is kept for the weight's gradient.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn gradient_of_x(
    x: &[f32],
    weight: &[f32],
    grad: &[f32],
    out: &mut [f32],
    scales: &mut [f32],
    tokens: usize,
    width: usize,
    eps: f32,
) {
    if CUBE_POS < tokens {
        let row = CUBE_POS * width;
        let scale = inverse_root(x, row, width, eps);
        let mut shared = 0.0f32;
        let mut i = UNIT_POS as usize;
        while i < width {
            shared += weight[i] * grad[row + i] * x[row + i];
            i += UNITS;
        }
        let shared = sum_of_cube(shared) * scale * scale * scale / f32::cast_from(width);
        let mut i = UNIT_POS as usize;
        while i < width {
            out[row + i] = weight[i] * grad[row + i] * scale - x[row + i] * shared;
            i += UNITS;
        }
        if UNIT_POS == 0 {
            scales[CUBE_POS] = scale;
        }
    }
}

/// The gradient of `x`, and the scale of each row `[tokens, 1]`.
pub(super) fn to_x(
    x: CubeTensor,
    weight: CubeTensor,
    grad: CubeTensor,
    eps: f32,
) -> (CubeTensor, CubeTensor) {
    let (x, weight, grad) = (rows(x), rows(weight), rows(grad));
    let [tokens, width] = x.meta.shape().dims();
    let (d_x, scales) = (empty_like(&x), empty(&x, [tokens, 1].into()));
    if tokens * width > 0 {
        let (cubes, dim) = for_each_row(tokens);
        gradient_of_x::launch(
            &x.client.clone(),
            cubes,
            dim,
            x.into_buffer_arg(),
            weight.into_buffer_arg(),
            grad.into_buffer_arg(),
            d_x.clone().into_buffer_arg(),
            scales.clone().into_buffer_arg(),
            tokens,
            width,
            eps,
        );
    }
    (d_x, scales)
}

/// Columns of a cube that adds up rows; `UNITS / COLUMNS` rows at a time.
const COLUMNS: usize = 32;

/// Rows of a part of them, whose sum is a number of its own: a norm of heads has few columns and many rows.
const PART: usize = 1 << 12;

// dw = Σ over rows of s x∘dy, by parts.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn gradient_of_weight(
    x: &[f32],
    grad: &[f32],
    scales: &[f32],
    out: &mut [f32],
    tokens: usize,
    width: usize,
    blocks: usize,
) {
    let unit = UNIT_POS as usize;
    let part = CUBE_POS / blocks;
    let column = CUBE_POS % blocks * COLUMNS + unit % COLUMNS;
    let end = min(tokens, (part + 1) * PART);
    let mut sum = 0.0f32;
    if column < width {
        let mut row = part * PART + unit / COLUMNS;
        while row < end {
            let i = row * width + column;
            sum += scales[row] * x[i] * grad[i];
            row += UNITS / COLUMNS;
        }
    }
    let mut sums = Shared::<[f32]>::new_slice(UNITS);
    sums[unit] = sum;
    sync_cube();
    // The last line of the grid has cubes of no part.
    if unit < COLUMNS && column < width && part * PART < tokens {
        let mut total = 0.0f32;
        let mut i = unit;
        while i < UNITS {
            total += sums[i];
            i += COLUMNS;
        }
        out[part * width + column] = total;
    }
}

/// How many parts so many rows have.
pub(super) fn parts(tokens: usize) -> usize {
    tokens.div_ceil(PART).max(1)
}

/// The gradient of the weight by parts of the rows, `[parts, width]`, from the rows' scales.
pub(super) fn to_weight(x: CubeTensor, grad: CubeTensor, scales: CubeTensor) -> CubeTensor {
    let (x, grad, scales) = (rows(x), rows(grad), rows(scales));
    let [tokens, width] = x.meta.shape().dims();
    let parts = parts(tokens);
    if tokens * width == 0 {
        return zeros(&x, [parts, width].into());
    }
    let out = empty(&x, [parts, width].into());
    let blocks = width.div_ceil(COLUMNS);
    let (cubes, dim) = for_each_row(parts * blocks);
    gradient_of_weight::launch(
        &x.client.clone(),
        cubes,
        dim,
        x.into_buffer_arg(),
        grad.into_buffer_arg(),
        scales.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        tokens,
        width,
        blocks,
    );
    out
}

/// The operation with its backward pass. The weight comes as `[1, width]`.
#[derive(Clone, Debug)]
pub(crate) struct RmsNorm {
    pub(crate) eps: f32,
}

impl GpuOp<2, 2> for RmsNorm {
    fn forward(&self, [x, weight]: [Tensor<2>; 2]) -> Tensor<2> {
        rms_norm(x, weight, self.eps)
    }

    fn backward(
        &self,
        inputs: [Option<Tensor<2>>; 2],
        grad: Tensor<2>,
        wanted: [bool; 2],
    ) -> [Option<Tensor<2>>; 2] {
        let [x, weight] = inputs.map(|input| input.expect("both are kept"));
        let (d_x, scales) = rms_norm_to_x(x.clone(), weight, grad.clone(), self.eps);
        [
            wanted[0].then_some(d_x),
            wanted[1].then(|| match rms_norm_to_weight(x, grad, scales) {
                whole if whole.dims()[0] == 1 => whole,
                parts => parts.sum_dim(0),
            }),
        ]
    }
}
