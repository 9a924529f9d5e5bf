//! `cargo xtask bench algorithms`: every algorithm on the lab from the same SFT model, with the same
//! number of completions, over several seeds; what each won and at what distance.
//!
//! Each contestant is a `cargo xtask train` of its own, in its own run folder, so that any row of the
//! table can be run again by hand. The seeds' base, SFT and reward models are trained first. A folder
//! of an interrupted benchmark is gone on with.

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
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use togi_eval::{
    Comparison, best_of_n,
    comparison::{Table, plain},
    figure::{Figure, Marks},
    over_optimisation::{Fit, Form},
    report::Report,
};
use togi_policy::Policy;
use togi_reward::{LabGold, RewardModel};
use togi_train::{
    RunFolder,
    arena::lab_prompts,
    lab_defaults,
    rollout::{rollouts, scores},
    stages,
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
    /// Runs at a time; each has its share of the cores.
    #[arg(long, default_value_t = cores())]
    jobs: usize,
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// A row of the table: a recipe with settings.
struct Contestant {
    name: &'static str,
    recipe: &'static str,
    settings: &'static [&'static str],
}

const fn plain_recipe(name: &'static str) -> Contestant {
    Contestant {
        name,
        recipe: name,
        settings: &[],
    }
}

const fn dpo(name: &'static str, settings: &'static [&'static str]) -> Contestant {
    Contestant {
        name,
        recipe: "dpo",
        settings,
    }
}

/// Every algorithm with the defaults of its recipe on the lab; losses of `dpo` with the strength of its
/// default (0.1) where they have one, the papers' values elsewhere, and where that does harm, what does
/// none.
const CONTESTANTS: &[Contestant] = &[
    plain_recipe("ppo"),
    plain_recipe("grpo"),
    plain_recipe("dapo"),
    plain_recipe("gspo"),
    plain_recipe("cispo"),
    plain_recipe("rloo"),
    plain_recipe("reinforce"),
    plain_recipe("reinforce-plus-plus"),
    plain_recipe("remax"),
    plain_recipe("raft"),
    plain_recipe("online-dpo"),
    Contestant {
        name: "online-ipo",
        recipe: "online-dpo",
        settings: &["algorithm.loss={kind=\"ipo_summed\",tau=0.1}"],
    },
    Contestant {
        name: "online-slic",
        recipe: "online-dpo",
        settings: &[
            "algorithm.loss={kind=\"slic_hf\",delta=10.0,lambda=1.0}",
            "kl_coef=0.2",
        ],
    },
    plain_recipe("xpo"),
    plain_recipe("nash-md"),
    plain_recipe("dpo"),
    plain_recipe("ipo"),
    plain_recipe("slic"),
    plain_recipe("kto"),
    plain_recipe("rso"),
    plain_recipe("simpo"),
    plain_recipe("cpo"),
    plain_recipe("orpo"),
    dpo("cdpo", &["loss.label_smoothing=0.1"]),
    dpo(
        "robust",
        &["loss={kind=\"robust\",beta=0.1,label_smoothing=0.1}"],
    ),
    dpo("hinge", &["loss={kind=\"hinge\",beta=0.1}"]),
    dpo(
        "ipo-averaged",
        &["loss={kind=\"ipo_token_averaged\",tau=0.1}"],
    ),
    dpo("sigmoid-norm", &["loss={kind=\"sigmoid_norm\",beta=2.0}"]),
    dpo(
        "exo",
        &["loss={kind=\"exo_pair\",beta=0.1,label_smoothing=0.001}"],
    ),
    dpo("nca", &["loss={kind=\"nca_pair\",beta=0.1}"]),
    dpo(
        "bco",
        &["loss={kind=\"bco_pair\",beta=0.1,shift_decay=0.9}"],
    ),
    dpo("sppo", &["loss={kind=\"sppo_hard\",beta=0.1}"]),
    dpo("aot", &["loss={kind=\"aot\",beta=0.1}"]),
    // Sorted apart, pairs no longer share their prompt: smaller steps.
    dpo(
        "aot-unpaired",
        &[
            "loss={kind=\"aot_unpaired\",beta=0.1}",
            "optim.learning_rate=5e-5",
        ],
    ),
    dpo("apo-zero", &["loss={kind=\"apo_zero\",beta=0.1}"]),
    // It makes the chosen answers less likely too: only small, soon saturated steps do no harm where
    // they are better than the model's.
    dpo(
        "apo-down",
        &[
            "loss={kind=\"apo_down\",beta=1.0}",
            "optim.learning_rate=2e-5",
        ],
    ),
    // With the paper's temperature of 0.05 the slope at a margin of 0, where every pair starts, is
    // +0.78: pairs are pushed the wrong way.
    dpo("discopop", &["loss={kind=\"discopop\",beta=0.1,tau=0.5}"]),
    dpo(
        "f-forward-kl",
        &["loss={kind=\"f_divergence\",beta=0.1,divergence={kind=\"forward_kl\"}}"],
    ),
    dpo(
        "f-jensen-shannon",
        &["loss={kind=\"f_divergence\",beta=0.1,divergence={kind=\"jensen_shannon\"}}"],
    ),
    dpo(
        "f-alpha",
        &["loss={kind=\"f_divergence\",beta=0.1,divergence={kind=\"alpha\",alpha=0.5}}"],
    ),
    dpo(
        "mpo",
        &[
            "loss={kind=\"weighted_sum\",terms=[{weight=0.8,loss={kind=\"sigmoid\",beta=0.1}},\
             {weight=0.2,loss={kind=\"bco_pair\",beta=0.1}},{weight=1.0,loss={kind=\"sft\"}}]}",
        ],
    ),
    dpo("wpo", &["use_weighting=true"]),
    dpo("ld-dpo", &["ld_alpha=0.5"]),
    dpo(
        "tr-dpo",
        &["reference={kind=\"synced\",every=50,alpha=0.6}"],
    ),
];

/// An algorithm at several strengths: a line of the frontier.
struct Sweep {
    recipe: &'static str,
    key: &'static str,
    values: &'static [&'static str],
}

const SWEEPS: &[Sweep] = &[
    Sweep {
        recipe: "dpo",
        key: "loss.beta",
        values: &["0.02", "0.3", "1.0"],
    },
    Sweep {
        recipe: "ipo",
        key: "loss.tau",
        values: &["0.02", "0.3", "1.0"],
    },
    Sweep {
        recipe: "ppo",
        key: "kl_coef",
        values: &["0.1", "1.0", "2.0"],
    },
    Sweep {
        recipe: "grpo",
        key: "kl_coef",
        values: &["0.1", "0.2", "1.0"],
    },
    Sweep {
        recipe: "rloo",
        key: "kl_coef",
        values: &["0.1", "0.2", "1.0"],
    },
];

/// PPO without a KL penalty for longer, looked at often: where the proxy stops being the truth.
const OVER_OPTIMISED: Contestant = Contestant {
    name: "ppo without KL",
    recipe: "ppo",
    settings: &[
        "kl_coef=0.0",
        "max_steps=150",
        "eval_every=5",
        "eval_samples=200",
    ],
};

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
    if arguments.seeds == 0 || arguments.jobs == 0 {
        let text = "--seeds and --jobs must be at least 1";
        return Err(InputError(text.to_owned()).into());
    }
    if let Some(name) = arguments
        .only
        .iter()
        .find(|name| !CONTESTANTS.iter().any(|c| c.name == **name))
    {
        let known: Vec<&str> = CONTESTANTS.iter().map(|c| c.name).collect();
        let text = format!("--only {name}: there are {}", known.join(", "));
        return Err(InputError(text).into());
    }
    let started = Instant::now();
    let mut prepared = Vec::new();
    for seed in 0..arguments.seeds {
        prepared.push(prepare(&arguments.out, seed)?);
    }
    let jobs = jobs(arguments);
    run_all(&jobs, arguments)?;
    let outcomes: Vec<Outcome> = jobs.iter().map(outcome).collect::<Result<_>>()?;
    let bests: Vec<BestOf> = prepared
        .iter()
        .zip(0..)
        .map(|(models, seed)| best_of(models, seed, &arguments.out))
        .collect::<Result<_>>()?;
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

fn prepare(out: &Path, seed: u64) -> Result<Prepared> {
    let folder = seed_folder(out, seed).join("models");
    let config = format!("# models of seed {seed}\n");
    let resume = folder.join("config.toml").exists();
    let run = RunFolder::open(&folder, &config, resume)?;
    let (device, mut bars) = (device::parse("cpu")?, Bars::new());
    let sft = stages::lab_sft(&run, seed, &device, &mut bars)?;
    let (settings, data) = (lab_defaults::reward(), togi_train::data::DataSource::Lab);
    let reward = stages::reward(&run, &sft, &settings, &data, seed, &device, &mut bars)?;
    Ok(Prepared { sft, reward })
}

fn jobs(arguments: &AlgorithmsArguments) -> Vec<Job> {
    let wanted = |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|n| n == name);
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
    let threads = (cores() / arguments.jobs).max(1);
    let waiting = Mutex::new(waiting);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..arguments.jobs {
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
                    if let Err(error) = run_one(job, &arguments.out, threads)
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
fn command_line(job: &Job, out: &Path) -> Vec<String> {
    let models = seed_folder(out, job.seed).join("models/stages");
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
        "--out".to_owned(),
        text(job.folder.clone()),
    ];
    for setting in &job.settings {
        line.extend(["--set".to_owned(), setting.clone()]);
    }
    line
}

fn run_one(job: &Job, out: &Path, threads: usize) -> Result<()> {
    fs::create_dir_all(&job.folder)?;
    let log_path = seed_folder(out, job.seed).join(format!(
        "{}.log",
        job.folder
            .file_name()
            .map_or("run".into(), |n| n.to_string_lossy())
    ));
    let log = File::create(&log_path).with_context(|| log_path.display().to_string())?;
    let status = Command::new(std::env::current_exe()?)
        .args(command_line(job, out))
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

/// What a run came to.
struct Outcome {
    name: String,
    recipe: &'static str,
    seed: u64,
    comparison: Comparison,
    seconds: f64,
    /// `(KL, proxy, gold)` of held-out answers while it was trained.
    curve: Vec<(f64, f64, f64)>,
}

fn outcome(job: &Job) -> Result<Outcome> {
    let read = |name: &str| {
        let path = job.folder.join(name);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let rows = |name: &str| -> Result<Vec<Value>> {
        let text = read(name)?;
        Ok(text
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?)
    };
    let number = |row: &Value, key: &str| row[key].as_f64();
    let seconds = rows("timings.jsonl")?
        .iter()
        .filter_map(|row| number(row, "seconds"))
        .sum();
    let curve = rows("metrics.jsonl")?
        .iter()
        .filter_map(|row| {
            let [kl, proxy, gold] =
                ["val/kl", "val/scores", "val/gold"].map(|key| number(row, key));
            Some((kl?, proxy?, gold?))
        })
        .collect();
    Ok(Outcome {
        name: job.name.clone(),
        recipe: job.recipe,
        seed: job.seed,
        comparison: serde_json::from_str(&read("comparison.json")?)?,
        seconds,
        curve,
    })
}

impl Outcome {
    /// The mean of a metric of the start or of the tuned model.
    fn mean(&self, system: &str, metric: &str) -> f64 {
        let system = self.comparison.systems.iter().find(|s| s.name == system);
        let Some(system) = system else {
            return f64::NAN;
        };
        let values = system.metrics.iter().find(|(name, _)| name == metric);
        if let Some((_, values)) = values {
            return values.iter().sum::<f64>() / values.len() as f64;
        }
        let total = system.totals.iter().find(|(name, _)| name == metric);
        total.map_or(f64::NAN, |(_, value)| *value)
    }

    fn tuned(&self, metric: &str) -> f64 {
        self.mean(self.recipe, metric)
    }

    fn gain(&self) -> f64 {
        self.tuned(GOLD) - self.mean("start", GOLD)
    }
}

const GOLD: &str = "gold reward";
const KL: &str = "KL (nats)";

/// Best-of-n of a seed's SFT model by its reward model: for each n, KL by the formula and as measured,
/// mean proxy and gold.
#[derive(Serialize, Deserialize)]
struct BestOf {
    rows: Vec<BestOfRow>,
    /// Of single answers.
    proxy: f64,
    gold: f64,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct BestOfRow {
    n: usize,
    kl: f64,
    measured_kl: f64,
    proxy: f64,
    gold: f64,
}

/// Prompts, and answers to each, that best-of-n is estimated from.
const BEST_OF_PROMPTS: usize = 200;
const BEST_OF_ANSWERS: usize = 256;

fn best_of(models: &Prepared, seed: u64, out: &Path) -> Result<BestOf> {
    let path = seed_folder(out, seed).join("best-of-n.json");
    if let Ok(text) = fs::read_to_string(&path) {
        return Ok(serde_json::from_str(&text)?);
    }
    eprintln!("best of n, seed {seed}");
    let Policy {
        decoder, tokenizer, ..
    } = &models.sft;
    let prompts = lab_prompts(tokenizer, BEST_OF_PROMPTS, seed)?;
    let repeated: Vec<_> = prompts
        .iter()
        .flat_map(|p| std::iter::repeat_n(p, BEST_OF_ANSWERS))
        .collect();
    let sampling = lab_defaults::sampling();
    let drawn = rollouts(
        decoder,
        tokenizer,
        &repeated,
        &sampling,
        seed ^ 0x626f_6e00,
        0,
    )?;
    let model = RewardModel::new(models.reward.decoder.clone(), 64);
    let value =
        |all: Vec<togi_reward::Score>| -> Vec<f64> { all.iter().map(|s| s.value).collect() };
    let proxy = value(scores(&model, &drawn, "best of n", 0)?);
    let gold = value(scores(&LabGold, &drawn, "best of n", 0)?);
    let mut rows = Vec::new();
    for n in [1, 2, 4, 8, 16, 32, 64] {
        let mut row = BestOfRow {
            n,
            kl: best_of_n::analytic_kl(n),
            measured_kl: 0.0,
            proxy: 0.0,
            gold: 0.0,
        };
        let each = proxy
            .chunks(BEST_OF_ANSWERS)
            .zip(gold.chunks(BEST_OF_ANSWERS));
        for (proxy, gold) in each {
            let chances = best_of_n::chances(proxy, n);
            row.proxy += best_of_n::expected(&chances, proxy) / BEST_OF_PROMPTS as f64;
            row.gold += best_of_n::expected(&chances, gold) / BEST_OF_PROMPTS as f64;
            row.measured_kl += best_of_n::measured_kl(proxy, &chances) / BEST_OF_PROMPTS as f64;
        }
        rows.push(row);
    }
    let best = BestOf {
        proxy: rows[0].proxy,
        gold: rows[0].gold,
        rows,
    };
    fs::write(&path, serde_json::to_vec_pretty(&best)?)?;
    Ok(best)
}

/// The mean of what a function says of some outcomes.
fn over(outcomes: &[&Outcome], value: impl Fn(&Outcome) -> f64) -> f64 {
    outcomes.iter().map(|o| value(o)).sum::<f64>() / outcomes.len() as f64
}

/// The outcomes of each name, in the order of their gain.
fn ranked(outcomes: &[Outcome]) -> Vec<Vec<&Outcome>> {
    let mut groups: Vec<Vec<&Outcome>> = Vec::new();
    for outcome in outcomes {
        match groups.iter_mut().find(|g| g[0].name == outcome.name) {
            Some(group) => group.push(outcome),
            None => groups.push(vec![outcome]),
        }
    }
    groups.sort_by(|a, b| over(b, Outcome::gain).total_cmp(&over(a, Outcome::gain)));
    groups
}

fn is_default(name: &str) -> bool {
    CONTESTANTS.iter().any(|c| c.name == name)
}

fn main_table(groups: &[Vec<&Outcome>]) -> Result<Table> {
    let heading = [
        "",
        "algorithm",
        "gold - SFT",
        "each seed",
        "KL",
        "proxy",
        "length",
        "EAD",
        "refusals",
        "seconds",
    ];
    let mut rows = Vec::new();
    let defaults = groups.iter().filter(|g| is_default(&g[0].name));
    for (number, group) in defaults.enumerate() {
        let mut each = Vec::new();
        for outcome in group {
            let gain = outcome
                .comparison
                .difference(GOLD, outcome.recipe, "start")?;
            // A gain whose interval holds 0 is none.
            let sign = if gain.low > 0.0 {
                ""
            } else if gain.high < 0.0 {
                " (worse)"
            } else {
                " (?)"
            };
            each.push(format!("{:+.3}{sign}", gain.value));
        }
        let mean = |metric: &str| over(group, |o| o.tuned(metric));
        rows.push(vec![
            (number + 1).to_string(),
            group[0].name.clone(),
            format!("{:+.3}", over(group, Outcome::gain)),
            each.join(" "),
            format!("{:.2}", mean(KL)),
            format!("{:.2}", mean("proxy reward")),
            format!("{:.1}", mean("length (tokens)")),
            format!("{:.3}", mean("EAD")),
            format!("{:.3}", mean("refusals")),
            format!("{:.0}", over(group, |o| o.seconds)),
        ]);
    }
    Ok((heading.map(str::to_owned).to_vec(), rows))
}

fn best_table(bests: &[BestOf]) -> Table {
    let heading = ["n", "KL by formula", "KL measured", "proxy", "gold - SFT"];
    let count = bests.len() as f64;
    let rows = (0..bests[0].rows.len()).map(|i| {
        let mean = |of: &dyn Fn(&BestOf) -> f64| bests.iter().map(of).sum::<f64>() / count;
        vec![
            bests[0].rows[i].n.to_string(),
            format!("{:.3}", bests[0].rows[i].kl),
            format!("{:.3}", mean(&|b| b.rows[i].measured_kl)),
            format!("{:.3}", mean(&|b| b.rows[i].proxy)),
            format!("{:+.3}", mean(&|b| b.rows[i].gold - b.gold)),
        ]
    });
    (heading.map(str::to_owned).to_vec(), rows.collect())
}

/// `(KL, gold gain)` of a sweep with the default among it, in the order of KL.
fn line(groups: &[Vec<&Outcome>], recipe: &str) -> Vec<(f64, f64)> {
    let of_recipe = |name: &str| {
        name == recipe
            || name
                .strip_prefix(recipe)
                .is_some_and(|rest| rest.starts_with(' ') && rest.contains('='))
    };
    let mut points: Vec<(f64, f64)> = groups
        .iter()
        .filter(|g| of_recipe(&g[0].name))
        .map(|g| (over(g, |o| o.tuned(KL)), over(g, Outcome::gain)))
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

fn frontier(groups: &[Vec<&Outcome>], bests: &[BestOf]) -> Figure {
    let defaults: Vec<_> = groups.iter().filter(|g| is_default(&g[0].name)).collect();
    let mut marks = vec![Marks {
        label: "defaults (number: row of the table)".to_owned(),
        points: defaults
            .iter()
            .map(|g| (over(g, |o| o.tuned(KL)), over(g, Outcome::gain)))
            .collect(),
        names: (1..=defaults.len()).map(|n| n.to_string()).collect(),
        color: 5,
        ..Marks::default()
    }];
    for (color, sweep) in SWEEPS.iter().enumerate() {
        let points = line(groups, sweep.recipe);
        if points.len() > 1 {
            marks.push(Marks {
                label: format!("{}, {}", sweep.recipe, sweep.key),
                points,
                line: true,
                color,
                ..Marks::default()
            });
        }
    }
    let count = bests.len() as f64;
    marks.push(Marks {
        label: "best of n".to_owned(),
        points: (0..bests[0].rows.len())
            .map(|i| {
                let gain = bests.iter().map(|b| b.rows[i].gold - b.gold).sum::<f64>();
                (bests[0].rows[i].kl, gain / count)
            })
            .collect(),
        line: true,
        color: 5,
        ..Marks::default()
    });
    Figure {
        caption: "Frontier: what each algorithm won, and how far it went from the SFT model".into(),
        x: "KL to SFT, nats a completion".to_owned(),
        y: "gold reward over SFT".to_owned(),
        marks,
    }
}

fn diversity(groups: &[Vec<&Outcome>]) -> Figure {
    let defaults: Vec<_> = groups.iter().filter(|g| is_default(&g[0].name)).collect();
    Figure {
        caption: "Diversity against reward".to_owned(),
        x: "EAD of the answers to all prompts".to_owned(),
        y: "gold reward over SFT".to_owned(),
        marks: vec![Marks {
            points: defaults
                .iter()
                .map(|g| (over(g, |o| o.tuned("EAD")), over(g, Outcome::gain)))
                .collect(),
            names: (1..=defaults.len()).map(|n| n.to_string()).collect(),
            ..Marks::default()
        }],
    }
}

/// Proxy and gold against the root of the KL, with the fitted curve of the gold.
fn curves(
    caption: &str,
    form: Form,
    points: &[(f64, f64, f64)],
    notes: &mut Vec<String>,
) -> Option<Figure> {
    let points: Vec<_> = points.iter().copied().filter(|p| p.0 > 0.0).collect();
    let gold: Vec<(f64, f64)> = points.iter().map(|(kl, _, gold)| (*kl, *gold)).collect();
    let fit = Fit::of(form, &gold)?;
    let furthest = points.iter().map(|p| p.0).fold(0.0, f64::max);
    let root = |of: fn(&(f64, f64, f64)) -> f64| -> Vec<(f64, f64)> {
        points.iter().map(|p| (p.0.sqrt(), of(p))).collect()
    };
    // The proxy has units of its own: it is drawn on the scale of the gold.
    let highest = |of: fn(&(f64, f64, f64)) -> f64| points.iter().map(of).fold(1e-9, f64::max);
    let scale = highest(|p| p.2) / highest(|p| p.1);
    let proxy = root(|p| p.1)
        .into_iter()
        .map(|(d, y)| (d, y * scale))
        .collect();
    let formula = match form {
        Form::BestOfN => "d (α - β d)",
        Form::Reinforcement => "d (α - β ln d)",
    };
    let turning = match fit.turning_point() {
        Some(kl) if kl <= furthest => format!("it turns at KL {kl:.1}"),
        Some(kl) => format!("it would turn at KL {kl:.1}, beyond what was run"),
        None => "it does not turn".to_owned(),
    };
    notes.push(format!(
        "{caption}: gold over SFT = {formula} with α = {:.3}, β = {:.3}, d = √KL, R² = {:.2}; {turning}.",
        fit.alpha, fit.beta, fit.r_squared
    ));
    let fitted = (0..=60).map(|i| furthest * f64::from(i) / 60.0);
    Some(Figure {
        caption: format!("Proxy and gold: {caption}"),
        x: "√KL".to_owned(),
        y: "over SFT".to_owned(),
        marks: vec![
            Marks {
                label: format!("proxy, times {scale:.3}"),
                points: proxy,
                color: 1,
                ..Marks::default()
            },
            Marks {
                label: "gold".to_owned(),
                points: root(|p| p.2),
                ..Marks::default()
            },
            Marks {
                label: format!("{formula}, fitted"),
                points: fitted.map(|kl| (kl.sqrt(), fit.at(kl))).collect(),
                line: true,
                bare: true,
                ..Marks::default()
            },
        ],
    })
}

fn report(
    arguments: &AlgorithmsArguments,
    outcomes: &[Outcome],
    bests: &[BestOf],
    started: Instant,
) -> Result<()> {
    let groups = ranked(outcomes);
    let table = main_table(&groups)?;
    println!("\n{}", plain(&table));
    let best = best_table(bests);
    println!("best of n\n{}", plain(&best));
    let mut figures = vec![frontier(&groups, bests), diversity(&groups)];
    let mut notes = Vec::new();
    let long: Vec<_> = outcomes
        .iter()
        .filter(|o| o.name == OVER_OPTIMISED.name)
        .flat_map(|o| {
            let start = (o.mean("start", "proxy reward"), o.mean("start", GOLD));
            o.curve
                .iter()
                .map(move |(kl, proxy, gold)| (*kl, proxy - start.0, gold - start.1))
        })
        .collect();
    figures.extend(curves(
        OVER_OPTIMISED.name,
        Form::Reinforcement,
        &long,
        &mut notes,
    ));
    let kept: Vec<_> = bests
        .iter()
        .flat_map(|b| {
            b.rows
                .iter()
                .map(move |row| (row.kl, row.proxy - b.proxy, row.gold - b.gold))
        })
        .collect();
    figures.extend(curves("best of n", Form::BestOfN, &kept, &mut notes));
    for note in &notes {
        println!("{note}");
    }
    let unsure: Vec<&str> = groups
        .iter()
        .filter(|g| is_default(&g[0].name))
        .filter(|g| {
            g.iter().any(|o| {
                o.comparison
                    .difference(GOLD, o.recipe, "start")
                    .is_ok_and(|gain| gain.low <= 0.0)
            })
        })
        .map(|g| g[0].name.as_str())
        .collect();
    let verdict = if unsure.is_empty() {
        "Every algorithm's defaults improve gold reward over SFT with every seed.".to_owned()
    } else {
        format!("No sure improvement with some seed: {}.", unsure.join(", "))
    };
    println!("{verdict}");
    let seeds = arguments.seeds;
    let page = Report {
        title: "bench algorithms".to_owned(),
        summary: format!("{verdict} {seeds} seeds; {}", notes.join(" ")),
        tables: vec![
            (
                "Algorithms".to_owned(),
                table,
                "Means over the seeds, each on 300 held-out prompts; (?) where the 95% interval of \
                 the paired difference holds 0. Seconds are of training alone."
                    .to_owned(),
            ),
            (
                "Best of n".to_owned(),
                best,
                "Of the SFT model by the reward model. The measured KL is that of the choice among \
                 answers; equal answers make it less than the formula's."
                    .to_owned(),
            ),
        ],
        figures,
        environment: vec![
            ("Togi".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("Cores".to_owned(), cores().to_string()),
            ("Runs at a time".to_owned(), arguments.jobs.to_string()),
        ],
        ..Report::default()
    };
    let path = arguments.out.join("report.html");
    fs::write(&path, page.html()?).with_context(|| path.display().to_string())?;
    let rows: Vec<Value> = outcomes.iter().map(row).collect();
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    fs::write(arguments.out.join("results.jsonl"), lines.join("\n") + "\n")?;
    println!(
        "Page: {}\nTime: {:.0} s",
        path.display(),
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// A line of `results.jsonl`.
fn row(outcome: &Outcome) -> Value {
    let mut row = serde_json::json!({
        "name": outcome.name, "seed": outcome.seed, "gold_gain": outcome.gain(),
        "seconds": outcome.seconds,
    });
    let metrics = [
        GOLD,
        KL,
        "proxy reward",
        "length (tokens)",
        "EAD",
        "distinct-2",
        "refusals",
    ];
    for metric in metrics {
        row[metric] = Value::from(outcome.tuned(metric));
    }
    row
}
