//! `--device`, and `cargo xtask devices`: the one place that names backends.

use anyhow::Result;
use burn::tensor::Device;
use togi_kernels::device_memory;
use togi_policy::{Policy, Precision, WeightFormat};
use togi_train::memory::human;

use crate::InputError;

/// The device of a `cpu`, `wgpu[:n]` or `cuda[:n]`; of a GPU, one that has computed something.
pub(crate) fn parse(spec: &str) -> Result<Device> {
    let (kind, index) = kind_and_index(spec)?;
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
    let Some(device) = devices.get(index) else {
        let text = format!(
            "--device {spec}: there are {} of this kind here; `cargo xtask devices` lists them",
            devices.len()
        );
        return Err(InputError(text).into());
    };
    if kind != "cpu" {
        gpu::try_out(device).map_err(|reason| InputError(format!("--device {spec}: {reason}")))?;
    }
    let precision = Precision::of_program();
    let offered = precisions(device);
    if !offered.contains(&precision) {
        let names: Vec<&str> = offered.iter().map(|p| p.name()).collect();
        let text = format!(
            "--dtype {precision}: {kind} computes in {} here; `cargo xtask devices` lists what each has",
            names.join(" and ")
        );
        return Err(InputError(text).into());
    }
    Ok(device.clone())
}

fn kind_and_index(spec: &str) -> Result<(&str, usize)> {
    let Some((kind, index)) = spec.split_once(':') else {
        return Ok((spec, 0));
    };
    let wrong = |_| InputError(format!("--device {spec}: `{index}` is not a number"));
    Ok((kind, index.parse().map_err(wrong)?))
}

/// The GPU of a `--device` as PyTorch counts them; none for the processor.
pub(crate) fn of_pytorch(spec: &str) -> Result<Option<usize>> {
    let (kind, index) = kind_and_index(spec)?;
    match kind {
        "cpu" => Ok(None),
        "cuda" => Ok(Some(index)),
        _ => {
            let text = format!("--device {spec}: PyTorch computes on cpu and cuda[:n]");
            Err(InputError(text).into())
        }
    }
}

/// True where the processor computes.
pub(crate) fn is_cpu(device: &Device) -> bool {
    *device == Device::flex()
}

/// Has sampling hold a model's weights in eight bits.
pub(crate) fn hold_in_int8(policy: &mut Policy) -> Result<()> {
    if !is_cpu(policy.decoder.device()) {
        let text = "--int8: weights in eight bits are for the CPU";
        return Err(InputError(text.to_owned()).into());
    }
    policy.decoder.sampled_as = Some(WeightFormat::Int8);
    Ok(())
}

/// Prints what this build and this machine offer.
pub(crate) fn list() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = format!("{threads} threads");
    print("cpu", &threads, main_memory(), &Device::flex());
    for (kind, found) in [("wgpu", wgpu()), ("cuda", cuda())] {
        match found {
            Ok(devices) => {
                for (index, device) in devices.iter().enumerate() {
                    let spec = format!("{kind}:{index}");
                    match gpu::try_out(device) {
                        Ok(()) => {
                            let memory = device_memory(device).map(|memory| memory.total);
                            print(&spec, &gpu::name(device), memory, device);
                        }
                        Err(reason) => println!("{spec:<8} {reason}"),
                    }
                }
            }
            Err(reason) => println!("{kind:<8} {reason}"),
        }
    }
}

fn print(spec: &str, name: &str, memory: Option<u64>, device: &Device) {
    let memory = memory.map_or("memory not told".to_owned(), human);
    let precisions: Vec<&str> = precisions(device).iter().map(|p| p.name()).collect();
    println!("{spec:<8} {name}, {memory}, {}", precisions.join(" "));
}

/// The precisions that a device computes products in.
fn precisions(device: &Device) -> Vec<Precision> {
    let has = |precision: &Precision| match precision {
        Precision::F32 => true,
        // The CPU has a form for bfloat16, and no fast one for float16.
        Precision::Bf16 if is_cpu(device) => true,
        Precision::F16 if is_cpu(device) => false,
        _ => device.supports_dtype(precision.dtype()),
    };
    Precision::ALL.into_iter().filter(has).collect()
}

/// Bytes of main memory, where the system says so.
fn main_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}

/// The devices of a backend, or why there are none.
type Found = std::result::Result<Vec<Device>, String>;

#[cfg(feature = "wgpu")]
fn wgpu() -> Found {
    gpu::keep_kernels();
    let devices = Device::enumerate(burn::tensor::DeviceType::Wgpu).into_vec();
    if devices.is_empty() {
        let reason = "no adapter was found; is a Vulkan, Metal or DirectX 12 driver installed?";
        return Err(reason.to_owned());
    }
    Ok(devices)
}

#[cfg(feature = "cuda")]
fn cuda() -> Found {
    gpu::keep_kernels();
    let devices = Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec();
    if devices.is_empty() {
        let reason =
            "no device was found; is NVIDIA's driver installed, and does `nvidia-smi` see a GPU?";
        return Err(reason.to_owned());
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

#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod gpu {
    //! What is asked of an open GPU.

    use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};

    use burn::tensor::{Device, Tensor};

    /// Has kernels that are compiled kept for the next run, beside what was tried out. To be called before a device is
    /// opened; later it does nothing.
    pub(super) fn keep_kernels() {
        #[cfg(feature = "persistence")]
        {
            use burn::cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

            let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
            config.compilation.cache = true;
            CubeClRuntimeConfig::try_set(config);
        }
    }

    pub(super) fn name(device: &Device) -> String {
        device
            .identity()
            .map_or_else(|| "unnamed".to_owned(), |identity| identity.name)
    }

    /// Opens the device and computes a little. Drivers and kernel compilers that are not there or do not
    /// fit end in a panic below Burn; here it becomes a reason.
    pub(super) fn try_out(device: &Device) -> Result<(), String> {
        let hook = take_hook();
        set_hook(Box::new(|_| {}));
        let found = catch_unwind(AssertUnwindSafe(|| {
            let x = Tensor::<1>::from_floats([1.0, 2.0, 3.0], device);
            let x: Vec<f32> = (x * 2.0).into_data().iter().collect();
            x
        }));
        set_hook(hook);
        match found {
            Ok(x) if x == [2.0, 4.0, 6.0] => Ok(()),
            Ok(x) => Err(format!("computes wrongly: twice 1, 2, 3 is {x:?} there")),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                let text = text.unwrap_or("no reason given");
                Err(format!("does not compute: {text}"))
            }
        }
    }
}

#[cfg(not(any(feature = "wgpu", feature = "cuda")))]
mod gpu {
    //! There is no GPU in this build, so none to ask.

    use burn::tensor::Device;

    pub(super) fn name(_: &Device) -> String {
        String::new()
    }

    pub(super) fn try_out(_: &Device) -> Result<(), String> {
        Ok(())
    }
}
