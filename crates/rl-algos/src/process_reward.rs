//! Process reward models: each step of an answer is right or wrong (Uesato et al. 2022; Lightman et
//! al. 2023).

use burn::tensor::{Bool, Tensor};

use crate::{
    check::{Rows, constant, masked, same_len},
    error::AlgoError,
    pair::smoothed,
};

/// Cross-entropy of the steps' labels, one value a step: `-log σ(r)` of a right step, `-log σ(-r)`
/// of a wrong one. The score `r` is read where the step ends.
///
/// # Shapes
/// `scores` and `mask` `[batch, steps]`, true where there is a step; `labels` in the same order,
/// one a place, read where the mask is true. 0 outside the mask.
///
/// # Errors
/// Shapes, an answer without a step, non-finite values where the mask counts.
pub fn step_loss(
    scores: &Tensor<2>,
    labels: &[bool],
    mask: &Tensor<2, Bool>,
) -> Result<Tensor<2>, AlgoError> {
    let [batch, steps] = scores.dims();
    let rows = Rows::read(mask, [batch, steps])?;
    rows.finite("scores", scores)?;
    same_len("labels", labels.len(), batch * steps)?;
    let signs = labels.iter().map(|right| if *right { 1.0 } else { -1.0 });
    let signs = constant(signs.collect(), [batch, steps], scores);
    let signed = masked(scores.clone(), mask) * signs;
    let losses = smoothed(signed.reshape([batch * steps]), 0.0);
    Ok(masked(losses.reshape([batch, steps]), mask))
}
