//! Length-controlled win rate, in the manner of AlpacaEval 2 (Dubois et al. 2024).

use crate::{EvalError, bootstrap::check};

/// Newton steps at most.
const STEPS: usize = 100;
/// The fit stops where no coefficient moves by more than this.
const STOP: f64 = 1e-10;
/// Log-odds that no finite fit has without ridge: beyond 37 the probability is 1 to the last bit, the
/// gradient 0, and a fit that runs away would seem to have arrived.
const FAR: f64 = 30.0;

/// A system's answers against a baseline's on the same prompts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Battles<'a> {
    /// Probability that the system's answer is preferred: 0, 1, one half for a tie, or between.
    pub wins: &'a [f64],
    /// Length of the system's answer less that of the baseline's, in any unit.
    pub longer_by: &'a [f64],
    /// How hard each prompt is for the baseline, where such data are there.
    pub difficulty: Option<&'a [f64]>,
}

/// A win rate with length held equal, and the model that says so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LengthControlled {
    /// Mean predicted probability of a win where both answers are equally long.
    pub win_rate: f64,
    /// Mean of the wins as they are.
    pub raw_win_rate: f64,
    /// `θ`: the system itself, log-odds.
    pub system: f64,
    /// `φ`: log-odds of an answer that is much longer.
    pub length: f64,
    /// `ψ`: log-odds for each unit of difficulty; 0 without such data.
    pub difficulty: f64,
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `m x = v` for a symmetric, positive definite `m`, by Cholesky; `None` for another `m`.
fn solve<const N: usize>(m: [[f64; N]; N], v: [f64; N], used: usize) -> Option<[f64; N]> {
    let mut lower = [[0.0; N]; N];
    for i in 0..used {
        for j in 0..=i {
            let known: f64 = (0..j).map(|k| lower[i][k] * lower[j][k]).sum();
            let rest = m[i][j] - known;
            lower[i][j] = if i != j {
                rest / lower[j][j]
            } else if rest > m[i][i] * 1e-12 {
                rest.sqrt()
            } else {
                return None;
            };
        }
    }
    let mut x = [0.0; N];
    for i in 0..used {
        let known: f64 = (0..i).map(|k| lower[i][k] * x[k]).sum();
        x[i] = (v[i] - known) / lower[i][i];
    }
    for i in (0..used).rev() {
        let known: f64 = (i + 1..used).map(|k| lower[k][i] * x[k]).sum();
        x[i] = (x[i] - known) / lower[i][i];
    }
    Some(x)
}

/// Maximises `Σ y ln p + (1 - y) ln(1 - p) - ridge/2 |w|²`, `p = σ(w·x)`, by Newton's method.
fn fit<const N: usize>(rows: &[[f64; N]], y: &[f64], used: usize, ridge: f64) -> Option<[f64; N]> {
    let dot = |w: &[f64; N], x: &[f64; N]| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
    let objective = |w: &[f64; N]| {
        // ln(1 + e^z) without overflow.
        let soft = |z: f64| z.max(0.0) + (-z.abs()).exp().ln_1p();
        let ln_p = |(x, y): (&[f64; N], &f64)| y * dot(w, x) - soft(dot(w, x));
        rows.iter().zip(y).map(ln_p).sum::<f64>() - ridge / 2.0 * dot(w, w)
    };
    let mut w = [0.0; N];
    for _ in 0..STEPS {
        let mut gradient = w.map(|w| -ridge * w);
        let mut curvature = [[0.0; N]; N];
        for (x, y) in rows.iter().zip(y) {
            let p = sigmoid(dot(&w, x));
            for i in 0..N {
                gradient[i] += (y - p) * x[i];
                for j in 0..N {
                    curvature[i][j] += p * (1.0 - p) * x[i] * x[j];
                }
            }
        }
        for (i, row) in curvature.iter_mut().enumerate() {
            row[i] += ridge;
        }
        let step = solve(curvature, gradient, used)?;
        // Halved until it does not make things worse: far from the optimum a whole step may.
        let here = objective(&w);
        let moved = |share: f64| std::array::from_fn::<f64, N, _>(|i| w[i] + share * step[i]);
        let better = |share: &f64| objective(&moved(*share)) >= here - 1e-12 * here.abs();
        let share = (0..30).map(|k| 0.5_f64.powi(k)).find(better)?;
        w = moved(share);
        if ridge == 0.0 && rows.iter().any(|x| dot(&w, x).abs() > FAR) {
            return None;
        }
        if step.iter().all(|s| s.abs() <= STOP) {
            return Some(w);
        }
    }
    None
}

/// Fits `P(win) = σ(θ + φ tanh(Δ / s) + ψ γ)`, with `Δ` how much longer the system's answer is, `s` the
/// standard deviation of `Δ` over prompts (with n - 1, not centred, so that 0 stays 0) and `γ` the
/// difficulty, and says what it predicts for `Δ = 0`: `mean σ(θ + ψ γ)` (Dubois et al. 2024).
///
/// The fit maximises `Σ y ln p + (1 - y) ln(1 - p) - ridge/2 (θ² + φ² + ψ²)` by Newton's method until no
/// coefficient moves by more than 1e-10, in at most 100 steps. `ridge` is 1/C of scikit-learn.
///
/// Where AlpacaEval's differs: its published code penalises `|θ| + |φ| + |ψ|`, by a weight from 5-fold
/// cross-validation, instead of squares by a given one; it adds judgements of two gamed versions of the
/// baseline at a weight of 0.1 each; and it always has `ψ γ`, from difficulties fitted over its
/// leaderboard, which here are the caller's to give, or left out. Both penalise all three coefficients,
/// so that a system that always wins has a finite fit.
///
/// # Errors
/// With fewer than two prompts, lengths that do not pair up, values that are not finite, wins outside
/// [0, 1], a negative `ridge`, length differences that are all equal, or data that have no finite or no
/// single best fit (such as nothing but wins, without ridge).
pub fn length_controlled(battles: &Battles, ridge: f64) -> Result<LengthControlled, EvalError> {
    const WHAT: &str = "length-controlled win rate";
    let undefined = |reason: &str| EvalError::undefined(WHAT, reason);
    let wins = battles.wins;
    let n = wins.len();
    let others = [
        ("lengths", Some(battles.longer_by)),
        ("difficulty", battles.difficulty),
    ];
    check("wins", wins)?;
    for (what, values) in others {
        let Some(values) = values else { continue };
        if values.len() != n {
            return Err(EvalError::Length {
                what: what.to_owned(),
                found: values.len(),
                expected: n,
            });
        }
        check(what, values)?;
    }
    if !wins.iter().all(|y| (0.0..=1.0).contains(y)) {
        return Err(undefined("a win is outside [0, 1]"));
    }
    if !(ridge >= 0.0 && ridge.is_finite()) {
        return Err(undefined("ridge is negative or not finite"));
    }
    let mean = battles.longer_by.iter().sum::<f64>() / n as f64;
    let squares: f64 = battles.longer_by.iter().map(|d| (d - mean).powi(2)).sum();
    let spread = (squares / (n as f64 - 1.0)).sqrt();
    if !(spread > 0.0 && spread.is_finite()) {
        return Err(undefined("lengths differ equally on all prompts"));
    }
    let hard = |i: usize| battles.difficulty.map_or(0.0, |d| d[i]);
    let row = |i: usize| [1.0, (battles.longer_by[i] / spread).tanh(), hard(i)];
    let rows: Vec<[f64; 3]> = (0..n).map(row).collect();
    let used = 2 + usize::from(battles.difficulty.is_some());
    let fitted = fit(&rows, wins, used, ridge);
    let [system, length, difficulty] = fitted
        .ok_or_else(|| undefined("no single finite fit: more prompts, or a ridge above 0"))?;
    let predicted = (0..n).map(|i| sigmoid(system + difficulty * hard(i)));
    Ok(LengthControlled {
        win_rate: predicted.sum::<f64>() / n as f64,
        raw_win_rate: wins.iter().sum::<f64>() / n as f64,
        system,
        length,
        difficulty,
    })
}

#[cfg(test)]
mod tests {
    use togi_data::rng::CounterRng;

    use super::*;

    fn battles<'a>(wins: &'a [f64], longer_by: &'a [f64]) -> Battles<'a> {
        Battles {
            wins,
            longer_by,
            difficulty: None,
        }
    }

    #[test]
    fn a_system_that_only_writes_more_is_no_better() {
        let mut rng = CounterRng::new(5, &[]);
        let longer_by: Vec<f64> = (0..4000).map(|_| 80.0 + 100.0 * rng.gaussian()).collect();
        let chance = |d: &f64| sigmoid(2.0 * (d / 100.0).tanh());
        let wins: Vec<f64> = longer_by
            .iter()
            .map(|d| f64::from(u8::from(rng.chance(chance(d)))))
            .collect();
        let found = length_controlled(&battles(&wins, &longer_by), 1e-3).unwrap();
        assert!(found.raw_win_rate > 0.65, "{found:?}");
        assert!((found.win_rate - 0.5).abs() < 0.04, "{found:?}");
        assert!((found.length - 2.0).abs() < 0.3, "{found:?}");
    }

    #[test]
    fn what_cannot_be_fitted_is_named() {
        let by = [1.0, -2.0, 3.0];
        let wins = battles(&[1.0; 3], &by);
        assert!(matches!(
            length_controlled(&wins, 0.0),
            Err(EvalError::Undefined { .. })
        ));
        let found = length_controlled(&wins, 0.1).unwrap();
        assert!(found.win_rate > 0.5 && found.win_rate < 1.0);
        // The longer always wins: separated, so again only a ridge helps.
        let by_length = battles(&[1.0, 0.0, 1.0], &by);
        assert!(length_controlled(&by_length, 0.0).is_err());
        assert!(length_controlled(&by_length, 0.01).is_ok());
        for bad in [
            battles(&[], &[]),
            battles(&[1.0], &[2.0]),
            battles(&[1.0, 0.0], &[2.0, 2.0]),
            battles(&[1.0, 0.0], &[2.0]),
            battles(&[1.0, 1.5], &[2.0, 3.0]),
            battles(&[1.0, f64::NAN], &[2.0, 3.0]),
        ] {
            assert!(length_controlled(&bad, 1.0).is_err(), "{bad:?}");
        }
        assert!(length_controlled(&by_length, -1.0).is_err());
    }
}
