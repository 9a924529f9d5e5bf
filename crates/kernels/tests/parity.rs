//! Every fused operation against its composed form: values and gradients, on awkward shapes.

mod common;

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use togi_kernels::{
    self as fused, Activation, AdamWStep, AttentionShape, KvCache, Precision, RotaryTable, Run,
    WeightFormat, composed,
};

use common::{close, host, numbers, skipped};

fn leaf<const D: usize>(seed: u64, shape: [usize; D]) -> Tensor<D> {
    let data = TensorData::new(numbers(seed, shape.iter().product()), shape);
    Tensor::from_data(data, &Device::flex().autodiff()).require_grad()
}

/// The first GPU of the build, a software one in CI: on WGPU or CUDA, whichever is there; where both
/// are, `TOGI_TEST_DEVICE` chooses.
#[cfg(feature = "gpu")]
fn gpu() -> Option<Device> {
    let only = if cfg!(feature = "wgpu") {
        "wgpu"
    } else {
        "cuda"
    };
    let kind = std::env::var("TOGI_TEST_DEVICE").unwrap_or_else(|_| only.to_owned());
    let wanted = match kind.as_str() {
        #[cfg(feature = "cuda")]
        "cuda" => burn::tensor::DeviceType::Cuda,
        #[cfg(feature = "wgpu")]
        "wgpu" => burn::tensor::DeviceType::Wgpu,
        other => panic!("TOGI_TEST_DEVICE={other} is not in this build"),
    };
    let first = Device::enumerate(wanted).into_vec().into_iter().next();
    if first.is_none() {
        let variable = format!("TOGI_REQUIRE_{}", kind.to_uppercase());
        assert!(
            std::env::var_os(&variable).is_none(),
            "{variable} is set, and there is no device"
        );
        skipped(&format!("on {kind}: no device"));
    }
    first.inspect(leave_numbers_behind)
}

/// Memory of a GPU that was used before, as it is in a long run: what is read beyond a tensor's end is not a number.
#[cfg(feature = "gpu")]
fn leave_numbers_behind(device: &Device) {
    let sizes = (6..18).flat_map(|exponent| [1 << exponent; 16]);
    let used: Vec<Tensor<1>> = sizes
        .map(|size| Tensor::full([size], f32::NAN, device))
        .collect();
    drop(used);
}

/// The CPU, and the GPU of the build if it is there.
fn devices() -> Vec<(&'static str, Device)> {
    let cpu = ("on the CPU", Device::flex());
    #[cfg(feature = "gpu")]
    if let Some(gpu) = gpu() {
        return vec![cpu, ("on the GPU", gpu)];
    }
    vec![cpu]
}

/// A form of an operation.
type Form<'a, const N: usize> = dyn Fn(&[Tensor<2>; N]) -> Tensor<2> + 'a;

/// Value and gradients of `Σ out ∘ weights`.
fn run<const N: usize>(
    inputs: &[Tensor<2>; N],
    device: &Device,
    form: &Form<'_, N>,
) -> (Vec<f32>, Vec<Vec<f32>>) {
    let out = form(inputs);
    let dims = out.dims();
    let weights = TensorData::new(numbers(99, dims[0] * dims[1]), dims);
    let weights = Tensor::<2>::from_data(weights, &device.clone().autodiff());
    let grads = (out.clone() * weights).sum().backward();
    let gradients = inputs
        .iter()
        .map(|x| host(x.grad(&grads).expect("every input takes part")))
        .collect();
    (host(out.inner()), gradients)
}

/// Two forms of one operation on the CPU; where a GPU is compiled in, the first one there too.
fn compare<const N: usize>(
    name: &str,
    inputs: [Tensor<2>; N],
    a: impl Fn(&[Tensor<2>; N]) -> Tensor<2>,
    b: impl Fn(&[Tensor<2>; N]) -> Tensor<2>,
) {
    let (value_a, grads_a) = run(&inputs, &Device::flex(), &a);
    let (value_b, grads_b) = run(&inputs, &Device::flex(), &b);
    #[cfg(feature = "gpu")]
    if let Some(device) = gpu() {
        let there = inputs.clone().map(|x| {
            let data = x.inner().into_data();
            Tensor::<2>::from_data(data, &device.clone().autodiff()).require_grad()
        });
        let (value, grads) = run(&there, &device, &a);
        let name = format!("{name} on the GPU");
        close(&name, &value, &value_b, 1e-4);
        for (i, (x, y)) in grads.iter().zip(&grads_b).enumerate() {
            close(&format!("{name}: gradient {i}"), x, y, 2e-4);
        }
    }
    close(name, &value_a, &value_b, 2e-5);
    for (i, (x, y)) in grads_a.iter().zip(&grads_b).enumerate() {
        close(&format!("{name}: gradient {i}"), x, y, 5e-5);
    }
}

#[test]
fn linear_matches() {
    for [t, i, o] in [
        [1, 1, 1],
        [1, 16, 7],
        [5, 48, 130],
        [33, 17, 5],
        [70, 64, 96],
        [32, 32, 64],
    ] {
        compare(
            &format!("linear {t}x{i}x{o}"),
            [leaf(1, [t, i]), leaf(2, [o, i])],
            |[x, w]| fused::linear(x.clone(), w.clone()),
            |[x, w]| composed::linear(Precision::F32, x.clone(), w.clone()),
        );
    }
}

/// The precisions below float32 that a device computes in.
fn lower(device: &Device) -> impl Iterator<Item = Precision> {
    let all = [Precision::Bf16, Precision::F16].into_iter();
    let of_device: Vec<_> = all.filter(|precision| precision.is_of(device)).collect();
    if of_device.is_empty() {
        let required = ["TOGI_REQUIRE_WGPU", "TOGI_REQUIRE_CUDA"];
        assert!(
            required.iter().all(|name| std::env::var_os(name).is_none()),
            "the device computes in no precision below float32"
        );
        skipped("in a lower precision: the device computes in none");
    }
    of_device.into_iter()
}

#[cfg(feature = "gpu")]
fn matrix(seed: u64, shape: [usize; 2]) -> Tensor<2> {
    let data = TensorData::new(numbers(seed, shape[0] * shape[1]), shape);
    Tensor::from_data(data, &Device::flex())
}

#[cfg(feature = "gpu")]
fn leaf_on(device: &Device, x: &Tensor<2>) -> Tensor<2> {
    Tensor::<2>::from_data(x.to_data(), &device.clone().autodiff()).require_grad()
}

/// Products of rounded factors are those of numbers that were rounded first: sums are not.
#[cfg(feature = "gpu")]
#[test]
fn products_of_rounded_factors_match() {
    let Some(device) = gpu() else { return };
    let shapes = [
        [1, 1, 1],
        [1, 17, 50],
        [5, 48, 130],
        [70, 64, 96],
        [9, 2100, 33],
    ];
    for (precision, [tokens, inner, outer]) in
        lower(&device).flat_map(|precision| shapes.map(|shape| (precision, shape)))
    {
        let (x, w) = (matrix(1, [tokens, inner]), matrix(2, [outer, inner]));
        // The gradient that arrives is rounded too, so it is given as such a number.
        let weights = precision.round(matrix(3, [tokens, outer]));
        let run = |device: &Device, precision: Precision, [x, w]: [&Tensor<2>; 2]| {
            let (x, w) = (leaf_on(device, x), leaf_on(device, w));
            let out = fused::linear_in(precision, x.clone(), w.clone());
            let grads = (out.clone() * leaf_on(device, &weights)).sum().backward();
            let grad = |x: Tensor<2>| host(x.grad(&grads).expect("it takes part"));
            [host(out.inner()), grad(x), grad(w)]
        };
        let ours = run(&device, precision, [&x, &w]);
        let (x, w) = (precision.round(x), precision.round(w));
        let expected = run(&Device::flex(), Precision::F32, [&x, &w]);
        for (i, (ours, expected)) in ours.iter().zip(&expected).enumerate() {
            let name = format!("linear in {precision} {tokens}x{inner}x{outer}: {i}");
            close(&name, ours, expected, 1e-4);
        }
    }
}

/// So are log-probabilities. On the way back the logits' gradient is rounded: each term is off by half of the
/// precision's distance of 1 to the next number at most.
#[cfg(feature = "gpu")]
#[test]
fn log_probs_of_rounded_factors_match() {
    let Some(device) = gpu() else { return };
    let shapes = [[1, 4, 3], [37, 16, 101], [400, 8, 4200]];
    for (precision, [tokens, width, vocabulary]) in
        lower(&device).flat_map(|precision| shapes.map(|shape| (precision, shape)))
    {
        let name = format!("log-probabilities in {precision} {tokens}x{width}x{vocabulary}");
        let (hidden, head) = (
            matrix(1, [tokens, width]) * 3.0,
            matrix(2, [vocabulary, width]),
        );
        let targets: Arc<[u32]> = (0..tokens).map(|i| (i * 7 % vocabulary) as u32).collect();
        let run = |device: &Device, precision: Precision, [hidden, head]: [&Tensor<2>; 2]| {
            let (hidden, head) = (leaf_on(device, hidden), leaf_on(device, head));
            let (h, w) = (hidden.clone(), head.clone());
            let out = fused::selected_log_probs(precision, h, w, &targets, 0.7);
            let grads = (out.logps.clone().sum() + out.entropy.clone().sum()).backward();
            let grad = |x: Tensor<2>| host(x.grad(&grads).expect("it takes part"));
            (
                [host(out.logps), host(out.entropy)],
                [grad(hidden), grad(head)],
            )
        };
        let (ours, our_grads) = run(&device, precision, [&hidden, &head]);
        let (hidden, head) = (precision.round(hidden), precision.round(head));
        let (expected, grads) = run(&Device::flex(), Precision::F32, [&hidden, &head]);
        for (ours, expected) in ours.iter().zip(&expected) {
            close(&name, ours, expected, 1e-4);
        }
        for (ours, expected) in our_grads.iter().zip(&grads) {
            let largest = expected.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
            let band = precision.epsilon() as f32 / 2.0 * largest;
            for (x, y) in ours.iter().zip(expected) {
                let off = (x - y).abs();
                assert!(
                    off <= band,
                    "{name}: a gradient is off by {off}, allowed is {band}"
                );
            }
        }
    }
}

/// On a GPU few rows have a kernel of their own.
#[test]
fn products_of_sampling_match() {
    for [t, i, o] in [
        [0, 8, 5],
        [2, 0, 3],
        [1, 1, 1],
        [3, 100, 50],
        [5, 48, 130],
        [17, 70, 33],
        [64, 40, 18],
        [65, 33, 20],
    ] {
        let (x, w) = (leaf(1, [t, i]).inner(), leaf(2, [o, i]).inner());
        let expected = host(composed::linear(Precision::F32, x.clone(), w.clone()));
        for (on, device) in devices() {
            let [x, w] = [&x, &w].map(|t| Tensor::<2>::from_data(t.to_data(), &device));
            let found = fused::linear_for_sampling(Precision::F32, x, w);
            assert_eq!(found.dims(), [t, o], "{on}");
            close(&format!("{t}x{i}x{o} {on}"), &host(found), &expected, 2e-5);
        }
        // In a lower precision, what numbers give that were rounded first.
        for (on, device) in devices() {
            for precision in lower(&device) {
                let [rx, rw] = [&x, &w].map(|t| precision.round(t.clone()));
                let expected = host(composed::linear(Precision::F32, rx, rw));
                let [x, w] = [&x, &w].map(|t| Tensor::<2>::from_data(t.to_data(), &device));
                let found = host(fused::linear_for_sampling(precision, x, w));
                close(
                    &format!("{t}x{i}x{o} in {precision} {on}"),
                    &found,
                    &expected,
                    2e-5,
                );
            }
        }
    }
}

/// Relative Frobenius distance.
#[cfg(feature = "gpu")]
fn distance(found: &[f32], expected: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x).powi(2);
    let apart: f64 = found.iter().zip(expected).map(|(x, y)| square(x - y)).sum();
    (apart / expected.iter().map(|y| square(*y)).sum::<f64>()).sqrt()
}

/// Products of float32 factors are float32's, and so are their gradients, where the device's fast units round
/// them: TF32 would be off by 3e-4 here. The form for such devices is held to that on every GPU.
#[test]
#[cfg(feature = "gpu")]
fn products_of_float32_factors_are_float32s() {
    let Some(device) = gpu() else { return };
    let as_there: &Form<'_, 2> = &|[a, b]| fused::matmul(a.clone(), b.clone());
    let in_units: &Form<'_, 2> = &|[a, b]| fused::matmul_in_units(a.clone(), b.clone());
    // The last two are one problem to what chooses kernels; not every kernel takes the inner size of the second's
    // weight gradient.
    for ([m, k, n], forms) in [
        ([1, 1, 1], &[as_there, in_units][..]),
        ([65, 300, 129], &[as_there, in_units]),
        ([480, 16, 24], &[in_units]),
        ([497, 16, 24], &[in_units]),
    ] {
        let inputs = [leaf(1, [m, k]), leaf(2, [k, n])];
        let (value, grads) = run(&inputs, &Device::flex(), as_there);
        let there = inputs.map(|x| {
            let data = x.inner().into_data();
            Tensor::<2>::from_data(data, &device.clone().autodiff()).require_grad()
        });
        for form in forms {
            let (found, found_grads) = run(&there, &device, form);
            let off = distance(&found, &value);
            assert!(off < 4e-6, "{m}x{k}x{n}: {off:.1e}");
            for (found, expected) in found_grads.iter().zip(&grads) {
                let off = distance(found, expected);
                assert!(off < 4e-6, "{m}x{k}x{n}, a gradient: {off:.1e}");
            }
        }
    }
}

#[test]
fn a_row_of_a_skinny_product_does_not_depend_on_the_other_rows() {
    let (w, x) = (leaf(3, [200, 64]).inner(), leaf(4, [19, 64]).inner());
    for (on, device) in devices() {
        let [w, x] = [&w, &x].map(|t| Tensor::<2>::from_data(t.to_data(), &device));
        let product = |x: Tensor<2>| host(fused::linear_for_sampling(Precision::F32, x, w.clone()));
        let all = product(x.clone());
        for row in 0..19 {
            let alone = product(x.clone().narrow(0, row, 1));
            assert_eq!(alone, all[row * 200..(row + 1) * 200], "row {row} {on}");
        }
    }
}

/// The form for sampling, with several matrices of one input, beside the composed form.
#[test]
fn packed_products_match() {
    for [rows, inner] in [
        [1, 1],
        [1, 48],
        [3, 33],
        [7, 64],
        [8, 64],
        [21, 40],
        [64, 128],
    ] {
        let x = leaf(1, [rows, inner]).inner();
        let outers = [5, 16, 33, 48, 100, 208];
        let all: Vec<Tensor<2>> = (0..)
            .zip(outers)
            .map(|(i, o)| leaf(2 + i, [o, inner]).inner())
            .collect();
        let packed = fused::PackedLinear::new(&all, WeightFormat::F32).expect("flex has the form");
        let outs = packed.apply(x.clone());
        assert_eq!(outs.len(), all.len());
        for (out, matrix) in outs.iter().zip(&all) {
            let expected = host(composed::linear(Precision::F32, x.clone(), matrix.clone()));
            let name = format!("packed {rows}x{inner}x{}", matrix.dims()[0]);
            close(&name, &host(out.clone()), &expected, 2e-5);
        }
        for row in 0..rows {
            let alone = packed.apply(x.clone().narrow(0, row, 1));
            for (alone, out) in alone.into_iter().zip(&outs) {
                let same = host(out.clone().narrow(0, row, 1));
                assert_eq!(host(alone), same, "row {row} of {rows}");
            }
        }
        let ids = [4, 0, 3];
        let rows = host(packed.rows(&ids));
        let expected = host(fused::embedding(all[0].clone(), &ids.into()));
        assert_eq!(rows, expected);
    }
}

/// Weights in eight bits: products are those of the rounded matrix, in any batch, and no weight is off by more
/// than half a step of its output.
#[test]
fn weights_in_eight_bits_are_rounded_and_nothing_else() {
    for [rows, inner] in [[1, 1], [1, 48], [7, 33], [21, 64]] {
        let x = leaf(1, [rows, inner]).inner();
        let all: Vec<Tensor<2>> = (0..)
            .zip([5, 16, 48, 100])
            .map(|(i, outer)| leaf(2 + i, [outer, inner]).inner())
            .collect();
        let packed = fused::PackedLinear::new(&all, WeightFormat::Int8).expect("flex has the form");
        let outs = packed.apply(x.clone());
        for (out, matrix) in outs.iter().zip(&all) {
            let [outer, _] = matrix.dims();
            let mut rounded = host(matrix.clone());
            for row in rounded.chunks_mut(inner) {
                let step = row.iter().fold(0.0, |most: f32, w| most.max(w.abs())) / 127.0;
                for w in row {
                    *w = (*w / step).round_ties_even() * step;
                }
            }
            let data = TensorData::new(rounded, [outer, inner]);
            let rounded = Tensor::<2>::from_data(data, &Device::flex());
            let expected = composed::linear(Precision::F32, x.clone(), rounded);
            close("int8", &host(out.clone()), &host(expected), 2e-5);
        }
        for row in 0..rows {
            let alone = packed.apply(x.clone().narrow(0, row, 1));
            for (alone, out) in alone.into_iter().zip(&outs) {
                let same = host(out.clone().narrow(0, row, 1));
                assert_eq!(host(alone), same, "row {row} of {rows}");
            }
        }
        let ids: Vec<u32> = vec![4, 0, 3];
        let there = host(packed.rows(&ids));
        for (read, id) in there.chunks(inner).zip(&ids) {
            let exact = host(all[0].clone().narrow(0, *id as usize, 1));
            let step = exact.iter().fold(0.0, |most: f32, w| most.max(w.abs())) / 127.0;
            for (a, b) in read.iter().zip(&exact) {
                assert!((a - b).abs() <= 0.5001 * step, "{a} {b}");
            }
        }
    }
    // A row of zeros stays one.
    let zeros = Tensor::<2>::zeros([3, 4], &Device::flex());
    let packed = fused::PackedLinear::new(&[zeros], WeightFormat::Int8).unwrap();
    assert_eq!(host(packed.rows(&[1])), [0.0; 4]);
}

/// Matrices that are freed while they are laid out, in one part and in several.
#[test]
fn matrices_that_are_packed_part_by_part_are_the_same() {
    for format in [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int8] {
        for outer in [5, 48, 100, 500] {
            let matrix = leaf(1, [outer, 33]).inner();
            let whole = fused::PackedLinear::new(std::slice::from_ref(&matrix), format);
            let parts = fused::PackedLinear::consuming(matrix, format);
            let (whole, parts) = (whole.unwrap(), parts.unwrap());
            let x = leaf(2, [9, 33]).inner();
            let [a] = &whole.apply(x.clone())[..] else {
                panic!("one matrix, one result")
            };
            let [b] = &parts.apply(x)[..] else {
                panic!("one matrix, one result")
            };
            assert_eq!(host(a.clone()), host(b.clone()), "{outer}");
            let ids: Vec<u32> = (0..outer as u32).rev().collect();
            assert_eq!(host(whole.rows(&ids)), host(parts.rows(&ids)), "{outer}");
        }
    }
}

/// Sums of gradients that operations add to themselves, over two passes, beside the gradients of each pass:
/// of a linear layer, and of a matrix that is both embedding and head.
#[test]
fn gradients_are_added_to_their_totals() {
    let (tied, layer, vector) = (leaf(1, [50, 12]), leaf(2, [12, 12]), leaf(3, [12]));
    let pass = |number: u64| {
        let ids: Arc<[u32]> = (0..7 + number as u32).map(|i| i * 11 % 50).collect();
        let x = fused::embedding(tied.clone(), &ids);
        let x = fused::rms_norm(fused::linear(x, layer.clone()), vector.clone(), 1e-5);
        let said = fused::selected_log_probs(Precision::F32, x, tied.clone(), &ids, 1.0);
        said.logps.sum()
    };
    let (mut expected_tied, mut expected_layer) = (vec![0.0; 600], vec![0.0; 144]);
    let add = |sums: &mut [f32], grad: Option<Tensor<2>>| {
        for (sum, x) in sums.iter_mut().zip(host(grad.expect("it takes part"))) {
            *sum += x;
        }
    };
    let mut totals =
        [&tied, &layer].map(|leaf| fused::GradientTotal::zeros(leaf).expect("it is on the CPU"));
    for number in 0..2 {
        let grads = pass(number).backward();
        add(&mut expected_tied, tied.grad(&grads));
        add(&mut expected_layer, layer.grad(&grads));
        let expected = host(vector.grad(&grads).unwrap());

        let grads = fused::backward_into(pass(number), &mut totals);
        assert!(tied.grad(&grads).is_none() && layer.grad(&grads).is_none());
        assert_eq!(host(vector.grad(&grads).unwrap()), expected);
    }
    let [sum_tied, sum_layer] = totals.map(|total| host(total.into_sum()));
    close("tied", &sum_tied, &expected_tied, 1e-6);
    close("layer", &sum_layer, &expected_layer, 1e-6);
    // Without a graph, or of another shape, there is nothing to add to.
    let plain = layer.clone().inner();
    assert!(fused::GradientTotal::new(&plain, plain.clone()).is_err());
    assert!(fused::GradientTotal::new(&layer, tied.clone().inner()).is_err());
}

/// Activations that layers' backward passes make again, one for two layers, beside the composed forms.
#[test]
fn layers_of_activations_match() {
    for [t, d, o] in [[1, 1, 1], [5, 17, 3], [70, 64, 96]] {
        let vector = |w: &Tensor<2>| w.clone().reshape([d]);
        compare(
            &format!("two layers of a norm, {t}x{d}x{o}"),
            [
                leaf(1, [t, d]),
                leaf(2, [1, d]),
                leaf(3, [o, d]),
                leaf(4, [o, d]),
            ],
            |[x, n, a, b]| {
                let normed = Activation::rms_norm(x.clone(), vector(n), 1e-5);
                let layer =
                    |w: &Tensor<2>| fused::linear_in(Precision::F32, normed.clone(), w.clone());
                layer(a) * layer(b)
            },
            |[x, n, a, b]| {
                let normed = composed::rms_norm(x.clone(), vector(n), 1e-5);
                let layer =
                    |w: &Tensor<2>| composed::linear(Precision::F32, normed.clone(), w.clone());
                layer(a) * layer(b)
            },
        );
        compare(
            &format!("a layer of a gated unit, {t}x{d}x{o}"),
            [leaf(1, [t, d]), leaf(2, [t, d]), leaf(3, [o, d])],
            |[g, u, w]| {
                let gated = Activation::swiglu(g.clone() * 6.0, u.clone());
                fused::linear_in(Precision::F32, gated, w.clone())
            },
            |[g, u, w]| {
                let gated = composed::swiglu(g.clone() * 6.0, u.clone());
                composed::linear(Precision::F32, gated, w.clone())
            },
        );
    }
}

/// The numbers are those of activations that are kept, to the bit, with a weight that is not trained too.
#[test]
fn an_activation_that_is_made_again_is_the_same() {
    let (x, norm, w) = (leaf(1, [40, 24]), leaf(2, [1, 24]), leaf(3, [30, 24]));
    let vector = || norm.clone().reshape([24]);
    for w in [w.clone(), w.inner()] {
        let again = Activation::rms_norm(x.clone(), vector(), 1e-5);
        let kept = Activation::from(fused::rms_norm(x.clone(), vector(), 1e-5));
        let [again, kept] = [again, kept].map(|activation| {
            let out = fused::linear_in(Precision::F32, activation, w.clone());
            let grads = (out.clone() * out.clone()).sum().backward();
            let of = |leaf: &Tensor<2>| leaf.grad(&grads).map(host);
            (host(out.inner()), of(&x), of(&norm), of(&w))
        });
        assert_eq!(again, kept);
    }
}

#[test]
fn swiglu_matches() {
    for shape in [[1, 1], [3, 17], [300, 128]] {
        compare(
            "swiglu",
            [leaf(1, shape), leaf(2, shape)],
            |[g, u]| fused::swiglu(g.clone() * 6.0, u.clone()),
            |[g, u]| composed::swiglu(g.clone() * 6.0, u.clone()),
        );
    }
}

#[test]
fn rms_norm_matches() {
    for [t, d] in [[1, 1], [3, 17], [130, 64], [400, 100], [9001, 33]] {
        let weight = |w: &Tensor<2>| w.clone().reshape([d]);
        compare(
            "rms_norm",
            [leaf(1, [t, d]), leaf(2, [1, d])],
            |[x, w]| fused::rms_norm(x.clone(), weight(w), 1e-5),
            |[x, w]| composed::rms_norm(x.clone(), weight(w), 1e-5),
        );
    }
}

/// A kernel of its own on a GPU off autodiff.
#[test]
fn the_norm_of_a_sum_matches() {
    for [t, d] in [[1, 1], [3, 17], [70, 300]] {
        let inputs = [leaf(1, [t, d]), leaf(2, [t, d]), leaf(3, [1, d])].map(Tensor::inner);
        let [x, y, w] = inputs.clone();
        let expected = composed::rms_norm(x.clone() + y.clone(), w.reshape([d]), 1e-5);
        let expected = [x + y, expected].map(host);
        for (on, device) in devices() {
            let there = |t: &Tensor<2>| Tensor::<2>::from_data(t.to_data(), &device);
            let [x, y, w] = inputs.each_ref().map(there);
            let (sum, normed) = Activation::rms_norm_of_sum(x, y, w.reshape([d]), 1e-5);
            close(&format!("sum {on}"), &host(sum), &expected[0], 1e-6);
            close(
                &format!("norm {on}"),
                &host(normed.value()),
                &expected[1],
                2e-5,
            );
        }
    }
}

#[test]
fn rotary_matches() {
    let table = RotaryTable::new(&[1.0, 0.3, 0.01], 50);
    let positions: Arc<[u32]> = vec![0, 1, 2, 0, 49].into();
    compare(
        "rotary",
        [leaf(1, [5, 18])],
        |[x]| fused::rotary(x.clone(), &positions, &table),
        |[x]| composed::rotary(x.clone(), &positions, &table),
    );
}

fn whole(lens: &[usize]) -> Arc<[Run]> {
    lens.iter().map(|len| Run::whole(*len)).collect()
}

fn attention_case(runs: &Arc<[Run]>, heads: usize, kv_heads: usize, head_dim: usize) {
    let tokens: usize = runs.iter().map(|run| run.len).sum();
    let shape = AttentionShape {
        heads,
        kv_heads,
        head_dim,
    };
    let kv = [tokens, kv_heads * head_dim];
    compare(
        &format!("attention {runs:?}"),
        [
            leaf(1, [tokens, heads * head_dim]),
            leaf(2, kv),
            leaf(3, kv),
        ],
        |[q, k, v]| fused::attention(q.clone() * 4.0, k.clone(), v.clone(), runs, shape),
        |[q, k, v]| composed::attention(q.clone() * 4.0, k.clone(), v.clone(), runs, shape),
    );
}

#[test]
fn attention_matches_on_ragged_sequences() {
    attention_case(&whole(&[1]), 1, 1, 2);
    attention_case(&whole(&[3, 0, 1, 7]), 4, 2, 8);
    attention_case(&whole(&[70, 129, 2]), 3, 1, 16);
    attention_case(&whole(&[64, 65]), 6, 3, 32);
    attention_case(&whole(&[5, 5, 5]), 5, 5, 6);
}

#[test]
fn attention_matches_where_beginnings_are_shared() {
    let after = |len: usize, prefix: usize| Run {
        len,
        prefix: Some(prefix),
    };
    let runs = [
        Run::whole(9),
        after(3, 0),
        after(0, 0),
        Run::whole(5),
        after(70, 0),
    ];
    attention_case(&runs.into(), 4, 2, 8);
    let runs = [
        Run::whole(130),
        after(66, 0),
        after(1, 0),
        Run::whole(0),
        after(2, 3),
    ];
    attention_case(&runs.into(), 3, 1, 16);
}

#[test]
fn a_shared_beginning_gives_what_whole_sequences_give() {
    let shape = AttentionShape {
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
    };
    let rows = |x: &Tensor<2>, ranges: &[(usize, usize)]| {
        let parts = ranges.iter().map(|(at, n)| x.clone().narrow(0, *at, *n));
        Tensor::cat(parts.collect(), 0)
    };
    let (q, k, v): (Tensor<2>, Tensor<2>, Tensor<2>) = (
        leaf(1, [80, 32]).inner(),
        leaf(2, [80, 16]).inner(),
        leaf(3, [80, 16]).inner(),
    );
    let after = |len| Run {
        len,
        prefix: Some(0),
    };
    let shared: Arc<[Run]> = [Run::whole(70), after(3), after(7)].into();
    let shared = host(composed::attention(
        q.clone(),
        k.clone(),
        v.clone(),
        &shared,
        shape,
    ));
    let second = [(0, 70), (73, 7)];
    let [q, k, v] = [q, k, v].map(|x| rows(&x, &second));
    let alone = host(composed::attention(q, k, v, &whole(&[77]), shape));
    close("beginning", &shared[..70 * 32], &alone[..70 * 32], 1e-6);
    close("rest", &shared[73 * 32..], &alone[70 * 32..], 1e-5);
}

#[test]
fn products_do_not_depend_on_the_number_of_threads() {
    let (x, w) = (leaf(1, [300, 130]), leaf(2, [517, 130]));
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("a thread pool").install(|| {
            let out = fused::linear(x.clone(), w.clone());
            let grads = (out.clone() * out.clone()).sum().backward();
            let grad = |t: &Tensor<2>| host(t.grad(&grads).expect("tracked"));
            [host(out.inner()), grad(&x), grad(&w)]
        })
    };
    let one = run(1);
    for threads in [2, 3, 5] {
        assert!(run(threads) == one, "{threads} threads");
    }
}

#[test]
fn embedding_matches_with_repeated_ids() {
    let ids: Arc<[u32]> = vec![4, 0, 4, 4, 2].into();
    compare(
        "embedding",
        [leaf(1, [5, 9])],
        |[w]| fused::embedding(w.clone(), &ids),
        |[w]| composed::embedding(w.clone(), &ids),
    );
}

#[test]
fn selected_log_probs_match_with_their_entropy() {
    // The last is of more logits than are made at a time.
    for [n, d, v, temperature_tenths] in [
        [1, 4, 3, 10],
        [37, 16, 101, 7],
        [2000, 8, 4200, 10],
        [230, 8, 150_001, 13],
    ] {
        let temperature = temperature_tenths as f64 / 10.0;
        let targets: Arc<[u32]> = (0..n).map(|i| (i * 7 % v) as u32).collect();
        compare(
            &format!("selected_log_probs {n}x{d}x{v}"),
            [leaf(1, [n, d]), leaf(2, [v, d])],
            |[h, w]| {
                let (h, f32) = (h.clone() * 3.0, Precision::F32);
                let r = fused::selected_log_probs(f32, h, w.clone(), &targets, temperature);
                Tensor::stack(vec![r.logps, r.entropy, r.collision], 0)
            },
            |[h, w]| {
                let (h, f32) = (h.clone() * 3.0, Precision::F32);
                let r = composed::selected_log_probs(f32, h, w.clone(), &targets, temperature);
                Tensor::stack(vec![r.logps, r.entropy, r.collision], 0)
            },
        );
    }
}

#[test]
fn attention_through_the_cache_equals_attention_over_the_whole_sequence() {
    for (heads, kv_heads, head_dim) in [(6, 2, 8), (3, 3, 96), (4, 1, 160)] {
        let shape = AttentionShape {
            heads,
            kv_heads,
            head_dim,
        };
        // Longer than what a GPU looks at in one piece.
        let (len, split) = (150, 122);
        let (width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let q: Tensor<2> = leaf(1, [len, width]).inner();
        let k: Tensor<2> = leaf(2, [len, kv_width]).inner();
        let v: Tensor<2> = leaf(3, [len, kv_width]).inner();
        let whole = host(composed::attention(
            q.clone(),
            k.clone(),
            v.clone(),
            &whole(&[len]),
            shape,
        ));
        for (name, device) in devices() {
            let [q, k, v] = [&q, &k, &v].map(|x| x.clone().to_device(&device));
            let mut cache = KvCache::new(3, 160, shape, &device);
            let first = |x: &Tensor<2>| x.clone().narrow(0, 0, split);
            cache.write(2, 0, first(&k), first(&v));
            // One that has diverged and ended; another takes its slot.
            let infinite = first(&v) * f32::INFINITY;
            cache.write(0, 0, infinite.clone(), infinite);
            cache.write(0, 0, k.clone().narrow(0, 0, 1), v.clone().narrow(0, 0, 1));
            for step in 0..len - split {
                let rows = [split + step, 1 + step];
                let pick = |x: &Tensor<2>| {
                    Tensor::cat(rows.map(|row| x.clone().narrow(0, row, 1)).to_vec(), 0)
                };
                let at = [(2, rows[0]), (0, rows[1])];
                let out = host(cache.step(pick(&q), pick(&k), pick(&v), &at));
                for (row, out) in rows.iter().zip(out.chunks(width)) {
                    let expected = &whole[row * width..(row + 1) * width];
                    let what = format!("cache {name}, {shape:?}, position {row}");
                    close(&what, out, expected, 2e-5);
                }
            }
        }
    }
}

#[test]
fn adamw_matches_its_definition() {
    let step = AdamWStep {
        lr: 0.01,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.1,
        bias_correction1: 0.1,
        bias_correction2: 0.001,
        grad_scale: 0.5,
    };
    let count = 1000;
    let [p, g, m] = [1, 2, 3].map(|seed| numbers(seed, count));
    let v: Vec<f32> = numbers(4, count).into_iter().map(f32::abs).collect();
    let mut expected = [vec![], vec![], vec![]];
    for i in 0..count {
        let [p, g, m, v] = [p[i], g[i] * 0.5, m[i], v[i]].map(f64::from);
        let m = 0.9 * m + 0.1 * g;
        let v = 0.999 * v + 0.001 * g * g;
        let p = p - 0.01 * 0.1 * p - 0.01 / 0.1 * m / ((v / 0.001).sqrt() + 1e-8);
        for (all, x) in expected.iter_mut().zip([p, m, v]) {
            all.push(x as f32);
        }
    }
    for (name, device) in devices() {
        let put = |x: &Vec<f32>| Tensor::<1>::from_floats(x.as_slice(), &device);
        // Tensors that somebody else holds are left as they are.
        let held = [&p, &m, &v].map(put);
        let [hp, hm, hv] = held.clone();
        let again = fused::adamw_step(hp, put(&g), hm, hv, &step);
        for (held, was) in held.iter().zip([&p, &m, &v]) {
            assert_eq!(&host(held.clone()), was, "{name}");
        }
        let (p, m, v) = fused::adamw_step(put(&p), put(&g), put(&m), put(&v), &step);
        assert_eq!(host(again.0), host(p.clone()), "{name}");
        for (what, found, expected) in [
            ("parameter", p, &expected[0]),
            ("m", m, &expected[1]),
            ("v", v, &expected[2]),
        ] {
            close(&format!("{what} {name}"), &host(found), expected, 1e-6);
        }
        let squares: f64 = g.iter().map(|g| f64::from(g * g)).sum();
        let found = fused::sum_of_squares([&put(&g)]);
        assert!(
            (found / squares - 1.0).abs() < 1e-5,
            "{name}: {found}, {squares}"
        );
    }
}

/// The layout for sampling is the CPU's alone: elsewhere the matrices are read as they are.
#[test]
fn matrices_are_packed_on_the_cpu_alone() {
    for (name, device) in devices() {
        let matrix = Tensor::<2>::zeros([5, 3], &device);
        let packed = fused::PackedLinear::new(&[matrix], WeightFormat::F32).is_some();
        assert_eq!(packed, device == Device::flex(), "{name}");
    }
}

#[test]
fn frozen_inputs_get_no_gradient() {
    for (name, device) in devices() {
        let put = |data: TensorData, device: &Device| Tensor::<2>::from_data(data, device);
        let w = put(TensorData::new(numbers(1, 12), [3, 4]), &device);
        let x = TensorData::new(numbers(2, 20), [5, 4]);
        let x = put(x, &device.clone().autodiff()).require_grad();
        let grads = fused::linear(x.clone(), w.clone()).sum().backward();
        let w = host(w);
        let row: Vec<f32> = (0..4).map(|c| w[c] + w[4 + c] + w[8 + c]).collect();
        let found = x.grad(&grads).expect("x is not frozen");
        close(&format!("dx {name}"), &host(found), &row.repeat(5), 1e-5);
    }
}
