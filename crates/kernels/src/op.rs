//! The bridge between operations with a backward pass of their own and Burn's autodiff: fused ones of the CPU.

use std::fmt::Debug;

use burn::backend::{
    Autodiff, Backend, BackendTensor, DispatchAutodiffContext, DispatchKindConversion,
    DispatchTensor, DispatchTensorKind, Flex,
    autodiff::{
        NodeId,
        checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    flex::FlexTensor,
};
use burn::backend::{TensorMetadata, tensor::FloatTensor};
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::totals::with_sums;

/// A contiguous `f32` tensor in main memory.
#[derive(Clone, Debug)]
pub(crate) struct View(FlexTensor);

impl View {
    pub(crate) fn new(tensor: FlexTensor) -> Self {
        Self(tensor.to_contiguous())
    }

    pub(crate) fn data(&self) -> &[f32] {
        self.0
            .as_slice::<f32>()
            .expect("`View::new` made the tensor contiguous and `on_cpu` checked that it is f32")
    }

    pub(crate) fn dims<const D: usize>(&self) -> [usize; D] {
        self.0.shape().dims()
    }
}

/// Wraps a buffer as a flex tensor of the given shape.
pub(crate) fn tensor_of<const D: usize>(data: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(data, shape))
}

/// A fused operation with `N` tensor inputs and one output.
pub(crate) trait CpuOp<const N: usize>: Clone + Debug + Send + 'static {
    /// What the forward pass keeps for the backward pass beside the inputs.
    type Saved: Clone + Debug + Send + 'static;

    fn forward(&self, inputs: [&View; N]) -> (FlexTensor, Self::Saved);

    /// Which inputs the backward pass reads: it is given an empty one for each other.
    fn keeps(&self) -> [bool; N] {
        [true; N]
    }

    /// Gradients with respect to the inputs that are `wanted`.
    fn backward(
        &self,
        inputs: [&View; N],
        saved: &Self::Saved,
        grad: &View,
        wanted: [bool; N],
    ) -> [Option<FlexTensor>; N];

    /// As `backward`, but a gradient may be added to the sum that is given for it, and is then not
    /// returned.
    fn backward_into(
        &self,
        inputs: [&View; N],
        saved: &Self::Saved,
        grad: &View,
        wanted: [bool; N],
        _sums: [Option<&mut [f32]>; N],
    ) -> [Option<FlexTensor>; N] {
        self.backward(inputs, saved, grad, wanted)
    }
}

/// True of the processor, not of a GPU.
pub fn is_cpu(device: &Device) -> bool {
    *device == Device::flex()
}

/// True where the fused form applies: a float32 tensor on the flex backend.
pub(crate) fn on_cpu<const D: usize>(tensor: &Tensor<D>) -> bool {
    if tensor.dtype() != DType::F32 {
        return false;
    }
    match tensor.clone().into_dispatch().kind {
        DispatchTensorKind::Flex(_) => true,
        DispatchTensorKind::Autodiff(inner) => matches!(*inner, DispatchTensorKind::Flex(_)),
        #[allow(unreachable_patterns)] // other backends, where they are compiled in
        _ => false,
    }
}

/// True if operations on it are recorded for a backward pass.
pub(crate) fn is_tracked<const D: usize>(tensor: &Tensor<D>) -> bool {
    tensor.clone().into_dispatch().autodiff != DispatchAutodiffContext::Disabled
}

/// A backend with a tape.
pub(crate) type Tape<B> = Autodiff<B, NoCheckpointing>;

#[derive(Debug)]
struct Recorded<O>(O);

impl<const N: usize, O: CpuOp<N>> Backward<Flex, N> for Recorded<O> {
    type State = ([View; N], O::Saved);

    fn backward(
        self,
        ops: Ops<Self::State, N>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let (inputs, saved) = ops.state;
        let grad = View::new(grads.consume::<Flex>(&ops.node));
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let nodes = ops.parents.each_ref().map(|p| p.as_ref().map(|p| p.id));
        let results = with_sums(nodes, |sums| {
            let inputs = inputs.each_ref();
            self.0.backward_into(inputs, &saved, &grad, wanted, sums)
        });
        for (parent, result) in ops.parents.into_iter().zip(results) {
            if let (Some(parent), Some(result)) = (parent, result) {
                let id: NodeId = parent.id;
                grads.register::<Flex>(id, result);
            }
        }
    }
}

/// What a tensor off autodiff is on the backend that it is known to be on.
pub(crate) fn plain<B: Backend>(tensor: DispatchTensor) -> FloatTensor<B>
where
    DispatchTensor: DispatchKindConversion<B>,
{
    match <DispatchTensor as DispatchKindConversion<B>>::try_into_backend(tensor) {
        Ok(BackendTensor::Float(tensor)) => tensor,
        other => unreachable!("the backend was checked before: {other:?}"),
    }
}

/// The same of a tensor on autodiff or off it.
pub(crate) fn on_tape<B: Backend>(tensor: DispatchTensor) -> FloatTensor<Tape<B>>
where
    DispatchTensor: DispatchKindConversion<B> + DispatchKindConversion<Tape<B>>,
{
    if tensor.autodiff == DispatchAutodiffContext::Disabled {
        return FloatTensor::<Tape<B>>::new(plain::<B>(tensor));
    }
    plain::<Tape<B>>(tensor)
}

/// A high-level tensor of a backend's.
pub(crate) fn lifted<B: Backend, const D: usize>(tensor: FloatTensor<B>) -> Tensor<D>
where
    DispatchTensor: DispatchKindConversion<B>,
{
    let tensor = BackendTensor::<B>::Float(tensor);
    Tensor::from_dispatch(<DispatchTensor as DispatchKindConversion<B>>::from_backend(
        tensor,
    ))
}

/// The numbers of a tensor that [`on_cpu`] is true of, on autodiff or not.
pub(crate) fn view_of<const D: usize>(tensor: &Tensor<D>) -> View {
    View::new(
        on_tape::<Flex>(tensor.clone().into_dispatch())
            .into_parts()
            .0,
    )
}

/// Runs `op` on flex tensors; it is recorded for the backward pass if any input is on autodiff.
pub(crate) fn apply<const N: usize, const D: usize, O: CpuOp<N>>(
    op: O,
    inputs: [DispatchTensor; N],
) -> Tensor<D> {
    let tracked = inputs
        .iter()
        .any(|t| t.autodiff != DispatchAutodiffContext::Disabled);
    if !tracked {
        let views = inputs.map(|t| View::new(plain::<Flex>(t)));
        let (out, _) = op.forward(views.each_ref());
        return lifted::<Flex, D>(out);
    }
    let parts = inputs.map(|t| {
        let (primitive, node) = on_tape::<Flex>(t).into_parts();
        (View::new(primitive), node)
    });
    let mut nodes = Vec::with_capacity(N);
    let mut views = Vec::with_capacity(N);
    for (view, node) in parts {
        views.push(view);
        nodes.push(node);
    }
    let views: [View; N] = views.try_into().expect("N views were pushed");
    let nodes: [_; N] = nodes.try_into().expect("N nodes were pushed");
    let (out, saved) = op.forward(views.each_ref());
    let mut kept = op.keeps().into_iter();
    let views = views.map(|view| match kept.next() {
        Some(true) => view,
        _ => View(tensor_of(Vec::new(), [0])),
    });
    let out = match Recorded(op)
        .prepare::<NoCheckpointing>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish((views, saved), out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    };
    lifted::<Tape<Flex>, D>(out)
}

/// The autodiff node of a flex tensor that gradients flow into.
pub(crate) fn node_of<const D: usize>(tensor: &Tensor<D>) -> Option<NodeId> {
    let tensor = tensor.clone().into_dispatch();
    if tensor.autodiff == DispatchAutodiffContext::Disabled {
        return None;
    }
    match <DispatchTensor as DispatchKindConversion<Tape<Flex>>>::try_into_backend(tensor) {
        Ok(BackendTensor::Float(tensor)) => Some(tensor.into_parts().1.id()),
        _ => None,
    }
}

/// The flex tensor inside a plain (not autodiff) high-level tensor.
pub(crate) fn into_flex<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
    plain::<Flex>(tensor.into_dispatch())
}

/// A plain high-level tensor from a flex tensor.
pub(crate) fn from_flex<const D: usize>(tensor: FlexTensor) -> Tensor<D> {
    lifted::<Flex, D>(tensor)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::on_cpu;

    /// Were this false for tracked tensors, training would silently take the composed forms.
    #[test]
    fn the_fused_forms_serve_plain_and_tracked_tensors() {
        let plain = Tensor::<2>::zeros([2, 2], &Device::flex());
        let tracked = Tensor::<2>::zeros([2, 2], &Device::flex().autodiff()).require_grad();
        assert!(on_cpu(&plain));
        assert!(on_cpu(&tracked));
        assert!(on_cpu(&(tracked * 2.0)));
    }
}
