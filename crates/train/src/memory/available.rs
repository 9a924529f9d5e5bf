//! What there is, and what this process uses.

use std::{
    fs,
    sync::{Mutex, PoisonError},
};

use burn::tensor::Device;
use togi_kernels::{DeviceMemory, device_memory, is_cpu};

use crate::error::TrainError;

/// Memory that a run can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Available {
    /// So many bytes, and who says so.
    Known(u64, &'static str),
    /// Nobody tells: why.
    Unknown(&'static str),
}

impl Available {
    /// The bytes, where they are known.
    pub fn bytes(&self) -> Option<u64> {
        match self {
            Self::Known(bytes, _) => Some(*bytes),
            Self::Unknown(_) => None,
        }
    }
}

/// Memory that this process can have in all, what it uses already among it: of the device that it
/// computes on. The user's limit counts where it is the smaller. A tenth of a GPU's memory is left to its driver and to
/// what an estimate is off; what other programs use of it is left out where the driver tells.
pub fn available(device: &Device, limit: Option<u64>) -> Available {
    let found = if is_cpu(device) {
        system()
    } else {
        of_gpu(device)
    };
    match (limit, found) {
        (Some(limit), Available::Known(bytes, from)) if bytes < limit => {
            Available::Known(bytes, from)
        }
        (Some(limit), _) => Available::Known(limit, "--memory-limit"),
        (None, found) => found,
    }
}

fn of_gpu(device: &Device) -> Available {
    match device_memory(device) {
        Some(memory) => left_of(memory, reserved(device).unwrap_or(0)),
        None => Available::Unknown("the device does not tell how much memory it has"),
    }
}

/// Of a GPU's memory, where this process uses some of it already.
fn left_of(DeviceMemory { total, free }: DeviceMemory, ours: u64) -> Available {
    match free {
        Some(free) => Available::Known(
            nine_tenths(total.min(free + ours)),
            "nine tenths of what the GPU has free, or this run uses",
        ),
        None => Available::Known(nine_tenths(total), "nine tenths of the GPU's memory"),
    }
}

fn nine_tenths(bytes: u64) -> u64 {
    bytes / 10 * 9
}

/// What the machine and this process's control group leave it.
fn system() -> Available {
    let free = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| kilobytes(&text, "MemAvailable:"));
    let Some(free) = free else {
        return Available::Unknown("this system does not tell how much memory is available");
    };
    let machine = free + resident().unwrap_or(0);
    match group_limit() {
        Some(limit) if limit < machine => {
            Available::Known(limit, "the limit of this process's control group")
        }
        _ => Available::Known(machine, "what the system has available"),
    }
}

/// The smallest limit of the control groups that this process is in.
fn group_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        // A group's parents limit it too; inside a container only the root may be seen.
        let mut path = path.trim_end_matches('/');
        loop {
            let text = fs::read_to_string(format!("{root}{path}/{file}"));
            limits.extend(text.ok().and_then(|text| text.trim().parse::<u64>().ok()));
            match path.rfind('/') {
                Some(end) => path = &path[..end],
                None => break,
            }
        }
    }
    limits.into_iter().min()
}

/// A number of kilobytes in one of the system's lists, in bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}

fn status(name: &str) -> Option<u64> {
    kilobytes(&fs::read_to_string("/proc/self/status").ok()?, name)
}

/// The most memory that this process has used, in bytes, where the system tells.
pub fn peak() -> Option<u64> {
    status("VmHWM:")
}

/// The most that was used, in bytes, where it is told: on the CPU this process's memory, elsewhere what the
/// device's pools had reserved at most when it was asked for; the optimiser asks in each step.
pub fn peak_of(device: &Device) -> Option<u64> {
    static SEEN: Mutex<Vec<(Device, u64)>> = Mutex::new(Vec::new());
    if is_cpu(device) {
        return peak();
    }
    let now = reserved(device)?;
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, most)) = seen.iter_mut().find(|(known, _)| known == device) {
        *most = now.max(*most);
        return Some(*most);
    }
    seen.push((device.clone(), now));
    Some(now)
}

/// Sees what a GPU's pools have reserved now: they give some of it back later. Does nothing on the CPU, whose system
/// sees it by itself.
pub(crate) fn note_peak(device: &Device) {
    if !is_cpu(device) {
        peak_of(device);
    }
}

/// What a GPU's pools have reserved now, in bytes, where it is told. What is read back goes through buffers of the
/// host's, which are none of it.
pub(super) fn reserved(device: &Device) -> Option<u64> {
    let pools = device.memory_pool_report()?;
    Some(pools.iter().map(|pool| pool.pages * pool.page_size).sum())
}

/// What is used now, in bytes, where it is told: on the CPU this process's memory, elsewhere what the device's pools have
/// reserved.
pub fn used(device: &Device) -> Option<u64> {
    match is_cpu(device) {
        true => resident(),
        false => reserved(device),
    }
}

/// The memory that this process uses now, in bytes, where the system tells.
pub fn resident() -> Option<u64> {
    status("VmRSS:")
}

/// Reads a size: bytes, or with `KB`, `MB`, `GB`, `TB` (thousands), `KiB`, `MiB`, `GiB`, `TiB`.
///
/// # Errors
/// When it is none, or 0.
pub fn parse_size(text: &str) -> Result<u64, TrainError> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" | "k" => 1e3,
        "mb" | "m" => 1e6,
        "gb" | "g" => 1e9,
        "tb" | "t" => 1e12,
        "kib" => 1024.0,
        "mib" => 1_048_576.0,
        "gib" => 1_073_741_824.0,
        "tib" => 1_099_511_627_776.0,
        _ => 0.0,
    };
    let bytes = number.parse::<f64>().unwrap_or(0.0) * factor;
    if bytes >= 1.0 && bytes < u64::MAX as f64 {
        return Ok(bytes as u64);
    }
    let reason = format!("`{text}` is not a size of memory; write it like 8GB or 512MiB");
    Err(TrainError::config("--memory-limit", reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("1024", 1024),
            ("8GB", 8_000_000_000),
            ("1.5 GiB", 1_610_612_736),
            ("512mib", 536_870_912),
        ] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "GB", "0", "-1", "8 parsecs", "1.2.3GB", "inf"] {
            let error = parse_size(text).unwrap_err();
            assert!(error.to_string().contains("like 8GB"), "{text}: {error}");
        }
    }

    #[test]
    fn the_smaller_limit_counts() {
        let device = Device::flex();
        assert_eq!(
            available(&device, Some(1)),
            Available::Known(1, "--memory-limit")
        );
        let machine = available(&device, None);
        if let Some(bytes) = machine.bytes() {
            assert!(bytes > resident().unwrap_or(0), "{bytes}");
            let with_more = available(&device, Some(u64::MAX));
            assert_ne!(with_more.bytes(), Some(u64::MAX), "the machine has less");
        }
    }

    #[test]
    fn a_tenth_of_a_gpu_is_left() {
        let bytes = |free, ours| left_of(DeviceMemory { total: 800, free }, ours).bytes();
        assert_eq!(bytes(None, 100), Some(720));
        assert_eq!(bytes(Some(300), 100), Some(360));
        // A part of a card, whose driver tells of the whole.
        assert_eq!(bytes(Some(5000), 100), Some(720));
    }

    #[test]
    fn lists_of_the_system() {
        let text = "MemTotal:  100 kB\nMemAvailable:      64 kB\n";
        assert_eq!(kilobytes(text, "MemAvailable:"), Some(65536));
        assert_eq!(kilobytes(text, "SwapFree:"), None);
    }
}
