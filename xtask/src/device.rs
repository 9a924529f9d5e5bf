//! `--device`, and `cargo xtask devices`: the one place that names backends.

use anyhow::Result;
use burn::tensor::Device;
use togi_kernels::{device_memory, is_cpu};
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

/// As [`parse`], for a command that trains.
pub(crate) fn parse_to_train(spec: &str) -> Result<Device> {
    let device = parse(spec)?;
    if Precision::of_program() == Precision::F16 {
        let text = "--dtype f16: gradients leave its range; train in f32 or bf16";
        return Err(InputError(text.to_owned()).into());
    }
    Ok(device)
}

/// The processor, for models that are only read or written there: that goes with any `--dtype`.
pub(crate) fn cpu() -> Device {
    Device::flex()
}

/// What results owe to `--device` and `--dtype`, for the configuration of a folder that is gone on with: nothing where
/// the CPU computes in float32. GPUs of a kind are alike.
pub(crate) fn of_results(spec: &str) -> Result<String> {
    let (kind, _) = kind_and_index(spec)?;
    let mut text = String::new();
    if kind != "cpu" {
        text.push_str(&format!(" --device {kind}"));
    }
    let precision = Precision::of_program();
    if precision != Precision::F32 {
        text.push_str(&format!(" --dtype {precision}"));
    }
    Ok(text)
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
    let all = Precision::ALL.into_iter();
    all.filter(|precision| precision.is_of(device)).collect()
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

    fn is_twice(x: &[f32]) -> bool {
        let near = |(x, y): (&f32, f32)| (x - y).abs() < 1e-4;
        x.len() == 3 && x.iter().zip([2.0, 4.0, 6.0]).all(near)
    }

    /// Opens the device and computes a little. Drivers and kernel compilers that are not there or do not
    /// fit end in a panic below Burn; here it becomes a reason.
    pub(super) fn try_out(device: &Device) -> Result<(), String> {
        let hook = take_hook();
        set_hook(Box::new(|_| {}));
        let found = catch_unwind(AssertUnwindSafe(|| {
            let x = Tensor::<1>::from_floats([1.0, 2.0, 3.0], device);
            // CUDA's kernels by LLVM have these from a file of the CUDA toolkit's.
            let x: Vec<f32> = (x.exp().log() * 2.0).into_data().iter().collect();
            x
        }));
        set_hook(hook);
        match found {
            Ok(x) if is_twice(&x) => Ok(()),
            Ok(x) => Err(format!(
                "computes wrongly: 2 log exp of 1, 2, 3 is {x:?} there"
            )),
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

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::{Path, PathBuf},
    };

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }

    #[test]
    fn backends_are_named_here_and_by_kernels_alone() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut all = Vec::new();
        for part in [
            "data", "eval", "feedback", "policy", "reward", "rl-algos", "train",
        ] {
            sources(&root.join("crates").join(part).join("src"), &mut all);
        }
        sources(&root.join("xtask/src"), &mut all);
        assert!(all.len() > 100, "{} files", all.len());
        for path in all
            .iter()
            .filter(|path| !path.ends_with("xtask/src/device.rs"))
        {
            let text = fs::read_to_string(path).unwrap();
            // Tests name the CPU.
            let code = text.split("#[cfg(test)]").next().unwrap();
            let lines = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            for line in lines {
                let names = ["flex()", "Flex", "Wgpu", "Cuda", "DeviceType"];
                let named = names.iter().find(|name| line.contains(**name));
                assert_eq!(named, None, "{}: {line}", path.display());
            }
        }
    }
}
