//! How much of the processor the host of a virtual machine gives to others while something runs.

use std::fs;

use anyhow::Result;

/// Processor time since the system started, in ticks of all cores.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ticks {
    used: u64,
    /// Something wanted to run, and the host ran another guest.
    stolen: u64,
}

impl Ticks {
    /// None where the system does not tell: it has /proc/stat on Linux.
    fn now() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let numbers = text.lines().next()?.strip_prefix("cpu ")?;
        let numbers: Vec<u64> = numbers
            .split_whitespace()
            .map_while(|x| x.parse().ok())
            .collect();
        let [
            user,
            nice,
            system,
            _idle,
            _waiting,
            irq,
            soft_irq,
            stolen,
            ..,
        ] = numbers[..]
        else {
            return None;
        };
        Some(Self {
            used: user + nice + system + irq + soft_irq,
            stolen,
        })
    }

    /// Of the time in which something wanted to run.
    fn share_since(self, earlier: Self) -> Option<f64> {
        let used = self.used.checked_sub(earlier.used)?;
        let stolen = self.stolen.checked_sub(earlier.stolen)?;
        (used + stolen > 0).then(|| stolen as f64 / (used + stolen) as f64)
    }
}

/// Does the work, and says which share of the processor was stolen from the machine meanwhile, where that is known.
pub(crate) fn during<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Option<f64>)> {
    let before = Ticks::now();
    let done = work()?;
    let share = before.and_then(|before| Ticks::now()?.share_since(before));
    Ok((done, share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_time_in_which_something_wanted_to_run() {
        let at = |text| Ticks::parse(text).unwrap();
        let before = at("cpu  100 10 20 500 7 1 2 30 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n");
        assert_eq!(
            before,
            Ticks {
                used: 133,
                stolen: 30
            }
        );
        let after = at("cpu  150 10 40 900 7 1 2 60 0 0\n");
        assert_eq!(after.share_since(before), Some(0.3));
        assert_eq!(before.share_since(before), None);
        assert_eq!(before.share_since(after), None);
        assert_eq!(Ticks::parse("cpu  1 2 3\n"), None);
        assert_eq!(Ticks::parse("intr 1\n"), None);
    }
}
