//! `cargo xtask bench annotation`: how many labels an accurate reward model takes on the lab, where the
//! pairs to label are chosen by disagreement of reward models, by their uncertainty, or at random.
//!
//! A seed has one pool of pairs, one group of annotators, one set of held-out pairs and one first set of
//! labels; the ways to choose differ in what is labelled after that. In each round an ensemble and a single
//! reward model are trained anew from the lab's SFT model on all labels so far. A folder of an interrupted
//! benchmark is gone on with.

mod learn;
mod needed;
mod page;
mod world;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use serde::{Deserialize, Serialize};
use togi_data::{PairSample, Tokenizer, rng::CounterRng};
use togi_policy::{Decoder, Policy};
use togi_train::{
    RunFolder,
    memory::Watching,
    selection::{Criterion, Doubt, chance, choose, standardised},
    stages::{self, Stages},
};

use self::{
    learn::{accuracy, bootstrap, learn, scores},
    world::World,
};
use crate::{InputError, device, progress::Bars};

#[derive(Args)]
pub(crate) struct AnnotationArguments {
    /// Where the models, the results and the page go.
    #[arg(long, value_name = "DIR", default_value = "runs/bench-annotation")]
    out: PathBuf,
    /// Seeds: 0, 1, …; 4, or 2 with --quick.
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// Fewer labels, rounds and held-out pairs.
    #[arg(long)]
    quick: bool,
    /// `cpu`, `wgpu`, or `cuda` with `:n` for a further GPU.
    #[arg(long, default_value = "cpu")]
    device: String,
}

/// Sizes.
#[derive(Clone, Debug)]
struct Settings {
    /// Pairs that can be labelled.
    pool: usize,
    /// Held-out pairs without ties.
    held_out: usize,
    /// Labels in the end of each round, the first of them random.
    labels: Vec<usize>,
    /// Reward models of the ensemble.
    members: usize,
    /// How often each label is seen.
    epochs: usize,
    /// Pairs a step.
    batch_size: usize,
    learning_rate: f64,
}

impl Settings {
    fn full() -> Self {
        Self {
            pool: 4000,
            held_out: 1500,
            labels: vec![100, 150, 225, 340, 500, 750, 1100, 1600],
            members: 3,
            epochs: 4,
            batch_size: 32,
            learning_rate: 5e-4,
        }
    }

    fn quick() -> Self {
        Self {
            pool: 1000,
            held_out: 500,
            labels: vec![100, 200, 300],
            ..Self::full()
        }
    }

    /// Steps on so many labels.
    fn steps(&self, labels: usize) -> u64 {
        (labels * self.epochs).div_ceil(self.batch_size) as u64
    }
}

/// The ways to choose.
const WAYS: [(&str, Criterion); 3] = [
    ("random", Criterion::Random),
    ("disagreement", Criterion::Disagreement),
    ("uncertainty", Criterion::Uncertainty),
];

/// What a round came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Round {
    /// Labels so far.
    labels: usize,
    /// Accuracy on held-out pairs of a reward model trained on all labels.
    single: f64,
    /// Accuracy of the ensemble, each member trained on a bootstrap of the labels.
    ensemble: f64,
    /// Mean true difference between the answers that were labelled last.
    difference: f64,
    /// Share of true ties among them.
    ties: f64,
    /// Share of their labels that are right, where there is no tie.
    right: f64,
}

/// A way's rounds with a seed.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Track {
    way: String,
    seed: u64,
    /// The sizes that it was run with.
    settings: String,
    rounds: Vec<Round>,
    seconds: f64,
}

pub(crate) fn run(arguments: &AnnotationArguments) -> Result<()> {
    let seeds = arguments
        .seeds
        .unwrap_or(if arguments.quick { 2 } else { 4 });
    if seeds == 0 {
        return Err(InputError("--seeds must be at least 1".to_owned()).into());
    }
    let settings = if arguments.quick {
        Settings::quick()
    } else {
        Settings::full()
    };
    let started = Instant::now();
    let out = &arguments.out;
    let sft = sft(arguments)?;
    let mut tracks = Vec::new();
    for seed in 0..seeds {
        tracks.extend(of_seed(&sft.decoder, &sft.tokenizer, seed, &settings, out)?);
    }
    page::report(arguments, &settings, &tracks, started)
}

/// The model that every reward model starts from.
fn sft(arguments: &AnnotationArguments) -> Result<Policy> {
    let device = device::parse_to_train(&arguments.device)?;
    let folder = arguments.out.join("models");
    // The tracks of the folder are of these models, and computed as they are.
    let config = format!(
        "# models of seed 0{}\n",
        device::of_results(&arguments.device)?
    );
    let resume = folder.join("config.toml").exists();
    let run = RunFolder::open(&folder, &config, resume)?;
    let mut bars = Bars::new();
    let mut stages = Stages {
        run: &run,
        device: &device,
        observer: &mut bars,
        watching: Watching::No,
    };
    Ok(stages::lab_sft(&mut stages, 0)?)
}

/// A track of an earlier run, unless its sizes were others.
fn measured(path: &Path, settings: &str) -> Result<Option<Track>> {
    let Ok(text) = fs::read_to_string(path) else {
        return Ok(None);
    };
    let track: Track = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    Ok((track.settings == settings).then_some(track))
}

/// The tracks of a seed; those that are in the folder are read.
fn of_seed(
    sft: &Decoder,
    tokenizer: &Tokenizer,
    seed: u64,
    settings: &Settings,
    out: &Path,
) -> Result<Vec<Track>> {
    let mut tracks = Vec::new();
    let mut prepared: Option<(World, Vec<usize>, Trained)> = None;
    let sizes = format!("{settings:?}");
    for (way, criterion) in WAYS {
        let path = out.join(format!("seed-{seed}-{way}.json"));
        if let Some(track) = measured(&path, &sizes)? {
            tracks.push(track);
            continue;
        }
        let (world, first, trained) = match &prepared {
            Some(prepared) => prepared,
            None => {
                let world = World::new(seed, settings, tokenizer)?;
                let first = first(settings, seed);
                let trained = Trained::on(sft, &world.label(&first), seed, settings)?;
                prepared.insert((world, first, trained))
            }
        };
        let started = Instant::now();
        let rounds = track(sft, world, first, trained, criterion, seed, settings)?;
        let track = Track {
            way: way.to_owned(),
            seed,
            settings: sizes.clone(),
            rounds,
            seconds: started.elapsed().as_secs_f64(),
        };
        let last = track.rounds.last().map_or(f64::NAN, |round| round.single);
        eprintln!(
            "seed {seed}  {way}: accuracy {last:.3} in the end, {:.0} s",
            track.seconds
        );
        let text = serde_json::to_vec_pretty(&track)?;
        let part = path.with_extension("part");
        fs::write(&part, text).and_then(|()| fs::rename(&part, &path))?;
        tracks.push(track);
    }
    Ok(tracks)
}

/// The pairs that are labelled before any model can choose.
fn first(settings: &Settings, seed: u64) -> Vec<usize> {
    let mut all: Vec<usize> = (0..settings.pool).collect();
    CounterRng::new(seed, &[0x6669_7273]).shuffle(&mut all);
    all.truncate(settings.labels[0]);
    all
}

/// The reward models of a round.
struct Trained {
    single: Decoder,
    members: Vec<Decoder>,
}

impl Trained {
    /// Trains them side by side; what comes out does not depend on that.
    fn on(sft: &Decoder, pairs: &[PairSample], seed: u64, settings: &Settings) -> Result<Self> {
        let mut all = thread::scope(|scope| {
            let handles: Vec<_> = (0..=settings.members as u64)
                .map(|member| {
                    scope.spawn(move || {
                        let seed = seed ^ (member << 32);
                        if member == 0 {
                            learn(sft, pairs, seed, settings)
                        } else {
                            learn(sft, &bootstrap(pairs, seed), seed, settings)
                        }
                    })
                })
                .collect();
            handles
                .into_iter()
                .map(|handle| handle.join().map_err(|_| anyhow!("training panicked"))?)
                .collect::<Result<Vec<_>>>()
        })?;
        let members = all.split_off(1);
        let single = all.remove(0);
        Ok(Self { single, members })
    }

    /// The members' scores of pairs, standardised.
    fn standardised(&self, pairs: &[PairSample]) -> Result<Vec<MemberScores>> {
        let each = self.members.iter().map(|member| {
            let raw = scores(member, pairs)?;
            let scaled = standardised(raw.as_flattened());
            let standardised = scaled.chunks_exact(2).map(|two| [two[0], two[1]]);
            Ok(MemberScores {
                standardised: standardised.collect(),
                raw,
            })
        });
        each.collect()
    }

    fn round(&self, world: &World, labels: usize, last: &[usize]) -> Result<Round> {
        let members = self.standardised(&world.held_out)?;
        let sum = |i: usize, side: usize| members.iter().map(|m| m.standardised[i][side]).sum();
        let together: Vec<[f64; 2]> = (0..world.held_out.len())
            .map(|i| [sum(i, 0), sum(i, 1)])
            .collect();
        let quality = world.quality(last);
        Ok(Round {
            labels,
            single: accuracy(&scores(&self.single, &world.held_out)?),
            ensemble: accuracy(&together),
            difference: quality.difference,
            ties: quality.ties,
            right: quality.right,
        })
    }
}

/// What one member says of pairs.
struct MemberScores {
    raw: Vec<[f64; 2]>,
    standardised: Vec<[f64; 2]>,
}

fn track(
    sft: &Decoder,
    world: &World,
    first: &[usize],
    trained: &Trained,
    criterion: Criterion,
    seed: u64,
    settings: &Settings,
) -> Result<Vec<Round>> {
    let mut labelled = first.to_vec();
    let mut rounds = vec![trained.round(world, labelled.len(), first)?];
    let mut newest: Option<Trained> = None;
    for (number, wanted) in settings.labels.iter().enumerate().skip(1) {
        let by = newest.as_ref().unwrap_or(trained);
        let draw = seed ^ ((number as u64) << 32);
        let next = next(
            world,
            by,
            criterion,
            &labelled,
            wanted - labelled.len(),
            draw,
        )?;
        labelled.extend(&next);
        let models = Trained::on(sft, &world.label(&labelled), seed, settings)?;
        rounds.push(models.round(world, labelled.len(), &next)?);
        newest = Some(models);
    }
    Ok(rounds)
}

/// The pairs that are labelled next.
fn next(
    world: &World,
    by: &Trained,
    criterion: Criterion,
    labelled: &[usize],
    count: usize,
    seed: u64,
) -> Result<Vec<usize>> {
    let prompts = world.prompts();
    let mut open = vec![true; prompts.len()];
    for pair in labelled {
        open[*pair] = false;
    }
    let open: Vec<usize> = (0..prompts.len()).filter(|pair| open[*pair]).collect();
    let worth: Vec<f64> = if criterion == Criterion::Random {
        open.iter().map(|pair| chance(seed, *pair)).collect()
    } else {
        // Over the whole pool, so that a round's scale does not depend on what is left.
        let members = by.standardised(world.samples())?;
        let of = |pair: &usize| {
            let of = |scores: &[[f64; 2]]| world.unlabelled(*pair, scores[*pair]);
            let standardised: Vec<_> = members.iter().map(|m| of(&m.standardised)).collect();
            let raw: Vec<_> = members.iter().map(|m| of(&m.raw)).collect();
            Doubt::of(&standardised, &raw).worth(criterion, seed, *pair)
        };
        open.iter().map(of).collect()
    };
    let prompts: Vec<&str> = open.iter().map(|pair| prompts[*pair]).collect();
    let chosen = choose(&worth, &prompts, count);
    Ok(chosen.into_iter().map(|i| open[i]).collect())
}
