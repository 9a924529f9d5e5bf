//! Rows from files or from the lab, as samples, split into training and held-out parts.

use std::path::Path;

use togi_data::{
    BadRows, DataError, LoadOptions, Located, TokenizeOptions, Tokenizer,
    batch::Order,
    lab::{self, AnnotatorConfig, Annotators, Split, Writer},
};

use crate::{config::DataSection, error::TrainError};

/// Where rows come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataSource {
    /// The lab makes what the recipe needs.
    Lab,
    /// Files to train on, and files that are held out.
    Files {
        /// Training files, read one after the other.
        train: Vec<String>,
        /// Held-out files; empty: a share of the training rows.
        valid: Vec<String>,
    },
}

/// What a recipe wants of the lab.
#[derive(Clone, Copy, Debug)]
pub enum LabRows {
    /// Answers by a writer.
    Answers(Writer),
    /// Pairs of the demonstrator's answers, ordered by annotators.
    Preferences(AnnotatorConfig),
    /// Four of the demonstrator's answers each, ranked by annotators; answers that are as good as this
    /// share a rank.
    Rankings(AnnotatorConfig, f64),
    /// The demonstrator's answers, rated by annotators.
    Ratings(AnnotatorConfig),
    /// What the lab does not have: for people.
    Missing(&'static str),
    /// Prompts.
    Prompts,
}

/// Samples for training and held-out ones.
#[derive(Clone, Debug)]
pub struct Samples<T> {
    /// To train on.
    pub train: Vec<T>,
    /// Held out.
    pub valid: Vec<T>,
    /// What was read, for people: layout, rows, dropped rows.
    pub summary: String,
}

/// Rows for training and held-out ones, before tokenisation.
#[derive(Clone, Debug)]
pub struct Rows {
    /// To train on.
    pub train: Vec<Located>,
    /// Held out.
    pub valid: Vec<Located>,
    /// The columns that were found, or `lab`.
    pub layout: String,
    /// Rows that were left out because they cannot be used, with place and reason.
    pub skipped: Vec<String>,
}

/// What can be said of a source before anything is read or trained.
///
/// # Errors
/// Names a field that was set and that this source does not read, and what the lab does not have.
pub fn check(
    source: &DataSource,
    wanted: &LabRows,
    section: &DataSection,
) -> Result<(), TrainError> {
    all_is_read(source, wanted, section)?;
    if let (DataSource::Lab, LabRows::Missing(what)) = (source, wanted) {
        let reason = format!("the lab has no {what}; give --data FILE");
        return Err(TrainError::config("data", reason));
    }
    Ok(())
}

fn all_is_read(
    source: &DataSource,
    wanted: &LabRows,
    section: &DataSection,
) -> Result<(), TrainError> {
    let defaults = DataSection::default();
    let unread = match (source, wanted) {
        (DataSource::Lab, _) if section.hh != defaults.hh => "data.hh",
        (DataSource::Lab, _) if section.bad_rows != defaults.bad_rows => "data.bad_rows",
        (DataSource::Files { .. }, _) if section.lab_rows != defaults.lab_rows => "data.lab_rows",
        (
            DataSource::Files { .. },
            LabRows::Preferences(annotators)
            | LabRows::Rankings(annotators, _)
            | LabRows::Ratings(annotators),
        ) if *annotators != AnnotatorConfig::default() => "annotators",
        (DataSource::Files { valid, .. }, _)
            if !valid.is_empty() && section.valid_fraction != defaults.valid_fraction =>
        {
            let reason = "is not read: held-out rows come from --valid";
            return Err(TrainError::config("data.valid_fraction", reason));
        }
        _ => return Ok(()),
    };
    let reason = match source {
        DataSource::Lab => "is not read: it is for --data FILE, and the data is the lab's",
        DataSource::Files { .. } => "is not read: it is for the lab's data, not for files",
    };
    Err(TrainError::config(unread, reason))
}

/// Reads or makes the rows of a recipe.
///
/// # Errors
/// Names file, line and field, or a setting that the source does not read.
pub fn rows(
    source: &DataSource,
    wanted: LabRows,
    section: &DataSection,
    seed: u64,
) -> Result<Rows, TrainError> {
    check(source, &wanted, section)?;
    let DataSource::Files { train, valid } = source else {
        let held_out = ((section.lab_rows as f64 * section.valid_fraction) as usize).max(64);
        return Ok(Rows {
            train: lab_rows(wanted, seed, Split::Train, section.lab_rows),
            valid: lab_rows(wanted, seed, Split::Valid, held_out),
            layout: "lab".to_owned(),
            skipped: Vec::new(),
        });
    };
    let load = LoadOptions {
        bad_rows: section.bad_rows,
        ..LoadOptions::default()
    };
    let (mut layouts, mut skipped) = (Vec::new(), Vec::new());
    let mut read = |files: &[String]| -> Result<Vec<Located>, TrainError> {
        let mut rows = Vec::new();
        for file in files {
            let dataset = togi_data::load_with(Path::new(file), &load).map_err(advised)?;
            let layout = dataset.layout.columns().to_owned();
            if !layouts.contains(&layout) {
                layouts.push(layout);
            }
            let why = dataset.skipped.iter();
            skipped.extend(why.map(|row| format!("{}: {}", row.place, row.reason)));
            rows.extend(dataset.records);
        }
        Ok(rows)
    };
    let mut rows = read(train)?;
    let mut held_out = read(valid)?;
    if valid.is_empty() {
        // Which rows are held out is a matter of the seed, not of their order.
        let count = (rows.len() as f64 * section.valid_fraction) as usize;
        let mut chosen = Order::new(seed ^ 0x7661_6c69, rows.len()).batch(0, count);
        chosen.sort_unstable();
        let mut kept = Vec::with_capacity(rows.len() - count);
        let mut next = chosen.into_iter().peekable();
        for (index, row) in rows.into_iter().enumerate() {
            match next.next_if_eq(&index) {
                Some(_) => held_out.push(row),
                None => kept.push(row),
            }
        }
        // The last first, as runs that are resumed have them.
        held_out.reverse();
        rows = kept;
    }
    Ok(Rows {
        train: rows,
        valid: held_out,
        layout: layouts.join("; "),
        skipped,
    })
}

/// Reads or makes the rows of a recipe and turns them into samples.
///
/// # Errors
/// Names file, line and field; an empty result is an error.
pub fn samples<T>(
    source: &DataSource,
    wanted: LabRows,
    section: &DataSection,
    seed: u64,
    tokenizer: &Tokenizer,
    options: &TokenizeOptions,
    tokenize: impl Fn(&Located, &Tokenizer, &TokenizeOptions) -> Result<Option<T>, DataError>,
) -> Result<Samples<T>, TrainError> {
    let Rows {
        train,
        valid,
        layout,
        mut skipped,
    } = rows(source, wanted, section, seed)?;
    let mut too_long = 0;
    let mut convert = |rows: Vec<Located>| -> Result<Vec<T>, TrainError> {
        let mut all = Vec::with_capacity(rows.len());
        for row in &rows {
            match tokenize(row, tokenizer, options) {
                Ok(Some(sample)) => all.push(sample),
                Ok(None) => too_long += 1,
                Err(DataError::Row { place, reason }) if section.bad_rows == BadRows::Skip => {
                    skipped.push(format!("{place}: {reason}"));
                }
                Err(error) => return Err(advised(error)),
            }
        }
        Ok(all)
    };
    let (train, valid) = (convert(train)?, convert(valid)?);
    let mut summary = format!(
        "{layout}: {} training samples, {} held out, {too_long} too long and left out",
        train.len(),
        valid.len()
    );
    if !skipped.is_empty() {
        summary.push_str(&format!(", {} bad rows skipped:", skipped.len()));
        for row in skipped.iter().take(SHOWN) {
            summary.push_str(&format!("\n  {row}"));
        }
        if skipped.len() > SHOWN {
            summary.push_str(&format!("\n  and {} more", skipped.len() - SHOWN));
        }
    }
    if train.is_empty() {
        let reason = format!("no sample to train on: {summary}; raise data.max_length?");
        return Err(TrainError::config("data", reason));
    }
    Ok(Samples {
        train,
        valid,
        summary,
    })
}

/// Answers in a ranking of the lab.
const LAB_RANKED: usize = 4;

/// Skipped rows that are listed one by one.
const SHOWN: usize = 5;

/// The error, with what to do about a row that cannot be used.
fn advised(error: DataError) -> TrainError {
    match error {
        DataError::Row { place, reason } => DataError::Row {
            place,
            reason: format!(
                "{reason} (mend the row, or leave such rows out with --set data.bad_rows=skip)"
            ),
        }
        .into(),
        other => other.into(),
    }
}

fn lab_rows(wanted: LabRows, seed: u64, split: Split, count: usize) -> Vec<Located> {
    match wanted {
        LabRows::Answers(writer) => lab::answers(seed, split, count, &writer),
        LabRows::Preferences(config) => {
            let annotators = Annotators::new(seed, config);
            lab::preferences(seed, split, count, &Writer::demonstrator(), &annotators)
        }
        LabRows::Rankings(config, tie) => {
            let annotators = Annotators::new(seed, config);
            let writer = Writer::demonstrator();
            lab::rankings(seed, split, count, &writer, &annotators, LAB_RANKED, tie)
        }
        LabRows::Ratings(config) => {
            let annotators = Annotators::new(seed, config);
            lab::ratings(seed, split, count, &Writer::demonstrator(), &annotators)
        }
        LabRows::Prompts => lab::prompt_records(seed, split, count),
        LabRows::Missing(_) => Vec::new(),
    }
}
