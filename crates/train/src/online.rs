//! The loop of the online recipes without a value model: draw several completions of each prompt,
//! score them, compare them with one another, take a step. What the recipes differ in is an
//! [`OnlineAlgorithm`]: advantages and a loss.

use std::time::Instant;

use burn::tensor::{Bool, Tensor};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;
use togi_data::{PromptSample, Sample, Tokenizer, batch::Order, rng::CounterRng};
use togi_policy::{Decoder, DropoutKey, Finish, LoraConfig, Sampling};
use togi_reward::Reward;

use crate::{
    checkpoint::Checkpoint,
    config::{DataSection, OptimSection, RecipeConfig, at_least_one, whole_distribution, within},
    error::TrainError,
    metrics::{Event, Row},
    offline::{Stage, accumulate, host},
    optimizer::AdamW,
    ppo::RATIO_TOLERANCE,
    rollout::{HeldOut, Rollout, join, mean, rollouts, scores, split, write_samples},
};

/// Completions of one step as advantages are computed from them: groups of `group_size`, one after
/// the other.
#[derive(Clone, Copy, Debug)]
pub struct Scored<'a> {
    /// One score a completion, penalties subtracted.
    pub scores: &'a [f64],
    /// Completions of each prompt.
    pub group_size: usize,
    /// `log π` of each token when it was drawn.
    pub logps: &'a [Vec<f64>],
    /// `log ref` of each token.
    pub reference: &'a [Vec<f64>],
}

impl Scored<'_> {
    /// `log π - log ref` of each completion.
    pub fn sequence_kl(&self) -> Vec<f64> {
        let both = self.logps.iter().zip(self.reference);
        both.map(|(ours, theirs)| ours.iter().sum::<f64>() - theirs.iter().sum::<f64>())
            .collect()
    }

    /// One number a completion, given to each of its tokens.
    pub fn spread(&self, advantages: Vec<f64>) -> Vec<Vec<f64>> {
        let rows = advantages.into_iter().zip(self.logps);
        rows.map(|(advantage, tokens)| vec![advantage; tokens.len()])
            .collect()
    }
}

/// A part of a minibatch, `[completions, time]` where not said otherwise.
#[derive(Clone, Debug)]
pub struct Part {
    /// Under the policy now; gradients flow into it.
    pub logps: Tensor<2>,
    /// When the tokens were drawn.
    pub old_logps: Tensor<2>,
    /// Under the reference.
    pub reference: Tensor<2>,
    /// What [`OnlineAlgorithm::advantages`] said.
    pub advantages: Tensor<2>,
    /// True where a token counts.
    pub mask: Tensor<2, Bool>,
    /// Of the whole minibatch.
    pub whole: Minibatch,
}

/// What the parts of a minibatch have to know of it.
#[derive(Clone, Copy, Debug)]
pub struct Minibatch {
    /// Tokens of its completions.
    pub tokens: f64,
    /// Its completions.
    pub completions: f64,
    /// The longest completion that may be drawn.
    pub max_new_tokens: f64,
}

/// A part's loss and what is logged about it.
#[derive(Clone, Debug)]
pub struct PartLoss {
    /// Already divided by the minibatch's denominator, `[1]`.
    pub loss: Tensor<1>,
    /// Metrics that add up over the parts of a minibatch.
    pub row: Row,
}

/// An online method: its advantages and its loss.
pub trait OnlineAlgorithm:
    Clone + std::fmt::Debug + Default + Serialize + DeserializeOwned
{
    /// # Errors
    /// Names the field that is out of range.
    fn validate(&self) -> Result<(), TrainError>;

    /// The advantage of each token of each completion.
    ///
    /// # Errors
    /// Scores that cannot be compared.
    fn advantages(&self, scored: &Scored<'_>) -> Result<Vec<Vec<f64>>, TrainError>;

    /// The loss of a part of a minibatch.
    ///
    /// # Errors
    /// Values that are not finite.
    fn loss(&self, part: &Part) -> Result<PartLoss, TrainError>;
}

/// Configuration of an online recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, bound = "A: OnlineAlgorithm")]
pub struct OnlineConfig<A: OnlineAlgorithm> {
    /// Of prompts' order, sampling and minibatches.
    pub seed: u64,
    /// Rollout batches.
    pub max_steps: u64,
    /// Prompts a step.
    pub prompts_per_step: usize,
    /// Completions of each prompt.
    pub completions_per_prompt: usize,
    /// Passes over each step's completions.
    pub epochs: u64,
    /// Completions an update.
    pub minibatch_size: usize,
    /// Completions that go through the model at a time.
    pub micro_batch_size: usize,
    /// How completions are drawn. Log-probabilities are taken at the same temperature.
    pub sampling: Sampling,
    /// Subtracted from the score of a completion that did not end.
    pub missing_eos_penalty: f64,
    /// The method's own fields.
    pub algorithm: A,
    /// The policy's optimiser.
    pub optim: OptimSection,
    /// Data.
    pub data: DataSection,
    /// Steps between looks at held-out prompts; 0: at the end only.
    pub eval_every: u64,
    /// Held-out prompts that are answered and scored.
    pub eval_samples: usize,
    /// Steps between checkpoints; 0: at the end only.
    pub checkpoint_every: u64,
    /// Checkpoints that are kept.
    pub keep_checkpoints: usize,
    /// Train an adapter of the policy instead of its weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
}

impl<A: OnlineAlgorithm> Default for OnlineConfig<A> {
    /// Groups of 8 and one pass, as TRL's GRPO.
    fn default() -> Self {
        Self {
            seed: 0,
            max_steps: 100,
            prompts_per_step: 8,
            completions_per_prompt: 8,
            epochs: 1,
            minibatch_size: 64,
            micro_batch_size: 8,
            sampling: Sampling::default(),
            missing_eos_penalty: 0.0,
            algorithm: A::default(),
            optim: OptimSection {
                learning_rate: 1e-6,
                ..OptimSection::default()
            },
            data: DataSection::default(),
            eval_every: 20,
            eval_samples: 64,
            checkpoint_every: 20,
            keep_checkpoints: 2,
            lora: None,
        }
    }
}

impl<A: OnlineAlgorithm> RecipeConfig for OnlineConfig<A> {
    fn validate(&self) -> Result<(), TrainError> {
        at_least_one("max_steps", self.max_steps as usize)?;
        at_least_one("prompts_per_step", self.prompts_per_step)?;
        if self.completions_per_prompt < 2 {
            let reason =
                "must be at least 2: completions of a prompt are compared with one another";
            return Err(TrainError::config("completions_per_prompt", reason));
        }
        at_least_one("epochs", self.epochs as usize)?;
        at_least_one("minibatch_size", self.minibatch_size)?;
        at_least_one("micro_batch_size", self.micro_batch_size)?;
        at_least_one("eval_samples", self.eval_samples)?;
        at_least_one("keep_checkpoints", self.keep_checkpoints)?;
        whole_distribution(&self.sampling)?;
        within(
            "missing_eos_penalty",
            self.missing_eos_penalty,
            0.0,
            f64::MAX,
        )?;
        self.algorithm.validate()?;
        self.optim.validate()?;
        self.data.validate()?;
        if let Some(lora) = &self.lora {
            lora.validate()?;
        }
        Ok(())
    }
}

/// What the models of an online run are.
pub struct OnlineModels<'a> {
    /// Is trained.
    pub policy: &'a mut Decoder,
    /// Stays as it is.
    pub reference: &'a Decoder,
    /// Scores completions.
    pub reward: &'a dyn Reward,
    /// Turns tokens into text.
    pub tokenizer: &'a Tokenizer,
}

/// One step's completions with everything that stays fixed over its epochs.
struct Experience {
    rollouts: Vec<Rollout>,
    logps: Vec<Vec<f64>>,
    reference: Vec<Vec<f64>>,
    advantages: Vec<Vec<f64>>,
}

/// Trains the policy in place; goes on from the newest whole checkpoint. Returns the last look at
/// the held-out prompts.
///
/// # Errors
/// Unscorable completions; a first ratio that is not 1; a loss that is not finite; files that
/// cannot be written.
pub fn train<A: OnlineAlgorithm>(
    stage: &mut Stage<'_>,
    models: &mut OnlineModels<'_>,
    prompts: &[PromptSample],
    valid: &[PromptSample],
    config: &OnlineConfig<A>,
) -> Result<Option<Row>, TrainError> {
    let name = stage.name;
    let mut adam = AdamW::new(&models.policy.params);
    let mut order = Order::new(stage.seed, prompts.len());
    let mut step = 0;
    if let Some((at, mut checkpoint)) = stage.newest(models.policy.device())? {
        let updates = checkpoint.state["updates"].as_u64().unwrap_or(0);
        checkpoint.restore("policy", models.policy, &mut adam, updates)?;
        step = at;
    }
    let total = config.max_steps;
    stage.observer.on(Event::Stage { name, step, total });
    let mut last_eval = None;
    while step < total {
        let started = Instant::now();
        // The completions of a prompt stand side by side, each with random numbers of its own.
        let chosen: Vec<&PromptSample> = order
            .batch(step, config.prompts_per_step)
            .into_iter()
            .flat_map(|i| std::iter::repeat_n(&prompts[i], config.completions_per_prompt))
            .collect();
        let mut row = Row::default();
        let experience = gather(stage, models, &chosen, config, step, &mut row)?;
        let rate = config.optim.rate(step, total);
        optimise(
            stage,
            models,
            &experience,
            config,
            step,
            rate,
            &mut adam,
            &mut row,
        )?;
        row.set("learning_rate", rate);
        row.check(name, step + 1)?;
        step += 1;
        write_samples(stage, &experience.rollouts, step)?;
        let tokens = experience.rollouts.iter().map(|r| r.sample.len()).sum();
        stage.stepped(step, &row, tokens, started)?;
        let last = step == total;
        if last || (config.eval_every > 0 && step % config.eval_every == 0) {
            let arena = HeldOut {
                prompts: &valid[..valid.len().min(config.eval_samples)],
                reference: models.reference,
                reward: models.reward,
                tokenizer: models.tokenizer,
                sampling: &config.sampling,
            };
            if let Some(eval) = arena.evaluate(stage, models.policy, step)? {
                stage.looked(step, &eval)?;
                last_eval = Some(eval);
            }
        }
        if last || (config.checkpoint_every > 0 && step % config.checkpoint_every == 0) {
            let mut checkpoint = Checkpoint::default();
            checkpoint.add("policy", models.policy, &adam);
            checkpoint.state = json!({"updates": adam.step});
            checkpoint.save(stage.run, name, step, config.keep_checkpoints)?;
        }
    }
    stage.observer.on(Event::Done);
    Ok(last_eval)
}

fn gather<A: OnlineAlgorithm>(
    stage: &Stage<'_>,
    models: &OnlineModels<'_>,
    prompts: &[&PromptSample],
    config: &OnlineConfig<A>,
    step: u64,
    row: &mut Row,
) -> Result<Experience, TrainError> {
    let (policy, sampling) = (&*models.policy, &config.sampling);
    let first = step * prompts.len() as u64;
    let rollouts = rollouts(
        policy,
        models.tokenizer,
        prompts,
        sampling,
        stage.seed,
        first,
    )?;
    let scored = scores(models.reward, &rollouts, stage.name, step + 1)?;
    let unended = |r: &Rollout| r.finish == Finish::Length;
    let adjusted: Vec<f64> = scored
        .iter()
        .zip(&rollouts)
        .map(|(score, r)| match unended(r) {
            true => score.value - config.missing_eos_penalty,
            false => score.value,
        })
        .collect();
    let (weights, reference_weights) = (policy.frozen(), models.reference.frozen());
    let (mut logps, mut reference, mut entropy) = (vec![], vec![], vec![]);
    for part in rollouts.chunks(config.micro_batch_size) {
        let samples: Vec<&Sample> = part.iter().map(|r| &r.sample).collect();
        let lens = || part.iter().map(|r| r.completion().len());
        let ours = policy.log_probs(&weights, &samples, sampling.temperature)?;
        let theirs =
            models
                .reference
                .log_probs(&reference_weights, &samples, sampling.temperature)?;
        logps.extend(split(&ours.values, lens()));
        entropy.extend(host(&ours.entropy));
        reference.extend(split(&theirs.values, lens()));
    }
    let view = Scored {
        scores: &adjusted,
        group_size: config.completions_per_prompt,
        logps: &logps,
        reference: &reference,
    };
    let advantages = config.algorithm.advantages(&view)?;
    row.set("objective/scores", mean(scored.iter().map(|s| s.value)));
    let groups = adjusted.chunks(config.completions_per_prompt);
    let flat = groups
        .filter(|g| g.iter().all(|score| *score == g[0]))
        .count();
    row.set(
        "objective/flat_groups",
        flat as f64 / config.prompts_per_step as f64,
    );
    row.set("objective/kl", mean(view.sequence_kl()));
    row.set("objective/entropy", mean(entropy));
    let lengths = rollouts.iter().map(|r| r.completion().len() as f64);
    row.set("completions/mean_length", mean(lengths));
    let clipped = rollouts.iter().filter(|r| unended(r)).count();
    row.set(
        "completions/clipped_ratio",
        clipped as f64 / rollouts.len() as f64,
    );
    Ok(Experience {
        rollouts,
        logps,
        reference,
        advantages,
    })
}

#[allow(clippy::too_many_arguments)]
fn optimise<A: OnlineAlgorithm>(
    stage: &Stage<'_>,
    models: &mut OnlineModels<'_>,
    experience: &Experience,
    config: &OnlineConfig<A>,
    step: u64,
    rate: f64,
    adam: &mut AdamW,
    row: &mut Row,
) -> Result<(), TrainError> {
    let count = experience.rollouts.len();
    let device = models.policy.device().clone();
    let (mut updates, mut sums) = (0.0, Row::default());
    for epoch in 0..config.epochs {
        let mut shuffled: Vec<usize> = (0..count).collect();
        CounterRng::new(stage.seed, &[0x6d69_6e69, step, epoch]).shuffle(&mut shuffled);
        for (number, minibatch) in shuffled.chunks_mut(config.minibatch_size).enumerate() {
            // Neighbours share a prompt, which then goes through the model once.
            minibatch.sort_unstable();
            let tokens: usize = minibatch.iter().map(|i| experience.logps[*i].len()).sum();
            let whole = Minibatch {
                tokens: tokens as f64,
                completions: minibatch.len() as f64,
                max_new_tokens: config.sampling.max_new_tokens as f64,
            };
            let first = epoch == 0 && number == 0;
            let (mut grads, mut parts) = (None, Row::default());
            let mut first_ratio_error: f64 = 0.0;
            for (part_number, part) in minibatch.chunks(config.micro_batch_size).enumerate() {
                let samples: Vec<&Sample> = part
                    .iter()
                    .map(|i| &experience.rollouts[*i].sample)
                    .collect();
                let pick = |rows: &[Vec<f64>]| -> Tensor<2> {
                    let rows: Vec<Vec<f64>> = part.iter().map(|i| rows[*i].clone()).collect();
                    join(&rows, &device)
                };
                let mut weights = models.policy.tracked();
                if !first {
                    // The first minibatch is free of dropout: its ratio must be 1.
                    let pass = ((step * config.epochs + epoch) << 20)
                        + (number * config.minibatch_size + part_number) as u64;
                    weights = weights.with_dropout(DropoutKey {
                        seed: stage.seed,
                        pass,
                    });
                }
                let (logps, mask) = models
                    .policy
                    .log_probs(&weights, &samples, config.sampling.temperature)?
                    .padded();
                let old_logps = pick(&experience.logps);
                let off = host(&(logps.clone().detach() - old_logps.clone()).exp());
                if first {
                    let off = off.into_iter().map(|ratio| (ratio - 1.0).abs());
                    first_ratio_error = off.fold(first_ratio_error, f64::max);
                }
                let PartLoss { loss, row } = config.algorithm.loss(&Part {
                    logps,
                    old_logps,
                    reference: pick(&experience.reference),
                    advantages: pick(&experience.advantages),
                    mask,
                    whole,
                })?;
                parts.merge(&row);
                parts.add("loss", host(&loss)[0]);
                accumulate(&mut grads, weights.gradients(&mut loss.backward()));
            }
            if first {
                row.set("policy/ratio_first", 1.0 + first_ratio_error);
                if first_ratio_error > RATIO_TOLERANCE {
                    return Err(TrainError::Run {
                        stage: stage.name.to_owned(),
                        step: step + 1,
                        reason: format!(
                            "the first minibatch's ratio is off 1 by {first_ratio_error:.2e}: \
                             sampling policy and trained policy are not the same model"
                        ),
                    });
                }
            }
            parts.check(stage.name, step + 1)?;
            let grads = grads.unwrap_or_default();
            let norm = adam.update(&mut models.policy.params, grads, &config.optim, rate);
            parts.set("grad_norm", norm);
            parts.check(stage.name, step + 1)?;
            sums.merge(&parts);
            updates += 1.0;
        }
    }
    for (metric, sum) in sums.iter() {
        row.set(metric, sum / updates);
    }
    Ok(())
}

/// Metrics of a clipped surrogate, one value a token, as shares of the minibatch's tokens.
pub(crate) fn log_surrogate(part: &Part, loss: &togi_rl_algos::ppo::PolicyLoss) -> Row {
    let mut row = Row::default();
    let share = |x: &Tensor<2>| host(x).iter().sum::<f64>() / part.whole.tokens;
    row.add("policy/approx_kl", share(&loss.approx_kl));
    row.add("policy/clip_fraction", share(&loss.clipped));
    row
}
