//! Products in bfloat16 against float32 products of numbers that were rounded first.

mod common;

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use togi_kernels::{
    PackedLinear, Precision, WeightFormat, embedding, linear_in, selected_log_probs,
};

use common::{close, host, numbers};

const BF16: Precision = Precision::Bf16;

fn matrix(seed: u64, shape: [usize; 2]) -> Tensor<2> {
    let data = TensorData::new(numbers(seed, shape[0] * shape[1]), shape);
    Tensor::from_data(data, &Device::flex())
}

fn leaf(x: &Tensor<2>) -> Tensor<2> {
    Tensor::from_inner(x.clone()).require_grad()
}

/// Rows, inputs and outputs: none at all, one, ragged, several blocks.
const SHAPES: [[usize; 3]; 7] = [
    [1, 1, 1],
    [1, 17, 50],
    [5, 48, 130],
    [33, 17, 5],
    [70, 64, 96],
    [9, 2100, 33],
    [300, 40, 64],
];

#[test]
fn a_linear_layer_rounds_both_factors_forward_and_backward() {
    for [tokens, inner, outer] in SHAPES {
        let name = format!("{tokens}x{inner}x{outer}");
        let (x, w) = (matrix(1, [tokens, inner]), matrix(2, [outer, inner]));
        // The gradient that arrives is rounded too, so it is given as a bfloat16 number.
        let weights = BF16.round(matrix(3, [tokens, outer]));
        let run = |x: &Tensor<2>, w: &Tensor<2>, precision: Precision| {
            let (x, w) = (leaf(x), leaf(w));
            let out = linear_in(precision, x.clone(), w.clone());
            let total = out.clone() * Tensor::from_inner(weights.clone());
            let grads = total.sum().backward();
            let grad = |x: Tensor<2>| host(x.grad(&grads).expect("it takes part"));
            (host(out.inner()), grad(x), grad(w))
        };
        let (value, d_x, d_w) = run(&x, &w, BF16);
        let (rounded_x, rounded_w) = (BF16.round(x.clone()), BF16.round(w.clone()));
        assert_ne!(
            host(rounded_x.clone()),
            host(x),
            "{name}: rounding changes nothing"
        );
        let (expected, expected_x, expected_w) = run(&rounded_x, &rounded_w, Precision::F32);
        close(&name, &value, &expected, 2e-5);
        close(&format!("{name}: d x"), &d_x, &expected_x, 2e-5);
        close(&format!("{name}: d weight"), &d_w, &expected_w, 2e-5);
    }
}

#[test]
fn log_probabilities_of_rounded_factors_are_float32() {
    for [tokens, width, vocabulary] in [[1, 4, 3], [37, 16, 101], [2100, 8, 4200]] {
        let name = format!("{tokens}x{width}x{vocabulary}");
        let (hidden, head) = (
            matrix(1, [tokens, width]) * 3.0,
            matrix(2, [vocabulary, width]),
        );
        let targets: Arc<[u32]> = (0..tokens).map(|i| (i * 7 % vocabulary) as u32).collect();
        let run = |hidden: Tensor<2>, head: Tensor<2>, precision: Precision| {
            let (hidden, head) = (leaf(&hidden), leaf(&head));
            let out = selected_log_probs(precision, hidden.clone(), head.clone(), &targets, 0.7);
            let grads = (out.logps.clone().sum() + out.entropy.clone().sum()).backward();
            let grad = |x: Tensor<2>| host(x.grad(&grads).expect("it takes part"));
            (host(out.logps), host(out.entropy), grad(hidden), grad(head))
        };
        let ours = run(hidden.clone(), head.clone(), BF16);
        let expected = run(BF16.round(hidden), BF16.round(head), Precision::F32);
        close(&name, &ours.0, &expected.0, 2e-5);
        close(&format!("{name}: entropy"), &ours.1, &expected.1, 5e-5);
        // The gradient of the logits is rounded on its way back: half of 2^-7 at most a term.
        let band = |x: &[f32]| 0.004 * x.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
        close(
            &format!("{name}: d hidden"),
            &ours.2,
            &expected.2,
            band(&expected.2),
        );
        close(
            &format!("{name}: d head"),
            &ours.3,
            &expected.3,
            band(&expected.3),
        );
    }
}

/// A sampler that computes as the trainer does sees the trainer's numbers.
#[test]
fn the_form_for_sampling_gives_the_same_bits() {
    for [rows, inner, _] in SHAPES {
        let x = matrix(1, [rows, inner]);
        let outers = [5, 16, 33, 48, 100, 208];
        let all: Vec<Tensor<2>> = (2..)
            .zip(outers)
            .map(|(seed, outer)| matrix(seed, [outer, inner]))
            .collect();
        let packed = PackedLinear::new(&all, WeightFormat::Bf16).expect("flex has the form");
        let outs = packed.apply(x.clone());
        assert_eq!(outs.len(), all.len());
        for (out, matrix) in outs.iter().zip(&all) {
            let expected = linear_in(BF16, x.clone(), matrix.clone());
            assert_eq!(host(out.clone()), host(expected), "{rows}x{inner}");
        }
        for row in 0..rows {
            let alone = packed.apply(x.clone().narrow(0, row, 1));
            for (alone, out) in alone.into_iter().zip(&outs) {
                let same = host(out.clone().narrow(0, row, 1));
                assert_eq!(host(alone), same, "row {row} of {rows}");
            }
        }
        let ids: Arc<[u32]> = [4, 0, 3].into();
        let expected = BF16.round(embedding(all[0].clone(), &ids));
        assert_eq!(host(packed.rows(&ids)), host(expected));
    }
}
