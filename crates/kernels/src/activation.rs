//! What goes into linear layers and costs little to make: their backward passes make it again, and nothing keeps it
//! until then.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

#[cfg(feature = "gpu")]
use crate::gpu;
use crate::{
    op::{CpuOp, View, is_tracked, on_cpu, view_of},
    rms_norm::{RmsNorm, rms_norm},
    swiglu::{Swiglu, swiglu},
};

/// An input of linear layers, `[tokens, width]`, which may know how it is made.
///
/// On the CPU [`linear_in`](crate::linear_in) keeps that for its backward pass, and not the numbers. Layers with one
/// input make it once, and it is gone after the last of them.
#[derive(Clone, Debug)]
pub struct Activation {
    value: Tensor<2>,
    pub(crate) again: Option<Arc<Again>>,
}

impl Activation {
    /// [`rms_norm`].
    ///
    /// # Panics
    /// As it does.
    pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Self {
        let again = Again::of(RmsNorm::new(eps), &x, &weight);
        let value = rms_norm(x, weight, eps);
        Self { value, again }
    }

    /// `x + y`, and [`rms_norm`] of that.
    ///
    /// # Panics
    /// When the shapes or widths differ.
    pub fn rms_norm_of_sum(
        x: Tensor<2>,
        y: Tensor<2>,
        weight: Tensor<1>,
        eps: f64,
    ) -> (Tensor<2>, Self) {
        #[cfg(feature = "gpu")]
        if gpu::on_gpu_alone(&x) && gpu::on_gpu_alone(&y) && gpu::on_gpu_alone(&weight) {
            assert_eq!(x.dims(), y.dims(), "rms_norm_of_sum: shapes differ");
            assert_eq!(
                x.dims()[1],
                weight.dims()[0],
                "rms_norm_of_sum: width of x and weight differ"
            );
            let inputs = [x, y, weight.unsqueeze()];
            let (sum, value) = gpu::extension::rms_norm_of_sum(inputs, eps as f32);
            return (sum, value.into());
        }
        let sum = x + y;
        let normed = Self::rms_norm(sum.clone(), weight, eps);
        (sum, normed)
    }

    /// [`swiglu`].
    ///
    /// # Panics
    /// As it does.
    pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Self {
        let again = Again::of(Swiglu, &gate, &up);
        let value = swiglu(gate, up);
        Self { value, again }
    }

    /// The numbers.
    pub fn value(&self) -> Tensor<2> {
        self.value.clone()
    }
}

/// Something that is kept as it is.
impl From<Tensor<2>> for Activation {
    fn from(value: Tensor<2>) -> Self {
        Self { value, again: None }
    }
}

/// How an activation is made, and the activation once a backward pass has made it.
pub(crate) struct Again {
    make: Box<dyn Fn() -> FlexTensor + Send + Sync>,
    made: OnceLock<View>,
}

impl Again {
    /// Where there will be a backward pass on the CPU; elsewhere an activation is kept.
    fn of<const D: usize>(
        op: impl CpuOp<2> + Sync,
        a: &Tensor<2>,
        b: &Tensor<D>,
    ) -> Option<Arc<Self>> {
        let recorded = is_tracked(a) || is_tracked(b);
        if !(recorded && on_cpu(a) && on_cpu(b)) {
            return None;
        }
        let inputs = [view_of(a), view_of(b)];
        Some(Arc::new(Self {
            make: Box::new(move || op.forward(inputs.each_ref()).0),
            made: OnceLock::new(),
        }))
    }

    pub(crate) fn value(&self) -> &View {
        self.made.get_or_init(|| View::new((self.make)()))
    }
}

impl fmt::Debug for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.made.get().is_some() {
            "made"
        } else {
            "to make"
        };
        f.debug_tuple("Again").field(&state).finish()
    }
}
