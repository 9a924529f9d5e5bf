//! Products with a weight matrix in Hugging Face's orientation.

use std::sync::Arc;

use burn::backend::flex::FlexTensor;
use burn::tensor::{FloatDType, Tensor};
use rayon::prelude::*;

#[cfg(feature = "gpu")]
use crate::gpu;
use crate::{
    activation::{Activation, Again},
    bf16,
    cpu::{Mat, SharedMut, product},
    matmul::matmul,
    op::{CpuOp, View, apply, on_cpu, tensor_of},
    precision::Precision,
    simd::{dot, multiversion},
};

/// `x · weightᵀ`.
///
/// # Shapes
/// `x` `[tokens, in]`, `weight` `[out, in]`; the result `[tokens, out]`.
///
/// # Panics
/// When the inner sizes differ.
pub fn linear(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    linear_in(Precision::F32, x, weight)
}

/// [`linear`] with both factors rounded to a precision, here and in the backward pass. An [`Activation`] that can be
/// made again is not kept for it.
///
/// # Panics
/// When the inner sizes differ.
pub fn linear_in(precision: Precision, x: impl Into<Activation>, weight: Tensor<2>) -> Tensor<2> {
    let activation = x.into();
    let x = activation.value();
    check_inner(&x, &weight);
    if on_cpu(&x) && on_cpu(&weight) && precision != Precision::F16 {
        let op = Linear {
            precision,
            again: activation.again,
        };
        return apply(op, [x.into_dispatch(), weight.into_dispatch()]);
    }
    #[cfg(feature = "gpu")]
    if gpu::on_gpu(&x) && gpu::on_gpu(&weight) {
        return gpu::apply(gpu::linear::Linear(precision), [x, weight]);
    }
    linear_composed(precision, x, weight)
}

/// [`linear_in`] for sampling, off autodiff: on a GPU few rows have a kernel of their own, in which a row's result does not
/// depend on the others, and which rounds what it reads.
///
/// # Panics
/// When the inner sizes differ.
pub fn linear_for_sampling(precision: Precision, x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    #[cfg(feature = "gpu")]
    if x.dims()[0] <= gpu::few_rows::FEW && gpu::on_gpu_alone(&x) && gpu::on_gpu_alone(&weight) {
        check_inner(&x, &weight);
        return gpu::extension::few_rows(x, weight, precision);
    }
    linear_in(precision, x, weight)
}

fn check_inner(x: &Tensor<2>, weight: &Tensor<2>) {
    assert_eq!(
        x.dims()[1],
        weight.dims()[1],
        "linear: inner sizes of x and weight differ"
    );
}

/// [`linear_in`] composed of Burn's operations.
pub fn linear_composed(precision: Precision, x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    if precision == Precision::F32 {
        return matmul(x, weight.transpose());
    }
    let low = |x: Tensor<2>| x.cast(precision.dtype());
    low(x).matmul(low(weight).transpose()).cast(FloatDType::F32)
}

/// Up to this many rows the product is bound by reading the weights: they are streamed once.
const SKINNY: usize = 32;

#[derive(Clone, Debug)]
struct Linear {
    precision: Precision,
    /// `x`, where it is not kept.
    again: Option<Arc<Again>>,
}

impl CpuOp<2> for Linear {
    type Saved = ();

    fn keeps(&self) -> [bool; 2] {
        [self.again.is_none(), true]
    }

    fn forward(&self, [x, weight]: [&View; 2]) -> (FlexTensor, ()) {
        let [tokens, inner] = x.dims();
        let [outer, _] = weight.dims();
        let shape = [tokens, inner, outer];
        let out = product_with_rows(self.precision, x.data(), weight.data(), shape);
        (tensor_of(out, [tokens, outer]), ())
    }

    fn backward(
        &self,
        inputs: [&View; 2],
        (): &(),
        grad: &View,
        wanted: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        self.backward_into(inputs, &(), grad, wanted, [None, None])
    }

    fn backward_into(
        &self,
        [x, weight]: [&View; 2],
        (): &(),
        grad: &View,
        wanted: [bool; 2],
        [_, sum]: [Option<&mut [f32]>; 2],
    ) -> [Option<FlexTensor>; 2] {
        let [outer, inner] = weight.dims();
        let [tokens, _] = grad.dims();
        let d = Mat::rows(grad.data(), outer);
        let d_x = wanted[0].then(|| {
            let w = Mat::rows(weight.data(), inner);
            let product = product_in(self.precision, [tokens, inner, outer], d, w);
            tensor_of(product, [tokens, inner])
        });
        if !wanted[1] {
            return [d_x, None];
        }
        let x = self.again.as_ref().map_or(x, |again| again.value());
        let x = Mat::rows(x.data(), inner);
        let shape = [outer, inner, tokens];
        let d = d.transposed();
        let Some(sum) = sum else {
            let product = product_in(self.precision, shape, d, x);
            return [d_x, Some(tensor_of(product, [outer, inner]))];
        };
        // SAFETY: `sum` is `[outer, inner]`, as the weight is; `d` and `x` are over slices held here.
        unsafe { add_product_in(self.precision, shape, d, x, sum.as_mut_ptr(), inner, true) };
        [d_x, None]
    }
}

/// `x[tokens, inner] · weight[outer, inner]ᵀ`.
pub(crate) fn product_with_rows(
    precision: Precision,
    x: &[f32],
    weight: &[f32],
    [tokens, inner, outer]: [usize; 3],
) -> Vec<f32> {
    if precision == Precision::F32 && tokens <= SKINNY && inner > 0 {
        let mut out = vec![0.0; tokens * outer];
        skinny(x, weight, inner, outer, &mut out);
        return out;
    }
    let weight = Mat::rows(weight, inner).transposed();
    product_in(
        precision,
        [tokens, outer, inner],
        Mat::rows(x, inner),
        weight,
    )
}

/// `lhs[m, k] · rhs[k, n]` into a new row-major buffer.
fn product_in(precision: Precision, shape: [usize; 3], lhs: Mat, rhs: Mat) -> Vec<f32> {
    let [m, n, k] = shape;
    if k == 0 {
        return vec![0.0; m * n];
    }
    // Not zeroed first: the product writes every element.
    let mut out = Vec::with_capacity(m * n);
    // SAFETY: `out` has room for `[m, n]`, all of which the product writes, since it does not accumulate and
    // k > 0; callers pass matrices over slices they hold.
    unsafe {
        add_product_in(precision, shape, lhs, rhs, out.as_mut_ptr(), n, false);
        out.set_len(m * n);
    }
    out
}

/// `out (+)= lhs[m, k] · rhs[k, n]`.
///
/// # Safety
/// As for [`product`].
pub(crate) unsafe fn add_product_in(
    precision: Precision,
    shape: [usize; 3],
    lhs: Mat,
    rhs: Mat,
    out: *mut f32,
    out_row: usize,
    accumulate: bool,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match precision {
            Precision::F32 => product(shape, lhs, rhs, out, out_row, accumulate, 1.0, true),
            _ => bf16::product(shape, lhs, rhs, out, out_row, accumulate),
        }
    }
}

/// Few rows of `x`: each weight row is read once and met with every row of `x`.
///
/// Every result is one dot product with a fixed order of addition, so a row's result does not
/// depend on which other rows are in the batch.
fn skinny(x: &[f32], weight: &[f32], inner: usize, outer: usize, out: &mut [f32]) {
    const ROWS: usize = 64;
    let shared = SharedMut(out.as_mut_ptr());
    let tokens = x.len() / inner;
    let block = |(i, rows): (usize, &[f32])| {
        // SAFETY: block `i` writes columns `i * ROWS ..` of every row, no other block does, and
        // `out` outlives the loop.
        unsafe { skinny_block(x, rows, inner, shared.at(i * ROWS), outer) };
    };
    if tokens * outer * inner < 1 << 17 {
        weight.chunks(ROWS * inner).enumerate().for_each(block);
    } else {
        weight.par_chunks(ROWS * inner).enumerate().for_each(block);
    }
}

/// # Safety
/// `out` is valid for writes at `t * out_row + o` for each token `t` and each row `o` of `rows`.
unsafe fn skinny_block(x: &[f32], rows: &[f32], inner: usize, out: *mut f32, out_row: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        match crate::simd::level() {
            // SAFETY: `level` detected the instruction set; the caller's promise for `out`.
            crate::simd::Level::V4 if inner.is_multiple_of(16) => {
                return unsafe { avx512::block(x, rows, inner, out, out_row) };
            }
            // SAFETY: as above.
            crate::simd::Level::V3 if inner.is_multiple_of(16) => {
                return unsafe { avx2::block(x, rows, inner, out, out_row) };
            }
            _ => {}
        }
    }
    for (o, w) in rows.chunks_exact(inner).enumerate() {
        for (t, x) in x.chunks_exact(inner).enumerate() {
            // SAFETY: the caller's promise.
            unsafe { out.add(t * out_row + o).write(dot_rows(x, w)) };
        }
    }
}

multiversion! {
    fn dot_rows<F>(a: &[f32], b: &[f32]) -> f32 {
        dot::<F>(a, b)
    }
}

/// The tile kernel for one instruction set: `TM` rows of `x` times `TN` rows of the weight, all
/// sums in registers.
macro_rules! tile_kernel {
    ($module:ident, $features:literal, $tm:literal, $tn:literal, $lanes:literal, $zero:ident, $load:ident, $fma:ident, $sum:expr) => {
        #[cfg(target_arch = "x86_64")]
        mod $module {
            use std::arch::x86_64::*;

            /// # Safety
            /// The processor has the features; `inner` is a multiple of 16; `out` as for
            /// `skinny_block`.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn block(
                x: &[f32],
                rows: &[f32],
                inner: usize,
                out: *mut f32,
                out_row: usize,
            ) {
                let tokens = x.len() / inner;
                let outer = rows.len() / inner;
                let mut o = 0;
                while o < outer {
                    let wide = (outer - o).min($tn);
                    let mut t = 0;
                    while t < tokens {
                        let tall = (tokens - t).min($tm);
                        // SAFETY: the tile lies inside `x`, `rows` and `out`.
                        unsafe {
                            let xp = x.as_ptr().add(t * inner);
                            let wp = rows.as_ptr().add(o * inner);
                            let op = out.add(t * out_row + o);
                            if tall == $tm && wide == $tn {
                                tile::<$tm, $tn>(xp, wp, inner, op, out_row);
                            } else if tall == 1 && wide == $tn {
                                tile::<1, $tn>(xp, wp, inner, op, out_row);
                            } else {
                                for i in 0..tall {
                                    for j in 0..wide {
                                        tile::<1, 1>(
                                            xp.add(i * inner),
                                            wp.add(j * inner),
                                            inner,
                                            op.add(i * out_row + j),
                                            out_row,
                                        );
                                    }
                                }
                            }
                        }
                        t += tall;
                    }
                    o += wide;
                }
            }

            /// # Safety
            /// As for `block`, with `M` rows at `x` and `N` rows at `w`.
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn tile<const M: usize, const N: usize>(
                x: *const f32,
                w: *const f32,
                inner: usize,
                out: *mut f32,
                out_row: usize,
            ) {
                let mut sums = [[$zero(); N]; M];
                let mut k = 0;
                while k < inner {
                    // SAFETY: `k + lanes <= inner`, since `inner` is a multiple of 16.
                    unsafe {
                        let mut ws = [$zero(); N];
                        for j in 0..N {
                            ws[j] = $load(w.add(j * inner + k));
                        }
                        for i in 0..M {
                            let xv = $load(x.add(i * inner + k));
                            for j in 0..N {
                                sums[i][j] = $fma(xv, ws[j], sums[i][j]);
                            }
                        }
                    }
                    k += $lanes;
                }
                for i in 0..M {
                    for j in 0..N {
                        // SAFETY: the caller's promise for `out`.
                        unsafe { out.add(i * out_row + j).write($sum(sums[i][j])) };
                    }
                }
            }

            #[allow(dead_code)]
            #[inline]
            #[target_feature(enable = "avx2,fma")]
            fn sum256(v: __m256) -> f32 {
                let half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
                let quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
                let last = _mm_add_ss(quarter, _mm_shuffle_ps::<1>(quarter, quarter));
                _mm_cvtss_f32(last)
            }
        }
    };
}

tile_kernel!(
    avx512,
    "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma",
    4,
    4,
    16,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_fmadd_ps,
    |v| _mm512_reduce_add_ps(v)
);
tile_kernel!(
    avx2,
    "avx2,fma",
    2,
    4,
    8,
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_fmadd_ps,
    |v| sum256(v)
);
