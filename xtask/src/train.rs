//! `cargo xtask train <recipe>`.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Result;
use burn::tensor::Device;
use clap::Args;
use togi_data::{LossOn, lab::Writer, tokenize};
use togi_eval::{comparison::plain, report::Report};
use togi_policy::{Policy, Precision, source::Source};
use togi_reward::LabGold;
use togi_train::{
    Event, Observer, RunFolder,
    arena::Compared,
    config::{RecipeConfig, to_toml},
    data::{DataSource, LabRows, check},
    kto::Kto,
    memory::{Demand, OfStage, PromptSizes, Watch, sizes},
    online::{self, OnlineAlgorithm, OnlineConfig, OnlineModels},
    ppo::{self, Models, ValueInit},
    preference::PreferenceConfig,
    rlhf::{self, RlhfConfig},
    rso,
    sft::Sft,
    stages,
};

use crate::{
    InputError,
    ai_feedback::{run_cai, run_rlaif},
    budget::MemoryArguments,
    device,
    progress::Bars,
    recipe::{OnlineVisitor, Recipe, preference_defaults},
    scorer::RewardArguments,
    session::Session,
};

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
    #[command(flatten)]
    pub(crate) scorer: RewardArguments,
    /// Who compares answers (rlaif, cai): `lab`, `self`, a reward model, a language model, `rules:FILE`, or
    /// the address of a chat server such as http://localhost:8000/v1.
    #[arg(long, value_name = "SRC")]
    pub(crate) judge: Option<String>,
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
    /// Held-out prompts of the lab that the tuned model is compared on with the one that it started
    /// from; 0: no comparison.
    #[arg(long, value_name = "N", default_value_t = 300)]
    pub(crate) compare: usize,
    /// Go on with a run that was interrupted.
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    pub(crate) memory: MemoryArguments,
}

impl TrainArguments {
    pub(crate) fn config_file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// The folder of the run that goes on, if one does.
    pub(crate) fn resumed(&self) -> Option<PathBuf> {
        self.resume.then(|| self.folder())
    }

    fn folder(&self) -> PathBuf {
        let own = || PathBuf::from("runs").join(self.recipe.name());
        self.out.clone().unwrap_or_else(own)
    }

    /// The settings that the command line comes to.
    ///
    /// # Errors
    /// When a recipe of several stages is given what belongs to one.
    pub(crate) fn given(&self) -> Result<Vec<String>> {
        let mut settings = Vec::new();
        let seed_key = match self.recipe {
            Recipe::Rso => "preference.seed",
            _ => "seed",
        };
        settings.extend(self.seed.map(|seed| format!("{seed_key}={seed}")));
        if let Some(steps) = self.max_steps {
            let Some(key) = self.recipe.steps_key() else {
                let (name, stage) = match self.recipe {
                    Recipe::Cai => ("cai", "preference.train"),
                    _ => ("rlhf", "ppo"),
                };
                let text = format!(
                    "--max-steps: {name} has several stages; use for instance --set {stage}.max_steps=N"
                );
                return Err(InputError(text).into());
            };
            settings.push(format!("{key}={steps}"));
        }
        if let Some(micro) = &self.memory.micro_batch {
            let keys = self.recipe.micro_keys(self.model == "lab");
            settings.extend(keys.iter().map(|key| format!("{key}={micro}")));
        }
        settings.extend(self.settings.iter().cloned());
        Ok(settings)
    }

    /// Opens the run folder. Its `config.toml` says where model and data came from too, as a
    /// comment, so that a resumed run with others is refused.
    pub(crate) fn open<C: RecipeConfig>(&self, config: &C) -> Result<Session> {
        let recipe = self.recipe.name();
        let out = self.folder();
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
            if let Some(judge) = &self.judge {
                text.push_str(&format!(" --judge {judge}"));
            }
            if self.recipe.is_online() {
                text.push_str(&format!(" {}", self.scorer.text()));
            }
        }
        let precision = Precision::of_program();
        if precision != Precision::F32 {
            text.push_str(&format!(" --dtype {precision}"));
        }
        text.push('\n');
        text.push_str(&to_toml(config)?);
        let device = device::parse(&self.device)?;
        config.check_device(&device)?;
        let run = RunFolder::open(&out, &text, self.resume)?;
        let mut bars = Bars::new();
        for (old, new) in run.changed() {
            let text = format!(
                "goes on with {new} instead of {old}: from here on results round otherwise"
            );
            bars.on(Event::Message(&text));
        }
        Ok(Session {
            recipe,
            run,
            config: text,
            device,
            bars,
            started: Instant::now(),
            watch: Watch::default(),
        })
    }

    pub(crate) fn source(&self) -> Result<DataSource> {
        if self.data == ["lab"] {
            if self.valid.is_empty() {
                return Ok(DataSource::Lab);
            }
            return Err(InputError("--valid goes with --data FILE".to_owned()).into());
        }
        if self.model == "lab" {
            let text = "--data FILE: the lab's model knows only the lab's words; give --model too";
            return Err(InputError(text.to_owned()).into());
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
    device::parse_to_train(&arguments.device)?;
    let on_lab = arguments.on_lab();
    let judged = matches!(arguments.recipe, Recipe::Rlaif | Recipe::Cai);
    if arguments.judge.is_some() && !judged {
        let text = "--judge: only rlaif and cai ask a judge";
        return Err(InputError(text.to_owned()).into());
    }
    if let Some(done) = arguments.recipe.online(on_lab, Online(arguments)) {
        return done;
    }
    match arguments.recipe {
        Recipe::Rlhf => run_rlhf(arguments),
        Recipe::Sft => run_sft(arguments),
        Recipe::Reward => run_reward(arguments),
        Recipe::Ppo => run_ppo(arguments),
        Recipe::Kto => run_kto(arguments),
        Recipe::Rso => run_rso(arguments),
        Recipe::Rlaif => run_rlaif(arguments),
        Recipe::Cai => run_cai(arguments),
        recipe => run_preference(arguments, &preference_defaults(recipe, on_lab)),
    }
}

/// Defaults of `rlhf`: the lab's sizes for the lab's model.
pub(crate) fn rlhf_defaults(arguments: &TrainArguments) -> Result<RlhfConfig> {
    if arguments.model != "lab" {
        return Ok(RlhfConfig::pretrained());
    }
    Ok(RlhfConfig::default())
}

fn run_rlhf(arguments: &TrainArguments) -> Result<()> {
    let config = arguments.rlhf_config()?;
    let source = arguments.source()?;
    let watching = arguments.memory.watching()?;
    let model = Source::parse(&arguments.model)?;
    let mut session = arguments.open(&config)?;
    let mut stages = session.stages(watching);
    let outcome = rlhf::train(&mut stages, &config, &model, &source)?;
    let metric = match source {
        DataSource::Lab => "gold reward",
        DataSource::Files { .. } => "proxy reward",
    };
    let Compared {
        comparison,
        samples,
        ..
    } = outcome.compared;
    let gain = comparison.difference(metric, "PPO", "SFT")?;
    println!("\n{}", plain(&comparison.table()?));
    let summary = format!(
        "PPO's {metric} is {:+.3} over SFT's (95% interval {:+.3} to {:+.3}, paired over {} \
         prompts).",
        gain.value,
        gain.low,
        gain.high,
        comparison.prompts.len()
    );
    session.finish(Report {
        title: format!("train rlhf, {}", arguments.model),
        summary,
        comparison: Some(comparison),
        samples,
        ..Report::default()
    })
}

fn run_sft(arguments: &TrainArguments) -> Result<()> {
    let config = arguments.sft_config()?;
    let source = arguments.source()?;
    let rows = LabRows::Answers(Writer::demonstrator());
    check(&source, &rows, &config.data)?;
    let mut session = arguments.open(&config)?;
    let mut policy = session.start(arguments, config.seed)?;
    let start = arguments.compared(&policy);
    let data = session.read(
        &source,
        rows,
        &config.data,
        config.loss_on,
        &policy,
        config.seed,
        tokenize::sft,
    )?;
    let demand = Demand::sft(&config, &policy.decoder, sizes(&data.train));
    session.watches(&arguments.of_stage(demand), arguments)?;
    if let Some(lora) = &config.lora {
        policy.decoder.add_lora(lora.clone(), config.seed)?;
    }
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
    session.finish_run(
        &policy,
        start.as_ref().map(|start| (start, None)),
        last,
        arguments,
        config.seed,
    )
}

fn run_reward(arguments: &TrainArguments) -> Result<()> {
    let config = arguments.reward_config()?;
    let source = arguments.source()?;
    check(&source, &config.lab_rows(), &config.data)?;
    let mut session = arguments.open(&config)?;
    let mut policy = session.start(arguments, config.seed)?;
    policy.decoder = policy.decoder.with_score_head(Some(config.seed))?;
    let demand = Demand::reward(&config, &policy.decoder, Vec::new());
    if let Some(lora) = &config.lora {
        policy.decoder.add_lora(lora.clone(), config.seed)?;
    }
    let (limit, keys, device) = (
        arguments.memory.limit()?,
        arguments.keys(),
        session.device.clone(),
    );
    let watch = |sizes| Watch::new(&demand.clone().with_sizes(sizes), &keys, &device, limit);
    let mut stage = session.stage(config.seed);
    let Policy {
        decoder, tokenizer, ..
    } = &mut policy;
    let last = stages::learn_reward(
        &mut stage,
        decoder,
        tokenizer,
        &config,
        &source,
        config.seed,
        watch,
    )?;
    session.watch = stage.watch;
    session.finish_run(&policy, None, last, arguments, config.seed)
}

fn run_preference(arguments: &TrainArguments, defaults: &PreferenceConfig) -> Result<()> {
    let config = arguments.preference_config(defaults)?;
    let source = arguments.source()?;
    let rows = LabRows::Preferences(config.annotators);
    check(&source, &rows, &config.data)?;
    let mut session = arguments.open(&config)?;
    let mut policy = session.start(arguments, config.seed)?;
    let start = arguments.compared(&policy);
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
    let demand = Demand::preference(&config, &policy.decoder, sizes(train));
    session.watches(&arguments.of_stage(demand), arguments)?;
    let mut objective = session.preference(train, valid, &config, &policy.decoder)?;
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
    session.finish_run(
        &policy,
        start.as_ref().map(|start| (start, None)),
        last,
        arguments,
        config.seed,
    )
}

fn run_kto(arguments: &TrainArguments) -> Result<()> {
    let config = arguments.kto_config()?;
    let source = arguments.source()?;
    let rows = LabRows::Preferences(config.annotators);
    check(&source, &rows, &config.data)?;
    let mut session = arguments.open(&config)?;
    let mut policy = session.start(arguments, config.seed)?;
    let start = arguments.compared(&policy);
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
    let demand = Demand::kto(&config, &policy.decoder, sizes(&train));
    session.watches(&arguments.of_stage(demand), arguments)?;
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
    session.finish_run(
        &policy,
        start.as_ref().map(|start| (start, None)),
        last,
        arguments,
        config.seed,
    )
}

fn run_rso(arguments: &TrainArguments) -> Result<()> {
    let config = arguments.rso_config()?;
    let (settings, seed) = (&config.preference, config.preference.seed);
    let source = arguments.online_source()?;
    check(&source, &LabRows::Prompts, &settings.data)?;
    let mut session = arguments.open(&config)?;
    let mut policy = session.start(arguments, seed)?;
    let start = arguments.compared(&policy);
    let prompts = session.prompts(&source, &settings.data, &policy, seed)?;
    let (decoder, tokenizer) = (&policy.decoder, &policy.tokenizer);
    let asks = |rewards| OfStage::rso(&config, decoder, rewards, &sizes(&prompts.train));
    let models = session.scorers(arguments, &policy, seed, asks)?;
    let asked = asks(models.parameters());
    let scorer = &arguments.scorer;
    let reward = scorer.combined(models, settings.train.micro_batch_size);
    let mut stage = session.stage(seed);
    let pairs = rso::pairs(
        &mut stage,
        decoder,
        tokenizer,
        &*reward,
        &prompts.train,
        &config,
    )?;
    let asked = asked.with_sizes(sizes(&pairs));
    let mut objective = session.preference(&pairs, &[], settings, decoder)?;
    if let Some(lora) = &settings.lora {
        policy.decoder.add_lora(lora.clone(), seed)?;
    }
    let (optim, train) = (&settings.optim, &settings.train);
    session.watch_over(&asked, arguments)?;
    let last = session.learn(&mut policy, &mut objective, optim, train, seed)?;
    session.finish_run(
        &policy,
        start.as_ref().map(|start| (start, Some(&*reward))),
        last,
        arguments,
        seed,
    )
}

fn run_ppo(arguments: &TrainArguments) -> Result<()> {
    let config = arguments.ppo_config()?;
    let source = arguments.online_source()?;
    check(&source, &LabRows::Prompts, &config.data)?;
    let mut session = arguments.open(&config)?;
    let mut policy = session.start(arguments, config.seed)?;
    let start = arguments.compared(&policy);
    let data = session.prompts(&source, &config.data, &policy, config.seed)?;
    let prompts = PromptSizes::of(&data);
    let demand = |rewards| Demand::ppo(&config, &policy.decoder, rewards, &prompts);
    let asks = |rewards| arguments.of_stage(demand(rewards));
    let models = session.scorers(arguments, &policy, config.seed, asks)?;
    let mut value = match (models.models.first(), config.value_init) {
        (Some(decoder), ValueInit::RewardModel) => decoder.clone(),
        _ => policy.decoder.with_score_head(None)?,
    };
    let reward = arguments.scorer.combined(models, config.micro_batch_size);
    let reference = policy.decoder.clone();
    if let Some(lora) = &config.lora {
        policy.decoder.add_lora(lora.clone(), config.seed)?;
    }
    let tokenizer = &policy.tokenizer;
    let mut models = Models {
        policy: &mut policy.decoder,
        reference: &reference,
        value: &mut value,
        reward: &*reward,
        gold: gold(&source),
        tokenizer,
    };
    let mut stage = session.stage(config.seed);
    let last = ppo::train(&mut stage, &mut models, &data.train, &data.valid, &config)?;
    session.finish_run(
        &policy,
        start.as_ref().map(|start| (start, Some(&*reward))),
        last,
        arguments,
        config.seed,
    )
}

/// The true reward, where the prompts are the lab's.
fn gold(source: &DataSource) -> Option<&'static LabGold> {
    (*source == DataSource::Lab).then_some(&LabGold)
}

impl TrainArguments {
    /// A copy of the model that training starts from, where it is compared with at the end.
    fn compared(&self, policy: &Policy) -> Option<Policy> {
        (self.on_lab() && self.compare > 0).then(|| policy.clone())
    }

    /// True if the lab's model learns from the lab's data: defaults have the lab's sizes.
    pub(crate) fn on_lab(&self) -> bool {
        self.data == ["lab"] && Source::parse(&self.model).is_ok_and(|source| source.is_of_lab())
    }

    /// Where an online recipe's prompts come from.
    fn online_source(&self) -> Result<DataSource> {
        let source = self.source()?;
        if self.scorer.needs_lab() && source != DataSource::Lab {
            let text = "--reward: the lab's scorer knows only the lab's prompts; with --data FILE \
                        give a reward model (`cargo xtask train reward` makes one)";
            return Err(InputError(text.to_owned()).into());
        }
        Ok(source)
    }
}

/// Runs an online recipe.
struct Online<'a>(&'a TrainArguments);

impl OnlineVisitor for Online<'_> {
    fn visit<A: OnlineAlgorithm>(self, defaults: OnlineConfig<A>) -> Result<()> {
        run_online(self.0, &defaults)
    }
}

fn run_online<A: OnlineAlgorithm>(
    arguments: &TrainArguments,
    defaults: &OnlineConfig<A>,
) -> Result<()> {
    let config = arguments.online_config(defaults)?;
    let source = arguments.online_source()?;
    check(&source, &LabRows::Prompts, &config.data)?;
    let mut session = arguments.open(&config)?;
    let mut policy = session.start(arguments, config.seed)?;
    let start = arguments.compared(&policy);
    let data = session.prompts(&source, &config.data, &policy, config.seed)?;
    let prompts = PromptSizes::of(&data);
    let demand = |rewards| Demand::online(&config, &policy.decoder, rewards, &prompts);
    let asks = |rewards| arguments.of_stage(demand(rewards));
    let models = session.scorers(arguments, &policy, config.seed, asks)?;
    let reward = arguments.scorer.combined(models, config.micro_batch_size);
    let reference = policy.decoder.clone();
    if let Some(lora) = &config.lora {
        policy.decoder.add_lora(lora.clone(), config.seed)?;
    }
    let mut models = OnlineModels {
        policy: &mut policy.decoder,
        reference: &reference,
        reward: &*reward,
        gold: gold(&source),
        tokenizer: &policy.tokenizer,
    };
    let mut stage = session.stage(config.seed);
    let last = online::train(&mut stage, &mut models, &data.train, &data.valid, &config)?;
    session.finish_run(
        &policy,
        start.as_ref().map(|start| (start, Some(&*reward))),
        last,
        arguments,
        config.seed,
    )
}
