//! Rotary position embedding on a GPU.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{
    GpuOp,
    extension::rotary,
    last::Last,
    launch::{empty_like, for_each, rows},
};

#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn turn(
    x: &[f32],
    cos: &[f32],
    sin: &[f32],
    out: &mut [f32],
    count: usize,
    half: usize,
    pairs: usize,
    sign: f32,
) {
    let i = ABSOLUTE_POS;
    if i < count {
        let (token, pair) = (i / pairs, i % pairs);
        let (head, j) = (pair / half, pair % half);
        let first = token * pairs * 2 + head * half * 2 + j;
        let (a, b) = (x[first], x[first + half]);
        let (c, s) = (cos[token * half + j], sign * sin[token * half + j]);
        out[first] = a * c - b * s;
        out[first + half] = b * c + a * s;
    }
}

/// Turns pairs of `x` `[tokens, width]` by angles with these cosines and sines, `[tokens, half]`, times `sign`.
pub(super) fn turned(x: CubeTensor, cos: CubeTensor, sin: CubeTensor, sign: f32) -> CubeTensor {
    let (x, cos, sin) = (rows(x), rows(cos), rows(sin));
    let [tokens, width] = x.meta.shape().dims();
    let [_, half] = cos.meta.shape().dims();
    let out = empty_like(&x);
    let count = tokens * width / 2;
    if count > 0 {
        let (cubes, dim) = for_each(&x, count);
        turn::launch(
            &x.client.clone(),
            cubes,
            dim,
            x.into_buffer_arg(),
            cos.into_buffer_arg(),
            sin.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            count,
            half,
            width / 2,
            sign,
        );
    }
    out
}

/// Cosines and sines of tokens, `[tokens, half]`.
#[derive(Clone, Debug)]
pub(crate) struct Rotary {
    cos: Tensor<2>,
    sin: Tensor<2>,
}

static LAST: Last<Of, Rotary> = Last::new();

/// What angles are made of.
type Of = (Arc<[u32]>, Arc<[f32]>, Device);

impl Rotary {
    /// For tokens at these positions, from tables of `half` cosines and sines for each position.
    pub(crate) fn new(
        positions: &Arc<[u32]>,
        [cos, sin]: [&Arc<[f32]>; 2],
        half: usize,
        device: &Device,
    ) -> Self {
        let gather = |table: &[f32]| {
            let rows = positions
                .iter()
                .flat_map(|p| &table[*p as usize * half..(*p as usize + 1) * half]);
            let rows: Vec<f32> = rows.copied().collect();
            Tensor::from_data(TensorData::new(rows, [positions.len(), half]), device)
        };
        LAST.or_make(
            |(of, table, on)| Arc::ptr_eq(of, positions) && Arc::ptr_eq(table, cos) && on == device,
            || {
                let angles = Self {
                    cos: gather(cos),
                    sin: gather(sin),
                };
                ((positions.clone(), cos.clone(), device.clone()), angles)
            },
        )
    }

    fn turned(&self, x: Tensor<2>, sign: f32) -> Tensor<2> {
        rotary(x, self.cos.clone(), self.sin.clone(), sign)
    }
}

impl GpuOp<1, 2> for Rotary {
    fn forward(&self, [x]: [Tensor<2>; 1]) -> Tensor<2> {
        self.turned(x, 1.0)
    }

    fn keeps(&self, _: [bool; 1]) -> [bool; 1] {
        [false]
    }

    fn backward(
        &self,
        _: [Option<Tensor<2>>; 1],
        grad: Tensor<2>,
        _: [bool; 1],
    ) -> [Option<Tensor<2>>; 1] {
        [Some(self.turned(grad, -1.0))]
    }
}
