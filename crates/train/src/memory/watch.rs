//! Watching a run's memory between its steps.

use burn::tensor::Device;
use togi_kernels::{give_back_freed_memory, is_cpu};

use super::{
    Available, Demand, Keys, OfStage, available, human, peak_of, refusal::after_refusal, used,
};

/// What a run may use, and what to say when that is not enough.
///
/// On the CPU a failed allocation ends the process, and so does the system when memory runs out: neither can be
/// caught. So what the process has used is looked at after each step, when it can still leave a whole
/// checkpoint. A GPU's refusal is caught in the step ([`super::unless_refused`]).
#[derive(Clone, Debug, Default)]
pub struct Watch {
    limit: Option<u64>,
    device: Option<Device>,
    estimate: u64,
    advice: String,
    /// The most that was used before the steps that are watched.
    before: u64,
    /// The last step that was done, and the most that was used by then.
    reached: (u64, u64),
}

/// Whether the stages of a run are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watching {
    /// They are not: none of their settings is the user's.
    No,
    /// They are, within what the machine has and the user's limit, if there is one.
    Within(Option<u64>),
}

impl Watching {
    /// The watch over a stage.
    pub fn over(self, stage: &OfStage, device: &Device) -> Watch {
        match self {
            Self::No => Watch::default(),
            Self::Within(limit) => Watch::new(&stage.demand, &stage.keys, device, limit),
        }
    }
}

/// A run ends where the machine would be left less than this share of what there is.
const LEFT: u64 = 100;

impl Watch {
    /// For a run, or a stage of one, that asks for this; `limit` is the user's.
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
            before: 0,
            reached: (0, 0),
        }
    }

    /// What was estimated; none where nothing is watched.
    pub fn estimate(&self) -> Option<u64> {
        self.device.as_ref().map(|_| self.estimate)
    }

    /// Before the start: what to say where more is asked for than there is.
    pub fn warning(&self, name: &str) -> Option<String> {
        let device = self.device.as_ref()?;
        let Available::Known(bytes, from) = available(device, self.limit) else {
            return None;
        };
        if self.estimate <= bytes {
            return None;
        }
        Some(format!(
            "{name} is estimated to need {}, and there are {} ({from}); {}",
            human(self.estimate),
            human(bytes),
            self.would_help()
        ))
    }

    /// Steps begin after this one: what was used before, by other stages or to read a checkpoint, is not theirs, and
    /// what that left free goes back to the system.
    pub(crate) fn begin(&mut self, step: u64) {
        if let Some(device) = &self.device {
            give_back_freed_memory();
            self.before = peak_of(device).unwrap_or(0);
        }
        self.reached(step);
    }

    /// This step is done.
    pub(crate) fn reached(&mut self, step: u64) {
        let used = self.device.as_ref().and_then(peak_of);
        self.reached = (step, used.unwrap_or(0));
    }

    /// What to say where the device has refused memory for this `reason`: the last step that was done, and what was
    /// estimated, what is used, and what would help.
    pub(crate) fn refused(&self, reason: &str) -> (u64, String) {
        let (step, used) = self.reached;
        let said = format!("the device refused memory ({reason})");
        let Some(device) = &self.device else {
            return (step, said);
        };
        // A device that has failed may not tell any more.
        let now = after_refusal(|| peak_of(device)).flatten();
        let said = format!(
            "{said}. It was estimated at {}, and at most {} were reserved; {}. What is written down and whole \
             checkpoints are kept: --resume goes on from there, with another micro_batch_size, \
             gradient_checkpointing or sampling.batch_size too",
            human(self.estimate),
            human(now.unwrap_or(used).max(used)),
            self.would_help()
        );
        (step, said)
    }

    /// After a step: why the run cannot go on, if it cannot.
    pub(crate) fn short(&self) -> Option<String> {
        let device = self.device.as_ref()?;
        let most = peak_of(device)?;
        let now = used(device)?;
        // Freed memory is kept: what is held after a step is near the most of it.
        let used = match most <= self.before {
            true => now,
            false => most,
        };
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
        if !is_cpu(device) {
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

#[cfg(test)]
mod tests {
    use super::{
        super::{peak, resident},
        *,
    };

    #[test]
    fn a_refusal_says_what_is_known() {
        let (step, said) = Watch::default().refused("none left");
        assert_eq!(
            (step, said.as_str()),
            (0, "the device refused memory (none left)")
        );
        let mut watch = Watch {
            device: Some(Device::flex()),
            estimate: 3_000_000,
            advice: "--set x=1 (1 MB)".to_owned(),
            ..Watch::default()
        };
        watch.reached(7);
        let (step, said) = watch.refused("none left");
        assert_eq!(step, 7);
        for needle in [
            "(none left)",
            "estimated at 3.0 MB",
            "reserved",
            "--set x=1",
            "--resume",
        ] {
            assert!(said.contains(needle), "`{needle}` is not in: {said}");
        }
    }

    #[test]
    fn what_was_used_before_the_steps_is_not_theirs() {
        let watch = || Watch {
            device: Some(Device::flex()),
            ..Watch::default()
        };
        let size = 600 << 20;
        let spike = vec![1_u8; size];
        assert_eq!(spike.iter().filter(|x| **x == 1).count(), size);
        drop(spike);
        let (Some(most), Some(now)) = (peak(), resident()) else {
            return;
        };
        let limit = now + (300 << 20);
        assert!(limit < most, "{limit} {most}");
        let mut later = Watch {
            limit: Some(limit),
            ..watch()
        };
        assert!(later.short().is_some(), "the spike is in this watch's time");
        later.begin(1);
        assert_eq!(later.short(), None);
        // More than before is the steps' own, and so is what is held.
        let mut smaller = Watch {
            limit: Some(1 << 20),
            ..watch()
        };
        smaller.begin(0);
        assert!(smaller.short().is_some());
    }
}
