//! The tables, the figures and the page.

use std::{fs, time::Instant};

use anyhow::{Context, Result};
use serde_json::json;
use togi_eval::{
    bootstrap::Interval,
    comparison::{Table, plain},
    figure::{Figure, Marks},
    report::Report,
};
use togi_policy::Precision;

use super::{
    AnnotationArguments, Round, Settings, Track, WAYS,
    needed::{Needed, jackknife, over_seeds},
};

/// Accuracies that labels are counted for, where some way gets there.
const ACCURACIES: [f64; 8] = [0.65, 0.7, 0.75, 0.775, 0.8, 0.825, 0.85, 0.875];

/// Which of a round's accuracies.
type Of = fn(&Round) -> f64;

const MODELS: [(&str, Of); 2] = [
    ("one reward model", |round| round.single),
    ("the ensemble", |round| round.ensemble),
];

/// The tracks of a way, one a seed.
fn of<'a>(tracks: &'a [Track], way: &str) -> Vec<&'a Track> {
    tracks.iter().filter(|track| track.way == way).collect()
}

/// Labels and mean accuracy, with its interval over the seeds.
fn mean_curve(tracks: &[&Track], of: Of) -> Vec<(f64, Interval)> {
    let rounds = tracks.iter().map(|t| t.rounds.len()).min().unwrap_or(0);
    (0..rounds)
        .map(|i| {
            let values: Vec<f64> = tracks.iter().map(|t| of(&t.rounds[i])).collect();
            (tracks[0].rounds[i].labels as f64, over_seeds(&values))
        })
        .collect()
}

fn strings(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

fn with_interval(interval: Interval, show: impl Fn(f64) -> String) -> String {
    let Interval { value, low, high } = interval;
    if high.is_finite() {
        format!("{} [{}, {}]", show(value), show(low), show(high))
    } else {
        show(value)
    }
}

/// The labels that a way needs by its mean curve, one seed left out or none.
fn needed(tracks: &[Track], way: &str, model: Of, accuracy: f64, out: Option<u64>) -> Needed {
    let mut tracks = of(tracks, way);
    tracks.retain(|track| Some(track.seed) != out);
    let curve = mean_curve(&tracks, model);
    let curve: Vec<(f64, f64)> = curve.iter().map(|(x, y)| (*x, y.value)).collect();
    Needed::by(&curve, accuracy)
}

/// How many times a way's labels random needs, and the jackknife's interval over the seeds, of the
/// logarithm. The whole line where the accuracy is not reached without some seed.
fn ratio(tracks: &[Track], way: &str, model: Of, accuracy: f64) -> Option<Interval> {
    let ratio = |out: Option<u64>| {
        let of = |way| needed(tracks, way, model, accuracy, out).about();
        Some((of(WAYS[0].0)? / of(way)?).ln())
    };
    let value = ratio(None)?;
    let seeds = of(tracks, way);
    let without: Option<Vec<f64>> = if seeds.len() > 1 {
        seeds.iter().map(|track| ratio(Some(track.seed))).collect()
    } else {
        None
    };
    let Interval { value, low, high } = jackknife(value, &without.unwrap_or_default());
    Some(Interval {
        value: value.exp(),
        low: low.exp(),
        high: high.exp(),
    })
}

fn needed_table(tracks: &[Track], model: Of) -> Table {
    let mut heading = vec!["accuracy".to_owned()];
    heading.extend(WAYS.iter().map(|(way, _)| (*way).to_owned()));
    heading.extend(WAYS[1..].iter().map(|(way, _)| format!("random / {way}")));
    let mut rows = Vec::new();
    for accuracy in ACCURACIES {
        let each = WAYS.map(|(way, _)| needed(tracks, way, model, accuracy, None));
        if each.iter().all(|n| n.about().is_none()) {
            continue;
        }
        let mut row = vec![format!("{accuracy}")];
        row.extend(each.iter().map(|n| n.text()));
        for (way, _) in &WAYS[1..] {
            row.push(match ratio(tracks, way, model, accuracy) {
                Some(ratio) => with_interval(ratio, |v| format!("{v:.2}")),
                None => "-".to_owned(),
            });
        }
        rows.push(row);
    }
    (heading, rows)
}

fn accuracy_table(tracks: &[Track], model: Of) -> Table {
    let mut heading = vec!["labels".to_owned()];
    heading.extend(WAYS.iter().map(|(way, _)| (*way).to_owned()));
    let curves = WAYS.map(|(way, _)| mean_curve(&of(tracks, way), model));
    let rows = (0..curves[0].len()).map(|i| {
        let mut row = vec![format!("{:.0}", curves[0][i].0)];
        row.extend(
            curves
                .iter()
                .map(|c| with_interval(c[i].1, |v| format!("{v:.3}"))),
        );
        row
    });
    (heading, rows.collect())
}

/// Accuracy over random's with as many labels, the mean of all rounds that a way chose for; paired by seed.
fn gain(tracks: &[Track], way: &str, model: Of) -> Interval {
    let seeds = of(tracks, way).into_iter().zip(of(tracks, "random"));
    let gains: Vec<f64> = seeds
        .map(|(active, random)| {
            let rounds = active.rounds.iter().zip(&random.rounds).skip(1);
            let each: Vec<f64> = rounds.map(|(a, r)| model(a) - model(r)).collect();
            each.iter().sum::<f64>() / each.len().max(1) as f64
        })
        .collect();
    over_seeds(&gains)
}

fn gain_table(tracks: &[Track]) -> Table {
    let mut heading = vec!["chosen by".to_owned()];
    heading.extend(MODELS.iter().map(|(name, _)| (*name).to_owned()));
    let rows = WAYS[1..].iter().map(|(way, _)| {
        let gains = MODELS.iter().map(|(_, model)| gain(tracks, way, *model));
        let mut row = vec![(*way).to_owned()];
        row.extend(gains.map(|gain| with_interval(gain, |v| format!("{v:+.3}"))));
        row
    });
    (heading, rows.collect())
}

/// The means of the rounds that a way chose for.
fn chosen(tracks: &[Track], way: &str) -> [f64; 3] {
    let tracks = of(tracks, way);
    let rounds: Vec<&Round> = tracks.iter().flat_map(|t| &t.rounds[1..]).collect();
    let fields: [Of; 3] = [|r| r.difference, |r| r.ties, |r| r.right];
    fields.map(|of| rounds.iter().map(|r| of(r)).sum::<f64>() / rounds.len().max(1) as f64)
}

fn chosen_table(tracks: &[Track]) -> Table {
    let heading = strings(&["chosen by", "gold difference", "gold ties", "labels right"]);
    let rows = WAYS.map(|(way, _)| {
        let [difference, ties, right] = chosen(tracks, way);
        let numbers = [difference, ties, right].map(|v| format!("{v:.3}"));
        [vec![way.to_owned()], numbers.to_vec()].concat()
    });
    (heading, rows.to_vec())
}

fn figure(tracks: &[Track], name: &str, model: Of) -> Figure {
    let marks = WAYS.iter().enumerate().flat_map(|(color, (way, _))| {
        let curve = mean_curve(&of(tracks, way), model);
        let line = |value: fn(&Interval) -> f64| -> Vec<(f64, f64)> {
            let points = curve.iter().map(|(x, y)| (x.log10(), value(y)));
            points.filter(|(_, y)| y.is_finite()).collect()
        };
        let bound = |points| Marks {
            points,
            line: true,
            bare: true,
            thin: true,
            color,
            ..Marks::default()
        };
        [
            Marks {
                label: (*way).to_owned(),
                points: line(|y| y.value),
                line: true,
                color,
                ..Marks::default()
            },
            bound(line(|y| y.low)),
            bound(line(|y| y.high)),
        ]
    });
    Figure {
        caption: format!("Accuracy of {name} against labels; thin lines: 95% interval over seeds"),
        x: "labels (logarithm to base 10)".to_owned(),
        y: "accuracy against gold".to_owned(),
        marks: marks.filter(|marks| !marks.points.is_empty()).collect(),
    }
}

/// What it comes to, and what speaks for why.
fn verdict(tracks: &[Track]) -> String {
    let mut text = String::new();
    let [_, _, right] = chosen(tracks, "random");
    for (way, _) in &WAYS[1..] {
        let gain = gain(tracks, way, MODELS[0].1);
        let what = if gain.low > 0.0 {
            "is better than random"
        } else if gain.high < 0.0 {
            "is worse than random"
        } else {
            "is not surely better or worse than random"
        };
        let [_, ties, by_way] = chosen(tracks, way);
        text.push_str(&format!(
            "Choosing by {way} {what}: {} of accuracy with as many labels. {:.1}% of the labels that it asks \
             for are right, against {:.1}% at random; {:.1}% of its pairs are true ties. ",
            with_interval(gain, |v| format!("{v:+.3}")),
            by_way * 100.0,
            right * 100.0,
            ties * 100.0
        ));
    }
    text.trim_end().to_owned()
}

pub(super) fn report(
    arguments: &AnnotationArguments,
    settings: &Settings,
    tracks: &[Track],
    started: Instant,
) -> Result<()> {
    let seeds = of(tracks, WAYS[0].0).len();
    let mut tables = Vec::new();
    for (name, model) in MODELS {
        let note = "Labels where the mean curve first reaches the accuracy, and how many times as many random \
                    needs, with the jackknife's 95% interval over the seeds; over 1, choosing saves labels.";
        let table = needed_table(tracks, model);
        tables.push((format!("Labels needed, {name}"), table, note.to_owned()));
    }
    for (name, model) in MODELS {
        let note = "Accuracy against gold on held-out pairs without ties: mean over the seeds, and its 95% \
                    interval by Student's t.";
        let table = accuracy_table(tracks, model);
        tables.push((format!("Accuracy of {name}"), table, note.to_owned()));
    }
    let note = "Accuracy less random's with as many labels: mean of the rounds, paired by seed, with 95% interval.";
    tables.push((
        "Against random".to_owned(),
        gain_table(tracks),
        note.to_owned(),
    ));
    let note = "What was labelled after the first set: mean true difference between the answers, share of true \
                ties, and share of the labels that are right where there is no tie.";
    tables.push((
        "What was chosen".to_owned(),
        chosen_table(tracks),
        note.to_owned(),
    ));
    for (heading, table, _) in &tables {
        println!("{heading}\n{}", plain(table));
    }
    let verdict = verdict(tracks);
    println!("{verdict}");
    let seconds: f64 = tracks.iter().map(|track| track.seconds).sum();
    let page = Report {
        title: "bench annotation".to_owned(),
        summary: format!("{verdict} {seeds} seeds."),
        tables,
        figures: MODELS
            .iter()
            .map(|(name, model)| figure(tracks, name, *model))
            .collect(),
        config: format!("{settings:#?}"),
        environment: vec![
            ("Togi".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("Device".to_owned(), arguments.device.clone()),
            ("Precision".to_owned(), Precision::of_program().to_string()),
            ("Seconds of all rounds".to_owned(), format!("{seconds:.0}")),
        ],
        ..Report::default()
    };
    let path = arguments.out.join("report.html");
    fs::write(&path, page.html()?).with_context(|| path.display().to_string())?;
    let lines: Vec<String> = tracks.iter().flat_map(lines).collect();
    let results = arguments.out.join("results.jsonl");
    fs::write(&results, lines.concat()).with_context(|| results.display().to_string())?;
    println!(
        "Page: {}\nTime: {:.0} s",
        path.display(),
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// The lines of `results.jsonl`, one a round.
fn lines(track: &Track) -> Vec<String> {
    let rounds = track.rounds.iter();
    rounds
        .map(|round| {
            let line = json!({
                "chosen_by": track.way, "seed": track.seed, "labels": round.labels,
                "accuracy": round.single, "ensemble_accuracy": round.ensemble,
                "gold_difference": round.difference, "gold_ties": round.ties,
                "labels_right": round.right,
            });
            format!("{line}\n")
        })
        .collect()
}
