//! Rows as people write them, before tokenisation.

use serde::{Deserialize, Serialize};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant` (or what the chat template knows).
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message of this role.
    pub fn new(role: &str, content: &str) -> Self {
        Self {
            role: role.to_owned(),
            content: content.to_owned(),
        }
    }
}

/// Plain text, or a conversation for the chat template; in JSON a text or a list of messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Content {
    /// Used as it is.
    Text(String),
    /// Rendered by the model's chat template.
    Messages(Vec<Message>),
}

impl Content {
    /// The text of the content for people and scorers: messages' contents joined by blank lines.
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Messages(messages) => messages
                .iter()
                .map(|m| m.content.as_str())
                .collect::<Vec<_>>()
                .join("\n\n"),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.trim().is_empty(),
            Self::Messages(messages) => {
                messages.is_empty() || messages.iter().all(|m| m.content.trim().is_empty())
            }
        }
    }
}

/// One row of a dataset.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A conversation; its assistant turns are what is learnt.
    Messages(Vec<Message>),
    /// A prompt and the completion to learn.
    PromptCompletion {
        /// The prompt.
        prompt: Content,
        /// The completion.
        completion: Content,
    },
    /// Two answers, the first preferred.
    Preference {
        /// The prompt.
        prompt: Content,
        /// The preferred answer.
        chosen: Content,
        /// The other answer.
        rejected: Content,
        /// By how much, where the annotator said.
        margin: Option<f64>,
        /// The probability that it is the better one, where a judge said.
        probability: Option<f64>,
    },
    /// A prompt alone.
    Prompt(Content),
    /// One answer with a thumbs up or down.
    Unpaired {
        /// The prompt.
        prompt: Content,
        /// The answer.
        completion: Content,
        /// True for good.
        label: bool,
    },
    /// Several answers in the order of a preference.
    Ranking {
        /// The prompt.
        prompt: Content,
        /// The answers, the best first.
        answers: Vec<Content>,
        /// The rank of each, from 1; equal ranks are ties.
        ranks: Vec<u32>,
    },
    /// One answer with a rating.
    Rated {
        /// The prompt.
        prompt: Content,
        /// The answer.
        completion: Content,
        /// The rating.
        score: f64,
    },
    /// An answer in steps, each right or wrong.
    Steps {
        /// The prompt.
        prompt: Content,
        /// The steps, in order.
        steps: Vec<String>,
        /// True for a right step.
        labels: Vec<bool>,
    },
}

/// A record and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Located {
    /// The record.
    pub record: Record,
    /// File and line, for messages.
    pub place: String,
}
