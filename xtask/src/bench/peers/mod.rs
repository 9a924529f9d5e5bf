//! `cargo xtask bench peers`: training and sampling, in turn with TRL, transformers and PyTorch on the same pairs
//! and prompts. What the two compute is compared before anything of it is counted.

mod row;
mod table;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use clap::{Args, ValueEnum};
use togi_policy::{Precision, adapter, source::Source};

use self::{
    row::{COMPLETIONS, Measured, PAIRS, PROMPT, Place, RANK, Row},
    table::Line,
};
use super::{
    at_least_one, device, offline, online::GROUP, pairs, sampling::random_prompts, stolen,
};

#[derive(Args)]
pub(crate) struct PeerArguments {
    /// A Python that has the packages of tools/peers/requirements.txt.
    #[arg(long, value_name = "FILE")]
    python: PathBuf,
    /// The model, as a Hugging Face folder that both read.
    #[arg(long, value_name = "DIR")]
    model: String,
    /// Pairs; of steps that draw, their prompts.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Where both compute: `cpu`, or `cuda` with `:n` for a further GPU.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Rows to measure; all if it is not given.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Row>,
    /// Rounds; in each, every program runs once.
    #[arg(long, default_value_t = 2, value_parser = at_least_one())]
    rounds: u64,
    /// Training steps a round; the first of a program is not counted where there are more.
    #[arg(long, default_value_t = 4, value_parser = at_least_one())]
    steps: u64,
    /// Print the rows as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs of one row, a pair a round.
struct Runs {
    row: Row,
    theirs: Vec<Measured>,
    ours: Vec<Measured>,
    /// The share of the processor that the host took, while each of a pair ran.
    stolen: Vec<[Option<f64>; 2]>,
    agreement: String,
}

pub(crate) fn run(arguments: &PeerArguments) -> Result<()> {
    let precision = Precision::of_program();
    let gpu = device::of_pytorch(&arguments.device)?;
    let rows: Vec<Row> = Row::value_variants()
        .iter()
        .copied()
        .filter(|row| arguments.only.is_empty() || arguments.only.contains(row))
        // The small decoder is float32 on both sides.
        .filter(|row| *row != Row::Tiny || precision == Precision::F32)
        .collect();
    // Is refused before anything runs where it is not there, or cannot do what the rows do.
    match rows.iter().all(|row| row.sampled().is_some()) {
        true => device::parse(&arguments.device)?,
        false => device::parse_to_train(&arguments.device)?,
    };
    let folder = tempfile::tempdir()?;
    let place = Place {
        python: arguments.python.clone(),
        scripts: Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/peers"),
        model: arguments.model.clone(),
        device: arguments.device.clone(),
        gpu,
        precision,
        threads: std::thread::available_parallelism()?.to_string(),
        steps: arguments.steps as usize,
        folder: folder.path().to_owned(),
    };
    prepare(&rows, &arguments.data, &place)?;
    let mut all: Vec<Runs> = rows
        .into_iter()
        .map(|row| Runs {
            row,
            theirs: Vec::new(),
            ours: Vec::new(),
            stolen: Vec::new(),
            agreement: String::new(),
        })
        .collect();
    for round in 0..arguments.rounds as usize {
        for number in 0..all.len() {
            let row = all[number].row;
            eprintln!(
                "round {} of {}: {}",
                round + 1,
                arguments.rounds,
                row.name()
            );
            let run_ours = || stolen::during(|| row.ours(&place));
            let early = match row.writes_for_peer() {
                true => Some(run_ours()?),
                false => None,
            };
            // PPO's peer has run already where GRPO is measured too.
            let known = all[..number].iter().find(|runs| runs.row == row.peer());
            let known = known.and_then(|runs| {
                Some((runs.theirs.get(round)?.clone(), runs.stolen.get(round)?[0]))
            });
            let (theirs, stolen_theirs) = match known {
                Some(known) => known,
                None => stolen::during(|| row.theirs(&place))?,
            };
            let (ours, stolen_ours) = match early {
                Some(early) => early,
                None => run_ours()?,
            };
            let agreement = row.agreement(&theirs, &ours, place.precision)?;
            eprintln!("  {agreement}");
            eprintln!("  Python {}; Togi {}", theirs.summary(), ours.summary());
            let runs = &mut all[number];
            runs.theirs.push(theirs);
            runs.ours.push(ours);
            runs.stolen.push([stolen_theirs, stolen_ours]);
            runs.agreement = agreement;
        }
    }
    let lines: Vec<Line> = all.iter().map(|runs| Line::of(runs, &place)).collect();
    if arguments.json {
        println!("{}", serde_json::to_string(&lines)?);
    } else {
        table::print(&lines);
    }
    Ok(())
}

/// Writes what the programs work on.
fn prepare(rows: &[Row], data: &Path, place: &Place) -> Result<()> {
    let mut policy = Source::parse(&place.model)?.load(&device::cpu(), 0)?;
    let tokenizer = &policy.tokenizer;
    if rows.iter().any(|row| row.reads_pairs()) {
        let pairs = pairs::pairs(data, tokenizer, 512, PAIRS * place.steps)?;
        pairs::write_pairs(&pairs, tokenizer, &place.pairs())?;
    }
    if rows.iter().any(|row| row.is_online()) {
        let each = match rows.contains(&Row::Ppo) {
            true => COMPLETIONS,
            false => COMPLETIONS / GROUP,
        };
        let prompts = pairs::prompts(data, tokenizer, PROMPT, each * place.steps)?;
        pairs::write_prompts(&prompts, &place.prompts())?;
    }
    let vocabulary = policy.decoder.config.vocab_size;
    for batch in rows.iter().filter_map(|row| row.sampled()) {
        let ids = random_prompts(batch, PROMPT, vocabulary);
        fs::write(place.sampled(batch), serde_json::to_vec(&ids)?)?;
    }
    if rows.contains(&Row::DpoLora) {
        // The start that `bench dpo --lora` draws.
        policy.decoder.add_lora(offline::lora(RANK), 0)?;
        adapter::save(&policy, &place.model, &place.adapter())?;
    }
    Ok(())
}
