//! `--device`, and `cargo xtask devices`: the one place that names backends.

use anyhow::Result;
use burn::tensor::Device;
use togi_policy::Precision;

use crate::InputError;

/// The device of a `cpu`, `wgpu[:n]` or `cuda[:n]`.
pub(crate) fn parse(spec: &str) -> Result<Device> {
    let (kind, index) = match spec.split_once(':') {
        Some((kind, index)) => {
            let wrong = |_| InputError(format!("--device {spec}: `{index}` is not a number"));
            (kind, index.parse::<usize>().map_err(wrong)?)
        }
        None => (spec, 0),
    };
    let found = match kind {
        "cpu" => Ok(vec![Device::flex()]),
        "wgpu" => wgpu(),
        "cuda" => cuda(),
        _ => {
            let text = format!("--device {spec}: there are cpu, wgpu[:n] and cuda[:n]");
            return Err(InputError(text).into());
        }
    };
    let devices = found.map_err(|reason| InputError(format!("--device {spec}: {reason}")))?;
    match devices.get(index) {
        Some(device) => {
            let precision = Precision::of_program();
            check(device, precision)
                .map_err(|reason| InputError(format!("--dtype {precision}: {reason}")))?;
            Ok(device.clone())
        }
        None => {
            let text = format!(
                "--device {spec}: there are {} of this kind here; `cargo xtask devices` lists them",
                devices.len()
            );
            Err(InputError(text).into())
        }
    }
}

/// Refuses a precision that a device does not compute in.
fn check(device: &Device, precision: Precision) -> std::result::Result<(), String> {
    let offered = precisions(device);
    if offered.contains(&precision) {
        return Ok(());
    }
    let names: Vec<&str> = offered.iter().map(|p| p.name()).collect();
    Err(format!(
        "this device computes in {}; `cargo xtask devices` lists what each has",
        names.join(" and ")
    ))
}

/// The precisions that a device computes products in.
fn precisions(device: &Device) -> Vec<Precision> {
    [Precision::F32, Precision::Bf16, Precision::F16]
        .into_iter()
        .filter(|precision| match precision {
            Precision::F32 => true,
            // The CPU has a form for bfloat16, and no fast one for float16.
            Precision::Bf16 if *device == Device::flex() => true,
            Precision::F16 if *device == Device::flex() => false,
            _ => device.supports_dtype(precision.dtype()),
        })
        .collect()
}

/// Prints what this build and this machine offer.
pub(crate) fn list() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!("cpu      float32, {threads} threads");
    for (kind, found) in [("wgpu", wgpu()), ("cuda", cuda())] {
        match found {
            Ok(devices) => {
                for (index, device) in devices.iter().enumerate() {
                    println!("{:<8} float32, {}", format!("{kind}:{index}"), name(device));
                }
            }
            Err(reason) => println!("{kind:<8} {reason}"),
        }
    }
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn name(device: &Device) -> String {
    device
        .identity()
        .map_or_else(|| "unnamed".to_owned(), |identity| identity.name)
}

#[cfg(not(any(feature = "wgpu", feature = "cuda")))]
fn name(_: &Device) -> String {
    String::new()
}

/// The devices of a backend, or why there are none.
type Found = std::result::Result<Vec<Device>, String>;

#[cfg(feature = "wgpu")]
fn wgpu() -> Found {
    let devices = Device::enumerate(burn::tensor::DeviceType::Wgpu).into_vec();
    if devices.is_empty() {
        let reason = "no adapter was found; is a Vulkan, Metal or DirectX 12 driver installed?";
        return Err(reason.to_owned());
    }
    Ok(devices)
}

#[cfg(feature = "cuda")]
fn cuda() -> Found {
    let devices = Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec();
    if devices.is_empty() {
        return Err("no CUDA device was found".to_owned());
    }
    Ok(devices)
}

#[cfg(not(feature = "wgpu"))]
fn wgpu() -> Found {
    Err(missing("wgpu"))
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> Found {
    Err(missing("cuda"))
}

#[cfg(not(all(feature = "wgpu", feature = "cuda")))]
fn missing(feature: &str) -> String {
    format!("not in this build; run it as `cargo run --package xtask --features {feature} -- …`")
}
