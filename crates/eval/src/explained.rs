//! How much of a value a few features explain: the share of variance of a linear regression, from moments
//! that can be kept and added up.

use serde::{Deserialize, Serialize};

/// Sums over observations of features `x` and a value `y`, from which a regression can be made at any
/// time. Moments of different observations add up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    count: f64,
    /// Means that were taken off before, if any: see [`Moments::centred`].
    centred: f64,
    /// Sums of the features and, last, of the value.
    sums: Vec<f64>,
    /// Sums of products of any two of them, row by row.
    products: Vec<f64>,
}

impl Moments {
    /// Adds one observation. All observations have the same number of features.
    pub fn add(&mut self, features: &[f64], value: f64) {
        let all: Vec<f64> = features.iter().copied().chain([value]).collect();
        let width = all.len();
        self.sums.resize(width, 0.0);
        self.products.resize(width * width, 0.0);
        self.count += 1.0;
        for (i, a) in all.iter().enumerate() {
            self.sums[i] += a;
            for (j, b) in all.iter().enumerate() {
                self.products[i * width + j] += a * b;
            }
        }
    }

    /// Says that the next observations are differences from a mean of their own, which costs a degree of
    /// freedom.
    pub fn centred(&mut self) {
        self.centred += 1.0;
    }

    /// Adds the observations of others.
    pub fn merge(&mut self, others: &Moments) {
        self.sums
            .resize(self.sums.len().max(others.sums.len()), 0.0);
        let width = self.products.len().max(others.products.len());
        self.products.resize(width, 0.0);
        self.count += others.count;
        self.centred += others.centred;
        for (sum, other) in self.sums.iter_mut().zip(&others.sums) {
            *sum += other;
        }
        for (product, other) in self.products.iter_mut().zip(&others.products) {
            *product += other;
        }
    }

    /// The adjusted share of the value's variance that the features explain together, in `[0, 1]`:
    /// `1 − (1 − R²)(n − 1)/(n − p − 1)` of the least-squares fit with an intercept (Theil 1961), cut at 0.
    /// Features that do not vary, or that the others determine, count for nothing. `None` where the value
    /// does not vary, or with too few observations.
    pub fn explained(&self) -> Option<f64> {
        let width = self.sums.len();
        let features = width.checked_sub(1)?;
        let n = self.count;
        let mean = |i: usize| self.sums[i] / n;
        let covariance = |i: usize, j: usize| self.products[i * width + j] / n - mean(i) * mean(j);
        let variance = covariance(features, features);
        let scale = self.products[width * width - 1] / n;
        if n < 3.0 || variance <= 1e-12 * scale {
            return None;
        }
        // Gaussian elimination of one feature after the other from the covariances (the sweep of Beaton
        // 1964): what is left of the value's variance is unexplained.
        let mut matrix: Vec<f64> = (0..width * width)
            .map(|k| covariance(k / width, k % width))
            .collect();
        let mut used = 0.0;
        for k in 0..features {
            let pivot = matrix[k * width + k];
            let own = covariance(k, k);
            if pivot <= 1e-9 * own || own <= 1e-12 * (self.products[k * width + k] / n) {
                continue;
            }
            used += 1.0;
            for i in k + 1..width {
                let factor = matrix[i * width + k] / pivot;
                for j in k + 1..width {
                    matrix[i * width + j] -= factor * matrix[k * width + j];
                }
            }
        }
        let left = (matrix[width * width - 1] / variance).clamp(0.0, 1.0);
        // The intercept, or the means that were taken off.
        let all = n - self.centred.max(1.0);
        let freedom = all - used;
        (freedom > 0.0).then(|| (1.0 - left * all / freedom).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use togi_data::rng::CounterRng;

    #[test]
    fn the_share_is_that_of_a_least_squares_fit() {
        // numpy.linalg.lstsq of y on [1, x], and the adjusted share of its residuals.
        let x = [
            [1.0, 2.0],
            [2.0, 1.0],
            [3.0, 5.0],
            [4.0, 3.0],
            [5.0, 8.0],
            [6.0, 2.0],
        ];
        let y = [1.0, 2.5, 2.0, 4.5, 4.0, 7.0];
        let mut whole = Moments::default();
        let (mut first, mut second) = (Moments::default(), Moments::default());
        for (i, (x, y)) in x.iter().zip(y).enumerate() {
            whole.add(x, y);
            (if i < 2 { &mut first } else { &mut second }).add(x, y);
        }
        let share = whole.explained().unwrap();
        assert!((share - 0.983_345_021_037_868_1).abs() < 1e-12, "{share}");
        first.merge(&second);
        assert!((first.explained().unwrap() - share).abs() < 1e-12);
    }

    #[test]
    fn constant_and_repeated_features_count_for_nothing() {
        let mut rng = CounterRng::new(1, &[2]);
        let (mut alone, mut more, mut noise) =
            (Moments::default(), Moments::default(), Moments::default());
        for _ in 0..200 {
            let (x, e) = (rng.gaussian(), rng.gaussian());
            alone.add(&[x], x + e);
            more.add(&[x, 7.0, 3.0 * x], x + e);
            noise.add(&[rng.gaussian()], e);
        }
        let (alone, more) = (alone.explained().unwrap(), more.explained().unwrap());
        assert!(
            (alone - more).abs() < 1e-9 && (0.4..0.6).contains(&alone),
            "{alone} {more}"
        );
        assert!(noise.explained().unwrap() < 0.05);
        // Pairs of noise around a mean of their own: what is left has half of the freedom.
        let mut pairs = Moments::default();
        for _ in 0..40 {
            let (x, y) = (
                [rng.gaussian(), rng.gaussian()],
                [rng.gaussian(), rng.gaussian()],
            );
            pairs.centred();
            let off = |v: [f64; 2], i: usize| v[i] - (v[0] + v[1]) / 2.0;
            (0..2).for_each(|i| pairs.add(&[off(x, i)], off(y, i)));
        }
        assert!(pairs.explained().unwrap() < 0.1);
        let mut flat = Moments::default();
        for x in 0..5 {
            flat.add(&[f64::from(x)], 2.0);
        }
        assert_eq!(flat.explained(), None);
        assert_eq!(Moments::default().explained(), None);
    }
}
