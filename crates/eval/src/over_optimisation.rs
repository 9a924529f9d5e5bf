//! Curves of a true reward against the distance that a policy has moved (Gao et al. 2022, "Scaling laws
//! for reward model overoptimization").

/// How the true reward follows `d = √KL`, less its value at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `d (α - β d)`: best-of-n.
    BestOfN,
    /// `d (α - β ln d)`: reinforcement learning.
    Reinforcement,
}

/// A fitted curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// Its form.
    pub form: Form,
    /// The slope that it starts with.
    pub alpha: f64,
    /// How it bends down.
    pub beta: f64,
    /// The share of the variance that it explains.
    pub r_squared: f64,
}

impl Form {
    fn bend(self, d: f64) -> f64 {
        match self {
            Self::BestOfN => d * d,
            Self::Reinforcement => d * d.ln(),
        }
    }
}

impl Fit {
    /// Least squares over `(KL, gain)`. Points at a KL of 0 or below say nothing and are passed over;
    /// `None` with fewer than three others, or when they do not determine a curve.
    pub fn of(form: Form, points: &[(f64, f64)]) -> Option<Self> {
        let points = distances(points);
        Self::least_squares(form, &points, (0.0, 0.0, 0.0))
    }

    /// As [`Fit::of`] over `(KL, reward)`, where the reward at a KL of 0 is not known: it is fitted too.
    /// Needs four points.
    pub fn with_start(form: Form, points: &[(f64, f64)]) -> Option<Self> {
        let points = distances(points);
        let n = points.len() as f64;
        let mean = |value: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / n;
        let middle = (mean(&|p| p.0), mean(&|p| -form.bend(p.0)), mean(&|p| p.1));
        // Through the middle of the points, a curve of two unknowns has a third that is free.
        (points.len() > 3)
            .then(|| Self::least_squares(form, &points, middle))
            .flatten()
    }

    /// `gain = α d − β bend(d)` by the normal equations of two unknowns, each variable less its middle.
    fn least_squares(form: Form, points: &[(f64, f64)], middle: (f64, f64, f64)) -> Option<Self> {
        if points.len() < 3 {
            return None;
        }
        let rows = || {
            let row =
                |(d, gain): &(f64, f64)| (d - middle.0, -form.bend(*d) - middle.1, gain - middle.2);
            points.iter().map(row)
        };
        let (mut uu, mut uv, mut vv, mut uy, mut vy) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (u, v, y) in rows() {
            uu += u * u;
            uv += u * v;
            vv += v * v;
            uy += u * y;
            vy += v * y;
        }
        let determinant = uu * vv - uv * uv;
        if determinant.abs() <= 1e-12 * uu * vv {
            return None;
        }
        let alpha = (uy * vv - vy * uv) / determinant;
        let beta = (vy * uu - uy * uv) / determinant;
        let mean = points.iter().map(|p| p.1).sum::<f64>() / points.len() as f64;
        let rest: f64 = rows()
            .map(|(u, v, y)| (y - alpha * u - beta * v).powi(2))
            .sum();
        let all: f64 = points.iter().map(|p| (p.1 - mean).powi(2)).sum();
        Some(Self {
            form,
            alpha,
            beta,
            r_squared: 1.0 - rest / all.max(1e-300),
        })
    }

    /// The curve's gain at a KL.
    pub fn at(&self, kl: f64) -> f64 {
        let d = kl.max(0.0).sqrt();
        if d == 0.0 {
            return 0.0;
        }
        self.alpha * d - self.beta * self.form.bend(d)
    }

    /// The KL at which the curve turns down; `None` if it never does.
    pub fn turning_point(&self) -> Option<f64> {
        if self.beta <= 0.0 || (self.form == Form::BestOfN && self.alpha <= 0.0) {
            return None;
        }
        let d = match self.form {
            Form::BestOfN => self.alpha / (2.0 * self.beta),
            Form::Reinforcement => (self.alpha / self.beta - 1.0).exp(),
        };
        Some(d * d)
    }
}

/// Square roots of the KL, with the gain.
fn distances(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    points
        .iter()
        .filter(|(kl, gain)| *kl > 0.0 && gain.is_finite())
        .map(|(kl, gain)| (kl.sqrt(), *gain))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_found_again() {
        for form in [Form::BestOfN, Form::Reinforcement] {
            let truth = Fit {
                form,
                alpha: 1.3,
                beta: 0.4,
                r_squared: 1.0,
            };
            let points: Vec<(f64, f64)> = (0..40)
                .map(|i| f64::from(i) * 0.5)
                .map(|kl| (kl, truth.at(kl)))
                .collect();
            let fit = Fit::of(form, &points).unwrap();
            assert!((fit.alpha - 1.3).abs() < 1e-9 && (fit.beta - 0.4).abs() < 1e-9);
            assert!(fit.r_squared > 1.0 - 1e-9);
            let raised: Vec<(f64, f64)> = points.iter().map(|p| (p.0, p.1 + 0.7)).collect();
            let shifted = Fit::with_start(form, &raised).unwrap();
            assert!((shifted.alpha - 1.3).abs() < 1e-9 && (shifted.beta - 0.4).abs() < 1e-9);
            assert!(shifted.r_squared > 1.0 - 1e-9);
            let top = fit.turning_point().unwrap();
            assert!(fit.at(top) > fit.at(top * 0.9) && fit.at(top) > fit.at(top * 1.1));
        }
        assert_eq!(Fit::of(Form::BestOfN, &[(1.0, 1.0), (0.0, 0.0)]), None);
        let rising = Fit {
            form: Form::BestOfN,
            alpha: 1.0,
            beta: -0.1,
            r_squared: 1.0,
        };
        assert_eq!(rising.turning_point(), None);
    }
}
