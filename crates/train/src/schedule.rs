//! Learning-rate schedules, as `transformers` defines them.

use serde::{Deserialize, Serialize};

/// How the learning rate falls after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// It stays.
    Constant,
    /// In a straight line to 0.
    Linear,
    /// Along half a cosine to 0.
    Cosine,
}

impl Schedule {
    /// What the peak is multiplied with at `step` (from 0) of `total`, after `warmup` steps in
    /// which it rises in a line from 0.
    pub fn factor(self, step: u64, warmup: u64, total: u64) -> f64 {
        if step < warmup {
            return step as f64 / warmup.max(1) as f64;
        }
        let left = total.saturating_sub(warmup).max(1) as f64;
        let progress = (step - warmup) as f64 / left;
        match self {
            Self::Constant => 1.0,
            Self::Linear => (1.0 - progress).max(0.0),
            Self::Cosine => (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())).max(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule::{Constant, Cosine, Linear};

    #[test]
    fn factors_are_those_of_transformers() {
        // get_linear_schedule_with_warmup(2, 10) and get_cosine_schedule_with_warmup(2, 10).
        let linear = [0.0, 0.5, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125];
        let cosine = [0.0, 0.5, 1.0, 0.961_939_77, 0.853_553_39, 0.691_341_72, 0.5];
        for (step, expected) in linear.iter().enumerate() {
            assert!((Linear.factor(step as u64, 2, 10) - expected).abs() < 1e-12);
        }
        for (step, expected) in cosine.iter().enumerate() {
            assert!((Cosine.factor(step as u64, 2, 10) - expected).abs() < 1e-8);
        }
        assert_eq!(Constant.factor(7, 2, 10), 1.0);
    }
}
