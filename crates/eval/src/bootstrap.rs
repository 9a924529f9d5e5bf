//! Percentile bootstrap intervals (Efron 1979), seeded.

use togi_data::rng::CounterRng;

use crate::EvalError;

/// A value and its 95% interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The value of the sample itself.
    pub value: f64,
    /// 2.5th percentile of the resampled values.
    pub low: f64,
    /// 97.5th percentile.
    pub high: f64,
}

/// How many samples are drawn.
pub const RESAMPLES: usize = 2000;

pub(crate) fn check(what: &str, values: &[f64]) -> Result<(), EvalError> {
    if values.is_empty() {
        return Err(EvalError::Empty(what.to_owned()));
    }
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(index) => Err(EvalError::NotFinite {
            what: what.to_owned(),
            index,
        }),
    }
}

/// A statistic and its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resampled {
    /// The interval, from the samples that have a value.
    pub interval: Interval,
    /// Samples, of [`RESAMPLES`], that have none: many of them make the interval doubtful.
    pub undefined: usize,
}

/// Any statistic of `n` things and its percentile interval: `statistic` gets the indices of the things
/// that were drawn (with replacement), first `0..n` for the value itself. It says `None` where a sample
/// leaves it undefined.
///
/// # Errors
/// Without things, or when the statistic of the things themselves or of all samples is undefined.
pub fn resampled(
    what: &str,
    n: usize,
    seed: u64,
    mut statistic: impl FnMut(&[usize]) -> Option<f64>,
) -> Result<Resampled, EvalError> {
    if n == 0 {
        return Err(EvalError::Empty(what.to_owned()));
    }
    let mut defined = |drawn: &[usize]| statistic(drawn).filter(|v| v.is_finite());
    let mut drawn: Vec<usize> = (0..n).collect();
    let undefined = |whose| EvalError::undefined(what, format!("{whose} leave it so"));
    let value = defined(&drawn).ok_or_else(|| undefined("these data"))?;
    let mut values: Vec<f64> = (0..RESAMPLES)
        .filter_map(|i| {
            let mut rng = CounterRng::new(seed, &[0x626f_6f74, i as u64]);
            drawn.fill_with(|| rng.below(n));
            defined(&drawn)
        })
        .collect();
    let last = values.len().checked_sub(1);
    let last = last.ok_or_else(|| undefined("all samples"))? as f64;
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[(last * share).round() as usize];
    Ok(Resampled {
        interval: Interval {
            value,
            low: at(0.025),
            high: at(0.975),
        },
        undefined: RESAMPLES - values.len(),
    })
}

/// The mean and its interval.
///
/// # Errors
/// Without values, or with one that is not finite.
pub fn mean_interval(what: &str, values: &[f64], seed: u64) -> Result<Interval, EvalError> {
    check(what, values)?;
    let mean =
        |drawn: &[usize]| Some(drawn.iter().map(|i| values[*i]).sum::<f64>() / drawn.len() as f64);
    Ok(resampled(what, values.len(), seed, mean)?.interval)
}

/// A share of `count` trials and its 95% score interval (Wilson 1927), for where only the share is
/// known.
///
/// # Errors
/// Without trials, or with a share outside [0, 1].
pub fn share_interval(what: &str, share: f64, count: usize) -> Result<Interval, EvalError> {
    if count == 0 {
        return Err(EvalError::Empty(what.to_owned()));
    }
    if !(0.0..=1.0).contains(&share) {
        return Err(EvalError::NotFinite {
            what: what.to_owned(),
            index: 0,
        });
    }
    const Z: f64 = 1.959_963_984_540_054;
    let n = count as f64;
    let shrink = 1.0 + Z * Z / n;
    let middle = (share + Z * Z / (2.0 * n)) / shrink;
    let half = Z / shrink * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    Ok(Interval {
        value: share,
        low: middle - half,
        high: middle + half,
    })
}

/// The mean of `a - b` for values of the same prompts, and its interval.
///
/// # Errors
/// As [`mean_interval`]; when the lengths differ.
pub fn paired_difference(
    what: &str,
    a: &[f64],
    b: &[f64],
    seed: u64,
) -> Result<Interval, EvalError> {
    if a.len() != b.len() {
        let what = what.to_owned();
        return Err(EvalError::Length {
            what,
            found: a.len(),
            expected: b.len(),
        });
    }
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    mean_interval(what, &differences, seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_intervals_are_those_of_statsmodels() {
        // statsmodels.stats.proportion.proportion_confint(.., method="wilson")
        for (k, n, low, high) in [
            (8.0, 10, 0.490_162_47, 0.943_317_84),
            (0.0, 5, 0.0, 0.434_482_46),
            (123.0, 195, 0.561_117_51, 0.695_368_23),
        ] {
            let interval = share_interval("x", k / f64::from(n), n as usize).unwrap();
            assert!((interval.low - low).abs() < 1e-7, "{interval:?}");
            assert!((interval.high - high).abs() < 1e-7, "{interval:?}");
        }
        assert!(share_interval("x", 0.5, 0).is_err());
        assert!(share_interval("x", f64::NAN, 3).is_err());
    }

    #[test]
    fn intervals_cover_the_true_mean_about_nineteen_times_in_twenty() {
        let covered = (0..200)
            .filter(|trial| {
                let mut rng = CounterRng::new(1, &[*trial]);
                let values: Vec<f64> = (0..50).map(|_| rng.gaussian()).collect();
                let interval = mean_interval("x", &values, 2).unwrap();
                (interval.low..=interval.high).contains(&0.0)
            })
            .count();
        assert!((180..=198).contains(&covered), "{covered} of 200");
    }

    #[test]
    fn a_constant_difference_has_no_width_and_bad_input_is_named() {
        let interval = paired_difference("x", &[1.0, 3.0], &[0.5, 2.5], 0).unwrap();
        assert_eq!(
            (interval.value, interval.low, interval.high),
            (0.5, 0.5, 0.5)
        );
        assert!(mean_interval("x", &[], 0).is_err());
        assert!(mean_interval("x", &[f64::NAN], 0).is_err());
        assert!(paired_difference("x", &[1.0], &[], 0).is_err());
    }
}
