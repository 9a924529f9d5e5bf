//! Identities, known numbers, and errors.

use std::f32::consts::LN_2;

use burn::tensor::{Bool, Device, Tensor, TensorData};
use proptest::{collection::vec, prelude::*};
use togi_rl_algos::{
    AlgoError, Normalisation, PairLogps,
    bradley_terry::bradley_terry_loss,
    dpo, gae, ipo,
    kl::{KlEstimator, kl_per_token},
    ppo, sft, slic, whiten,
};

fn v(values: &[f32]) -> Tensor<1> {
    Tensor::from_data(
        TensorData::new(values.to_vec(), [values.len()]),
        &Device::flex().autodiff(),
    )
}

fn m(values: &[f32], shape: [usize; 2]) -> Tensor<2> {
    Tensor::from_data(
        TensorData::new(values.to_vec(), shape),
        &Device::flex().autodiff(),
    )
}

fn mask(lens: &[usize], time: usize) -> Tensor<2, Bool> {
    let flags: Vec<bool> = lens
        .iter()
        .flat_map(|n| (0..time).map(move |t| t < *n))
        .collect();
    Tensor::from_data(
        TensorData::new(flags, [lens.len(), time]),
        &Device::flex().autodiff(),
    )
}

fn host<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

fn pairs(chosen: &[f32], rejected: &[f32]) -> PairLogps {
    PairLogps {
        chosen: v(chosen),
        rejected: v(rejected),
    }
}

/// A policy with margins `h` and the reference that they are against.
fn margins(h: &[f32]) -> (PairLogps, PairLogps) {
    let zero = vec![0.0; h.len()];
    (pairs(h, &zero), pairs(&zero, &zero))
}

fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (x, y) in found.iter().zip(expected) {
        assert!(
            (x - y).abs() <= 1e-5 * (1.0 + y.abs()),
            "{found:?}, expected {expected:?}"
        );
    }
}

#[test]
fn known_numbers() -> Result<(), AlgoError> {
    let (p, r) = margins(&[0.0, 10.0, 20.0]);
    close(
        &host(dpo::sigmoid_loss(&p, &r, 0.1, 0.0)?),
        &[LN_2, 0.313262, 0.126928],
    );
    close(&host(dpo::hinge_loss(&p, &r, 0.1)?), &[1.0, 0.0, 0.0]);
    close(
        &host(dpo::sigmoid_loss(&p, &r, 0.1, 0.1)?),
        &[LN_2, 0.413262, 0.326928],
    );
    close(
        &host(dpo::robust_loss(&p, &r, 0.1, 0.1)?),
        &[LN_2, 0.188262, -0.123072],
    );
    let rewards = m(&[1.0, 2.0, 3.0], [1, 3]);
    let out = gae::gae(&rewards, &m(&[0.0; 3], [1, 3]), &mask(&[3], 3), 1.0, 1.0)?;
    close(&host(out.returns), &[6.0, 5.0, 3.0]);
    close(
        &host(gae::discounted_returns(&rewards, &mask(&[3], 3), 0.5)?),
        &[2.75, 3.5, 3.0],
    );
    Ok(())
}

/// The slope of `p L(h) + (1-p) L(-h)`: the expected loss when the label is right with
/// probability `p`.
fn slope(h: f32, p: f32, loss: impl Fn(&PairLogps, &PairLogps) -> Tensor<1>) -> f32 {
    let x = v(&[h]).require_grad();
    let zero = v(&[0.0]);
    let reference = PairLogps {
        chosen: zero.clone(),
        rejected: zero.clone(),
    };
    let right = loss(
        &PairLogps {
            chosen: x.clone(),
            rejected: zero.clone(),
        },
        &reference,
    );
    let wrong = loss(
        &PairLogps {
            chosen: zero,
            rejected: x.clone(),
        },
        &reference,
    );
    let grads = (right * p + wrong * (1.0 - p)).sum().backward();
    host(x.grad(&grads).expect("a gradient"))[0]
}

fn tokens() -> impl Strategy<Value = (Vec<usize>, usize, usize, Vec<f32>)> {
    (1usize..4, 1usize..6, 1usize..4).prop_flat_map(|(batch, time, pad)| {
        (
            vec(1..=time, batch),
            Just(time),
            Just(pad),
            vec(-3f32..3.0, 4 * batch * time),
        )
    })
}

/// Every masked function on the tokens of `x`, each result `[batch, time]`.
fn masked(x: &[Tensor<2>], mask: &Tensor<2, Bool>) -> Result<Vec<Tensor<2>>, AlgoError> {
    let [batch, _] = mask.dims();
    let scores = v(&(0..batch).map(|i| i as f32 - 0.5).collect::<Vec<_>>());
    let policy = ppo::policy_loss(&x[0], &x[1], &x[2], mask, 0.2)?;
    let advantages = gae::gae(&x[0], &x[1], mask, 0.9, 0.8)?;
    let mean = |by: Normalisation| by.tokens(x[0].clone(), mask).map(|y| y.reshape([1, 1]));
    Ok(vec![
        policy.loss,
        policy.ratio - 1.0,
        policy.approx_kl,
        policy.clipped,
        ppo::value_loss(&x[0], &x[1], &x[2], mask, 0.2)?,
        ppo::token_rewards(&scores, &x[0], mask, 0.1)?,
        advantages.advantages,
        advantages.returns,
        gae::discounted_returns(&x[0], mask, 0.9)?,
        whiten::whiten(&x[0], mask)?,
        whiten::whiten_keep_mean(&x[0], mask)?,
        sft::nll_loss(&x[0], mask)?,
        sft::weighted_nll_loss(&x[0], &x[1], mask)?,
        mean(Normalisation::Token { denominator: 5.0 })?,
        mean(Normalisation::Sequence { denominator: 5.0 })?,
        mean(Normalisation::Prompt {
            denominator: 5.0,
            counts: vec![3.0; batch],
        })?,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn symmetries(h in -30f32..30.0, beta in 0.01f64..2.0, r in -30f32..30.0) {
        let ((p, z), (q, _)) = (margins(&[h]), margins(&[-h]));
        close(&host(dpo::margin(&p, &z)?), &host(dpo::margin(&q, &z)?.neg()));
        let half = |x| dpo::sigmoid_loss(x, &z, beta, 0.5);
        close(&host(half(&p)?), &host(half(&q)?));
        // log σ(x) - log σ(-x) = x, so the losses of a pair and of its reverse differ by the margin.
        let difference = dpo::sigmoid_loss(&q, &z, beta, 0.0)? - dpo::sigmoid_loss(&p, &z, beta, 0.0)?;
        close(&host(difference), &[(beta * f64::from(h)) as f32]);
        let bt = |a, b| bradley_terry_loss(&v(&[a]), &v(&[b]), None, 0.0, 0.0);
        close(&host(bt(r, h)? - bt(h, r)?), &[h - r]);
        close(&host(bt(r + 1.0, h + 1.0)?), &host(bt(r, h)?));
    }

    #[test]
    fn stationary_points(p in 0.1f32..0.9, beta in 0.05f64..2.0) {
        let at = f64::from((p / (1.0 - p)).ln()) / beta;
        let dpo = slope(at as f32, p, |x, y| dpo::sigmoid_loss(x, y, beta, 0.0).expect("valid"));
        prop_assert!(dpo.abs() <= 1e-5, "DPO {dpo}");
        let at = (f64::from(p) - 0.5) / beta;
        let ipo = slope(at as f32, p, |x, y| ipo::summed_loss(x, y, beta).expect("valid"));
        prop_assert!(ipo.abs() <= 1e-5 / beta as f32, "IPO {ipo}");
    }

    #[test]
    fn first_step_of_ppo((lens, time, _, x) in tokens()) {
        let (n, shape) = (lens.len() * time, [lens.len(), time]);
        let (mask, logps) = (mask(&lens, time), m(&x[..n], shape).require_grad());
        let advantages = m(&x[n..2 * n], shape).mask_fill(mask.clone().bool_not(), 0.0);
        let out = ppo::policy_loss(&logps, &logps, &advantages, &mask, 0.2)?;
        let minus = host(advantages.neg());
        close(&host(out.loss.clone()), &minus);
        prop_assert!(host(out.ratio).iter().all(|r| *r == 1.0));
        prop_assert!(host(out.approx_kl).iter().chain(&host(out.clipped)).all(|x| *x == 0.0));
        let grads = out.loss.sum().backward();
        close(&host(logps.grad(&grads).expect("a gradient")), &minus);
        for estimator in [KlEstimator::K1, KlEstimator::K2, KlEstimator::K3] {
            let kl = kl_per_token(&logps, &logps, estimator)?;
            prop_assert!(host(kl).iter().all(|x| *x == 0.0));
        }
    }

    #[test]
    fn padding_does_not_matter((lens, time, pad, x) in tokens()) {
        let (batch, n) = (lens.len(), lens.len() * time);
        let wide = time + pad;
        let inputs: Vec<_> = x.chunks(n).map(|x| m(x, [batch, time])).collect();
        // The same tokens with NaN wherever none counts, in more columns.
        let padded: Vec<_> = x.chunks(n).map(|x| {
            let at = |i: usize| if i % wide < lens[i / wide] { x[i / wide * time + i % wide] } else { f32::NAN };
            m(&(0..batch * wide).map(at).collect::<Vec<_>>(), [batch, wide])
        }).collect();
        let a = masked(&inputs, &mask(&lens, time))?;
        let b = masked(&padded, &mask(&lens, wide))?;
        for (which, (a, b)) in a.into_iter().zip(b).enumerate() {
            let columns = b.dims()[1];
            let (a, mut b) = (host(a), host(b));
            if columns == wide {
                prop_assert!(b.chunks(wide).all(|row| row[time..].iter().all(|x| *x == 0.0)), "result {which}");
                b = b.chunks(wide).flat_map(|row| row[..time].to_vec()).collect();
            }
            close(&b, &a);
        }
    }
}

#[test]
fn errors_name_the_argument() {
    let (p, r) = margins(&[1.0, 2.0]);
    let (short, _) = margins(&[1.0]);
    let (nan, _) = margins(&[1.0, f32::NAN]);
    let (x, y) = (m(&[1.0; 6], [2, 3]), m(&[1.0; 4], [2, 2]));
    let bad = m(&[1.0, f32::INFINITY, 1.0, 1.0, 1.0, 1.0], [2, 3]);
    let (all, none) = (mask(&[3, 2], 3), mask(&[3, 0], 3));
    let (one, two) = (v(&[1.0]), v(&[1.0, 2.0]));
    let policy = |a, b, c, mask, eps| ppo::policy_loss(a, b, c, mask, eps).err();
    let token = |d| {
        Normalisation::Token { denominator: d }
            .sequences(two.clone())
            .err()
    };
    let table: Vec<(Option<AlgoError>, &str)> = vec![
        (dpo::sigmoid_loss(&p, &r, 0.0, 0.0).err(), "`beta` is 0"),
        (
            dpo::sigmoid_loss(&p, &r, f64::NAN, 0.0).err(),
            "`beta` is NaN",
        ),
        (dpo::hinge_loss(&p, &r, -1.0).err(), "`beta` is -1"),
        (dpo::implicit_rewards(&p, &r, 0.0).err(), "`beta` is 0"),
        (
            dpo::sigmoid_loss(&p, &r, 0.1, 0.6).err(),
            "`label_smoothing` is 0.6",
        ),
        (
            dpo::robust_loss(&p, &r, 0.1, 0.5).err(),
            "`label_smoothing` is 0.5",
        ),
        (
            dpo::margin(&p, &short).err(),
            "`reference.chosen` has shape [1]; expected [2]",
        ),
        (
            dpo::margin(&nan, &r).err(),
            "`policy.chosen` is not finite at index 1",
        ),
        (
            dpo::margin(&p, &nan).err(),
            "`reference.chosen` is not finite at index 1",
        ),
        (ipo::summed_loss(&p, &r, 0.0).err(), "`tau` is 0"),
        (
            ipo::token_averaged_loss(&p, &r, &two, &v(&[1.0, 0.0]), 0.1).err(),
            "`rejected_tokens` is 0",
        ),
        (
            slic::slic_hf_loss(&p, &one, 1.0, 0.0).err(),
            "`target` has shape [1]",
        ),
        (slic::slic_hf_loss(&p, &two, 0.0, 0.0).err(), "`delta` is 0"),
        (
            bradley_terry_loss(&two, &one, None, 0.0, 0.0).err(),
            "`rejected` has shape [1]",
        ),
        (
            bradley_terry_loss(&two, &two, Some(&one), 0.0, 0.0).err(),
            "`margin` has shape [1]",
        ),
        (
            bradley_terry_loss(&two, &two, None, -0.1, 0.0).err(),
            "`centering` is -0.1",
        ),
        (
            kl_per_token(&x, &y, KlEstimator::K1).err(),
            "`reference` has shape [2, 2]",
        ),
        (
            kl_per_token(&bad, &x, KlEstimator::K1).err(),
            "`policy` is not finite at index 1",
        ),
        (policy(&x, &x, &x, &none, 0.2), "row 1 of `mask` is empty"),
        (
            policy(&x, &x, &y, &all, 0.2),
            "`advantages` has shape [2, 2]",
        ),
        (
            policy(&x, &bad, &x, &all, 0.2),
            "`old_logps` is not finite at index 1",
        ),
        (policy(&x, &x, &x, &all, 0.0), "`clip_eps` is 0"),
        (
            policy(&y, &y, &y, &all, 0.2),
            "`mask` has shape [2, 3]; expected [2, 2]",
        ),
        (
            ppo::value_loss(&x, &x, &bad, &all, 0.2).err(),
            "`returns` is not finite",
        ),
        (
            ppo::token_rewards(&one, &x, &all, 0.1).err(),
            "`scores` has shape [1]",
        ),
        (
            ppo::token_rewards(&two, &x, &all, -0.1).err(),
            "`kl_coef` is -0.1",
        ),
        (gae::gae(&x, &y, &all, 1.0, 1.0).err(), "`values` has shape"),
        (gae::gae(&x, &x, &all, 1.1, 1.0).err(), "`gamma` is 1.1"),
        (
            gae::gae(&x, &x, &none, 1.0, 1.0).err(),
            "row 1 of `mask` is empty",
        ),
        (
            whiten::whiten(&bad, &all).err(),
            "`x` is not finite at index 1",
        ),
        (
            sft::nll_loss(&bad, &all).err(),
            "`token_logps` is not finite",
        ),
        (
            sft::weighted_nll_loss(&x, &y, &all).err(),
            "`weights` has shape",
        ),
        (token(0.0), "`denominator` is 0"),
    ];
    for (error, expected) in table {
        let found = error.map(|e| e.to_string()).unwrap_or_default();
        assert!(
            found.starts_with(expected),
            "{found:?}; expected {expected:?}"
        );
    }
}
