//! `cargo xtask train <recipe>`.

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value};
use togi_eval::{comparison::plain, report::Report};
use togi_train::{
    RunFolder,
    config::{resolve, to_toml},
    rlhf::{self, RlhfConfig},
};

use crate::{device, progress::Bars};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Recipe {
    /// SFT, reward model and PPO on the lab, and a comparison of what came out.
    Rlhf,
}

#[derive(Args)]
pub(crate) struct TrainArguments {
    /// What to run.
    #[arg(value_enum)]
    recipe: Recipe,
    /// A TOML file with the recipe's configuration.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one field, for instance `--set ppo.kl_coef=0.1`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// `cpu`, `wgpu`, or `cuda` with `:n` for a further GPU.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// The run folder; `runs/` and the recipe if not given.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The seed, before --set seed=N.
    #[arg(long)]
    seed: Option<u64>,
    /// Go on with a run that was interrupted.
    #[arg(long)]
    resume: bool,
}

pub(crate) fn list() {
    for recipe in Recipe::value_variants() {
        if let Some(value) = recipe.to_possible_value() {
            let help = value
                .get_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            println!("{:<8} {help}", value.get_name());
        }
    }
}

pub(crate) fn run(arguments: &TrainArguments) -> Result<()> {
    let started = Instant::now();
    let device = device::parse(&arguments.device)?;
    let mut settings = Vec::new();
    settings.extend(arguments.seed.map(|seed| format!("seed={seed}")));
    settings.extend(arguments.settings.iter().cloned());
    let file = arguments.config.as_deref();
    let mut bars = Bars::new();
    match arguments.recipe {
        Recipe::Rlhf => {
            let config: RlhfConfig = resolve(&RlhfConfig::default(), file, &settings)?;
            let out = arguments.out.clone().unwrap_or_else(|| "runs/rlhf".into());
            let text = to_toml(&config)?;
            let run = RunFolder::open(&out, &text, arguments.resume)?;
            let outcome = rlhf::train(&run, &config, &device, &mut bars)?;
            let gain = outcome.comparison.difference("gold reward", "PPO", "SFT")?;
            println!("\n{}", plain(&outcome.comparison.table()?));
            let summary = format!(
                "PPO's gold reward is {:+.3} over SFT's (95% interval {:+.3} to {:+.3}, paired over {} prompts).",
                gain.value, gain.low, gain.high, config.eval_prompts
            );
            println!("{summary}");
            let report = Report {
                title: "RLHF on the lab".to_owned(),
                summary,
                comparison: Some(outcome.comparison),
                metrics: read_metrics(&run)?,
                config: text,
                environment: environment(&arguments.device),
            };
            let path = run.path().join("report.html");
            fs::write(&path, report.html()?).with_context(|| path.display().to_string())?;
            println!(
                "Model: {}\nReport: {}\nTime: {:.0} s",
                run.model().display(),
                path.display(),
                started.elapsed().as_secs_f64()
            );
        }
    }
    Ok(())
}

fn environment(device: &str) -> Vec<(String, String)> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    vec![
        ("Togi".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("Device".to_owned(), device.to_owned()),
        (
            "System".to_owned(),
            format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        ),
        ("Threads".to_owned(), threads.to_string()),
    ]
}

fn read_metrics(run: &RunFolder) -> Result<Vec<Map<String, Value>>> {
    let path = run.path().join("metrics.jsonl");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let rows = text.lines().map(serde_json::from_str);
    rows.collect::<Result<_, _>>()
        .with_context(|| path.display().to_string())
}
