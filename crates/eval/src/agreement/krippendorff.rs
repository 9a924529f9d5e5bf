//! Krippendorff's alpha: `1 - D_observed / D_chance`, for any number of annotators and missing ratings.

use super::{Level, Ratings, nobody_shares};
use crate::{
    EvalError,
    bootstrap::{Resampled, resampled},
};

/// An item's ratings: how many of each code.
type Counts = Vec<(usize, f64)>;

/// `Σ_{i≠j} δ(x_i, x_j)` over ordered pairs of ratings, from the counts of values.
fn disagreement(counts: impl Iterator<Item = (f64, f64)> + Clone, nominal: bool) -> f64 {
    let n: f64 = counts.clone().map(|(_, count)| count).sum();
    if nominal {
        return n * n - counts.map(|(_, count)| count * count).sum::<f64>();
    }
    // Σ (x_i - x_j)² = 2 n Σ (x_i - mean)²: exactly 0 where all are the same, and linear in time.
    let mean = counts.clone().map(|(x, count)| count * x).sum::<f64>() / n.max(1.0);
    2.0 * n
        * counts
            .map(|(x, count)| count * (x - mean).powi(2))
            .sum::<f64>()
}

/// Alpha of the drawn items; `None` if no two values differ.
fn alpha(values: &[f64], items: &[Counts], drawn: &[usize], level: Level) -> Option<f64> {
    let mut totals = vec![0.0; values.len()];
    for (code, count) in drawn.iter().flat_map(|i| &items[*i]) {
        totals[*code] += count;
    }
    if totals.iter().filter(|n| **n > 0.0).count() < 2 {
        return None;
    }
    // δ_ordinal(c, k) = (Σ_{g=c}^{k} n_g - (n_c + n_k) / 2)² is the squared difference of mid-ranks.
    let mut below = 0.0;
    let mid_rank = |n: &f64| {
        below += n;
        below - n / 2.0
    };
    let places = match level {
        Level::Ordinal => totals.iter().map(mid_rank).collect(),
        Level::Nominal | Level::Interval => values.to_vec(),
    };
    let nominal = level == Level::Nominal;
    let of = |counts: &Counts| {
        let m: f64 = counts.iter().map(|(_, count)| count).sum();
        let placed = counts.iter().map(|(code, count)| (places[*code], *count));
        disagreement(placed, nominal) / (m - 1.0)
    };
    let observed: f64 = drawn.iter().map(|i| of(&items[*i])).sum();
    let n: f64 = totals.iter().sum();
    let by_chance = disagreement(places.iter().copied().zip(totals), nominal) / (n - 1.0);
    Some(1.0 - observed / by_chance)
}

impl Ratings {
    /// Items with at least two ratings: a rating without another says nothing of agreement.
    fn pairable(&self) -> Vec<Counts> {
        let counts = |codes: Vec<usize>| {
            let runs = codes.chunk_by(|a, b| a == b);
            runs.map(|run| (run[0], run.len() as f64)).collect()
        };
        let shared = self.items.iter().filter(|item| item.len() > 1);
        let sorted = shared.map(|item| {
            let mut codes: Vec<usize> = item.values().copied().collect();
            codes.sort_unstable();
            codes
        });
        sorted.map(counts).collect()
    }

    /// Krippendorff's alpha (Krippendorff 2004, ch. 11). With `m_u` ratings of item `u` and `n` in all,
    /// of items with at least two,
    ///
    /// `D_observed = 1/n Σ_u 1/(m_u - 1) Σ_{i≠j in u} δ(x_i, x_j)`,
    /// `D_chance = 1/(n (n - 1)) Σ_{i≠j} δ(x_i, x_j)`,
    ///
    /// where `δ` is `[x ≠ y]` (nominal), `(x - y)²` (interval) or the same of mid-ranks among these
    /// ratings (ordinal).
    ///
    /// # Errors
    /// When no item has two ratings, or all answers are the same.
    pub fn krippendorff_alpha(&self, level: Level) -> Result<f64, EvalError> {
        let items = self.pairable();
        if items.is_empty() {
            return Err(nobody_shares("alpha"));
        }
        let all: Vec<usize> = (0..items.len()).collect();
        let reason = "all answers are the same, so chance alone agrees always";
        alpha(&self.values, &items, &all, level)
            .ok_or_else(|| EvalError::undefined("alpha", reason))
    }

    /// Alpha and its bootstrap interval over items with at least two ratings. Samples in which all
    /// answers are the same have no alpha and are counted, not set to 1.
    ///
    /// # Errors
    /// As [`Ratings::krippendorff_alpha`].
    pub fn alpha_interval(&self, level: Level, seed: u64) -> Result<Resampled, EvalError> {
        self.krippendorff_alpha(level)?;
        let items = self.pairable();
        let of = |drawn: &[usize]| alpha(&self.values, &items, drawn, level);
        resampled("alpha", items.len(), seed, of)
    }
}
