//! `cargo xtask train <recipe>`.

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context, Result};
use burn::tensor::Device;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value};
use togi_data::{DataError, Located, LossOn, TokenizeOptions, Tokenizer, lab::Writer, tokenize};
use togi_eval::{
    bootstrap::{Interval, share_interval},
    comparison::plain,
    report::Report,
};
use togi_policy::{
    Decoder, Policy, adapter, config::Head, config::ModelConfig, hf, source::Source,
};
use togi_reward::{LabGold, Reward, RewardModel};
use togi_train::{
    Event, Observer, Row, RunFolder,
    cispo::Cispo,
    config::{DataSection, RecipeConfig, resolve, to_toml},
    data::{DataSource, LabRows, Samples, samples},
    grpo::Grpo,
    gspo::Gspo,
    kto::{Kto, KtoConfig},
    memory,
    offline::{self, Objective, Stage},
    online::{self, OnlineAlgorithm, OnlineConfig, OnlineModels},
    ppo::{self, Models, PpoConfig, ValueInit},
    preference::{Preference, PreferenceConfig, PreferenceLoss},
    reward::{BradleyTerry, RewardConfig},
    rlhf::{self, RlhfConfig},
    rloo::Rloo,
    sft::{Sft, SftConfig},
};

use crate::{InputError, device, progress::Bars};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Recipe {
    /// SFT, reward model and PPO in one go, and a comparison of what came out.
    Rlhf,
    /// Supervised fine-tuning.
    Sft,
    /// A reward model from comparisons (Bradley-Terry).
    Reward,
    /// PPO against a reward.
    Ppo,
    /// GRPO: completions of a prompt against their group; DAPO's and Dr. GRPO's choices.
    Grpo,
    /// RLOO: REINFORCE with a leave-one-out baseline.
    Rloo,
    /// GSPO: GRPO with one ratio a completion.
    Gspo,
    /// CISPO: GRPO's advantages, REINFORCE's gradient with a bounded weight.
    Cispo,
    /// Direct Preference Optimization; `loss.kind` offers its relatives.
    Dpo,
    /// Identity Preference Optimization.
    Ipo,
    /// SLiC-HF: sequence likelihood calibration.
    Slic,
    /// KTO: answers with a thumb up or down.
    Kto,
    /// SimPO: length-normalised, without a reference model.
    Simpo,
    /// Contrastive Preference Optimization.
    Cpo,
    /// Odds Ratio Preference Optimization: SFT and preferences in one.
    Orpo,
}

impl Recipe {
    /// True if it draws completions and scores them.
    fn is_online(self) -> bool {
        use Recipe::{Cispo, Grpo, Gspo, Ppo, Rloo};
        matches!(self, Ppo | Grpo | Rloo | Gspo | Cispo)
    }

    fn name(self) -> String {
        self.to_possible_value()
            .map_or(String::new(), |v| v.get_name().to_owned())
    }
}

#[derive(Args)]
pub(crate) struct TrainArguments {
    /// What to run.
    #[arg(value_enum)]
    pub(crate) recipe: Recipe,
    /// A TOML file with the recipe's configuration.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one field, for instance `--set ppo.kl_coef=0.1`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// `lab`, a Hugging Face or PEFT folder, a run folder, a .gguf file, hf:owner/name, or a
    /// fetched model.
    #[arg(long, value_name = "SRC", default_value = "lab")]
    pub(crate) model: String,
    /// `lab`, or files to train on: .jsonl, .jsonl.gz, .jsonl.zst, .parquet.
    #[arg(long, value_name = "SRC", default_value = "lab")]
    data: Vec<String>,
    /// Held-out files; without them, a share of the training rows is held out.
    #[arg(long, value_name = "FILE")]
    valid: Vec<String>,
    /// What scores answers (ppo, grpo, rloo, …): `lab`, or the folder or run folder of a reward model.
    #[arg(long, value_name = "SRC", default_value = "lab")]
    pub(crate) reward: String,
    /// `cpu`, `wgpu`, or `cuda` with `:n` for a further GPU.
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
    /// The run folder; `runs/` and the recipe if not given.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The seed.
    #[arg(long)]
    seed: Option<u64>,
    /// The number of updates (steps of rollouts for ppo).
    #[arg(long)]
    max_steps: Option<u64>,
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

/// A run that is set up: folder, device, and who is told.
struct Session {
    recipe: String,
    run: RunFolder,
    config: String,
    device: Device,
    bars: Bars,
    started: Instant,
}

impl TrainArguments {
    pub(crate) fn resolve<C: RecipeConfig>(&self, defaults: &C) -> Result<C> {
        let mut settings = Vec::new();
        settings.extend(self.seed.map(|seed| format!("seed={seed}")));
        if let Some(steps) = self.max_steps {
            settings.push(match self.recipe {
                Recipe::Rlhf => {
                    let text = "--max-steps: rlhf has several stages; use for instance \
                                --set ppo.max_steps=N";
                    return Err(InputError(text.to_owned()).into());
                }
                recipe if recipe.is_online() => format!("max_steps={steps}"),
                _ => format!("train.max_steps={steps}"),
            });
        }
        settings.extend(self.settings.iter().cloned());
        Ok(resolve(defaults, self.config.as_deref(), &settings)?)
    }

    /// Opens the run folder. Its `config.toml` says where model and data came from too, as a
    /// comment, so that a resumed run with others is refused.
    fn open<C: RecipeConfig>(&self, config: &C) -> Result<Session> {
        let recipe = self.recipe.name();
        let out = self
            .out
            .clone()
            .unwrap_or_else(|| PathBuf::from("runs").join(&recipe));
        let mut text = format!("# cargo xtask train {recipe}");
        if self.recipe != Recipe::Rlhf || self.model != "lab" {
            text.push_str(&format!(
                " --model {} --data {}",
                self.model,
                self.data.join(" --data ")
            ));
            for file in &self.valid {
                text.push_str(&format!(" --valid {file}"));
            }
            if self.recipe.is_online() {
                text.push_str(&format!(" --reward {}", self.reward));
            }
        }
        text.push('\n');
        text.push_str(&to_toml(config)?);
        let run = RunFolder::open(&out, &text, self.resume)?;
        Ok(Session {
            recipe,
            run,
            config: text,
            device: device::parse(&self.device)?,
            bars: Bars::new(),
            started: Instant::now(),
        })
    }

    pub(crate) fn source(&self) -> Result<DataSource> {
        if self.data == ["lab"] {
            if self.valid.is_empty() {
                return Ok(DataSource::Lab);
            }
            return Err(InputError("--valid goes with --data FILE".to_owned()).into());
        }
        if self.data.iter().any(|d| d == "lab") {
            return Err(InputError("--data lab cannot be mixed with files".to_owned()).into());
        }
        Ok(DataSource::Files {
            train: self.data.clone(),
            valid: self.valid.clone(),
        })
    }

    pub(crate) fn load(&self, device: &Device, seed: u64) -> Result<Policy> {
        Ok(Source::parse(&self.model)?.load(device, seed)?)
    }
}

pub(crate) fn run(arguments: &TrainArguments) -> Result<()> {
    // A device that is not there is said before a folder is made.
    device::parse(&arguments.device)?;
    match arguments.recipe {
        Recipe::Rlhf => run_rlhf(arguments),
        Recipe::Sft => run_sft(arguments),
        Recipe::Reward => run_reward(arguments),
        Recipe::Ppo => run_ppo(arguments),
        Recipe::Grpo => run_online::<Grpo>(arguments),
        Recipe::Rloo => run_online::<Rloo>(arguments),
        Recipe::Gspo => run_online::<Gspo>(arguments),
        Recipe::Cispo => run_online::<Cispo>(arguments),
        Recipe::Kto => run_kto(arguments),
        Recipe::Dpo | Recipe::Ipo | Recipe::Slic | Recipe::Simpo | Recipe::Cpo | Recipe::Orpo => {
            run_preference(arguments, &preference_defaults(arguments.recipe))
        }
    }
}

/// The preference recipes differ in their default loss: the papers' values where they give one.
pub(crate) fn preference_defaults(recipe: Recipe) -> PreferenceConfig {
    match recipe {
        Recipe::Ipo => PreferenceConfig::with(PreferenceLoss::IpoSummed { tau: 0.1 }),
        Recipe::Slic => PreferenceConfig::with(PreferenceLoss::SlicHf {
            delta: 1.0,
            lambda: 0.1,
        }),
        Recipe::Simpo => PreferenceConfig::with(PreferenceLoss::Simpo {
            beta: 2.0,
            gamma: 1.0,
        }),
        Recipe::Cpo => PreferenceConfig::with(PreferenceLoss::Cpo {
            beta: 0.1,
            alpha: 1.0,
            label_smoothing: 0.0,
        }),
        Recipe::Orpo => PreferenceConfig::with(PreferenceLoss::Orpo { lambda: 0.1 }),
        _ => PreferenceConfig::default(),
    }
}

/// Defaults of `rlhf`: the lab's sizes for the lab's model.
pub(crate) fn rlhf_defaults(arguments: &TrainArguments) -> Result<RlhfConfig> {
    if arguments.model != "lab" {
        return Ok(RlhfConfig::pretrained());
    }
    if arguments.data != ["lab"] {
        let text = "rlhf --data FILE: the lab's model knows only the lab's words; give --model too";
        return Err(InputError(text.to_owned()).into());
    }
    Ok(RlhfConfig::default())
}

fn run_rlhf(arguments: &TrainArguments) -> Result<()> {
    let config = arguments.resolve(&rlhf_defaults(arguments)?)?;
    let source = arguments.source()?;
    let model = Source::parse(&arguments.model)?;
    let mut session = arguments.open(&config)?;
    let Session {
        run, device, bars, ..
    } = &mut session;
    let outcome = rlhf::train(run, &config, &model, &source, device, bars)?;
    let metric = match source {
        DataSource::Lab => "gold reward",
        DataSource::Files { .. } => "proxy reward",
    };
    let gain = outcome.comparison.difference(metric, "PPO", "SFT")?;
    println!("\n{}", plain(&outcome.comparison.table()?));
    let summary = format!(
        "PPO's {metric} is {:+.3} over SFT's (95% interval {:+.3} to {:+.3}, paired over {} \
         prompts).",
        gain.value,
        gain.low,
        gain.high,
        outcome.comparison.prompts.len()
    );
    session.finish(Report {
        title: format!("train rlhf, {}", arguments.model),
        summary,
        comparison: Some(outcome.comparison),
        ..Report::default()
    })
}

fn run_sft(arguments: &TrainArguments) -> Result<()> {
    let config: SftConfig = arguments.resolve(&SftConfig::default())?;
    let source = arguments.source()?;
    let mut session = arguments.open(&config)?;
    let mut policy = arguments.load(&session.device, config.seed)?;
    if let Some(lora) = &config.lora {
        policy.decoder.add_lora(lora.clone(), config.seed)?;
    }
    let rows = LabRows::Answers(Writer::demonstrator());
    let data = session.read(
        &source,
        rows,
        &config.data,
        config.loss_on,
        &policy,
        config.seed,
        tokenize::sft,
    )?;
    let mut objective = Sft {
        train: &data.train,
        valid: &data.valid,
    };
    let last = session.learn(
        &mut policy,
        &mut objective,
        &config.optim,
        &config.train,
        config.seed,
    )?;
    session.finish_run(&policy, last, arguments, config.seed)
}

fn run_reward(arguments: &TrainArguments) -> Result<()> {
    let config: RewardConfig = arguments.resolve(&RewardConfig::default())?;
    let source = arguments.source()?;
    let mut session = arguments.open(&config)?;
    let mut policy = arguments.load(&session.device, config.seed)?;
    policy.decoder = policy.decoder.with_score_head(Some(config.seed))?;
    if let Some(lora) = &config.lora {
        policy.decoder.add_lora(lora.clone(), config.seed)?;
    }
    let rows = LabRows::Preferences(config.annotators);
    let data = session.read(
        &source,
        rows,
        &config.data,
        LossOn::Completion,
        &policy,
        config.seed,
        tokenize::pair,
    )?;
    let mut objective = BradleyTerry {
        train: &data.train,
        valid: &data.valid,
        centering: config.centering,
        use_margin: config.use_margin,
    };
    let last = session.learn(
        &mut policy,
        &mut objective,
        &config.optim,
        &config.train,
        config.seed,
    )?;
    session.finish_run(&policy, last, arguments, config.seed)
}

fn run_preference(arguments: &TrainArguments, defaults: &PreferenceConfig) -> Result<()> {
    let config: PreferenceConfig = arguments.resolve(defaults)?;
    let source = arguments.source()?;
    let mut session = arguments.open(&config)?;
    let mut policy = arguments.load(&session.device, config.seed)?;
    let rows = LabRows::Preferences(config.annotators);
    let data = session.read(
        &source,
        rows,
        &config.data,
        LossOn::Completion,
        &policy,
        config.seed,
        tokenize::pair,
    )?;
    let (train, valid) = (&data.train, &data.valid);
    let (mut objective, note) = Preference::new(train, valid, &config, &policy.decoder)?;
    if let Some(note) = note {
        session.bars.on(Event::Message(&note));
    }
    if let Some(lora) = &config.lora {
        policy.decoder.add_lora(lora.clone(), config.seed)?;
    }
    let last = session.learn(
        &mut policy,
        &mut objective,
        &config.optim,
        &config.train,
        config.seed,
    )?;
    session.finish_run(&policy, last, arguments, config.seed)
}

fn run_kto(arguments: &TrainArguments) -> Result<()> {
    let config: KtoConfig = arguments.resolve(&KtoConfig::default())?;
    let source = arguments.source()?;
    let mut session = arguments.open(&config)?;
    let mut policy = arguments.load(&session.device, config.seed)?;
    let rows = LabRows::Preferences(config.annotators);
    let data = session.read(
        &source,
        rows,
        &config.data,
        LossOn::Completion,
        &policy,
        config.seed,
        tokenize::labelled,
    )?;
    let (train, valid) = (data.train.concat(), data.valid.concat());
    let mut objective = Kto::new(&train, &valid, &config, &policy.decoder);
    if let Some(lora) = &config.lora {
        policy.decoder.add_lora(lora.clone(), config.seed)?;
    }
    let last = session.learn(
        &mut policy,
        &mut objective,
        &config.optim,
        &config.train,
        config.seed,
    )?;
    session.finish_run(&policy, last, arguments, config.seed)
}

fn run_ppo(arguments: &TrainArguments) -> Result<()> {
    let config: PpoConfig = arguments.resolve(&PpoConfig::default())?;
    let source = arguments.online_source()?;
    let mut session = arguments.open(&config)?;
    let mut policy = arguments.load(&session.device, config.seed)?;
    let scorer = arguments.scorer(&policy, &session.device, config.seed)?;
    let mut value = match (&scorer, config.value_init) {
        (Some(decoder), ValueInit::RewardModel) => decoder.clone(),
        _ => policy.decoder.with_score_head(None)?,
    };
    let reward = reward(scorer, config.micro_batch_size);
    let reference = policy.decoder.clone();
    if let Some(lora) = &config.lora {
        policy.decoder.add_lora(lora.clone(), config.seed)?;
    }
    let tokenizer = &policy.tokenizer;
    let data = session.read(
        &source,
        LabRows::Prompts,
        &config.data,
        LossOn::Completion,
        &policy,
        config.seed,
        tokenize::prompt,
    )?;
    let mut models = Models {
        policy: &mut policy.decoder,
        reference: &reference,
        value: &mut value,
        reward: &*reward,
        tokenizer,
    };
    let Session {
        recipe, run, bars, ..
    } = &mut session;
    let mut stage = Stage {
        name: recipe,
        run,
        seed: config.seed,
        observer: bars,
    };
    let last = ppo::train(&mut stage, &mut models, &data.train, &data.valid, &config)?;
    session.finish_run(&policy, last, arguments, config.seed)
}

fn reward(scorer: Option<Decoder>, at_once: usize) -> Box<dyn Reward> {
    match scorer {
        Some(decoder) => Box::new(RewardModel::new(decoder, at_once)),
        None => Box::new(LabGold),
    }
}

impl TrainArguments {
    /// Where an online recipe's prompts come from.
    fn online_source(&self) -> Result<DataSource> {
        let source = self.source()?;
        if self.reward == "lab" && source != DataSource::Lab {
            let text = "--reward: the lab's scorer knows only the lab's prompts; with --data FILE \
                        give a reward model (`cargo xtask train reward` makes one)";
            return Err(InputError(text.to_owned()).into());
        }
        Ok(source)
    }

    /// The reward model, if it is not the lab's gold.
    fn scorer(&self, policy: &Policy, device: &Device, seed: u64) -> Result<Option<Decoder>> {
        if self.reward == "lab" {
            return Ok(None);
        }
        let model = Source::parse(&self.reward)?.load(device, seed)?;
        if ModelConfig::head_of(&model.decoder.params) != Head::Score {
            let text = format!(
                "--reward {}: is a language model, not a reward model (no score.weight); train \
                 one with `cargo xtask train reward`",
                self.reward
            );
            return Err(InputError(text).into());
        }
        let (theirs, ours) = (&model.decoder.config, &policy.decoder.config);
        if theirs.vocab_size != ours.vocab_size {
            let text = format!(
                "--reward {}: its vocabulary of {} is not the policy's of {}",
                self.reward, theirs.vocab_size, ours.vocab_size
            );
            return Err(InputError(text).into());
        }
        Ok(Some(model.decoder))
    }
}

fn run_online<A: OnlineAlgorithm>(arguments: &TrainArguments) -> Result<()> {
    let config: OnlineConfig<A> = arguments.resolve(&OnlineConfig::default())?;
    let source = arguments.online_source()?;
    let mut session = arguments.open(&config)?;
    let mut policy = arguments.load(&session.device, config.seed)?;
    let scorer = arguments.scorer(&policy, &session.device, config.seed)?;
    let reward = reward(scorer, config.micro_batch_size);
    let reference = policy.decoder.clone();
    if let Some(lora) = &config.lora {
        policy.decoder.add_lora(lora.clone(), config.seed)?;
    }
    let rows = LabRows::Prompts;
    let data = session.read(
        &source,
        rows,
        &config.data,
        LossOn::Completion,
        &policy,
        config.seed,
        tokenize::prompt,
    )?;
    let mut models = OnlineModels {
        policy: &mut policy.decoder,
        reference: &reference,
        reward: &*reward,
        tokenizer: &policy.tokenizer,
    };
    let Session {
        recipe, run, bars, ..
    } = &mut session;
    let mut stage = Stage {
        name: recipe,
        run,
        seed: config.seed,
        observer: bars,
    };
    let last = online::train(&mut stage, &mut models, &data.train, &data.valid, &config)?;
    session.finish_run(&policy, last, arguments, config.seed)
}

impl Session {
    /// Reads or makes a recipe's samples, and says what was read.
    #[allow(clippy::too_many_arguments)]
    fn read<T>(
        &mut self,
        source: &DataSource,
        rows: LabRows,
        section: &DataSection,
        loss_on: LossOn,
        policy: &Policy,
        seed: u64,
        tokenize: impl Fn(&Located, &Tokenizer, &TokenizeOptions) -> Result<Option<T>, DataError>,
    ) -> Result<Samples<T>> {
        let (tokenizer, options) = (&policy.tokenizer, section.options(loss_on));
        let data = samples(source, rows, section, seed, tokenizer, &options, tokenize)?;
        self.bars.on(Event::Message(&data.summary));
        Ok(data)
    }

    fn learn(
        &mut self,
        policy: &mut Policy,
        objective: &mut impl Objective,
        optim: &togi_train::config::OptimSection,
        train: &togi_train::config::LoopSection,
        seed: u64,
    ) -> Result<Option<Row>> {
        let Self {
            recipe, run, bars, ..
        } = self;
        let mut stage = Stage {
            name: recipe,
            run,
            seed,
            observer: bars,
        };
        Ok(offline::train(
            &mut stage,
            &mut policy.decoder,
            objective,
            optim,
            train,
        )?)
    }

    /// Saves the model, or its adapter alone, which names the model it belongs to. A base that is in
    /// no file of its own is saved beside it.
    fn save(&self, policy: &Policy, arguments: &TrainArguments, seed: u64) -> Result<()> {
        if policy.decoder.lora.is_none() {
            return Ok(hf::save(policy, &self.run.model())?);
        }
        let source = Source::parse(&arguments.model)?;
        if let Source::Gguf(path) = &source {
            eprintln!(
                "The adapter belongs to {}. PEFT needs that model as a folder: `cargo xtask export \
                 {} --out DIR`, and DIR as base_model_name_or_path in adapter_config.json.",
                path.display(),
                arguments.model
            );
        }
        let base = match source.base_name() {
            Some(name) => name,
            None => {
                let folder = std::path::absolute(self.run.path().join("base"))?;
                hf::save(&arguments.load(&self.device, seed)?, &folder)?;
                folder.display().to_string()
            }
        };
        Ok(adapter::save(policy, &base, &self.run.model())?)
    }

    /// Saves the model and the report.
    fn finish_run(
        self,
        policy: &Policy,
        last: Option<Row>,
        arguments: &TrainArguments,
        seed: u64,
    ) -> Result<()> {
        self.save(policy, arguments, seed)?;
        let summary = last.map_or(Ok(String::new()), |row| summary(&row))?;
        let title = format!("train {}", self.recipe);
        self.finish(Report {
            title,
            summary,
            ..Report::default()
        })
    }

    fn finish(self, report: Report) -> Result<()> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let system = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
        let report = Report {
            metrics: read_metrics(&self.run)?,
            config: self.config,
            environment: vec![
                ("Togi".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
                ("System".to_owned(), system),
                ("Threads".to_owned(), threads.to_string()),
            ],
            ..report
        };
        let path = self.run.path().join("report.html");
        fs::write(&path, report.html()?).with_context(|| path.display().to_string())?;
        let memory = memory::peak().map_or(String::new(), |bytes| {
            format!("  Peak memory: {}", memory::human(bytes))
        });
        if !report.summary.is_empty() {
            println!("{}", report.summary);
        }
        println!(
            "Model: {}\nReport: {}\nTime: {:.0} s{memory}",
            self.run.model().display(),
            path.display(),
            self.started.elapsed().as_secs_f64()
        );
        Ok(())
    }
}

/// The last held-out metrics, accuracies with their interval.
fn summary(row: &Row) -> Result<String> {
    let mut shown = Vec::new();
    for (name, value) in row.iter().filter(|(name, _)| *name != "val/samples") {
        let mut text = format!("{name} {value:.4}");
        if let (true, Some(count)) = (name.ends_with("accuracies"), row.get("val/samples")) {
            let Interval { low, high, .. } = share_interval(name, value, count as usize)?;
            text.push_str(&format!(
                " (95% interval {low:.3} to {high:.3}, {count} pairs)"
            ));
        }
        shown.push(text);
    }
    Ok(shown.join(", "))
}

fn read_metrics(run: &RunFolder) -> Result<Vec<Map<String, Value>>> {
    let path = run.path().join("metrics.jsonl");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let rows = text.lines().map(serde_json::from_str);
    rows.collect::<Result<_, _>>()
        .with_context(|| path.display().to_string())
}
