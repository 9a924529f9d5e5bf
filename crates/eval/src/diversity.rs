//! How different answers are from each other.

use std::collections::HashSet;

/// Distinct n-grams over all n-grams, of all texts together (Li et al. 2016); 0 without n-grams.
pub fn distinct_n(texts: &[&str], n: usize) -> f64 {
    let mut seen = HashSet::new();
    let mut total = 0;
    for text in texts {
        let words: Vec<&str> = text.split_whitespace().collect();
        for gram in words.windows(n.max(1)) {
            total += 1;
            seen.insert(gram.join(" "));
        }
    }
    if total == 0 {
        0.0
    } else {
        seen.len() as f64 / total as f64
    }
}

/// Expectation-adjusted distinct (Liu et al. 2022): distinct words over the number expected of as
/// many words drawn uniformly from a vocabulary of `vocabulary`; not biased by length.
pub fn expectation_adjusted_distinct(texts: &[&str], vocabulary: usize) -> f64 {
    let words: Vec<&str> = texts.iter().flat_map(|t| t.split_whitespace()).collect();
    if words.is_empty() || vocabulary == 0 {
        return 0.0;
    }
    let distinct = words.iter().collect::<HashSet<_>>().len() as f64;
    let v = vocabulary as f64;
    let expected = v * (1.0 - ((v - 1.0) / v).powi(words.len().min(i32::MAX as usize) as i32));
    distinct / expected
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
    }
}
