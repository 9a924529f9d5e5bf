//! Operations on GPUs with a backward pass of their own, and the bridge between them and Burn's autodiff.
//!
//! All runtimes of CubeCL are one backend of Burn: what is here serves WGPU and CUDA alike.

use std::fmt::Debug;

use burn::backend::{
    Cube, DispatchAutodiffContext, DispatchTensorKind,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::FloatTensor,
};
use burn::tensor::{DType, Tensor};

use crate::op::{Tape, lifted, on_tape, plain};

pub(crate) mod adamw;
pub(crate) mod attention;
pub(crate) mod extension;
pub(crate) mod few_rows;
mod heads;
pub(crate) mod kv_cache;
mod last;
mod launch;
pub(crate) mod linear;
pub(crate) mod log_probs;
mod logits;
pub(crate) mod matmul;
pub(crate) mod rms_norm;
pub(crate) mod rotary;
mod softmax;
pub(crate) mod squares;
pub(crate) mod swiglu;

/// An operation on `N` tensors of rank `D`, of kernels and Burn's operations, with one output of that rank.
pub(crate) trait GpuOp<const N: usize, const D: usize>:
    Clone + Debug + Send + 'static
{
    /// The value. All tensors are off autodiff, here and in `backward`.
    fn forward(&self, inputs: [Tensor<D>; N]) -> Tensor<D>;

    /// Which inputs the backward pass reads, by whose gradients are `wanted`; the others are not kept.
    fn keeps(&self, _wanted: [bool; N]) -> [bool; N] {
        [true; N]
    }

    /// Gradients with respect to the inputs that are `wanted`.
    fn backward(
        &self,
        inputs: [Option<Tensor<D>>; N],
        grad: Tensor<D>,
        wanted: [bool; N],
    ) -> [Option<Tensor<D>>; N];
}

/// True of a float32 tensor on a GPU.
pub(crate) fn on_gpu<const D: usize>(tensor: &Tensor<D>) -> bool {
    if tensor.dtype() != DType::F32 {
        return false;
    }
    match tensor.clone().into_dispatch().kind {
        DispatchTensorKind::Cube(_) => true,
        DispatchTensorKind::Autodiff(inner) => matches!(*inner, DispatchTensorKind::Cube(_)),
        _ => false,
    }
}

/// True of a float32 tensor on a GPU of which nothing is recorded.
pub(crate) fn on_gpu_alone<const D: usize>(tensor: &Tensor<D>) -> bool {
    tensor.dtype() == DType::F32 && {
        let tensor = tensor.clone().into_dispatch();
        tensor.autodiff == DispatchAutodiffContext::Disabled
            && matches!(tensor.kind, DispatchTensorKind::Cube(_))
    }
}

#[derive(Debug)]
struct Recorded<O, const D: usize>(O);

impl<const N: usize, const D: usize, O: GpuOp<N, D>> Backward<Cube, N> for Recorded<O, D> {
    type State = [Option<FloatTensor<Cube>>; N];

    fn backward(
        self,
        ops: Ops<Self::State, N>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let grad = lifted::<Cube, D>(grads.consume::<Cube>(&ops.node));
        let inputs = ops.state.map(|input| input.map(lifted::<Cube, D>));
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let results = self.0.backward(inputs, grad, wanted);
        for (parent, result) in ops.parents.into_iter().zip(results) {
            if let (Some(parent), Some(result)) = (parent, result) {
                grads.register::<Cube>(parent.id, plain::<Cube>(result.into_dispatch()));
            }
        }
    }
}

/// Runs `op` on tensors that [`on_gpu`] is true of; it is recorded for the backward pass if any is on autodiff.
pub(crate) fn apply<const N: usize, const D: usize, O: GpuOp<N, D>>(
    op: O,
    inputs: [Tensor<D>; N],
) -> Tensor<D> {
    let inputs = inputs.map(Tensor::into_dispatch);
    let off = |t: &burn::backend::DispatchTensor| t.autodiff == DispatchAutodiffContext::Disabled;
    if inputs.iter().all(off) {
        return op.forward(inputs.map(Tensor::from_dispatch));
    }
    let inputs = inputs.map(on_tape::<Cube>);
    // On autodiff may be constants too.
    let wanted = inputs.each_ref().map(|t| t.is_tracked());
    let mut nodes = Vec::with_capacity(N);
    let inputs = inputs.map(|t| {
        let (primitive, node) = t.into_parts();
        nodes.push(node);
        primitive
    });
    let nodes: [_; N] = nodes.try_into().expect("N nodes were pushed");
    let out = op.forward(inputs.clone().map(lifted::<Cube, D>));
    let out = plain::<Cube>(out.into_dispatch());
    let mut kept = op.keeps(wanted).into_iter();
    let inputs = inputs.map(|input| kept.next().unwrap_or(true).then_some(input));
    let out = match Recorded::<O, D>(op)
        .prepare::<NoCheckpointing>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish(inputs, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    };
    lifted::<Tape<Cube>, D>(out)
}
