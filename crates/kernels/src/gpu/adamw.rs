//! AdamW on a GPU, in one kernel for each parameter.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{for_each, own, rows};
use crate::adamw::Scalars;

#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn update(
    param: &mut [f32],
    grad: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    count: usize,
    grad_scale: f32,
    keep: f32,
    beta1: f32,
    beta2: f32,
    new1: f32,
    new2: f32,
    root: f32,
    rate: f32,
    eps: f32,
) {
    let i = ABSOLUTE_POS;
    if i < count {
        let g = grad[i] * grad_scale;
        let next_m = m[i] * beta1 + g * new1;
        let next_v = v[i] * beta2 + g * g * new2;
        m[i] = next_m;
        v[i] = next_v;
        param[i] = param[i] * keep - rate * next_m / (next_v.sqrt() / root + eps);
    }
}

/// Parameter, first and second moment after a step: where they were, if nobody else holds them.
pub(super) fn adamw(
    [param, grad, m, v]: [CubeTensor; 4],
    s: Scalars,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let (param, m, v) = (own(param), own(m), own(v));
    let count = param.meta.num_elements();
    if count > 0 {
        let (cubes, dim) = for_each(&param, count);
        update::launch(
            &param.client.clone(),
            cubes,
            dim,
            param.clone().into_buffer_arg(),
            rows(grad).into_buffer_arg(),
            m.clone().into_buffer_arg(),
            v.clone().into_buffer_arg(),
            count,
            s.grad_scale,
            s.keep,
            s.beta1,
            s.beta2,
            s.new1,
            s.new2,
            s.root,
            s.rate,
            s.eps,
        );
    }
    (param, m, v)
}
