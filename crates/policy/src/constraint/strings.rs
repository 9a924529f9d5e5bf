//! Automata of strings that have to be, or must not be, in a text.

use super::{
    automaton::{Automaton, Classes, DEAD, LIMIT},
    error::ConstraintError,
};

impl Automaton {
    /// Byte sequences with `string` in them.
    pub(super) fn containing(string: &str) -> Result<Self, ConstraintError> {
        let strings = Occurrences::new("required", &[string])?;
        let next = |state: &(u32, bool), byte: u8| {
            let (at, found) = *state;
            let next = strings.next(at, byte);
            Some(if found {
                (at, true)
            } else {
                (next, strings.ends[next as usize])
            })
        };
        Self::explore("required", strings.classes(), (0, false), next, |s| s.1)
    }

    /// Byte sequences with none of `strings` in them.
    pub(super) fn avoiding(strings: &[&str]) -> Result<Self, ConstraintError> {
        let strings = Occurrences::new("banned", strings)?;
        let next = |at: &u32, byte: u8| {
            let next = strings.next(*at, byte);
            (!strings.ends[next as usize]).then_some(next)
        };
        Self::explore("banned", strings.classes(), 0, next, |_| true)
    }
}

/// Finds strings in a stream of bytes (Aho and Corasick 1975).
struct Occurrences {
    /// The state after each byte: the longest end of what was read that begins a string.
    next: Vec<[u32; 256]>,
    /// True where a string ends.
    ends: Vec<bool>,
    used: [bool; 256],
}

impl Occurrences {
    fn new(field: &'static str, strings: &[&str]) -> Result<Self, ConstraintError> {
        const ROOT: u32 = 0;
        let limit = LIMIT;
        if strings.iter().map(|s| s.len() * 256).sum::<usize>() > limit {
            return Err(ConstraintError::TooLarge { field, limit });
        }
        let mut found = Self {
            next: vec![[DEAD; 256]],
            ends: vec![false],
            used: [false; 256],
        };
        for string in strings {
            let mut at = ROOT as usize;
            for byte in string.bytes().map(usize::from) {
                found.used[byte] = true;
                if found.next[at][byte] == DEAD {
                    found.next[at][byte] = found.next.len() as u32;
                    found.next.push([DEAD; 256]);
                    found.ends.push(false);
                }
                at = found.next[at][byte] as usize;
            }
            found.ends[at] = true;
        }
        // Breadth first: where a state has no way on, it goes where its longest proper end goes.
        let mut queue = vec![(ROOT, ROOT)];
        let mut at = 0;
        while at < queue.len() {
            let (state, end) = queue[at];
            at += 1;
            found.ends[state as usize] |= found.ends[end as usize];
            for byte in 0..256 {
                let fallback = if state == ROOT {
                    ROOT
                } else {
                    found.next[end as usize][byte]
                };
                match found.next[state as usize][byte] {
                    DEAD => found.next[state as usize][byte] = fallback,
                    child => queue.push((child, fallback)),
                }
            }
        }
        Ok(found)
    }

    fn next(&self, state: u32, byte: u8) -> u32 {
        self.next[state as usize][usize::from(byte)]
    }

    fn classes(&self) -> Classes {
        Classes::by(|byte| self.used[usize::from(byte)].then_some(byte))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::automaton::tests::accepts, *};

    #[test]
    fn constraint_strings_are_found_wherever_they_stand() {
        let strings = ["he", "she", "hers", "aab"];
        let texts = ["ushers", "aaab", "shh", "h e", "aaa", "her", "a\u{e9}b"];
        let avoiding = Automaton::avoiding(&strings).unwrap();
        for text in texts {
            let free = !strings.iter().any(|s| text.contains(s));
            assert_eq!(accepts(&avoiding, text), free, "{text}");
            for string in strings {
                let containing = Automaton::containing(string).unwrap();
                assert_eq!(accepts(&containing, text), text.contains(string), "{text}");
            }
        }
        let words = Automaton::regex("foo|bar|food").unwrap();
        let left = words
            .and(&Automaton::avoiding(&["oo"]).unwrap(), "banned")
            .unwrap();
        assert!(accepts(&left, "bar") && !accepts(&left, "food"));
        // No way leads into a word that may not be finished.
        assert_eq!(left.next(0, b'f'), DEAD);
    }
}
