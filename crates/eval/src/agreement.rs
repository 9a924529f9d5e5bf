//! How far annotators agree: raw, beyond chance (kappas, alpha), and each with themselves.
//!
//! Of several ratings of one item by one annotator only the first counts between annotators; the
//! others are for [`Ratings::self_consistency`].

use std::collections::{BTreeMap, BTreeSet};

use crate::{EvalError, bootstrap::check};

mod kappa;
mod krippendorff;

pub use kappa::{Fleiss, Kappa, PairwiseKappa};

/// One answer of one annotator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rating {
    /// What was rated.
    pub item: usize,
    /// Who rated it.
    pub annotator: usize,
    /// A category's number, a rank or a measurement.
    pub value: f64,
}

/// What the values of ratings mean, which is how far apart two of them are (Stevens 1946).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Categories: two values are equal or not.
    Nominal,
    /// Ranks: what counts is how many ratings lie between two values.
    Ordinal,
    /// Measurements: what counts is the squared difference.
    Interval,
}

/// How often annotators repeat their own answer.
#[derive(Clone, Debug, PartialEq)]
pub struct SelfConsistency {
    /// Mean over repeated (annotator, item) of the share of equal pairs among the answers.
    pub share: f64,
    /// (annotator, item) with more than one answer.
    pub repeated: usize,
    /// The share and the number of repeated items of each annotator who has any.
    pub by_annotator: BTreeMap<usize, (f64, usize)>,
}

/// Checked ratings, by item. Ratings may be missing.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratings {
    /// The distinct values, ascending; a rating is kept as its place here, so that equal is equal.
    values: Vec<f64>,
    /// By item, the code of each annotator's first rating.
    items: Vec<BTreeMap<usize, usize>>,
    /// All codes by (annotator, item), where there is more than one.
    repeated: BTreeMap<(usize, usize), Vec<usize>>,
}

/// Of all pairs of these, how many are equal; and how many pairs there are.
fn equal_pairs(codes: impl IntoIterator<Item = usize>) -> (f64, f64) {
    let mut counts = BTreeMap::<usize, f64>::new();
    for code in codes {
        *counts.entry(code).or_default() += 1.0;
    }
    let pairs = |n: f64| n * (n - 1.0) / 2.0;
    (
        counts.values().copied().map(pairs).sum(),
        pairs(counts.values().sum()),
    )
}

fn mean_share(pairs: &[(f64, f64)]) -> f64 {
    pairs.iter().map(|(equal, all)| equal / all).sum::<f64>() / pairs.len() as f64
}

impl Ratings {
    /// Ratings in the order in which they were given.
    ///
    /// # Errors
    /// Without ratings, or with a value that is not finite.
    pub fn new(ratings: &[Rating]) -> Result<Self, EvalError> {
        // Adding 0 makes -0 equal to 0 for `total_cmp` too.
        let all: Vec<f64> = ratings.iter().map(|r| r.value + 0.0).collect();
        check("ratings", &all)?;
        let mut values = all.clone();
        values.sort_by(f64::total_cmp);
        values.dedup();
        let mut items = BTreeMap::<usize, BTreeMap<usize, usize>>::new();
        let mut answers = BTreeMap::<(usize, usize), Vec<usize>>::new();
        for (rating, value) in ratings.iter().zip(all) {
            let code = values.partition_point(|v| *v < value);
            let item = items.entry(rating.item).or_default();
            item.entry(rating.annotator).or_insert(code);
            let of_both = answers.entry((rating.annotator, rating.item));
            of_both.or_default().push(code);
        }
        answers.retain(|_, codes| codes.len() > 1);
        Ok(Self {
            values,
            items: items.into_values().collect(),
            repeated: answers,
        })
    }

    /// Items with a rating.
    pub fn items(&self) -> usize {
        self.items.len()
    }

    /// Who rated, ascending.
    pub fn annotators(&self) -> Vec<usize> {
        let all = self.items.iter().flat_map(|i| i.keys().copied());
        all.collect::<BTreeSet<usize>>().into_iter().collect()
    }

    /// Mean over items with at least two annotators of the share of agreeing pairs of them.
    ///
    /// # Errors
    /// When no item has two annotators.
    pub fn raw_agreement(&self) -> Result<f64, EvalError> {
        let shared = self.items.iter().filter(|item| item.len() > 1);
        let pairs: Vec<_> = shared.map(|i| equal_pairs(i.values().copied())).collect();
        if pairs.is_empty() {
            return Err(nobody_shares("raw agreement"));
        }
        Ok(mean_share(&pairs))
    }

    /// How often annotators gave the same answer again.
    ///
    /// # Errors
    /// When nobody rated an item twice.
    pub fn self_consistency(&self) -> Result<SelfConsistency, EvalError> {
        let mut of_each = BTreeMap::<usize, Vec<(f64, f64)>>::new();
        for ((annotator, _), codes) in &self.repeated {
            let pairs = equal_pairs(codes.iter().copied());
            of_each.entry(*annotator).or_default().push(pairs);
        }
        let all: Vec<_> = of_each.values().flatten().copied().collect();
        if all.is_empty() {
            let reason = "nobody rated an item twice";
            return Err(EvalError::undefined("self-consistency", reason));
        }
        let share = |(who, pairs): (usize, Vec<_>)| (who, (mean_share(&pairs), pairs.len()));
        Ok(SelfConsistency {
            share: mean_share(&all),
            repeated: all.len(),
            by_annotator: of_each.into_iter().map(share).collect(),
        })
    }
}

fn nobody_shares(what: &str) -> EvalError {
    EvalError::undefined(what, "no item has two annotators")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratings(of: &[(usize, usize, f64)]) -> Ratings {
        let rating = |(item, annotator, value): &(usize, usize, f64)| Rating {
            item: *item,
            annotator: *annotator,
            value: *value,
        };
        Ratings::new(&of.iter().map(rating).collect::<Vec<_>>()).unwrap()
    }

    /// Every measure of agreement between annotators.
    fn all(of: &Ratings) -> Vec<Result<f64, EvalError>> {
        vec![
            of.cohen_kappa(0, 1).map(|k| k.value),
            of.pairwise_kappa().map(|k| k.value),
            of.fleiss_kappa().map(|k| k.value),
            of.krippendorff_alpha(Level::Nominal),
            of.krippendorff_alpha(Level::Ordinal),
            of.krippendorff_alpha(Level::Interval),
            of.alpha_interval(Level::Interval, 0)
                .map(|r| r.interval.value),
        ]
    }

    #[test]
    fn nothing_is_said_where_chance_agrees_always_or_nobody_shares_an_item() {
        let same = ratings(&[(0, 0, 1.0), (0, 1, 1.0), (1, 0, 1.0), (1, 1, 1.0)]);
        assert_eq!(same.raw_agreement(), Ok(1.0));
        let alone = ratings(&[(0, 0, 1.0), (1, 0, 2.0)]);
        let apart = ratings(&[(0, 0, 1.0), (1, 1, 2.0)]);
        assert!(alone.raw_agreement().is_err() && apart.raw_agreement().is_err());
        for of in [&same, &alone, &apart] {
            for measure in all(of) {
                assert!(matches!(measure, Err(EvalError::Undefined { .. })));
            }
        }
        let wrong = Rating {
            item: 0,
            annotator: 0,
            value: f64::NAN,
        };
        assert!(Ratings::new(&[wrong]).is_err() && Ratings::new(&[]).is_err());
    }

    #[test]
    fn one_item_is_enough_where_it_says_something() {
        let split = ratings(&[(7, 0, 0.0), (7, 1, 1.0)]);
        // Observed 0; by chance 0 for Cohen (each always says the same), 1/2 for Fleiss.
        assert_eq!(split.cohen_kappa(0, 1).unwrap().value, 0.0);
        assert_eq!(split.fleiss_kappa().unwrap().value, -1.0);
        assert_eq!(split.krippendorff_alpha(Level::Nominal), Ok(0.0));
        assert!(all(&split).iter().all(Result::is_ok));
    }

    #[test]
    fn a_second_answer_is_for_self_consistency_only() {
        let twice = ratings(&[
            (0, 3, 1.0),
            (0, 3, 1.0),
            (1, 3, 1.0),
            (1, 3, 2.0),
            (0, 5, -0.0),
            (0, 5, 0.0),
            (0, 5, 1.0),
        ]);
        assert_eq!(twice.raw_agreement(), Ok(0.0));
        let own = twice.self_consistency().unwrap();
        assert_eq!(own.repeated, 3);
        assert!((own.share - (1.0 + 0.0 + 1.0 / 3.0) / 3.0).abs() < 1e-15);
        assert_eq!(own.by_annotator[&3], (0.5, 2));
        assert_eq!((twice.items(), twice.annotators()), (2, vec![3, 5]));
        assert!(ratings(&[(0, 0, 1.0)]).self_consistency().is_err());
    }
}
