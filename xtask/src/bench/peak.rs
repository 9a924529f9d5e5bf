//! `cargo xtask bench matmul`: how fast this machine multiplies matrices, which training is measured against.

use std::time::Instant;

use anyhow::{Result, ensure};
use burn::tensor::{Device, Tensor, TensorData};
use clap::Args;
use serde::Serialize;
use togi_data::rng::CounterRng;
use togi_policy::Precision;

use super::device;

#[derive(Args)]
pub(crate) struct MatmulArguments {
    /// Rows and columns of the square matrices; if it is not given 2048, and on a device that is done with these in
    /// no time 4096.
    #[arg(long, value_parser = clap::value_parser!(u64).range(16..=16384))]
    side: Option<u64>,
    /// Products; the fastest counts.
    #[arg(long, default_value_t = REPEATS, value_parser = clap::value_parser!(u64).range(1..))]
    repeats: u64,
    /// `cpu`, `wgpu`, or `cuda` with `:n` for a further GPU.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Measured {
    dtype: &'static str,
    side: u64,
    flops_per_second: f64,
}

const REPEATS: u64 = 8;

pub(crate) fn run(arguments: &MatmulArguments) -> Result<()> {
    let device = device::parse(&arguments.device)?;
    let size = match arguments.side {
        Some(side) => Size { side, in_a_row: 1 },
        None => Size::on(&device)?,
    };
    let measured = Measured {
        dtype: Precision::of_program().name(),
        side: size.side,
        flops_per_second: size.fastest(&device, arguments.repeats)?,
    };
    if arguments.json {
        println!("{}", serde_json::to_string(&measured)?);
    } else {
        println!(
            "{:.1} GFLOP/s: {}, {side} x {side} x {side}, the fastest of {}",
            measured.flops_per_second / 1e9,
            measured.dtype,
            arguments.repeats,
            side = measured.side,
        );
    }
    Ok(())
}

/// The matmul peak of a device, in FLOP/s: the fastest of some products of large square matrices by the
/// code that training multiplies with, in the precision of the program. None, with a warning, where one comes out wrong.
pub(crate) fn of(device: &Device) -> Option<f64> {
    let found = Size::on(device).and_then(|size| size.fastest(device, REPEATS));
    found
        .inspect_err(|error| eprintln!("warning: the matmul peak is not known: {error}"))
        .ok()
}

/// Square matrices, and how many products are asked for before the last is waited for.
#[derive(Clone, Copy)]
struct Size {
    side: u64,
    in_a_row: u32,
}

impl Size {
    /// Large enough that the product alone counts, and a few tenths of a second.
    ///
    /// # Errors
    /// Where a product comes out wrong.
    fn on(device: &Device) -> Result<Self> {
        const SMALL: Size = Size {
            side: 2048,
            in_a_row: 1,
        };
        const LARGE: Size = Size {
            side: 4096,
            in_a_row: 16,
        };
        let seconds = SMALL.flops() / SMALL.fastest(device, 2)?;
        Ok(if seconds < 0.01 { LARGE } else { SMALL })
    }

    fn flops(self) -> f64 {
        2.0 * (self.side as f64).powi(3)
    }

    fn fastest(self, device: &Device, repeats: u64) -> Result<f64> {
        let device = device.clone().without_autodiff();
        let side = self.side as usize;
        let numbers = |stream: u64| -> Vec<f32> {
            let mut rng = CounterRng::new(0, &[0x7065_616b, stream]);
            (0..side * side)
                .map(|_| (rng.next_f64() - 0.5) as f32)
                .collect()
        };
        let (x, w) = (numbers(0), numbers(1));
        // The last number of the product, and what rounding may do to it: tensor cores round sums too.
        let last = (side - 1) * side;
        let terms = x[last..].iter().zip(&w[last..]);
        let expected: f64 = terms.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        let precision = Precision::of_program();
        let tolerance = precision.epsilon().max(1e-5) * (side as f64).sqrt();
        let [x, w] =
            [x, w].map(|data| Tensor::<2>::from_data(TensorData::new(data, [side, side]), &device));
        let seconds = || -> Result<f64> {
            let started = Instant::now();
            let product = || togi_kernels::linear_in(precision, x.clone(), w.clone());
            for _ in 1..self.in_a_row {
                product();
            }
            // Reading one element waits for devices that compute on their own.
            let out = product().narrow(0, side - 1, 1).narrow(1, side - 1, 1);
            let found: f32 = out.into_data().iter().next().unwrap_or(f32::NAN);
            let seconds = started.elapsed().as_secs_f64();
            let off = (f64::from(found) - expected).abs();
            ensure!(
                off <= tolerance,
                "a product of {side} x {side} matrices came out wrong on this device: {found} instead of {expected}"
            );
            Ok(seconds / f64::from(self.in_a_row))
        };
        seconds()?;
        let mut best = f64::INFINITY;
        for _ in 0..repeats {
            best = best.min(seconds()?);
        }
        Ok(self.flops() / best)
    }
}
