//! `cargo xtask bench`: how long steps take, alone and beside the Python stack on the same data.

mod context;
mod flops;
mod memory;
mod offline;
mod online;
mod pairs;
mod peak;
mod peers;
mod sampling;
mod steps;
mod stolen;
mod tiny;

use anyhow::Result;
use clap::{Args, Subcommand, builder::RangedU64ValueParser};
use togi_policy::{Policy, source::Source};

use crate::{
    bench_algorithms::{self, AlgorithmsArguments},
    bench_annotation::{self, AnnotationArguments},
    device,
};

#[derive(Args)]
pub(crate) struct BenchArguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// DPO steps on pairs in the order of the file.
    Dpo(offline::OfflineArguments),
    /// SFT steps on the chosen answers of pairs.
    Sft(offline::OfflineArguments),
    /// Whole GRPO steps: drawing, scoring, the update.
    Grpo(online::OnlineArguments),
    /// Whole PPO steps, with a value model.
    Ppo(online::OnlineArguments),
    /// Sampling from random prompts, the end token ignored.
    Generate(sampling::GenerateArguments),
    /// Training steps of a decoder of a million parameters.
    Tiny(tiny::TinyArguments),
    /// The matmul peak of this machine.
    Matmul(peak::MatmulArguments),
    /// What a token costs in training, by the length of its sequence.
    Context(context::ContextArguments),
    /// Whether a long PPO run keeps to the memory of its first steps.
    Memory(memory::MemoryArguments),
    /// Training and sampling, in turn with TRL, transformers and PyTorch.
    Peers(peers::PeerArguments),
    /// Every algorithm on the lab: gold reward, KL, diversity, time.
    Algorithms(AlgorithmsArguments),
    /// How many labels an accurate reward model takes on the lab, by how they are chosen.
    Annotation(AnnotationArguments),
}

#[derive(Args, Clone)]
struct Common {
    /// The model.
    #[arg(long, value_name = "SRC")]
    model: String,
    /// `cpu`, `wgpu`, or `cuda` with `:n` for a further GPU.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &BenchArguments) -> Result<()> {
    match &arguments.what {
        What::Dpo(arguments) => offline::dpo(arguments),
        What::Sft(arguments) => offline::sft(arguments),
        What::Grpo(arguments) => online::grpo(arguments),
        What::Ppo(arguments) => online::ppo(arguments),
        What::Generate(arguments) => sampling::run(arguments),
        What::Tiny(arguments) => tiny::run(arguments),
        What::Matmul(arguments) => peak::run(arguments),
        What::Context(arguments) => context::run(arguments),
        What::Memory(arguments) => memory::run(arguments),
        What::Peers(arguments) => peers::run(arguments),
        What::Algorithms(arguments) => bench_algorithms::run(arguments),
        What::Annotation(arguments) => bench_annotation::run(arguments),
    }
}

/// The model of a bench that trains.
fn load_to_train(common: &Common) -> Result<Policy> {
    let device = device::parse_to_train(&common.device)?;
    Ok(Source::parse(&common.model)?.load(&device, 0)?)
}

/// The middle value; NaN without values.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The mean; NaN without values.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(s, n), x| (s + x, n + 1.0));
    sum / count
}

/// What counts something: a number from 1 on.
fn at_least_one() -> RangedU64ValueParser {
    clap::value_parser!(u64).range(1..)
}
