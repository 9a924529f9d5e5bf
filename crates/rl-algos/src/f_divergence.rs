//! f-DPO: direct preference optimisation under other divergences (Wang et al. 2024).

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::{
    check::{positive, within},
    error::AlgoError,
    kl::exp_minus_one,
    pair::{PairLogps, log_ratios, log_sigmoid, smoothed},
};

/// A divergence between policy and reference, with `t = π / ref = e^s`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Divergence {
    /// `f'(t) = log t + 1`: DPO.
    ReverseKl,
    /// `f'(t) = -1/t`.
    ForwardKl,
    /// `f'(t) = log(2t / (t + 1))`.
    JensenShannon,
    /// `f'(t) = (t^(α-1) - 1) / (α - 1)`.
    Alpha {
        /// α; 1 is the reverse KL's limit and is refused, as it has a name of its own.
        alpha: f64,
    },
}

/// Log-ratios beyond this are held back before `exp`, as in TRL: e^80 still is a float32.
const MOST: f64 = 80.0;

impl Divergence {
    /// `f'(e^s)` up to a constant, which a margin does not feel.
    fn scores(self, s: Tensor<1>) -> Result<Tensor<1>, AlgoError> {
        Ok(match self {
            Self::ReverseKl => s,
            Self::ForwardKl => s.neg().clamp_max(MOST).exp().neg() + 1.0,
            Self::JensenShannon => log_sigmoid(s) + std::f64::consts::LN_2,
            Self::Alpha { alpha } => {
                within("alpha", alpha, -10.0..=10.0, "in [-10, 10] and not 1")?;
                let power = alpha - 1.0;
                if power.abs() < 1e-6 {
                    return Err(AlgoError::Range {
                        argument: "alpha",
                        value: alpha,
                        must: "in [-10, 10] and not 1",
                    });
                }
                exp_minus_one((s * power).clamp_max(MOST)) / power
            }
        })
    }
}

/// DPO under a divergence, one value a pair: `-(1-ε) log σ(β h) - ε log σ(-β h)` with `h = f'(t_w)
/// - f'(t_l)`; eq. 10 of Wang et al. 2024, TRL's `f_divergence_type`.
///
/// # Shapes and units
/// Log-probabilities `[batch]` in nats, summed; the result `[batch]`. Gradients flow into `policy`
/// only.
///
/// # Errors
/// `beta` not positive, `label_smoothing` outside [0, 0.5], α of 1, shapes, non-finite values.
pub fn f_dpo_loss(
    policy: &PairLogps,
    reference: &PairLogps,
    beta: f64,
    label_smoothing: f64,
    divergence: Divergence,
) -> Result<Tensor<1>, AlgoError> {
    positive("beta", beta)?;
    within("label_smoothing", label_smoothing, 0.0..=0.5, "in [0, 0.5]")?;
    let (chosen, rejected) = log_ratios(policy, reference)?;
    let margin = divergence.scores(chosen)? - divergence.scores(rejected)?;
    Ok(smoothed(margin * beta, label_smoothing))
}
