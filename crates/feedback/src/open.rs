//! The item on the screen: what is asked, what was picked, and the reason that is typed.

use std::time::SystemTime;

use unicode_segmentation::UnicodeSegmentation;

use crate::{
    annotation::{Annotation, Verdict},
    items::Item,
    order::Planned,
    picks::Picks,
    session::Key,
};

/// The longest reason, in characters.
pub const LONGEST_REASON: usize = 2000;

/// What is asked of the open item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Which answer is better.
    Choosing,
    /// By how much.
    Strength,
    /// A reason is being typed.
    Reason,
}

/// The item on the screen.
#[derive(Clone, Debug)]
pub struct Open {
    pub(crate) planned: Planned,
    /// The answers in the order shown, as indices into the item's.
    pub shown: Vec<usize>,
    /// What is asked.
    pub phase: Phase,
    /// What was picked so far.
    pub picks: Picks,
    /// The reason so far.
    pub reason: String,
    /// The reason before it was edited, and the phase to go back to.
    before: (String, Phase),
    started: SystemTime,
}

impl Open {
    pub(crate) fn new(planned: Planned, shown: Vec<usize>, now: SystemTime) -> Self {
        Self {
            planned,
            shown,
            phase: Phase::Choosing,
            picks: Picks::default(),
            reason: String::new(),
            before: (String::new(), Phase::Choosing),
            started: now,
        }
    }

    pub(crate) fn edit_reason(&mut self) {
        self.before = (self.reason.clone(), self.phase);
        self.phase = Phase::Reason;
    }

    pub(crate) fn type_reason(&mut self, key: Key) {
        let room = LONGEST_REASON.saturating_sub(self.reason.chars().count());
        match key {
            Key::Char(c) if room > 0 && !c.is_control() => self.reason.push(c),
            Key::Paste(text) => {
                let one_line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
                self.reason.extend(one_line.take(room));
            }
            Key::Backspace => {
                if let Some((at, _)) = self.reason.grapheme_indices(true).next_back() {
                    self.reason.truncate(at);
                }
            }
            Key::Enter => self.phase = self.before.1,
            Key::Esc => {
                (self.reason, self.phase) = (std::mem::take(&mut self.before.0), self.before.1);
            }
            _ => {}
        }
    }

    /// The judgement, complete.
    pub(crate) fn annotation(
        &self,
        item: &Item,
        annotator: &str,
        verdict: Verdict,
        now: SystemTime,
    ) -> Annotation {
        let reason = match self.reason.trim() {
            "" if verdict == Verdict::Skipped => Some("skipped".to_owned()),
            "" => None,
            said => Some(said.to_owned()),
        };
        Annotation {
            id: Annotation::id_of(&item.id, annotator, self.planned.pass, self.started),
            item: item.id.clone(),
            annotator: annotator.to_owned(),
            pass: self.planned.pass,
            place: item.place.clone(),
            prompt: item.prompt.clone(),
            answers: item.answers.clone(),
            shown: self.shown.clone(),
            verdict,
            reason,
            started: self.started,
            // Clocks are set back at times.
            ended: now.max(self.started),
        }
    }
}
