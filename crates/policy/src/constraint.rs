//! Constraints on the text of a completion: which tokens may come next, so that the text satisfies
//! every rule when it ends.
//!
//! Two engines share the work, and a constraint may use both:
//!
//! - `regex`, `banned` and `required` become one automaton over bytes ([`regex_automata`]'s, joined
//!   with automata for the strings). Its states know whether acceptance is still in reach, so these
//!   rules together never lead to a dead end, rules that exclude each other are found before
//!   anything is generated, and each state's mask is computed once for all sequences.
//! - `json_schema`, `json_object` and `lark` are followed by [`llguidance`], an Earley parser made for
//!   this: MIT licence, five crates more, 40 s of one core to compile, and well below a millisecond
//!   a mask. It is part of the default build for that. Its whole state is a parser's stack, so what
//!   it allows may exclude what another rule needs further on: such a dead end is an error while
//!   generating.
//!
//! The text is what [`togi_data::Tokenizer::decode`] makes of the completion's tokens, without what
//! stands in the prompt. It is valid UTF-8 as far as its last whole character.

mod automaton;
mod error;
mod grammar;
mod reach;
mod state;
mod strings;
mod trie;
mod vocabulary;

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use error::ConstraintError;
pub use state::State;
pub use trie::Mask;
pub use vocabulary::Vocabulary;

use automaton::{Automaton, DEAD};
use grammar::Grammar;
use reach::{Reach, reach};

/// Bytes of masks that a constraint keeps.
const KEPT: usize = 64 << 20;

/// What a text has to satisfy: every rule that is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// The whole text matches this regular expression (the syntax of the `regex` crate, without
    /// Unicode word boundaries).
    pub regex: Option<String>,
    /// The text is a JSON object.
    pub json_object: bool,
    /// The text is JSON that is valid for this schema. By default spaces may stand wherever JSON
    /// allows them; `"x-guidance": {"whitespace_flexible": false}` in the schema allows none.
    pub json_schema: Option<Value>,
    /// The text is in the language of this grammar, written as `llguidance` reads Lark.
    pub lark: Option<String>,
    /// None of these strings is in the text.
    pub banned: Vec<String>,
    /// The text does not end before each of these strings was said.
    pub required: Vec<String>,
}

impl Rules {
    /// The rules that are set, for messages.
    fn names(&self) -> String {
        let set = [
            (self.regex.is_some(), "`regex`"),
            (self.json_object, "`json_object`"),
            (self.json_schema.is_some(), "`json_schema`"),
            (self.lark.is_some(), "`lark`"),
            (!self.banned.is_empty(), "`banned`"),
            (!self.required.is_empty(), "`required`"),
        ];
        let names: Vec<&str> = set
            .iter()
            .filter_map(|(set, name)| set.then_some(*name))
            .collect();
        names.join(" and ")
    }

    /// The automaton of the rules that one can follow.
    fn automaton(&self) -> Result<Option<Automaton>, ConstraintError> {
        let Self {
            banned, required, ..
        } = self;
        for (field, strings) in [("banned", banned), ("required", required)] {
            if let Some(index) = strings.iter().position(String::is_empty) {
                return Err(ConstraintError::EmptyString { field, index });
            }
        }
        let mut automaton = match &self.regex {
            Some(pattern) => Automaton::regex(pattern)?,
            None if banned.is_empty() && required.is_empty() => return Ok(None),
            None => Automaton::anything()?,
        };
        if !banned.is_empty() {
            let banned: Vec<&str> = banned.iter().map(String::as_str).collect();
            automaton = automaton.and(&Automaton::avoiding(&banned)?, "banned")?;
        }
        for string in required {
            automaton = automaton.and(&Automaton::containing(string)?, "required")?;
        }
        Ok(Some(automaton))
    }
}

/// Rules, compiled for a vocabulary.
pub struct Constraint {
    vocabulary: Arc<Vocabulary>,
    rules: String,
    automaton: Option<Automaton>,
    reach: Reach,
    grammars: Vec<Grammar>,
    start: Mask,
    /// The automaton's masks, by state, as far as they were asked for.
    masks: Vec<OnceLock<Mask>>,
    kept: AtomicUsize,
}

impl std::fmt::Debug for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Constraint")
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

impl Constraint {
    /// Compiles rules.
    ///
    /// # Errors
    /// A rule that is not valid, with the place in it; rules that no text, or no sequence of tokens,
    /// satisfies together, as far as the automaton of `regex`, `banned` and `required` tells; a
    /// grammar that cannot begin; an automaton that is too large.
    pub fn new(vocabulary: &Arc<Vocabulary>, rules: &Rules) -> Result<Self, ConstraintError> {
        let names = rules.names();
        if names.is_empty() {
            return Err(ConstraintError::NoRule);
        }
        let no_tokens = || ConstraintError::NoTokens {
            rules: names.clone(),
        };
        let automaton = rules.automaton()?;
        let reach = match &automaton {
            None => Reach::default(),
            Some(automaton) if automaton.shortest().is_none() => {
                let rules = names;
                return Err(ConstraintError::Unsatisfiable { rules });
            }
            Some(automaton) => {
                reach(automaton, vocabulary.first(), vocabulary.later()).ok_or_else(no_tokens)?
            }
        };
        let mut grammars = Vec::new();
        if rules.json_object {
            grammars.push(vocabulary.grammars()?.json_schema(&grammar::any_object())?);
        }
        if let Some(schema) = &rules.json_schema {
            grammars.push(vocabulary.grammars()?.json_schema(schema)?);
        }
        if let Some(lark) = &rules.lark {
            grammars.push(vocabulary.grammars()?.lark(lark)?);
        }
        let states = automaton.as_ref().map_or(0, Automaton::states);
        let mut constraint = Self {
            vocabulary: Arc::clone(vocabulary),
            rules: names.clone(),
            automaton,
            reach,
            start: Mask::empty(vocabulary.size()),
            grammars,
            masks: (0..states).map(|_| OnceLock::new()).collect(),
            kept: AtomicUsize::new(0),
        };
        constraint.start = constraint.first_mask();
        if constraint.start.is_empty() && !constraint.start().may_end()? {
            return Err(no_tokens());
        }
        Ok(constraint)
    }

    /// Tokens of the shortest completion, without its end token, or fewer; 0 if that is not known.
    pub fn fewest_tokens(&self) -> usize {
        self.reach.fewest
    }

    /// A new completion.
    pub fn start(&self) -> State<'_> {
        State::new(self)
    }

    fn first_mask(&self) -> Mask {
        let mut mask = Mask::empty(self.vocabulary.size());
        let mut left = self.grammars.iter();
        match &self.automaton {
            Some(automaton) => self.fill(automaton, 0, true, &mut mask),
            None => {
                if let Some(grammar) = left.next() {
                    mask.copy_from(grammar.start.words());
                }
            }
        }
        for grammar in left {
            mask.keep(grammar.start.words());
        }
        mask
    }

    fn fill(&self, automaton: &Automaton, state: u32, first: bool, mask: &mut Mask) {
        let trie = if first {
            self.vocabulary.first()
        } else {
            self.vocabulary.later()
        };
        mask.clear();
        trie.walk(automaton, state, |ids, next| {
            if self.alive(next) {
                for id in ids {
                    mask.insert(*id);
                }
            }
        });
    }

    fn alive(&self, state: u32) -> bool {
        let alive = self.reach.alive.as_ref();
        state != DEAD && alive.is_none_or(|alive| alive[state as usize])
    }

    /// The mask of a state, if it is kept or may be.
    fn kept(&self, automaton: &Automaton, state: u32) -> Option<&Mask> {
        let slot = &self.masks[state as usize];
        if slot.get().is_none() {
            let bytes = self.vocabulary.size() / 8;
            if self.kept.fetch_add(bytes, Ordering::Relaxed) > KEPT {
                return None;
            }
        }
        Some(slot.get_or_init(|| {
            let mut mask = Mask::empty(self.vocabulary.size());
            self.fill(automaton, state, false, &mut mask);
            mask
        }))
    }
}
