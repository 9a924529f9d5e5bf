//! A tokenizer's tokens, ready for constraints.

use std::sync::OnceLock;

use togi_data::{TokenBytes, Tokenizer};

use super::{error::ConstraintError, grammar::Grammars, trie::Trie};

/// The texts of a tokenizer's tokens; made once, then shared by all constraints.
///
/// A text's first token may have another text than the same token later: words without a decoder are
/// joined by spaces, and SentencePiece's first space is dropped.
pub struct Vocabulary {
    texts: TokenBytes,
    first: Trie,
    /// `None` if it is `first`.
    later: Option<Trie>,
    grammars: OnceLock<Result<Grammars, String>>,
}

impl std::fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vocabulary")
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}

impl Vocabulary {
    /// Reads the texts of the tokens.
    ///
    /// Special tokens and end tokens are in no text, so that no constraint allows them as text; nor
    /// does it allow ids that the model has and the tokenizer has not.
    ///
    /// # Errors
    /// When the tokenizer's decoder gives tokens texts that depend on their neighbours.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self, ConstraintError> {
        let texts = tokenizer.token_bytes()?;
        let first = Trie::new(&texts.first);
        let later = (texts.first != texts.later).then(|| Trie::new(&texts.later));
        Ok(Self {
            texts,
            first,
            later,
            grammars: OnceLock::new(),
        })
    }

    /// One more than the largest id.
    pub fn size(&self) -> usize {
        self.texts.later.len()
    }

    pub(super) fn first(&self) -> &Trie {
        &self.first
    }

    pub(super) fn later(&self) -> &Trie {
        self.later.as_ref().unwrap_or(&self.first)
    }

    pub(super) fn text(&self, id: u32, first: bool) -> Option<&[u8]> {
        let texts = if first {
            &self.texts.first
        } else {
            &self.texts.later
        };
        texts.get(id as usize)?.as_deref()
    }

    /// What grammars need; built when the first one is compiled.
    pub(super) fn grammars(&self) -> Result<&Grammars, ConstraintError> {
        let made = self.grammars.get_or_init(|| {
            let first = self.later.as_ref().map(|_| &self.texts.first[..]);
            Grammars::new(first, &self.texts.later)
        });
        made.as_ref().map_err(|reason| ConstraintError::Grammar {
            position: 0,
            reason: reason.clone(),
        })
    }
}
