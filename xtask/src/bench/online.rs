//! `cargo xtask bench grpo` and `bench ppo`: whole steps of the online recipes, from drawing to the update.
//!
//! No end token is known to the sampler, so that all completions are equally long and programs do equal work. The
//! reward is a rule that costs nothing.

use std::{path::PathBuf, time::Instant};

use anyhow::Result;
use burn::tensor::Device;
use clap::Args;
use togi_data::{PromptSample, Sample, Tokenizer};
use togi_policy::{Decoder, Sampling};
use togi_reward::{Reward, Scorable, Score, Unscorable};
use togi_train::{
    grpo::Grpo,
    memory::{self, Demand, PromptSizes, Watch, sizes},
    metrics::{Event, Observer},
    offline::Stage,
    online::{self, OnlineConfig, OnlineModels},
    ppo::{self, Models, PpoConfig},
    run_folder::RunFolder,
};

use super::{
    Common, at_least_one, flops, load_to_train,
    offline::LEARNING_RATE,
    pairs::prompts,
    peak,
    steps::{Drawn, Step, Steps, constant},
};

#[derive(Args, Clone)]
pub(crate) struct OnlineArguments {
    #[command(flatten)]
    common: Common,
    /// Rows whose prompts are completed; they are cut to their last tokens.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Completions a step: of GRPO four of each prompt, of PPO one.
    #[arg(long, default_value_t = 32, value_parser = groups())]
    completions: u64,
    /// Tokens of a prompt.
    #[arg(long, default_value_t = 64, value_parser = at_least_one())]
    prompt: u64,
    /// Tokens of a completion.
    #[arg(long, default_value_t = 64, value_parser = at_least_one())]
    new: u64,
    /// Steps, an update each.
    #[arg(long, default_value_t = 3, value_parser = at_least_one())]
    steps: u64,
}

fn groups() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(GROUP as u64..)
}

/// Completions of a prompt in GRPO.
pub(crate) const GROUP: usize = 4;
/// Completions that go through the model at a time.
pub(crate) const MICRO_BATCH: usize = 8;
/// Weight of the KL to the reference.
pub(crate) const KL_COEF: f64 = 0.04;

/// The share of a completion's tokens whose ids are even.
struct EvenTokens;

impl Reward for EvenTokens {
    fn name(&self) -> String {
        "share of even tokens".to_owned()
    }

    fn score(&self, batch: &[Scorable<'_>]) -> Vec<Result<Score, Unscorable>> {
        let share = |item: &Scorable<'_>| {
            let even = item.completion_ids.iter().filter(|id| **id % 2 == 0);
            even.count() as f64 / item.completion_ids.len() as f64
        };
        batch.iter().map(|item| Score::new(share(item))).collect()
    }
}

/// Notes the time and the metrics of each step.
struct Watcher {
    device: Device,
    last: Instant,
    tokens: usize,
    completions: usize,
    steps: Vec<Step>,
    drawn: Vec<Drawn>,
    /// The most memory until the last step's end: what comes after it is the checkpoint.
    peak_bytes: u64,
}

impl Observer for Watcher {
    fn on(&mut self, event: Event<'_>) {
        match event {
            Event::Stage { .. } => self.last = Instant::now(),
            Event::Step { row, .. } => {
                let get = |name: &str| row.get(name).unwrap_or(f64::NAN);
                let length = get("completions/mean_length");
                self.steps.push(Step {
                    seconds: self.last.elapsed().as_secs_f64(),
                    loss: get("loss"),
                    grad_norm: get("grad_norm"),
                    tokens: self.tokens,
                    flops: 0.0,
                });
                self.drawn.push(Drawn {
                    tokens: (length * self.completions as f64).round() as usize,
                    reward: get("objective/scores"),
                    entropy: get("objective/entropy"),
                });
                self.peak_bytes = memory::peak_of(&self.device).unwrap_or(0);
                self.last = Instant::now();
            }
            _ => {}
        }
    }
}

/// What both recipes need.
struct Setting {
    decoder: Decoder,
    tokenizer: Tokenizer,
    prompts: Vec<PromptSample>,
    sampling: Sampling,
    completions: usize,
    steps: usize,
}

impl Setting {
    /// What is drawn; nothing is held out.
    fn prompt_sizes(&self) -> PromptSizes {
        PromptSizes {
            train: sizes(&self.prompts),
            held_out: 0,
        }
    }

    fn of(arguments: &OnlineArguments, per_prompt: usize) -> Result<Self> {
        let policy = load_to_train(&arguments.common)?;
        let completions = arguments.completions as usize / per_prompt * per_prompt;
        let (tokens, steps) = (arguments.prompt as usize, arguments.steps as usize);
        let wanted = completions / per_prompt * steps;
        Ok(Self {
            prompts: prompts(&arguments.data, &policy.tokenizer, tokens, wanted)?,
            decoder: policy.decoder,
            tokenizer: policy.tokenizer.without_eos(),
            sampling: Sampling {
                max_new_tokens: arguments.new as usize,
                batch_size: completions,
                ..Sampling::default()
            },
            completions,
            steps,
        })
    }

    fn watch(&self) -> Watcher {
        let tokens = self.prompts[0].ids.len() + self.sampling.max_new_tokens;
        Watcher {
            device: self.decoder.device().clone(),
            last: Instant::now(),
            tokens: self.completions * tokens,
            completions: self.completions,
            steps: Vec::new(),
            drawn: Vec::new(),
            peak_bytes: 0,
        }
    }

    /// Prompts and completions as a step sees them. The tokens of completions do not matter to what is counted,
    /// but that no two are alike.
    fn samples(&self, per_prompt: usize) -> Vec<Sample> {
        let new = self.sampling.max_new_tokens;
        let vocabulary = self.decoder.config.vocab_size;
        (0..self.completions)
            .map(|i| {
                let completion: Vec<u32> =
                    (0..new).map(|t| ((i + t) % vocabulary) as u32).collect();
                Sample::from_parts(&self.prompts[i / per_prompt].ids, &completion, &[])
            })
            .collect()
    }

    /// What a step needs: drawing, scoring under each model, training of each that is trained.
    fn flops(&self, per_prompt: usize, scores: &[&Decoder], trains: &[&Decoder]) -> f64 {
        let samples = self.samples(per_prompt);
        let asked: Vec<&[u32]> = (0..self.completions)
            .map(|i| &self.prompts[i / per_prompt].ids[..])
            .collect();
        let lens = vec![self.sampling.max_new_tokens; asked.len()];
        let mut all = flops::sampling(&self.decoder, &asked, &lens);
        for part in samples.chunks(MICRO_BATCH) {
            let part: Vec<&Sample> = part.iter().collect();
            all = all + scores.iter().map(|d| flops::forward(d, &part)).sum();
            all = all + trains.iter().map(|d| flops::training(d, &part)).sum();
        }
        all.total()
    }

    fn finished(&self, mut watch: Watcher, flops: f64, demand: &Demand) -> Steps {
        for step in &mut watch.steps {
            step.flops = flops;
        }
        Steps {
            steps: watch.steps,
            peak_bytes: watch.peak_bytes,
            estimate_bytes: Some(demand.estimate().total()),
            matmul_peak: peak::of(self.decoder.device()),
            drawn: watch.drawn,
        }
    }
}

pub(crate) fn grpo(arguments: &OnlineArguments) -> Result<()> {
    let mut setting = Setting::of(arguments, GROUP)?;
    let reference = setting.decoder.clone();
    let config = OnlineConfig::<Grpo> {
        max_steps: setting.steps as u64,
        prompts_per_step: setting.completions / GROUP,
        completions_per_prompt: GROUP,
        minibatch_size: setting.completions,
        micro_batch_size: MICRO_BATCH,
        sampling: setting.sampling.clone(),
        kl_coef: KL_COEF,
        optim: constant(LEARNING_RATE),
        eval_every: 0,
        eval_samples: 0,
        checkpoint_every: 0,
        ..OnlineConfig::default()
    };
    let demand = Demand::online(&config, &setting.decoder, 0, &setting.prompt_sizes());
    let flops = setting.flops(GROUP, &[&reference], &[&reference]);
    let mut watch = setting.watch();
    let folder = tempfile::tempdir()?;
    let run = RunFolder::open(&folder.path().join("run"), "", false)?;
    let mut stage = Stage {
        name: "grpo",
        run: &run,
        seed: 0,
        observer: &mut watch,
        watch: Watch::default(),
    };
    let mut models = OnlineModels {
        policy: &mut setting.decoder,
        reference: &reference,
        reward: &EvenTokens,
        gold: None,
        tokenizer: &setting.tokenizer,
    };
    online::train(&mut stage, &mut models, &setting.prompts, &[], &config)?;
    setting
        .finished(watch, flops, &demand)
        .print(arguments.common.json)
}

pub(crate) fn ppo(arguments: &OnlineArguments) -> Result<()> {
    let mut setting = Setting::of(arguments, 1)?;
    let reference = setting.decoder.clone();
    let mut value = setting.decoder.with_score_head(Some(0))?;
    let config = PpoConfig {
        max_steps: setting.steps as u64,
        prompts_per_step: setting.completions,
        epochs: 1,
        minibatch_size: setting.completions,
        micro_batch_size: MICRO_BATCH,
        sampling: setting.sampling.clone(),
        optim: constant(LEARNING_RATE),
        value_learning_rate: LEARNING_RATE,
        eval_every: 0,
        eval_samples: 0,
        checkpoint_every: 0,
        ..PpoConfig::default()
    };
    let demand = Demand::ppo(&config, &setting.decoder, 0, &setting.prompt_sizes());
    let flops = setting.flops(1, &[&reference, &reference, &value], &[&reference, &value]);
    let mut watch = setting.watch();
    let folder = tempfile::tempdir()?;
    let run = RunFolder::open(&folder.path().join("run"), "", false)?;
    let mut stage = Stage {
        name: "ppo",
        run: &run,
        seed: 0,
        observer: &mut watch,
        watch: Watch::default(),
    };
    let mut models = Models {
        policy: &mut setting.decoder,
        reference: &reference,
        value: &mut value,
        reward: &EvenTokens,
        gold: None,
        tokenizer: &setting.tokenizer,
    };
    ppo::train(&mut stage, &mut models, &setting.prompts, &[], &config)?;
    setting
        .finished(watch, flops, &demand)
        .print(arguments.common.json)
}
