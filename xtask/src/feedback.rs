//! `cargo xtask feedback`: people judge answers in a terminal, and their judgements become rows to
//! train on.

use std::{path::PathBuf, time::SystemTime};

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use togi_data::{BadRows, Skipped};
use togi_feedback::{
    Aggregate, ExportLayout, Log, PlanOptions, Session, SessionOptions, annotators, export, items,
    log, terminal,
};

use crate::{
    InputError,
    agreement::{self, AgreementArguments},
    select::{self, SelectArguments},
};

#[derive(Args)]
pub(crate) struct FeedbackArguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Judge answers in this terminal.
    Annotate(AnnotateArguments),
    /// How far annotators agree, and what each of them likes for its own sake.
    Agreement(AgreementArguments),
    /// Write judgements as rows that `train` reads.
    Export(ExportArguments),
    /// Find the items that are most worth a person's time.
    Select(SelectArguments),
}

#[derive(Args)]
struct AnnotateArguments {
    /// Answers to compare: prompt + chosen + rejected, prompt + completions, or rows of
    /// prompt + completion with equal prompts.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    /// The log that judgements are appended to; several annotators may share one.
    #[arg(long, value_name = "FILE")]
    log: PathBuf,
    /// Who judges.
    #[arg(long, value_name = "NAME")]
    annotator: String,
    /// Only names in this file, one a line, may judge.
    #[arg(long, value_name = "FILE")]
    annotators: Option<PathBuf>,
    /// Rank all answers where there are more than two, instead of choosing the best.
    #[arg(long)]
    ranking: bool,
    /// Keys the order of items and of answers. Annotators with the same seed get the same items.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Judge this many items, not counting repetitions.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Show this share of the items again later, to see how consistent an annotator is.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    repeat: f64,
    /// Leave out rows that cannot be judged, and count them.
    #[arg(long)]
    skip_bad_rows: bool,
}

#[derive(Args)]
struct ExportArguments {
    /// Logs of annotations.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    log: Vec<PathBuf>,
    /// The file that is written; it must not exist.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The columns of the rows.
    #[arg(long, value_enum, default_value = "pairs")]
    layout: LayoutArgument,
    /// Whether more than half decide, or each judgement makes rows of its own.
    #[arg(long, value_enum, default_value = "majority")]
    aggregate: AggregateArgument,
}

#[derive(Clone, Copy, ValueEnum)]
enum LayoutArgument {
    /// prompt, chosen, rejected, margin
    Pairs,
    /// prompt, completions, ranks
    Rankings,
    /// prompt, completion, label
    Unpaired,
}

#[derive(Clone, Copy, ValueEnum)]
enum AggregateArgument {
    /// An answer is better where more than half of those who compared say so.
    Majority,
    /// Each judgement for itself.
    Each,
}

pub(crate) fn run(arguments: &FeedbackArguments) -> Result<()> {
    match &arguments.command {
        Command::Annotate(arguments) => annotate(arguments),
        Command::Agreement(arguments) => agreement::run(arguments),
        Command::Export(arguments) => write(arguments),
        Command::Select(arguments) => select::run(arguments),
    }
}

fn annotate(arguments: &AnnotateArguments) -> Result<()> {
    let annotator = annotators::name(&arguments.annotator)?;
    if let Some(path) = &arguments.annotators {
        annotators::known(&annotator, &annotators::list(path)?, path)?;
    }
    let plan = PlanOptions {
        seed: arguments.seed,
        limit: arguments.limit,
        repeat: arguments.repeat,
    };
    plan.check()?;
    let bad_rows = if arguments.skip_bad_rows {
        BadRows::Skip
    } else {
        BadRows::Error
    };
    let items = items::load(&arguments.data, bad_rows)?;
    say_skipped(&items.skipped);
    if items.repeated > 0 {
        println!("Rows that repeat an earlier one: {}", items.repeated);
    }
    terminal::check()?;
    let options = SessionOptions {
        annotator,
        ranking: arguments.ranking,
        plan,
    };
    let (mut log, done, torn) = Log::open(&arguments.log)?;
    let mut session = Session::new(items.items, &done, options, SystemTime::now())?;
    if let Some(torn) = torn {
        println!("{torn}");
        session.say(torn.to_string());
    }
    let result = terminal::run(&mut session, &mut log);
    let (done, all) = session.progress();
    println!(
        "{done}/{all} done by {}, {} of them now; all are in {}",
        session.annotator(),
        session.saved(),
        arguments.log.display()
    );
    Ok(result?)
}

pub(crate) fn say_skipped(skipped: &[Skipped]) {
    if !skipped.is_empty() {
        println!("Rows left out: {}", skipped.len());
        for row in skipped.iter().take(5) {
            println!("  {}: {}", row.place, row.reason);
        }
    }
}

fn write(arguments: &ExportArguments) -> Result<()> {
    let out = &arguments.out;
    if out.exists() {
        let text = format!(
            "--out {}: is there already; name another file",
            out.display()
        );
        return Err(InputError(text).into());
    }
    let (annotations, torn) = log::read_saying(&arguments.log)?;
    for torn in torn {
        println!("{torn}");
    }
    let layout = match arguments.layout {
        LayoutArgument::Pairs => ExportLayout::Pairs,
        LayoutArgument::Rankings => ExportLayout::Rankings,
        LayoutArgument::Unpaired => ExportLayout::Unpaired,
    };
    let aggregate = match arguments.aggregate {
        AggregateArgument::Majority => Aggregate::Majority,
        AggregateArgument::Each => Aggregate::Each,
    };
    let export = export(&annotations, layout, aggregate);
    println!(
        "Judgements: {} of {} items; ties: {}; without a majority: {}; contradictory items: {}; \
         skipped: {}; repetitions: {}",
        export.judgements,
        export.items,
        export.ties,
        export.undecided,
        export.contradictory,
        export.skipped,
        export.repetitions,
    );
    if export.rows.is_empty() {
        return Err(InputError("--log: no judgement becomes a row".to_owned()).into());
    }
    togi_feedback::export::write(out, &export.rows)?;
    println!("Wrote {} ({} rows)", out.display(), export.rows.len());
    Ok(())
}
