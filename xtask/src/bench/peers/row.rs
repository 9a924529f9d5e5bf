//! What is measured beside the Python stack: a row of the table each.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use togi_policy::Precision;

use crate::bench::{
    mean, median,
    offline::LEARNING_RATE,
    online::{GROUP, KL_COEF, MICRO_BATCH},
    sampling::Rates,
    steps::Steps,
};

/// A row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Row {
    /// A DPO step of all weights, four pairs.
    Dpo,
    /// The same of an adapter of rank 16 on all linear layers, beside PEFT.
    DpoLora,
    /// An SFT step on the chosen answers of four pairs.
    Sft,
    /// A GRPO step: 8 prompts, 4 completions of 64 tokens each, the update.
    Grpo,
    /// A PPO step with as many completions, beside TRL's GRPO: TRL has no PPO.
    Ppo,
    /// Sampling, one sequence of 64 + 96 tokens.
    #[value(name = "generate-1")]
    Generate1,
    /// Sampling, 16 sequences of 64 + 96 tokens.
    #[value(name = "generate-16")]
    Generate16,
    /// A training step of a decoder of 1.1 million parameters, beside eager PyTorch.
    Tiny,
}

/// Pairs of a step.
pub(crate) const PAIRS: usize = 4;
/// Rank of the adapter.
pub(crate) const RANK: usize = 16;
/// Completions of an online step, and prompts of GRPO's.
pub(crate) const COMPLETIONS: usize = 32;
/// Tokens of a prompt in steps that draw, and tokens that are drawn.
pub(crate) const PROMPT: usize = 64;
const DRAWN: usize = 64;
/// Steps of the small decoder.
const TINY_STEPS: usize = 40;

/// What a program came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Measured {
    Steps(Steps),
    Rates(Rates),
}

impl Measured {
    pub(crate) fn peak_bytes(&self) -> u64 {
        match self {
            Self::Steps(steps) => steps.peak_bytes,
            Self::Rates(rates) => rates.peak_bytes,
        }
    }

    /// What one run came to, in words.
    pub(super) fn summary(&self) -> String {
        match self {
            Self::Steps(steps) => format!("{:.3} s a step", steps.seconds()),
            Self::Rates(rates) => {
                format!("{:.1} tokens/s", median(rates.tokens_per_second.clone()))
            }
        }
    }

    fn steps(&self) -> Result<&Steps> {
        match self {
            Self::Steps(steps) => Ok(steps),
            Self::Rates(_) => bail!("a program that trains printed rates of sampling"),
        }
    }
}

/// Where the programs find what they work on.
pub(crate) struct Place {
    pub(crate) python: PathBuf,
    pub(crate) scripts: PathBuf,
    pub(crate) model: String,
    /// Of both programs: `--device`, and its number among GPUs.
    pub(crate) device: String,
    pub(crate) gpu: Option<usize>,
    /// Of both programs: `--dtype`.
    pub(crate) precision: Precision,
    pub(crate) threads: String,
    pub(crate) steps: usize,
    /// Has what [`super::prepare`] writes.
    pub(crate) folder: PathBuf,
}

impl Place {
    pub(crate) fn pairs(&self) -> PathBuf {
        self.folder.join("pairs.jsonl")
    }

    pub(crate) fn prompts(&self) -> PathBuf {
        self.folder.join("prompts.jsonl")
    }

    pub(crate) fn sampled(&self, batch: usize) -> PathBuf {
        self.folder.join(format!("prompts-{batch}.json"))
    }

    pub(crate) fn adapter(&self) -> PathBuf {
        self.folder.join("adapter")
    }

    /// PyTorch's name of the precision.
    pub(crate) fn dtype(&self) -> &'static str {
        match self.precision {
            Precision::F32 => "float32",
            Precision::Bf16 => "bfloat16",
            Precision::F16 => "float16",
        }
    }

    fn small(&self) -> PathBuf {
        self.folder.join("small")
    }

    fn script(&self, name: &str) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(self.scripts.join(name));
        if let Some(gpu) = self.gpu {
            // TRL would use all that it sees.
            let inherited = std::env::var("CUDA_VISIBLE_DEVICES").ok();
            command.env("CUDA_VISIBLE_DEVICES", seen(inherited.as_deref(), gpu));
            command.env("TOGI_PEERS_DEVICE", "cuda");
        }
        command
    }

    fn ours(&self, what: &str) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", what, "--json", "--device", &self.device]);
        command.args(["--dtype", self.precision.name()]);
        if what != "tiny" {
            command.args(["--model", &self.model]);
        }
        Ok(command)
    }
}

/// CUDA's name of the GPU that is the n-th of those that this process sees.
fn seen(inherited: Option<&str>, gpu: usize) -> String {
    let entry = inherited.and_then(|list| list.split(',').nth(gpu));
    entry.map_or_else(|| gpu.to_string(), |entry| entry.trim().to_owned())
}

impl Row {
    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What it is, for the table.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Dpo => "DPO step, all weights",
            Self::DpoLora => "DPO step, LoRA r=16",
            Self::Sft => "SFT step",
            Self::Grpo => "GRPO step",
            Self::Ppo => "PPO step (TRL: GRPO)",
            Self::Generate1 => "sampling, batch 1",
            Self::Generate16 => "sampling, batch 16",
            Self::Tiny => "step of a small decoder",
        }
    }

    pub(crate) fn reads_pairs(self) -> bool {
        matches!(self, Self::Dpo | Self::DpoLora | Self::Sft)
    }

    pub(crate) fn is_online(self) -> bool {
        matches!(self, Self::Grpo | Self::Ppo)
    }

    /// Sequences that are sampled, in rows that only sample.
    pub(crate) fn sampled(self) -> Option<usize> {
        match self {
            Self::Generate1 => Some(1),
            Self::Generate16 => Some(16),
            _ => None,
        }
    }

    /// The row whose Python program this row is compared with.
    pub(crate) fn peer(self) -> Self {
        match self {
            Self::Ppo => Self::Grpo,
            other => other,
        }
    }

    /// Runs the Python program.
    pub(crate) fn theirs(self, place: &Place) -> Result<Measured> {
        let steps = place.steps.to_string();
        let rate = LEARNING_RATE.to_string();
        let mut command = match self {
            Self::Dpo | Self::DpoLora => {
                let mut command = place.script("trl_dpo.py");
                let adapter = match self {
                    Self::DpoLora => place.adapter(),
                    _ => PathBuf::new(),
                };
                command.arg(&place.model).arg(place.pairs());
                command.args([&PAIRS.to_string(), &steps, &rate, place.dtype()]);
                command.arg(&place.threads).arg(adapter);
                command
            }
            Self::Sft => {
                let mut command = place.script("trl_sft.py");
                command.arg(&place.model).arg(place.pairs());
                command.args([&PAIRS.to_string(), &steps, &rate, place.dtype()]);
                command.arg(&place.threads);
                command
            }
            Self::Grpo | Self::Ppo => {
                let mut command = place.script("trl_grpo.py");
                command.arg(&place.model).arg(place.prompts());
                command.args([COMPLETIONS, GROUP, DRAWN, MICRO_BATCH].map(|n| n.to_string()));
                command.args([&steps, &KL_COEF.to_string(), &rate]);
                command.args([place.dtype(), &place.threads]);
                command
            }
            Self::Generate1 | Self::Generate16 => {
                let mut command = place.script("hf_generate.py");
                let batch = self.sampled().unwrap_or(1);
                command.arg(&place.model).arg(place.sampled(batch));
                command.args(["96", place.dtype(), &place.threads, "3"]);
                command
            }
            Self::Tiny => {
                let mut command = place.script("tiny_decoder.py");
                command.arg(place.small());
                command.args([&TINY_STEPS.to_string(), &place.threads]);
                command
            }
        };
        printed(&mut command)
    }

    /// Runs this program.
    pub(crate) fn ours(self, place: &Place) -> Result<Measured> {
        let steps = place.steps.to_string();
        let mut command = match self {
            Self::Dpo | Self::DpoLora => {
                let mut command = place.ours("dpo")?;
                command.arg("--data").arg(place.pairs());
                command.args(["--batch", &PAIRS.to_string(), "--steps", &steps]);
                if self == Self::DpoLora {
                    command.args(["--lora", &RANK.to_string()]);
                }
                command
            }
            Self::Sft => {
                let mut command = place.ours("sft")?;
                command.arg("--data").arg(place.pairs());
                command.args(["--batch", &PAIRS.to_string(), "--steps", &steps]);
                command
            }
            Self::Grpo | Self::Ppo => {
                let mut command = place.ours(&self.name())?;
                command.arg("--data").arg(place.prompts());
                let sizes = [COMPLETIONS, PROMPT, DRAWN].map(|n| n.to_string());
                command.args(["--completions", &sizes[0], "--prompt", &sizes[1]]);
                command.args(["--new", &sizes[2], "--steps", &steps]);
                command
            }
            Self::Generate1 | Self::Generate16 => {
                let batch = self.sampled().unwrap_or(1).to_string();
                let mut command = place.ours("generate")?;
                command.args(["--batch", &batch]);
                command
            }
            Self::Tiny => {
                let mut command = place.ours("tiny")?;
                command.args(["--steps", &TINY_STEPS.to_string(), "--folder"]);
                command.arg(place.small());
                command
            }
        };
        printed(&mut command)
    }

    /// Whether ours runs first, since it writes what the other reads.
    pub(crate) fn writes_for_peer(self) -> bool {
        self == Self::Tiny
    }

    /// How the two runs agree, in words.
    ///
    /// # Errors
    /// When they do not do the same work.
    pub(crate) fn agreement(
        self,
        theirs: &Measured,
        ours: &Measured,
        precision: Precision,
    ) -> Result<String> {
        if self.sampled().is_some() {
            return Ok("equal numbers of tokens".to_owned());
        }
        let (theirs, ours) = (theirs.steps()?, ours.steps()?);
        if self.is_online() {
            return self.draws_agree(theirs, ours);
        }
        if theirs.steps.len() != ours.steps.len() {
            bail!(
                "{}: {} steps of Python, {} of Togi",
                self.name(),
                theirs.steps.len(),
                ours.steps.len()
            );
        }
        let tolerance = if precision == Precision::F32 {
            1e-3
        } else {
            0.05
        };
        let off = theirs.steps.iter().zip(&ours.steps);
        let off = off.map(|(a, b)| (a.loss - b.loss).abs());
        let off = off.fold(0.0, |worst: f64, x| match worst.is_nan() || x.is_nan() {
            true => f64::NAN,
            false => worst.max(x),
        });
        if is_beyond(off, tolerance) {
            bail!(
                "{}: losses of a step differ by {off:.1e}: the two do not do the same work",
                self.name()
            );
        }
        Ok(format!("losses within {off:.1e}"))
    }

    /// Completions are drawn with other random numbers, so that rewards and entropies can agree on average only;
    /// their lengths are equal.
    fn draws_agree(self, theirs: &Steps, ours: &Steps) -> Result<String> {
        let count =
            |steps: &Steps| -> Vec<usize> { steps.drawn.iter().map(|d| d.tokens).collect() };
        let name = self.name();
        if count(theirs) != count(ours) || ours.drawn.is_empty() {
            bail!(
                "{name}: tokens drawn are {:?} of Python and {:?} of Togi",
                count(theirs),
                count(ours)
            );
        }
        let reward = |steps: &Steps| mean(steps.drawn.iter().map(|d| d.reward));
        let entropy = |steps: &Steps| mean(steps.drawn.iter().map(|d| d.entropy));
        let (a, b) = (reward(theirs), reward(ours));
        if is_beyond((a - b).abs(), REWARD_TOLERANCE) {
            bail!("{name}: the mean reward is {a:.3} of Python and {b:.3} of Togi");
        }
        let said = format!("{} tokens a step; reward {a:.3} and {b:.3}", count(ours)[0]);
        // PPO's prompts are not GRPO's.
        if self == Self::Ppo {
            return Ok(said);
        }
        let (a, b) = (entropy(theirs), entropy(ours));
        if is_beyond((a - b).abs(), ENTROPY_TOLERANCE * b) {
            bail!("{name}: the mean entropy is {a:.3} nats of Python and {b:.3} of Togi");
        }
        Ok(format!("{said}; entropy {a:.2} and {b:.2} nats"))
    }

    /// The middle of times or rates: batches of the small decoder are alike, those of other rows differ in length,
    /// so that each counts.
    pub(crate) fn middle(self, values: Vec<f64>) -> f64 {
        match self {
            Self::Dpo | Self::DpoLora | Self::Sft | Self::Grpo | Self::Ppo => {
                mean(values.into_iter())
            }
            Self::Generate1 | Self::Generate16 | Self::Tiny => median(values),
        }
    }
}

/// How far mean rewards of some thousand tokens may be apart: their deviation is about 0.01.
const REWARD_TOLERANCE: f64 = 0.08;
/// Of mean entropies, as a share.
const ENTROPY_TOLERANCE: f64 = 0.2;

/// NaN is beyond everything.
fn is_beyond(off: f64, tolerance: f64) -> bool {
    off.is_nan() || tolerance.is_nan() || off > tolerance
}

/// Runs a program and reads the last line that it prints as JSON.
fn printed(command: &mut Command) -> Result<Measured> {
    let program = command.get_program().to_string_lossy().into_owned();
    let what = command.get_args().next().unwrap_or_default();
    let name = match Path::new(what).file_name() {
        Some(script) => format!("{program} {}", script.to_string_lossy()),
        None => program,
    };
    let output = command.output().with_context(|| name.clone())?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let last = said.trim().lines().last().unwrap_or("");
        return Err(anyhow!("{name} failed ({}): {last}", output.status));
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    let last = printed.trim().lines().last().unwrap_or("");
    serde_json::from_str(last).with_context(|| format!("{name} printed `{last}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::steps::{Drawn, Step};

    fn steps(losses: &[f64], drawn: &[(usize, f64, f64)]) -> Measured {
        let step = |loss: &f64| Step {
            seconds: 1.0,
            loss: *loss,
            grad_norm: 1.0,
            tokens: 0,
            flops: 0.0,
        };
        let drawn = drawn.iter().map(|(tokens, reward, entropy)| Drawn {
            tokens: *tokens,
            reward: *reward,
            entropy: *entropy,
        });
        Measured::Steps(Steps {
            steps: losses.iter().map(step).collect(),
            peak_bytes: 1,
            estimate_bytes: None,
            matmul_peak: Some(1.0),
            drawn: drawn.collect(),
        })
    }

    #[test]
    fn losses_that_differ_end_the_comparison() {
        let agree = |a: &[f64], b: &[f64], precision| {
            Row::Sft.agreement(&steps(a, &[]), &steps(b, &[]), precision)
        };
        assert!(agree(&[2.0, 1.0], &[2.0005, 1.0], Precision::F32).is_ok());
        assert!(agree(&[2.0, 1.0], &[2.0, 1.01], Precision::F32).is_err());
        assert!(agree(&[2.0, 1.0], &[2.0, 1.01], Precision::Bf16).is_ok());
        assert!(agree(&[2.0], &[f64::NAN], Precision::F32).is_err());
        assert!(agree(&[2.0], &[2.0, 1.0], Precision::F32).is_err());
    }

    #[test]
    fn completions_of_other_lengths_or_another_policy_end_the_comparison() {
        let agree = |row: Row, a, b| {
            row.agreement(&steps(&[0.0], &[a]), &steps(&[0.0], &[b]), Precision::F32)
        };
        let ours = (2048, 0.5, 2.0);
        assert!(agree(Row::Grpo, (2048, 0.52, 2.1), ours).is_ok());
        assert!(agree(Row::Grpo, (2000, 0.5, 2.0), ours).is_err());
        assert!(agree(Row::Grpo, (2048, 0.7, 2.0), ours).is_err());
        assert!(agree(Row::Grpo, (2048, 0.5, 4.0), ours).is_err());
        assert!(agree(Row::Ppo, (2048, 0.5, 4.0), ours).is_ok());
    }

    #[test]
    fn python_sees_the_gpu_that_togi_counts_in_what_it_sees() {
        assert_eq!(seen(None, 1), "1");
        assert_eq!(seen(Some("2"), 0), "2");
        assert_eq!(seen(Some("3, GPU-8f2c"), 1), "GPU-8f2c");
    }

    #[test]
    fn what_a_program_prints_is_told_apart() {
        let steps = r#"{"steps": [{"seconds": 1, "loss": 2, "grad_norm": 3}], "peak_bytes": 4}"#;
        assert!(matches!(
            serde_json::from_str(steps),
            Ok(Measured::Steps(_))
        ));
        let rates = r#"{"tokens_per_second": [1.5], "peak_bytes": 4}"#;
        assert!(matches!(
            serde_json::from_str(rates),
            Ok(Measured::Rates(_))
        ));
    }
}
