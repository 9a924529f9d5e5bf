//! What an annotator has done, and what is next.

use std::collections::HashMap;

use crate::{
    annotation::{Annotation, Verdict},
    items::Item,
    order::Planned,
};

/// A judgement that counts.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) id: String,
    pub(crate) skipped: bool,
}

/// The plan of one annotator, and how much of it is done.
#[derive(Clone, Debug)]
pub(crate) struct Agenda {
    plan: Vec<Planned>,
    done: HashMap<Planned, Done>,
    /// What can be taken back, the latest last.
    history: Vec<Planned>,
}

impl Agenda {
    /// The plan, less what the log says that this annotator has done.
    pub(crate) fn new(
        plan: Vec<Planned>,
        items: &[Item],
        annotator: &str,
        log: &[Annotation],
    ) -> Self {
        let planned: HashMap<(&str, u32), Planned> = plan
            .iter()
            .map(|p| ((items[p.item].id.as_str(), p.pass), *p))
            .collect();
        let mut agenda = Self {
            plan: Vec::new(),
            done: HashMap::new(),
            history: Vec::new(),
        };
        for line in log.iter().filter(|a| a.annotator == annotator) {
            if let Some(planned) = planned.get(&(line.item.as_str(), line.pass)) {
                let (id, skipped) = (line.id.clone(), line.verdict == Verdict::Skipped);
                agenda.finish(*planned, Done { id, skipped });
            }
        }
        agenda.plan = plan;
        agenda
    }

    pub(crate) fn finish(&mut self, planned: Planned, done: Done) {
        self.done.insert(planned, done);
        self.history.retain(|p| *p != planned);
        self.history.push(planned);
    }

    pub(crate) fn take_back(&mut self, planned: Planned) {
        self.done.remove(&planned);
        self.history.retain(|p| *p != planned);
    }

    /// What was done last.
    pub(crate) fn last(&self) -> Option<(Planned, &Done)> {
        let last = self.history.last()?;
        Some((*last, self.done.get(last)?))
    }

    pub(crate) fn next(&self) -> Option<Planned> {
        self.plan.iter().copied().find(|p| self.is_due(p))
    }

    /// How many are done, and of how many.
    pub(crate) fn progress(&self) -> (usize, usize) {
        let due = self.plan.iter().filter(|p| self.is_due(p)).count();
        (self.done.len(), self.done.len() + due)
    }

    /// What is not done, but for repetitions of what was skipped.
    fn is_due(&self, planned: &Planned) -> bool {
        let first = Planned {
            pass: 0,
            ..*planned
        };
        let skipped = planned.pass > 0 && self.done.get(&first).is_some_and(|d| d.skipped);
        !skipped && !self.done.contains_key(planned)
    }
}
