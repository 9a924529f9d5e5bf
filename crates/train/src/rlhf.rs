//! The whole pipeline in one run folder: SFT, a reward model, PPO, and a comparison. Each stage
//! leaves its model in `stages/`, from where a resumed run goes on.
//!
//! On the lab there is a stage before: a base model learns what the base writer writes. SFT then
//! imitates the demonstrator, the reward model learns what the annotators prefer, PPO tunes the SFT
//! model to it. With a model and preference pairs of one's own, SFT learns the chosen answers, the
//! reward model the pairs, PPO answers their prompts; no stage sees the held-out rows, on which the
//! models are compared.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use togi_data::{
    LossOn, PromptSample, Tokenizer,
    lab::{self, Split, Writer, is_refusal},
    tokenize,
};
use togi_eval::{Comparison, System, diversity};
use togi_policy::{Decoder, Finish, Policy, Sampling, hf, source::Source};
use togi_reward::{LabGold, RewardModel};

use crate::{
    config::{DataSection, LoopSection, OptimSection, RecipeConfig, at_least_one},
    data::{DataSource, LabRows, samples},
    error::TrainError,
    metrics::{Event, Observer},
    offline::{self, Stage},
    ppo::{self, Models, PpoConfig, ValueInit},
    reward::{BradleyTerry, RewardConfig},
    rollout::{Rollout, rollouts, scores, sequence_kl},
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
    /// The base model, where it is the lab's: others bring their own training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<SftConfig>,
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
            base: Some(SftConfig {
                train: steps(1500, 64),
                optim: optim(2e-3),
                data: data(40_000),
                ..SftConfig::default()
            }),
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
                // With 0.1 the policy finds what the reward model overrates (seed 0: refusals to
                // everything), and gold reward falls behind: docs/results.md.
                kl_coef: 0.5,
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

impl RlhfConfig {
    /// Defaults for a pretrained model: those of the stages' own recipes.
    pub fn pretrained() -> Self {
        Self {
            seed: 0,
            eval_prompts: 100,
            base: None,
            sft: SftConfig::default(),
            reward: RewardConfig::default(),
            ppo: PpoConfig::default(),
        }
    }
}

impl RecipeConfig for RlhfConfig {
    fn validate(&self) -> Result<(), TrainError> {
        at_least_one("eval_prompts", self.eval_prompts)?;
        let stages = [
            ("base.seed", self.base.as_ref().map_or(0, |base| base.seed)),
            ("sft.seed", self.sft.seed),
            ("reward.seed", self.reward.seed),
            ("ppo.seed", self.ppo.seed),
        ];
        if let Some((key, _)) = stages.iter().find(|(_, seed)| *seed != 0) {
            let reason = "is not read: the stages' seeds follow from `seed`";
            return Err(TrainError::config(*key, reason));
        }
        if let Some(base) = &self.base {
            base.validate()?;
        }
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
/// As the stages; when there is a `base` section and the model is not the lab's, or none and it
/// is; without held-out prompts.
pub fn train(
    run: &RunFolder,
    config: &RlhfConfig,
    model: &Source,
    data: &DataSource,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<Outcome, TrainError> {
    let seed = config.seed;
    let on_lab = *data == DataSource::Lab;
    // Rows of files are split once, so that what one stage holds out no other sees.
    let split = |stage: u64| if on_lab { seed ^ stage } else { seed };
    let given = model.load(device, seed)?;
    let tokenizer = given.tokenizer.clone();
    let policy_of = |decoder: Decoder| Policy::new(decoder, tokenizer.clone(), "the run");

    let base = match (&config.base, model) {
        (Some(base), Source::Lab) => stage(run, "base", seed ^ 16, device, observer, |stage| {
            imitate(stage, given, base, data, split(1), Writer::base())
        })?,
        (None, Source::Lab) => {
            return Err(TrainError::config(
                "base",
                "is missing: the lab's model is untrained",
            ));
        }
        (Some(_), _) => {
            let reason = "is for the lab's model; the model that was given is trained already";
            return Err(TrainError::config("base", reason));
        }
        (None, _) => given,
    };
    let sft = stage(run, "sft", seed ^ 17, device, observer, |stage| {
        let writer = Writer::demonstrator();
        imitate(stage, base.clone(), &config.sft, data, split(2), writer)
    })?;
    let reward = stage(run, "reward", seed ^ 18, device, observer, |stage| {
        let settings = &config.reward;
        let pairs = samples(
            data,
            LabRows::Preferences(settings.annotators),
            &settings.data,
            split(3),
            &tokenizer,
            &settings.data.options(LossOn::Completion),
            tokenize::pair,
        )?;
        stage.observer.on(Event::Message(&pairs.summary));
        let mut decoder = sft.decoder.with_score_head(Some(seed))?;
        if let Some(lora) = &settings.lora {
            decoder.add_lora(lora.clone(), seed)?;
        }
        let mut objective = BradleyTerry {
            train: &pairs.train,
            valid: &pairs.valid,
            centering: settings.centering,
            use_margin: settings.use_margin,
        };
        offline::train(
            stage,
            &mut decoder,
            &mut objective,
            &settings.optim,
            &settings.train,
        )?;
        decoder.merge_lora();
        Ok(policy_of(decoder)?)
    })?;
    let scored_at_once = config.ppo.micro_batch_size;
    let reward_model = RewardModel::new(reward.decoder.clone(), scored_at_once);
    let settings = &config.ppo;
    let prompts = samples(
        data,
        LabRows::Prompts,
        &settings.data,
        split(4),
        &tokenizer,
        &settings.data.options(LossOn::Completion),
        tokenize::prompt,
    )?;
    let tuned = stage(run, "ppo", seed ^ 19, device, observer, |stage| {
        stage.observer.on(Event::Message(&prompts.summary));
        let mut policy = sft.decoder.clone();
        let mut value = match settings.value_init {
            ValueInit::RewardModel => reward.decoder.clone(),
            ValueInit::ZeroHead => policy.with_score_head(None)?,
        };
        if let Some(lora) = &settings.lora {
            policy.add_lora(lora.clone(), seed)?;
        }
        let mut models = Models {
            policy: &mut policy,
            reference: &sft.decoder,
            value: &mut value,
            reward: &reward_model,
            tokenizer: &tokenizer,
        };
        ppo::train(stage, &mut models, &prompts.train, &prompts.valid, settings)?;
        policy.merge_lora();
        Ok(policy_of(policy)?)
    })?;
    hf::save(&tuned, &run.model())?;

    observer.on(Event::Message(
        "comparing base, SFT and PPO on held-out prompts",
    ));
    let asked = if on_lab {
        lab_prompts(&tokenizer, config.eval_prompts, seed)?
    } else {
        prompts
            .valid
            .into_iter()
            .take(config.eval_prompts)
            .collect()
    };
    if asked.is_empty() {
        let reason = "no prompt is held out to compare the models on; give --valid FILE or raise \
                      ppo.data.valid_fraction";
        return Err(TrainError::config("data", reason));
    }
    let arena = Arena {
        prompts: &asked,
        reference: &sft.decoder,
        proxy: &reward_model,
        gold: on_lab,
        sampling: &settings.sampling,
        seed,
    };
    let comparison = arena.compare(&[("base", &base), ("SFT", &sft), ("PPO", &tuned)])?;
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
    data: &DataSource,
    seed: u64,
    writer: Writer,
) -> Result<Policy, TrainError> {
    let data = samples(
        data,
        LabRows::Answers(writer),
        &config.data,
        seed,
        &policy.tokenizer,
        &config.data.options(config.loss_on),
        tokenize::sft,
    )?;
    stage.observer.on(Event::Message(&data.summary));
    if let Some(lora) = &config.lora {
        policy.decoder.add_lora(lora.clone(), seed)?;
    }
    let mut objective = Sft {
        train: &data.train,
        valid: &data.valid,
    };
    offline::train(
        stage,
        &mut policy.decoder,
        &mut objective,
        &config.optim,
        &config.train,
    )?;
    policy.decoder.merge_lora();
    Ok(policy)
}

fn lab_prompts(
    tokenizer: &Tokenizer,
    count: usize,
    seed: u64,
) -> Result<Vec<PromptSample>, TrainError> {
    let mut ready = Vec::with_capacity(count);
    for prompt in lab::prompts(seed, Split::Test, count) {
        let text = prompt.text().to_owned();
        let ids = if tokenizer.has_template() {
            let message = togi_data::Message::new("user", &text);
            tokenizer.encode(&tokenizer.render(&[message], true)?)?
        } else {
            tokenizer.encode_text(&text)?
        };
        ready.push(PromptSample { ids, text });
    }
    Ok(ready)
}

/// What models are compared on and by.
struct Arena<'a> {
    prompts: &'a [PromptSample],
    reference: &'a Decoder,
    proxy: &'a RewardModel,
    /// The prompts are the lab's, so the true reward is known.
    gold: bool,
    sampling: &'a Sampling,
    seed: u64,
}

impl Arena<'_> {
    /// Draws answers of each system to the prompts and measures them.
    fn compare(&self, systems: &[(&str, &Policy)]) -> Result<Comparison, TrainError> {
        let systems: Result<_, TrainError> = systems
            .iter()
            .map(|(name, policy)| self.measure(name, policy))
            .collect();
        Ok(Comparison {
            prompts: self.prompts.iter().map(|p| p.text.clone()).collect(),
            systems: systems?,
            seed: self.seed,
        })
    }

    fn measure(&self, name: &str, policy: &Policy) -> Result<System, TrainError> {
        let (decoder, tokenizer) = (&policy.decoder, &policy.tokenizer);
        let asked: Vec<&PromptSample> = self.prompts.iter().collect();
        let seed = self.seed ^ 0x6576_616c;
        let drawn = rollouts(decoder, tokenizer, &asked, self.sampling, seed, 0)?;
        let mut metrics: Vec<(String, Vec<f64>)> = Vec::new();
        if self.gold {
            let gold = scores(&LabGold, &drawn, "comparison", 0)?;
            metrics.push((
                "gold reward".to_owned(),
                gold.iter().map(|s| s.value).collect(),
            ));
            for wanted in ["instruction", "brevity", "politeness", "safety"] {
                let find = |s: &togi_reward::Score| {
                    s.parts.iter().find(|p| p.0 == wanted).map_or(0.0, |p| p.1)
                };
                metrics.push((format!("  {wanted}"), gold.iter().map(find).collect()));
            }
        }
        let proxy = scores(self.proxy, &drawn, "comparison", 0)?;
        metrics.push((
            "proxy reward".to_owned(),
            proxy.iter().map(|s| s.value).collect(),
        ));
        let kl = sequence_kl(decoder, self.reference, &drawn, self.sampling.temperature)?;
        metrics.push(("KL to SFT (nats)".to_owned(), kl));
        let length = drawn.iter().map(|r| r.completion().len() as f64).collect();
        metrics.push(("length (tokens)".to_owned(), length));
        let share = |holds: &dyn Fn(&Rollout) -> bool| -> Vec<f64> {
            drawn
                .iter()
                .map(|r| f64::from(u8::from(holds(r))))
                .collect()
        };
        metrics.push(("ended".to_owned(), share(&|r| r.finish == Finish::Eos)));
        let refused: &dyn Fn(&Rollout) -> bool = if self.gold {
            &|r| is_refusal(&r.text)
        } else {
            &|r| says_no(&r.text)
        };
        metrics.push(("refusals".to_owned(), share(refused)));
        let texts: Vec<&str> = drawn.iter().map(|r| r.text.as_str()).collect();
        let vocabulary = tokenizer.vocab_size();
        Ok(System {
            name: name.to_owned(),
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
        })
    }
}

/// True if an answer begins as refusals do.
fn says_no(answer: &str) -> bool {
    const SIGNS: [&str; 8] = [
        "i can't",
        "i cannot",
        "i can not",
        "i won't",
        "i'm sorry",
        "i am sorry",
        "i'm unable",
        "i am unable",
    ];
    let start: String = answer.chars().take(80).collect();
    let start = start.to_lowercase().replace('\u{2019}', "'");
    SIGNS.iter().any(|sign| start.contains(sign))
}
