//! Whether two systems differ on the same prompts: sign test, McNemar's, and sign flips.
//! ([`crate::paired_difference`] says by how much.)

use togi_data::rng::CounterRng;

use crate::{EvalError, bootstrap::check};

/// Sign flips of [`sign_flip_test`].
pub const FLIPS: usize = 10_000;

/// Which of two systems is ahead on how many prompts, and how surprising that is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignTest {
    /// Prompts on which the first is higher.
    pub first: usize,
    /// Prompts on which the second is.
    pub second: usize,
    /// Prompts on which they are equal, which do not count.
    pub ties: usize,
    /// Two-sided exact p-value; 1 if all are ties.
    pub p_value: f64,
}

/// Values of the same prompts, checked.
fn differences(what: &str, a: &[f64], b: &[f64]) -> Result<Vec<f64>, EvalError> {
    if a.len() != b.len() {
        return Err(EvalError::Length {
            what: what.to_owned(),
            found: a.len(),
            expected: b.len(),
        });
    }
    check(what, a)?;
    check(what, b)?;
    Ok(a.iter().zip(b).map(|(a, b)| a - b).collect())
}

/// `min(1, 2 P(X ≤ k))` with `X` binomial of `n` fair coins.
fn two_sided(k: usize, n: usize) -> f64 {
    // In logarithms, since 2^-n is 0 in floating point from n = 1075 on.
    let mut term = -(n as f64) * std::f64::consts::LN_2;
    let mut sum = term.exp();
    for i in 0..k {
        term += ((n - i) as f64 / (i + 1) as f64).ln();
        sum += term.exp();
    }
    (2.0 * sum).min(1.0)
}

/// Exact sign test (Dixon and Mood 1946): of the `n` prompts that are no ties, the fewer `k` that one
/// system wins; `p = min(1, 2 Σ_{i≤k} C(n, i) 2^-n)`.
///
/// # Errors
/// Without values, with ones that are not finite, or when the lengths differ.
pub fn sign_test(what: &str, a: &[f64], b: &[f64]) -> Result<SignTest, EvalError> {
    differences(what, a, b)?;
    let first = a.iter().zip(b).filter(|(a, b)| a > b).count();
    let second = a.iter().zip(b).filter(|(a, b)| a < b).count();
    Ok(SignTest {
        first,
        second,
        ties: a.len() - first - second,
        p_value: two_sided(first.min(second), first + second),
    })
}

/// Exact test of McNemar (1947) for answers that are right or wrong: the sign test of the prompts on
/// which only one of the systems is right.
///
/// # Errors
/// Without answers, or when the lengths differ.
pub fn mcnemar(what: &str, a: &[bool], b: &[bool]) -> Result<SignTest, EvalError> {
    let number = |right: &[bool]| -> Vec<f64> {
        let one = right.iter().map(|r| f64::from(u8::from(*r)));
        one.collect()
    };
    sign_test(what, &number(a), &number(b))
}

/// P-value of a mean difference, from [`FLIPS`] random sign flips of the differences (Fisher 1935):
/// `(1 + #{|Σ s_i d_i| ≥ |Σ d_i|}) / (1 + FLIPS)`. Counting the data themselves as one flip keeps it
/// above 0 and the test valid (Phipson and Smyth 2010).
///
/// # Errors
/// Without values, with ones that are not finite, or when the lengths differ.
pub fn sign_flip_test(what: &str, a: &[f64], b: &[f64], seed: u64) -> Result<f64, EvalError> {
    let differences = differences(what, a, b)?;
    // Sums that are equal in the reals differ by rounding: those count as equal.
    let slack = 1e-12 * differences.iter().map(|d| d.abs()).sum::<f64>();
    let observed = differences.iter().sum::<f64>().abs() - slack;
    let as_far = |flip: &u64| {
        let mut rng = CounterRng::new(seed, &[0x666c_6970, *flip]);
        let mut sum = 0.0;
        for some in differences.chunks(64) {
            let mut signs = rng.next_u64();
            for d in some {
                sum += if signs & 1 == 1 { -d } else { *d };
                signs >>= 1;
            }
        }
        sum.abs() >= observed
    };
    let count = (0..FLIPS as u64).filter(as_far).count();
    Ok((1 + count) as f64 / (1 + FLIPS) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_values_are_those_worked_by_hand() {
        // Five of five: 2 / 32. One of five: 2 (1 + 5) / 32. Ties do not count.
        let zeros = [0.0; 6];
        let test = sign_test("x", &[1.0, 2.0, 1.0, 1.0, 1.0, 0.0], &zeros).unwrap();
        assert_eq!((test.first, test.second, test.ties), (5, 0, 1));
        assert!((test.p_value - 2.0 / 32.0).abs() < 1e-15);
        let test = mcnemar("x", &[true, true, true, true, false], &[false; 5]).unwrap();
        assert_eq!((test.ties, test.p_value), (1, 0.125));
        assert_eq!(sign_test("x", &zeros, &zeros).unwrap().p_value, 1.0);
        assert_eq!(sign_flip_test("x", &zeros, &zeros, 0), Ok(1.0));
        // More coins than 2^-n holds: half of them is no surprise, and none is a great one.
        assert_eq!(two_sided(1000, 2000), 1.0);
        assert!(two_sided(900, 2000) < 1e-4 && two_sided(0, 2000) == 0.0);
        assert!(sign_test("x", &[1.0], &[]).is_err() && sign_test("x", &[], &[]).is_err());
        assert!(sign_flip_test("x", &[f64::NAN], &[0.0], 0).is_err());
    }

    #[test]
    fn without_a_difference_p_values_are_uniform() {
        let p = |trial: u64| {
            let mut rng = CounterRng::new(3, &[trial]);
            let a: Vec<f64> = (0..20).map(|_| rng.gaussian()).collect();
            sign_flip_test("x", &a, &[0.0; 20], trial).unwrap()
        };
        let below = (0..200).filter(|trial| p(*trial) <= 0.1).count();
        assert!((8..=34).contains(&below), "{below} of 200");
    }
}
