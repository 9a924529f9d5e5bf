//! `cargo xtask eval math`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use togi_eval::exact::{self, Grade, Problem};

use super::{
    Answering, names, read,
    table::{Measure, Measured, Outcome},
};

#[derive(Args)]
pub(crate) struct MathArguments {
    #[command(flatten)]
    answering: Answering,
    /// Problems with `question` and `answer`, as GSM8K's (JSONL); without it, Togi's own.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
}

pub(crate) fn run(arguments: &MathArguments) -> Result<()> {
    let answering = &arguments.answering;
    let problems: Vec<Problem> = match &arguments.data {
        None => exact::set()?,
        Some(path) => read(path, exact::problems)?,
    };
    let problems = answering.limited(problems)?;
    let texts: Vec<String> = problems.iter().map(|p| p.question.clone()).collect();
    let device = answering.device()?;
    let mut outcome = Outcome {
        suite: "math".to_owned(),
        items: texts.clone(),
        seed: answering.seed,
        ..Outcome::default()
    };
    for (spec, name) in answering.model.iter().zip(names(&answering.model)) {
        let policy = answering.load(spec, &device)?;
        let asked = answering.asked(&policy, &texts)?;
        let drawn = answering.answers(&policy, &asked, 1)?;
        let answers: Vec<String> = drawn.iter().map(|a| a.text.clone()).collect();
        let grades: Vec<Grade> = problems
            .iter()
            .zip(&answers)
            .map(|(problem, answer)| problem.grade(answer))
            .collect();
        // An answer without a number solves nothing: that is no matter of scoring.
        let solved = grades.iter().map(|g| *g == Grade::Correct);
        let numbered = grades.iter().map(|g| *g != Grade::Unscorable);
        let length = drawn.iter().map(|a| a.generation.ids.len() as f64);
        outcome.systems.push(Measured {
            name,
            measures: vec![
                Measure::holds("solved", solved),
                Measure::holds("has a number", numbered),
                Measure::whole("length (tokens)", length),
            ],
            totals: Vec::new(),
            answers,
        });
    }
    outcome.finish(answering.out.as_deref())
}
