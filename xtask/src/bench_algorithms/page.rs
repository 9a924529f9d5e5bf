//! The table, the figures and the page.

use std::{fs, time::Instant};

use anyhow::{Context, Result};
use serde_json::Value;
use togi_eval::{
    comparison::{Table, plain},
    figure::{Figure, Marks},
    over_optimisation::{Fit, Form},
    report::Report,
};
use togi_policy::Precision;

use super::{
    AlgorithmsArguments,
    contestants::{CONTESTANTS, OVER_OPTIMISED, SWEEPS},
    cores,
    outcome::{BestOf, GOLD, KL, Outcome},
};

/// The mean of what a function says of some outcomes.
fn over(outcomes: &[&Outcome], value: impl Fn(&Outcome) -> f64) -> f64 {
    outcomes.iter().map(|o| value(o)).sum::<f64>() / outcomes.len() as f64
}

/// The outcomes of each name, in the order of their gain.
fn ranked(outcomes: &[Outcome]) -> Vec<Vec<&Outcome>> {
    let mut groups: Vec<Vec<&Outcome>> = Vec::new();
    for outcome in outcomes {
        match groups.iter_mut().find(|g| g[0].name == outcome.name) {
            Some(group) => group.push(outcome),
            None => groups.push(vec![outcome]),
        }
    }
    groups.sort_by(|a, b| over(b, Outcome::gain).total_cmp(&over(a, Outcome::gain)));
    groups
}

fn is_default(name: &str) -> bool {
    CONTESTANTS.iter().any(|c| c.name == name)
}

fn main_table(groups: &[Vec<&Outcome>]) -> Result<Table> {
    let heading = [
        "algorithm",
        "gold - SFT",
        "each seed",
        "KL",
        "proxy",
        "length",
        "EAD",
        "refusals",
        "seconds",
    ];
    let mut rows = Vec::new();
    let defaults = groups.iter().filter(|g| is_default(&g[0].name));
    for (number, group) in defaults.enumerate() {
        let mut each = Vec::new();
        for outcome in group {
            let gain = outcome
                .comparison
                .difference(GOLD, outcome.recipe, "start")?;
            // A gain whose interval holds 0 is none.
            let sign = if gain.low > 0.0 {
                ""
            } else if gain.high < 0.0 {
                " (worse)"
            } else {
                " (?)"
            };
            each.push(format!("{:+.3}{sign}", gain.value));
        }
        let mean = |metric: &str| over(group, |o| o.tuned(metric));
        rows.push(vec![
            format!("{:>2}  {}", number + 1, group[0].name),
            format!("{:+.3}", over(group, Outcome::gain)),
            each.join(" "),
            format!("{:.2}", mean(KL)),
            format!("{:.2}", mean("proxy reward")),
            format!("{:.1}", mean("length (tokens)")),
            format!("{:.3}", mean("EAD")),
            format!("{:.3}", mean("refusals")),
            format!("{:.0}", over(group, |o| o.seconds)),
        ]);
    }
    Ok((heading.map(str::to_owned).to_vec(), rows))
}

fn best_table(bests: &[BestOf]) -> Table {
    let heading = ["n", "KL by formula", "KL measured", "proxy", "gold - SFT"];
    let count = bests.len() as f64;
    let rows = (0..bests[0].rows.len()).map(|i| {
        let mean = |of: &dyn Fn(&BestOf) -> f64| bests.iter().map(of).sum::<f64>() / count;
        vec![
            bests[0].rows[i].n.to_string(),
            format!("{:.3}", bests[0].rows[i].kl),
            format!("{:.3}", mean(&|b| b.rows[i].measured_kl)),
            format!("{:.3}", mean(&|b| b.rows[i].proxy)),
            format!("{:+.3}", mean(&|b| b.rows[i].gold - b.gold)),
        ]
    });
    (heading.map(str::to_owned).to_vec(), rows.collect())
}

/// `(√KL, gold gain)` of a sweep with the default among it, in the order of KL.
fn line(groups: &[Vec<&Outcome>], recipe: &str) -> Vec<(f64, f64)> {
    let of_recipe = |name: &str| {
        name == recipe
            || name
                .strip_prefix(recipe)
                .is_some_and(|rest| rest.starts_with(' ') && rest.contains('='))
    };
    let mut points: Vec<(f64, f64)> = groups
        .iter()
        .filter(|g| of_recipe(&g[0].name))
        .map(|g| {
            (
                over(g, |o| o.tuned(KL)).max(0.0).sqrt(),
                over(g, Outcome::gain),
            )
        })
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

fn frontier(groups: &[Vec<&Outcome>], bests: &[BestOf]) -> Figure {
    let defaults: Vec<_> = groups.iter().filter(|g| is_default(&g[0].name)).collect();
    let mut marks = vec![Marks {
        label: "defaults (number: row of the table)".to_owned(),
        points: defaults
            .iter()
            .map(|g| {
                (
                    over(g, |o| o.tuned(KL)).max(0.0).sqrt(),
                    over(g, Outcome::gain),
                )
            })
            .collect(),
        names: (1..=defaults.len()).map(|n| n.to_string()).collect(),
        color: 5,
        ..Marks::default()
    }];
    for (color, sweep) in SWEEPS.iter().enumerate() {
        let points = line(groups, sweep.recipe);
        if points.len() > 1 {
            marks.push(Marks {
                label: format!("{}, {}", sweep.recipe, sweep.key),
                points,
                line: true,
                color,
                ..Marks::default()
            });
        }
    }
    let count = bests.len() as f64;
    let steps = bests.first().map_or(0, |best| best.rows.len());
    marks.push(Marks {
        label: "best of n".to_owned(),
        points: (0..steps)
            .map(|i| {
                let gain = bests.iter().map(|b| b.rows[i].gold - b.gold).sum::<f64>();
                (bests[0].rows[i].kl.sqrt(), gain / count)
            })
            .collect(),
        line: true,
        color: 5,
        ..Marks::default()
    });
    Figure {
        caption: "Frontier: what each algorithm won, and how far it went from the SFT model".into(),
        x: "√KL to SFT (KL in nats a completion)".to_owned(),
        y: "gold reward over SFT".to_owned(),
        marks,
    }
}

fn diversity(groups: &[Vec<&Outcome>]) -> Figure {
    let defaults: Vec<_> = groups.iter().filter(|g| is_default(&g[0].name)).collect();
    Figure {
        caption: "Diversity against reward".to_owned(),
        x: "EAD of the answers to all prompts".to_owned(),
        y: "gold reward over SFT".to_owned(),
        marks: vec![Marks {
            points: defaults
                .iter()
                .map(|g| (over(g, |o| o.tuned("EAD")), over(g, Outcome::gain)))
                .collect(),
            names: (1..=defaults.len()).map(|n| n.to_string()).collect(),
            ..Marks::default()
        }],
    }
}

/// Proxy and gold against the root of the KL, with the fitted curve of the gold.
fn curves(
    caption: &str,
    form: Form,
    points: &[(f64, f64, f64)],
    notes: &mut Vec<String>,
) -> Option<Figure> {
    let points: Vec<_> = points.iter().copied().filter(|p| p.0 > 0.0).collect();
    let gold: Vec<(f64, f64)> = points.iter().map(|(kl, _, gold)| (*kl, *gold)).collect();
    let fit = Fit::of(form, &gold)?;
    let furthest = points.iter().map(|p| p.0).fold(0.0, f64::max);
    let root = |of: fn(&(f64, f64, f64)) -> f64| -> Vec<(f64, f64)> {
        points.iter().map(|p| (p.0.sqrt(), of(p))).collect()
    };
    // The proxy has units of its own: it is drawn on the scale of the gold.
    let highest = |of: fn(&(f64, f64, f64)) -> f64| points.iter().map(of).fold(1e-9, f64::max);
    let scale = highest(|p| p.2) / highest(|p| p.1);
    let proxy = root(|p| p.1)
        .into_iter()
        .map(|(d, y)| (d, y * scale))
        .collect();
    let formula = match form {
        Form::BestOfN => "d (α - β d)",
        Form::Reinforcement => "d (α - β ln d)",
    };
    let turning = match fit.turning_point() {
        Some(kl) if kl <= furthest => format!("it turns at KL {kl:.1}"),
        Some(kl) => format!("it would turn at KL {kl:.1}, beyond what was run"),
        None => "it does not turn".to_owned(),
    };
    notes.push(format!(
        "{caption}: gold over SFT = {formula} with α = {:.3}, β = {:.3}, d = √KL, R² = {:.2}; {turning}.",
        fit.alpha, fit.beta, fit.r_squared
    ));
    let fitted = (0..=60).map(|i| furthest * (f64::from(i) / 60.0).powi(2));
    Some(Figure {
        caption: format!("Proxy and gold: {caption}"),
        x: "√KL".to_owned(),
        y: "over SFT".to_owned(),
        marks: vec![
            Marks {
                label: format!("proxy, times {scale:.3}"),
                points: proxy,
                color: 1,
                ..Marks::default()
            },
            Marks {
                label: "gold".to_owned(),
                points: root(|p| p.2),
                ..Marks::default()
            },
            Marks {
                label: format!("{formula}, fitted"),
                points: fitted.map(|kl| (kl.sqrt(), fit.at(kl))).collect(),
                line: true,
                bare: true,
                ..Marks::default()
            },
        ],
    })
}

pub(crate) fn report(
    arguments: &AlgorithmsArguments,
    outcomes: &[Outcome],
    bests: &[BestOf],
    started: Instant,
) -> Result<()> {
    let groups = ranked(outcomes);
    let table = main_table(&groups)?;
    println!("\n{}", plain(&table));
    let mut tables = vec![(
        "Algorithms".to_owned(),
        table,
        "Means over the seeds, each on 300 held-out prompts; (?) where the 95% interval of the paired \
         difference holds 0. Seconds are of training alone."
            .to_owned(),
    )];
    if !bests.is_empty() {
        let best = best_table(bests);
        println!("best of n\n{}", plain(&best));
        let note = "Of the SFT model by the reward model. The measured KL is that of the choice among \
                    answers; equal answers make it less than the formula's.";
        tables.push(("Best of n".to_owned(), best, note.to_owned()));
    }
    let mut figures = vec![frontier(&groups, bests), diversity(&groups)];
    let mut notes = Vec::new();
    let long: Vec<_> = outcomes
        .iter()
        .filter(|o| o.name == OVER_OPTIMISED.name)
        .flat_map(|o| {
            let start = (o.mean("start", "proxy reward"), o.mean("start", GOLD));
            o.curve
                .iter()
                .map(move |(kl, proxy, gold)| (*kl, proxy - start.0, gold - start.1))
        })
        .collect();
    figures.extend(curves(
        OVER_OPTIMISED.name,
        Form::Reinforcement,
        &long,
        &mut notes,
    ));
    let kept: Vec<_> = bests
        .iter()
        .flat_map(|b| {
            b.rows
                .iter()
                .map(move |row| (row.kl, row.proxy - b.proxy, row.gold - b.gold))
        })
        .collect();
    figures.extend(curves("best of n", Form::BestOfN, &kept, &mut notes));
    for note in &notes {
        println!("{note}");
    }
    let unsure: Vec<&str> = groups
        .iter()
        .filter(|g| is_default(&g[0].name))
        .filter(|g| {
            g.iter().any(|o| {
                o.comparison
                    .difference(GOLD, o.recipe, "start")
                    .is_ok_and(|gain| gain.low <= 0.0)
            })
        })
        .map(|g| g[0].name.as_str())
        .collect();
    let verdict = if unsure.is_empty() {
        "Every algorithm's defaults improve gold reward over SFT with every seed.".to_owned()
    } else {
        format!("No sure improvement with some seed: {}.", unsure.join(", "))
    };
    println!("{verdict}");
    let seeds = arguments.seeds;
    let page = Report {
        title: "bench algorithms".to_owned(),
        summary: format!("{verdict} {seeds} seeds; {}", notes.join(" ")),
        tables,
        figures,
        environment: vec![
            ("Togi".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("Device".to_owned(), arguments.device.clone()),
            ("Precision".to_owned(), Precision::of_program().to_string()),
            ("Cores".to_owned(), cores().to_string()),
            (
                "Runs at a time".to_owned(),
                arguments.at_a_time().to_string(),
            ),
        ],
        ..Report::default()
    };
    let path = arguments.out.join("report.html");
    fs::write(&path, page.html()?).with_context(|| path.display().to_string())?;
    let rows: Vec<Value> = outcomes.iter().map(row).collect();
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    fs::write(arguments.out.join("results.jsonl"), lines.join("\n") + "\n")?;
    println!(
        "Page: {}\nTime: {:.0} s",
        path.display(),
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// A line of `results.jsonl`.
fn row(outcome: &Outcome) -> Value {
    let mut row = serde_json::json!({
        "name": outcome.name, "seed": outcome.seed, "gold_gain": outcome.gain(),
        "seconds": outcome.seconds,
    });
    let metrics = [
        GOLD,
        KL,
        "proxy reward",
        "length (tokens)",
        "EAD",
        "distinct-2",
        "refusals",
    ];
    for metric in metrics {
        row[metric] = Value::from(outcome.tuned(metric));
    }
    row
}
