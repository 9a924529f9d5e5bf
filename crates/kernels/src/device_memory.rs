//! How much memory a GPU has.

use burn::tensor::Device;

/// Bytes of a GPU's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    /// In all, whoever uses it.
    pub total: u64,
    /// What no program uses: NVIDIA's driver tells it on Linux.
    pub free: Option<u64>,
}

/// The memory of a GPU, where its driver tells; none for the processor.
pub fn device_memory(device: &Device) -> Option<DeviceMemory> {
    #[cfg(feature = "gpu")]
    if let burn::backend::DispatchDevice::Cube(gpu) = device.clone().inner().as_dispatch() {
        let client = gpu.client();
        let properties = client.properties();
        let card = properties.identity.physical.as_ref();
        let asked = card.and_then(|card| of_nvidia(&card.pci_address?.to_string()));
        // What the runtime has may be a part of the card.
        let total = properties.memory.max_memory();
        return Some(DeviceMemory {
            total: total.or(asked.map(|(total, _)| total))?,
            free: asked.map(|(_, free)| free),
        });
    }
    let _ = device;
    None
}

/// What NVIDIA's management library says of the card at this address, in all and free; none without the library, or of
/// another's card.
#[cfg(all(feature = "gpu", target_os = "linux"))]
fn of_nvidia(pci_address: &str) -> Option<(u64, u64)> {
    let nvml = nvml_wrapper::Nvml::init().ok()?;
    let info = nvml.device_by_pci_bus_id(pci_address).ok()?.memory_info();
    let info = info.ok()?;
    Some((info.total, info.free))
}

#[cfg(all(feature = "gpu", not(target_os = "linux")))]
fn of_nvidia(_: &str) -> Option<(u64, u64)> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_no_gpu() {
        assert_eq!(device_memory(&Device::flex()), None);
    }
}
