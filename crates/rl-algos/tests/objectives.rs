//! Identities of the relatives of DPO, of group advantages, and their errors.

use burn::tensor::{Device, Tensor, TensorData};
use proptest::{collection::vec, prelude::*};
use togi_rl_algos::{
    AlgoError, PairLogps, aot, apo, bco, cpo, discopop, dpo, exo,
    f_divergence::{Divergence, f_dpo_loss},
    group::{GroupScale, against_baseline, group_relative, leave_one_out},
    kto::{KtoWeights, kto_loss, reference_point},
    nca, orpo, simpo, sppo,
};

fn v(values: &[f32]) -> Tensor<1> {
    Tensor::from_data(
        TensorData::new(values.to_vec(), [values.len()]),
        &Device::flex(),
    )
}

fn host(x: Tensor<1>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

fn pairs(chosen: &[f32], rejected: &[f32]) -> PairLogps {
    PairLogps {
        chosen: v(chosen),
        rejected: v(rejected),
    }
}

fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (x, y) in found.iter().zip(expected) {
        assert!(
            (x - y).abs() <= 2e-4 * (1.0 + y.abs()),
            "{found:?}, expected {expected:?}"
        );
    }
}

type Loss = fn(&PairLogps, &PairLogps, f64) -> Result<Tensor<1>, AlgoError>;

/// The losses that compare a policy with a reference pair by pair.
const PAIRWISE: [(&str, Loss); 11] = [
    ("sigmoid", |p, r, b| dpo::sigmoid_loss(p, r, b, 0.1)),
    ("hinge", dpo::hinge_loss),
    ("exo", |p, r, b| exo::exo_pair_loss(p, r, b, 0.1)),
    ("nca", nca::nca_pair_loss),
    ("bco", |p, r, b| bco::bco_pair_loss(p, r, b, 0.3)),
    ("sppo", sppo::sppo_hard_loss),
    ("apo_zero", apo::apo_zero_loss),
    ("apo_down", apo::apo_down_loss),
    ("discopop", |p, r, b| discopop::discopop_loss(p, r, b, 0.05)),
    ("jensen_shannon", |p, r, b| {
        f_dpo_loss(p, r, b, 0.0, Divergence::JensenShannon)
    }),
    ("reverse_kl", |p, r, b| {
        f_dpo_loss(p, r, b, 0.1, Divergence::ReverseKl)
    }),
];

const SORTED: [(&str, Loss); 2] = [
    ("aot", |p, r, b| aot::aot_loss(p, r, b, 0.1)),
    ("aot_unpaired", |p, r, b| {
        aot::aot_unpaired_loss(p, r, b, 0.1)
    }),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Only log-ratios count, and a pair's loss does not depend on where it stands.
    #[test]
    fn reference_corrected(x in vec(-6f32..0.0, 12), shift in -5f32..5.0, beta in 0.05f64..1.0) {
        let (policy, reference) = (pairs(&x[..3], &x[3..6]), pairs(&x[6..9], &x[9..]));
        let moved = |p: &PairLogps| PairLogps {
            chosen: p.chosen.clone() + shift,
            rejected: p.rejected.clone() + shift,
        };
        let turned = |p: &PairLogps| PairLogps { chosen: p.chosen.clone().flip([0]), rejected: p.rejected.clone().flip([0]) };
        for (name, loss) in PAIRWISE.into_iter().chain(SORTED) {
            let plain = host(loss(&policy, &reference, beta)?);
            close(&host(loss(&moved(&policy), &moved(&reference), beta)?), &plain);
            let mut other = host(loss(&turned(&policy), &turned(&reference), beta)?);
            let mut plain = plain;
            if SORTED.iter().any(|(sorted, _)| *sorted == name) {
                plain.sort_by(f32::total_cmp);
                other.sort_by(f32::total_cmp);
            } else {
                other.reverse();
            }
            close(&other, &plain);
        }
    }

    /// DPO under the reverse KL is DPO; without a shift BCO is two independent classifications.
    #[test]
    fn special_cases(x in vec(-6f32..0.0, 12), beta in 0.05f64..1.0) {
        let (policy, reference) = (pairs(&x[..3], &x[3..6]), pairs(&x[6..9], &x[9..]));
        let f = f_dpo_loss(&policy, &reference, beta, 0.1, Divergence::ReverseKl)?;
        close(&host(f), &host(dpo::sigmoid_loss(&policy, &reference, beta, 0.1)?));
        // Alpha near 1 is near the reverse KL.
        let near = f_dpo_loss(&policy, &reference, beta, 0.1, Divergence::Alpha { alpha: 1.00001 })?;
        close(&host(near), &host(dpo::sigmoid_loss(&policy, &reference, beta, 0.1)?));
        let ones = v(&[1.0; 3]);
        let none = pairs(&[0.0; 3], &[0.0; 3]);
        // SimPO without target margin on single tokens is DPO without reference; so is CPO without
        // its likelihood term.
        let plain = host(dpo::sigmoid_loss(&policy, &none, beta, 0.0)?);
        close(&host(simpo::simpo_loss(&policy, &ones, &ones, beta, 0.0)?), &plain);
        close(&host(cpo::cpo_loss(&policy, &ones, beta, 0.0, 0.0)?), &plain);
        // Of one pair, AOT is DPO.
        let (one, other) = (pairs(&x[..1], &x[3..4]), pairs(&x[6..7], &x[9..10]));
        let dpo = host(dpo::sigmoid_loss(&one, &other, beta, 0.0)?);
        close(&host(aot::aot_loss(&one, &other, beta, 0.0)?), &dpo);
        close(&host(aot::aot_unpaired_loss(&one, &other, beta, 0.0)?), &dpo);
    }

    /// Group advantages have mean 0 and do not feel a constant; scaled ones do not feel a factor.
    #[test]
    fn groups(scores in vec(-5f64..5.0, 12), size in 2usize..5, c in -9f64..9.0) {
        let scores = &scores[..12 / size * size];
        let moved: Vec<f64> = scores.iter().map(|r| r + c).collect();
        let near = |a: &[f64], b: &[f64], tolerance: f64| a.iter().zip(b).all(|(x, y)| (x - y).abs() <= tolerance);
        for scale in [GroupScale::Group, GroupScale::Batch, GroupScale::None] {
            let out = group_relative(scores, size, scale)?;
            prop_assert!(near(&out, &group_relative(&moved, size, scale)?, 1e-6));
            prop_assert!(out.chunks(size).all(|g| g.iter().sum::<f64>().abs() < 1e-9));
        }
        let rloo = leave_one_out(scores, size)?;
        prop_assert!(near(&rloo, &leave_one_out(&moved, size)?, 1e-9));
        // RLOO is the centred score times n / (n - 1).
        let centred = group_relative(scores, size, GroupScale::None)?;
        let factor = size as f64 / (size as f64 - 1.0);
        prop_assert!(near(&rloo, &centred.iter().map(|x| x * factor).collect::<Vec<_>>(), 1e-9));
    }
}

#[test]
fn known_numbers() -> Result<(), AlgoError> {
    assert_eq!(
        leave_one_out(&[6.0, 3.0, 9.0, 12.0], 2)?,
        [3.0, -3.0, -3.0, 3.0]
    );
    assert_eq!(
        group_relative(&[2.0, 2.0], 2, GroupScale::Group)?,
        [0.0, 0.0]
    );
    assert_eq!(against_baseline(&[1.0, 5.0], &[3.0, 1.0])?, [-2.0, 4.0]);
    assert_eq!(reference_point(&[-3.0, 1.0])?, 0.0);
    assert_eq!(reference_point(&[3.0, 1.0])?, 2.0);
    // At the reference point every answer's loss is half its weight.
    let weights = KtoWeights {
        desirable: 1.0,
        undesirable: 3.0,
    };
    let at = kto_loss(
        &v(&[2.0, 2.0]),
        &v(&[0.0, 0.0]),
        &[true, false],
        2.0,
        0.5,
        weights,
    )?;
    close(&host(at), &[0.5, 1.5]);
    Ok(())
}

#[test]
fn errors_name_the_argument() {
    let (p, r) = (
        pairs(&[-1.0, -2.0], &[-3.0, -1.0]),
        pairs(&[-1.0; 2], &[-1.0; 2]),
    );
    let two = v(&[1.0, 2.0]);
    let zero = pairs(&[0.0, -1.0], &[-1.0, -1.0]);
    let weights = KtoWeights {
        desirable: 1.0,
        undesirable: -1.0,
    };
    let table: Vec<(Option<AlgoError>, &str)> = vec![
        (
            exo::exo_pair_loss(&p, &r, 0.1, 0.0).err(),
            "`label_smoothing` is 0",
        ),
        (nca::nca_pair_loss(&p, &r, 0.0).err(), "`beta` is 0"),
        (
            bco::bco_pair_loss(&p, &r, 0.1, f64::NAN).err(),
            "`delta` is not finite",
        ),
        (
            discopop::discopop_loss(&p, &r, 0.1, 0.0).err(),
            "`tau` is 0",
        ),
        (
            aot::aot_loss(&p, &r, 0.1, 0.7).err(),
            "`label_smoothing` is 0.7",
        ),
        (
            simpo::simpo_loss(&p, &two, &v(&[1.0]), 2.0, 0.5).err(),
            "`rejected_tokens` has shape",
        ),
        (
            simpo::simpo_loss(&p, &two, &two, 2.0, -0.5).err(),
            "`gamma` is -0.5",
        ),
        (
            cpo::cpo_loss(&p, &v(&[0.0, 1.0]), 0.1, 1.0, 0.0).err(),
            "`chosen_tokens` is 0",
        ),
        (
            orpo::orpo_loss(&zero, &two, &two, 0.1).err(),
            "`policy.chosen` is 0",
        ),
        (
            f_dpo_loss(&p, &r, 0.1, 0.0, Divergence::Alpha { alpha: 1.0 }).err(),
            "`alpha` is 1",
        ),
        (
            kto_loss(&two, &two, &[true, false], 0.0, 0.1, weights).err(),
            "`weights.undesirable` is -1",
        ),
        (
            kto_loss(&two, &two, &[true], 0.0, 0.1, weights).err(),
            "`weights.undesirable` is -1",
        ),
        (
            group_relative(&[1.0], 1, GroupScale::None).err(),
            "group 0 of `scores` has 1 member(s)",
        ),
        (
            leave_one_out(&[1.0, 2.0, 3.0], 2).err(),
            "`scores` has shape [3]; expected [4]",
        ),
        (
            leave_one_out(&[1.0, f64::NAN], 2).err(),
            "`scores` is not finite at index 1",
        ),
        (
            against_baseline(&[1.0], &[1.0, 2.0]).err(),
            "`baseline` has shape [2]",
        ),
        (reference_point(&[]).err(), "`mismatched` is empty"),
    ];
    for (error, expected) in table {
        let found = error.map(|e| e.to_string()).unwrap_or_default();
        assert!(
            found.starts_with(expected),
            "{found:?}; expected {expected:?}"
        );
    }
}
