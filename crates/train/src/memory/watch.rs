//! Watching a run's memory between its steps.

use burn::tensor::Device;

use super::{Available, Demand, Keys, available, human, peak, resident};

/// What a run may use, and what to say when that is not enough.
///
/// A failed allocation ends the process, and so does the system when memory runs out: neither can be
/// caught. So what the process has used is looked at after each step, when it can still leave a whole
/// checkpoint.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    limit: Option<u64>,
    device: Option<Device>,
    estimate: u64,
    advice: String,
}

/// A run ends where the machine would be left less than this share of what there is.
const LEFT: u64 = 100;

impl Watch {
    /// For a run that asks for this; `limit` is the user's.
    pub fn new(demand: &Demand, keys: &Keys, device: &Device, limit: Option<u64>) -> Self {
        let settings: Vec<String> = demand
            .advice(keys)
            .iter()
            .map(ToString::to_string)
            .collect();
        Self {
            limit,
            device: Some(device.clone()),
            estimate: demand.estimate().total(),
            advice: settings.join(", "),
        }
    }

    /// Before the start: what to say where more is asked for than there is.
    pub fn warning(&self) -> Option<String> {
        let device = self.device.as_ref()?;
        let Available::Known(bytes, from) = available(device, self.limit) else {
            return None;
        };
        if self.estimate <= bytes {
            return None;
        }
        Some(format!(
            "this run is estimated to need {}, and there are {} ({from}); {}",
            human(self.estimate),
            human(bytes),
            self.would_help()
        ))
    }

    /// After a step: why the run cannot go on, if it cannot.
    pub(crate) fn short(&self) -> Option<String> {
        let device = self.device.as_ref()?;
        let (used, now) = (measured(device)?, resident()?);
        let said = |what: String| {
            Some(format!(
                "{what} It was estimated at {}, and its peak is {}; {}",
                human(self.estimate),
                human(used),
                self.would_help()
            ))
        };
        if let Some(limit) = self.limit
            && used > limit
        {
            let limit = human(limit);
            return said(format!(
                "the run uses more memory than --memory-limit {limit}."
            ));
        }
        if *device != Device::flex() {
            return None;
        }
        // The next step will need what the largest so far did.
        let Available::Known(bytes, from) = available(device, None) else {
            return None;
        };
        if used.max(now) + bytes / LEFT > bytes {
            let bytes = human(bytes);
            return said(format!(
                "memory is running out: there are {bytes} ({from})."
            ));
        }
        None
    }

    fn would_help(&self) -> String {
        if self.advice.is_empty() {
            return "no setting of this recipe would help: take a smaller model".to_owned();
        }
        format!(
            "what would help most, with the estimate of each: {}",
            self.advice
        )
    }
}

/// What was used at most: on the CPU of the machine's memory, elsewhere of the device's.
fn measured(device: &Device) -> Option<u64> {
    if *device == Device::flex() {
        return peak();
    }
    let usage = device.memory_pool_usage()?;
    Some(usage.bytes_reserved)
}
