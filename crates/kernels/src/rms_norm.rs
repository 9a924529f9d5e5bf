//! Root-mean-square layer normalisation.

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;

#[cfg(feature = "gpu")]
use crate::gpu::{self, on_gpu};
use crate::{
    cpu::filled_rows,
    op::{CpuOp, View, apply, on_cpu, tensor_of},
    simd::{dot, fma, multiversion},
};

/// `x / sqrt(mean(x²) + eps) * weight` over the last dimension (Zhang & Sennrich 2019).
///
/// # Shapes
/// `x` `[tokens, width]`, `weight` `[width]`; the result as `x`.
///
/// # Panics
/// When the widths differ.
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    assert_eq!(
        x.dims()[1],
        weight.dims()[0],
        "rms_norm: width of x and weight differ"
    );
    if on_cpu(&x) && on_cpu(&weight) {
        apply(
            RmsNorm::new(eps),
            [x.into_dispatch(), weight.into_dispatch()],
        )
    } else {
        #[cfg(feature = "gpu")]
        if on_gpu(&x) && on_gpu(&weight) {
            let op = gpu::rms_norm::RmsNorm { eps: eps as f32 };
            return gpu::apply(op, [x, weight.unsqueeze()]);
        }
        rms_norm_composed(x, weight, eps)
    }
}

/// [`rms_norm`] composed of Burn's operations.
pub fn rms_norm_composed(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    let scale = (x.clone().square().mean_dim(1) + eps).sqrt().recip();
    x * scale * weight.unsqueeze()
}

#[derive(Clone, Debug)]
pub(crate) struct RmsNorm {
    eps: f32,
}

impl RmsNorm {
    pub(crate) fn new(eps: f64) -> Self {
        Self { eps: eps as f32 }
    }
}

/// Rows whose weight gradients are added up together; fixed, so that the sum does not depend on
/// the number of threads.
const GRADIENT_BLOCK: usize = 64;

multiversion! {
    fn forward<F>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let width = weight.len();
        for (x, y) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let scale = 1.0 / (dot::<F>(x, x) / width as f32 + eps).sqrt();
            for ((x, w), y) in x.iter().zip(weight).zip(y) {
                *y = *x * scale * *w;
            }
        }
    }
}

multiversion! {
    // dx = s (w∘dy) - x s³/d Σ w∘dy∘x with s the row's scale.
    fn backward_x<F>(x: &[f32], weight: &[f32], grad: &[f32], eps: f32, out: &mut [f32]) {
        let width = weight.len();
        let rows = x.chunks_exact(width).zip(grad.chunks_exact(width));
        for ((x, d), y) in rows.zip(out.chunks_exact_mut(width)) {
            let scale = 1.0 / (dot::<F>(x, x) / width as f32 + eps).sqrt();
            for ((w, d), y) in weight.iter().zip(d).zip(y.iter_mut()) {
                *y = *w * *d;
            }
            let shared = -dot::<F>(y, x) * scale * scale * scale / width as f32;
            for (x, y) in x.iter().zip(y) {
                *y = fma::<F>(*y, scale, *x * shared);
            }
        }
    }
}

multiversion! {
    fn backward_weight<F>(x: &[f32], grad: &[f32], eps: f32, out: &mut [f32]) {
        let width = out.len();
        for (x, d) in x.chunks_exact(width).zip(grad.chunks_exact(width)) {
            let scale = 1.0 / (dot::<F>(x, x) / width as f32 + eps).sqrt();
            for ((x, d), y) in x.iter().zip(d).zip(out.iter_mut()) {
                *y = fma::<F>(*x * scale, *d, *y);
            }
        }
    }
}

impl CpuOp<2> for RmsNorm {
    type Saved = ();

    fn forward(&self, [x, weight]: [&View; 2]) -> (FlexTensor, ()) {
        let shape: [usize; 2] = x.dims();
        let (data, w) = (x.data(), weight.data());
        let out = filled_rows(data.len(), shape[1], |row, block| {
            let start = row * shape[1];
            forward(&data[start..start + block.len()], w, self.eps, block);
        });
        (tensor_of(out, shape), ())
    }

    fn backward(
        &self,
        [x, weight]: [&View; 2],
        (): &(),
        grad: &View,
        wanted: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let shape: [usize; 2] = x.dims();
        let width = shape[1];
        let (data, w, d) = (x.data(), weight.data(), grad.data());
        let d_x = wanted[0].then(|| {
            let out = filled_rows(data.len(), width, |row, block| {
                let range = row * width..row * width + block.len();
                backward_x(&data[range.clone()], w, &d[range], self.eps, block);
            });
            tensor_of(out, shape)
        });
        let d_weight = wanted[1].then(|| {
            let step = (GRADIENT_BLOCK * width).max(1);
            let parts: Vec<Vec<f32>> = data
                .par_chunks(step)
                .zip(d.par_chunks(step))
                .map(|(x, d)| {
                    let mut part = vec![0.0; width];
                    backward_weight(x, d, self.eps, &mut part);
                    part
                })
                .collect();
            let mut out = vec![0.0; width];
            for part in parts {
                for (y, p) in out.iter_mut().zip(part) {
                    *y += p;
                }
            }
            tensor_of(out, [width])
        });
        [d_x, d_weight]
    }
}
