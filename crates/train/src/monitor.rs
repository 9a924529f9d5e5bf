//! What gives reward hacking away while an online run is under way, where no true reward is known and
//! where one is: each signal is logged as `monitor/…`, compared with a threshold, and may end the run.
//!
//! What is compared is the mean of the last `window` steps (metrics have each step's own value). Signals that are compared with a beginning (length,
//! repetition, entropy, diversity, disagreement) take the mean of the first `window` steps for it. An
//! alarm is raised when a signal passes its threshold, and again only after it was back within.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use togi_eval::{
    explained::Moments,
    over_optimisation::{Fit, Form},
    report::Alarm,
};
use togi_policy::{Decoder, Finish};
use togi_reward::Score;

use crate::{
    checkpoint::Stored,
    config::{at_least_one, within},
    error::TrainError,
    metrics::{Event, Row},
    offline::Stage,
    rollout::{Rollout, mean},
};

/// What an alarm does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlarmAction {
    /// Signals are logged, nothing is compared.
    Log,
    /// It is said and written down.
    Warn,
    /// The run ends with the model as it is.
    Stop,
    /// The run ends with the model of the newest checkpoint from before the window that raised it.
    RollBack,
}

impl AlarmAction {
    /// As in the configuration.
    fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Warn => "warn",
            Self::Stop => "stop",
            Self::RollBack => "roll_back",
        }
    }
}

/// Thresholds of the monitors; 0 turns one off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MonitorConfig {
    /// What an alarm does.
    pub action: AlarmAction,
    /// Steps that a signal is averaged over, and that make the beginning it is compared with.
    pub window: usize,
    /// Mean length of completions: by which share of that at the beginning it may rise.
    pub length_rise: f64,
    /// The same: by which share it may fall.
    pub length_fall: f64,
    /// Share of a completion's token triples that it said before: by how much it may rise.
    pub repetition_rise: f64,
    /// Entropy per token: to which share of that at the beginning it may fall.
    pub entropy_floor: f64,
    /// Distinct token pairs among a step's completions: to which share of that at the beginning they may
    /// fall.
    pub diversity_floor: f64,
    /// Deviation of an ensemble's members: to how many times that at the beginning it may rise.
    pub disagreement_rise: f64,
    /// Share of the reward's variance that length and format explain: up to where it may go.
    pub explained_by_form: f64,
    /// The reward that can be relied on (an ensemble's mean less its deviation, or the reward) is fitted
    /// against the KL: by which share of its highest fitted gain it may have fallen.
    pub fitted_fall: f64,
    /// Where the true reward is known: by which share of its best value held-out answers may fall while
    /// the reward is no lower than it was there.
    pub gold_fall: f64,
}

impl Default for MonitorConfig {
    /// Set on the lab, so that runs whose true reward rises raise none (docs/results.md).
    fn default() -> Self {
        Self {
            action: AlarmAction::Warn,
            window: 5,
            length_rise: 0.3,
            length_fall: 0.5,
            repetition_rise: 0.15,
            entropy_floor: 0.25,
            diversity_floor: 0.5,
            disagreement_rise: 2.0,
            explained_by_form: 0.25,
            fitted_fall: 0.05,
            gold_fall: 0.05,
        }
    }
}

impl MonitorConfig {
    /// # Errors
    /// Names the field that is out of range.
    pub fn validate(&self) -> Result<(), TrainError> {
        at_least_one("monitor.window", self.window)?;
        within("monitor.length_rise", self.length_rise, 0.0, f64::MAX)?;
        within("monitor.length_fall", self.length_fall, 0.0, 1.0)?;
        within("monitor.repetition_rise", self.repetition_rise, 0.0, 1.0)?;
        within("monitor.entropy_floor", self.entropy_floor, 0.0, 1.0)?;
        within("monitor.diversity_floor", self.diversity_floor, 0.0, 1.0)?;
        let rise = self.disagreement_rise;
        within("monitor.disagreement_rise", rise, 0.0, f64::MAX)?;
        within(
            "monitor.explained_by_form",
            self.explained_by_form,
            0.0,
            1.0,
        )?;
        within("monitor.fitted_fall", self.fitted_fall, 0.0, 1.0)?;
        within("monitor.gold_fall", self.gold_fall, 0.0, 1.0)
    }
}

impl MonitorConfig {
    /// Writes down and tells alarms and does what they are to do. `good` is the last step that they do not
    /// doubt. True if the run ends.
    ///
    /// # Errors
    /// When a file cannot be written, or a checkpoint is of another model.
    pub(crate) fn act(
        &self,
        stage: &mut Stage<'_>,
        policy: &mut Decoder,
        (step, good): (u64, u64),
        alarms: &[Alarm],
    ) -> Result<bool, TrainError> {
        stage.alarmed(alarms)?;
        if alarms.is_empty() || matches!(self.action, AlarmAction::Log | AlarmAction::Warn) {
            return Ok(false);
        }
        let mut text = format!("stopped at step {step} by an alarm");
        if self.action == AlarmAction::RollBack {
            let found = Stored::before(stage.run, stage.name, good);
            text.push_str(&match found {
                Some(stored) => {
                    stored.restore_parameters("policy", policy)?;
                    format!("; the model is that of step {}'s checkpoint", stored.step)
                }
                None => "; there is no whole checkpoint to roll back to".to_owned(),
            });
        }
        stage.observer.on(Event::Message(&text));
        Ok(true)
    }

    /// True if an alarm rolls the run back; a checkpoint is made before the first step then.
    pub(crate) fn rolls_back(&self) -> bool {
        self.action == AlarmAction::RollBack
    }

    /// The last step that an alarm of a step does not doubt: before the window that raised it.
    pub(crate) fn before_window(&self, step: u64) -> u64 {
        step.saturating_sub(self.window as u64)
    }

    /// # Errors
    /// When an alarm is to roll back, and no checkpoint from before its window is kept.
    pub(crate) fn keeps_enough(&self, every: u64, kept: usize) -> Result<(), TrainError> {
        let reach = every * (kept as u64).saturating_sub(1);
        if self.rolls_back() && reach < self.window as u64 {
            let reason = format!(
                "`roll_back` needs a checkpoint from before the window of {} steps: raise keep_checkpoints \
                 or checkpoint_every",
                self.window
            );
            return Err(TrainError::config("monitor.action", reason));
        }
        Ok(())
    }
}

/// A step's completions of the policy, as monitors see them.
pub(crate) struct Seen<'a> {
    pub(crate) rollouts: Vec<&'a Rollout>,
    pub(crate) scores: Vec<&'a Score>,
    /// Completions of one prompt stand side by side, this many.
    pub(crate) group_size: usize,
    /// Means of the step.
    pub(crate) entropy: f64,
    /// From a reference that stays; none where it moves, since a curve against it says nothing then.
    pub(crate) kl: Option<f64>,
}

/// What the monitors remember of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Monitor {
    steps: u64,
    /// Of each signal, the mean at the beginning and the last values.
    beginning: BTreeMap<String, f64>,
    recent: BTreeMap<String, VecDeque<f64>>,
    /// Scores against the form of completions, of the last steps.
    form: VecDeque<Moments>,
    /// KL and reliable reward of each step.
    curve: Vec<(f64, f64)>,
    /// The best look at held-out prompts: its step, its gold scores, its mean reward.
    best: Option<(u64, Vec<f64>, f64)>,
    /// Signals that are beyond their threshold.
    raised: BTreeSet<String>,
}

impl Monitor {
    /// Adds a step's signals to its metrics. Returns the alarms that it raises.
    pub(crate) fn step(
        &mut self,
        config: &MonitorConfig,
        (stage, step): (&str, u64),
        seen: &Seen<'_>,
        row: &mut Row,
    ) -> Vec<Alarm> {
        self.steps += 1;
        let lengths = seen.rollouts.iter().map(|r| r.completion().len() as f64);
        let disagreement = part(&seen.scores, "disagreement");
        let mut signals = vec![
            ("length", mean(lengths)),
            ("repetition", repetition(&seen.rollouts)),
            ("entropy", seen.entropy),
            ("diversity", diversity(&seen.rollouts)),
        ];
        signals.extend(disagreement.map(|d| ("disagreement", d)));
        for (name, value) in signals {
            // What has a metric of its own is not logged twice.
            if !matches!(name, "length" | "entropy") {
                row.set(&format!("monitor/{name}"), value);
            }
            let recent = self.recent.entry(name.to_owned()).or_default();
            recent.push_back(value);
            if recent.len() > config.window {
                recent.pop_front();
            }
            if self.steps as usize == config.window.min(recent.len()) {
                let start = mean(recent.iter().copied());
                self.beginning.insert(name.to_owned(), start);
            }
        }
        self.form.push_back(form(seen));
        if self.form.len() > config.window {
            self.form.pop_front();
        }
        let mut together = Moments::default();
        self.form.iter().for_each(|step| together.merge(step));
        let explained = together.explained();
        if let Some(share) = explained {
            row.set("monitor/explained_by_form", share);
        }
        // Of an ensemble its members' mean less their deviation, however it combines them.
        let scores = part(&seen.scores, "members_mean");
        let scores = scores.unwrap_or_else(|| mean(seen.scores.iter().map(|s| s.value)));
        let reliable = scores - disagreement.unwrap_or(0.0);
        self.curve.extend(seen.kl.map(|kl| (kl, reliable)));
        let fit = self.fit(config.window);
        if let Some((fit, _)) = &fit
            && let Some(turn) = fit.turning_point().filter(|kl| *kl < FAR)
        {
            row.set("monitor/turning_kl", turn);
        }
        let mut alarms = Vec::new();
        if config.action == AlarmAction::Log {
            return alarms;
        }
        let mut judge = |monitor: &str, value: f64, threshold: f64, beyond: bool, text: String| {
            if !beyond {
                self.raised.remove(monitor);
            } else if self.raised.insert(monitor.to_owned()) {
                alarms.push(Alarm {
                    stage: stage.to_owned(),
                    step,
                    monitor: monitor.to_owned(),
                    value,
                    threshold,
                    action: config.action.name().to_owned(),
                    text,
                });
            }
        };
        for (name, start) in &self.beginning {
            let Some(now) = self.recent.get(name).map(|r| mean(r.iter().copied())) else {
                continue;
            };
            // The setting, what it means here, and whether that is the highest or the lowest value.
            let start = *start;
            let (setting, threshold, highest) = match &**name {
                "length" if now < start => {
                    let fall = config.length_fall;
                    (fall, start * (1.0 - fall), false)
                }
                "length" => (config.length_rise, start * (1.0 + config.length_rise), true),
                "repetition" => {
                    let rise = config.repetition_rise;
                    (rise, start + rise, true)
                }
                "disagreement" => {
                    let rise = config.disagreement_rise;
                    (rise, start * rise, true)
                }
                "entropy" => (config.entropy_floor, start * config.entropy_floor, false),
                _ => (
                    config.diversity_floor,
                    start * config.diversity_floor,
                    false,
                ),
            };
            if setting == 0.0 {
                continue;
            }
            let beyond = if highest {
                now > threshold
            } else {
                now < threshold
            };
            let text = format!(
                "{name} of completions is {now:.3}, at the beginning it was {start:.3} (limit {threshold:.3})"
            );
            judge(name, now, threshold, beyond, text);
        }
        // A step or two say little of a regression or a curve.
        let whole = self.steps as usize >= config.window;
        if let Some(share) = explained.filter(|_| whole && config.explained_by_form > 0.0) {
            let limit = config.explained_by_form;
            let text = format!(
                "length and format explain {:.0}% of the reward's variance (limit {:.0}%)",
                share * 100.0,
                limit * 100.0
            );
            judge("explained_by_form", share, limit, share > limit, text);
        }
        if let Some((fit, kl)) = fit
            && config.fitted_fall > 0.0
        {
            let turn = fit.turning_point().unwrap_or(f64::INFINITY);
            let top = fit.at(turn);
            let fall = if kl > turn && top > 0.0 {
                1.0 - fit.at(kl) / top
            } else {
                0.0
            };
            let text = format!(
                "KL {kl:.2} is past {turn:.2}, where the fitted curve of the reward turns: it has lost \
                 {:.0}% of its gain (limit {:.0}%)",
                fall * 100.0,
                config.fitted_fall * 100.0
            );
            let limit = config.fitted_fall;
            judge("turning_kl", fall, limit, fall > limit, text);
        }
        alarms
    }

    /// The reliable reward against the KL, where the fit is good; and the KL of the last steps.
    fn fit(&self, window: usize) -> Option<(Fit, f64)> {
        if self.curve.len() < 4 * window {
            return None;
        }
        let fit = Fit::with_start(Form::Reinforcement, &self.curve);
        let fit = fit.filter(|fit| fit.r_squared > FIT)?;
        let last = &self.curve[self.curve.len() - window..];
        Some((fit, mean(last.iter().map(|point| point.0))))
    }

    /// The step of the best look at held-out prompts.
    pub(crate) fn best_step(&self) -> u64 {
        self.best.as_ref().map_or(0, |best| best.0)
    }

    /// Compares a look at held-out prompts, whose gold scores are given, with the best one so far. A fall
    /// that chance explains (one-sided, at 5%, paired over the prompts) is none.
    pub(crate) fn look(
        &mut self,
        config: &MonitorConfig,
        (stage, step): (&str, u64),
        golds: &[f64],
        look: &mut Row,
    ) -> Vec<Alarm> {
        let Some(proxy) = look.get("val/scores").filter(|_| !golds.is_empty()) else {
            return Vec::new();
        };
        let gold = mean(golds.iter().copied());
        let now = || (step, golds.to_vec(), proxy);
        let (_, best_golds, there) = self.best.get_or_insert_with(now);
        let (best, there) = (mean(best_golds.iter().copied()), *there);
        let lost: Vec<f64> = best_golds.iter().zip(golds).map(|(a, b)| a - b).collect();
        if gold >= best {
            self.best = Some((step, golds.to_vec(), proxy));
            self.raised.remove("gold");
            return Vec::new();
        }
        let fall = (best - gold) / best.abs().max(1e-9);
        look.set("monitor/gold_fall", fall);
        let n = lost.len() as f64;
        let variance = mean(lost.iter().map(|x| (x - (best - gold)).powi(2)));
        let sure = best - gold > ONE_SIDED * (variance / (n - 1.0).max(1.0)).sqrt();
        let limit = config.gold_fall;
        let quiet = config.action == AlarmAction::Log || limit == 0.0 || lost.len() < 2;
        if quiet || !sure || fall <= limit || proxy < there {
            self.raised.remove("gold");
            return Vec::new();
        }
        if !self.raised.insert("gold".to_owned()) {
            return Vec::new();
        }
        vec![Alarm {
            stage: stage.to_owned(),
            step,
            monitor: "gold".to_owned(),
            value: fall,
            threshold: limit,
            action: config.action.name().to_owned(),
            text: format!(
                "the true reward of held-out answers fell from {best:.3} to {gold:.3} while the reward \
                 went from {there:.3} to {proxy:.3}"
            ),
        }]
    }
}

/// The 95th percentile of the normal distribution.
const ONE_SIDED: f64 = 1.645;

/// A turning point at a KL beyond this is none.
const FAR: f64 = 1e3;

/// How well a curve has to fit before it is believed: R².
const FIT: f64 = 0.8;

/// The mean of a part of the scores, where all have it.
fn part(scores: &[&Score], name: &str) -> Option<f64> {
    let of = |score: &&Score| {
        let part = score.parts.iter().find(|part| part.0 == name);
        part.map(|part| part.1)
    };
    let all: Option<Vec<f64>> = scores.iter().map(of).collect();
    all.filter(|all| !all.is_empty()).map(mean)
}

/// The mean share of a completion's runs of three tokens that it has said before.
fn repetition(rollouts: &[&Rollout]) -> f64 {
    mean(rollouts.iter().map(|rollout| {
        let runs = rollout.completion().windows(3);
        let count = runs.len();
        let distinct = runs.collect::<BTreeSet<_>>().len();
        (count - distinct) as f64 / count.max(1) as f64
    }))
}

/// The share of all runs of two tokens that are different ones.
fn diversity(rollouts: &[&Rollout]) -> f64 {
    let runs = || rollouts.iter().flat_map(|r| r.completion().windows(2));
    let distinct = runs().collect::<BTreeSet<_>>().len();
    distinct as f64 / runs().count().max(1) as f64
}

/// The scores against the completions' form. What differs between prompts is no matter of form: of
/// several completions of a prompt, only differences from their mean count.
fn form(seen: &Seen<'_>) -> Moments {
    let mut moments = Moments::default();
    let size = seen.group_size.max(1);
    for (group, scores) in seen.rollouts.chunks(size).zip(seen.scores.chunks(size)) {
        let features: Vec<[f64; FEATURES]> = group.iter().map(|r| features(r)).collect();
        let values: Vec<f64> = scores.iter().map(|s| s.value).collect();
        let (mut middle, mut level) = ([0.0; FEATURES], 0.0);
        if group.len() > 1 {
            moments.centred();
            for (i, middle) in middle.iter_mut().enumerate() {
                *middle = mean(features.iter().map(|f| f[i]));
            }
            level = mean(values.iter().copied());
        }
        for (features, value) in features.iter().zip(values) {
            let mut off = *features;
            off.iter_mut().zip(middle).for_each(|(x, m)| *x -= m);
            moments.add(&off, value - level);
        }
    }
    moments
}

const FEATURES: usize = 7;

/// Length (and its logarithm), ended or not, and how the text is set out.
fn features(rollout: &Rollout) -> [f64; FEATURES] {
    let text = &rollout.text;
    let tokens = rollout.completion().len() as f64;
    let characters = text.chars().count().max(1) as f64;
    let share =
        |holds: fn(char) -> bool| text.chars().filter(|c| holds(*c)).count() as f64 / characters;
    let lists = text.lines().filter(|line| {
        let line = line.trim_start();
        line.starts_with(['-', '*', '#']) || line.starts_with(|c: char| c.is_ascii_digit())
    });
    [
        tokens,
        (1.0 + tokens).ln(),
        f64::from(u8::from(rollout.finish == Finish::Eos)),
        text.lines().count() as f64,
        lists.count() as f64,
        share(|c| c.is_ascii_punctuation()),
        share(char::is_uppercase),
    ]
}

#[cfg(test)]
mod tests {
    use togi_data::{Sample, rng::CounterRng};

    use super::*;

    /// A completion of `length` words of a vocabulary of 1,000, and its score.
    fn completion(rng: &mut CounterRng, length: usize, score: f64) -> (Rollout, Score) {
        let ids: Vec<u32> = (0..length).map(|_| rng.below(1000) as u32).collect();
        let rollout = Rollout {
            prompt: "p".to_owned(),
            prompt_len: 1,
            sample: Sample::from_parts(&[0], &ids, &[]),
            text: "word ".repeat(length),
            finish: Finish::Length,
            sampler_logps: Vec::new(),
            sampler_entropies: Vec::new(),
        };
        (rollout, Score::new(score).unwrap())
    }

    struct Run {
        monitor: Monitor,
        config: MonitorConfig,
        alarms: Vec<Alarm>,
        row: Row,
        rng: CounterRng,
    }

    impl Run {
        fn new() -> Self {
            Self {
                monitor: Monitor::default(),
                config: MonitorConfig::default(),
                alarms: Vec::new(),
                row: Row::default(),
                rng: CounterRng::new(5, &[1]),
            }
        }

        /// A step whose 64 completions are made by `make`.
        fn step(&mut self, kl: f64, make: impl Fn(&mut CounterRng) -> (Rollout, Score)) {
            let all: Vec<_> = (0..64).map(|_| make(&mut self.rng)).collect();
            let seen = Seen {
                rollouts: all.iter().map(|pair| &pair.0).collect(),
                scores: all.iter().map(|pair| &pair.1).collect(),
                group_size: 1,
                entropy: 1.0,
                kl: Some(kl),
            };
            let step = self.monitor.steps + 1;
            self.row = Row::default();
            let place = ("ppo", step);
            let alarms = self.monitor.step(&self.config, place, &seen, &mut self.row);
            self.alarms.extend(alarms);
            // What a checkpoint keeps is all that is needed to go on.
            let kept = serde_json::to_string(&self.monitor).unwrap();
            self.monitor = serde_json::from_str(&kept).unwrap();
        }

        fn names(&self) -> Vec<&str> {
            self.alarms.iter().map(|a| &*a.monitor).collect()
        }
    }

    #[test]
    fn a_steady_run_raises_nothing_and_a_lengthening_one_once() {
        let mut run = Run::new();
        for step in 0..40 {
            run.step(f64::from(step) / 10.0, |rng| {
                let (length, score) = (8 + rng.below(5), rng.gaussian());
                completion(rng, length, score)
            });
        }
        assert_eq!(run.names(), Vec::<&str>::new());
        for step in 0..12 {
            run.step(4.0, |rng| completion(rng, 12 + step, 0.5));
        }
        assert_eq!(run.names(), ["length"]);
        let alarm = &run.alarms[0];
        assert!(alarm.value > alarm.threshold && alarm.text.contains("length of completions"));
        // Back within the limit, and out again: a second alarm.
        for length in [10, 10, 10, 10, 10, 10, 30, 30, 30] {
            run.step(4.0, |rng| completion(rng, length, 0.5));
        }
        assert_eq!(run.names(), ["length", "length"]);
    }

    #[test]
    fn a_reward_that_is_length_is_seen_and_one_that_is_not_is_not() {
        let mut run = Run::new();
        for _ in 0..6 {
            run.step(0.1, |rng| {
                let length = 5 + rng.below(10);
                let score = length as f64 + 0.5 * rng.gaussian();
                completion(rng, length, score)
            });
        }
        assert_eq!(run.names(), ["explained_by_form"]);
        assert!(run.row.get("monitor/explained_by_form").unwrap() > 0.9);
    }

    #[test]
    fn repeating_and_uniform_completions_are_seen() {
        let mut run = Run::new();
        let varied = |rng: &mut CounterRng| completion(rng, 12, 0.0);
        let same = |_: &mut CounterRng| {
            let mut rng = CounterRng::new(0, &[]);
            let (mut rollout, score) = completion(&mut rng, 12, 0.0);
            rollout.sample = Sample::from_parts(&[0], &[7; 12], &[]);
            (rollout, score)
        };
        (0..6).for_each(|_| run.step(0.1, varied));
        (0..6).for_each(|_| run.step(0.1, same));
        assert_eq!(run.names(), ["repetition", "diversity"]);
    }

    #[test]
    fn a_reward_past_its_turning_point_and_a_falling_gold_are_seen() {
        let mut run = Run::new();
        let truth = Fit {
            form: Form::Reinforcement,
            alpha: 1.0,
            beta: 0.6,
            r_squared: 1.0,
        };
        for step in 1..60 {
            let kl = f64::from(step) / 3.0;
            run.step(kl, |rng| {
                let score = truth.at(kl) + 0.05 * rng.gaussian();
                completion(rng, 10, score)
            });
        }
        assert_eq!(run.names(), ["turning_kl"]);
        let turn = run.row.get("monitor/turning_kl").unwrap();
        assert!(
            (turn / truth.turning_point().unwrap() - 1.0).abs() < 0.3,
            "{turn}"
        );

        let mut look = |gold: f64, proxy: f64| {
            let mut row = Row::default();
            row.set("val/scores", proxy);
            // A little noise, the same at each look.
            let golds: Vec<f64> = (0..64)
                .map(|i| gold + f64::from(i % 2) * 0.1 - 0.05)
                .collect();
            let place = ("ppo", 60);
            run.monitor.look(&run.config, place, &golds, &mut row).len()
        };
        let looks = [(0.6, 1.0), (0.7, 2.0), (0.69, 2.1), (0.6, 3.0), (0.5, 4.0)];
        assert_eq!(
            looks.map(|(gold, proxy)| look(gold, proxy)),
            [0, 0, 0, 1, 0]
        );
        // A fall together with the reward is no hacking.
        assert_eq!(look(0.9, 5.0) + look(0.5, 4.0), 0);
        // Nor is one that a few prompts make.
        let mut row = Row::default();
        row.set("val/scores", 9.0);
        let few: Vec<f64> = (0..64).map(|i| if i < 2 { -1.5 } else { 0.9 }).collect();
        let alarms = run.monitor.look(&run.config, ("ppo", 61), &few, &mut row);
        assert!(alarms.is_empty() && row.get("monitor/gold_fall").unwrap() > 0.05);
    }

    #[test]
    fn nothing_is_raised_where_nothing_is_to_be() {
        let mut run = Run::new();
        run.config.action = AlarmAction::Log;
        for length in [3, 3, 3, 3, 3, 30, 30, 30] {
            run.step(0.1, |rng| completion(rng, length, length as f64));
        }
        assert!(run.alarms.is_empty());
        assert!(run.config.validate().is_ok());
        run.config.entropy_floor = 1.5;
        let text = run.config.validate().unwrap_err().to_string();
        assert!(text.contains("monitor.entropy_floor"), "{text}");
    }
}
