//! Log-probabilities of preference pairs.

use burn::tensor::Tensor;

use crate::error::{AlgoError, finite, same_shape};

/// Log-probabilities of the completions of preference pairs, summed over completion tokens,
/// `[batch]`, in nats.
#[derive(Clone, Debug)]
pub struct PairLogps {
    /// Of the preferred completions.
    pub chosen: Tensor<1>,
    /// Of the others.
    pub rejected: Tensor<1>,
}

impl PairLogps {
    pub(crate) fn check(&self, chosen: &'static str, rejected: &'static str) -> Result<(), AlgoError> {
        same_shape(rejected, self.rejected.dims(), self.chosen.dims())?;
        finite(chosen, &self.chosen)?;
        finite(rejected, &self.rejected)
    }
}

/// Log-ratios of policy to reference: `(s_w, s_l)`. The reference takes no gradient.
pub(crate) fn log_ratios(
    policy: &PairLogps,
    reference: &PairLogps,
) -> Result<(Tensor<1>, Tensor<1>), AlgoError> {
    policy.check("policy.chosen", "policy.rejected")?;
    reference.check("reference.chosen", "reference.rejected")?;
    same_shape("reference.chosen", reference.chosen.dims(), policy.chosen.dims())?;
    Ok((
        policy.chosen.clone() - reference.chosen.clone().detach(),
        policy.rejected.clone() - reference.rejected.clone().detach(),
    ))
}

/// `log(1 / (1 + exp(-x)))` without overflow: `min(x, 0) - log1p(exp(-|x|))`.
pub(crate) fn log_sigmoid(x: Tensor<1>) -> Tensor<1> {
    x.clone().clamp_max(0.0) - x.abs().neg().exp().log1p()
}
