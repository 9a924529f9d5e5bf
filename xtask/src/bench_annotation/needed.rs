//! How many labels an accuracy takes, and how sure what several seeds say is.

use togi_eval::bootstrap::Interval;

/// Labels that an accuracy takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Needed {
    /// The first set of labels is enough.
    AtMost(f64),
    /// Between two rounds, by a straight line over the logarithm of the labels.
    About(f64),
    /// All were not enough.
    Above(f64),
}

impl Needed {
    /// By a curve of labels and accuracy, where it first reaches the accuracy.
    ///
    /// # Panics
    /// When the curve has no point.
    pub(crate) fn by(curve: &[(f64, f64)], accuracy: f64) -> Self {
        if curve[0].1 >= accuracy {
            return Self::AtMost(curve[0].0);
        }
        for pair in curve.windows(2) {
            let [(x0, y0), (x1, y1)] = [pair[0], pair[1]];
            if y1 >= accuracy {
                let share = (accuracy - y0) / (y1 - y0);
                return Self::About((x0.ln() + share * (x1 / x0).ln()).exp());
            }
        }
        Self::Above(curve[curve.len() - 1].0)
    }

    /// The number, where there is one.
    pub(crate) fn about(self) -> Option<f64> {
        match self {
            Self::About(labels) => Some(labels),
            Self::AtMost(_) | Self::Above(_) => None,
        }
    }

    /// For people.
    pub(crate) fn text(self) -> String {
        match self {
            Self::AtMost(labels) => format!("≤ {labels:.0}"),
            Self::About(labels) => format!("{labels:.0}"),
            Self::Above(labels) => format!("> {labels:.0}"),
        }
    }
}

/// 97.5th percentiles of Student's t with 1, 2, … degrees of freedom.
const STUDENT: [f64; 19] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093,
];

/// The mean of what the seeds say and its 95% interval by Student's t: a bootstrap of so few would be too
/// narrow. One seed has no interval: it is the whole line.
pub(crate) fn over_seeds(values: &[f64]) -> Interval {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    around(mean, (squares / (n - 1.0) / n).sqrt(), values.len())
}

/// The 95% interval of what all seeds say together, from what they say without each one in turn (Tukey
/// 1958).
pub(crate) fn jackknife(value: f64, without: &[f64]) -> Interval {
    let n = without.len() as f64;
    let mean = without.iter().sum::<f64>() / n;
    let squares: f64 = without.iter().map(|v| (v - mean).powi(2)).sum();
    around(value, (squares * (n - 1.0) / n).sqrt(), without.len())
}

/// A value, its standard error and how many seeds it is of.
fn around(value: f64, error: f64, seeds: usize) -> Interval {
    let half = match seeds {
        0 | 1 => f64::INFINITY,
        count => STUDENT.get(count - 2).copied().unwrap_or(1.96) * error,
    };
    Interval {
        value,
        low: value - half,
        high: value + half,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_off_the_curve_where_it_first_reaches_the_accuracy() {
        let curve = [(100.0, 0.6), (400.0, 0.8), (800.0, 0.7), (1600.0, 0.9)];
        assert_eq!(Needed::by(&curve, 0.6), Needed::AtMost(100.0));
        let half = Needed::by(&curve, 0.7).about().unwrap();
        assert!((half - 200.0).abs() < 1e-9, "{half}");
        assert_eq!(Needed::by(&curve, 0.95).text(), "> 1600");
        assert_eq!(Needed::by(&curve, 0.5).text(), "≤ 100");
    }

    #[test]
    fn intervals_are_students() {
        let interval = over_seeds(&[1.0, 2.0, 3.0]);
        // Mean 2, standard error 1/√3.
        assert!((interval.high - (2.0 + 4.303 / 3.0_f64.sqrt())).abs() < 1e-9);
        assert!((interval.low + interval.high - 4.0).abs() < 1e-9);
        assert_eq!(over_seeds(&[2.0]).high, f64::INFINITY);
        // Of a mean the jackknife's interval is the mean's own.
        let mean = jackknife(2.0, &[2.5, 2.0, 1.5]);
        assert!((mean.high - interval.high).abs() < 1e-9);
        assert_eq!(jackknife(2.0, &[]).low, f64::NEG_INFINITY);
    }
}
