//! Progress on the terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use togi_train::{Event, Observer, Row};

/// A bar a stage: step, tokens/s, loss, reward, KL and time left. Where the output is no
/// terminal, a line every few seconds.
pub(crate) struct Bars {
    bar: Option<ProgressBar>,
    terminal: bool,
    name: String,
    total: u64,
    last_line: Instant,
    started: Instant,
    first_step: u64,
    /// Monitors that have raised an alarm in this stage.
    alarms: Vec<String>,
}

impl Bars {
    pub(crate) fn new() -> Self {
        let target = ProgressDrawTarget::stderr();
        Self {
            bar: None,
            terminal: !target.is_hidden(),
            name: String::new(),
            total: 0,
            last_line: Instant::now(),
            started: Instant::now(),
            first_step: 0,
            alarms: Vec::new(),
        }
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }
}

/// The numbers that matter, in the stage's own terms.
fn numbers(row: &Row, tokens_per_second: f64) -> String {
    let mut parts = vec![format!("{tokens_per_second:.0} tok/s")];
    let named = [
        ("loss", "loss"),
        ("objective/scores", "reward"),
        ("rewards/margins", "margin"),
        ("rewards/accuracies", "accuracy"),
        ("objective/kl", "KL"),
    ];
    for (metric, name) in named {
        if let Some(value) = row.get(metric) {
            parts.push(format!("{name} {value:.3}"));
        }
    }
    parts.join("  ")
}

impl Observer for Bars {
    fn on(&mut self, event: Event<'_>) {
        match event {
            Event::Stage { name, step, total } => {
                self.name = name.to_owned();
                self.total = total;
                self.started = Instant::now();
                self.first_step = step;
                self.alarms.clear();
                if self.terminal {
                    let bar = ProgressBar::new(total).with_position(step);
                    let template = "{prefix:>8} {bar:24} {pos}/{len}  {msg}  {eta} left";
                    if let Ok(style) = ProgressStyle::with_template(template) {
                        bar.set_style(style);
                    }
                    bar.set_prefix(name.to_owned());
                    bar.reset_eta();
                    self.bar = Some(bar);
                }
            }
            Event::Step {
                step,
                row,
                tokens_per_second,
            } => {
                let mut text = numbers(row, tokens_per_second);
                if !self.alarms.is_empty() {
                    text.push_str(&format!("  ALARM {}", self.alarms.join(", ")));
                }
                if let Some(bar) = &self.bar {
                    bar.set_message(text);
                    bar.set_position(step);
                } else if self.last_line.elapsed() > Duration::from_secs(5) || step == self.total {
                    self.last_line = Instant::now();
                    let per_step = self.started.elapsed().as_secs_f64()
                        / (step - self.first_step).max(1) as f64;
                    let left = per_step * (self.total - step) as f64;
                    eprintln!(
                        "{:>8} {step}/{}  {text}  {left:.0}s left",
                        self.name, self.total
                    );
                }
            }
            Event::Eval { step, row } => {
                let shown: Vec<String> = row
                    .iter()
                    .map(|(name, value)| format!("{name} {value:.4}"))
                    .collect();
                self.say(&format!(
                    "{:>8} {step}/{}  {}",
                    self.name,
                    self.total,
                    shown.join("  ")
                ));
            }
            Event::Alarm(alarm) => {
                if !self.alarms.contains(&alarm.monitor) {
                    self.alarms.push(alarm.monitor.clone());
                }
                let (name, step) = (&self.name, alarm.step);
                self.say(&format!(
                    "{name:>8} {step}/{}  ALARM {}",
                    self.total, alarm.text
                ));
            }
            Event::Message(text) => self.say(text),
            Event::Done => {
                if let Some(bar) = self.bar.take() {
                    bar.finish();
                }
            }
        }
    }
}
