//! Best-of-n: drawing n answers and keeping the one that a reward likes best.

/// `ln n - (n - 1) / n`, in nats: the KL of best-of-n from the model that the answers are drawn from,
/// where no two answers have the same reward (Stiennon et al. 2020; an upper bound otherwise, Beirami
/// et al. 2024). 0 for n below 2.
pub fn analytic_kl(n: usize) -> f64 {
    if n < 2 {
        return 0.0;
    }
    let n = n as f64;
    n.ln() - (n - 1.0) / n
}

/// For each of `N` answers to one prompt: the probability that it is the one that best-of-n of `n` of
/// them keeps, without replacement (Nakano et al. 2021, appendix I). Answers of equal reward share what
/// they have together.
///
/// # Panics
/// When `n` is 0 or above the number of answers.
pub fn chances(rewards: &[f64], n: usize) -> Vec<f64> {
    let all = rewards.len();
    assert!((1..=all).contains(&n), "best of {n} of {all}");
    let mut order: Vec<usize> = (0..all).collect();
    order.sort_by(|a, b| rewards[*a].total_cmp(&rewards[*b]));
    // With k answers below it, the answer is the best of n with C(k, n - 1) / C(N, n):
    // 0 for k < n - 1, n / N for k = N - 1, and in between each is (k - n + 2) / (k + 1) of the next.
    let mut by_rank = vec![0.0; all];
    by_rank[all - 1] = n as f64 / all as f64;
    for k in (0..all - 1).rev() {
        let ratio = (k as f64 + 2.0 - n as f64).max(0.0) / (k as f64 + 1.0);
        by_rank[k] = by_rank[k + 1] * ratio;
    }
    let mut chances = vec![0.0; all];
    let mut start = 0;
    while start < all {
        let value = rewards[order[start]];
        let end = (start..all)
            .find(|i| rewards[order[*i]] != value)
            .unwrap_or(all);
        let together: f64 = by_rank[start..end].iter().sum();
        for place in &order[start..end] {
            chances[*place] = together / (end - start) as f64;
        }
        start = end;
    }
    chances
}

/// The mean over answers of a value, each with its chance of being kept.
pub fn expected(chances: &[f64], values: &[f64]) -> f64 {
    chances.iter().zip(values).map(|(p, v)| p * v).sum()
}

/// The KL of best-of-n from the empirical distribution of the answers' rewards, in nats: what the
/// choice itself adds, answers of equal reward being one. Below [`analytic_kl`] where answers repeat.
pub fn measured_kl(rewards: &[f64], chances: &[f64]) -> f64 {
    let mut order: Vec<usize> = (0..rewards.len()).collect();
    order.sort_by(|a, b| rewards[*a].total_cmp(&rewards[*b]));
    let (mut kl, mut start) = (0.0, 0);
    while start < order.len() {
        let value = rewards[order[start]];
        let end = (start..order.len())
            .find(|i| rewards[order[*i]] != value)
            .unwrap_or(order.len());
        let kept: f64 = order[start..end].iter().map(|i| chances[*i]).sum();
        let drawn = (end - start) as f64 / order.len() as f64;
        if kept > 0.0 {
            kl += kept * (kept / drawn).ln();
        }
        start = end;
    }
    kl
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_are_those_of_all_subsets() {
        // Best of 2 of 4: of the 6 pairs, 3 hold the best answer, 2 the second without it, 1 the third.
        let chances = chances(&[0.3, 0.1, 0.9, 0.5], 2);
        let expected_chances = [1.0 / 6.0, 0.0, 3.0 / 6.0, 2.0 / 6.0];
        for (a, b) in chances.iter().zip(expected_chances) {
            assert!((a - b).abs() < 1e-12, "{chances:?}");
        }
        let mean = expected(&super::chances(&[1.0, 2.0, 6.0], 1), &[1.0, 2.0, 6.0]);
        assert!((mean - 3.0).abs() < 1e-12);
        assert_eq!(super::chances(&[1.0, 2.0, 6.0], 3), [0.0, 0.0, 1.0]);
    }

    #[test]
    fn the_kl_is_the_analytic_one_for_many_different_answers_and_less_for_equal_ones() {
        let many: Vec<f64> = (0..4096).map(f64::from).collect();
        for n in [2, 4, 16] {
            let kl = measured_kl(&many, &chances(&many, n));
            assert!((kl - analytic_kl(n)).abs() < 0.01, "{n}: {kl}");
        }
        let coins: Vec<f64> = (0..4096).map(|i| f64::from(i % 2)).collect();
        let kl = measured_kl(&coins, &chances(&coins, 2));
        // Three quarters heads against a half.
        let exact = 0.75 * 1.5_f64.ln() + 0.25 * 0.5_f64.ln();
        assert!((kl - exact).abs() < 1e-3 && kl < analytic_kl(2));
        assert_eq!(measured_kl(&coins, &chances(&coins, 1)), 0.0);
    }
}
