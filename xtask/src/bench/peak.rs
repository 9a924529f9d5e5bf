//! `cargo xtask bench matmul`: how fast this machine multiplies matrices, which training is measured against.

use std::time::Instant;

use anyhow::Result;
use burn::tensor::{Device, Tensor, TensorData};
use clap::Args;
use serde::Serialize;
use togi_data::rng::CounterRng;
use togi_policy::Precision;

use super::device;

#[derive(Args)]
pub(crate) struct MatmulArguments {
    /// Rows and columns of the square matrices; if it is not given 2048, and on a device that is done with these in
    /// no time 8192.
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

/// Large enough that the product alone counts, and a few tenths of a second.
fn side_on(device: &Device) -> u64 {
    const SIDE: u64 = 2048;
    let seconds = 2.0 * (SIDE as f64).powi(3) / fastest(device, SIDE as usize, 2);
    if seconds < 0.01 { 4 * SIDE } else { SIDE }
}

const REPEATS: u64 = 8;

pub(crate) fn run(arguments: &MatmulArguments) -> Result<()> {
    let device = device::parse(&arguments.device)?;
    let side = arguments.side.unwrap_or_else(|| side_on(&device));
    let measured = Measured {
        dtype: Precision::of_program().name(),
        side,
        flops_per_second: fastest(&device, side as usize, arguments.repeats),
    };
    if arguments.json {
        println!("{}", serde_json::to_string(&measured)?);
    } else {
        println!(
            "{:.1} GFLOP/s: {}, {side} x {side} x {side}, the fastest of {}",
            measured.flops_per_second / 1e9,
            measured.dtype,
            arguments.repeats,
        );
    }
    Ok(())
}

/// The matmul peak of a device, in FLOP/s: the fastest of some products of large square matrices by the
/// code that training multiplies with, in the precision of the program.
pub(crate) fn of(device: &Device) -> f64 {
    fastest(device, side_on(device) as usize, REPEATS)
}

fn fastest(device: &Device, side: usize, repeats: u64) -> f64 {
    let device = device.clone().without_autodiff();
    let matrix = |stream: u64| -> Tensor<2> {
        let mut rng = CounterRng::new(0, &[0x7065_616b, stream]);
        let data: Vec<f32> = (0..side * side)
            .map(|_| (rng.next_f64() - 0.5) as f32)
            .collect();
        Tensor::from_data(TensorData::new(data, [side, side]), &device)
    };
    let (x, w) = (matrix(0), matrix(1));
    let seconds = || {
        let started = Instant::now();
        let out = togi_kernels::linear_in(Precision::of_program(), x.clone(), w.clone());
        // Reading one element waits for devices that compute on their own.
        let _ = out
            .narrow(0, side - 1, 1)
            .narrow(1, side - 1, 1)
            .into_data();
        started.elapsed().as_secs_f64()
    };
    seconds();
    let best = (0..repeats)
        .map(|_| seconds())
        .fold(f64::INFINITY, f64::min);
    2.0 * (side as f64).powi(3) / best
}
