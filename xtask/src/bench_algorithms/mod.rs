//! `cargo xtask bench algorithms`: every algorithm on the lab from the same SFT model, with the same
//! number of completions, over several seeds; what each won and at what distance.
//!
//! Each contestant is a `cargo xtask train` of its own, in its own run folder, so that any row of the
//! table can be run again by hand. The seeds' base, SFT and reward models are trained first. A folder
//! of an interrupted benchmark is gone on with.

mod contestants;
mod outcome;
mod page;

use std::{
    collections::VecDeque,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    thread,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use burn::tensor::Device;
use clap::Args;
use togi_policy::{Policy, Precision};
use togi_train::{
    RunFolder,
    data::DataSource,
    lab_defaults,
    memory::Watching,
    stages::{self, Stages},
};

use self::{
    contestants::{CONTESTANTS, Contestant, OVER_OPTIMISED, SWEEPS},
    outcome::{BestOf, Outcome, best_of, outcome},
    page::report,
};
use crate::{InputError, device, progress::Bars};

#[derive(Args)]
pub(crate) struct AlgorithmsArguments {
    /// Where the runs and the page go.
    #[arg(long, value_name = "DIR", default_value = "runs/bench-algorithms")]
    out: PathBuf,
    /// Seeds: 0, 1, ….
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Only these algorithms, by their names in the table.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Leave out the runs with other strengths and the over-optimisation runs.
    #[arg(long)]
    defaults_only: bool,
    /// Runs at a time, each with its share of the cores: as many as there are cores, or one on a GPU.
    #[arg(long)]
    jobs: Option<usize>,
    /// `cpu`, `wgpu`, or `cuda` with `:n` for a further GPU.
    #[arg(long, default_value = "cpu")]
    device: String,
}

/// Its name in `--only`.
const BEST_OF_N: &str = "best-of-n";

impl AlgorithmsArguments {
    /// True if `--only` names it, or nothing.
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|n| n == name)
    }

    /// Runs at a time.
    fn at_a_time(&self) -> usize {
        let all = if self.device == "cpu" { cores() } else { 1 };
        self.jobs.unwrap_or(all)
    }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// One run: a contestant with a seed.
#[derive(Clone)]
struct Job {
    name: String,
    recipe: &'static str,
    settings: Vec<String>,
    seed: u64,
    folder: PathBuf,
}

pub(crate) fn run(arguments: &AlgorithmsArguments) -> Result<()> {
    if arguments.seeds == 0 || arguments.at_a_time() == 0 {
        let text = "--seeds and --jobs must be at least 1";
        return Err(InputError(text.to_owned()).into());
    }
    if let Some(name) = arguments
        .only
        .iter()
        .find(|name| *name != BEST_OF_N && !CONTESTANTS.iter().any(|c| c.name == **name))
    {
        let known = CONTESTANTS.iter().map(|c| c.name).chain([BEST_OF_N]);
        let known: Vec<&str> = known.collect();
        let text = format!("--only {name}: there are {}", known.join(", "));
        return Err(InputError(text).into());
    }
    let device = device::parse_to_train(&arguments.device)?;
    let started = Instant::now();
    let mut prepared = Vec::new();
    for seed in 0..arguments.seeds {
        prepared.push(prepare(arguments, &device, seed)?);
    }
    let jobs = jobs(arguments);
    run_all(&jobs, arguments)?;
    let outcomes: Vec<Outcome> = jobs.iter().map(outcome).collect::<Result<_>>()?;
    let mut bests: Vec<BestOf> = Vec::new();
    if arguments.wants(BEST_OF_N) {
        for (models, seed) in prepared.iter().zip(0..) {
            bests.push(best_of(models, seed, &arguments.out)?);
        }
    }
    report(arguments, &outcomes, &bests, started)
}

/// The models that the contestants of a seed start from.
struct Prepared {
    sft: Policy,
    reward: Policy,
}

fn seed_folder(out: &Path, seed: u64) -> PathBuf {
    out.join(format!("seed-{seed}"))
}

fn prepare(arguments: &AlgorithmsArguments, device: &Device, seed: u64) -> Result<Prepared> {
    let folder = seed_folder(&arguments.out, seed).join("models");
    let computed = device::of_results(&arguments.device)?;
    let config = format!("# models of seed {seed}{computed}\n");
    let resume = folder.join("config.toml").exists();
    let run = RunFolder::open(&folder, &config, resume)?;
    let mut bars = Bars::new();
    let mut stages = Stages {
        run: &run,
        device,
        observer: &mut bars,
        watching: Watching::No,
    };
    let sft = stages::lab_sft(&mut stages, seed)?;
    let (settings, data) = (lab_defaults::reward(), DataSource::Lab);
    let reward = stages::reward(&mut stages, &sft, &settings, &data, seed)?;
    Ok(Prepared { sft, reward })
}

fn jobs(arguments: &AlgorithmsArguments) -> Vec<Job> {
    let wanted = |name: &str| arguments.wants(name);
    let mut kinds: Vec<(String, &'static str, Vec<String>)> = CONTESTANTS
        .iter()
        .filter(|c| wanted(c.name))
        .map(|c| {
            let settings = c.settings.iter().map(|s| (*s).to_owned()).collect();
            (c.name.to_owned(), c.recipe, settings)
        })
        .collect();
    if !arguments.defaults_only {
        for sweep in SWEEPS.iter().filter(|s| wanted(s.recipe)) {
            for value in sweep.values {
                let setting = format!("{}={value}", sweep.key);
                let name = format!("{} {setting}", sweep.recipe);
                kinds.push((name, sweep.recipe, vec![setting]));
            }
        }
        if wanted("ppo") {
            let Contestant {
                name,
                recipe,
                settings,
            } = OVER_OPTIMISED;
            let settings = settings.iter().map(|s| (*s).to_owned()).collect();
            kinds.push((name.to_owned(), recipe, settings));
        }
    }
    let mut jobs = Vec::new();
    for seed in 0..arguments.seeds {
        for (name, recipe, settings) in &kinds {
            let place = name.replace([' ', '='], "-");
            jobs.push(Job {
                name: name.clone(),
                recipe,
                settings: settings.clone(),
                seed,
                folder: seed_folder(&arguments.out, seed).join(place),
            });
        }
    }
    jobs
}

/// Runs what has not run yet, several at a time.
fn run_all(jobs: &[Job], arguments: &AlgorithmsArguments) -> Result<()> {
    let waiting: VecDeque<&Job> = jobs
        .iter()
        .filter(|job| !job.folder.join("comparison.json").exists())
        .collect();
    let total = waiting.len();
    let threads = (cores() / arguments.at_a_time()).max(1);
    let waiting = Mutex::new(waiting);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..arguments.at_a_time() {
            scope.spawn(|| {
                loop {
                    let Some(job) = waiting.lock().ok().and_then(|mut w| w.pop_front()) else {
                        return;
                    };
                    let left = waiting.lock().map_or(0, |w| w.len());
                    eprintln!(
                        "{:>4}/{total}  seed {}  {}",
                        total - left,
                        job.seed,
                        job.name
                    );
                    if let Err(error) = run_one(job, arguments, threads)
                        && let Ok(mut all) = failures.lock()
                    {
                        all.push(format!("{}, seed {}: {error:#}", job.name, job.seed));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_default();
    if !failures.is_empty() {
        bail!(
            "{} runs failed:\n  {}",
            failures.len(),
            failures.join("\n  ")
        );
    }
    Ok(())
}

/// The command of a job, as a person would give it.
fn command_line(job: &Job, arguments: &AlgorithmsArguments) -> Vec<String> {
    let models = seed_folder(&arguments.out, job.seed).join("models/stages");
    let text = |path: PathBuf| path.display().to_string();
    let mut line = vec![
        "train".to_owned(),
        job.recipe.to_owned(),
        "--model".to_owned(),
        text(models.join("sft")),
        "--reward".to_owned(),
        text(models.join("reward")),
        "--seed".to_owned(),
        job.seed.to_string(),
        "--device".to_owned(),
        arguments.device.clone(),
        "--dtype".to_owned(),
        Precision::of_program().to_string(),
        "--out".to_owned(),
        text(job.folder.clone()),
    ];
    for setting in &job.settings {
        line.extend(["--set".to_owned(), setting.clone()]);
    }
    line
}

fn run_one(job: &Job, arguments: &AlgorithmsArguments, threads: usize) -> Result<()> {
    fs::create_dir_all(&job.folder)?;
    let log_path = seed_folder(&arguments.out, job.seed).join(format!(
        "{}.log",
        job.folder
            .file_name()
            .map_or("run".into(), |n| n.to_string_lossy())
    ));
    let log = File::create(&log_path).with_context(|| log_path.display().to_string())?;
    let status = Command::new(std::env::current_exe()?)
        .args(command_line(job, arguments))
        .arg("--resume")
        .env("RAYON_NUM_THREADS", threads.to_string())
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(Stdio::from(log))
        .status()?;
    if !status.success() {
        let said = fs::read_to_string(&log_path).unwrap_or_default();
        bail!("{}", said.lines().last().unwrap_or("it said nothing"));
    }
    Ok(())
}
