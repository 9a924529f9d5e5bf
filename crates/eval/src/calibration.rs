//! Whether probabilities are what they say, and what a reward follows beside quality.

/// Bins of a reliability curve, as in Guo et al. 2017.
pub const CALIBRATION_BINS: usize = 10;

/// Predictions whose confidence is in one range.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    /// Predictions.
    pub count: usize,
    /// Their mean confidence.
    pub confidence: f64,
    /// The share of them that is right.
    pub accuracy: f64,
}

/// A reliability curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// Bins of equal width from a half to 1; empty ones too.
    pub bins: Vec<Bin>,
}

impl Calibration {
    /// Of a reward model on pairs, from `r_chosen - r_rejected`: it says that the better answer is the
    /// one with the higher reward, with confidence `σ(|margin|)`. A margin of 0 is half right.
    pub fn of_margins(margins: &[f64], bins: usize) -> Self {
        let mut sums = vec![(0, 0.0, 0.0); bins.max(1)];
        for margin in margins {
            let confidence = 1.0 / (1.0 + (-margin.abs()).exp());
            let right = match margin.total_cmp(&0.0) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Less => 0.0,
                std::cmp::Ordering::Equal => 0.5,
            };
            let place = ((confidence - 0.5) * 2.0 * bins as f64) as usize;
            let bin = &mut sums[place.min(bins.saturating_sub(1))];
            *bin = (bin.0 + 1, bin.1 + confidence, bin.2 + right);
        }
        let bin = |(count, confidence, right): (usize, f64, f64)| {
            let n = (count as f64).max(1.0);
            Bin {
                count,
                confidence: confidence / n,
                accuracy: right / n,
            }
        };
        Self {
            bins: sums.into_iter().map(bin).collect(),
        }
    }

    /// Expected calibration error: the mean over predictions of `|accuracy - confidence|` of their bin
    /// (Naeini et al. 2015). 0 of nothing.
    pub fn expected_error(&self) -> f64 {
        let all: usize = self.bins.iter().map(|b| b.count).sum();
        let off = |b: &Bin| b.count as f64 * (b.accuracy - b.confidence).abs();
        self.bins.iter().map(off).sum::<f64>() / (all as f64).max(1.0)
    }
}

/// Pearson's correlation; 0 where one side does not vary.
pub fn correlation(x: &[f64], y: &[f64]) -> f64 {
    let n = x.len().min(y.len()) as f64;
    let mean = |v: &[f64]| v.iter().sum::<f64>() / n.max(1.0);
    let (mx, my) = (mean(x), mean(y));
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (a, b) in x.iter().zip(y) {
        xy += (a - mx) * (b - my);
        xx += (a - mx).powi(2);
        yy += (b - my).powi(2);
    }
    if xx == 0.0 || yy == 0.0 {
        return 0.0;
    }
    xy / (xx * yy).sqrt()
}

/// How far a reward follows length on pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LengthBias {
    /// Correlation of the margin with how much longer the preferred answer is.
    pub correlation: f64,
    /// Share of pairs whose longer answer gets the higher reward; of equal ones half.
    pub longer_wins: f64,
    /// Accuracy where the preferred answer is the longer one, with the number of such pairs.
    pub where_longer: (f64, usize),
    /// Accuracy where it is the shorter one.
    pub where_shorter: (f64, usize),
}

impl LengthBias {
    /// From margins and from how much longer the preferred answer is. Pairs of equal length only count
    /// for the correlation.
    pub fn of(margins: &[f64], longer_by: &[f64]) -> Self {
        let accuracy = |sign: f64| {
            let pairs = margins.iter().zip(longer_by);
            let of_kind: Vec<f64> = pairs
                .filter(|(_, by)| **by * sign > 0.0)
                .map(|(margin, _)| match *margin {
                    0.0 => 0.5,
                    margin => f64::from(u8::from(margin > 0.0)),
                })
                .collect();
            let n = of_kind.len();
            (of_kind.iter().sum::<f64>() / (n as f64).max(1.0), n)
        };
        let (longer, shorter) = (accuracy(1.0), accuracy(-1.0));
        let wins = longer.0 * longer.1 as f64 + (1.0 - shorter.0) * shorter.1 as f64;
        Self {
            correlation: correlation(margins, longer_by),
            longer_wins: wins / ((longer.1 + shorter.1) as f64).max(1.0),
            where_longer: longer,
            where_shorter: shorter,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The margin whose confidence is `p`.
    fn logit(p: f64) -> f64 {
        (p / (1.0 - p)).ln()
    }

    #[test]
    fn a_model_that_is_as_right_as_it_says_has_no_error() {
        // 80% sure and right four times of five; 60% sure and right three times of five.
        let sure = [1.0, 1.0, 1.0, 1.0, -1.0].map(|s| s * logit(0.8001));
        let less = [1.0, 1.0, 1.0, -1.0, -1.0].map(|s| s * logit(0.6001));
        let all = [sure, less].concat();
        let calibration = Calibration::of_margins(&all, CALIBRATION_BINS);
        assert!(calibration.expected_error() < 1e-3);
        let bin = calibration.bins[6];
        assert_eq!((bin.count, bin.accuracy), (5, 0.8));
        // Always right at 60%: off by 0.4.
        let modest = Calibration::of_margins(&[logit(0.6001); 7], CALIBRATION_BINS);
        assert!((modest.expected_error() - 0.4).abs() < 1e-3);
        assert_eq!(Calibration::of_margins(&[], 10).expected_error(), 0.0);
    }

    #[test]
    fn length_bias_is_seen() {
        // The reward is the length: right where the longer is preferred, wrong elsewhere.
        let by = [3.0, 2.0, -1.0, -4.0, 0.0];
        let bias = LengthBias::of(&by, &by);
        assert!((bias.correlation - 1.0).abs() < 1e-12);
        assert_eq!((bias.longer_wins, bias.where_longer), (1.0, (1.0, 2)));
        assert_eq!(bias.where_shorter, (0.0, 2));
        assert_eq!(correlation(&[1.0, 1.0], &[1.0, 2.0]), 0.0);
        // Ties are half.
        let ties = LengthBias::of(&[0.0, 0.0, 0.0], &[1.0, -1.0, -1.0]);
        assert_eq!(ties.longer_wins, 0.5);
        assert_eq!(ties.where_shorter, (0.5, 2));
    }
}
