//! SLiC-HF: sequence likelihood calibration with human feedback (Zhao et al. 2023).

use burn::tensor::Tensor;

use crate::{
    error::{AlgoError, finite, positive, same_shape, within},
    pair::PairLogps,
};

/// Rank calibration plus cross-entropy regulariser, one value a pair:
/// `max(0, δ - log π(y_w) + log π(y_l)) - λ log π(y_ref)`; eq. 1 of Zhao et al. 2023.
///
/// There is no reference model. `target` is the log-probability of the regularisation target,
/// `[batch]`: the SFT target where there is one, else the chosen completion.
///
/// # Errors
/// `delta` not positive, `lambda` negative, shapes, non-finite values.
pub fn slic_hf_loss(
    policy: &PairLogps,
    target: &Tensor<1>,
    delta: f64,
    lambda: f64,
) -> Result<Tensor<1>, AlgoError> {
    positive("delta", delta)?;
    within("lambda", lambda, 0.0..=f64::MAX, "finite and not negative")?;
    policy.check("policy.chosen", "policy.rejected")?;
    same_shape("target", target.dims(), policy.chosen.dims())?;
    finite("target", target)?;
    let gap = policy.chosen.clone() - policy.rejected.clone();
    Ok((gap.neg() + delta).clamp_min(0.0) - target.clone() * lambda)
}
