//! What can be wrong with a constraint.

/// Why a constraint cannot be made, or not be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConstraintError {
    /// The pattern is not a regular expression.
    #[error("`regex`: byte {position} of `{pattern}`: {reason}")]
    Regex {
        /// The pattern.
        pattern: String,
        /// Where in it, in bytes.
        position: usize,
        /// What is wrong there.
        reason: String,
    },
    /// The pattern is a regular expression, but not one that can be followed byte by byte.
    #[error("`regex`: `{pattern}`: {reason}")]
    RegexUnsupported {
        /// The pattern.
        pattern: String,
        /// What it asks for.
        reason: String,
    },
    /// The JSON schema is not valid or asks for what is not implemented.
    #[error("`json_schema`: at `{pointer}`: {reason}")]
    JsonSchema {
        /// JSON pointer to the innermost part that is wrong; `#` is the whole.
        pointer: String,
        /// What is wrong there.
        reason: String,
    },
    /// The grammar is not valid.
    #[error("`lark`: {reason}")]
    Lark {
        /// What is wrong, and where.
        reason: String,
    },
    /// A string that has to be said or must not be said is empty.
    #[error("`{field}`: string {index} is empty")]
    EmptyString {
        /// `banned` or `required`.
        field: &'static str,
        /// Its place in the list.
        index: usize,
    },
    /// No rule is set.
    #[error("the constraint has no rule")]
    NoRule,
    /// The rules make an automaton that is too large.
    #[error(
        "`{field}` needs an automaton of more than {limit} entries; use shorter repetitions or \
         fewer strings"
    )]
    TooLarge {
        /// The rule that went over the limit.
        field: &'static str,
        /// The limit.
        limit: usize,
    },
    /// No text satisfies the rules.
    #[error("no text satisfies {rules}")]
    Unsatisfiable {
        /// The rules, by name.
        rules: String,
    },
    /// Texts satisfy the rules, but not with this vocabulary.
    #[error("no sequence of this tokenizer's tokens satisfies {rules}")]
    NoTokens {
        /// The rules, by name.
        rules: String,
    },
    /// The rules cannot be satisfied by so few tokens.
    #[error("satisfying the constraint takes {needed} tokens or more, `max_new_tokens` is {limit}")]
    TooShort {
        /// Tokens of the shortest completion, or fewer.
        needed: usize,
        /// Tokens that a completion may have.
        limit: usize,
    },
    /// Generation ends at no token, so that a completion could never be finished.
    #[error("a constraint needs an end token, and generation was given none")]
    NoEnd,
    /// No token keeps the constraint satisfiable.
    #[error("at position {position} no token is allowed: {rules} leave no way on and no end here")]
    DeadEnd {
        /// Position in the completion.
        position: usize,
        /// The rules, by name.
        rules: String,
    },
    /// A token that the constraint does not allow was to be said.
    #[error("token {id} is not allowed at position {position}")]
    Forbidden {
        /// The token.
        id: u32,
        /// Position in the completion.
        position: usize,
    },
    /// The grammar library gave up, on a grammar that is too ambiguous or too large.
    #[error("the grammar cannot be followed at position {position}: {reason}")]
    Grammar {
        /// Position in the completion.
        position: usize,
        /// The library's reason.
        reason: String,
    },
    /// The tokenizer's tokens have no texts of their own.
    #[error(transparent)]
    Tokenizer(#[from] togi_data::DataError),
}
