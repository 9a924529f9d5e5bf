//! `cargo xtask feedback select`: the items of files that are most worth a person's time, by what reward
//! models say of their answers.

use std::{collections::HashMap, path::PathBuf};

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};
use togi_data::{
    BadRows, HhAs, Located, LossOn, OverLong, Record, Sample, TokenizeOptions, Tokenizer, formats,
    tokenize,
};
use togi_feedback::{Item, items};
use togi_policy::Policy;
use togi_reward::{Reward, RewardModel, Scorable};
use togi_train::selection::{Criterion, Doubt, chance, choose, standardised};

use crate::{InputError, device, feedback::say_skipped, score::Hh, scorer::reward_model};

#[derive(Args)]
pub(crate) struct SelectArguments {
    /// What `annotate` reads: prompt + chosen + rejected, prompt + completions, or rows of
    /// prompt + completion with equal prompts.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    /// The folder or run folder of a reward model; `disagreement` needs two or more.
    #[arg(long, value_name = "SRC")]
    reward: Vec<String>,
    /// Items to select.
    #[arg(long, value_name = "N")]
    count: usize,
    /// The file that is written; it must not exist.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// What makes an item worth it.
    #[arg(long, value_enum, default_value = "disagreement")]
    by: By,
    /// Keys what chance selects.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Longest sample, in tokens, where a model takes as many; longer ones are cut.
    #[arg(long, default_value_t = 512)]
    max_length: usize,
    /// Answers that are scored at a time.
    #[arg(long, default_value_t = 8)]
    batch_size: usize,
    /// Leave out rows that cannot be judged, and count them.
    #[arg(long)]
    skip_bad_rows: bool,
    /// How HH dialogues are shown to the reward models.
    #[arg(long, value_enum, default_value = "text")]
    hh: Hh,
    /// `cpu`, `wgpu`, or `cuda` with `:n` for a further GPU.
    #[arg(long, default_value = "cpu")]
    device: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum By {
    /// The reward models differ about the better answer.
    Disagreement,
    /// Their mean probability is nearest to a half.
    Uncertainty,
    /// Chance.
    Random,
}

impl From<By> for Criterion {
    fn from(by: By) -> Self {
        match by {
            By::Disagreement => Self::Disagreement,
            By::Uncertainty => Self::Uncertainty,
            By::Random => Self::Random,
        }
    }
}

/// Reasons that are listed one by one.
const SHOWN: usize = 5;

pub(crate) fn run(arguments: &SelectArguments) -> Result<()> {
    check(arguments)?;
    let bad_rows = if arguments.skip_bad_rows {
        BadRows::Skip
    } else {
        BadRows::Error
    };
    let loaded = items::load(&arguments.data, bad_rows)?;
    say_skipped(&loaded.skipped);
    if loaded.repeated > 0 {
        println!("Rows that repeat an earlier one: {}", loaded.repeated);
    }
    let all = loaded.items;
    let mut models = Vec::with_capacity(arguments.reward.len());
    let device = device::parse(&arguments.device)?;
    for spec in &arguments.reward {
        let model = reward_model(spec, &device, 0)?;
        models.push(scored(&all, model, arguments));
    }
    let (usable, unscorable) = usable(&all, &models);
    if !unscorable.is_empty() {
        println!("Items that cannot be scored: {}", unscorable.len());
        for reason in unscorable.iter().take(SHOWN) {
            println!("  {reason}");
        }
        if unscorable.len() > SHOWN {
            println!("  and {} more", unscorable.len() - SHOWN);
        }
    }
    if usable.is_empty() {
        let first = unscorable.first().map_or("", String::as_str);
        let text = format!("--data: no item can be scored; the first: {first}");
        return Err(InputError(text).into());
    }
    let criterion = Criterion::from(arguments.by);
    let doubts = doubts(&usable, &models, criterion);
    let worth: Vec<f64> = usable
        .iter()
        .enumerate()
        .map(|(i, item)| match &doubts {
            Some(doubts) => doubts[i].1.worth(criterion, arguments.seed, *item),
            None => chance(arguments.seed, *item),
        })
        .collect();
    let prompts: Vec<String> = usable
        .iter()
        .map(|item| serde_json::to_string(&all[*item].prompt))
        .collect::<Result<_, _>>()?;
    let chosen = choose(&worth, &prompts, arguments.count);
    if chosen.len() < arguments.count {
        println!(
            "--count {}: there are {} items; all are written",
            arguments.count,
            chosen.len()
        );
    }
    let mut rows = rows(&arguments.data)?;
    let mut written = Vec::with_capacity(chosen.len());
    for i in &chosen {
        let item = &all[usable[*i]];
        let selection = doubts.as_ref().map(|doubts| {
            let (answers, doubt) = doubts[*i];
            selection(item, answers, doubt, models.len())
        });
        for place in &item.places {
            let mut row = rows.remove(place).unwrap_or_default();
            if let Some(selection) = &selection {
                row.insert("selection".to_owned(), selection.clone());
            }
            written.push(Value::Object(row));
        }
    }
    togi_feedback::export::write(&arguments.out, &written)?;
    println!(
        "Wrote {} ({} of {} items over {} prompts)",
        arguments.out.display(),
        chosen.len(),
        all.len(),
        chosen
            .iter()
            .map(|i| &prompts[*i])
            .collect::<std::collections::HashSet<_>>()
            .len()
    );
    Ok(())
}

fn check(arguments: &SelectArguments) -> Result<()> {
    let wrong = |text: String| -> Result<()> { Err(InputError(text).into()) };
    if arguments.count == 0 {
        return wrong("--count 0: must be at least 1".to_owned());
    }
    if arguments.out.exists() {
        let out = arguments.out.display();
        return wrong(format!("--out {out}: is there already; name another file"));
    }
    for (i, spec) in arguments.reward.iter().enumerate() {
        if spec == "lab" {
            let text = "--reward lab: is the truth, and what is known needs no annotation; name \
                        reward models";
            return wrong(text.to_owned());
        }
        if arguments.reward[..i].contains(spec) {
            let text =
                format!("--reward {spec}: is there twice; a model does not differ from itself");
            return wrong(text);
        }
    }
    match (arguments.by, arguments.reward.len()) {
        (By::Disagreement, 0 | 1) => wrong(
            "--by disagreement: needs two reward models or more; give another --reward (the same \
             recipe with another --seed), or --by uncertainty with one"
                .to_owned(),
        ),
        (By::Uncertainty, 0) => {
            wrong("--by uncertainty: needs a reward model; give --reward".to_owned())
        }
        _ => Ok(()),
    }
}

/// What one model says of each item: a score an answer, or why there is none.
type Scores = Vec<Result<Vec<f64>, String>>;

fn scored(all: &[Item], model: Policy, arguments: &SelectArguments) -> Scores {
    let options = TokenizeOptions {
        max_length: arguments
            .max_length
            .min(model.decoder.config.max_position_embeddings),
        over_long: OverLong::Truncate,
        loss_on: LossOn::Completion,
        hh: HhAs::from(arguments.hh),
    };
    let tokenizer = &model.tokenizer;
    let samples: Vec<Result<Vec<Sample>, String>> = all
        .iter()
        .map(|item| samples(item, tokenizer, &options))
        .collect();
    let reward = RewardModel::new(
        model.decoder,
        model.tokenizer.answer_frame(),
        arguments.batch_size,
    );
    let flat: Vec<Scorable<'_>> = samples
        .iter()
        .flatten()
        .flatten()
        .map(|sample| Scorable {
            prompt: "",
            prompt_ids: &[],
            completion: "",
            completion_ids: &sample.ids,
        })
        .collect();
    let mut scores = reward.score(&flat).into_iter();
    samples
        .iter()
        .map(|samples| {
            let samples = samples.as_ref().map_err(Clone::clone)?;
            // Every answer's result is taken, also after one that is an error.
            let each: Vec<_> = scores.by_ref().take(samples.len()).collect();
            let values = each.into_iter().map(|score| score.map(|s| s.value));
            values.collect::<Result<_, _>>().map_err(|e| e.to_string())
        })
        .collect()
}

/// The item's answers, each after the prompt.
fn samples(
    item: &Item,
    tokenizer: &Tokenizer,
    options: &TokenizeOptions,
) -> Result<Vec<Sample>, String> {
    let row = Located {
        record: Record::Ranking {
            prompt: item.prompt.clone(),
            answers: item.answers.clone(),
            ranks: vec![1; item.answers.len()],
        },
        place: item.place.clone(),
    };
    let ranked = tokenize::ranking(&row, tokenizer, options);
    let cut = || {
        let most = options.max_length;
        let place = &item.place;
        format!("{place}: nothing of what makes the answers differ is left of {most} tokens")
    };
    let samples = ranked.map_err(|e| e.to_string())?.ok_or_else(cut)?.answers;
    let same = |i: usize| {
        samples[i + 1..]
            .iter()
            .any(|other| other.ids == samples[i].ids)
    };
    if (0..samples.len()).any(same) {
        return Err(cut());
    }
    Ok(samples)
}

/// The items that every model scores, and why the others are not.
fn usable(all: &[Item], models: &[Scores]) -> (Vec<usize>, Vec<String>) {
    let (mut usable, mut unscorable) = (Vec::new(), Vec::new());
    for (i, item) in all.iter().enumerate() {
        let reason = models.iter().find_map(|model| model[i].as_ref().err());
        match reason {
            None => usable.push(i),
            Some(reason) if reason.starts_with(&item.place) => unscorable.push(reason.clone()),
            Some(reason) => unscorable.push(format!("{}: {reason}", item.place)),
        }
    }
    (usable, unscorable)
}

/// For each usable item the two answers that are most worth comparing, and the doubt about them; none
/// without models.
fn doubts(
    usable: &[usize],
    models: &[Scores],
    criterion: Criterion,
) -> Option<Vec<([usize; 2], Doubt)>> {
    if models.is_empty() {
        return None;
    }
    // Chance selects among items; which of an item's answers are told of is the models' matter.
    let criterion = match criterion {
        Criterion::Random if models.len() > 1 => Criterion::Disagreement,
        Criterion::Random => Criterion::Uncertainty,
        other => other,
    };
    let raw: Vec<Vec<&[f64]>> = models
        .iter()
        .map(|model| {
            let scores = usable.iter().filter_map(|i| model[*i].as_ref().ok());
            scores.map(Vec::as_slice).collect()
        })
        .collect();
    let scaled: Vec<Vec<f64>> = raw.iter().map(|all| standardised(&all.concat())).collect();
    let mut start = 0;
    let mut doubts = Vec::with_capacity(usable.len());
    for i in 0..usable.len() {
        let count = raw[0][i].len();
        let of = |a: usize, b: usize| {
            let scaled: Vec<_> = scaled
                .iter()
                .map(|all| [all[start + a], all[start + b]])
                .collect();
            let raw: Vec<_> = raw.iter().map(|all| [all[i][a], all[i][b]]).collect();
            ([a, b], Doubt::of(&scaled, &raw))
        };
        let pairs = (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b)));
        let worth = |doubt: &Doubt| doubt.worth(criterion, 0, 0);
        let most = pairs.map(|(a, b)| of(a, b)).reduce(|most, next| {
            if worth(&next.1) > worth(&most.1) {
                next
            } else {
                most
            }
        });
        doubts.extend(most);
        start += count;
    }
    Some(doubts)
}

/// The column `selection`.
fn selection(item: &Item, answers: [usize; 2], doubt: Doubt, models: usize) -> Value {
    let mut selection = json!({"probability": doubt.probability});
    if models > 1 {
        selection["disagreement"] = json!(doubt.disagreement);
    }
    if item.answers.len() > 2 {
        selection["answers"] = json!(answers);
    }
    selection
}

/// The rows of files by place.
fn rows(files: &[PathBuf]) -> Result<HashMap<String, Map<String, Value>>> {
    let mut rows = HashMap::new();
    for file in files {
        rows.extend(formats::rows(file)?);
    }
    Ok(rows)
}
