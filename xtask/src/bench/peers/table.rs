//! The comparison as a table.

use serde::Serialize;
use togi_train::memory;

use super::{
    Runs,
    row::{Measured, Place, Row},
};
use crate::bench::mean;

/// Where the host took more of the processor than this, times say little.
const MUCH_STOLEN: f64 = 0.05;

/// One row of the table, `[Python, Togi]`.
#[derive(Serialize)]
pub(super) struct Line {
    row: String,
    about: &'static str,
    dtype: String,
    /// Seconds a step; none where only sampling is measured.
    seconds: Option<[f64; 2]>,
    tokens_per_second: [f64; 2],
    /// How many times as fast Togi is.
    faster: f64,
    peak_bytes: [u64; 2],
    /// Togi's memory beside Python's.
    memory: f64,
    /// How much of the machine's matmul peak Togi's step reaches.
    share_of_peak: Option<f64>,
    /// The share of the processor that the host of a virtual machine took meanwhile, where it is known.
    stolen: Option<[f64; 2]>,
    /// What was compared, and how far apart it is.
    agreement: String,
    /// What the programs printed, a pair a round.
    runs: Vec<[Measured; 2]>,
}

/// Each value of all rounds.
fn all(runs: &[Measured], of: impl Fn(&Measured) -> Vec<f64>) -> Vec<f64> {
    runs.iter().flat_map(of).collect()
}

fn seconds(measured: &Measured) -> Vec<f64> {
    match measured {
        Measured::Steps(steps) => steps.warm().iter().map(|step| step.seconds).collect(),
        Measured::Rates(_) => Vec::new(),
    }
}

fn rates(measured: &Measured) -> Vec<f64> {
    match measured {
        Measured::Steps(_) => Vec::new(),
        Measured::Rates(rates) => rates.tokens_per_second.clone(),
    }
}

/// The means of all rounds.
fn stolen(rounds: &[[Option<f64>; 2]]) -> Option<[f64; 2]> {
    let pairs = rounds.iter().map(|[a, b]| Some([(*a)?, (*b)?]));
    let pairs: Vec<[f64; 2]> = pairs.collect::<Option<_>>()?;
    Some([0, 1].map(|i| mean(pairs.iter().map(|pair| pair[i]))))
}

impl Line {
    pub(super) fn of(runs: &Runs, place: &Place) -> Self {
        let Runs {
            row, theirs, ours, ..
        } = runs;
        let both = |of: &dyn Fn(&[Measured]) -> f64| [of(theirs), of(ours)];
        let tokens = |measured: &Measured| match measured {
            Measured::Steps(steps) => steps.warm().iter().map(|s| s.tokens as f64).collect(),
            Measured::Rates(_) => Vec::new(),
        };
        // Both programs work on the same sequences, which ours has counted.
        let tokens = mean(all(ours, tokens).into_iter());
        let share = |measured: &Measured| match measured {
            Measured::Steps(steps) => steps.share_of_peak(),
            Measured::Rates(_) => None,
        };
        let (seconds, tokens_per_second, share_of_peak) = match row.sampled() {
            Some(_) => (None, both(&|runs| row.middle(all(runs, rates))), None),
            None => {
                let seconds = both(&|runs| row.middle(all(runs, seconds)));
                let shares: Option<Vec<f64>> = ours.iter().map(share).collect();
                let share = shares.map(|shares| mean(shares.into_iter()));
                (Some(seconds), seconds.map(|s| tokens / s), share)
            }
        };
        let peak = |runs: &[Measured]| runs.iter().map(Measured::peak_bytes).max().unwrap_or(0);
        let peak_bytes = [peak(theirs), peak(ours)];
        Self {
            row: row.name(),
            about: row.about(),
            dtype: place.dtype().to_owned(),
            seconds,
            tokens_per_second,
            faster: tokens_per_second[1] / tokens_per_second[0],
            peak_bytes,
            memory: peak_bytes[1] as f64 / peak_bytes[0] as f64,
            share_of_peak,
            stolen: stolen(&runs.stolen),
            agreement: runs.agreement.clone(),
            runs: theirs
                .iter()
                .zip(ours)
                .map(|(a, b)| [a.clone(), b.clone()])
                .collect(),
        }
    }

    fn is(&self, row: Row) -> bool {
        self.row == row.name()
    }
}

/// Prints the lines for people.
pub(super) fn print(lines: &[Line]) {
    for line in lines {
        println!("{} ({}; {})", line.about, line.dtype, line.agreement);
        println!("                     Python        Togi   ratio");
        if let Some([a, b]) = line.seconds {
            let (scale, unit) = if line.is(Row::Tiny) {
                (1e3, "ms a step")
            } else {
                (1.0, "seconds a step")
            };
            let [a, b] = [scale * a, scale * b];
            let digits = if a.min(b) < 1.0 { 4 } else { 2 };
            println!(
                "  {unit:<14} {a:>10.digits$} {b:>11.digits$}   {:.2}x",
                a / b
            );
        }
        let [a, b] = line.tokens_per_second;
        println!("  tokens/s       {a:>10.1} {b:>11.1}   {:.2}x", line.faster);
        let [a, b] = line.peak_bytes.map(memory::human);
        println!("  peak memory    {a:>10} {b:>11}   {:.2}", line.memory);
        if let Some(share) = line.share_of_peak {
            println!("  of the matmul peak        {:>10.0}%", 100.0 * share);
        }
        if let Some([a, b]) = line.stolen {
            let [a_percent, b_percent] = [100.0 * a, 100.0 * b];
            println!("  stolen         {a_percent:>9.0}% {b_percent:>10.0}%");
            if a.max(b) > MUCH_STOLEN {
                println!(
                    "  The host gave that share of the processor to others: these times say little."
                );
            }
        }
    }
}
