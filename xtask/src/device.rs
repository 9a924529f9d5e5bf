//! `--device`: the one place that names backends.

use anyhow::Result;
use burn::tensor::Device;

use crate::InputError;

/// The device of a `cpu`, `wgpu` or `cuda[:n]`.
pub(crate) fn parse(spec: &str) -> Result<Device> {
    let (kind, index) = match spec.split_once(':') {
        Some((kind, index)) => {
            let wrong = |_| InputError(format!("--device {spec}: `{index}` is not a number"));
            (kind, index.parse::<usize>().map_err(wrong)?)
        }
        None => (spec, 0),
    };
    match kind {
        "cpu" if index == 0 => Ok(Device::flex()),
        "wgpu" => wgpu(index),
        "cuda" => cuda(index),
        _ => Err(InputError(format!("--device {spec}: there are cpu, wgpu and cuda[:n]")).into()),
    }
}

#[cfg(feature = "wgpu")]
fn wgpu(index: usize) -> Result<Device> {
    use burn::tensor::DeviceKind;
    Ok(Device::wgpu(if index == 0 {
        DeviceKind::DefaultDevice
    } else {
        DeviceKind::DiscreteGpu(index)
    }))
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<Device> {
    Ok(Device::cuda(index))
}

#[cfg(not(feature = "wgpu"))]
fn wgpu(_: usize) -> Result<Device> {
    Err(missing("wgpu"))
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: usize) -> Result<Device> {
    Err(missing("cuda"))
}

#[cfg(not(all(feature = "wgpu", feature = "cuda")))]
fn missing(feature: &str) -> anyhow::Error {
    let text = format!(
        "--device {feature}: this build has no {feature}; run it as \
         `cargo run --package xtask --features {feature} -- …`"
    );
    InputError(text).into()
}
