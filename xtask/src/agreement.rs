//! `cargo xtask feedback agreement`: how far annotators agree, and what each of them likes for its own
//! sake.

use std::{collections::HashMap, path::PathBuf};

use anyhow::Result;
use clap::Args;
use togi_eval::{
    EvalError, Interval,
    agreement::{Level, Rating, Ratings},
    annotator::{self, Answer, Share},
    comparison::plain,
};
use togi_feedback::{Annotation, Choice, choices, log};

use crate::InputError;

#[derive(Args)]
pub(crate) struct AgreementArguments {
    /// Logs of annotations.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    log: Vec<PathBuf>,
    /// Items worth another look that are listed.
    #[arg(long, value_name = "N", default_value_t = 10)]
    disputed: usize,
    /// Of the bootstrap.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Gives names consecutive numbers.
#[derive(Default)]
struct Numbers<'a> {
    names: Vec<&'a str>,
    by_name: HashMap<&'a str, usize>,
}

impl<'a> Numbers<'a> {
    fn of(&mut self, name: &'a str) -> usize {
        *self.by_name.entry(name).or_insert_with(|| {
            self.names.push(name);
            self.names.len() - 1
        })
    }
}

pub(crate) fn run(arguments: &AgreementArguments) -> Result<()> {
    let (annotations, torn) = log::read_saying(&arguments.log)?;
    for torn in torn {
        println!("{torn}");
    }
    let all = choices(&annotations);
    if all.is_empty() {
        let text =
            "--log: nobody has judged anything yet; `cargo xtask feedback annotate` does that";
        return Err(InputError(text.to_owned()).into());
    }
    let (mut items, mut people) = (Numbers::default(), Numbers::default());
    let numbered: Vec<(usize, usize, &Choice)> = all
        .iter()
        .map(|c| (items.of(&c.item), people.of(&c.annotator), c))
        .collect();
    let ties = all.iter().filter(|c| c.answer.is_none()).count();
    let repeated = all.iter().filter(|c| c.pass > 0).count();
    println!(
        "{} judgements of {} items by {} annotators: {ties} ties, {repeated} repetitions",
        all.len(),
        items.names.len(),
        people.names.len()
    );
    let which = Ratings::new(&ratings(&numbered, |c| {
        // A tie is an answer of its own.
        Some(c.answer.map_or(-1.0, |answer| answer as f64))
    }))?;
    agreement(&which, "choice", Level::Nominal, arguments.seed);
    let strengths = ratings(&numbered, signed_strength);
    if !strengths.is_empty() {
        let strengths = Ratings::new(&strengths)?;
        let name = "Krippendorff's alpha of strengths (ordinal, pairs)";
        show(name, alpha(&strengths, Level::Ordinal, arguments.seed));
    }
    let own = which
        .self_consistency()
        .map(|own| format!("{:.3} of {} repeated judgements", own.share, own.repeated));
    show("self-consistency", own);

    let pairs: Vec<annotator::Choice> = numbered
        .iter()
        .filter_map(|(i, p, c)| pair(*i, *p, c))
        .collect();
    if pairs.is_empty() {
        println!("no pairs: biases are measured where two answers are compared");
        return Ok(());
    }
    people_table(&pairs, &people)?;
    disputed(&pairs, &items, &annotations, arguments.disputed);
    Ok(())
}

fn ratings(
    numbered: &[(usize, usize, &Choice)],
    value: impl Fn(&Choice) -> Option<f64>,
) -> Vec<Rating> {
    numbered
        .iter()
        .filter_map(|(item, annotator, choice)| {
            Some(Rating {
                item: *item,
                annotator: *annotator,
                value: value(choice)?,
            })
        })
        .collect()
}

/// Of a pair: from -3 (the second is much better) to 3 (the first is), 0 for a tie.
fn signed_strength(choice: &Choice) -> Option<f64> {
    if choice.lengths.len() != 2 {
        return None;
    }
    let strength = choice.strength.map_or(0.0, |s| f64::from(u8::from(s)));
    Some(match choice.answer {
        None => 0.0,
        Some(0) => strength,
        Some(_) => -strength,
    })
}

fn pair(item: usize, annotator: usize, choice: &Choice) -> Option<annotator::Choice> {
    let [first, second] = choice.lengths[..] else {
        return None;
    };
    let side = |answer: usize| if answer == 0 { Answer::A } else { Answer::B };
    let other = |answer: Answer| match answer {
        Answer::A => Answer::B,
        Answer::B => Answer::A,
    };
    let chosen = choice.answer.map(side);
    // Where the chosen answer stood tells which one was shown first; of a tie that is not known, and does
    // not matter.
    let shown_first = match (chosen, choice.position) {
        (Some(chosen), Some(0)) => chosen,
        (Some(chosen), _) => other(chosen),
        (None, _) => Answer::A,
    };
    let longer = match first.cmp(&second) {
        std::cmp::Ordering::Greater => Some(Answer::A),
        std::cmp::Ordering::Less => Some(Answer::B),
        std::cmp::Ordering::Equal => None,
    };
    Some(annotator::Choice {
        item,
        annotator,
        chosen,
        shown_first,
        longer,
    })
}

fn agreement(ratings: &Ratings, what: &str, level: Level, seed: u64) {
    let raw = ratings.raw_agreement().map(|share| format!("{share:.3}"));
    show("raw agreement", raw);
    let cohen = ratings.pairwise_kappa().map(|kappa| {
        format!(
            "{:.3}, mean of {} pairs of annotators",
            kappa.value, kappa.pairs
        )
    });
    show("Cohen's kappa", cohen);
    let fleiss = ratings.fleiss_kappa().map(|kappa| {
        format!(
            "{:.3} over {} items with {} judgements each ({} left out)",
            kappa.value, kappa.items, kappa.raters, kappa.left_out
        )
    });
    show("Fleiss' kappa", fleiss);
    show(
        &format!("Krippendorff's alpha of the {what} (nominal)"),
        alpha(ratings, level, seed),
    );
}

fn alpha(ratings: &Ratings, level: Level, seed: u64) -> Result<String, EvalError> {
    let Interval { value, low, high } = ratings.alpha_interval(level, seed)?.interval;
    Ok(format!("{value:.3} (95% interval {low:.3} to {high:.3})"))
}

/// A measure, or why there is none.
fn show(name: &str, value: Result<String, EvalError>) {
    match value {
        Ok(value) => println!("{name}: {value}"),
        Err(reason) => println!("{name}: not defined ({reason})"),
    }
}

fn people_table(pairs: &[annotator::Choice], people: &Numbers<'_>) -> Result<()> {
    let share = |share: &Option<Share>| match share {
        Some(Share { interval, count }) => format!(
            "{:.2} [{:.2}, {:.2}] of {count}",
            interval.value, interval.low, interval.high
        ),
        None => "-".to_owned(),
    };
    let heading = [
        "",
        "pairs",
        "takes the first shown",
        "takes the longer",
        "agrees with the others",
    ];
    let rows = annotator::biases(pairs)?
        .iter()
        .map(|bias| {
            vec![
                people.names[bias.annotator].to_owned(),
                bias.count.to_string(),
                share(&bias.chose_first),
                share(&bias.chose_longer),
                share(&bias.agrees),
            ]
        })
        .collect();
    let heading = heading.map(str::to_owned).to_vec();
    println!("\n{}", plain(&(heading, rows)));
    Ok(())
}

fn disputed(
    pairs: &[annotator::Choice],
    items: &Numbers<'_>,
    annotations: &[Annotation],
    count: usize,
) {
    let disputed = annotator::worth_another_look(pairs);
    if disputed.is_empty() || count == 0 {
        return;
    }
    println!(
        "Worth another look ({} items are disputed):",
        disputed.len()
    );
    for item in disputed.iter().take(count) {
        let id = items.names[item.item];
        let found = annotations.iter().find(|a| a.item == id);
        let text = found.map_or(String::new(), |a| a.prompt.text());
        let start: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let start: String = start.chars().take(60).collect();
        let [first, second, tie] = item.votes;
        let place = found.map_or("", |a| &*a.place);
        println!("  {first} : {second}, {tie} ties  {place}  {start}");
    }
}
