//! Estimators of the KL divergence to a reference, and controllers of its weight.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::{
    check::{finite, positive, same_shape, within},
    error::AlgoError,
};

/// Estimators of `KL(π‖ref)` from one sample a token, with `l = log π - log ref` (Schulman 2020,
/// "Approximating KL divergence").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// `l`: unbiased, of either sign.
    K1,
    /// `l² / 2`: biased, never negative; its gradient is an unbiased one of the KL.
    K2,
    /// `exp(-l) - 1 + l`: unbiased, never negative. Its gradient is *not* that of the KL of the
    /// sampling policy but of the forward KL, `KL(ref‖π)`.
    K3,
}

/// One value a token, `[batch, time]`; 0 where both arguments are equal, as padding is.
///
/// Gradients flow into `policy` only.
///
/// # Errors
/// Shapes, non-finite values.
pub fn kl_per_token(
    policy: &Tensor<2>,
    reference: &Tensor<2>,
    estimator: KlEstimator,
) -> Result<Tensor<2>, AlgoError> {
    same_shape("reference", reference.dims(), policy.dims())?;
    finite("policy", policy)?;
    finite("reference", reference)?;
    let l = policy.clone() - reference.clone().detach();
    Ok(match estimator {
        KlEstimator::K1 => l,
        KlEstimator::K2 => l.square() / 2.0,
        KlEstimator::K3 => exp_minus_one(l.clone().neg()) + l,
    })
}

/// `exp(x) - 1`, as `tanh(x/2) (exp(x) + 1)`: exact near 0, where a policy starts and where
/// `exp(x) - 1` keeps no digit. Beyond 1 in absolute value the plain form is as good.
pub(crate) fn exp_minus_one<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    (x.clone() / 2.0).tanh() * (x.exp() + 1.0)
}

/// `KL_t · ρ_t`, `ρ = exp(log π - log π_old)`: a KL estimate as a term of a loss whose gradient is that
/// of the KL it estimates. The estimate alone is an average over samples of `π_old` that stay where
/// they are; the ratio puts back that they were drawn from the policy (Tang & Munos 2025; DeepSeek-
/// V3.2). On policy, the gradient of k3 times the ratio is that of k2.
///
/// # Shapes
/// All `[batch, time]`. Gradients flow into `kl` and `logps`.
///
/// # Errors
/// Shapes, non-finite values.
pub fn times_ratio(
    kl: Tensor<2>,
    logps: &Tensor<2>,
    old_logps: &Tensor<2>,
) -> Result<Tensor<2>, AlgoError> {
    same_shape("logps", logps.dims(), kl.dims())?;
    same_shape("old_logps", old_logps.dims(), kl.dims())?;
    finite("logps", logps)?;
    finite("old_logps", old_logps)?;
    Ok(kl * (logps.clone() - old_logps.clone().detach()).exp())
}

/// How the weight of the KL penalty moves. The weight itself is the only state: keep it in the
/// checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum KlController {
    /// Stays as it is.
    Fixed,
    /// `coef ← coef (1 + clip(KL / target - 1, ±0.2) n / horizon)`: section 2.2 of Ziegler et al.
    /// 2019, as in lm-human-preferences (target 6, horizon 10,000).
    Adaptive {
        /// KL that is steered to, in nats a sequence.
        target: f64,
        /// Episodes over which the weight may change by about a fifth of its own size.
        horizon: f64,
    },
}

impl KlController {
    /// Checks the fields, for batches of so many episodes.
    ///
    /// # Errors
    /// When the target is not positive, or the horizon not more than a fifth of a batch: the weight would become 0, or
    /// negative.
    pub fn validate(&self, episodes: usize) -> Result<(), AlgoError> {
        if let Self::Adaptive { target, horizon } = self {
            positive("target", *target)?;
            positive("horizon", *horizon)?;
            if *horizon <= 0.2 * episodes as f64 {
                return Err(AlgoError::Range {
                    argument: "horizon",
                    value: *horizon,
                    must: "more than a fifth of the episodes of a batch",
                });
            }
        }
        Ok(())
    }

    /// The weight after a batch of `episodes` whose mean sequence KL was `kl`.
    ///
    /// # Errors
    /// When `kl` or `coef` is not finite, or the fields are not valid.
    pub fn update(&self, coef: f64, kl: f64, episodes: usize) -> Result<f64, AlgoError> {
        self.validate(episodes)?;
        within("kl", kl, f64::MIN..=f64::MAX, "finite")?;
        within("coef", coef, 0.0..=f64::MAX, "finite and not negative")?;
        Ok(match self {
            Self::Fixed => coef,
            Self::Adaptive { target, horizon } => {
                let error = (kl / target - 1.0).clamp(-0.2, 0.2);
                coef * (1.0 + error * episodes as f64 / horizon)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_stays_positive() {
        let of = |horizon: f64| KlController::Adaptive {
            target: 6.0,
            horizon,
        };
        for horizon in [0.0, 100.0, 102.4] {
            let error = of(horizon).update(0.05, 0.0, 512).unwrap_err();
            assert!(error.to_string().contains("horizon"), "{error}");
        }
        assert!(of(102.5).update(0.05, 0.0, 512).unwrap() > 0.0);
    }
}
