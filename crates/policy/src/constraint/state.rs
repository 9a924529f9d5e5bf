//! A completion under a constraint, token by token.

use super::{
    Constraint,
    automaton::DEAD,
    error::ConstraintError,
    grammar::{Grammar, Run},
    trie::Mask,
};

/// A completion on its way under a constraint.
pub struct State<'a> {
    constraint: &'a Constraint,
    automaton: u32,
    grammars: Vec<Run>,
    position: usize,
    mask: Mask,
    part: Mask,
}

impl std::fmt::Debug for State<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("constraint", self.constraint)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl<'a> State<'a> {
    pub(super) fn new(constraint: &'a Constraint) -> Self {
        Self {
            constraint,
            automaton: 0,
            grammars: constraint.grammars.iter().map(Grammar::run).collect(),
            position: 0,
            mask: Mask::empty(constraint.vocabulary.size()),
            part: Mask::default(),
        }
    }

    /// Tokens of text that may come next; end tokens are not among them.
    ///
    /// # Errors
    /// When the grammar library gives up.
    pub fn allowed(&mut self) -> Result<&Mask, ConstraintError> {
        let constraint = self.constraint;
        if self.position == 0 {
            return Ok(&constraint.start);
        }
        if let Some(automaton) = &constraint.automaton {
            match constraint.kept(automaton, self.automaton) {
                Some(mask) if self.grammars.is_empty() => return Ok(mask),
                Some(mask) => self.mask.copy_from(mask.words()),
                None => constraint.fill(automaton, self.automaton, false, &mut self.mask),
            }
        }
        for (i, grammar) in self.grammars.iter_mut().enumerate() {
            let gave_up = |reason| ConstraintError::Grammar {
                position: self.position,
                reason,
            };
            if i == 0 && constraint.automaton.is_none() {
                grammar.allowed(&mut self.mask).map_err(gave_up)?;
            } else {
                if self.part.words().is_empty() {
                    self.part = Mask::empty(constraint.vocabulary.size());
                }
                grammar.allowed(&mut self.part).map_err(gave_up)?;
                self.mask.keep(self.part.words());
            }
        }
        Ok(&self.mask)
    }

    /// True if the text satisfies the rules as it stands.
    ///
    /// # Errors
    /// When the grammar library gives up.
    pub fn may_end(&mut self) -> Result<bool, ConstraintError> {
        let position = self.position;
        if let Some(automaton) = &self.constraint.automaton
            && !automaton.accepts(self.automaton)
        {
            return Ok(false);
        }
        if position == 0 {
            return Ok(self.constraint.grammars.iter().all(|g| g.may_end));
        }
        for grammar in &mut self.grammars {
            let may_end = grammar.may_end();
            if !may_end.map_err(|reason| ConstraintError::Grammar { position, reason })? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Goes on by a token of text.
    ///
    /// # Errors
    /// When it is not allowed here, after which the state is of no use any more; when the grammar
    /// library gives up.
    pub fn advance(&mut self, id: u32) -> Result<(), ConstraintError> {
        let (constraint, position) = (self.constraint, self.position);
        let first = position == 0;
        let forbidden = ConstraintError::Forbidden { id, position };
        let Some(text) = constraint.vocabulary.text(id, first) else {
            return Err(forbidden);
        };
        if let Some(automaton) = &constraint.automaton {
            for byte in text {
                self.automaton = automaton.next(self.automaton, *byte);
                if self.automaton == DEAD {
                    return Err(forbidden);
                }
            }
            if !constraint.alive(self.automaton) {
                return Err(forbidden);
            }
        }
        for grammar in &mut self.grammars {
            let went = grammar.advance(id, first.then_some(text));
            if !went.map_err(|reason| ConstraintError::Grammar { position, reason })? {
                return Err(forbidden);
            }
        }
        self.position += 1;
        Ok(())
    }

    /// Tokens of text so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The error of a state in which nothing is allowed.
    pub(crate) fn dead_end(&self) -> ConstraintError {
        ConstraintError::DeadEnd {
            position: self.position,
            rules: self.constraint.rules.clone(),
        }
    }
}
