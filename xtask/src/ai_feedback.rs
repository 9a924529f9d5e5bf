//! `cargo xtask train rlaif` and `cai`: preferences by a judge, revisions by a critic.

use anyhow::Result;
use togi_data::{PromptSample, Tokenizer};
use togi_eval::{comparison::plain, report::Report};
use togi_policy::{Policy, Sampling};
use togi_reward::{
    critic::{Critic, LabCritic, OracleCritic},
    judge::Judge,
};
use togi_train::{
    Event, Observer,
    ai_labels::label,
    arena::{Arena, Compared, lab_prompts},
    cai::{self, LabPrincipleJudge},
    data::{DataSource, LabRows, check},
    judge_config::{JudgeConfig, JudgeSource},
    memory::{OfStage, sizes},
    rlaif::{self, Learn},
    stages,
};

use crate::{InputError, judge, session::Session, train::TrainArguments, versus::Versus};

impl TrainArguments {
    /// The judge that was named; on the lab its annotators, else the model itself.
    pub(crate) fn judge_spec(&self) -> &str {
        let own = if self.on_lab() { "lab" } else { "self" };
        self.judge.as_deref().unwrap_or(own)
    }

    /// # Errors
    /// When the lab's judge is to compare answers to prompts that are not the lab's.
    fn check_judge(&self, source: &DataSource) -> Result<()> {
        if judge::is_lab(self.judge_spec()) && *source != DataSource::Lab {
            let text = "--judge lab: knows only the lab's prompts; with --data FILE give `self`, a \
                        reward model, a language model, or the address of a chat server";
            return Err(InputError(text.to_owned()).into());
        }
        Ok(())
    }
}

pub(crate) fn run_rlaif(arguments: &TrainArguments) -> Result<()> {
    let config = arguments.rlaif_config()?;
    let watching = arguments.memory.watching()?;
    let (source, seed) = (arguments.source()?, config.seed);
    arguments.check_judge(&source)?;
    check(&source, &LabRows::Prompts, config.learn.data())?;
    let mut session = arguments.open(&config)?;
    let mut policy = session.start(arguments, seed)?;
    let spec = judge::parse(arguments.judge_spec(), &policy, &session.device, seed)?;
    let judge = config.judge.build(spec, seed)?;
    let start = policy.clone();
    let prompts = session.prompts(&source, config.learn.data(), &policy, seed)?;
    let device = session.device.clone();
    let mut stage = session.stage(seed);
    let own = arguments.judge_parameters(&policy);
    let Policy { decoder, tokenizer } = &mut policy;
    let asked = &prompts.train;
    let learning = OfStage::rlaif(&config, decoder, own, &sizes(asked))?;
    stage.watches(watching.over(&learning, &device));
    let labelled = label(
        &mut stage,
        decoder,
        tokenizer,
        &*judge,
        asked,
        &config.label,
    )?;
    // Now the pairs are known.
    let learning = learning.with_sizes(sizes(&labelled.train));
    stage.watch = watching.over(&learning, &device);
    match &config.learn {
        Learn::RewardModel(settings) => {
            *decoder = decoder.with_score_head(Some(seed))?;
            let last = rlaif::learn_reward(
                &mut stage,
                decoder,
                &labelled,
                tokenizer.answer_frame().as_ref(),
                settings,
            )?;
            session.finish_run(&policy, None, last, arguments, seed)
        }
        Learn::Policy(settings) => {
            rlaif::learn_policy(&mut stage, decoder, &labelled, settings)?;
            session.save(&policy, arguments, seed)?;
            let models = [("start", &start), (&*session.recipe.clone(), &policy)];
            let ending = Ending {
                source: &source,
                held_out: &prompts.valid,
                judge: &*judge,
                sampling: &config.label.sampling,
                note: labelled.summary(),
            };
            ending.finish(session, arguments, &models, seed)
        }
    }
}

pub(crate) fn run_cai(arguments: &TrainArguments) -> Result<()> {
    let config = arguments.cai_config()?;
    let watching = arguments.memory.watching()?;
    let (source, seed) = (arguments.source()?, config.seed);
    arguments.check_judge(&source)?;
    check(&source, &LabRows::Prompts, &config.preference.data)?;
    let on_lab = source == DataSource::Lab;
    let principles = config.principles(on_lab)?;
    let mut session = arguments.open(&config)?;
    let policy = session.start(arguments, seed)?;
    let device = session.device.clone();
    let spec = || judge::parse(arguments.judge_spec(), &policy, &device, seed);
    let critic: Box<dyn Critic> = match spec()? {
        JudgeSource::Lab => Box::new(LabCritic(togi_data::lab::Critic {
            seed,
            overlooks: config.lab_overlooks,
        })),
        speaking => Box::new(OracleCritic {
            oracle: config.judge.oracle(speaking, seed)?,
        }),
    };
    let judge: Box<dyn Judge> = match spec()? {
        JudgeSource::Lab => Box::new(LabPrincipleJudge {
            principles: principles.clone(),
            noise: config.judge.annotators.noise,
            seed,
        }),
        speaking => {
            let criteria = principles.iter().map(|p| p.preference.clone()).collect();
            let settings = JudgeConfig {
                criteria,
                ..config.judge.clone()
            };
            settings.build(speaking, seed)?
        }
    };
    let prompts = session.prompts(&source, &config.preference.data, &policy, seed)?;
    let asked = &prompts.train;
    let judges = 2 * arguments.judge_parameters(&policy);
    let revising = OfStage::revisions(&config, &policy.decoder, judges, &sizes(asked));
    let mut stages = session.stages(watching);
    let revised = stages.stage("revisions", seed ^ stages::REVISIONS, |stage| {
        stage.watches(watching.over(&revising, &device));
        let Policy {
            mut decoder,
            tokenizer,
        } = policy.clone();
        let chains = cai::chains(
            stage,
            &decoder,
            &tokenizer,
            &*critic,
            &principles,
            asked,
            &config,
        )?;
        let share = config.label.valid_fraction;
        let longest = config
            .sft
            .data
            .max_length
            .min(decoder.config.max_position_embeddings);
        let (train, valid) = cai::samples(&chains, asked, &tokenizer, share, longest)?;
        let whole = chains.iter().filter(|chain| chain.unscorable.is_none());
        let too_long = whole.count() - train.len() - valid.len();
        if too_long > 0 {
            let text =
                format!("{too_long} revisions are longer than {longest} tokens and left out (sft.data.max_length)");
            stage.observer.on(Event::Message(&text));
        }
        // Now the revisions are known.
        let learning = revising.with_sizes(sizes(&train));
        stage.watch = watching.over(&learning, &device);
        cai::learn_revisions(stage, &mut decoder, (&train, &valid), &config.sft)?;
        decoder.merge_lora();
        Ok(Policy::new(decoder, tokenizer, "the run")?)
    })?;
    let mut tuned = revised.clone();
    let mut stage = session.stage(seed);
    let Policy { decoder, tokenizer } = &mut tuned;
    let comparing = OfStage::cai(&config, decoder, judges, &sizes(asked));
    stage.watches(watching.over(&comparing, &device));
    let labelled = label(
        &mut stage,
        decoder,
        tokenizer,
        &*judge,
        asked,
        &config.label,
    )?;
    let learning = comparing.with_sizes(sizes(&labelled.train));
    stage.watch = watching.over(&learning, &device);
    rlaif::learn_policy(&mut stage, decoder, &labelled, &config.preference)?;
    // The adapter belongs to the model that has learnt the revisions.
    tuned.decoder.merge_lora();
    session.save(&tuned, arguments, seed)?;
    let models = [("start", &policy), ("revisions", &revised), ("cai", &tuned)];
    let ending = Ending {
        source: &source,
        held_out: &prompts.valid,
        judge: &*judge,
        sampling: &config.label.sampling,
        note: labelled.summary(),
    };
    ending.finish(session, arguments, &models, seed)
}

/// What models are compared on at the end of a run.
struct Ending<'a> {
    source: &'a DataSource,
    held_out: &'a [PromptSample],
    judge: &'a dyn Judge,
    /// How answers are drawn, off the lab.
    sampling: &'a Sampling,
    note: String,
}

impl Ending<'_> {
    /// Compares the models, the first of which is where the run started, and writes the report: by the true
    /// reward on the lab, by the judge elsewhere.
    fn finish(
        self,
        session: Session,
        arguments: &TrainArguments,
        models: &[(&str, &Policy)],
        seed: u64,
    ) -> Result<()> {
        let mut session = session;
        let title = format!("train {}", session.recipe);
        if arguments.compare == 0 {
            let summary = self.note;
            return session.finish(Report {
                title,
                summary,
                ..Report::default()
            });
        }
        let (_, start) = models[0];
        let on_lab = *self.source == DataSource::Lab;
        let sampling = match on_lab {
            true => togi_train::lab_defaults::sampling(),
            false => self.sampling.clone(),
        };
        let asked = self.asked(&start.tokenizer, arguments.compare, seed, on_lab)?;
        if asked.is_empty() {
            session.bars.on(Event::Message(
                "no prompt is held out to compare the models on: give --valid FILE",
            ));
            let summary = self.note;
            return session.finish(Report {
                title,
                summary,
                ..Report::default()
            });
        }
        let arena = Arena {
            prompts: &asked,
            reference: &start.decoder,
            proxy: None,
            gold: on_lab,
            sampling: &sampling,
            seed,
        };
        let Compared {
            comparison,
            samples,
            answers,
        } = arena.compare(models)?;
        println!("\n{}", plain(&comparison.table()?));
        let (name, _) = models[models.len() - 1];
        let mut summary = String::new();
        if on_lab {
            for metric in ["gold reward", "violations"] {
                let change = comparison.difference(metric, name, "start")?;
                summary.push_str(&format!(
                    "{name}'s {metric}: {:+.3} over start's (95% interval {:+.3} to {:+.3}, paired over {} \
                     prompts).\n",
                    change.value,
                    change.low,
                    change.high,
                    asked.len()
                ));
            }
        } else {
            let (ours, theirs) = (&answers[models.len() - 1], &answers[0]);
            // A judge that decides nothing is no reason to lose the report.
            match Versus::of(self.judge, (name, ours), ("start", theirs), seed) {
                Ok(versus) => summary.push_str(&versus.summary()),
                Err(reason) => summary.push_str(&format!("no win rate: {reason:#}")),
            }
            summary.push('\n');
        }
        summary.push_str(&self.note);
        let path = session.run.path().join("comparison.json");
        std::fs::write(&path, serde_json::to_vec(&comparison)?)?;
        session.finish(Report {
            title,
            summary,
            comparison: Some(comparison),
            samples,
            ..Report::default()
        })
    }

    fn asked(
        &self,
        tokenizer: &Tokenizer,
        count: usize,
        seed: u64,
        on_lab: bool,
    ) -> Result<Vec<PromptSample>> {
        if on_lab {
            return Ok(lab_prompts(tokenizer, count, seed)?);
        }
        Ok(self.held_out.iter().take(count).cloned().collect())
    }
}
