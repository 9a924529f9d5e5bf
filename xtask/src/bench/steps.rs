//! Training steps with their times, and what is said of them.

use std::time::Instant;

use anyhow::Result;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use togi_kernels::ThreadsAwake;
use togi_policy::Decoder;
use togi_train::{
    config::OptimSection, memory, offline::Objective, optimizer::AdamW, schedule::Schedule,
};

use super::{mean, peak};

/// One step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Step {
    /// How long it took.
    pub(crate) seconds: f64,
    /// Its loss.
    pub(crate) loss: f64,
    /// Norm of the gradient before clipping.
    pub(crate) grad_norm: f64,
    /// Tokens of its sequences, each sequence counted whole.
    #[serde(default)]
    pub(crate) tokens: usize,
    /// Operations that it needs ([`super::flops::Flops`]).
    #[serde(default)]
    pub(crate) flops: f64,
}

/// Steps of one program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Steps {
    /// In order.
    pub(crate) steps: Vec<Step>,
    /// The most memory that the program used.
    pub(crate) peak_bytes: u64,
    /// What was estimated before them, where the recipe has an estimate.
    #[serde(default)]
    pub(crate) estimate_bytes: Option<u64>,
    /// The matmul peak of the machine, in FLOP/s.
    #[serde(default)]
    pub(crate) matmul_peak: Option<f64>,
    /// What was drawn, in steps that draw.
    #[serde(default)]
    pub(crate) drawn: Vec<Drawn>,
}

/// What a step has drawn.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Drawn {
    /// Tokens of all completions.
    pub(crate) tokens: usize,
    /// Mean reward of the completions.
    pub(crate) reward: f64,
    /// Mean entropy of the distributions that tokens were drawn from, in nats.
    pub(crate) entropy: f64,
}

impl Steps {
    /// The steps that count: the first warms the program up, where there are others.
    pub(crate) fn warm(&self) -> &[Step] {
        &self.steps[1.min(self.steps.len().saturating_sub(1))..]
    }

    /// Seconds a step.
    pub(crate) fn seconds(&self) -> f64 {
        mean(self.warm().iter().map(|step| step.seconds))
    }

    /// Tokens of the sequences a second.
    pub(crate) fn tokens_per_second(&self) -> f64 {
        mean(self.warm().iter().map(|step| step.tokens as f64)) / self.seconds()
    }

    /// How much of the machine's matmul peak a step reaches, from 0 to 1.
    pub(crate) fn share_of_peak(&self) -> Option<f64> {
        let flops = mean(self.warm().iter().map(|step| step.flops));
        Some(flops / self.seconds() / self.matmul_peak?)
    }

    /// Prints the steps, or one JSON object.
    pub(crate) fn print(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        for (i, step) in self.steps.iter().enumerate() {
            println!(
                "step {}: {:.3} s, loss {:.6}, gradient norm {:.4}",
                i + 1,
                step.seconds,
                step.loss,
                step.grad_norm
            );
        }
        println!(
            "{:.3} s a step, {:.0} tokens/s, peak memory {}{}",
            self.seconds(),
            self.tokens_per_second(),
            memory::human(self.peak_bytes),
            self.about_estimate()
        );
        println!("{}", self.about_peak());
        Ok(())
    }

    /// What the estimate was, beside the peak.
    fn about_estimate(&self) -> String {
        match self.estimate_bytes {
            Some(bytes) if self.peak_bytes > 0 => {
                let ratio = bytes as f64 / self.peak_bytes as f64;
                format!(" (estimate {}, {ratio:.2} of it)", memory::human(bytes))
            }
            _ => String::new(),
        }
    }

    /// One line about the matmul peak.
    pub(crate) fn about_peak(&self) -> String {
        let flops = mean(self.warm().iter().map(|step| step.flops)) / 1e9;
        match (self.share_of_peak(), self.matmul_peak) {
            (Some(share), Some(peak)) => format!(
                "{flops:.1} GFLOP a step: {:.0}% of the matmul peak of {:.1} GFLOP/s",
                100.0 * share,
                peak / 1e9
            ),
            _ => format!("{flops:.1} GFLOP a step"),
        }
    }

    /// Joins steps with what is known of the process and the machine at their end.
    fn finished(steps: Vec<Step>, device: &Device) -> Self {
        // Before the product below adds to it.
        let peak_bytes = memory::peak_of(device).unwrap_or(0);
        Self {
            steps,
            peak_bytes,
            estimate_bytes: None,
            matmul_peak: peak::of(device),
            drawn: Vec::new(),
        }
    }
}

/// A constant learning rate, so that programs agree on it without agreeing on a schedule.
pub(crate) fn constant(learning_rate: f64) -> OptimSection {
    OptimSection {
        learning_rate,
        schedule: Schedule::Constant,
        ..OptimSection::default()
    }
}

/// Takes steps on batches of an objective's samples in their order, from the first again when they are used
/// up. `recompute`: layers run again in the backward pass. `flops` says what a batch needs.
pub(crate) fn take(
    decoder: &mut Decoder,
    objective: &impl Objective,
    batch_size: usize,
    count: usize,
    optim: &OptimSection,
    recompute: bool,
    flops: impl Fn(&Decoder, &[usize]) -> f64,
) -> Result<Steps> {
    let steps = take_only(
        decoder, objective, batch_size, count, optim, recompute, flops,
    )?;
    Ok(Steps::finished(steps, decoder.device()))
}

/// [`take`], without measuring anything beside the steps.
pub(crate) fn take_only(
    decoder: &mut Decoder,
    objective: &impl Objective,
    batch_size: usize,
    count: usize,
    optim: &OptimSection,
    recompute: bool,
    flops: impl Fn(&Decoder, &[usize]) -> f64,
) -> Result<Vec<Step>> {
    let mut adam = AdamW::new(&decoder.params);
    let mut steps = Vec::with_capacity(count);
    let _awake = ThreadsAwake::new();
    for step in 0..count {
        let first = step * batch_size;
        let batch: Vec<usize> = (first..first + batch_size)
            .map(|i| i % objective.len())
            .collect();
        let flops = flops(decoder, &batch);
        let started = Instant::now();
        let weights = decoder.tracked().with_checkpointing(recompute);
        let whole = objective.begin(decoder, &batch)?;
        let (loss, row) = objective.loss(decoder, &weights, &batch, &whole)?;
        let grads = decoder.gradients(&weights, loss)?;
        drop(weights);
        let grad_norm = adam.update(&mut decoder.params, grads, optim, optim.learning_rate);
        steps.push(Step {
            seconds: started.elapsed().as_secs_f64(),
            loss: row.get("loss").unwrap_or(f64::NAN),
            grad_norm,
            tokens: batch.iter().map(|i| objective.tokens(*i)).sum(),
            flops,
        });
    }
    Ok(steps)
}
