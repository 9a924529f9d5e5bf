//! Binary classifier optimisation (Jung et al. 2024).

use burn::tensor::Tensor;

use crate::{
    check::{finite_values, positive},
    error::AlgoError,
    pair::{PairLogps, log_ratios, log_sigmoid},
};

/// BCO on pairs, one value a pair: chosen and rejected answers are told apart one by one.
///
/// `-log σ(β s_w - δ) - log σ(-(β s_l - δ))`; eq. 8 of Jung et al. 2024. TRL's `bco_pair` is
/// `delta` = 0; the paper's δ is the mean reward so far (see [`RewardShift`]).
///
/// # Shapes and units
/// Log-probabilities `[batch]` in nats, summed; the result `[batch]`. Gradients flow into `policy`
/// only.
///
/// # Errors
/// `beta` not positive, `delta` not finite, shapes, non-finite values.
pub fn bco_pair_loss(
    policy: &PairLogps,
    reference: &PairLogps,
    beta: f64,
    delta: f64,
) -> Result<Tensor<1>, AlgoError> {
    positive("beta", beta)?;
    finite_values("delta", &[delta])?;
    let (chosen, rejected) = log_ratios(policy, reference)?;
    let right = log_sigmoid(chosen * beta - delta);
    let wrong = log_sigmoid((rejected * beta - delta).neg());
    Ok((right + wrong).neg())
}

/// The running mean of implicit rewards, which BCO subtracts: an exponential average of
/// `(mean β s_w + mean β s_l) / 2`, as in TRL's former BCO trainer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RewardShift {
    /// The mean; 0 before the first batch.
    pub mean: f64,
    decay: f64,
}

impl RewardShift {
    /// Starts at 0. `decay` is the share that stays at each batch.
    ///
    /// # Errors
    /// `decay` outside [0, 1).
    pub fn new(decay: f64) -> Result<Self, AlgoError> {
        crate::check::within("decay", decay, 0.0..=0.999_999_9, "in [0, 1)")?;
        Ok(Self { mean: 0.0, decay })
    }

    /// Takes in a batch's implicit rewards.
    ///
    /// # Errors
    /// Without rewards, or with one that is not finite.
    pub fn update(&mut self, chosen: &[f64], rejected: &[f64]) -> Result<(), AlgoError> {
        finite_values("chosen", chosen)?;
        finite_values("rejected", rejected)?;
        let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
        let now = f64::midpoint(mean(chosen), mean(rejected));
        self.mean = self.decay * self.mean + (1.0 - self.decay) * now;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shift_is_an_exponential_average_of_both_sides() {
        let mut shift = RewardShift::new(0.75).unwrap();
        shift.update(&[1.0, 3.0], &[0.0]).unwrap();
        assert_eq!(shift.mean, 0.25);
        shift.update(&[2.0], &[0.0]).unwrap();
        assert_eq!(shift.mean, 0.4375);
        assert!(RewardShift::new(1.0).is_err());
        assert!(shift.update(&[f64::NAN], &[0.0]).is_err());
    }
}
