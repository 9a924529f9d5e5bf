//! `cargo xtask eval win-rate`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use togi_eval::questions;
use togi_train::{
    config::resolve,
    judge_config::{JudgeConfig, JudgeSource},
    rlaif::RlaifConfig,
};

use super::{
    Answering, names, prompts_of,
    table::{Measure, Measured, Outcome},
};
use crate::{InputError, judge, versus::Versus};

#[derive(Args)]
pub(crate) struct WinRateArguments {
    #[command(flatten)]
    answering: Answering,
    /// `lab`, or files with prompts, in any of the layouts that `train` reads; without it, questions of
    /// Togi's own.
    #[arg(long, value_name = "FILE")]
    data: Vec<PathBuf>,
    /// Who compares: a reward model, a language model, the address of a chat server, or `lab`.
    #[arg(long, value_name = "SRC")]
    judge: String,
    /// Set a field of how the judge is asked, for instance `--set chain_of_thought=true`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

/// The judge's settings, as `rlaif` has them.
fn judge_config(settings: &[String]) -> Result<JudgeConfig> {
    let settings: Vec<String> = settings.iter().map(|s| format!("judge.{s}")).collect();
    let config: RlaifConfig = resolve(&RlaifConfig::default(), None, &settings)?;
    Ok(config.judge)
}

pub(crate) fn run(arguments: &WinRateArguments) -> Result<()> {
    let answering = &arguments.answering;
    let config = judge_config(&arguments.settings)?;
    if answering.model.len() < 2 {
        let text =
            "--model: give two or more; the first is the one that the others are compared with";
        return Err(InputError(text.to_owned()).into());
    }
    if arguments.judge == "self" {
        let text = "--judge self: which of the models? Name it";
        return Err(InputError(text.to_owned()).into());
    }
    let device = answering.device()?;
    let first = answering.load(&answering.model[0], &device)?;
    let source = judge::parse(&arguments.judge, &first, &device, answering.seed)?;
    let reads_tokens = matches!(source, JudgeSource::Reward(_));
    let tokenizer = first.tokenizer.clone();
    let judge = config.build(source, answering.seed)?;
    let texts = match &arguments.data[..] {
        [] => questions::set()?.into_iter().map(|q| q.prompt).collect(),
        files => prompts_of(files, &first)?,
    };
    let texts = answering.limited(texts)?;
    let mut first = Some(first);
    let (mut systems, mut measured) = (Vec::new(), Vec::new());
    for (spec, name) in answering.model.iter().zip(names(&answering.model)) {
        let policy = match first.take() {
            Some(policy) => policy,
            None => answering.load(spec, &device)?,
        };
        if !systems.is_empty() && reads_tokens && !tokenizer.reads_ids_of(&policy.tokenizer) {
            let text = format!(
                "--model {spec}: its tokens are not the first model's, and a reward model reads tokens; take a \
                 language model or a server as the judge"
            );
            return Err(InputError(text).into());
        }
        let asked = answering.asked(&policy, &texts)?;
        let drawn = answering.rollouts(&policy, &asked)?;
        let answers: Vec<String> = drawn.iter().map(|r| r.text.clone()).collect();
        measured.push(Measured {
            name: name.clone(),
            measures: vec![Measure::whole(
                "length (tokens)",
                drawn.iter().map(|r| r.completion().len() as f64),
            )],
            totals: Vec::new(),
            answers,
        });
        systems.push(drawn);
    }
    let mut outcome = Outcome {
        suite: "win-rate".to_owned(),
        items: texts,
        systems: measured,
        seed: answering.seed,
        ..Outcome::default()
    };
    let base = outcome.systems[0].name.clone();
    for (system, answers) in outcome.systems[1..].iter_mut().zip(&systems[1..]) {
        let theirs = (&*base, &*systems[0]);
        let versus = Versus::of(&*judge, (&system.name, answers), theirs, answering.seed)?;
        outcome.notes.push(versus.summary());
        let wins = Measure::new(&format!("wins against {base}"), versus.wins);
        system.measures.insert(0, wins);
    }
    let even = vec![Some(0.5); outcome.items.len()];
    let wins = Measure::new(&format!("wins against {base}"), even);
    outcome.systems[0].measures.insert(0, wins);
    let usage = judge.usage();
    if !usage.is_empty() {
        outcome.notes.push(usage);
    }
    outcome.finish(answering.out.as_deref())
}
