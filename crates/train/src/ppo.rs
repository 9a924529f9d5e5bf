//! PPO for language models, in the order of Huang et al. 2024, "The N+ implementation details of
//! RLHF with PPO": sample at a temperature, score the text, penalise a missing end token, subtract
//! the per-token KL, estimate advantages, whiten them, and take clipped steps for several epochs.
//!
//! The value model is a network of its own. Left out: an entropy bonus, and sharing the policy's
//! trunk with the value head.

use std::time::Instant;

use burn::tensor::{Bool, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use togi_data::{PromptSample, Sample, Tokenizer, batch::Order, rng::CounterRng};
use togi_eval::report::Alarm;
use togi_kernels::ThreadsAwake;
use togi_policy::{
    Decoder, DropoutKey, Finish, GradientSums,
    log_probs::{completion_mask, pad},
};
use togi_reward::{LabGold, Reward};
use togi_rl_algos::{
    Normalisation,
    gae::gae,
    kl::kl_per_token,
    ppo::{policy_loss, token_rewards, value_loss},
    whiten::{whiten, whiten_keep_mean},
};

use crate::{
    checkpoint::Checkpoint,
    error::TrainError,
    metrics::{Event, Row},
    monitor::{Monitor, Seen},
    offline::{Stage, host},
    optimizer::AdamW,
    reference,
    rollout::{
        FirstRatio, HeldOut, Rollout, SeenBy, join, mean, rollouts, rows_of, scores, split,
        write_samples,
    },
    sampler::{Importance, TokenScores},
};

pub use crate::ppo_config::{PpoConfig, ValueInit};

/// Running mean and variance of scores (Welford, in batches).
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, values: &[f64]) {
        for value in values {
            self.count += 1.0;
            let off = value - self.mean;
            self.mean += off / self.count;
            self.squares += off * (value - self.mean);
        }
    }

    fn deviation(&self) -> f64 {
        (self.squares / (self.count - 1.0).max(1.0))
            .sqrt()
            .max(1e-8)
    }
}

/// What a run has come to, beside its models: what a checkpoint keeps.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct State {
    /// The KL budget is spent, or an alarm ended the run.
    spent: bool,
    kl_coef: f64,
    moments: Moments,
    monitor: Monitor,
    policy_updates: u64,
    value_updates: u64,
}

impl State {
    fn of(state: &Value) -> Result<Self, TrainError> {
        serde_json::from_value(state.clone())
            .map_err(|e| TrainError::config("checkpoint", format!("its state: {e}")))
    }

    fn json(&self, stage: &str, step: u64) -> Result<Value, TrainError> {
        serde_json::to_value(self).map_err(|e| TrainError::Run {
            stage: stage.to_owned(),
            step,
            reason: format!("the checkpoint's state: {e}"),
        })
    }
}

/// What the models of a PPO run are.
pub struct Models<'a> {
    /// Is trained.
    pub policy: &'a mut Decoder,
    /// Stays as it is.
    pub reference: &'a Decoder,
    /// Is trained; has a scalar head.
    pub value: &'a mut Decoder,
    /// Scores completions.
    pub reward: &'a dyn Reward,
    /// The true reward of held-out completions, where the prompts are the lab's.
    pub gold: Option<&'a LabGold>,
    /// Turns tokens into text.
    pub tokenizer: &'a Tokenizer,
}

/// One step's completions with everything that stays fixed over its epochs.
struct Experience {
    rollouts: Vec<Rollout>,
    logps: Vec<Vec<f64>>,
    seen_by: SeenBy,
    values: Vec<Vec<f64>>,
    advantages: Vec<Vec<f64>>,
    returns: Vec<Vec<f64>>,
}

/// Trains the policy and the value model in place; goes on from the newest whole checkpoint.
/// Returns the last look at the held-out prompts.
///
/// # Errors
/// Unscorable completions; a first ratio that is not 1; a loss that is not finite; files that
/// cannot be written.
pub fn train(
    stage: &mut Stage<'_>,
    models: &mut Models<'_>,
    prompts: &[PromptSample],
    valid: &[PromptSample],
    config: &PpoConfig,
) -> Result<Option<Row>, TrainError> {
    stage.within_memory(stage.name, |stage| {
        let name = stage.name;
        let mut adam = AdamW::new(&models.policy.params);
        let mut value_adam = AdamW::new(&models.value.params);
        let mut order = Order::new(stage.seed, prompts.len());
        let (mut step, mut kl_coef, mut moments) = (0, config.kl_coef, Moments::default());
        let (mut follower, mut spent) = (models.reference.clone(), false);
        let mut monitor = Monitor::default();
        if let Some(stored) = stage.newest()? {
            let state = State::of(&stored.state)?;
            let (policy_updates, value_updates) = (state.policy_updates, state.value_updates);
            stored.restore("policy", models.policy, &mut adam, policy_updates)?;
            stored.restore("value", models.value, &mut value_adam, value_updates)?;
            if config.reference.moves() {
                reference::restore(&stored, &mut follower)?;
            }
            (spent, kl_coef, moments, monitor) =
                (state.spent, state.kl_coef, state.moments, state.monitor);
            step = stored.step;
        } else if config.monitor.rolls_back() {
            let mut start = Checkpoint::default();
            start.add("policy", models.policy, &adam);
            start.add("value", models.value, &value_adam);
            let state = State {
                kl_coef,
                ..State::default()
            };
            start.state = state.json(name, 0)?;
            if config.reference.moves() {
                reference::save(&mut start, &follower);
            }
            start.save(stage.run, name, 0, config.keep_checkpoints)?;
        }
        stage.watch.begin(step);
        stage.observer.on(Event::Stage {
            name,
            step,
            total: config.max_steps,
        });
        let mut last_eval = None;
        while step < config.max_steps && !spent {
            let started = Instant::now();
            let chosen: Vec<&PromptSample> = order
                .batch(step, config.prompts_per_step)
                .into_iter()
                .map(|i| &prompts[i])
                .collect();
            let mut row = Row::default();
            let (experience, alarms) = gather(
                stage,
                models,
                &follower,
                &chosen,
                config,
                step,
                kl_coef,
                (&mut moments, &mut monitor),
                &mut row,
            )?;
            let rate = |peak: f64| {
                peak * config.optim.schedule.factor(
                    step,
                    config.optim.warmup_steps,
                    config.max_steps,
                )
            };
            let rates = (
                rate(config.optim.learning_rate),
                rate(config.value_learning_rate),
            );
            let mut optimisers = (&mut adam, &mut value_adam);
            optimise(
                stage,
                models,
                &mut follower,
                &experience,
                config,
                step,
                rates,
                &mut optimisers,
                &mut row,
            )?;
            row.set("objective/kl_coef", kl_coef);
            row.set("learning_rate", rates.0);
            row.check(name, step + 1)?;
            let kl = row.get("objective/kl").unwrap_or(0.0);
            kl_coef = config.kl_controller.update(kl_coef, kl, chosen.len())?;
            step += 1;
            write_samples(stage, &experience.rollouts, step)?;
            let tokens = experience.rollouts.iter().map(|r| r.sample.len()).sum();
            stage.stepped(step, &row, tokens, started)?;
            let steps = (step, config.monitor.before_window(step));
            let ended = config.monitor.act(stage, models.policy, steps, &alarms)?;
            spent |= ended;
            if config.kl_budget > 0.0 && kl > config.kl_budget {
                spent = true;
                let budget = config.kl_budget;
                let text =
                    format!("stopped at step {step}: KL {kl:.3} is above kl_budget {budget}");
                stage.observer.on(Event::Message(&text));
            }
            let last = step == config.max_steps || spent;
            let arena = HeldOut {
                prompts: &valid[..valid.len().min(config.eval_samples)],
                reference: models.reference,
                reward: models.reward,
                gold: models.gold,
                tokenizer: models.tokenizer,
                sampling: &config.sampling,
            };
            let looks = config.eval_every > 0 && step % config.eval_every == 0;
            if (last || looks)
                && let Some((mut eval, golds)) = arena.evaluate(stage, models.policy, step)?
            {
                // A model that was rolled back is not what this step came to.
                let alarms = match ended {
                    true => Vec::new(),
                    false => monitor.look(&config.monitor, (name, step), &golds, &mut eval),
                };
                stage.looked(step, &eval)?;
                last_eval = Some(eval);
                let steps = (step, monitor.best_step());
                if config.monitor.act(stage, models.policy, steps, &alarms)? {
                    spent = true;
                    if config.monitor.rolls_back() {
                        let again = arena.evaluate(stage, models.policy, step)?;
                        last_eval = again.map(|(eval, _)| eval);
                    }
                }
            }
            let last = last || spent;
            let due = config.checkpoint_every > 0 && step % config.checkpoint_every == 0;
            let short = stage.short_of_memory(name, step).filter(|_| !last);
            if due || last || short.is_some() {
                let mut checkpoint = Checkpoint::default();
                checkpoint.add("policy", models.policy, &adam);
                checkpoint.add("value", models.value, &value_adam);
                if config.reference.moves() {
                    reference::save(&mut checkpoint, &follower);
                }
                let state = State {
                    spent,
                    kl_coef,
                    moments,
                    monitor: monitor.clone(),
                    policy_updates: adam.step,
                    value_updates: value_adam.step,
                };
                checkpoint.state = state.json(name, step)?;
                checkpoint.save(stage.run, name, step, config.keep_checkpoints)?;
            }
            if let Some(error) = short {
                return Err(error);
            }
        }
        stage.observer.on(Event::Done);
        Ok(last_eval)
    })
}

#[allow(clippy::too_many_arguments)]
fn gather(
    stage: &Stage<'_>,
    models: &Models<'_>,
    reference: &Decoder,
    prompts: &[&PromptSample],
    config: &PpoConfig,
    step: u64,
    kl_coef: f64,
    (moments, monitor): (&mut Moments, &mut Monitor),
    row: &mut Row,
) -> Result<(Experience, Vec<Alarm>), TrainError> {
    let temperature = config.sampling.temperature;
    let first = step * config.prompts_per_step as u64;
    let (policy, tokenizer) = (&*models.policy, models.tokenizer);
    let rollouts = rollouts(
        &config.sampler.of(policy)?,
        tokenizer,
        prompts,
        &config.sampling,
        stage.seed,
        first,
    )?;
    let scored = scores(models.reward, &rollouts, stage.name, step + 1)?;
    let raw: Vec<f64> = scored.iter().map(|s| s.value).collect();
    let unended = |r: &Rollout| r.finish == Finish::Length;
    let mut adjusted = raw.clone();
    if config.normalise_scores {
        moments.add(&raw);
        for score in &mut adjusted {
            *score = (*score - moments.mean) / moments.deviation();
        }
    }
    for (score, rollout) in adjusted.iter_mut().zip(&rollouts) {
        if config.score_clip > 0.0 {
            *score = score.clamp(-config.score_clip, config.score_clip);
        }
        if unended(rollout) {
            *score -= config.missing_eos_penalty;
        }
    }

    let _awake = ThreadsAwake::new();
    let sizes = (temperature, config.micro_batch_size);
    let TokenScores {
        logps,
        entropies,
        seen_by,
    } = config
        .sampler
        .scores(policy, &rollouts, kl_coef == 0.0, sizes)?;
    let (reference_weights, value_weights) = (reference.frozen(), models.value.frozen());
    let (mut frozen, mut values) = (vec![], vec![]);
    for part in rollouts.chunks(config.micro_batch_size) {
        let samples: Vec<&Sample> = part.iter().map(|r| &r.sample).collect();
        let lens = || part.iter().map(|r| r.completion().len());
        let theirs = reference.log_probs(&reference_weights, &samples, temperature)?;
        frozen.extend(split(&theirs.values, lens()));
        values.extend(split(
            &models.value.values(&value_weights, &samples)?,
            lens(),
        ));
    }
    let device = policy.device();
    let lens: Vec<usize> = logps.iter().map(Vec::len).collect();
    let mask: Tensor<2, Bool> = completion_mask(&lens, device);
    let ours = join(&logps, device);
    let theirs = join(&frozen, device);
    let kl = kl_per_token(&ours, &theirs, config.kl_estimator)?;
    let score_data: Vec<f32> = adjusted.iter().map(|s| *s as f32).collect();
    let count = score_data.len();
    let score_data = burn::tensor::TensorData::new(score_data, [count]);
    let score_tensor = Tensor::<1>::from_data(score_data, device);
    let mut rewards = token_rewards(&score_tensor, &kl, &mask, kl_coef)?;
    if config.whiten_rewards {
        rewards = whiten_keep_mean(&rewards, &mask)?;
    }
    let estimated = gae(
        &rewards,
        &join(&values, device),
        &mask,
        config.gamma,
        config.gae_lambda,
    )?;
    let mut advantages = estimated.advantages;
    if config.whiten_advantages {
        advantages = whiten(&advantages, &mask)?;
    }

    row.set("objective/scores", mean(raw.iter().copied()));
    for (part, _) in &scored[0].parts {
        let of =
            |s: &togi_reward::Score| s.parts.iter().find(|p| p.0 == *part).map_or(0.0, |p| p.1);
        row.set(
            &format!("objective/scores/{part}"),
            mean(scored.iter().map(of)),
        );
    }
    let sums = |rows: &[Vec<f64>]| {
        rows.iter()
            .map(|r| r.iter().sum::<f64>())
            .collect::<Vec<_>>()
    };
    let sequence_kl = sums(&logps)
        .iter()
        .zip(sums(&frozen))
        .map(|(a, b)| a - b)
        .collect::<Vec<_>>();
    row.set("objective/kl", mean(sequence_kl.iter().copied()));
    let seen = Seen {
        rollouts: rollouts.iter().collect(),
        scores: scored.iter().collect(),
        group_size: 1,
        entropy: mean(entropies.into_iter().flatten()),
        kl: (!config.reference.moves()).then(|| mean(sequence_kl.iter().copied())),
    };
    row.set("objective/entropy", seen.entropy);
    let non_score = -kl_coef * mean(sequence_kl);
    row.set("objective/non_score_reward", non_score);
    row.set("objective/rlhf_reward", mean(adjusted) + non_score);
    row.set(
        "completions/mean_length",
        mean(lens.iter().map(|l| *l as f64)),
    );
    let unended = rollouts.iter().filter(|r| unended(r)).count();
    row.set(
        "completions/clipped_ratio",
        unended as f64 / rollouts.len() as f64,
    );
    let alarms = monitor.step(&config.monitor, (stage.name, step + 1), &seen, row);

    let mut advantages = rows_of(&advantages, &logps);
    let drawn = (&rollouts[..], &logps[..]);
    let importance = Importance::Tokens;
    config
        .sampler
        .correct(policy, importance, drawn, &mut advantages, row);
    let returns = rows_of(&estimated.returns, &logps);
    let experience = Experience {
        rollouts,
        logps,
        seen_by,
        values,
        advantages,
        returns,
    };
    Ok((experience, alarms))
}

#[allow(clippy::too_many_arguments)]
fn optimise(
    stage: &Stage<'_>,
    models: &mut Models<'_>,
    reference: &mut Decoder,
    experience: &Experience,
    config: &PpoConfig,
    step: u64,
    rates: (f64, f64),
    optimisers: &mut (&mut AdamW, &mut AdamW),
    row: &mut Row,
) -> Result<(), TrainError> {
    let _awake = ThreadsAwake::new();
    let temperature = config.sampling.temperature;
    let count = experience.rollouts.len();
    let device = models.policy.device().clone();
    let mut updates = 0.0;
    let mut sums = Row::default();
    let mut last = Row::default();
    'epochs: for epoch in 0..config.epochs {
        let mut shuffled: Vec<usize> = (0..count).collect();
        CounterRng::new(stage.seed, &[0x6d69_6e69, step, epoch]).shuffle(&mut shuffled);
        for (number, minibatch) in shuffled.chunks(config.minibatch_size).enumerate() {
            let tokens: usize = minibatch.iter().map(|i| experience.logps[*i].len()).sum();
            let normalisation = Normalisation::Token {
                denominator: tokens as f64,
            };
            let mut parts = Row::default();
            let mut ratio_of_first = FirstRatio::default();
            let recompute = config.gradient_checkpointing;
            let samples_of = |part: &[usize]| -> Vec<&Sample> {
                part.iter()
                    .map(|i| &experience.rollouts[*i].sample)
                    .collect()
            };
            let pick = |rows: &[Vec<f64>], part: &[usize]| -> Tensor<2> {
                let rows: Vec<Vec<f64>> = part.iter().map(|i| rows[*i].clone()).collect();
                join(&rows, &device)
            };
            // First the policy, then the value model: the gradients of one are held at a time.
            let mut grads = GradientSums::default();
            for (part_number, part) in minibatch.chunks(config.micro_batch_size).enumerate() {
                let pass = ((step * config.epochs + epoch) << 20)
                    + (number * config.minibatch_size + part_number) as u64;
                let first = epoch == 0 && number == 0;
                let mut weights = models.policy.tracked().with_checkpointing(recompute);
                if !first {
                    // The first minibatch is free of dropout: its ratio must be 1.
                    weights = weights.with_dropout(DropoutKey {
                        seed: stage.seed,
                        pass,
                    });
                }
                let (logps, mask) = models
                    .policy
                    .log_probs(&weights, &samples_of(part), temperature)?
                    .padded();
                let loss = policy_loss(
                    &logps,
                    &pick(&experience.logps, part),
                    &pick(&experience.advantages, part),
                    &mask,
                    config.clip_eps,
                )?;
                if first {
                    ratio_of_first.see(&logps, &pick(&experience.logps, part));
                }
                let n = tokens as f64;
                let mean = |x: &Tensor<2>| host(x).iter().sum::<f64>() / n;
                let inside: Vec<bool> = mask.clone().into_data().iter::<bool>().collect();
                let ratio: f64 = host(&loss.ratio)
                    .iter()
                    .zip(&inside)
                    .map(|(r, counts)| if *counts { *r } else { 0.0 })
                    .sum();
                parts.add("policy/ratio", ratio / n);
                parts.add("policy/approx_kl", mean(&loss.approx_kl));
                parts.add("policy/clip_fraction", mean(&loss.clipped));
                let reduced = normalisation.tokens(loss.loss, &mask)?;
                parts.add("loss/policy", host(&reduced)[0]);
                models.policy.add_gradients(&weights, reduced, &mut grads)?;
            }
            let approx_kl = parts.get("policy/approx_kl").unwrap_or(0.0);
            if epoch == 0 && number == 0 {
                row.set("policy/ratio_first", 1.0 + ratio_of_first.error);
                row.set("policy/approx_kl_first", approx_kl);
                ratio_of_first.check(
                    (models.policy.precision, experience.seen_by),
                    stage.name,
                    step + 1,
                )?;
            } else if config.target_kl > 0.0 && approx_kl > config.target_kl {
                row.set("policy/stopped_epoch", epoch as f64);
                break 'epochs;
            }
            parts.check(stage.name, step + 1)?;
            let (policy_adam, value_adam) = (&mut *optimisers.0, &mut *optimisers.1);
            let grads = grads.into_gradients();
            let norm = policy_adam.update(&mut models.policy.params, grads, &config.optim, rates.0);
            parts.set("grad_norm", norm);
            let update = policy_adam.step;
            config.reference.follow(reference, models.policy, update)?;

            let mut grads = GradientSums::default();
            for part in minibatch.chunks(config.micro_batch_size) {
                let weights = models.value.tracked().with_checkpointing(recompute);
                let lens: Vec<usize> = part.iter().map(|i| experience.logps[*i].len()).collect();
                let values = pad(models.value.values(&weights, &samples_of(part))?, &lens);
                let mask = completion_mask(&lens, &device);
                let loss = value_loss(
                    &values,
                    &pick(&experience.values, part),
                    &pick(&experience.returns, part),
                    &mask,
                    config.value_clip_eps,
                )?;
                let reduced = normalisation.tokens(loss, &mask)?;
                parts.add("loss/value", host(&reduced)[0]);
                let scaled = reduced * config.vf_coef;
                models.value.add_gradients(&weights, scaled, &mut grads)?;
            }
            let grads = grads.into_gradients();
            let value_norm =
                value_adam.update(&mut models.value.params, grads, &config.optim, rates.1);
            parts.set("value/grad_norm", value_norm);
            parts.check(stage.name, step + 1)?;
            sums.merge(&parts);
            last = parts;
            updates += 1.0;
        }
    }
    for (metric, sum) in sums.iter() {
        row.set(metric, sum / updates);
    }
    let total = last.get("loss/policy").unwrap_or(0.0)
        + config.vf_coef * last.get("loss/value").unwrap_or(0.0);
    row.set("loss", total);
    Ok(())
}
