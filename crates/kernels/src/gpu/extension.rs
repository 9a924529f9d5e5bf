//! The kernels as operations of Burn's GPU backend: eager, or deferred where Burn fuses.

#[cfg(feature = "fusion")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::{
    Backend, Dispatch, backend_extension,
    tensor::{FloatTensor, IntTensor},
};
#[cfg(feature = "fusion")]
use burn::tensor::{DType, Shape};
use burn::tensor::{Int, Tensor};
use burn_cubecl::CubeBackend;

use super::swiglu as gates;
use super::{
    adamw, few_rows,
    heads::{self, Layout},
    kv_cache, logits as rows_of_logits, matmul as products, rms_norm as norms, rotary as turns,
    softmax, squares,
};
use crate::{adamw::Scalars, precision::Precision};

#[cfg(feature = "fusion")]
fn column(shape: &Shape) -> Shape {
    Shape::new([shape[0], 1])
}

/// What [`CubeBackend`] computes with kernels of ours. Tensors are float32, but for `togi_widened`'s, and off
/// autodiff.
#[backend_extension(Cube, Fusion: cfg(feature = "fusion"))]
pub(crate) trait GpuKernels: Backend {
    #[fusion(meta = |param: &TensorSpec, _: &TensorSpec, m: &TensorSpec, v: &TensorSpec, _: &Scalars| (param.clone(), m.clone(), v.clone()))]
    fn togi_adamw(
        param: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        m: FloatTensor<Self>,
        v: FloatTensor<Self>,
        scalars: Scalars,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    #[fusion(dtype = sums, shape = sums)]
    fn togi_squares(
        sums: FloatTensor<Self>,
        x: FloatTensor<Self>,
        first: usize,
    ) -> FloatTensor<Self>;

    #[fusion(dtype = x, shape = x)]
    fn togi_rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self>;

    #[fusion(meta = |x: &TensorSpec, _: &TensorSpec, _: &TensorSpec, _: &f32| (x.clone(), TensorSpec::new(column(&x.shape), x.dtype)))]
    fn togi_rms_norm_to_x(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    #[fusion(dtype = x, shape = Shape::new([norms::parts(x[0]), x[1]]))]
    fn togi_rms_norm_to_weight(
        x: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        scales: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    #[fusion(dtype = x, shape = x)]
    fn togi_rotary(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        sign: f32,
    ) -> FloatTensor<Self>;

    #[fusion(dtype = gate, shape = gate)]
    fn togi_swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;

    #[fusion(meta = |gate: &TensorSpec, up: &TensorSpec, _: &TensorSpec| (gate.clone(), up.clone()))]
    fn togi_swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    #[fusion(dtype = scores, shape = scores)]
    fn togi_softmax(
        scores: FloatTensor<Self>,
        last_seen: IntTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self>;

    #[fusion(dtype = shares, shape = shares)]
    fn togi_softmax_backward(
        shares: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self>;

    #[fusion(dtype = logits, shape = Shape::new([3, logits[0]]))]
    fn togi_selected(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self>;

    #[fusion(dtype = logits, shape = logits)]
    fn togi_selected_backward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        grad: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self>;

    #[fusion(meta = |x: &TensorSpec, tokens: &TensorSpec, layout: &Layout| TensorSpec::new(layout.by_head(tokens.shape[0]), x.dtype))]
    fn togi_by_head(
        x: FloatTensor<Self>,
        tokens: IntTensor<Self>,
        layout: Layout,
    ) -> FloatTensor<Self>;

    #[fusion(dtype = sum, shape = sum)]
    fn togi_add_by_token(
        sum: FloatTensor<Self>,
        x: FloatTensor<Self>,
        starts: IntTensor<Self>,
        places: IntTensor<Self>,
        layout: Layout,
        adds: bool,
    ) -> FloatTensor<Self>;

    #[fusion(meta = |query: &TensorSpec, _: &TensorSpec, _: &TensorSpec, keys: &TensorSpec, values: &TensorSpec, _: &TensorSpec, _: &Layout| (query.clone(), keys.clone(), values.clone()))]
    fn togi_attend(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        places: IntTensor<Self>,
        layout: Layout,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    #[fusion(meta = |x: &TensorSpec, _: &TensorSpec, _: &TensorSpec, _: &f32| (x.clone(), x.clone()))]
    fn togi_rms_norm_of_sum(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    #[fusion(dtype = x, shape = Shape::new([x[0], weight[0]]))]
    fn togi_few_rows(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self>;

    #[fusion(dtype = a, shape = products::shape_of(a, b))]
    fn togi_matmul(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;

    #[fusion(meta = |a: &TensorSpec, b: &TensorSpec| TensorSpec::new(products::shape_of(&a.shape, &b.shape), DType::F32))]
    fn togi_widened(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl GpuKernels for CubeBackend {
    fn togi_adamw(
        param: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        m: FloatTensor<Self>,
        v: FloatTensor<Self>,
        scalars: Scalars,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        adamw::adamw([param, grad, m, v], scalars)
    }

    fn togi_squares(
        sums: FloatTensor<Self>,
        x: FloatTensor<Self>,
        first: usize,
    ) -> FloatTensor<Self> {
        squares::squares(sums, x, first)
    }

    fn togi_rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self> {
        norms::forward(x, weight, eps)
    }

    fn togi_rms_norm_to_x(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        norms::to_x(x, weight, grad, eps)
    }

    fn togi_rms_norm_to_weight(
        x: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        scales: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        norms::to_weight(x, grad, scales)
    }

    fn togi_rotary(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        sign: f32,
    ) -> FloatTensor<Self> {
        turns::turned(x, cos, sin, sign)
    }

    fn togi_swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        gates::forward(gate, up)
    }

    fn togi_swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        gates::backward(gate, up, grad)
    }

    fn togi_softmax(
        scores: FloatTensor<Self>,
        last_seen: IntTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self> {
        softmax::forward(scores, last_seen, scale)
    }

    fn togi_softmax_backward(
        shares: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self> {
        softmax::backward(shares, grad, scale)
    }

    fn togi_selected(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self> {
        rows_of_logits::selected(logits, targets, scale)
    }

    fn togi_selected_backward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        grad: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self> {
        rows_of_logits::gradient(logits, targets, grad, scale)
    }

    fn togi_by_head(
        x: FloatTensor<Self>,
        tokens: IntTensor<Self>,
        layout: Layout,
    ) -> FloatTensor<Self> {
        heads::by_head(x, tokens, layout)
    }

    fn togi_add_by_token(
        sum: FloatTensor<Self>,
        x: FloatTensor<Self>,
        starts: IntTensor<Self>,
        places: IntTensor<Self>,
        layout: Layout,
        adds: bool,
    ) -> FloatTensor<Self> {
        heads::add_by_token(sum, x, [starts, places], layout, adds)
    }

    fn togi_attend(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        places: IntTensor<Self>,
        layout: Layout,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        kv_cache::attend([query, key, value], [keys, values], places, layout)
    }

    fn togi_rms_norm_of_sum(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        norms::of_sum(x, y, weight, eps)
    }

    fn togi_few_rows(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        few_rows::product(x, weight, precision)
    }

    fn togi_matmul(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        products::product(a, b)
    }

    fn togi_widened(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        products::widened(a, b)
    }
}

/// One step of AdamW: parameter, first and second moment.
pub(crate) fn adamw_step(
    [param, grad, m, v]: [Tensor<1>; 4],
    scalars: Scalars,
) -> (Tensor<1>, Tensor<1>, Tensor<1>) {
    let [param, grad, m, v] = [param, grad, m, v].map(Tensor::into_dispatch);
    let (param, m, v) = Dispatch::togi_adamw(param, grad, m, v, scalars);
    (
        Tensor::from_dispatch(param),
        Tensor::from_dispatch(m),
        Tensor::from_dispatch(v),
    )
}

/// Writes the sums of the squares of blocks of `x` to `sums`, from the place `first` on.
pub(super) fn squares_into(sums: Tensor<1>, x: Tensor<1>, first: usize) -> Tensor<1> {
    let (sums, x) = (sums.into_dispatch(), x.into_dispatch());
    Tensor::from_dispatch(Dispatch::togi_squares(sums, x, first))
}

/// RMSNorm of the rows of `x`; the weight is `[1, width]`.
pub(super) fn rms_norm(x: Tensor<2>, weight: Tensor<2>, eps: f32) -> Tensor<2> {
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(Dispatch::togi_rms_norm(x, weight, eps))
}

/// The gradient of [`rms_norm`]'s `x`, and the scales of its rows.
pub(super) fn rms_norm_to_x(
    x: Tensor<2>,
    weight: Tensor<2>,
    grad: Tensor<2>,
    eps: f32,
) -> (Tensor<2>, Tensor<2>) {
    let [x, weight, grad] = [x, weight, grad].map(Tensor::into_dispatch);
    let (d_x, scales) = Dispatch::togi_rms_norm_to_x(x, weight, grad, eps);
    (Tensor::from_dispatch(d_x), Tensor::from_dispatch(scales))
}

/// The gradient of its weight, by parts of the rows.
pub(super) fn rms_norm_to_weight(x: Tensor<2>, grad: Tensor<2>, scales: Tensor<2>) -> Tensor<2> {
    let [x, grad, scales] = [x, grad, scales].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::togi_rms_norm_to_weight(x, grad, scales))
}

/// Pairs of `x` turned by angles times `sign`.
pub(super) fn rotary(x: Tensor<2>, cos: Tensor<2>, sin: Tensor<2>, sign: f32) -> Tensor<2> {
    let [x, cos, sin] = [x, cos, sin].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::togi_rotary(x, cos, sin, sign))
}

/// `silu(gate) * up`.
pub(super) fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    let (gate, up) = (gate.into_dispatch(), up.into_dispatch());
    Tensor::from_dispatch(Dispatch::togi_swiglu(gate, up))
}

/// The gradients of [`swiglu`]'s inputs.
pub(super) fn swiglu_backward(
    gate: Tensor<2>,
    up: Tensor<2>,
    grad: Tensor<2>,
) -> (Tensor<2>, Tensor<2>) {
    let [gate, up, grad] = [gate, up, grad].map(Tensor::into_dispatch);
    let (d_gate, d_up) = Dispatch::togi_swiglu_backward(gate, up, grad);
    (Tensor::from_dispatch(d_gate), Tensor::from_dispatch(d_up))
}

/// `softmax(scores * scale)` of `[rows, heads, queries, positions]` over the positions up to the last that each query
/// sees, `[rows, queries]`.
pub(super) fn softmax_up_to(scores: Tensor<4>, last_seen: Tensor<2, Int>, scale: f32) -> Tensor<4> {
    let (scores, last_seen) = (scores.into_dispatch(), last_seen.into_dispatch());
    Tensor::from_dispatch(Dispatch::togi_softmax(scores, last_seen, scale))
}

/// The gradient of [`softmax_up_to`]'s scores, from its result and the gradient of that.
pub(super) fn softmax_backward(shares: Tensor<4>, grad: Tensor<4>, scale: f32) -> Tensor<4> {
    let (shares, grad) = (shares.into_dispatch(), grad.into_dispatch());
    Tensor::from_dispatch(Dispatch::togi_softmax_backward(shares, grad, scale))
}

/// Log-probabilities of a target a row, entropies and collisions, `[3, rows]`, under `softmax(logits * scale)`.
pub(super) fn selected(logits: Tensor<2>, targets: Tensor<1, Int>, scale: f32) -> Tensor<2> {
    let (logits, targets) = (logits.into_dispatch(), targets.into_dispatch());
    Tensor::from_dispatch(Dispatch::togi_selected(logits, targets, scale))
}

/// The gradient of [`selected`]'s logits, all in a vector, where they are if nobody else holds them.
pub(super) fn selected_backward(
    logits: Tensor<1>,
    targets: Tensor<1, Int>,
    grad: Tensor<2>,
    scale: f32,
) -> Tensor<1> {
    let (logits, targets) = (logits.into_dispatch(), targets.into_dispatch());
    let grad = grad.into_dispatch();
    Tensor::from_dispatch(Dispatch::togi_selected_backward(
        logits, targets, grad, scale,
    ))
}

/// Rows of tokens by head ([`heads::Places::by_head`]).
pub(super) fn by_head(x: Tensor<2>, tokens: Tensor<1, Int>, layout: Layout) -> Tensor<4> {
    let (x, tokens) = (x.into_dispatch(), tokens.into_dispatch());
    Tensor::from_dispatch(Dispatch::togi_by_head(x, tokens, layout))
}

/// The way back ([`heads::Places::add_by_token`]).
pub(super) fn add_by_token(
    sum: Tensor<1>,
    x: Tensor<4>,
    places: [Tensor<1, Int>; 2],
    layout: Layout,
    adds: bool,
) -> Tensor<1> {
    let (sum, x) = (sum.into_dispatch(), x.into_dispatch());
    let [starts, places] = places.map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::togi_add_by_token(
        sum, x, starts, places, layout, adds,
    ))
}

/// Attention of a new token a row over what a cache has; the result, and the keys and values with the new ones.
pub(super) fn attend(
    new: [Tensor<2>; 3],
    cached: [Tensor<1>; 2],
    places: Tensor<1, Int>,
    layout: Layout,
) -> (Tensor<2>, Tensor<1>, Tensor<1>) {
    let [query, key, value] = new.map(Tensor::into_dispatch);
    let [keys, values] = cached.map(Tensor::into_dispatch);
    let places = places.into_dispatch();
    let (out, keys, values) =
        Dispatch::togi_attend(query, key, value, keys, values, places, layout);
    (
        Tensor::from_dispatch(out),
        Tensor::from_dispatch(keys),
        Tensor::from_dispatch(values),
    )
}

/// `x + y`, and [`rms_norm`] of that; all off autodiff.
pub(crate) fn rms_norm_of_sum([x, y, weight]: [Tensor<2>; 3], eps: f32) -> (Tensor<2>, Tensor<2>) {
    let [x, y, weight] = [x, y, weight].map(Tensor::into_dispatch);
    let (sum, out) = Dispatch::togi_rms_norm_of_sum(x, y, weight, eps);
    (Tensor::from_dispatch(sum), Tensor::from_dispatch(out))
}

/// `x · weightᵀ` where `x` has few rows, of factors in a precision; both off autodiff.
pub(crate) fn few_rows(x: Tensor<2>, weight: Tensor<2>, precision: Precision) -> Tensor<2> {
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(Dispatch::togi_few_rows(x, weight, precision))
}

/// `a · b` with float32's precision.
pub(super) fn matmul<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    let (a, b) = (a.into_dispatch(), b.into_dispatch());
    Tensor::from_dispatch(Dispatch::togi_matmul(a, b))
}

/// `a · b` of matrices in a lower precision, in float32.
pub(super) fn widened<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    let (a, b) = (a.into_dispatch(), b.into_dispatch());
    Tensor::from_dispatch(Dispatch::togi_widened(a, b))
}
