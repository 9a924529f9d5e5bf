//! How different answers are from each other.
//!
//! Tokens may be words, ids or anything that can be compared; an n-gram never spans two answers.

use std::{collections::HashSet, hash::Hash, io::Write};

use flate2::{Compression, write::GzEncoder};

use crate::{EvalError, bootstrap::check};

mod self_bleu;
mod summary;

pub use self_bleu::self_bleu;
pub use summary::{Diversity, ORDERS, Output, Scores};

/// Distinct n-grams and all of them.
fn count_ngrams<T: Eq + Hash>(answers: &[&[T]], n: usize) -> (usize, usize) {
    let mut seen = HashSet::new();
    let mut total = 0;
    for gram in answers.iter().flat_map(|a| a.windows(n.max(1))) {
        total += 1;
        seen.insert(gram);
    }
    (seen.len(), total)
}

/// Distinct n-grams over all n-grams, of all answers together (Li et al. 2016); 0 without n-grams.
pub fn distinct_ngrams<T: Eq + Hash>(answers: &[&[T]], n: usize) -> f64 {
    let (distinct, total) = count_ngrams(answers, n);
    distinct as f64 / total.max(1) as f64
}

/// Expectation-adjusted distinct n-grams (EAD, Liu et al. 2022): `N / (V (1 - ((V - 1) / V)^C))`, where
/// `N` of `C` n-grams are distinct and `V` is the vocabulary: distinct ones over the number expected of
/// as many drawn uniformly from `V`, so not biased by length. As in Kirk et al. 2023 `V` counts tokens
/// for every n, so values of different n do not compare. 0 without n-grams or vocabulary.
pub fn adjusted_distinct_ngrams<T: Eq + Hash>(
    answers: &[&[T]],
    n: usize,
    vocabulary: usize,
) -> f64 {
    let (distinct, total) = count_ngrams(answers, n);
    if total == 0 || vocabulary == 0 {
        return 0.0;
    }
    let v = vocabulary as f64;
    // 1 - (1 - 1/V)^C without the cancellation that a large V brings.
    let expected = -v * (total as f64 * (-1.0 / v).ln_1p()).exp_m1();
    distinct as f64 / expected
}

fn words<'a>(texts: &[&'a str]) -> Vec<Vec<&'a str>> {
    let split = texts.iter().map(|t| t.split_whitespace().collect());
    split.collect()
}

/// [`distinct_ngrams`] of the words of texts.
pub fn distinct_n(texts: &[&str], n: usize) -> f64 {
    let words = words(texts);
    distinct_ngrams(&words.iter().map(Vec::as_slice).collect::<Vec<_>>(), n)
}

/// [`adjusted_distinct_ngrams`] of the single words of texts.
pub fn expectation_adjusted_distinct(texts: &[&str], vocabulary: usize) -> f64 {
    let words = words(texts);
    let answers: Vec<_> = words.iter().map(Vec::as_slice).collect();
    adjusted_distinct_ngrams(&answers, 1, vocabulary)
}

/// Bytes of the texts, joined by spaces, over bytes of their gzip at level 9 (Shaib et al. 2024): high
/// where texts repeat each other. Compare only values of similar amounts of text, and of one build: the
/// compressed size depends a little on the implementation of gzip.
///
/// # Errors
/// Without texts.
pub fn compression_ratio(texts: &[&str]) -> Result<f64, EvalError> {
    const WHAT: &str = "compression ratio";
    if texts.is_empty() {
        return Err(EvalError::Empty(WHAT.to_owned()));
    }
    let all = texts.join(" ");
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let written = encoder.write_all(all.as_bytes());
    let compressed = written
        .and_then(|()| encoder.finish())
        .map_err(|e| EvalError::undefined(WHAT, e.to_string()))?;
    Ok(all.len() as f64 / compressed.len() as f64)
}

/// Mean over pairs of `1 - cos(x_i, x_j)`: 0 if all point the same way (as the Sentence-BERT diversity of
/// Kirk et al. 2023, with whatever vectors the caller has).
///
/// # Errors
/// With fewer than two vectors, different lengths, values that are not finite, or a vector of length 0.
pub fn embedding_distance(vectors: &[&[f64]]) -> Result<f64, EvalError> {
    const WHAT: &str = "embedding distance";
    if vectors.len() < 2 {
        return Err(EvalError::undefined(WHAT, "fewer than two vectors"));
    }
    // With unit vectors u, Σ_{i≠j} u_i·u_j = |Σ u|² - Σ |u|²: linear in their number.
    let mut sum = vec![0.0; vectors[0].len()];
    for vector in vectors {
        check(WHAT, vector)?;
        if vector.len() != sum.len() {
            return Err(EvalError::undefined(WHAT, "vectors of different lengths"));
        }
        let largest = vector.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
        if largest == 0.0 {
            return Err(EvalError::undefined(WHAT, "a vector of length 0"));
        }
        // Scaled first, so that no square overflows or vanishes.
        let norm = vector
            .iter()
            .map(|x| (x / largest).powi(2))
            .sum::<f64>()
            .sqrt();
        for (total, x) in sum.iter_mut().zip(*vector) {
            *total += x / largest / norm;
        }
    }
    let n = vectors.len() as f64;
    let squared: f64 = sum.iter().map(|x| x * x).sum();
    // Rounding must not make vectors that point one way less than 0 apart.
    Ok((1.0 - (squared - n) / (n * (n - 1.0))).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_worked_by_hand() {
        // Words: a b a, a c: 3 distinct of 5. Pairs: "a b", "b a", "a c": 3 of 3.
        assert!((distinct_n(&["a b a", "a c"], 1) - 0.6).abs() < 1e-12);
        assert_eq!(distinct_n(&["a b a", "a c"], 2), 1.0);
        assert_eq!(distinct_n(&["a"], 2), 0.0);
        // 2 distinct of 2 words from a vocabulary of 2: expected 2 (1 - 1/4) = 1.5.
        assert!((expectation_adjusted_distinct(&["a b"], 2) - 2.0 / 1.5).abs() < 1e-12);
        assert_eq!(expectation_adjusted_distinct(&["a a"], 1), 1.0);
        assert_eq!(expectation_adjusted_distinct(&[], 5), 0.0);
    }

    #[test]
    fn what_repeats_compresses_and_what_points_one_way_is_near() {
        let repeated = ["all work and no play"; 20];
        assert!(compression_ratio(&repeated).unwrap() > 4.0);
        assert!(compression_ratio(&["xq7"]).unwrap() < 1.0);
        assert!(compression_ratio(&[]).is_err());
        let near = embedding_distance(&[&[1.0, 1e-300], &[3.0, 0.0]]).unwrap();
        assert!((0.0..1e-12).contains(&near));
        let three: [&[f64]; 3] = [&[1.0, 0.0], &[0.0, 1e200], &[-1e-200, 0.0]];
        assert!((embedding_distance(&three).unwrap() - 4.0 / 3.0).abs() < 1e-12);
        for bad in [&[&[1.0][..]][..], &[&[1.0], &[0.0]], &[&[1.0], &[1.0, 2.0]]] {
            assert!(embedding_distance(bad).is_err());
        }
    }
}
