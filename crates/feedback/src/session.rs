//! One annotator's sitting as a state machine: keys in, state and lines for the log out. No
//! terminal, no file, no clock.

use std::time::SystemTime;

use crate::{
    agenda::{Agenda, Done},
    annotation::{Annotation, Entry, Retraction, Strength, Verdict},
    error::FeedbackError,
    items::Item,
    open::{Open, Phase},
    order::{self, PlanOptions, Planned},
    picks::Picks,
    scroll::Extent,
};

/// A key, or a pasted text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Char(char),
    /// A text that was pasted: it counts in a reason, and nowhere else.
    Paste(String),
    /// Enter.
    Enter,
    /// Escape.
    Esc,
    /// Backspace.
    Backspace,
    /// Up one line.
    Up,
    /// Down one line.
    Down,
    /// Up one page.
    PageUp,
    /// Down one page.
    PageDown,
    /// To the beginning.
    Home,
    /// To the end.
    End,
    /// To the next heading.
    Tab,
    /// To the heading before.
    BackTab,
    /// Ctrl-C: quits, whatever is open.
    Interrupt,
}

/// What the caller has to do after a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing but draw.
    None,
    /// Append this to the log, then call [`Session::appended`]; until then keys do nothing.
    Append(Entry),
    /// End.
    Quit,
}

/// Who judges, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionOptions {
    /// Who.
    pub annotator: String,
    /// Rank all answers where there are more than two, instead of choosing the best.
    pub ranking: bool,
    /// Which items.
    pub plan: PlanOptions,
}

/// A sitting.
pub struct Session {
    items: Vec<Item>,
    options: SessionOptions,
    agenda: Agenda,
    open: Option<Open>,
    pending: Option<Pending>,
    scroll: usize,
    extent: Extent,
    message: String,
    saved: usize,
}

enum Pending {
    Save(Planned, Done, String),
    Undo(Planned),
}

impl Session {
    /// A sitting over these items. What the log says that this annotator has done is not shown
    /// again.
    ///
    /// # Errors
    /// When an option means nothing.
    pub fn new(
        items: Vec<Item>,
        log: &[Annotation],
        options: SessionOptions,
        now: SystemTime,
    ) -> Result<Self, FeedbackError> {
        let plan = order::plan(&items, &options.annotator, &options.plan)?;
        let agenda = Agenda::new(plan, &items, &options.annotator, log);
        let mut session = Self {
            items,
            options,
            agenda,
            open: None,
            pending: None,
            scroll: 0,
            extent: Extent::default(),
            message: String::new(),
            saved: 0,
        };
        session.open_next(now);
        Ok(session)
    }

    /// The item on the screen and what was said of it so far; none when all is done.
    pub fn open(&self) -> Option<(&Item, &Open)> {
        let open = self.open.as_ref()?;
        Some((&self.items[open.planned.item], open))
    }

    /// How many are done, and of how many. A skipped item does not come again.
    pub fn progress(&self) -> (usize, usize) {
        self.agenda.progress()
    }

    /// How many judgements this sitting appended, less those taken back.
    pub fn saved(&self) -> usize {
        self.saved
    }

    /// Who judges.
    pub fn annotator(&self) -> &str {
        &self.options.annotator
    }

    /// What was done last.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Says something until the next key.
    pub fn say(&mut self, message: impl Into<String>) {
        self.message = message.into();
    }

    /// True if something can be taken back.
    pub fn can_undo(&self) -> bool {
        self.agenda.last().is_some()
    }

    /// The first line of the page that is on the screen.
    pub fn scroll(&self) -> usize {
        self.scroll.min(self.extent.furthest())
    }

    /// Says how the page was drawn, so that scrolling ends at its end.
    pub fn set_extent(&mut self, extent: Extent) {
        self.extent = extent;
        self.scroll = self.scroll.min(self.extent.furthest());
    }

    /// True if all answers of the open item are to be ranked.
    pub fn is_ranking(&self) -> bool {
        let answers = self.open().map_or(0, |(item, _)| item.answers.len());
        self.options.ranking && answers > 2
    }

    /// Takes a key.
    pub fn press(&mut self, key: Key, now: SystemTime) -> Effect {
        if key == Key::Interrupt {
            return Effect::Quit;
        }
        if self.pending.is_some() {
            return Effect::None;
        }
        if let Some(open) = self.open.as_mut().filter(|o| o.phase == Phase::Reason) {
            open.type_reason(key);
            return Effect::None;
        }
        self.message.clear();
        match key {
            Key::Char('q' | 'Q') => Effect::Quit,
            Key::Char('u' | 'U') => self.undo(now),
            Key::Char(c) => self.judge(c.to_ascii_lowercase(), now),
            Key::Esc | Key::Backspace => {
                if let Some(open) = &mut self.open {
                    open.phase = Phase::Choosing;
                    open.picks.back();
                }
                Effect::None
            }
            key => {
                self.scroll = self.extent.after(self.scroll(), &key);
                Effect::None
            }
        }
    }

    /// The line that [`Effect::Append`] asked for is in the log: the next item opens.
    pub fn appended(&mut self, now: SystemTime) {
        match self.pending.take() {
            Some(Pending::Save(planned, done, message)) => {
                self.agenda.finish(planned, done);
                self.saved += 1;
                self.message = message;
                self.open_next(now);
            }
            Some(Pending::Undo(planned)) => {
                self.agenda.take_back(planned);
                self.saved = self.saved.saturating_sub(1);
                self.message = "Taken back: judge it again.".to_owned();
                self.open_item(planned, now);
            }
            None => {}
        }
    }

    fn judge(&mut self, key: char, now: SystemTime) -> Effect {
        let ranking = self.is_ranking();
        let Some(open) = &mut self.open else {
            return Effect::None;
        };
        match key {
            'r' => {
                open.edit_reason();
                Effect::None
            }
            's' => self.save(Verdict::Skipped, now),
            't' => self.save(Verdict::Tie, now),
            '1'..='3' if open.phase == Phase::Strength => {
                let strength = match key {
                    '1' => Strength::Slightly,
                    '2' => Strength::Clearly,
                    _ => Strength::MuchBetter,
                };
                match open.picks.verdict(&open.shown, strength) {
                    Some(verdict) => self.save(verdict, now),
                    None => Effect::None,
                }
            }
            '=' if ranking => {
                open.picks.tie_next();
                Effect::None
            }
            'a'..='i' => {
                let at = usize::from(key as u8 - b'a');
                if at >= open.shown.len() {
                    return Effect::None;
                }
                if !ranking {
                    open.picks = Picks::default();
                }
                open.picks.pick(at);
                if ranking && open.picks.count() < open.shown.len() {
                    open.phase = Phase::Choosing;
                } else if ranking && open.picks.all_tie() {
                    return self.save(Verdict::Tie, now);
                } else {
                    open.phase = Phase::Strength;
                }
                Effect::None
            }
            _ => Effect::None,
        }
    }

    fn save(&mut self, verdict: Verdict, now: SystemTime) -> Effect {
        let Some(open) = &self.open else {
            return Effect::None;
        };
        let planned = open.planned;
        let skipped = verdict == Verdict::Skipped;
        let said = match &verdict {
            Verdict::Choice { strength, .. } | Verdict::Ranking { strength, .. } => {
                format!("{}, {}", open.picks.words(), strength.words())
            }
            Verdict::Tie => "a tie".to_owned(),
            Verdict::Skipped => "skipped".to_owned(),
        };
        let item = &self.items[planned.item];
        let annotation = open.annotation(item, &self.options.annotator, verdict, now);
        let id = annotation.id.clone();
        let message = format!("Saved: {said}. u takes it back.");
        self.pending = Some(Pending::Save(planned, Done { id, skipped }, message));
        Effect::Append(Entry::Annotation(Box::new(annotation)))
    }

    fn undo(&mut self, now: SystemTime) -> Effect {
        let Some((planned, done)) = self.agenda.last() else {
            self.message = "Nothing to take back.".to_owned();
            return Effect::None;
        };
        let retraction = Retraction {
            retracted: done.id.clone(),
            annotator: self.options.annotator.clone(),
            at: now,
        };
        self.pending = Some(Pending::Undo(planned));
        Effect::Append(Entry::Retraction(retraction))
    }

    fn open_next(&mut self, now: SystemTime) {
        match self.agenda.next() {
            Some(planned) => self.open_item(planned, now),
            None => self.open = None,
        }
        self.scroll = 0;
    }

    fn open_item(&mut self, planned: Planned, now: SystemTime) {
        let item = &self.items[planned.item];
        let SessionOptions {
            annotator, plan, ..
        } = &self.options;
        let shown = order::shown(item, annotator, planned.pass, plan.seed);
        self.open = Some(Open::new(planned, shown, now));
        self.scroll = 0;
    }
}
