//! The gated unit on a GPU.

use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{
    GpuOp,
    extension::{swiglu, swiglu_backward},
    launch::{empty_like, for_each, rows},
};

#[cube(launch)]
fn gated(gate: &[f32], up: &[f32], out: &mut [f32], count: usize) {
    let i = ABSOLUTE_POS;
    if i < count {
        let g = gate[i];
        out[i] = g / (1.0 + (-g).exp()) * up[i];
    }
}

#[cube(launch)]
fn gated_backward(
    gate: &[f32],
    up: &[f32],
    grad: &[f32],
    d_gate: &mut [f32],
    d_up: &mut [f32],
    count: usize,
) {
    let i = ABSOLUTE_POS;
    if i < count {
        let g = gate[i];
        let s = 1.0 / (1.0 + (-g).exp());
        d_up[i] = grad[i] * g * s;
        d_gate[i] = grad[i] * up[i] * s * (1.0 + g * (1.0 - s));
    }
}

pub(super) fn forward(gate: CubeTensor, up: CubeTensor) -> CubeTensor {
    let (gate, up) = (rows(gate), rows(up));
    let out = empty_like(&gate);
    let count = out.meta.num_elements();
    if count > 0 {
        let (cubes, dim) = for_each(&out, count);
        gated::launch(
            &out.client.clone(),
            cubes,
            dim,
            gate.into_buffer_arg(),
            up.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            count,
        );
    }
    out
}

/// Gradients of gate and up.
pub(super) fn backward(
    gate: CubeTensor,
    up: CubeTensor,
    grad: CubeTensor,
) -> (CubeTensor, CubeTensor) {
    let (gate, up, grad) = (rows(gate), rows(up), rows(grad));
    let (d_gate, d_up) = (empty_like(&gate), empty_like(&gate));
    let count = grad.meta.num_elements();
    if count > 0 {
        let (cubes, dim) = for_each(&grad, count);
        gated_backward::launch(
            &grad.client.clone(),
            cubes,
            dim,
            gate.into_buffer_arg(),
            up.into_buffer_arg(),
            grad.into_buffer_arg(),
            d_gate.clone().into_buffer_arg(),
            d_up.clone().into_buffer_arg(),
            count,
        );
    }
    (d_gate, d_up)
}

/// The operation with its backward pass.
#[derive(Clone, Debug)]
pub(crate) struct Swiglu;

impl GpuOp<2, 2> for Swiglu {
    fn forward(&self, [gate, up]: [Tensor<2>; 2]) -> Tensor<2> {
        swiglu(gate, up)
    }

    fn backward(
        &self,
        inputs: [Option<Tensor<2>>; 2],
        grad: Tensor<2>,
        wanted: [bool; 2],
    ) -> [Option<Tensor<2>>; 2] {
        let [gate, up] = inputs.map(|input| input.expect("both are kept"));
        let (d_gate, d_up) = swiglu_backward(gate, up, grad);
        [wanted[0].then_some(d_gate), wanted[1].then_some(d_up)]
    }
}
