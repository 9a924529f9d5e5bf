//! What holds for every objective, in float64: its gradient is that of finite differences, parts of
//! any sizes add up to the whole batch, and neither order nor padding matters.

use burn::tensor::{Bool, DType, Device, Tensor, TensorData, activation};
use proptest::{collection::vec, prelude::*};
use togi_rl_algos::{
    AlgoError, Normalisation, PairLogps, aot, apo, bco, bradley_terry, cispo, cpo, discopop, dpo,
    exo,
    f_divergence::{Divergence, f_dpo_loss},
    gspo, ipo,
    kl::{KlEstimator, kl_per_token, times_ratio},
    kto, ld_dpo, nash_md, nca, orpo, plackett_luce, ppo, process_reward, regression, reinforce,
    sft, simpo, slic, sppo, ties, xpo,
};

/// Rows of one batch. `x` is what gradients are taken of, everything else is constant.
#[derive(Clone, Debug)]
struct Rows {
    /// Two groups of log-probabilities (or scores), each one number a row and token.
    x: Vec<f64>,
    others: Vec<f64>,
    lens: Vec<usize>,
}

const TIME: usize = 3;

impl Rows {
    fn count(&self) -> usize {
        self.lens.len()
    }

    fn pick(&self, rows: &[usize]) -> Self {
        let n = self.count();
        // Blocks of `[rows, TIME]`: which of them there are does not matter here.
        let take = |all: &[f64]| -> Vec<f64> {
            all.chunks(n * TIME)
                .flat_map(|block| {
                    rows.iter()
                        .flat_map(|r| block[r * TIME..(r + 1) * TIME].to_vec())
                })
                .collect()
        };
        Self {
            x: take(&self.x),
            others: take(&self.others),
            lens: rows.iter().map(|r| self.lens[*r]).collect(),
        }
    }
}

fn tensor<const D: usize>(values: &[f64], shape: [usize; D]) -> Tensor<D> {
    let device = Device::flex().autodiff();
    let data = TensorData::new(values.to_vec(), shape);
    Tensor::from_data(data, (&device, DType::F64))
}

fn host<const D: usize>(x: Tensor<D>) -> Vec<f64> {
    x.into_data().iter::<f64>().collect()
}

/// What an objective sees of [`Rows`].
struct View {
    x: Tensor<1>,
    rows: Rows,
}

impl View {
    fn n(&self) -> usize {
        self.rows.count()
    }

    /// Block `i` of the differentiated numbers, `[rows, TIME]`.
    fn tokens(&self, i: usize) -> Tensor<2> {
        let size = self.n() * TIME;
        self.x
            .clone()
            .narrow(0, i * size, size)
            .reshape([self.n(), TIME])
    }

    fn fixed_tokens(&self, i: usize) -> Tensor<2> {
        let size = self.n() * TIME;
        tensor(
            &self.rows.others[i * size..(i + 1) * size],
            [self.n(), TIME],
        )
    }

    /// One number a row: the first column of a block.
    fn each(&self, i: usize) -> Tensor<1> {
        self.tokens(i).narrow(1, 0, 1).reshape([self.n()])
    }

    fn fixed(&self, i: usize) -> Tensor<1> {
        self.fixed_tokens(i).narrow(1, 0, 1).reshape([self.n()])
    }

    fn policy(&self) -> PairLogps {
        PairLogps {
            chosen: self.each(0),
            rejected: self.each(1),
        }
    }

    fn reference(&self) -> PairLogps {
        PairLogps {
            chosen: self.fixed(0),
            rejected: self.fixed(1),
        }
    }

    /// Token counts.
    fn counts(&self) -> Tensor<1> {
        let counts: Vec<f64> = self.rows.lens.iter().map(|n| *n as f64).collect();
        tensor(&counts, [self.n()])
    }

    fn mask(&self) -> Tensor<2, Bool> {
        let flags: Vec<bool> = self
            .rows
            .lens
            .iter()
            .flat_map(|n| (0..TIME).map(move |t| t < *n))
            .collect();
        let data = TensorData::new(flags, [self.n(), TIME]);
        Tensor::from_data(data, &Device::flex().autodiff())
    }

    fn labels(&self) -> Vec<bool> {
        host(self.fixed(2)).iter().map(|x| *x > 0.0).collect()
    }
}

type Losses = Result<Tensor<1>, AlgoError>;

/// One value a row.
type PerRow = fn(&View) -> Losses;
/// One value a token.
type PerToken = fn(&View) -> Result<Tensor<2>, AlgoError>;

const PER_ROW: [(&str, PerRow); 35] = [
    ("dpo sigmoid", |v| {
        dpo::sigmoid_loss(&v.policy(), &v.reference(), 0.3, 0.0)
    }),
    ("dpo on soft labels", |v| {
        let labels = activation::sigmoid(v.fixed(2));
        dpo::soft_label_loss(&v.policy(), &v.reference(), &labels, 0.3)
    }),
    ("bradley-terry on soft labels", |v| {
        let labels = activation::sigmoid(v.fixed(2));
        bradley_terry::soft_label_loss(&v.each(0), &v.each(1), &labels, 0.01)
    }),
    ("cdpo", |v| {
        dpo::sigmoid_loss(&v.policy(), &v.reference(), 0.3, 0.1)
    }),
    ("robust", |v| {
        dpo::robust_loss(&v.policy(), &v.reference(), 0.3, 0.1)
    }),
    ("hinge", |v| {
        dpo::hinge_loss(&v.policy(), &v.reference(), 0.3)
    }),
    ("sigmoid_norm", |v| {
        let n = v.counts();
        dpo::length_normalised_loss(&v.policy(), &v.reference(), &n, &n, 0.9)
    }),
    ("ipo summed", |v| {
        ipo::summed_loss(&v.policy(), &v.reference(), 0.3)
    }),
    ("ipo averaged", |v| {
        let n = v.counts();
        ipo::token_averaged_loss(&v.policy(), &v.reference(), &n, &n, 0.3)
    }),
    ("slic", |v| {
        slic::slic_hf_loss(&v.policy(), &v.policy().chosen, 1.0, 0.2)
    }),
    ("exo", |v| {
        exo::exo_pair_loss(&v.policy(), &v.reference(), 0.3, 0.01)
    }),
    ("nca", |v| {
        nca::nca_pair_loss(&v.policy(), &v.reference(), 0.3)
    }),
    ("bco", |v| {
        bco::bco_pair_loss(&v.policy(), &v.reference(), 0.3, 0.2)
    }),
    ("sppo", |v| {
        sppo::sppo_hard_loss(&v.policy(), &v.reference(), 0.3)
    }),
    ("apo_zero", |v| {
        apo::apo_zero_loss(&v.policy(), &v.reference(), 0.3)
    }),
    ("apo_down", |v| {
        apo::apo_down_loss(&v.policy(), &v.reference(), 0.3)
    }),
    ("discopop", |v| {
        discopop::discopop_loss(&v.policy(), &v.reference(), 0.3, 0.5)
    }),
    ("f forward", |v| {
        f_dpo_loss(&v.policy(), &v.reference(), 0.1, 0.0, Divergence::ForwardKl)
    }),
    ("f reverse", |v| {
        f_dpo_loss(&v.policy(), &v.reference(), 0.1, 0.0, Divergence::ReverseKl)
    }),
    ("f js", |v| {
        f_dpo_loss(
            &v.policy(),
            &v.reference(),
            0.1,
            0.0,
            Divergence::JensenShannon,
        )
    }),
    ("f alpha", |v| {
        f_dpo_loss(
            &v.policy(),
            &v.reference(),
            0.1,
            0.0,
            Divergence::Alpha { alpha: 0.5 },
        )
    }),
    ("simpo", |v| {
        let n = v.counts();
        simpo::simpo_loss(&v.policy(), &n, &n, 2.0, 0.5)
    }),
    ("cpo", |v| {
        cpo::cpo_loss(&v.policy(), &v.counts(), 0.3, 1.0, 0.1)
    }),
    ("orpo", |v| {
        let n = v.counts();
        orpo::orpo_loss(&v.policy(), &n, &n, 0.3)
    }),
    ("kto", |v| {
        let weights = kto::KtoWeights {
            desirable: 1.0,
            undesirable: 1.3,
        };
        kto::kto_loss(&v.each(0), &v.fixed(0), &v.labels(), 0.4, 0.3, weights)
    }),
    ("bradley-terry", |v| {
        bradley_terry::bradley_terry_loss(&v.each(0), &v.each(1), Some(&v.fixed(2)), 0.01, 0.1)
    }),
    ("ties", |v| {
        let all = [
            ties::Outcome::First,
            ties::Outcome::Second,
            ties::Outcome::Tie,
        ];
        let outcomes: Vec<_> = v.rows.lens.iter().map(|n| all[n % 3]).collect();
        ties::rao_kupper_loss(&v.each(0), &v.each(1), &outcomes, 2.0)
    }),
    ("plackett-luce", |v| {
        plackett_luce::plackett_luce_loss(&v.tokens(0))
    }),
    ("all pairs", |v| plackett_luce::all_pairs_loss(&v.tokens(0))),
    ("regression", |v| {
        regression::regression_loss(&v.each(0), &v.fixed(0))
    }),
    ("mean nll", |v| sft::mean_nll_loss(&v.each(0), &v.counts())),
    ("xpo", |v| {
        xpo::xpo_loss(&v.policy(), &v.reference(), &v.policy().rejected, 0.3, 0.1)
    }),
    ("ld-dpo", |v| {
        let public: Vec<usize> = v.rows.lens.iter().map(|n| n.div_ceil(2)).collect();
        let sums = |x: Tensor<2>| ld_dpo::length_desensitised(&x, &v.mask(), &public, 0.5);
        let policy = PairLogps {
            chosen: sums(v.tokens(0))?,
            rejected: sums(v.tokens(1))?,
        };
        dpo::sigmoid_loss(&policy, &v.reference(), 0.3, 0.0)
    }),
    ("gspo", |v| {
        let clip = ppo::ClipRange {
            low: 0.3,
            high: 0.4,
        };
        Ok(gspo::gspo_loss(
            &v.tokens(0),
            &v.fixed_tokens(0),
            &v.fixed(2),
            &v.mask(),
            clip,
        )?
        .loss)
    }),
    // Constant where it is multiplied: its gradient is not that of its value.
    (NASH_MD, |v| {
        let likes: Vec<f64> = v.labels().iter().map(|x| f64::from(u8::from(*x))).collect();
        nash_md::nash_md_loss(&v.each(0), &v.fixed(0), &likes, 0.1)
    }),
];

const NASH_MD: &str = "nash-md";
const CISPO: &str = "cispo";

const PER_TOKEN: [(&str, PerToken); 12] = [
    ("nll", |v| sft::nll_loss(&v.tokens(0), &v.mask())),
    ("weighted nll", |v| {
        sft::weighted_nll_loss(&v.tokens(0), &v.fixed_tokens(2), &v.mask())
    }),
    ("ppo", |v| {
        let (logps, old, a) = (v.tokens(0), v.fixed_tokens(0), v.fixed_tokens(2));
        Ok(ppo::policy_loss(&logps, &old, &a, &v.mask(), 0.2)?.loss)
    }),
    ("ppo clip-higher", |v| {
        let (logps, old, a) = (v.tokens(0), v.fixed_tokens(0), v.fixed_tokens(2));
        let clip = ppo::ClipRange {
            low: 0.2,
            high: 0.28,
        };
        Ok(ppo::asymmetric_policy_loss(&logps, &old, &a, &v.mask(), clip)?.loss)
    }),
    ("value", |v| {
        ppo::value_loss(
            &v.tokens(0),
            &v.fixed_tokens(0),
            &v.fixed_tokens(2),
            &v.mask(),
            0.2,
        )
    }),
    ("reinforce", |v| {
        reinforce::reinforce_loss(&v.tokens(0), &v.fixed_tokens(2), &v.mask())
    }),
    ("k1", |v| {
        kl_per_token(&v.tokens(0), &v.fixed_tokens(0), KlEstimator::K1)
    }),
    ("k2", |v| {
        kl_per_token(&v.tokens(0), &v.fixed_tokens(0), KlEstimator::K2)
    }),
    ("k3", |v| {
        kl_per_token(&v.tokens(0), &v.fixed_tokens(0), KlEstimator::K3)
    }),
    ("k3 times ratio", |v| {
        let logps = v.tokens(0);
        let k3 = kl_per_token(&logps, &v.fixed_tokens(0), KlEstimator::K3)?;
        times_ratio(k3, &logps, &v.fixed_tokens(1))
    }),
    ("steps", |v| {
        let labels: Vec<bool> = host(v.fixed_tokens(2)).iter().map(|x| *x > 0.0).collect();
        process_reward::step_loss(&v.tokens(0), &labels, &v.mask())
    }),
    // Its weight is constant for autodiff.
    (CISPO, |v| {
        cispo::cispo_loss(
            &v.tokens(0),
            &v.fixed_tokens(0),
            &v.fixed_tokens(2),
            &v.mask(),
            0.5,
        )
    }),
];

/// A reduced loss of a part, given the whole batch.
type Reduced = Box<dyn Fn(&View, &Rows) -> Losses>;

/// Names, and functions from rows to a reduced loss with the whole batch's denominators.
fn objectives() -> Vec<(String, Reduced)> {
    let mut all: Vec<(String, Reduced)> = Vec::new();
    for (name, losses) in PER_ROW {
        all.push((
            name.to_owned(),
            Box::new(move |v, whole| {
                let denominator = whole.count() as f64;
                Normalisation::Sequence { denominator }.sequences(losses(v)?)
            }),
        ));
    }
    for (name, losses) in PER_TOKEN {
        let reduced = move |v: &View, by| Normalisation::tokens(&by, losses(v)?, &v.mask());
        all.push((
            format!("{name} by token"),
            Box::new(move |v, whole| {
                let denominator = whole.lens.iter().sum::<usize>() as f64;
                reduced(v, Normalisation::Token { denominator })
            }),
        ));
        all.push((
            format!("{name} by sequence"),
            Box::new(move |v, whole| {
                let denominator = whole.count() as f64;
                reduced(v, Normalisation::Sequence { denominator })
            }),
        ));
        all.push((
            format!("{name} by prompt"),
            Box::new(move |v, whole| {
                // Every row is a prompt of its own with two more tokens elsewhere.
                let counts = v.rows.lens.iter().map(|n| (n + 2) as f64).collect();
                let denominator = whole.count() as f64;
                reduced(
                    v,
                    Normalisation::Prompt {
                        denominator,
                        counts,
                    },
                )
            }),
        ));
    }
    all
}

/// Value, and gradient by the numbers of `part`.
fn gradient(
    objective: &dyn Fn(&View, &Rows) -> Losses,
    part: &Rows,
    whole: &Rows,
) -> (f64, Vec<f64>) {
    let x = tensor(&part.x, [part.x.len()]).require_grad();
    let view = View {
        x: x.clone(),
        rows: part.clone(),
    };
    let loss = objective(&view, whole).expect("valid arguments");
    let value = host(loss.clone())[0];
    let grads = loss.backward();
    let gradient = x.grad(&grads).map_or(vec![0.0; part.x.len()], host);
    (value, gradient)
}

fn value(objective: &dyn Fn(&View, &Rows) -> Losses, rows: &Rows) -> f64 {
    let view = View {
        x: tensor(&rows.x, [rows.x.len()]),
        rows: rows.clone(),
    };
    host(objective(&view, rows).expect("valid arguments"))[0]
}

/// Log-probabilities below 0, so that odds and averages exist; constants on both sides of it.
fn rows() -> impl Strategy<Value = Rows> {
    (2usize..6).prop_flat_map(|n| {
        (
            vec(-4.0..-0.3, 2 * n * TIME),
            vec(-4.0..-0.3, 2 * n * TIME),
            vec(-2.0..2.0, n * TIME),
            vec(1..=TIME, n),
        )
            .prop_map(|(x, reference, mut more, lens)| {
                let mut others: Vec<f64> = reference;
                others.append(&mut more);
                Rows { x, others, lens }
            })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gradients_are_those_of_finite_differences(rows in rows()) {
        let h = 1e-5;
        for (name, objective) in objectives() {
            if name == NASH_MD || name.starts_with(CISPO) {
                continue;
            }
            let (middle, found) = gradient(&objective, &rows, &rows);
            for (i, found) in found.into_iter().enumerate() {
                let moved = |by: f64| {
                    let mut rows = rows.clone();
                    rows.x[i] += by;
                    value(&objective, &rows)
                };
                let (up, down) = (moved(h), moved(-h));
                // A corner of max or clip lies in between: there is no gradient to compare with.
                if ((up - middle) - (middle - down)).abs() / h > 1e-3 {
                    continue;
                }
                let expected = (up - down) / (2.0 * h);
                prop_assert!(
                    (found - expected).abs() <= 1e-7 * (1.0 + expected.abs()),
                    "{name}, number {i}: {} by autodiff, {expected} by differences", found
                );
            }
        }
    }

    #[test]
    fn parts_of_any_sizes_add_up_to_the_whole(rows in rows(), cuts in vec(1usize..4, 6)) {
        let n = rows.count();
        for (name, objective) in objectives() {
            let (value, whole) = gradient(&objective, &rows, &rows);
            let (mut sum, mut total) = (0.0, vec![0.0; rows.x.len()]);
            let (mut start, mut cuts) = (0, cuts.iter());
            while start < n {
                let end = (start + cuts.next().copied().unwrap_or(1)).min(n);
                let numbers: Vec<usize> = (start..end).collect();
                let (part, grads) = gradient(&objective, &rows.pick(&numbers), &rows);
                sum += part;
                // Where the part's numbers are in the whole.
                let size = (end - start) * TIME;
                for (i, g) in grads.iter().enumerate() {
                    let at = i / size * n * TIME + start * TIME + i % size;
                    total[at] += g;
                }
                start = end;
            }
            prop_assert!((sum - value).abs() <= 1e-6 * (1.0 + value.abs()), "{name}: {sum}, {value}");
            for (a, b) in total.iter().zip(&whole) {
                prop_assert!((a - b).abs() <= 1e-6 * (1.0 + b.abs()), "{name}: {a}, {b}");
            }
        }
    }

    #[test]
    fn the_order_of_a_batch_does_not_matter(rows in rows(), seed in 0usize..100) {
        let n = rows.count();
        let shift = 1 + seed % (n - 1);
        let order: Vec<usize> = (0..n).map(|i| (i + shift) % n).collect();
        let turned = rows.pick(&order);
        for (name, objective) in objectives() {
            let (a, b) = (value(&objective, &rows), value(&objective, &turned));
            prop_assert!((a - b).abs() <= 1e-9 * (1.0 + a.abs()), "{name}: {a}, {b}");
        }
        // These sort, so they are of the batch as a whole, but not of its order.
        let sorted: [(&str, PerRow); 2] = [
            ("aot", |v| aot::aot_loss(&v.policy(), &v.reference(), 0.3, 0.1)),
            ("aot_unpaired", |v| aot::aot_unpaired_loss(&v.policy(), &v.reference(), 0.3, 0.1)),
        ];
        for (name, losses) in sorted {
            let sum = |rows: &Rows| {
                let x = tensor(&rows.x, [rows.x.len()]);
                let view = View { x, rows: rows.clone() };
                host(losses(&view).expect("valid arguments").sum())[0]
            };
            let (a, b) = (sum(&rows), sum(&turned));
            prop_assert!((a - b).abs() <= 1e-9 * (1.0 + a.abs()), "{name}: {a}, {b}");
        }
    }

    /// The same tokens in wider rows, with NaN where none counts.
    #[test]
    fn padding_does_not_matter(rows in rows(), wide in 1usize..4) {
        let (n, device) = (rows.count(), Device::flex().autodiff());
        let narrow = |i: usize| -> Tensor<2> {
            let size = n * TIME;
            tensor(&rows.x[i * size..(i + 1) * size], [n, TIME])
        };
        let widened = |x: Tensor<2>| -> Tensor<2> {
            let values = host(x);
            let padded: Vec<f64> = (0..n)
                .flat_map(|r| (0..TIME + wide).map(move |t| (r, t)))
                .map(|(r, t)| if t < rows.lens[r] { values[r * TIME + t] } else { f64::NAN })
                .collect();
            tensor(&padded, [n, TIME + wide])
        };
        let mask = |time: usize| -> Tensor<2, Bool> {
            let lens = rows.lens.iter();
            let flags: Vec<bool> = lens.flat_map(|l| (0..time).map(move |t| t < *l)).collect();
            Tensor::from_data(TensorData::new(flags, [n, time]), &device)
        };
        let public: Vec<usize> = rows.lens.iter().map(|l| l.div_ceil(2)).collect();
        let desensitised = |x: &Tensor<2>, mask: &Tensor<2, Bool>| {
            host(ld_dpo::length_desensitised(x, mask, &public, 0.5).expect("valid"))
        };
        let (a, b) = (narrow(0), widened(narrow(0)));
        let (inside, wider) = (mask(TIME), mask(TIME + wide));
        prop_assert_eq!(desensitised(&a, &inside), desensitised(&b, &wider));
        let steps = |x: &Tensor<2>, mask: &Tensor<2, Bool>| {
            let [_, time] = x.dims();
            let labels: Vec<bool> = (0..n * time).map(|i| i / time % 2 == 0).collect();
            let losses = process_reward::step_loss(x, &labels, mask).expect("valid");
            let by = Normalisation::Sequence { denominator: n as f64 };
            host(by.tokens(losses, mask).expect("valid"))
        };
        prop_assert_eq!(steps(&a, &inside), steps(&b, &wider));
        let clip = ppo::ClipRange { low: 0.2, high: 0.2 };
        let advantages: Tensor<1> = tensor(&vec![0.7; n], [n]);
        let gspo = |x: &Tensor<2>, old: &Tensor<2>, mask: &Tensor<2, Bool>| {
            host(gspo::gspo_loss(x, old, &advantages, mask, clip).expect("valid").loss)
        };
        let old = narrow(1);
        prop_assert_eq!(gspo(&a, &old, &inside), gspo(&b, &widened(old.clone()), &wider));
    }

    /// Only differences of scores count in comparisons and rankings.
    #[test]
    fn a_constant_on_all_scores_does_not_matter(rows in rows(), shift in -5.0..5.0) {
        let moved = Rows { x: rows.x.iter().map(|x| x + shift).collect(), ..rows.clone() };
        let of_scores: [(&str, PerRow); 4] = [
            ("bradley-terry", |v| {
                bradley_terry::bradley_terry_loss(&v.each(0), &v.each(1), None, 0.0, 0.1)
            }),
            ("ties", |v| {
                let outcomes = vec![ties::Outcome::Tie; v.n()];
                ties::rao_kupper_loss(&v.each(0), &v.each(1), &outcomes, 2.0)
            }),
            ("plackett-luce", |v| plackett_luce::plackett_luce_loss(&v.tokens(0))),
            ("all pairs", |v| plackett_luce::all_pairs_loss(&v.tokens(0))),
        ];
        for (name, losses) in of_scores {
            let sum = move |v: &View, _: &Rows| Ok(losses(v)?.sum());
            let (a, b) = (value(&sum, &rows), value(&sum, &moved));
            prop_assert!((a - b).abs() <= 1e-9 * (1.0 + a.abs()), "{name}: {a}, {b}");
        }
    }

    /// Where the completions were drawn from the policy itself, the gradient of k3 with the ratio in
    /// front is that of k2, and so of the KL divergence in expectation; that of k3 alone is another.
    #[test]
    fn k3_times_the_ratio_has_the_gradient_of_k2(rows in rows()) {
        let by = |part: fn(&View) -> Result<Tensor<2>, AlgoError>| {
            let objective = move |v: &View, _: &Rows| Ok(part(v)?.sum());
            gradient(&objective, &rows, &rows).1
        };
        let k2 = by(|v| kl_per_token(&v.tokens(0), &v.fixed_tokens(0), KlEstimator::K2));
        let k3 = by(|v| kl_per_token(&v.tokens(0), &v.fixed_tokens(0), KlEstimator::K3));
        let corrected = by(|v| {
            let logps = v.tokens(0);
            let k3 = kl_per_token(&logps, &v.fixed_tokens(0), KlEstimator::K3)?;
            times_ratio(k3, &logps, &logps)
        });
        for (a, b) in corrected.iter().zip(&k2) {
            prop_assert!((a - b).abs() <= 1e-9 * (1.0 + b.abs()), "{a}, {b}");
        }
        prop_assert!(k3.iter().zip(&k2).any(|(a, b)| (a - b).abs() > 1e-3));
    }
}

/// Azar et al. 2023, section 5: three arms in the order 1 > 2 > 3, a uniform reference. What the policy
/// tends to under DPO is deterministic whatever β is; under IPO it stays where τ puts it.
#[test]
fn dpo_goes_deterministic_on_three_arms_and_ipo_does_not() {
    let train = |steps: usize, rate: f64, loss: &dyn Fn(&PairLogps, &PairLogps) -> Losses| {
        let mut logits = vec![0.0; 3];
        for _ in 0..steps {
            let x = tensor(&logits, [3]).require_grad();
            let logps = x.clone() - x.clone().exp().sum().log();
            let arm = |i: usize| logps.clone().narrow(0, i, 1);
            let pairs = |of: &dyn Fn(usize) -> Tensor<1>| PairLogps {
                chosen: Tensor::cat(vec![of(0), of(1), of(0)], 0),
                rejected: Tensor::cat(vec![of(1), of(2), of(2)], 0),
            };
            let uniform = tensor(&[(1.0_f64 / 3.0).ln()], [1]);
            let losses = loss(&pairs(&arm), &pairs(&|_| uniform.clone())).expect("valid");
            let grads = losses.sum().backward();
            let step = host(x.grad(&grads).expect("a gradient"));
            for (logit, g) in logits.iter_mut().zip(step) {
                *logit -= rate * g;
            }
        }
        let sum: f64 = logits.iter().map(|x: &f64| x.exp()).sum();
        logits.iter().map(|x| x.exp() / sum).collect::<Vec<_>>()
    };
    for strength in [0.1, 0.5, 1.0] {
        let dpo = |p: &PairLogps, r: &PairLogps| dpo::sigmoid_loss(p, r, strength, 0.0);
        let (early, late) = (train(300, 0.5, &dpo)[0], train(6000, 0.5, &dpo)[0]);
        assert!(
            late > early && late > 0.985,
            "β {strength}: {early}, {late}"
        );
        // The least squares of h12 = h23 = h13 = 1 / 2τ have h12 = h23 = 1 / 3τ.
        let ipo = |p: &PairLogps, r: &PairLogps| ipo::summed_loss(p, r, strength);
        let arms = train(2000, 0.05, &ipo);
        for pair in arms.windows(2) {
            let h = (pair[0] / pair[1]).ln();
            assert!(
                (h - 1.0 / (3.0 * strength)).abs() < 1e-6,
                "τ {strength}: {arms:?}"
            );
        }
    }
}

#[test]
fn errors_name_the_argument() {
    let v = |values: &[f64]| -> Tensor<1> { tensor(values, [values.len()]) };
    let (one, two, nan) = (v(&[1.0]), v(&[1.0, 2.0]), v(&[1.0, f64::NAN]));
    let grid = |rows: usize, columns: usize| -> Tensor<2> {
        tensor(&vec![0.5; rows * columns], [rows, columns])
    };
    let mask = |flags: Vec<bool>| -> Tensor<2, Bool> {
        let shape = [2, flags.len() / 2];
        Tensor::from_data(TensorData::new(flags, shape), &Device::flex())
    };
    let (all, hole) = (mask(vec![true; 4]), mask(vec![true, true, false, false]));
    let pair = |chosen: &Tensor<1>, rejected: &Tensor<1>| PairLogps {
        chosen: chosen.clone(),
        rejected: rejected.clone(),
    };
    let (good, short) = (pair(&two, &two), pair(&one, &one));
    let outcomes = [ties::Outcome::Tie; 2];
    let table: Vec<(Option<AlgoError>, &str)> = vec![
        (
            bradley_terry::bradley_terry_loss(&two, &two, None, 0.0, 0.6).err(),
            "`label_smoothing` is 0.6",
        ),
        (
            ties::rao_kupper_loss(&two, &two, &outcomes, 1.0).err(),
            "`theta` is 1",
        ),
        (
            ties::rao_kupper_loss(&two, &one, &outcomes, 2.0).err(),
            "`second` has shape [1]",
        ),
        (
            ties::rao_kupper_loss(&two, &two, &outcomes[..1], 2.0).err(),
            "`outcomes` has shape [1]",
        ),
        (
            plackett_luce::plackett_luce_loss(&grid(2, 1)).err(),
            "group 0 of `scores` has 1",
        ),
        (
            plackett_luce::all_pairs_loss(&tensor(&[1.0, f64::NAN], [1, 2])).err(),
            "`scores` is not finite at index 1",
        ),
        (
            regression::regression_loss(&two, &one).err(),
            "`ratings` has shape [1]",
        ),
        (
            regression::regression_loss(&two, &nan).err(),
            "`ratings` is not finite at index 1",
        ),
        (
            process_reward::step_loss(&grid(2, 2), &[true; 3], &all).err(),
            "`labels` has shape [3]",
        ),
        (
            process_reward::step_loss(&grid(2, 2), &[true; 4], &hole).err(),
            "row 1 of `mask` is empty",
        ),
        (
            sft::mean_nll_loss(&two, &v(&[1.0, 0.0])).err(),
            "`tokens` is 0",
        ),
        (
            ld_dpo::length_desensitised(&grid(2, 2), &all, &[1, 1], 1.5).err(),
            "`alpha` is 1.5",
        ),
        (
            ld_dpo::length_desensitised(&grid(2, 2), &all, &[1], 0.5).err(),
            "`public_lens` has shape [1]",
        ),
        (
            nash_md::nash_md_loss(&two, &two, &[0.5, 1.5], 0.1).err(),
            "`preferences` is 1.5",
        ),
        (
            nash_md::nash_md_loss(&two, &two, &[0.5, 0.5], -1.0).err(),
            "`tau` is -1",
        ),
        (
            xpo::xpo_loss(&good, &good, &one, 0.1, 0.1).err(),
            "`of_reference` has shape [1]",
        ),
        (
            xpo::xpo_loss(&good, &good, &two, 0.1, -0.1).err(),
            "`alpha` is -0.1",
        ),
        (
            xpo::xpo_loss(&good, &short, &two, 0.1, 0.1).err(),
            "`reference.chosen` has shape [1]",
        ),
        (
            togi_rl_algos::wpo::wpo_weights(&good, &short, &two, &two).err(),
            "`collisions.chosen` has shape [1]",
        ),
        (
            times_ratio(grid(2, 2), &grid(2, 2), &grid(2, 1)).err(),
            "`old_logps` has shape [2, 1]",
        ),
    ];
    for (error, expected) in table {
        let found = error.map(|e| e.to_string()).unwrap_or_default();
        assert!(
            found.starts_with(expected),
            "{found:?}; expected {expected:?}"
        );
    }
}
