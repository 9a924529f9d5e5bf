//! What monitors found wrong, near the top of the page and as marks in the curves.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::page::{escape, number};

/// A monitor that went off.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// The stage of the run, as in the rows of metrics; empty: every stage.
    pub stage: String,
    /// The step at which it went off.
    pub step: u64,
    /// Its name.
    pub monitor: String,
    /// What it saw.
    pub value: f64,
    /// What it allows.
    pub threshold: f64,
    /// What was done: `warn`, `stop`, …
    pub action: String,
    /// A sentence for people.
    pub text: String,
}

/// This many are shown at once; the rest are folded.
const SHOWN: usize = 20;

/// The alarms as a list, in the order of `alarms`.
pub(super) fn list(alarms: &[Alarm]) -> String {
    let (shown, rest) = alarms.split_at(alarms.len().min(SHOWN));
    let mut body = items(shown);
    if !rest.is_empty() {
        let (count, rest) = (rest.len(), items(rest));
        let _ = write!(
            body,
            "<details><summary>{count} more</summary>{rest}</details>"
        );
    }
    body
}

fn items(alarms: &[Alarm]) -> String {
    let mut body = "<ul class=alarms>".to_owned();
    for alarm in alarms {
        let stage = match alarm.stage.as_str() {
            "" => String::new(),
            stage => format!("<bdi>{}</bdi>, ", escape(stage)),
        };
        let _ = write!(
            body,
            "<li><b><span aria-hidden=true>▲</span> Alarm</b> {stage}step {}: <bdi>{}</bdi> is {}, \
             limit {}; action: <bdi>{}</bdi><p><bdi>{}</bdi></p></li>",
            alarm.step,
            escape(&alarm.monitor),
            number(alarm.value),
            number(alarm.threshold),
            escape(&alarm.action),
            escape(&alarm.text)
        );
    }
    body + "</ul>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_are_text_and_many_are_folded() {
        let alarm = Alarm {
            stage: "ppo".to_owned(),
            step: 12,
            monitor: "<kl>".to_owned(),
            value: 12.5,
            threshold: 10.0,
            action: "stop".to_owned(),
            text: "KL & all".to_owned(),
        };
        let html = list(&vec![alarm; SHOWN + 3]);
        assert!(html.contains("<bdi>ppo</bdi>, step 12: <bdi>&lt;kl&gt;</bdi> is 12.5, limit 10"));
        assert!(html.contains("<summary>3 more</summary>") && html.contains("KL &amp; all"));
        assert_eq!(html.matches("<li>").count(), SHOWN + 3);
    }
}
