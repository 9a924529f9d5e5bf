//! Statistical rejection sampling (Liu et al. 2023, "Statistical rejection sampling improves
//! preference optimization"): from answers of the SFT policy to answers of the optimal one.

use crate::{
    check::{finite_values, positive, within},
    error::AlgoError,
};

/// The candidates that are taken, in order: algorithm 1 of Liu et al. 2023. In each round a candidate
/// that is left is taken with probability `exp((r - r_max) / β)`, `r_max` the largest reward of those
/// that are left, until there are `count`. What is taken is distributed as the policy that is optimal
/// for the rewards under the KL weight β.
///
/// `uniform` gives numbers in [0, 1).
///
/// # Errors
/// `beta` not positive, non-finite rewards, `count` above the number of candidates.
pub fn rejection_sample(
    rewards: &[f64],
    count: usize,
    beta: f64,
    mut uniform: impl FnMut() -> f64,
) -> Result<Vec<usize>, AlgoError> {
    positive("beta", beta)?;
    finite_values("rewards", rewards)?;
    within(
        "count",
        count as f64,
        0.0..=rewards.len() as f64,
        "at most the number of rewards",
    )?;
    let mut left: Vec<usize> = (0..rewards.len()).collect();
    let mut taken = Vec::with_capacity(count);
    while taken.len() < count {
        // Of those left at the start of the round, so the best one is always taken in it.
        let best = left.iter().map(|i| rewards[*i]).fold(f64::MIN, f64::max);
        left.retain(|i| {
            let accepted = taken.len() < count && uniform() < ((rewards[*i] - best) / beta).exp();
            if accepted {
                taken.push(*i);
            }
            !accepted
        });
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is taken first of many candidates follows `exp(r / β)` among the two kinds.
    #[test]
    fn what_is_taken_follows_the_optimal_policy() {
        let (mut state, beta) = (1_u64, 0.5);
        let mut uniform = || {
            // A linear congruential generator, for a test without dependencies.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let rewards = [0.0, 1.0];
        // Of 40 candidates, half of each kind, four are taken: few enough that neither runs out.
        let pool: Vec<f64> = (0..40).map(|i| rewards[i % 2]).collect();
        let (mut good, mut all) = (0.0, 0.0);
        for _ in 0..4000 {
            for i in rejection_sample(&pool, 2, beta, &mut uniform).unwrap() {
                good += pool[i];
                all += 1.0;
            }
        }
        let expected = 1.0 / (1.0 + (-1.0_f64 / beta).exp());
        assert!((good / all - expected).abs() < 0.02, "{}", good / all);
    }

    #[test]
    fn as_many_as_were_wanted_and_none_twice() {
        let mut taken = rejection_sample(&[0.1, -3.0, 2.0, 0.4], 4, 0.3, || 0.999_999).unwrap();
        taken.sort_unstable();
        assert_eq!(taken, [0, 1, 2, 3]);
        assert!(rejection_sample(&[0.0], 2, 1.0, || 0.5).is_err());
        assert!(rejection_sample(&[f64::NAN], 1, 1.0, || 0.5).is_err());
        assert!(rejection_sample(&[0.0], 1, 0.0, || 0.5).is_err());
    }
}
