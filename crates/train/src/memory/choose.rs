//! What of a recipe's settings would change how much memory it takes.

use togi_policy::LoraConfig;

use super::{Demand, Sizes, Work, human};

/// A setting that would help, and the estimate with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// As it is given to `--set`, without the recipe's own prefix.
    pub setting: String,
    /// Bytes with it.
    pub estimate: u64,
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { setting, estimate } = self;
        write!(f, "--set {setting} ({})", human(*estimate))
    }
}

impl Demand {
    /// The same with another micro-batch.
    #[must_use]
    pub fn with_micro(&self, micro: usize) -> Self {
        Self {
            micro,
            ..self.clone()
        }
    }

    /// The same with other samples.
    #[must_use]
    pub fn with_sizes(mut self, given: Sizes) -> Self {
        if let Work::Fixed { sizes, .. } = &mut self.work {
            *sizes = given;
        }
        self
    }

    /// The largest micro-batch, up to the whole batch, whose estimate is at most `bytes`; none if even
    /// the smallest is more.
    pub fn largest_micro(&self, bytes: u64) -> Option<usize> {
        let fits = |units: &usize| {
            let micro = units * self.unit;
            self.with_micro(micro).estimate().total() <= bytes
        };
        // From the largest down: an estimate does not fall with the micro-batch only where a whole batch
        // needs no accumulated gradients.
        let most = self.batch.div_ceil(self.unit).max(1);
        let units = (1..=most).rev().find(fits)?;
        Some((units * self.unit).min(self.batch.max(self.unit)))
    }

    /// The settings that would help most, the best first, with the estimate that each gives by itself. At
    /// most three; none that would not help.
    pub fn advice(&self, keys: &Keys) -> Vec<Setting> {
        let mut all = Vec::new();
        let mut offer = |setting: String, demand: Self| {
            let estimate = demand.estimate().total();
            all.push(Setting { setting, estimate });
        };
        let key = |name: &str| format!("{}{name}", keys.prefix);
        if self.micro > self.unit {
            let smallest = self.with_micro(self.unit);
            let setting = format!("{}={}", keys.micro, self.unit);
            offer(setting, smallest);
        }
        if !self.gradient_checkpointing {
            let demand = Self {
                gradient_checkpointing: true,
                ..self.clone()
            };
            offer(format!("{}=true", keys.checkpointing), demand);
        }
        if self.lora.is_none() {
            let lora = LoraConfig::default();
            let setting = format!("{}={}", key("lora.r"), lora.r);
            let demand = Self {
                lora: Some(lora),
                ..self.clone()
            };
            offer(setting, demand);
        }
        let half = self.max_length / 2;
        let mut shorter = self.clone();
        match &mut shorter.work {
            Work::Fixed { sizes, sides, .. } => {
                for size in sizes {
                    let tokens = size.0.min(half * *sides);
                    *size = (tokens, size.1.min(tokens));
                }
                if half > 0 {
                    offer(format!("{}={half}", key("data.max_length")), shorter);
                }
            }
            Work::Drawn { new, at_once, .. } => {
                if *new > 1 {
                    let mut demand = self.clone();
                    if let Work::Drawn { new, .. } = &mut demand.work {
                        *new /= 2;
                    }
                    let setting = format!("{}={}", key("sampling.max_new_tokens"), *new / 2);
                    offer(setting, demand);
                }
                if *at_once > 1 {
                    let setting = format!("{}={}", key("sampling.batch_size"), *at_once / 2);
                    *at_once /= 2;
                    offer(setting, shorter);
                }
            }
        }
        let now = self.estimate().total();
        all.retain(|setting| setting.estimate < now);
        all.sort_by_key(|setting| setting.estimate);
        all.truncate(3);
        all
    }
}

/// The names that a recipe has for its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Before those of the recipe as a whole: `preference.`, or nothing.
    pub prefix: &'static str,
    /// The micro-batch's.
    pub micro: &'static str,
    /// Activation checkpointing's.
    pub checkpointing: &'static str,
}

impl Keys {
    /// Of recipes that learn from fixed samples.
    pub const FIXED: Self = Self {
        prefix: "",
        micro: "train.micro_batch_size",
        checkpointing: "train.gradient_checkpointing",
    };
    /// Of recipes that draw completions.
    pub const DRAWN: Self = Self {
        prefix: "",
        micro: "micro_batch_size",
        checkpointing: "gradient_checkpointing",
    };
}
