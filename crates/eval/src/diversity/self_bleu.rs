//! How far each answer can be put together from the n-grams of the others.

use std::{collections::HashMap, hash::Hash};

use crate::EvalError;

/// How often an n-gram is in the answer that has most of it, and in the one after that.
#[derive(Default)]
struct Most {
    answer: usize,
    first: usize,
    second: usize,
}

fn counts<T: Eq + Hash>(answer: &[T], n: usize) -> HashMap<&[T], usize> {
    let mut counts = HashMap::new();
    for gram in answer.windows(n) {
        *counts.entry(gram).or_default() += 1;
    }
    counts
}

/// The matches of each answer's n-grams among the other answers: a gram matches as often as the answer
/// that has it oftenest.
fn matches<T: Eq + Hash>(answers: &[&[T]], n: usize) -> Vec<usize> {
    // The best two of each gram suffice for "the most among the others", so the work is linear.
    let mut most = HashMap::<&[T], Most>::new();
    for (answer, tokens) in answers.iter().enumerate() {
        for (gram, count) in counts(tokens, n) {
            let of_gram = most.entry(gram).or_default();
            if count > of_gram.first {
                of_gram.second = of_gram.first;
                (of_gram.answer, of_gram.first) = (answer, count);
            } else {
                of_gram.second = of_gram.second.max(count);
            }
        }
    }
    let of = |(answer, tokens): (usize, &&[T])| {
        let among_others = |gram: &[T]| {
            let found = most.get(gram).map(|m| {
                if m.answer == answer {
                    m.second
                } else {
                    m.first
                }
            });
            found.unwrap_or(0)
        };
        let clipped = counts(tokens, n).into_iter();
        clipped
            .map(|(gram, count)| count.min(among_others(gram)))
            .sum()
    };
    answers.iter().enumerate().map(of).collect()
}

/// Self-BLEU (Zhu et al. 2018): mean over answers of the sentence BLEU of each with all others as its
/// references; 1 if all are the same, so low is diverse.
///
/// BLEU (Papineni et al. 2002) is `b exp(1/N Σ_{n≤N} ln p_n)`: `p_n` the share of n-grams that some
/// reference has (no gram more often than there), `b = min(1, exp(1 - r / c))` for `c` tokens with `r`
/// the nearest length of a reference, of two equally near the shorter. Where no n-gram matches, `p_n`
/// counts 0.1 matches (method 1 of Chen and Cherry 2014, as in NLTK, which takes 0.1 of one n-gram for an
/// answer with fewer than n tokens); without a single common token BLEU is 0.
///
/// # Errors
/// With fewer than two answers, or for `orders` of 0.
pub fn self_bleu<T: Eq + Hash>(answers: &[&[T]], orders: usize) -> Result<f64, EvalError> {
    if answers.len() < 2 || orders == 0 {
        let reason = "it takes two answers and n-grams of a length";
        return Err(EvalError::undefined("self-BLEU", reason));
    }
    let matched: Vec<Vec<usize>> = (1..=orders).map(|n| matches(answers, n)).collect();
    let bleu = |answer: usize| {
        let c = answers[answer].len();
        if matched[0][answer] == 0 {
            return 0.0;
        }
        let ln_precision = |(below, of_order): (usize, &Vec<usize>)| {
            let all = c.saturating_sub(below).max(1) as f64;
            match of_order[answer] {
                0 => (0.1 / all).ln(),
                some => (some as f64 / all).ln(),
            }
        };
        let mean = matched.iter().enumerate().map(ln_precision).sum::<f64>() / orders as f64;
        let others = answers.iter().enumerate().filter(|(i, _)| *i != answer);
        let lengths = others.map(|(_, other)| other.len());
        let nearest = lengths.min_by_key(|r| (r.abs_diff(c), *r)).unwrap_or(c);
        let brevity = (1.0 - nearest as f64 / c as f64).min(0.0);
        (brevity + mean).exp()
    };
    Ok((0..answers.len()).map(bleu).sum::<f64>() / answers.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_worked_by_hand() {
        let same: &[u32] = &[1, 2, 3, 4, 5];
        assert!((self_bleu(&[same, same], 4).unwrap() - 1.0).abs() < 1e-12);
        let other: &[u32] = &[6, 7, 8];
        assert_eq!(self_bleu(&[same, other], 4), Ok(0.0));
        // "1 1" against "1": 1 of 2 matches, longer than its reference. "1" against "1 1": all of it
        // matches, and is penalised by e^(1 - 2).
        let expected = (0.5 + (-1.0_f64).exp()) / 2.0;
        assert!((self_bleu(&[&[1, 1][..], &[1]], 1).unwrap() - expected).abs() < 1e-12);
        assert!(self_bleu(&[same], 4).is_err() && self_bleu(&[same, same], 0).is_err());
        assert_eq!(self_bleu::<u32>(&[&[], &[]], 4), Ok(0.0));
    }
}
