//! The whole pipeline on the lab, in one run folder: a base model learns what the base writer
//! writes, SFT imitates the demonstrator, a reward model learns what the annotators prefer, PPO
//! tunes the SFT model to it. Each stage leaves its model in `stages/`, from where a resumed run
//! goes on.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use togi_data::{
    LossOn, PromptSample,
    lab::{self, Split, Writer, is_refusal},
    tokenize,
};
use togi_eval::{Comparison, System, diversity};
use togi_policy::{Decoder, Policy, Sampling, hf, source::Source};
use togi_reward::{LabGold, RewardModel};

use crate::{
    config::{DataSection, LoopSection, OptimSection, RecipeConfig, at_least_one},
    data::{DataSource, LabRows, samples},
    error::TrainError,
    metrics::{Event, Observer},
    offline::{self, Stage},
    ppo::{self, Models, PpoConfig, ValueInit},
    reward::{BradleyTerry, RewardConfig},
    rollout::{Rollout, rollouts, sequence_kl},
    run_folder::RunFolder,
    schedule::Schedule,
    sft::{Sft, SftConfig},
};

/// Configuration of the recipe `rlhf`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RlhfConfig {
    /// Of everything: the stages' own seeds follow from it.
    pub seed: u64,
    /// Held-out prompts that the models are compared on.
    pub eval_prompts: usize,
    /// The base model.
    pub base: SftConfig,
    /// Supervised fine-tuning.
    pub sft: SftConfig,
    /// The reward model.
    pub reward: RewardConfig,
    /// PPO.
    pub ppo: PpoConfig,
}

impl Default for RlhfConfig {
    /// Sized for the lab's model: a few minutes on two cores.
    fn default() -> Self {
        let optim = |learning_rate| OptimSection {
            learning_rate,
            schedule: Schedule::Cosine,
            warmup_steps: 20,
            ..OptimSection::default()
        };
        let steps = |max_steps, batch_size| LoopSection {
            max_steps,
            batch_size,
            micro_batch_size: batch_size,
            eval_every: 0,
            checkpoint_every: 200,
            ..LoopSection::default()
        };
        let data = |lab_rows| DataSection {
            max_length: 128,
            lab_rows,
            ..DataSection::default()
        };
        Self {
            seed: 0,
            eval_prompts: 300,
            base: SftConfig {
                train: steps(1500, 64),
                optim: optim(2e-3),
                data: data(40_000),
                ..SftConfig::default()
            },
            sft: SftConfig {
                train: steps(600, 64),
                optim: optim(5e-4),
                data: data(20_000),
                ..SftConfig::default()
            },
            reward: RewardConfig {
                // Enough comparisons that the reward model sees what instructions ask for, not only
                // tone and length: with 10,000, PPO wins reward by politeness alone.
                train: steps(800, 64),
                optim: optim(5e-4),
                data: data(40_000),
                ..RewardConfig::default()
            },
            ppo: PpoConfig {
                max_steps: 100,
                prompts_per_step: 128,
                epochs: 2,
                minibatch_size: 64,
                micro_batch_size: 64,
                sampling: Sampling {
                    max_new_tokens: 32,
                    temperature: 1.0,
                    batch_size: 128,
                    ..Sampling::default()
                },
                kl_coef: 0.1,
                optim: OptimSection {
                    eps: 1e-5,
                    ..optim(3e-4)
                },
                value_learning_rate: 1e-3,
                data: data(10_000),
                ..PpoConfig::default()
            },
        }
    }
}

impl RecipeConfig for RlhfConfig {
    fn validate(&self) -> Result<(), TrainError> {
        at_least_one("eval_prompts", self.eval_prompts)?;
        self.base.validate()?;
        self.sft.validate()?;
        self.reward.validate()?;
        self.ppo.validate()
    }
}

/// What a run ends with.
#[derive(Debug)]
pub struct Outcome {
    /// Base, SFT and PPO on held-out prompts.
    pub comparison: Comparison,
    /// The tuned model.
    pub policy: Policy,
}

/// Runs every stage that has not left its model yet, compares the models, and writes `model/`.
///
/// # Errors
/// As the stages.
pub fn train(
    run: &RunFolder,
    config: &RlhfConfig,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<Outcome, TrainError> {
    let seed = config.seed;
    let fresh = Source::Lab.load(device, seed)?;
    let tokenizer = fresh.tokenizer.clone();
    let policy_of = |decoder: Decoder| Policy::new(decoder, tokenizer.clone(), "lab");

    let write = Writer::base();
    let base = stage(run, "base", seed ^ 16, device, observer, |stage| {
        imitate(stage, fresh.clone(), &config.base, seed ^ 1, write)
    })?;
    let sft = stage(run, "sft", seed ^ 17, device, observer, |stage| {
        imitate(
            stage,
            base.clone(),
            &config.sft,
            seed ^ 2,
            Writer::demonstrator(),
        )
    })?;
    let reward = stage(run, "reward", seed ^ 18, device, observer, |stage| {
        let options = config.reward.data.options(LossOn::Completion);
        let wanted = LabRows::Preferences(config.reward.annotators);
        let section = &config.reward.data;
        let (source, tokenizer) = (&DataSource::Lab, &sft.tokenizer);
        let pairs = samples(
            source,
            wanted,
            section,
            seed ^ 3,
            tokenizer,
            &options,
            tokenize::pair,
        )?;
        let mut decoder = sft.decoder.with_score_head(Some(seed))?;
        let objective = BradleyTerry {
            train: &pairs.train,
            valid: &pairs.valid,
            centering: config.reward.centering,
            use_margin: config.reward.use_margin,
        };
        let settings = &config.reward;
        offline::train(
            stage,
            &mut decoder,
            &objective,
            &settings.optim,
            &settings.train,
        )?;
        Ok(policy_of(decoder)?)
    })?;
    let reward_model = RewardModel::new(reward.decoder.clone(), 64);
    let tuned = stage(run, "ppo", seed ^ 19, device, observer, |stage| {
        let options = config.ppo.data.options(LossOn::Completion);
        let section = &config.ppo.data;
        let (source, tokenizer) = (&DataSource::Lab, &sft.tokenizer);
        let prompts = samples(
            source,
            LabRows::Prompts,
            section,
            seed ^ 4,
            tokenizer,
            &options,
            tokenize::prompt,
        )?;
        let mut policy = sft.decoder.clone();
        let mut value = match config.ppo.value_init {
            ValueInit::RewardModel => reward.decoder.clone(),
            ValueInit::ZeroHead => policy.with_score_head(None)?,
        };
        let mut models = Models {
            policy: &mut policy,
            reference: &sft.decoder,
            value: &mut value,
            reward: &reward_model,
            tokenizer,
        };
        ppo::train(
            stage,
            &mut models,
            &prompts.train,
            &prompts.valid,
            &config.ppo,
        )?;
        Ok(policy_of(policy)?)
    })?;
    hf::save(&tuned, &run.model())?;

    observer.on(Event::Message(
        "comparing base, SFT and PPO on held-out prompts",
    ));
    let systems = [("base", &base), ("SFT", &sft), ("PPO", &tuned)];
    let comparison = compare(
        &systems,
        &sft.decoder,
        &reward_model,
        config.eval_prompts,
        &config.ppo.sampling,
        seed,
    )?;
    Ok(Outcome {
        comparison,
        policy: tuned,
    })
}

/// Runs a stage and saves its model, or loads what an earlier run of it saved.
fn stage(
    run: &RunFolder,
    name: &str,
    seed: u64,
    device: &Device,
    observer: &mut dyn Observer,
    work: impl FnOnce(&mut Stage<'_>) -> Result<Policy, TrainError>,
) -> Result<Policy, TrainError> {
    let folder = run.path().join("stages").join(name);
    if !folder.exists() {
        let policy = work(&mut Stage {
            name,
            run,
            seed,
            observer,
        })?;
        hf::save(&policy, &folder)?;
    }
    // Read back even when it was just written: an uninterrupted run and a resumed one go on from
    // the same bytes.
    Ok(hf::load(&folder, device)?)
}

fn imitate(
    stage: &mut Stage<'_>,
    mut policy: Policy,
    config: &SftConfig,
    seed: u64,
    writer: Writer,
) -> Result<Policy, TrainError> {
    let options = config.data.options(config.loss_on);
    let rows = LabRows::Answers(writer);
    let tokenizer = &policy.tokenizer;
    let source = &DataSource::Lab;
    let data = samples(
        source,
        rows,
        &config.data,
        seed,
        tokenizer,
        &options,
        tokenize::sft,
    )?;
    let objective = Sft {
        train: &data.train,
        valid: &data.valid,
    };
    offline::train(
        stage,
        &mut policy.decoder,
        &objective,
        &config.optim,
        &config.train,
    )?;
    Ok(policy)
}

/// Draws answers of each system to the lab's test prompts and measures them.
///
/// # Errors
/// When an answer cannot be drawn or scored.
pub fn compare(
    systems: &[(&str, &Policy)],
    reference: &Decoder,
    proxy: &RewardModel,
    prompts: usize,
    sampling: &Sampling,
    seed: u64,
) -> Result<Comparison, TrainError> {
    let asked = lab::prompts(seed, Split::Test, prompts);
    let tokenizer = &systems[0].1.tokenizer;
    let mut ready = Vec::with_capacity(asked.len());
    for prompt in &asked {
        let message = togi_data::Message::new("user", prompt.text());
        let ids = tokenizer.encode(&tokenizer.render(&[message], true)?)?;
        ready.push(PromptSample {
            ids,
            text: prompt.text().to_owned(),
        });
    }
    let ready: Vec<&PromptSample> = ready.iter().collect();
    let mut comparison = Comparison {
        prompts: asked.iter().map(|p| p.text().to_owned()).collect(),
        systems: Vec::new(),
        seed,
    };
    for (name, policy) in systems {
        let (decoder, tokenizer) = (&policy.decoder, &policy.tokenizer);
        let drawn = rollouts(decoder, tokenizer, &ready, sampling, seed ^ 0x6576_616c, 0)?;
        let gold = crate::rollout::scores(&LabGold, &drawn, "comparison", 0)?;
        let proxy = crate::rollout::scores(proxy, &drawn, "comparison", 0)?;
        let proxy = proxy.iter().map(|s| s.value).collect();
        let part = |wanted: &str| -> Vec<f64> {
            let find = |s: &togi_reward::Score| {
                s.parts.iter().find(|p| p.0 == wanted).map_or(0.0, |p| p.1)
            };
            gold.iter().map(find).collect()
        };
        let mut metrics = vec![(
            "gold reward".to_owned(),
            gold.iter().map(|s| s.value).collect::<Vec<_>>(),
        )];
        for name in ["instruction", "brevity", "politeness", "safety"] {
            metrics.push((format!("  {name}"), part(name)));
        }
        metrics.push(("proxy reward".to_owned(), proxy));
        let kl = sequence_kl(decoder, reference, &drawn, sampling.temperature)?;
        metrics.push(("KL to SFT (nats)".to_owned(), kl));
        let length = drawn.iter().map(|r| r.completion().len() as f64).collect();
        metrics.push(("length (tokens)".to_owned(), length));
        let refused = |r: &Rollout| f64::from(u8::from(is_refusal(&r.text)));
        metrics.push(("refusals".to_owned(), drawn.iter().map(refused).collect()));
        let texts: Vec<&str> = drawn.iter().map(|r| r.text.as_str()).collect();
        let vocabulary = tokenizer.vocab_size();
        comparison.systems.push(System {
            name: (*name).to_owned(),
            metrics,
            totals: vec![
                ("distinct-1".to_owned(), diversity::distinct_n(&texts, 1)),
                ("distinct-2".to_owned(), diversity::distinct_n(&texts, 2)),
                (
                    "EAD".to_owned(),
                    diversity::expectation_adjusted_distinct(&texts, vocabulary),
                ),
            ],
            answers: texts.iter().map(|t| (*t).to_owned()).collect(),
        });
    }
    Ok(comparison)
}
