//! What the tests share.

#![allow(dead_code, reason = "each test uses some")]

use std::time::{Duration, SystemTime};

use togi_data::Content;
use togi_feedback::{
    Annotation, Effect, Entry, Item, Key, PlanOptions, Session, SessionOptions, Strength, Verdict,
    annotation::item_id,
};

pub(crate) fn time(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

pub(crate) fn text(text: &str) -> Content {
    Content::Text(text.to_owned())
}

pub(crate) fn item(prompt: &str, answers: &[&str]) -> Item {
    let prompt = text(prompt);
    let answers: Vec<Content> = answers.iter().map(|a| text(a)).collect();
    Item {
        id: item_id(&prompt, &answers),
        place: "data.jsonl:1".to_owned(),
        places: vec!["data.jsonl:1".to_owned()],
        prompt,
        answers,
    }
}

/// `n` items with two answers each.
pub(crate) fn pairs(n: usize) -> Vec<Item> {
    (0..n)
        .map(|i| item(&format!("prompt {i}"), &["first", "second"]))
        .collect()
}

pub(crate) fn annotation(item: &Item, annotator: &str, pass: u32, verdict: Verdict) -> Annotation {
    let started = time(u64::from(pass));
    Annotation {
        id: Annotation::id_of(&item.id, annotator, pass, started),
        item: item.id.clone(),
        annotator: annotator.to_owned(),
        pass,
        place: item.place.clone(),
        prompt: item.prompt.clone(),
        answers: item.answers.clone(),
        shown: (0..item.answers.len()).rev().collect(),
        verdict,
        reason: None,
        started,
        ended: started + Duration::from_secs(9),
    }
}

pub(crate) fn choice(answer: usize, strength: u8) -> Verdict {
    Verdict::Choice {
        answer,
        strength: Strength::try_from(strength).unwrap(),
    }
}

pub(crate) fn ranking(ranks: &[u32], strength: u8) -> Verdict {
    Verdict::Ranking {
        ranks: ranks.to_vec(),
        strength: Strength::try_from(strength).unwrap(),
    }
}

/// A sitting, with the lines it asked to append.
pub(crate) struct Sitting {
    pub(crate) session: Session,
    pub(crate) lines: Vec<Entry>,
    pub(crate) quit: bool,
    seconds: u64,
}

impl Sitting {
    pub(crate) fn new(
        items: Vec<Item>,
        log: &[Annotation],
        ranking: bool,
        plan: PlanOptions,
    ) -> Self {
        let options = SessionOptions {
            annotator: "ann".to_owned(),
            ranking,
            plan,
        };
        Self {
            session: Session::new(items, log, options, time(0)).unwrap(),
            lines: Vec::new(),
            quit: false,
            seconds: 0,
        }
    }

    pub(crate) fn press(&mut self, key: Key) {
        self.seconds += 1;
        let now = time(self.seconds);
        match self.session.press(key, now) {
            Effect::None => {}
            Effect::Quit => self.quit = true,
            Effect::Append(entry) => {
                self.lines.push(entry);
                self.session.appended(now);
            }
        }
    }

    /// Each character is a key.
    pub(crate) fn keys(&mut self, keys: &str) {
        for c in keys.chars() {
            self.press(Key::Char(c));
        }
    }

    pub(crate) fn annotations(&self) -> Vec<Annotation> {
        let annotation = |entry: &Entry| match entry {
            Entry::Annotation(annotation) => Some((**annotation).clone()),
            Entry::Retraction(_) => None,
        };
        self.lines.iter().filter_map(annotation).collect()
    }
}
