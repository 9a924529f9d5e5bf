//! `cargo xtask bench memory`: whether a long PPO run keeps to the memory of its first steps.

use anyhow::{Result, anyhow};
use burn::tensor::Device;
use clap::Args;
use serde::Serialize;
use togi_data::tokenize;
use togi_kernels::is_cpu;
use togi_policy::{Sampling, source};
use togi_reward::LabGold;
use togi_train::{
    data::{DataSource, LabRows, samples},
    memory::{self, Watch},
    metrics::{Event, Observer},
    offline::Stage,
    ppo::{self, Models, PpoConfig},
    run_folder::RunFolder,
};

use super::{device, median, steps::constant};
use crate::InputError;

#[derive(Args, Clone)]
pub(crate) struct MemoryArguments {
    /// Steps of PPO.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(60..))]
    steps: u64,
    /// Exit with an error where memory grows.
    #[arg(long)]
    check: bool,
    /// `cpu`, `wgpu`, or `cuda` with `:n` for a further GPU. Of a GPU its own memory is looked at.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Print one JSON object, with the memory after each step.
    #[arg(long)]
    json: bool,
}

/// Steps that warm the program up, and the steps after them that later ones are compared with.
const WARM: usize = 20;
const BASE: usize = 20;
/// The last steps, which are compared.
const LAST: usize = 100;
/// How much more memory they may take: a share, and bytes.
const SHARE: f64 = 0.03;
const BYTES: f64 = 8e6;

/// What a run came to.
#[derive(Clone, Debug, Serialize)]
struct Flatness {
    /// Median of the steps after the warm-up, in bytes.
    base: f64,
    /// Median of the last steps.
    last: f64,
    /// Bytes a step, by least squares over the steps after the warm-up.
    slope: f64,
    /// Memory after each step; of a GPU what its pools have reserved.
    resident: Vec<u64>,
}

impl Flatness {
    /// At least 60 steps.
    fn of(resident: Vec<u64>) -> Self {
        let after = &resident[WARM..];
        let last = LAST.min((after.len() - BASE) / 2);
        let middle = |part: &[u64]| median(part.iter().map(|bytes| *bytes as f64).collect());
        let n = after.len() as f64;
        let mean_x = (n - 1.0) / 2.0;
        let mean_y = after.iter().sum::<u64>() as f64 / n;
        let (mut over, mut under) = (0.0, 0.0);
        for (x, y) in after.iter().enumerate() {
            let x = x as f64 - mean_x;
            over += x * (*y as f64 - mean_y);
            under += x * x;
        }
        Self {
            base: middle(&after[..BASE]),
            last: middle(&after[after.len() - last..]),
            slope: over / under,
            resident,
        }
    }

    fn is_flat(&self) -> bool {
        self.last <= self.base * (1.0 + SHARE) + BYTES
    }
}

/// The untrained model of the lab, its true reward, a step of 16 completions; checkpoints as a run writes them.
pub(crate) fn run(arguments: &MemoryArguments) -> Result<()> {
    let device = device::parse_to_train(&arguments.device)?;
    if memory::used(&device).is_none() {
        let text = format!(
            "--device {}: this system does not tell how much memory is used there",
            arguments.device
        );
        return Err(InputError(text).into());
    }
    let found = Flatness::of(measure(arguments.steps, &device)?);
    if arguments.json {
        println!("{}", serde_json::to_string(&found)?);
    } else {
        let what = match is_cpu(&device) {
            true => "resident",
            false => "reserved",
        };
        println!(
            "{what} memory: {} after steps {} to {}, {} at the end; {:+.2} kB a step; the most was {}",
            memory::human(found.base as u64),
            WARM + 1,
            WARM + BASE,
            memory::human(found.last as u64),
            found.slope / 1e3,
            memory::human(memory::peak_of(&device).unwrap_or(0))
        );
    }
    if found.is_flat() {
        return Ok(());
    }
    let text = format!(
        "memory grows: {} at the end, where {} plus {:.0}% and {} would be flat",
        memory::human(found.last as u64),
        memory::human(found.base as u64),
        100.0 * SHARE,
        memory::human(BYTES as u64)
    );
    if arguments.check {
        return Err(anyhow!(text));
    }
    eprintln!("{text}");
    Ok(())
}

/// Reads the memory after each step.
struct Watcher {
    device: Device,
    after: Vec<u64>,
}

impl Observer for Watcher {
    fn on(&mut self, event: Event<'_>) {
        if let Event::Step { .. } = event {
            self.after.push(memory::used(&self.device).unwrap_or(0));
        }
    }
}

fn measure(steps: u64, device: &Device) -> Result<Vec<u64>> {
    let mut policy = source::lab(device, 0)?;
    let reference = policy.decoder.clone();
    let mut value = policy.decoder.with_score_head(Some(0))?;
    let config = PpoConfig {
        max_steps: steps,
        prompts_per_step: 16,
        epochs: 2,
        minibatch_size: 8,
        micro_batch_size: 8,
        sampling: Sampling {
            max_new_tokens: 16,
            ..Sampling::default()
        },
        optim: constant(1e-5),
        value_learning_rate: 1e-4,
        ..PpoConfig::default()
    };
    let options = config.data.options(togi_data::LossOn::Completion);
    let prompts = samples(
        &DataSource::Lab,
        LabRows::Prompts,
        &config.data,
        0,
        &policy.tokenizer,
        &options,
        tokenize::prompt,
    )?;
    let folder = tempfile::tempdir()?;
    let run = RunFolder::open(&folder.path().join("run"), "", false)?;
    let mut watch = Watcher {
        device: device.clone(),
        after: Vec::new(),
    };
    let mut stage = Stage {
        name: "ppo",
        run: &run,
        seed: 0,
        observer: &mut watch,
        watch: Watch::default(),
    };
    let mut models = Models {
        policy: &mut policy.decoder,
        reference: &reference,
        value: &mut value,
        reward: &LabGold,
        gold: None,
        tokenizer: &policy.tokenizer,
    };
    ppo::train(
        &mut stage,
        &mut models,
        &prompts.train,
        &prompts.valid,
        &config,
    )?;
    Ok(watch.after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_grows_is_told_from_one_that_does_not() {
        let wobbling = |i: u64| 100_000_000 + (i % 7) * 500_000;
        let flat = Flatness::of((0..500).map(wobbling).collect());
        assert!(flat.is_flat() && flat.slope.abs() < 1e3, "{}", flat.slope);
        let leaking = Flatness::of((0..500).map(|i| wobbling(i) + i * 60_000).collect());
        assert!(!leaking.is_flat());
        assert!((leaking.slope - 60_000.0).abs() < 1e3, "{}", leaking.slope);
        // What grows while it warms up does not count, and a short run is looked at as well.
        let warming = |i: u64| wobbling(i) - 4_000_000 * 20_u64.saturating_sub(i);
        assert!(Flatness::of((0..120).map(warming).collect()).is_flat());
        assert!(!Flatness::of((0..120).map(|i| wobbling(i) + i * 300_000).collect()).is_flat());
    }
}
