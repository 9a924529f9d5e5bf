//! What was picked of an open item, by the letters on the screen.

use crate::annotation::{Strength, Verdict};

/// The answers picked so far, the best first, as positions on the screen. Answers in one group
/// tie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picks {
    groups: Vec<Vec<usize>>,
    /// The next pick ties with the last one.
    tied: bool,
}

impl Picks {
    /// Picks the answer at a position; one that was picked already stays where it is.
    pub fn pick(&mut self, position: usize) {
        if self.rank(position).is_some() {
            return;
        }
        match self.groups.last_mut() {
            Some(last) if self.tied => last.push(position),
            _ => self.groups.push(vec![position]),
        }
        self.tied = false;
    }

    /// The next pick ties with the last; a second time takes that back.
    pub fn tie_next(&mut self) {
        self.tied = !self.tied && !self.groups.is_empty();
    }

    /// Takes the last pick back.
    pub fn back(&mut self) {
        if self.tied {
            self.tied = false;
            return;
        }
        if let Some(last) = self.groups.last_mut() {
            last.pop();
            self.tied = !last.is_empty();
        }
        self.groups.retain(|group| !group.is_empty());
    }

    /// How many are picked.
    pub fn count(&self) -> usize {
        self.groups.iter().map(Vec::len).sum()
    }

    /// True if all that are picked are in one group of several.
    pub fn all_tie(&self) -> bool {
        self.groups.len() == 1 && self.count() > 1
    }

    /// The rank of the answer at a position, from 1.
    pub fn rank(&self, position: usize) -> Option<usize> {
        let at = self.groups.iter().position(|g| g.contains(&position));
        at.map(|at| at + 1)
    }

    /// In letters: `B > A = C`.
    pub fn words(&self) -> String {
        let letters = |group: &Vec<usize>| {
            let letters: Vec<String> = group.iter().map(|p| letter(*p).to_string()).collect();
            letters.join(" = ")
        };
        let groups: Vec<String> = self.groups.iter().map(letters).collect();
        let tied = if self.tied { " =" } else { "" };
        format!("{}{tied}", groups.join(" > "))
    }

    /// The verdict, where one answer or all are picked.
    pub(crate) fn verdict(&self, shown: &[usize], strength: Strength) -> Option<Verdict> {
        if self.count() == 1 {
            let answer = *shown.get(self.groups[0][0])?;
            return Some(Verdict::Choice { answer, strength });
        }
        let mut ranks = vec![0; shown.len()];
        for (position, answer) in shown.iter().enumerate() {
            ranks[*answer] = self.rank(position)? as u32;
        }
        Some(Verdict::Ranking { ranks, strength })
    }
}

/// The letter of a position on the screen.
pub fn letter(position: usize) -> char {
    char::from(b'A' + position.min(25) as u8)
}
