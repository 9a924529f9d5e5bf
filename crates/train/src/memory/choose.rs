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
        let drawn = |name: &str| format!("{}sampling.{name}", keys.sampling);
        if self.micro > self.unit {
            let smallest = self.with_micro(self.unit);
            let setting = format!("{}={}", keys.micro(), self.unit);
            offer(setting, smallest);
        }
        if !self.gradient_checkpointing {
            let demand = Self {
                gradient_checkpointing: true,
                ..self.clone()
            };
            offer(format!("{}=true", keys.checkpointing()), demand);
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
        if let Some((new, at_once)) = self.draws() {
            if new > 1 {
                let setting = format!("{}={}", drawn("max_new_tokens"), new / 2);
                offer(setting, self.with_shorter_answers(new / 2));
            }
            if at_once > 1 {
                let setting = format!("{}={}", drawn("batch_size"), at_once / 2);
                offer(setting, self.with_fewer_at_once(at_once / 2));
            }
        } else if self.max_length > 1 {
            let half = self.max_length / 2;
            offer(
                format!("{}={half}", key("data.max_length")),
                self.with_shorter_samples(half),
            );
        }
        let now = self.estimate().total();
        all.retain(|setting| setting.estimate < now);
        all.sort_by_key(|setting| setting.estimate);
        all.truncate(3);
        all
    }

    /// Tokens of the longest completion that is drawn, and completions that are drawn at a time; none where
    /// nothing is.
    fn draws(&self) -> Option<(usize, usize)> {
        match (&self.drawing, &self.work) {
            (Some(drawing), _) => Some((drawing.new, drawing.at_once)),
            (
                None,
                Work::Drawn {
                    new,
                    at_once,
                    held_out,
                    ..
                },
            ) => Some((*new, *at_once.max(held_out))),
            (None, Work::Fixed { .. }) => None,
        }
    }

    fn with_shorter_answers(&self, longest: usize) -> Self {
        let mut shorter = self.clone();
        if let Some(drawing) = &mut shorter.drawing {
            drawing.new = longest;
        }
        match &mut shorter.work {
            Work::Drawn { new, .. } => *new = longest,
            // Pairs are of the answers that were drawn. A revision is as long as its critic makes it.
            Work::Fixed { sizes, sides, .. } if *sides == 2 => {
                for (tokens, scored) in sizes {
                    let cut = scored.saturating_sub(2 * longest);
                    // Answers that begin alike go through the model once there.
                    *tokens = tokens.saturating_sub(cut);
                    *scored -= cut;
                }
            }
            Work::Fixed { .. } => {}
        }
        shorter
    }

    fn with_fewer_at_once(&self, count: usize) -> Self {
        let mut fewer = self.clone();
        match (&mut fewer.drawing, &mut fewer.work) {
            (Some(drawing), _) => drawing.at_once = count,
            (
                None,
                Work::Drawn {
                    at_once, held_out, ..
                },
            ) => (*at_once, *held_out) = (count.min(*at_once), count.min(*held_out)),
            (None, Work::Fixed { .. }) => {}
        }
        fewer
    }

    fn with_shorter_samples(&self, longest: usize) -> Self {
        let mut shorter = self.clone();
        if let Work::Fixed { sizes, sides, .. } = &mut shorter.work {
            for size in sizes {
                let tokens = size.0.min(longest * *sides);
                *size = (tokens, size.1.min(tokens));
            }
        }
        shorter
    }
}

/// The names that a recipe, or a stage of one, has for its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Before all of them: `sft.` of a stage, or nothing.
    prefix: &'static str,
    /// Before those of the loop, after the prefix: `train.`, or nothing.
    train: &'static str,
    /// Before `sampling`.
    sampling: &'static str,
}

impl Keys {
    /// Of what learns from fixed samples, with this before all of its names.
    pub const fn fixed(prefix: &'static str) -> Self {
        Self {
            prefix,
            train: "train.",
            sampling: prefix,
        }
    }

    /// Of what draws completions.
    pub const fn drawn(prefix: &'static str) -> Self {
        Self {
            prefix,
            train: "",
            sampling: prefix,
        }
    }

    /// Of what learns from fixed samples that are made of answers, which are drawn as the `sampling` after
    /// `drawn` says.
    pub const fn answers(prefix: &'static str, drawn: &'static str) -> Self {
        Self {
            sampling: drawn,
            ..Self::fixed(prefix)
        }
    }

    /// The micro-batch's.
    pub fn micro(&self) -> String {
        format!("{}{}micro_batch_size", self.prefix, self.train)
    }

    /// Activation checkpointing's.
    pub fn checkpointing(&self) -> String {
        format!("{}{}gradient_checkpointing", self.prefix, self.train)
    }
}
