//! Estimators of the KL divergence to a reference, and controllers of its weight.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::{AlgoError, positive, same_shape, within};

/// Estimators of `KL(π‖ref)` from one sample a token, with `l = log π - log ref` (Schulman 2020,
/// "Approximating KL divergence").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// `l`: unbiased, of either sign.
    K1,
    /// `l² / 2`: biased, never negative.
    K2,
    /// `exp(-l) - 1 + l`: unbiased, never negative.
    K3,
}

/// One value a token, `[batch, time]`; 0 where both arguments are 0 (padding).
///
/// # Errors
/// When the shapes differ.
pub fn kl_per_token(
    policy: &Tensor<2>,
    reference: &Tensor<2>,
    estimator: KlEstimator,
) -> Result<Tensor<2>, AlgoError> {
    same_shape("reference", reference.dims(), policy.dims())?;
    let l = policy.clone() - reference.clone().detach();
    Ok(match estimator {
        KlEstimator::K1 => l,
        KlEstimator::K2 => l.square() / 2.0,
        KlEstimator::K3 => l.clone().neg().exp() - 1.0 + l,
    })
}

/// How the weight of the KL penalty moves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum KlController {
    /// Stays as it is.
    Fixed,
    /// `coef ← coef (1 + clip(KL / target - 1, ±0.2) n / horizon)` (Ziegler et al. 2019).
    Adaptive {
        /// KL that is steered to, in nats a sequence.
        target: f64,
        /// Episodes over which the weight may change by about its own size.
        horizon: f64,
    },
}

impl KlController {
    /// # Errors
    /// When the target or the horizon is not positive.
    pub fn validate(&self) -> Result<(), AlgoError> {
        if let Self::Adaptive { target, horizon } = self {
            positive("target", *target)?;
            positive("horizon", *horizon)?;
        }
        Ok(())
    }

    /// The weight after a batch of `episodes` whose mean sequence KL was `kl`.
    ///
    /// # Errors
    /// When `kl` is not finite.
    pub fn update(&self, coef: f64, kl: f64, episodes: usize) -> Result<f64, AlgoError> {
        within("kl", kl, f64::MIN..=f64::MAX, "finite")?;
        Ok(match self {
            Self::Fixed => coef,
            Self::Adaptive { target, horizon } => {
                let error = (kl / target - 1.0).clamp(-0.2, 0.2);
                coef * (1.0 + error * episodes as f64 / horizon)
            }
        })
    }
}
