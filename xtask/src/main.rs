//! Togi's command line: `cargo xtask <command>`.

mod agreement;
mod ai_feedback;
mod bench;
mod bench_algorithms;
mod bench_annotation;
mod budget;
mod control;
mod device;
mod eval;
mod export;
mod feedback;
mod fetch;
mod generate;
mod inspect;
mod judge;
mod progress;
mod recipe;
mod score;
mod scorer;
mod select;
mod session;
mod staged;
mod train;
mod versus;

use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::{Parser, Subcommand};
use togi_data::DataError;
use togi_feedback::FeedbackError;
use togi_policy::{PolicyError, Precision};
use togi_reward::control::ControlError;
use togi_train::{
    TrainError,
    memory::{refused, unless_refused},
};

#[derive(Parser)]
#[command(
    name = "xtask",
    bin_name = "cargo xtask",
    about = "Tunes language models to what people want"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Precision of products with weights: f32, bf16, or f16 on a GPU that has it (not for training).
    /// Weights, optimiser, log-probabilities and losses stay f32.
    #[arg(long, global = true, default_value = "f32", value_name = "TYPE")]
    dtype: Precision,
}

#[derive(Subcommand)]
enum Command {
    /// Run a training recipe.
    Train(Box<train::TrainArguments>),
    /// List the recipes.
    Recipes,
    /// List the devices that this build and this machine offer.
    Devices,
    /// Show what a recipe would train on: samples as tokens, lengths, configuration, memory.
    Inspect(Box<inspect::InspectArguments>),
    /// Bring a model to this machine.
    Fetch(fetch::FetchArguments),
    /// Say what a reward thinks of answers in files.
    Score(score::ScoreArguments),
    /// Let people judge answers, and turn their judgements into rows to train on.
    Feedback(feedback::FeedbackArguments),
    /// Measure models, or reward models, and compare them.
    Eval(Box<eval::EvalArguments>),
    /// Complete prompts.
    Generate(generate::GenerateArguments),
    /// Talk with a model.
    Chat(generate::ChatArguments),
    /// Measure steps and sampling, alone and beside the Python stack.
    Bench(bench::BenchArguments),
    /// Run the tests: `cargo test --workspace` with what follows.
    Test {
        /// Arguments of `cargo test`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Write a model as a folder that other programs read.
    Export(export::ExportArguments),
}

/// A mistake of the user's that the command line itself finds.
#[derive(Debug)]
struct InputError(String);

impl std::fmt::Display for InputError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InputError {}

/// Ends the program quietly, as the shell's own would, where what reads its output has gone: `cargo xtask recipes |
/// head -1`. Rust's `println!` panics there.
fn end_with_reader() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload_as_str().unwrap_or_default();
        if text.starts_with("failed printing to stdout") && text.contains("Broken pipe") {
            std::process::exit(141);
        }
        hook(panic);
    }));
}

fn main() -> ExitCode {
    end_with_reader();
    let arguments = Arguments::parse();
    togi_kernels::keep_freed_memory();
    togi_kernels::compute_on_this_thread();
    arguments.dtype.use_in_program();
    let result = match (unless_refused(|| run(arguments.command)), refused()) {
        (Ok(Ok(_)), Some(reason)) | (Err(reason), _) => Err(anyhow!(
            "the device refused memory ({reason}); shorter texts, fewer at a time or a smaller model need less"
        )),
        (Ok(result), _) => result,
    };
    match result {
        Ok(status) => status,
        Err(error) => {
            for (i, cause) in error.chain().enumerate() {
                // Transparent wrappers repeat their cause.
                if i == 0 || cause.to_string() != error.to_string() {
                    eprintln!(
                        "{}{cause}",
                        if i == 0 { "error: " } else { "  caused by: " }
                    );
                }
            }
            let input = error
                .downcast_ref()
                .map(TrainError::is_input)
                .or_else(|| error.downcast_ref().map(PolicyError::is_input))
                .or_else(|| error.downcast_ref().map(DataError::is_input))
                .or_else(|| error.downcast_ref().map(ControlError::is_input))
                .or_else(|| error.downcast_ref().map(FeedbackError::is_input))
                .unwrap_or(error.is::<InputError>());
            ExitCode::from(if input { 2 } else { 1 })
        }
    }
}

/// The exit status, where it is not an error's.
fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Train(arguments) => train::run(&arguments),
        Command::Recipes => {
            recipe::list();
            Ok(())
        }
        Command::Devices => {
            device::list();
            Ok(())
        }
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Fetch(arguments) => fetch::run(&arguments),
        Command::Score(arguments) => score::run(&arguments),
        Command::Feedback(arguments) => feedback::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments),
        Command::Generate(arguments) => generate::generate(&arguments),
        Command::Chat(arguments) => generate::chat(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Test { arguments } => return Ok(test(&arguments)),
        Command::Export(arguments) => export::run(&arguments),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// The exit status is that of `cargo test`.
fn test(arguments: &[String]) -> ExitCode {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = std::process::Command::new(cargo);
    match command
        .args(["test", "--workspace"])
        .args(arguments)
        .status()
    {
        Ok(status) => ExitCode::from(if status.success() { 0 } else { 1 }),
        Err(error) => {
            eprintln!("error: cargo test: {error}");
            ExitCode::from(1)
        }
    }
}
