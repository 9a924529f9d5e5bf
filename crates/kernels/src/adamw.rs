//! One AdamW update in a single pass over memory.

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;

#[cfg(feature = "gpu")]
use crate::gpu::{self, on_gpu};
use crate::{
    op::{from_flex, into_flex, on_cpu},
    simd::multiversion,
};

/// The scalars of one AdamW update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// `1 - beta1^t`.
    pub bias_correction1: f64,
    /// `1 - beta2^t`.
    pub bias_correction2: f64,
    /// What the gradient is multiplied with first (global-norm clipping).
    pub grad_scale: f64,
}

/// The numbers of a step as they meet each element, in float32.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scalars {
    pub(crate) grad_scale: f32,
    /// `1 - lr wd`.
    pub(crate) keep: f32,
    pub(crate) beta1: f32,
    pub(crate) beta2: f32,
    /// `1 - β₁` and `1 - β₂`.
    pub(crate) new1: f32,
    pub(crate) new2: f32,
    /// `sqrt(bc₂)`.
    pub(crate) root: f32,
    /// `lr / bc₁`.
    pub(crate) rate: f32,
    pub(crate) eps: f32,
}

impl Scalars {
    fn of(step: &AdamWStep) -> Self {
        Self {
            grad_scale: step.grad_scale as f32,
            keep: (1.0 - step.lr * step.weight_decay) as f32,
            beta1: step.beta1 as f32,
            beta2: step.beta2 as f32,
            new1: (1.0 - step.beta1) as f32,
            new2: (1.0 - step.beta2) as f32,
            root: step.bias_correction2.sqrt() as f32,
            rate: (step.lr / step.bias_correction1) as f32,
            eps: step.eps as f32,
        }
    }
}

/// Decoupled weight decay Adam (Loshchilov & Hutter 2019), as PyTorch defines it:
/// `p -= lr wd p`, `m = β₁ m + (1 - β₁) g`, `v = β₂ v + (1 - β₂) g²`,
/// `p -= lr/bc₁ · m / (sqrt(v / bc₂) + eps)` with `g` scaled by `grad_scale`.
///
/// The four tensors have one length and none is on autodiff; those that nobody else
/// holds are updated in place. Returns `(parameter, m, v)`.
///
/// # Panics
/// When the lengths differ.
pub fn adamw_step(
    param: Tensor<1>,
    grad: Tensor<1>,
    m: Tensor<1>,
    v: Tensor<1>,
    step: &AdamWStep,
) -> (Tensor<1>, Tensor<1>, Tensor<1>) {
    let n = param.dims();
    assert!(
        grad.dims() == n && m.dims() == n && v.dims() == n,
        "adamw_step: the tensors differ in length"
    );
    if on_cpu(&param) && on_cpu(&grad) && on_cpu(&m) && on_cpu(&v) {
        let mut param = into_flex(param).to_contiguous();
        let mut m = into_flex(m).to_contiguous();
        let mut v = into_flex(v).to_contiguous();
        update(
            &mut param,
            &into_flex(grad).to_contiguous(),
            &mut m,
            &mut v,
            step,
        );
        return (from_flex(param), from_flex(m), from_flex(v));
    }
    #[cfg(feature = "gpu")]
    if on_gpu(&param) && on_gpu(&grad) && on_gpu(&m) && on_gpu(&v) {
        return gpu::extension::adamw_step([param, grad, m, v], Scalars::of(step));
    }
    let grad = grad * step.grad_scale;
    let param = param * (1.0 - step.lr * step.weight_decay);
    let m = m * step.beta1 + grad.clone() * (1.0 - step.beta1);
    let v = v * step.beta2 + grad.square() * (1.0 - step.beta2);
    let denominator = v.clone().sqrt() / step.bias_correction2.sqrt() + step.eps;
    let param = param - (m.clone() / denominator) * (step.lr / step.bias_correction1);
    (param, m, v)
}

const BLOCK: usize = 1 << 14;

fn update(
    param: &mut FlexTensor,
    grad: &FlexTensor,
    m: &mut FlexTensor,
    v: &mut FlexTensor,
    step: &AdamWStep,
) {
    let g = grad.as_slice::<f32>().expect("made contiguous above");
    // A contiguous tensor may still be a view into a larger buffer: keep to its range.
    let range = |t: &FlexTensor| {
        let (start, end) = t
            .layout()
            .contiguous_offsets()
            .expect("made contiguous above");
        start..end
    };
    let (rp, rm, rv) = (range(param), range(m), range(v));
    let p = &mut param.storage_mut::<f32>()[rp];
    let m = &mut m.storage_mut::<f32>()[rm];
    let v = &mut v.storage_mut::<f32>()[rv];
    let step = Scalars::of(step);
    p.par_chunks_mut(BLOCK)
        .zip(m.par_chunks_mut(BLOCK))
        .zip(v.par_chunks_mut(BLOCK))
        .zip(g.par_chunks(BLOCK))
        .for_each(|(((p, m), v), g)| update_block(p, m, v, g, &step));
}

multiversion! {
    fn update_block<F>(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], step: &Scalars) {
        let Scalars { grad_scale, keep, beta1, beta2, new1, new2, root, rate, eps } = *step;
        for (((p, m), v), g) in p.iter_mut().zip(m).zip(v).zip(g) {
            let g = *g * grad_scale;
            *m = *m * beta1 + g * new1;
            *v = *v * beta2 + g * g * new2;
            *p = *p * keep - rate * *m / (v.sqrt() / root + eps);
        }
    }
}

multiversion! {
    // Lanes side by side: one sum after the other would wait for each addition.
    fn squares<F>(x: &[f32]) -> f64 {
        let mut sums = [0.0_f64; 32];
        let mut blocks = x.chunks_exact(sums.len());
        for block in &mut blocks {
            for (sum, x) in sums.iter_mut().zip(block) {
                *sum += f64::from(*x) * f64::from(*x);
            }
        }
        for (sum, x) in sums.iter_mut().zip(blocks.remainder()) {
            *sum += f64::from(*x) * f64::from(*x);
        }
        sums.iter().sum()
    }
}

/// `Σ x²` of all the tensors, added in an order that does not depend on the number of threads: in f64, on a GPU in
/// float32 within blocks.
pub fn sum_of_squares<'a>(tensors: impl IntoIterator<Item = &'a Tensor<1>>) -> f64 {
    const BLOCK: usize = 1 << 12;
    let tensors: Vec<&Tensor<1>> = tensors.into_iter().collect();
    #[cfg(feature = "gpu")]
    if tensors.iter().all(|x| on_gpu(x)) {
        return gpu::squares::sum_of_squares(&tensors);
    }
    let of = |x: &Tensor<1>| -> f64 {
        if !on_cpu(x) {
            return x.clone().square().sum().into_scalar::<f32>().into();
        }
        let x = into_flex(x.clone()).to_contiguous();
        let x = x.as_slice::<f32>().expect("made contiguous above");
        let parts: Vec<f64> = x.par_chunks(BLOCK).map(squares).collect();
        parts.iter().sum()
    };
    tensors.into_iter().map(of).sum()
}
