//! Preferences by a judge: a model answers prompts twice, the judge compares the answers, and the pairs
//! are a file of the run folder (`labels.jsonl`, a line a prompt), from which an interrupted run goes on.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use togi_data::{PairSample, PromptSample, Sample, Tokenizer, lab};
use togi_policy::{Decoder, Sampling};
use togi_reward::{
    Unscorable,
    judge::{Judge, Pair, PositionBias, Verdict},
};

use crate::{
    config::{at_least_one, positive, within},
    error::TrainError,
    metrics::{Event, Row},
    offline::Stage,
    rollout::{Rollout, mean, rollouts},
};

/// How answers are drawn and labelled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LabelConfig {
    /// Prompts that are answered twice.
    pub prompts: usize,
    /// Of the pairs, the share that is held out.
    pub valid_fraction: f64,
    /// How answers are drawn.
    pub sampling: Sampling,
    /// Pairs whose probability is no further than this from a half are left out.
    pub indifference: f64,
    /// The share of pairs that the judge may fail to compare before the run ends.
    pub max_unscorable: f64,
    /// Prompts that are answered and compared at a time.
    pub batch_size: usize,
}

impl Default for LabelConfig {
    fn default() -> Self {
        Self {
            prompts: 1000,
            valid_fraction: 0.05,
            sampling: Sampling::default(),
            indifference: 0.0,
            max_unscorable: 0.2,
            batch_size: 64,
        }
    }
}

impl LabelConfig {
    /// # Errors
    /// Names the field that is out of range.
    pub fn validate(&self) -> Result<(), TrainError> {
        at_least_one("label.prompts", self.prompts)?;
        at_least_one("label.batch_size", self.batch_size)?;
        within("label.valid_fraction", self.valid_fraction, 0.0, 0.9)?;
        self.sampling.validate()?;
        positive("label.sampling.temperature", self.sampling.temperature)?;
        within("label.indifference", self.indifference, 0.0, 0.499)?;
        within("label.max_unscorable", self.max_unscorable, 0.0, 1.0)
    }
}

/// A line of `labels.jsonl`: the answers to one prompt, the better one first where there is one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Line {
    prompt: String,
    chosen: String,
    rejected: String,
    prompt_ids: Vec<u32>,
    chosen_ids: Vec<u32>,
    rejected_ids: Vec<u32>,
    /// That `chosen` is the better one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    probability: Option<f64>,
    /// As the judge said it of the answer that was drawn first, in both orders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    orders: Option<[f64; 2]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    criterion: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rationale: Option<[String; 2]>,
    /// Why there is no probability.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unscorable: Option<String>,
}

impl Line {
    /// False for two equal answers.
    fn was_asked(&self) -> bool {
        self.probability.is_some() || self.unscorable.is_some()
    }
}

/// Pairs that a judge has labelled.
#[derive(Clone, Debug, Default)]
pub struct Labelled {
    /// To train on.
    pub train: Vec<PairSample>,
    /// Held out.
    pub valid: Vec<PairSample>,
    /// Pairs of two equal answers, which were not asked about.
    pub equal: usize,
    /// Pairs too close to a half.
    pub undecided: usize,
    /// Pairs that the judge could not compare, and the first reason.
    pub unscorable: (usize, Option<String>),
    /// How far the order in which answers were shown decided.
    pub position_bias: Option<PositionBias>,
    /// The share of pairs in which the judge and the lab's gold score like the same answer, of those that
    /// differ in gold; `None` where prompts are not the lab's.
    pub gold_agreement: Option<f64>,
}

impl Labelled {
    /// What came out, for people.
    pub fn summary(&self) -> String {
        let mut text = format!(
            "{} pairs labelled, {} held out; left out: {} of equal answers, {} undecided, {} unscorable",
            self.train.len(),
            self.valid.len(),
            self.equal,
            self.undecided,
            self.unscorable.0
        );
        if let (_, Some(reason)) = &self.unscorable {
            text.push_str(&format!(" (the first: {reason})"));
        }
        if let Some(bias) = self.position_bias {
            text.push_str(&format!(
                "\nposition bias: the answer shown first got {:.3} on average, and {:.1}% of the choices \
                 changed with the order",
                bias.first_shown,
                bias.changed * 100.0
            ));
            if bias.changed > 0.5 {
                text.push_str(": this judge follows the order more than the answers");
            }
        }
        if let Some(share) = self.gold_agreement {
            text.push_str(&format!(
                "\nthe judge agrees with the true preference in {:.1}% of the pairs",
                share * 100.0
            ));
        }
        text
    }
}

/// The prompts' labelled pairs: drawn and compared, or read where an earlier part of the run did that.
///
/// # Errors
/// More unscorable pairs than allowed; a damaged file; no pair at all.
pub fn label(
    stage: &mut Stage<'_>,
    policy: &Decoder,
    tokenizer: &Tokenizer,
    judge: &dyn Judge,
    prompts: &[PromptSample],
    config: &LabelConfig,
) -> Result<Labelled, TrainError> {
    let name = "labels";
    stage.within_memory(name, |stage| {
        let asked = &prompts[..prompts.len().min(config.prompts)];
        let total = asked.len() as u64;
        let mut lines: Vec<Line> = stage.run.read_lines(FILE)?;
        lines.truncate(asked.len());
        let step = lines.len() as u64;
        stage.watch.begin(step);
        stage.observer.on(Event::Stage { name, step, total });
        while lines.len() < asked.len() {
            let started = Instant::now();
            let first = lines.len();
            let size = at_once(first, config.batch_size);
            let part = &asked[first..asked.len().min(first + size)];
            let twice: Vec<&PromptSample> = part.iter().flat_map(|p| [p, p]).collect();
            let number = 2 * first as u64;
            let drawn = rollouts(
                policy,
                tokenizer,
                &twice,
                &config.sampling,
                stage.seed,
                number,
            )?;
            let fresh = compare(judge, &drawn);
            // What a judge that fails leaves is not written down: a resumed run asks again.
            let all = || lines.iter().chain(&fresh);
            let asked_of = all().filter(|line| line.was_asked()).count();
            let failed_of = all().filter(|line| line.unscorable.is_some()).count();
            let last = first + part.len() == asked.len();
            if too_many(failed_of, asked_of, config.max_unscorable, last) {
                let reason = all().find_map(|line| line.unscorable.clone());
                let reason = format!(
                    "{failed_of} of {asked_of} pairs could not be compared by {}, more than \
                 label.max_unscorable = {} allows: {}",
                    judge.name(),
                    config.max_unscorable,
                    reason.unwrap_or_default()
                );
                return Err(failed(stage, reason));
            }
            for line in &fresh {
                let row = serde_json::to_value(line).map_err(|e| failed(stage, e.to_string()))?;
                if let Value::Object(row) = row {
                    stage.run.append(FILE, &row)?;
                }
            }
            lines.extend(fresh);
            stage.watch.reached(lines.len() as u64);
            let mut row = Row::default();
            let sure: Vec<f64> = lines.iter().filter_map(|line| line.probability).collect();
            if !sure.is_empty() {
                row.set("judge/confidence", mean(sure));
            }
            let share = failed_of as f64 / asked_of.max(1) as f64;
            row.set("judge/unscorable", share);
            let tokens: usize = drawn.iter().map(|r| r.completion().len()).sum();
            stage.observer.on(Event::Step {
                step: lines.len() as u64,
                row: &row,
                tokens_per_second: tokens as f64 / started.elapsed().as_secs_f64(),
            });
            let short = stage.short_of_memory(name, lines.len() as u64);
            if let Some(error) = short.filter(|_| !last) {
                return Err(error);
            }
        }
        stage.observer.on(Event::Done);
        let labelled = sorted(&lines, tokenizer, config);
        if labelled.train.is_empty() {
            let reason = format!("no pair came out: {}", labelled.summary());
            return Err(TrainError::config("label.prompts", reason));
        }
        stage.observer.on(Event::Message(&labelled.summary()));
        let usage = judge.usage();
        if !usage.is_empty() {
            stage.observer.on(Event::Message(&usage));
        }
        Ok(labelled)
    })
}

const FILE: &str = "labels.jsonl";

/// Prompts that are worked on at a time: few at first, so that a judge or critic that is not there is
/// noticed at once.
pub(crate) fn at_once(done: usize, batch_size: usize) -> usize {
    match done {
        0 => batch_size.min(PROBE),
        _ => batch_size,
    }
}

const PROBE: usize = 4;

/// True if more than the allowed share have failed, as soon as that says something: of enough, of all that
/// there are, or because none went well.
pub(crate) fn too_many(failed: usize, of: usize, allowed: f64, last: bool) -> bool {
    let share = failed as f64 / of.max(1) as f64;
    share > allowed && (last || failed == of || of >= 5 * PROBE)
}

fn failed(stage: &Stage<'_>, reason: String) -> TrainError {
    TrainError::Run {
        stage: stage.name.to_owned(),
        step: 0,
        reason,
    }
}

/// Asks about the pairs of two answers that differ.
fn compare(judge: &dyn Judge, drawn: &[Rollout]) -> Vec<Line> {
    let differ = |pair: &&[Rollout]| pair[0].text != pair[1].text;
    let pairs: Vec<Pair<'_>> = drawn
        .chunks_exact(2)
        .filter(differ)
        .map(|pair| Pair {
            first: pair[0].scorable(),
            second: pair[1].scorable(),
        })
        .collect();
    let mut verdicts = judge.compare(&pairs).into_iter();
    drawn
        .chunks_exact(2)
        .map(|pair| {
            let verdict = differ(&pair).then(|| {
                let missing = || Err(Unscorable("the judge gave too few answers".to_owned()));
                verdicts.next().unwrap_or_else(missing)
            });
            line(&pair[0], &pair[1], verdict)
        })
        .collect()
}

fn line(first: &Rollout, second: &Rollout, verdict: Option<Result<Verdict, Unscorable>>) -> Line {
    let swap = matches!(&verdict, Some(Ok(verdict)) if verdict.first < 0.5);
    let (chosen, rejected) = if swap {
        (second, first)
    } else {
        (first, second)
    };
    let mut line = Line {
        prompt: first.prompt.clone(),
        chosen: chosen.text.clone(),
        rejected: rejected.text.clone(),
        prompt_ids: first.sample.ids[..first.prompt_len].to_vec(),
        chosen_ids: chosen.completion().to_vec(),
        rejected_ids: rejected.completion().to_vec(),
        probability: None,
        orders: None,
        criterion: None,
        rationale: None,
        unscorable: None,
    };
    match verdict {
        None => {}
        Some(Err(Unscorable(reason))) => line.unscorable = Some(reason),
        Some(Ok(verdict)) => {
            line.probability = Some(verdict.first.max(1.0 - verdict.first));
            line.orders = verdict.orders;
            line.criterion = verdict.criterion;
            line.rationale = verdict.rationale;
        }
    }
    line
}

fn sorted(lines: &[Line], tokenizer: &Tokenizer, config: &LabelConfig) -> Labelled {
    let mut labelled = Labelled::default();
    let mut pairs = Vec::new();
    let mut verdicts = Vec::new();
    let mut right = Vec::new();
    for line in lines {
        if let Some(reason) = &line.unscorable {
            labelled.unscorable.0 += 1;
            labelled.unscorable.1.get_or_insert_with(|| reason.clone());
            continue;
        }
        let Some(probability) = line.probability else {
            labelled.equal += 1;
            continue;
        };
        let gold = |answer: &str| lab::gold(&line.prompt, answer).map(|gold| gold.total);
        if let (Ok(chosen), Ok(rejected)) = (gold(&line.chosen), gold(&line.rejected))
            && chosen != rejected
            && probability > 0.5
        {
            right.push(f64::from(u8::from(chosen > rejected)));
        }
        verdicts.push(Verdict {
            first: probability,
            orders: line.orders,
            criterion: None,
            rationale: None,
        });
        if probability - 0.5 <= config.indifference {
            labelled.undecided += 1;
            continue;
        }
        let side = |ids: &[u32]| Sample::from_parts(&line.prompt_ids, ids, tokenizer.eos_ids());
        pairs.push(PairSample {
            chosen: side(&line.chosen_ids),
            rejected: side(&line.rejected_ids),
            margin: None,
            probability: Some(probability),
        });
    }
    labelled.gold_agreement = (!right.is_empty()).then(|| mean(right));
    labelled.position_bias = PositionBias::of(&verdicts);
    let held_out = (pairs.len() as f64 * config.valid_fraction) as usize;
    labelled.train = pairs.split_off(held_out);
    labelled.valid = pairs;
    labelled
}
