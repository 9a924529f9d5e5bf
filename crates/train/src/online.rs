//! The loop of the online recipes without a value model: draw several completions of each prompt,
//! score them, compare them with one another, take a step. What the recipes differ in is an
//! [`OnlineAlgorithm`]: advantages and a loss.

use std::time::Instant;

use burn::tensor::Tensor;
use serde_json::json;
use togi_data::{PromptSample, Sample, Tokenizer, batch::Order, rng::CounterRng};
use togi_eval::report::Alarm;
use togi_kernels::ThreadsAwake;
use togi_policy::{Decoder, DropoutKey, Finish, GradientSums, Sampling, generate::Voice};
use togi_reward::{LabGold, Reward, Score};

use crate::{
    checkpoint::Checkpoint,
    error::TrainError,
    metrics::{Event, Row},
    monitor::{Monitor, Seen},
    offline::{Stage, host},
    optimizer::AdamW,
    reference,
    rollout::{
        FirstRatio, HeldOut, Rollout, SeenBy, after_drawing, join, mean, rollouts, rollouts_of,
        scores, split, write_samples,
    },
    sampler::TokenScores,
};

pub use crate::{
    online_algorithm::{Minibatch, OnlineAlgorithm, Part, PartLoss, Scored},
    online_config::{KlPlace, OnlineConfig},
};

/// What the models of an online run are.
pub struct OnlineModels<'a> {
    /// Is trained.
    pub policy: &'a mut Decoder,
    /// What training starts from; held-out KL is measured from it.
    pub reference: &'a Decoder,
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
    reference: Vec<Vec<f64>>,
    advantages: Vec<Vec<f64>>,
}

/// What a run has come to, beside its models: what a checkpoint keeps.
struct Progress<A: OnlineAlgorithm> {
    /// Batches of prompts drawn.
    drawn: u64,
    kl_coef: f64,
    memory: A::Memory,
    monitor: Monitor,
    /// The KL budget is spent, or an alarm ended the run.
    spent: bool,
}

impl<A: OnlineAlgorithm> Progress<A> {
    /// Everything that a run needs to go on, with the reference where it moves.
    fn checkpoint(
        &self,
        policy: &Decoder,
        adam: &AdamW,
        follower: &Decoder,
        config: &OnlineConfig<A>,
    ) -> Checkpoint {
        let mut checkpoint = Checkpoint::default();
        checkpoint.add("policy", policy, adam);
        if config.reference.moves() {
            reference::save(&mut checkpoint, follower);
        }
        checkpoint.state = json!({
            "updates": adam.step,
            "drawn": self.drawn,
            "kl_coef": self.kl_coef,
            "memory": self.memory,
            "monitor": self.monitor,
            "spent": self.spent,
        });
        checkpoint
    }
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
    stage.within_memory(stage.name, |stage| {
        let name = stage.name;
        let mut adam = AdamW::new(&models.policy.params);
        let mut order = Order::new(stage.seed, prompts.len());
        let mut follower = models.reference.clone();
        let mut step = 0;
        let mut progress = Progress::<A> {
            drawn: 0,
            kl_coef: config.kl_coef,
            memory: A::Memory::default(),
            monitor: Monitor::default(),
            spent: false,
        };
        if let Some(stored) = stage.newest()? {
            let updates = stored.state["updates"].as_u64().unwrap_or(0);
            stored.restore("policy", models.policy, &mut adam, updates)?;
            if config.reference.moves() {
                reference::restore(&stored, &mut follower)?;
            }
            progress = restored(&stored.state)?;
            step = stored.step;
        } else if config.monitor.rolls_back() {
            let start = progress.checkpoint(models.policy, &adam, &follower, config);
            start.save(stage.run, name, 0, config.keep_checkpoints)?;
        }
        let total = config.max_steps;
        stage.watch.begin(step);
        stage.observer.on(Event::Stage { name, step, total });
        let mut last_eval = None;
        while step < total && !progress.spent {
            let started = Instant::now();
            let mut row = Row::default();
            let (experience, alarms) = gather(
                stage,
                models,
                &follower,
                (prompts, &mut order),
                config,
                &mut progress,
                step,
                &mut row,
            )?;
            let rate = config.optim.rate(step, total);
            optimise(
                stage,
                models,
                &mut follower,
                &experience,
                config,
                (step, rate, progress.kl_coef),
                &mut adam,
                &mut row,
            )?;
            row.set("objective/kl_coef", progress.kl_coef);
            row.set("learning_rate", rate);
            row.check(name, step + 1)?;
            step += 1;
            let kl = row.get("objective/kl").unwrap_or(0.0);
            let episodes = experience.rollouts.len();
            progress.kl_coef = config
                .kl_controller
                .update(progress.kl_coef, kl, episodes)?;
            write_samples(stage, &experience.rollouts, step)?;
            let tokens = experience.rollouts.iter().map(|r| r.sample.len()).sum();
            stage.stepped(step, &row, tokens, started)?;
            let steps = (step, config.monitor.before_window(step));
            let ended = config.monitor.act(stage, models.policy, steps, &alarms)?;
            progress.spent |= ended;
            if config.kl_budget > 0.0 && kl > config.kl_budget {
                progress.spent = true;
                let budget = config.kl_budget;
                let text =
                    format!("stopped at step {step}: KL {kl:.3} is above kl_budget {budget}");
                stage.observer.on(Event::Message(&text));
            }
            let last = step == total || progress.spent;
            if last || (config.eval_every > 0 && step % config.eval_every == 0) {
                let arena = HeldOut {
                    prompts: &valid[..valid.len().min(config.eval_samples)],
                    reference: models.reference,
                    reward: models.reward,
                    gold: models.gold,
                    tokenizer: models.tokenizer,
                    sampling: &config.sampling,
                };
                if let Some((mut eval, golds)) = arena.evaluate(stage, models.policy, step)? {
                    // A model that was rolled back is not what this step came to.
                    let alarms = match ended {
                        true => Vec::new(),
                        false => {
                            progress
                                .monitor
                                .look(&config.monitor, (name, step), &golds, &mut eval)
                        }
                    };
                    stage.looked(step, &eval)?;
                    last_eval = Some(eval);
                    let steps = (step, progress.monitor.best_step());
                    if config.monitor.act(stage, models.policy, steps, &alarms)? {
                        progress.spent = true;
                        if config.monitor.rolls_back() {
                            let again = arena.evaluate(stage, models.policy, step)?;
                            last_eval = again.map(|(eval, _)| eval);
                        }
                    }
                }
            }
            let last = last || progress.spent;
            let short = stage.short_of_memory(name, step).filter(|_| !last);
            let due = config.checkpoint_every > 0 && step % config.checkpoint_every == 0;
            if last || due || short.is_some() {
                let checkpoint = progress.checkpoint(models.policy, &adam, &follower, config);
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

fn restored<A: OnlineAlgorithm>(state: &serde_json::Value) -> Result<Progress<A>, TrainError> {
    let wrong = |what: &str| TrainError::config("checkpoint", format!("its state has no `{what}`"));
    Ok(Progress {
        drawn: state["drawn"].as_u64().ok_or_else(|| wrong("drawn"))?,
        kl_coef: state["kl_coef"].as_f64().ok_or_else(|| wrong("kl_coef"))?,
        memory: serde_json::from_value(state["memory"].clone()).map_err(|_| wrong("memory"))?,
        monitor: serde_json::from_value(state["monitor"].clone()).map_err(|_| wrong("monitor"))?,
        spent: state["spent"].as_bool().ok_or_else(|| wrong("spent"))?,
    })
}

/// The completions of one prompt.
struct Group {
    prompt: usize,
    rollouts: Vec<Rollout>,
    /// As the reward gave them.
    raw: Vec<Score>,
    /// With penalties subtracted.
    scores: Vec<f64>,
}

impl Group {
    /// True if its completions cannot be told apart.
    fn is_flat(&self) -> bool {
        self.scores.iter().all(|score| *score == self.scores[0])
    }
}

/// Groups of completions of a batch of prompts, scored.
#[allow(clippy::too_many_arguments)]
fn draw<A: OnlineAlgorithm>(
    stage: &Stage<'_>,
    models: &OnlineModels<'_>,
    reference: &Decoder,
    prompts: &[PromptSample],
    batch: &[usize],
    config: &OnlineConfig<A>,
    drawn: u64,
    step: u64,
) -> Result<Vec<Group>, TrainError> {
    let (policy, tokenizer, sampling) = (&*models.policy, models.tokenizer, &config.sampling);
    let size = config.completions_per_prompt;
    let opponent = config.algorithm.opponent();
    let own = config.own_completions();
    let policy = &config.sampler.of(policy)?;
    let weights = policy.sampling();
    // Laid out for sampling only where it samples: that is a copy of the weights.
    let theirs = match opponent {
        Some(_) => reference.sampling(),
        None => reference.frozen(),
    };
    // Each completion has random numbers of its own, wherever it is drawn.
    let first = drawn * (batch.len() * size) as u64;
    let members = |range: std::ops::Range<usize>| {
        let each = move |g: usize| range.clone().map(move |j| (g, j));
        (0..batch.len()).flat_map(each)
    };
    let from = |voices: &[Voice<'_>], range: std::ops::Range<usize>| {
        let asked: Vec<&PromptSample> = members(range.clone())
            .map(|(g, _)| &prompts[batch[g]])
            .collect();
        let streams: Vec<u64> = members(range)
            .map(|(g, j)| first + (g * size + j) as u64)
            .collect();
        rollouts_of(voices, tokenizer, &asked, sampling, stage.seed, &streams)
    };
    let voice = |decoder, weights, share| Voice {
        decoder,
        weights,
        share,
    };
    let mut ours = from(&[voice(policy, &weights, 1.0)], 0..own)?.into_iter();
    let mut others = match opponent {
        None => Vec::new(),
        Some(1.0) => from(&[voice(reference, &theirs, 1.0)], own..size)?,
        Some(share) => {
            let voices = [
                voice(policy, &weights, 1.0 - share),
                voice(reference, &theirs, share),
            ];
            from(&voices, own..size)?
        }
    }
    .into_iter();
    drop((weights, theirs));
    after_drawing(models.policy);
    // The completions of a prompt stand side by side, the policy's first.
    let mut drawn = Vec::with_capacity(batch.len() * size);
    for _ in batch {
        drawn.extend(ours.by_ref().take(own));
        drawn.extend(others.by_ref().take(size - own));
    }
    let scored = scores(models.reward, &drawn, stage.name, step + 1)?;
    let mut both = drawn.into_iter().zip(scored);
    let groups = batch.iter().map(|prompt| {
        let mut group = Group {
            prompt: *prompt,
            rollouts: Vec::with_capacity(size),
            raw: Vec::with_capacity(size),
            scores: Vec::with_capacity(size),
        };
        for (rollout, score) in both.by_ref().take(size) {
            group.scores.push(score.value - penalty(&rollout, config));
            group.raw.push(score);
            group.rollouts.push(rollout);
        }
        group
    });
    Ok(groups.collect())
}

/// What is taken off a completion's score for its length.
fn penalty<A: OnlineAlgorithm>(rollout: &Rollout, config: &OnlineConfig<A>) -> f64 {
    let unended = f64::from(u8::from(rollout.finish == Finish::Length));
    unended * config.missing_eos_penalty + overlong(rollout.completion().len(), config)
}

/// DAPO's soft overlong punishment (Yu et al. 2025, eq. 13): 0 up to the buffer, then in a line to 1.
fn overlong<A: OnlineAlgorithm>(len: usize, config: &OnlineConfig<A>) -> f64 {
    let buffer = config.overlong_buffer as f64;
    if buffer == 0.0 {
        return 0.0;
    }
    let over = len as f64 + buffer - config.sampling.max_new_tokens as f64;
    (over / buffer).clamp(0.0, 1.0)
}

#[allow(clippy::too_many_arguments)]
fn gather<A: OnlineAlgorithm>(
    stage: &Stage<'_>,
    models: &OnlineModels<'_>,
    reference: &Decoder,
    (prompts, order): (&[PromptSample], &mut Order),
    config: &OnlineConfig<A>,
    progress: &mut Progress<A>,
    step: u64,
    row: &mut Row,
) -> Result<(Experience, Vec<Alarm>), TrainError> {
    let wanted = config.prompts_per_step;
    let (mut groups, mut flat) = (Vec::new(), Vec::new());
    let mut seen = 0;
    for round in 0..=config.dynamic_sampling {
        let batch = order.batch(progress.drawn, wanted);
        let fresh = draw(
            stage,
            models,
            reference,
            prompts,
            &batch,
            config,
            progress.drawn,
            step,
        )?;
        progress.drawn += 1;
        seen += fresh.len();
        for group in fresh {
            let aside = config.dynamic_sampling > 0 && group.is_flat();
            if aside {
                flat.push(group);
            } else {
                groups.push(group);
            }
        }
        if groups.len() >= wanted || round == config.dynamic_sampling {
            break;
        }
    }
    groups.truncate(wanted);
    // Too few prompts could be told apart: the batch keeps its size, with some that could not.
    let missing = wanted - groups.len();
    groups.extend(flat.into_iter().take(missing));

    let size = config.completions_per_prompt;
    let own = config.own_completions();
    let greedy = if config.algorithm.wants_greedy() {
        let asked: Vec<&PromptSample> = groups.iter().map(|g| &prompts[g.prompt]).collect();
        let sampling = Sampling {
            temperature: 0.0,
            ..config.sampling.clone()
        };
        let (policy, tokenizer) = (&*models.policy, models.tokenizer);
        let likeliest = rollouts(policy, tokenizer, &asked, &sampling, stage.seed, 0)?;
        let scored = scores(models.reward, &likeliest, stage.name, step + 1)?;
        // As those that it is a baseline for.
        let both = likeliest.iter().zip(&scored);
        both.map(|(rollout, score)| score.value - penalty(rollout, config))
            .collect()
    } else {
        Vec::new()
    };
    let flat = groups.iter().filter(|g| g.is_flat()).count();
    let is_own = |i: &usize| i % size < own;
    let raw: Vec<Score> = groups.iter().flat_map(|g| g.raw.clone()).collect();
    let adjusted: Vec<f64> = groups.iter().flat_map(|g| g.scores.clone()).collect();
    let rollouts: Vec<Rollout> = groups.into_iter().flat_map(|g| g.rollouts).collect();

    let _awake = ThreadsAwake::new();
    let temperature = config.sampling.temperature;
    let sizes = (temperature, config.micro_batch_size);
    let kl_is_rewarded = config.kl_place == KlPlace::Reward && progress.kl_coef > 0.0;
    let may_serve = config.algorithm.opponent().is_none() && !kl_is_rewarded;
    let TokenScores {
        logps,
        entropies,
        seen_by,
    } = config
        .sampler
        .scores(models.policy, &rollouts, may_serve, sizes)?;
    let reference_weights = reference.frozen();
    let mut frozen = Vec::with_capacity(rollouts.len());
    for part in rollouts.chunks(config.micro_batch_size) {
        let samples: Vec<&Sample> = part.iter().map(|r| &r.sample).collect();
        let lens = part.iter().map(|r| r.completion().len());
        let theirs = reference.log_probs(&reference_weights, &samples, temperature)?;
        frozen.extend(split(&theirs.values, lens));
    }
    let device = models.policy.device();
    let penalties = config.penalties(&logps, &frozen, progress.kl_coef, device)?;
    let view = Scored {
        scores: &adjusted,
        group_size: size,
        logps: &logps,
        reference: &frozen,
        penalties: &penalties,
        greedy: &greedy,
        device,
    };
    let mut advantages = config.algorithm.advantages(&view, &mut progress.memory)?;
    let importance = config.algorithm.importance();
    let drawn = (&rollouts[..], &logps[..]);
    let sampler = &config.sampler;
    sampler.correct(models.policy, importance, drawn, &mut advantages, row);

    // What is logged is about the policy's own completions.
    let numbers: Vec<usize> = (0..rollouts.len()).filter(is_own).collect();
    let over = |value: &dyn Fn(usize) -> f64| mean(numbers.iter().map(|i| value(*i)));
    let kl = view.sequence_kl();
    row.set("objective/scores", over(&|i| raw[i].value));
    row.set("objective/flat_groups", flat as f64 / wanted as f64);
    if config.dynamic_sampling > 0 {
        row.set("objective/prompts_drawn", seen as f64);
    }
    row.set("objective/kl", over(&|i| kl[i]));
    let entropies = numbers.iter().flat_map(|i| entropies[*i].clone());
    let seen = Seen {
        rollouts: numbers.iter().map(|i| &rollouts[*i]).collect(),
        scores: numbers.iter().map(|i| &raw[*i]).collect(),
        group_size: own,
        entropy: mean(entropies),
        kl: (!config.reference.moves()).then(|| over(&|i| kl[i])),
    };
    row.set("objective/entropy", seen.entropy);
    let length = |i: usize| rollouts[i].completion().len() as f64;
    row.set("completions/mean_length", over(&length));
    let unended = |i: usize| f64::from(u8::from(rollouts[i].finish == Finish::Length));
    row.set("completions/clipped_ratio", over(&unended));
    let place = (stage.name, step + 1);
    let alarms = progress.monitor.step(&config.monitor, place, &seen, row);
    let experience = Experience {
        rollouts,
        logps,
        seen_by,
        reference: frozen,
        advantages,
    };
    Ok((experience, alarms))
}

#[allow(clippy::too_many_arguments)]
fn optimise<A: OnlineAlgorithm>(
    stage: &Stage<'_>,
    models: &mut OnlineModels<'_>,
    reference: &mut Decoder,
    experience: &Experience,
    config: &OnlineConfig<A>,
    (step, rate, kl_coef): (u64, f64, f64),
    adam: &mut AdamW,
    row: &mut Row,
) -> Result<(), TrainError> {
    let _awake = ThreadsAwake::new();
    let count = experience.rollouts.len();
    let device = models.policy.device().clone();
    let (mut updates, mut sums) = (0.0, Row::default());
    // Units that are shuffled: completions, or all completions of a prompt.
    let unit = match config.algorithm.keeps_groups() {
        true => config.completions_per_prompt,
        false => 1,
    };
    'epochs: for epoch in 0..config.epochs {
        let mut units: Vec<usize> = (0..count / unit).collect();
        CounterRng::new(stage.seed, &[0x6d69_6e69, step, epoch]).shuffle(&mut units);
        let shuffled: Vec<usize> = units
            .into_iter()
            .flat_map(|u| u * unit..(u + 1) * unit)
            .collect();
        for (number, minibatch) in shuffled.chunks(config.minibatch_size).enumerate() {
            // Neighbours share a prompt, which then goes through the model once.
            let mut minibatch = minibatch.to_vec();
            minibatch.sort_unstable();
            let whole = config.minibatch(&minibatch, &experience.advantages);
            let first = epoch == 0 && number == 0;
            let (mut grads, mut parts) = (GradientSums::default(), Row::default());
            let (mut ratio, mut approx_kl) = (FirstRatio::default(), 0.0);
            for (part_number, part) in minibatch.chunks(config.micro_batch_size).enumerate() {
                let samples: Vec<&Sample> = part
                    .iter()
                    .map(|i| &experience.rollouts[*i].sample)
                    .collect();
                let pick = |rows: &[Vec<f64>]| -> Tensor<2> {
                    let rows: Vec<Vec<f64>> = part.iter().map(|i| rows[*i].clone()).collect();
                    join(&rows, &device)
                };
                let recompute = config.gradient_checkpointing;
                let mut weights = models.policy.tracked().with_checkpointing(recompute);
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
                let part = Part {
                    old_logps: pick(&experience.logps),
                    reference: pick(&experience.reference),
                    advantages: pick(&experience.advantages),
                    lens: part.iter().map(|i| experience.logps[*i].len()).collect(),
                    logps,
                    mask,
                    whole,
                };
                for off in host(&(part.logps.clone().detach() - part.old_logps.clone())) {
                    approx_kl += off * off / 2.0 / whole.tokens;
                }
                if first {
                    ratio.see(&part.logps, &part.old_logps);
                }
                let PartLoss { loss, row } = config.loss(&part, kl_coef)?;
                parts.merge(&row);
                parts.add("loss", host(&loss)[0]);
                models.policy.add_gradients(&weights, loss, &mut grads)?;
            }
            parts.set("policy/approx_kl", approx_kl);
            if first {
                row.set("policy/ratio_first", 1.0 + ratio.error);
                ratio.check(
                    (models.policy.precision, experience.seen_by),
                    stage.name,
                    step + 1,
                )?;
            } else if config.target_kl > 0.0 && approx_kl > config.target_kl {
                row.set("policy/stopped_epoch", epoch as f64);
                break 'epochs;
            }
            parts.check(stage.name, step + 1)?;
            let grads = grads.into_gradients();
            let norm = adam.update(&mut models.policy.params, grads, &config.optim, rate);
            parts.set("grad_norm", norm);
            parts.check(stage.name, step + 1)?;
            let update = adam.step;
            config.reference.follow(reference, models.policy, update)?;
            sums.merge(&parts);
            updates += 1.0;
        }
    }
    for (metric, sum) in sums.iter() {
        row.set(metric, sum / updates);
    }
    Ok(())
}
