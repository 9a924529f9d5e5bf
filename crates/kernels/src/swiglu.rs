//! The gated unit of Llama's feed-forward layer.

use burn::backend::flex::FlexTensor;
use burn::tensor::{Tensor, activation};

#[cfg(feature = "gpu")]
use crate::gpu::{self, on_gpu};
use crate::{
    cpu::{filled_rows, filled_rows_of},
    op::{CpuOp, View, apply, on_cpu, tensor_of},
    simd::{fma, multiversion, sigmoid},
};

/// `silu(gate) * up`, `silu(x) = x / (1 + exp(-x))` (Shazeer 2020, "GLU variants").
///
/// # Shapes
/// Both `[tokens, width]`, the result too.
///
/// # Panics
/// When the shapes differ.
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    assert_eq!(
        gate.dims(),
        up.dims(),
        "swiglu: gate and up differ in shape"
    );
    if on_cpu(&gate) && on_cpu(&up) {
        apply(Swiglu, [gate.into_dispatch(), up.into_dispatch()])
    } else {
        #[cfg(feature = "gpu")]
        if on_gpu(&gate) && on_gpu(&up) {
            return gpu::apply(gpu::swiglu::Swiglu, [gate, up]);
        }
        swiglu_composed(gate, up)
    }
}

/// [`swiglu`] composed of Burn's operations.
pub fn swiglu_composed(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    activation::silu(gate) * up
}

#[derive(Clone, Debug)]
pub(crate) struct Swiglu;

multiversion! {
    fn forward<F>(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((g, u), y) in gate.iter().zip(up).zip(out) {
            *y = *g * sigmoid::<F>(*g) * *u;
        }
    }
}

multiversion! {
    fn backward_gate<F>(gate: &[f32], up: &[f32], grad: &[f32], out: &mut [f32]) {
        for (((g, u), d), y) in gate.iter().zip(up).zip(grad).zip(out) {
            let s = sigmoid::<F>(*g);
            *y = *d * *u * s * fma::<F>(*g, 1.0 - s, 1.0);
        }
    }
}

impl CpuOp<2> for Swiglu {
    type Saved = ();

    fn forward(&self, [gate, up]: [&View; 2]) -> (FlexTensor, ()) {
        let shape: [usize; 2] = gate.dims();
        let (g, u) = (gate.data(), up.data());
        let out = filled_rows(g.len(), shape[1], |row, block| {
            let range = row * shape[1]..row * shape[1] + block.len();
            forward(&g[range.clone()], &u[range], block);
        });
        (tensor_of(out, shape), ())
    }

    fn backward(
        &self,
        [gate, up]: [&View; 2],
        (): &(),
        grad: &View,
        wanted: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let shape: [usize; 2] = gate.dims();
        let (g, u, d) = (gate.data(), up.data(), grad.data());
        let width = shape[1];
        // d up = d * silu(gate): the forward with `d` in the place of `up`.
        let [d_gate, d_up] = filled_rows_of(g.len(), width, |row, [d_gate, d_up]| {
            let range = row * width..row * width + d_gate.len();
            let (g, u, d) = (&g[range.clone()], &u[range.clone()], &d[range]);
            backward_gate(g, u, d, d_gate);
            forward(g, d, d_up);
        });
        let d_gate = wanted[0].then(|| tensor_of(d_gate, shape));
        let d_up = wanted[1].then(|| tensor_of(d_up, shape));
        [d_gate, d_up]
    }
}
