//! Kappas: `(observed - chance) / (1 - chance)` of the share of equal nominal answers.

use std::collections::BTreeMap;

use super::{Ratings, nobody_shares};
use crate::EvalError;

/// Cohen's kappa of two annotators.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kappa {
    /// `(observed - chance) / (1 - chance)`.
    pub value: f64,
    /// Share of equal answers.
    pub observed: f64,
    /// The share that two annotators would have who draw from their own answers blindly.
    pub chance: f64,
    /// Items that both rated.
    pub items: usize,
}

/// Cohen's kappa, mean over pairs of annotators (Light 1971).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairwiseKappa {
    /// The mean, each pair alike however many items it shares.
    pub value: f64,
    /// Pairs in it.
    pub pairs: usize,
    /// Pairs that share items and yet have no kappa, since chance alone agrees always.
    pub undefined: usize,
}

/// Fleiss' kappa.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fleiss {
    /// `(observed - chance) / (1 - chance)`.
    pub value: f64,
    /// Ratings of each item that counts: the commonest number above one, of equally common ones the
    /// largest.
    pub raters: usize,
    /// Items that count.
    pub items: usize,
    /// Items left out since they have another number of ratings.
    pub left_out: usize,
}

fn beyond_chance(what: &str, observed: f64, chance: f64) -> Result<f64, EvalError> {
    if chance >= 1.0 {
        let reason = "all answers are the same, so chance alone agrees always";
        return Err(EvalError::undefined(what, reason));
    }
    Ok((observed - chance) / (1.0 - chance))
}

impl Ratings {
    /// Kappa of two annotators over the items that both rated (Cohen 1960): with shares `a_c` and `b_c`
    /// of the answers of each that are `c`, chance is `Σ_c a_c b_c`.
    ///
    /// # Errors
    /// When they share no item, or gave one and the same answer everywhere.
    pub fn cohen_kappa(&self, a: usize, b: usize) -> Result<Kappa, EvalError> {
        let what = format!("kappa of annotators {a} and {b}");
        let both = |item: &BTreeMap<usize, usize>| Some((*item.get(&a)?, *item.get(&b)?));
        let answers: Vec<_> = self.items.iter().filter_map(both).collect();
        if answers.is_empty() {
            return Err(EvalError::undefined(&what, "they share no item"));
        }
        let mut counts = BTreeMap::<usize, (usize, usize)>::new();
        for (a, b) in &answers {
            counts.entry(*a).or_default().0 += 1;
            counts.entry(*b).or_default().1 += 1;
        }
        // Whole numbers until the division: then chance is 1 exactly where it should be.
        let items = answers.len();
        let n = items as f64;
        let by_chance: usize = counts.values().map(|(a, b)| a * b).sum();
        let observed = answers.iter().filter(|(a, b)| a == b).count() as f64 / n;
        let chance = by_chance as f64 / (n * n);
        Ok(Kappa {
            value: beyond_chance(&what, observed, chance)?,
            observed,
            chance,
            items,
        })
    }

    /// Mean of Cohen's kappa over all pairs of annotators that share items.
    ///
    /// # Errors
    /// When no pair has a kappa.
    pub fn pairwise_kappa(&self) -> Result<PairwiseKappa, EvalError> {
        let annotators = self.annotators();
        let (mut kappas, mut undefined) = (Vec::new(), 0);
        for (i, a) in annotators.iter().enumerate() {
            for b in &annotators[i + 1..] {
                let shared =
                    |item: &BTreeMap<usize, usize>| item.contains_key(a) && item.contains_key(b);
                match self.cohen_kappa(*a, *b) {
                    Ok(kappa) => kappas.push(kappa.value),
                    Err(_) => undefined += usize::from(self.items.iter().any(shared)),
                }
            }
        }
        let pairs = kappas.len();
        if pairs == 0 {
            let reason = "no two annotators share items on which answers differ";
            return Err(EvalError::undefined("pairwise kappa", reason));
        }
        Ok(PairwiseKappa {
            value: kappas.iter().sum::<f64>() / pairs as f64,
            pairs,
            undefined,
        })
    }

    /// Kappa of any annotators over items with equal numbers `m` of ratings (Fleiss 1971): observed is
    /// the mean over items of `Σ_c n_c (n_c - 1) / (m (m - 1))`, chance is `Σ_c p_c²` with `p_c` the
    /// share of all ratings that are `c`.
    ///
    /// # Errors
    /// When no item has two ratings, or all answers are the same.
    pub fn fleiss_kappa(&self) -> Result<Fleiss, EvalError> {
        let mut of_size = BTreeMap::<usize, usize>::new();
        for item in self.items.iter().filter(|item| item.len() > 1) {
            *of_size.entry(item.len()).or_default() += 1;
        }
        let commonest = of_size
            .into_iter()
            .max_by_key(|(size, count)| (*count, *size));
        let (raters, items) = commonest.ok_or_else(|| nobody_shares("Fleiss' kappa"))?;
        let mut totals = vec![0_usize; self.values.len()];
        let mut agreeing = 0.0;
        for item in self.items.iter().filter(|item| item.len() == raters) {
            agreeing += super::equal_pairs(item.values().copied()).0;
            for code in item.values() {
                totals[*code] += 1;
            }
        }
        let (m, n) = (raters as f64, items as f64);
        let squares: f64 = totals.iter().map(|c| (*c as f64).powi(2)).sum();
        let observed = agreeing / (n * m * (m - 1.0) / 2.0);
        Ok(Fleiss {
            value: beyond_chance("Fleiss' kappa", observed, squares / (n * m).powi(2))?,
            raters,
            items,
            left_out: self.items.len() - items,
        })
    }
}
