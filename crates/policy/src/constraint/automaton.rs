//! Finite automata over bytes: regular expressions, and what satisfies several of them.

use std::{collections::HashMap, hash::Hash};

use regex_automata::{
    Anchored, MatchKind,
    dfa::{Automaton as _, StartKind, dense},
    nfa::thompson,
    util::{primitives::StateID, start},
};

use super::error::ConstraintError;

/// The state from which nothing is accepted any more.
pub(super) const DEAD: u32 = u32::MAX;

/// Entries of the largest transition table, 64 MiB.
pub(super) const LIMIT: usize = 16 << 20;

/// A deterministic automaton from whose states an accepting one is always in reach.
#[derive(Debug)]
pub(super) struct Automaton {
    classes: Classes,
    /// `[state, class]`; the start is state 0.
    next: Vec<u32>,
    /// Bytes from each state to the nearest accepting one.
    distance: Vec<u32>,
}

/// Bytes that every state treats alike.
#[derive(Clone, Debug)]
pub(super) struct Classes {
    of: [u8; 256],
    /// A byte of each.
    sample: Vec<u8>,
}

impl Classes {
    pub(super) fn by<K: Hash + Eq>(key: impl Fn(u8) -> K) -> Self {
        let mut seen = HashMap::new();
        let mut classes = Self {
            of: [0; 256],
            sample: Vec::new(),
        };
        for byte in 0..=255_u8 {
            let class = *seen.entry(key(byte)).or_insert_with(|| {
                classes.sample.push(byte);
                classes.sample.len() - 1
            });
            classes.of[usize::from(byte)] = class as u8;
        }
        classes
    }
}

impl Automaton {
    /// Texts that the whole pattern matches.
    pub(super) fn regex(pattern: &str) -> Result<Self, ConstraintError> {
        let at = |position: usize, reason: String| ConstraintError::Regex {
            pattern: pattern.to_owned(),
            position,
            reason,
        };
        let unsupported = |reason: String| ConstraintError::RegexUnsupported {
            pattern: pattern.to_owned(),
            reason,
        };
        let hir = regex_syntax::parse(pattern).map_err(|error| match error {
            regex_syntax::Error::Parse(e) => at(e.span().start.offset, e.kind().to_string()),
            regex_syntax::Error::Translate(e) => at(e.span().start.offset, e.kind().to_string()),
            other => at(0, other.to_string()),
        })?;
        let too_large = || ConstraintError::TooLarge {
            field: "regex",
            limit: LIMIT,
        };
        let nfa = thompson::Config::new().nfa_size_limit(Some(4 * LIMIT));
        let nfa = thompson::Compiler::new()
            .configure(nfa)
            .build_from_hir(&hir)
            .map_err(|e| match e.size_limit() {
                Some(_) => too_large(),
                None => unsupported(e.to_string()),
            })?;
        // All matches, so that an alternative that ends sooner does not hide a longer one.
        let config = dense::Config::new()
            .match_kind(MatchKind::All)
            .start_kind(StartKind::Anchored)
            .accelerate(false)
            .dfa_size_limit(Some(4 * LIMIT))
            .determinize_size_limit(Some(8 * LIMIT));
        let dfa = dense::Builder::new()
            .configure(config)
            .build_from_nfa(&nfa)
            .map_err(|e| {
                if e.is_size_limit_exceeded() {
                    too_large()
                } else {
                    unsupported(e.to_string())
                }
            })?;
        let anchored = start::Config::new().anchored(Anchored::Yes);
        let start = dfa
            .start_state(&anchored)
            .map_err(|e| unsupported(e.to_string()))?;
        let classes = Classes::by(|byte| dfa.byte_classes().get(byte));
        let next = |state: &StateID, byte: u8| {
            let next = dfa.next_state(*state, byte);
            (!dfa.is_dead_state(next) && !dfa.is_quit_state(next)).then_some(next)
        };
        let accepts = |state: &StateID| dfa.is_match_state(dfa.next_eoi_state(*state));
        Self::explore("regex", classes, start, next, accepts)
    }

    /// Every text.
    pub(super) fn anything() -> Result<Self, ConstraintError> {
        Self::regex("(?s:.*)")
    }

    /// What both accept.
    pub(super) fn and(&self, other: &Self, field: &'static str) -> Result<Self, ConstraintError> {
        let of = |classes: &Classes, byte: u8| classes.of[usize::from(byte)];
        let classes = Classes::by(|byte| (of(&self.classes, byte), of(&other.classes, byte)));
        let next = |state: &(u32, u32), byte: u8| {
            let next = (self.next(state.0, byte), other.next(state.1, byte));
            (next.0 != DEAD && next.1 != DEAD).then_some(next)
        };
        let accepts = |state: &(u32, u32)| self.accepts(state.0) && other.accepts(state.1);
        Self::explore(field, classes, (0, 0), next, accepts)
    }

    pub(super) fn explore<S: Copy + Hash + Eq>(
        field: &'static str,
        classes: Classes,
        start: S,
        next: impl Fn(&S, u8) -> Option<S>,
        accepts: impl Fn(&S) -> bool,
    ) -> Result<Self, ConstraintError> {
        let mut numbers = HashMap::from([(start, 0_u32)]);
        let mut states = vec![start];
        let mut table = Vec::new();
        let mut at = 0;
        while at < states.len() {
            if table.len() > LIMIT {
                let limit = LIMIT;
                return Err(ConstraintError::TooLarge { field, limit });
            }
            for byte in &classes.sample {
                table.push(match next(&states[at], *byte) {
                    None => DEAD,
                    Some(state) => *numbers.entry(state).or_insert_with(|| {
                        states.push(state);
                        states.len() as u32 - 1
                    }),
                });
            }
            at += 1;
        }
        let mut automaton = Self {
            classes,
            next: table,
            distance: Vec::new(),
        };
        let accepting: Vec<bool> = states.iter().map(accepts).collect();
        automaton.trim(&accepting);
        Ok(automaton)
    }

    /// Measures the way to acceptance and closes the ways that do not lead there.
    fn trim(&mut self, accepting: &[bool]) {
        let width = self.classes.sample.len();
        let mut before: Vec<Vec<u32>> = vec![Vec::new(); accepting.len()];
        for (entry, next) in self.next.iter().enumerate() {
            let from = (entry / width) as u32;
            if *next != DEAD && before[*next as usize].last() != Some(&from) {
                before[*next as usize].push(from);
            }
        }
        self.distance = vec![DEAD; accepting.len()];
        let mut queue: Vec<u32> = (0..accepting.len() as u32)
            .filter(|state| accepting[*state as usize])
            .collect();
        for state in &queue {
            self.distance[*state as usize] = 0;
        }
        let mut at = 0;
        while at < queue.len() {
            let state = queue[at];
            at += 1;
            for from in &before[state as usize] {
                if self.distance[*from as usize] == DEAD {
                    self.distance[*from as usize] = self.distance[state as usize] + 1;
                    queue.push(*from);
                }
            }
        }
        for next in &mut self.next {
            if *next != DEAD && self.distance[*next as usize] == DEAD {
                *next = DEAD;
            }
        }
    }

    pub(super) fn next(&self, state: u32, byte: u8) -> u32 {
        let class = usize::from(self.classes.of[usize::from(byte)]);
        self.next[state as usize * self.classes.sample.len() + class]
    }

    /// True if a text may end here.
    pub(super) fn accepts(&self, state: u32) -> bool {
        self.distance[state as usize] == 0
    }

    pub(super) fn states(&self) -> usize {
        self.distance.len()
    }

    /// Bytes of the shortest text that is accepted; `None` if none is.
    pub(super) fn shortest(&self) -> Option<usize> {
        (self.distance[0] != DEAD).then_some(self.distance[0] as usize)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn accepts(automaton: &Automaton, text: &str) -> bool {
        let mut state = 0;
        for byte in text.bytes() {
            if state != DEAD {
                state = automaton.next(state, byte);
            }
        }
        state != DEAD && automaton.accepts(state)
    }

    #[test]
    fn a_constraint_regex_matches_the_whole_text() {
        let both = Automaton::regex("a|ab|é+$").unwrap();
        for (text, wanted) in [
            ("a", true),
            ("ab", true),
            ("abc", false),
            ("éé", true),
            ("", false),
        ] {
            assert_eq!(accepts(&both, text), wanted, "{text}");
        }
        assert_eq!(both.shortest(), Some(1));
        assert_eq!(Automaton::regex(r"[^\s\S]").unwrap().shortest(), None);
        assert_eq!(Automaton::regex("x{3,7}").unwrap().shortest(), Some(3));
    }

    #[test]
    fn constraint_regexes_that_are_wrong_say_where() {
        let error = |pattern: &str| Automaton::regex(pattern).unwrap_err().to_string();
        assert!(error("ab(c").contains("byte 2"), "{}", error("ab(c"));
        assert!(
            error("a{9999999}").contains("automaton"),
            "{}",
            error("a{9999999}")
        );
        assert!(error(r"\bé\b").contains(r"\bé\b"), "{}", error(r"\bé\b"));
        assert!(error(r"(\p{L}{200}){200}").contains("automaton"));
    }
}
