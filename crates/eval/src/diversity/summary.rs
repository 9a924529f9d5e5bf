//! All measures at once, among the answers of a prompt and from prompt to prompt.

use std::hash::Hash;

use super::{
    adjusted_distinct_ngrams, compression_ratio, distinct_ngrams, embedding_distance, self_bleu,
};
use crate::EvalError;

/// Lengths of n-grams, 1 to this, over which distinct n-grams are averaged (as in Kirk et al. 2023).
pub const ORDERS: usize = 5;
/// Longest n-grams of self-BLEU.
const BLEU_ORDERS: usize = 4;

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Output<'a, T> {
    /// Its tokens, for n-grams.
    pub tokens: &'a [T],
    /// Its text, for the compression ratio.
    pub text: &'a str,
    /// A vector of what it means, if there is a model for that.
    pub embedding: Option<&'a [f64]>,
}

/// Diversity of a set of answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// [`distinct_ngrams`], mean over n = 1..=[`ORDERS`].
    pub distinct: f64,
    /// [`adjusted_distinct_ngrams`] (EAD), mean over n = 1..=[`ORDERS`].
    pub adjusted_distinct: f64,
    /// [`self_bleu`] with n-grams up to 4; high is *not* diverse.
    pub self_bleu: f64,
    /// [`compression_ratio`]; high is *not* diverse.
    pub compression_ratio: f64,
    /// [`embedding_distance`]; `None` unless every answer has a vector.
    pub embedding_distance: Option<f64>,
}

/// Diversity as Kirk et al. 2023 take it apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Diversity {
    /// Mean over prompts of the diversity among the answers of one prompt; `None` if no prompt has two.
    pub per_input: Option<Scores>,
    /// Prompts in that mean: those with at least two answers.
    pub prompts: usize,
    /// Diversity among the first answers of all prompts; `None` if fewer than two prompts have one.
    pub across_inputs: Option<Scores>,
}

impl Scores {
    /// Of these answers, with tokens from a vocabulary of this size.
    ///
    /// # Errors
    /// As [`self_bleu`] and [`embedding_distance`].
    pub fn of<T: Eq + Hash>(answers: &[Output<T>], vocabulary: usize) -> Result<Self, EvalError> {
        let tokens: Vec<&[T]> = answers.iter().map(|a| a.tokens).collect();
        let texts: Vec<&str> = answers.iter().map(|a| a.text).collect();
        let vectors: Option<Vec<&[f64]>> = answers.iter().map(|a| a.embedding).collect();
        let mean = |of_order: &dyn Fn(usize) -> f64| {
            (1..=ORDERS).map(of_order).sum::<f64>() / ORDERS as f64
        };
        Ok(Self {
            distinct: mean(&|n| distinct_ngrams(&tokens, n)),
            adjusted_distinct: mean(&|n| adjusted_distinct_ngrams(&tokens, n, vocabulary)),
            self_bleu: self_bleu(&tokens, BLEU_ORDERS)?,
            compression_ratio: compression_ratio(&texts)?,
            embedding_distance: vectors.map(|v| embedding_distance(&v)).transpose()?,
        })
    }

    fn mean(all: &[Self]) -> Option<Self> {
        let of = |field: fn(&Self) -> f64| all.iter().map(field).sum::<f64>() / all.len() as f64;
        let distances: Option<Vec<f64>> = all.iter().map(|s| s.embedding_distance).collect();
        let scores = || Self {
            distinct: of(|s| s.distinct),
            adjusted_distinct: of(|s| s.adjusted_distinct),
            self_bleu: of(|s| s.self_bleu),
            compression_ratio: of(|s| s.compression_ratio),
            embedding_distance: distances.map(|d| d.iter().sum::<f64>() / d.len() as f64),
        };
        (!all.is_empty()).then(scores)
    }
}

impl Diversity {
    /// Of the answers of each prompt, with tokens from a vocabulary of this size.
    ///
    /// # Errors
    /// Without prompts; as [`embedding_distance`].
    pub fn of<T: Eq + Hash + Copy>(
        prompts: &[Vec<Output<T>>],
        vocabulary: usize,
    ) -> Result<Self, EvalError> {
        if prompts.is_empty() {
            return Err(EvalError::Empty("prompts".to_owned()));
        }
        let several = prompts.iter().filter(|answers| answers.len() > 1);
        let each = several
            .map(|answers| Scores::of(answers, vocabulary))
            .collect::<Result<Vec<_>, _>>()?;
        let firsts = prompts.iter().filter_map(|answers| answers.first());
        let firsts: Vec<Output<T>> = firsts.copied().collect();
        let across = (firsts.len() > 1).then(|| Scores::of(&firsts, vocabulary));
        Ok(Self {
            per_input: Scores::mean(&each),
            prompts: each.len(),
            across_inputs: across.transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output<'a>(tokens: &'a [u32], text: &'a str) -> Output<'a, u32> {
        Output {
            tokens,
            text,
            embedding: None,
        }
    }

    #[test]
    fn a_policy_that_always_says_the_same_to_a_prompt_is_diverse_across_them_only() {
        let a = output(&[1, 2, 3, 4], "one two three four");
        let b = output(&[5, 6, 7, 8], "five six seven eight");
        let found = Diversity::of(&[vec![a, a], vec![b, b], vec![a]], 100).unwrap();
        let (within, across) = (found.per_input.unwrap(), found.across_inputs.unwrap());
        assert_eq!((found.prompts, within.embedding_distance), (2, None));
        assert!((within.self_bleu - 1.0).abs() < 1e-12);
        assert!(across.self_bleu < 0.7 && across.distinct > within.distinct);
        let single = Diversity::of(&[vec![a]], 100).unwrap();
        assert_eq!((single.per_input, single.across_inputs), (None, None));
        assert!(Diversity::of::<u32>(&[], 100).is_err());
    }
}
