//! `cargo xtask train <recipe>`.

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context, Result};
use burn::tensor::Device;
use clap::Args;
use serde_json::{Map, Value};
use togi_data::{DataError, Located, LossOn, TokenizeOptions, Tokenizer, lab::Writer, tokenize};
use togi_eval::{
    bootstrap::{Interval, share_interval},
    comparison::{Comparison, plain},
    report::Report,
};
use togi_policy::{Policy, adapter, hf, source::Source};
use togi_reward::{LabGold, Reward};
use togi_train::{
    Event, Observer, Row, RunFolder,
    arena::{Arena, lab_prompts},
    config::{DataSection, RecipeConfig, resolve, to_toml},
    data::{DataSource, LabRows, Samples, check, samples},
    kto::{Kto, KtoConfig},
    lab_defaults, memory,
    offline::{self, Objective, Stage},
    online::{self, OnlineAlgorithm, OnlineConfig, OnlineModels},
    ppo::{self, Models, PpoConfig, ValueInit},
    preference::{Preference, PreferenceConfig},
    reward::RewardConfig,
    rlhf::{self, RlhfConfig},
    rso::{self, RsoConfig},
    sft::{Sft, SftConfig},
    stages,
};

use crate::{
    InputError, device,
    progress::Bars,
    recipe::{
        OnlineVisitor, Recipe, kto_defaults, ppo_defaults, preference_defaults, reward_defaults,
        rso_defaults, sft_defaults,
    },
    scorer::RewardArguments,
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
    compare: usize,
    /// Go on with a run that was interrupted.
    #[arg(long)]
    resume: bool,
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
        let seed_key = match self.recipe {
            Recipe::Rso => "preference.seed",
            _ => "seed",
        };
        settings.extend(self.seed.map(|seed| format!("{seed_key}={seed}")));
        if let Some(steps) = self.max_steps {
            let Some(key) = self.recipe.steps_key() else {
                let text = "--max-steps: rlhf has several stages; use for instance --set \
                            ppo.max_steps=N";
                return Err(InputError(text.to_owned()).into());
            };
            settings.push(format!("{key}={steps}"));
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
                text.push_str(&format!(" {}", self.scorer.text()));
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
    device::parse(&arguments.device)?;
    let on_lab = arguments.on_lab();
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
    let config: SftConfig = arguments.resolve(&sft_defaults(arguments.on_lab()))?;
    let source = arguments.source()?;
    check(
        &source,
        &LabRows::Answers(Writer::demonstrator()),
        &config.data,
    )?;
    let mut session = arguments.open(&config)?;
    let mut policy = session.start(arguments, config.seed)?;
    let start = policy.clone();
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
    session.finish_run(&policy, Some((&start, None)), last, arguments, config.seed)
}

fn run_reward(arguments: &TrainArguments) -> Result<()> {
    let config: RewardConfig = arguments.resolve(&reward_defaults(arguments.on_lab()))?;
    let source = arguments.source()?;
    check(&source, &config.lab_rows(), &config.data)?;
    let mut session = arguments.open(&config)?;
    let mut policy = session.start(arguments, config.seed)?;
    policy.decoder = policy.decoder.with_score_head(Some(config.seed))?;
    if let Some(lora) = &config.lora {
        policy.decoder.add_lora(lora.clone(), config.seed)?;
    }
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
    )?;
    session.finish_run(&policy, None, last, arguments, config.seed)
}

fn run_preference(arguments: &TrainArguments, defaults: &PreferenceConfig) -> Result<()> {
    let config: PreferenceConfig = arguments.resolve(defaults)?;
    let source = arguments.source()?;
    check(
        &source,
        &LabRows::Preferences(config.annotators),
        &config.data,
    )?;
    let mut session = arguments.open(&config)?;
    let mut policy = session.start(arguments, config.seed)?;
    let start = policy.clone();
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
    session.finish_run(&policy, Some((&start, None)), last, arguments, config.seed)
}

fn run_kto(arguments: &TrainArguments) -> Result<()> {
    let config: KtoConfig = arguments.resolve(&kto_defaults(arguments.on_lab()))?;
    let source = arguments.source()?;
    check(
        &source,
        &LabRows::Preferences(config.annotators),
        &config.data,
    )?;
    let mut session = arguments.open(&config)?;
    let mut policy = session.start(arguments, config.seed)?;
    let start = policy.clone();
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
    session.finish_run(&policy, Some((&start, None)), last, arguments, config.seed)
}

fn run_rso(arguments: &TrainArguments) -> Result<()> {
    let config: RsoConfig = arguments.resolve(&rso_defaults(arguments.on_lab()))?;
    let (settings, seed) = (&config.preference, config.preference.seed);
    let source = arguments.online_source()?;
    check(&source, &LabRows::Prompts, &settings.data)?;
    let mut session = arguments.open(&config)?;
    let mut policy = session.start(arguments, seed)?;
    let start = policy.clone();
    let scorer = &arguments.scorer;
    let models = scorer.models(&policy.tokenizer, &session.device, seed)?;
    let reward = scorer.combined(models, settings.train.micro_batch_size);
    let prompts = session.read(
        &source,
        LabRows::Prompts,
        &settings.data,
        LossOn::Completion,
        &policy,
        seed,
        tokenize::prompt,
    )?;
    let mut stage = session.stage(seed);
    let (decoder, tokenizer) = (&policy.decoder, &policy.tokenizer);
    let pairs = rso::pairs(
        &mut stage,
        decoder,
        tokenizer,
        &*reward,
        &prompts.train,
        &config,
    )?;
    let (mut objective, _) = Preference::new(&pairs, &[], settings, decoder)?;
    if let Some(lora) = &settings.lora {
        policy.decoder.add_lora(lora.clone(), seed)?;
    }
    let (optim, train) = (&settings.optim, &settings.train);
    let last = session.learn(&mut policy, &mut objective, optim, train, seed)?;
    session.finish_run(
        &policy,
        Some((&start, Some(&*reward))),
        last,
        arguments,
        seed,
    )
}

fn run_ppo(arguments: &TrainArguments) -> Result<()> {
    let config: PpoConfig = arguments.resolve(&ppo_defaults(arguments.on_lab()))?;
    let source = arguments.online_source()?;
    check(&source, &LabRows::Prompts, &config.data)?;
    let mut session = arguments.open(&config)?;
    let mut policy = session.start(arguments, config.seed)?;
    let start = policy.clone();
    let scorer = &arguments.scorer;
    let models = scorer.models(&policy.tokenizer, &session.device, config.seed)?;
    let mut value = match (models.first(), config.value_init) {
        (Some(decoder), ValueInit::RewardModel) => decoder.clone(),
        _ => policy.decoder.with_score_head(None)?,
    };
    let reward = scorer.combined(models, config.micro_batch_size);
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
        gold: gold(&source),
        tokenizer,
    };
    let mut stage = session.stage(config.seed);
    let last = ppo::train(&mut stage, &mut models, &data.train, &data.valid, &config)?;
    session.finish_run(
        &policy,
        Some((&start, Some(&*reward))),
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
    /// True if the lab's model learns from the lab's data: defaults have the lab's sizes.
    pub(crate) fn on_lab(&self) -> bool {
        self.data == ["lab"] && Source::parse(&self.model).is_ok_and(|source| source.is_of_lab())
    }

    /// Where an online recipe's prompts come from.
    fn online_source(&self) -> Result<DataSource> {
        let source = self.source()?;
        if self.scorer.is_lab() && source != DataSource::Lab {
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
    let config: OnlineConfig<A> = arguments.resolve(defaults)?;
    let source = arguments.online_source()?;
    check(&source, &LabRows::Prompts, &config.data)?;
    let mut session = arguments.open(&config)?;
    let mut policy = session.start(arguments, config.seed)?;
    let start = policy.clone();
    let scorer = &arguments.scorer;
    let models = scorer.models(&policy.tokenizer, &session.device, config.seed)?;
    let reward = scorer.combined(models, config.micro_batch_size);
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
        gold: gold(&source),
        tokenizer: &policy.tokenizer,
    };
    let mut stage = session.stage(config.seed);
    let last = online::train(&mut stage, &mut models, &data.train, &data.valid, &config)?;
    session.finish_run(
        &policy,
        Some((&start, Some(&*reward))),
        last,
        arguments,
        config.seed,
    )
}

impl Session {
    /// The model that training starts from. The lab's is one that has learnt to answer: it is trained
    /// first, in stages of this run. SFT starts from the lab's base model.
    fn start(&mut self, arguments: &TrainArguments, seed: u64) -> Result<Policy> {
        if Source::parse(&arguments.model)? != Source::Lab {
            return arguments.load(&self.device, seed);
        }
        let Self {
            run, device, bars, ..
        } = self;
        if arguments.recipe == Recipe::Sft {
            let config = lab_defaults::base();
            return Ok(stages::lab_base(run, &config, seed, device, bars)?);
        }
        Ok(stages::lab_sft(run, seed, device, bars)?)
    }

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

    fn stage(&mut self, seed: u64) -> Stage<'_> {
        Stage {
            name: &self.recipe,
            run: &self.run,
            seed,
            observer: &mut self.bars,
        }
    }

    fn learn(
        &mut self,
        policy: &mut Policy,
        objective: &mut impl Objective,
        optim: &togi_train::config::OptimSection,
        train: &togi_train::config::LoopSection,
        seed: u64,
    ) -> Result<Option<Row>> {
        let mut stage = self.stage(seed);
        let decoder = &mut policy.decoder;
        Ok(offline::train(
            &mut stage, decoder, objective, optim, train,
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
            None if source == Source::Lab => {
                let stage = match arguments.recipe {
                    Recipe::Sft => "base",
                    _ => "sft",
                };
                let folder = self.run.path().join("stages").join(stage);
                std::path::absolute(folder)?.display().to_string()
            }
            None => {
                let folder = std::path::absolute(self.run.path().join("base"))?;
                hf::save(&arguments.load(&self.device, seed)?, &folder)?;
                folder.display().to_string()
            }
        };
        Ok(adapter::save(policy, &base, &self.run.model())?)
    }

    /// Saves the model and the report. On the lab the model is compared with the one that it started
    /// from, if that is given (with the reward that it was tuned to, if that was a reward).
    fn finish_run(
        self,
        policy: &Policy,
        start: Option<(&Policy, Option<&dyn Reward>)>,
        last: Option<Row>,
        arguments: &TrainArguments,
        seed: u64,
    ) -> Result<()> {
        self.save(policy, arguments, seed)?;
        let mut summary = last.map_or(Ok(String::new()), |row| summary(&row))?;
        let title = format!("train {}", self.recipe);
        let mut comparison = None;
        if let Some((start, mut proxy)) =
            start.filter(|_| arguments.on_lab() && arguments.compare > 0)
        {
            // A recipe without a reward can be compared by one too.
            let scorer = &arguments.scorer;
            let models = scorer.models(&policy.tokenizer, &self.device, seed)?;
            let given = (!models.is_empty()).then(|| scorer.combined(models, 64));
            proxy = proxy.or(given.as_deref());
            let models = [("start", start), (&*self.recipe, policy)];
            let compared = compare(models, proxy, arguments.compare, seed)?;
            let path = self.run.path().join("comparison.json");
            fs::write(&path, serde_json::to_vec(&compared)?)
                .with_context(|| path.display().to_string())?;
            println!("\n{}", plain(&compared.table()?));
            let gain = compared.difference("gold reward", &self.recipe, "start")?;
            summary = format!(
                "{}'s gold reward is {:+.3} over that of the model it started from (95% interval \
                 {:+.3} to {:+.3}, paired over {} prompts).{}{summary}",
                self.recipe,
                gain.value,
                gain.low,
                gain.high,
                compared.prompts.len(),
                if summary.is_empty() { "" } else { "\n" },
            );
            comparison = Some(compared);
        }
        self.finish(Report {
            title,
            summary,
            comparison,
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

/// Models side by side on held-out prompts of the lab; the first is what the KL is measured from.
fn compare(
    models: [(&str, &Policy); 2],
    proxy: Option<&dyn Reward>,
    count: usize,
    seed: u64,
) -> Result<Comparison> {
    let (_, start) = models[0];
    let prompts = lab_prompts(&start.tokenizer, count, seed)?;
    let arena = Arena {
        prompts: &prompts,
        reference: &start.decoder,
        proxy,
        gold: true,
        sampling: &lab_defaults::sampling(),
        seed,
    };
    Ok(arena.compare(&models)?)
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
