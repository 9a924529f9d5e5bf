//! SLiC-HF: sequence likelihood calibration with human feedback (Zhao et al. 2023).

use burn::tensor::Tensor;

use crate::{
    check::{finite, not_negative, positive, same_shape},
    error::AlgoError,
    pair::PairLogps,
};

/// Rank calibration plus cross-entropy regulariser, one value a pair:
/// `max(0, δ - log π(y_w) + log π(y_l)) - λ log π(y_ref)`; eq. 1 of Zhao et al. 2023.
///
/// There is no reference model. `target` is the log-probability of the regularisation target,
/// `[batch]`, under the policy: the SFT target where there is one, else the chosen completion.
/// Gradients flow into `policy` and `target`. For the hinge on reference-corrected margins that
/// TRL calls SLiC-like, see [`crate::dpo::hinge_loss`].
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
    not_negative("lambda", lambda)?;
    policy.check("policy.chosen", "policy.rejected")?;
    same_shape("target", target.dims(), policy.chosen.dims())?;
    finite("target", target)?;
    let gap = policy.chosen.clone() - policy.rejected.clone();
    Ok((gap.neg() + delta).clamp_min(0.0) - target.clone() * lambda)
}
