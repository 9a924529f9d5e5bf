//! Critics: what is wrong with an answer by a principle, and a better answer.

use togi_data::{Message, Principle, lab};

use crate::{Unscorable, oracle::Oracle};

/// An answer that is read by a principle.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// The prompt.
    pub prompt: &'a str,
    /// The answer so far.
    pub answer: &'a str,
    /// The principle.
    pub principle: &'a Principle,
}

/// Criticises and revises answers.
pub trait Critic: Send + Sync {
    /// A name for logs and tables.
    fn name(&self) -> String;

    /// What is wrong with each answer, in order.
    fn critique(&self, drafts: &[Draft<'_>]) -> Vec<Result<String, Unscorable>>;

    /// A better answer for each; `critiques` has one for each draft.
    fn revise(&self, drafts: &[Draft<'_>], critiques: &[String])
    -> Vec<Result<String, Unscorable>>;

    /// What has been asked so far, for people; empty where that costs nothing.
    fn usage(&self) -> String {
        String::new()
    }
}

/// A language model that criticises and revises in conversation (Bai et al. 2022, section 3.1).
pub struct OracleCritic {
    /// The model.
    pub oracle: Box<dyn Oracle>,
}

impl OracleCritic {
    fn conversation(draft: &Draft<'_>) -> Vec<Message> {
        vec![
            Message::new("user", draft.prompt),
            Message::new("assistant", draft.answer),
            Message::new("user", &draft.principle.critique),
        ]
    }
}

impl Critic for OracleCritic {
    fn name(&self) -> String {
        self.oracle.name()
    }

    fn critique(&self, drafts: &[Draft<'_>]) -> Vec<Result<String, Unscorable>> {
        let all: Vec<_> = drafts.iter().map(Self::conversation).collect();
        let said = self.oracle.write(&all).into_iter();
        said.map(|critique| Ok(critique?.text)).collect()
    }

    fn revise(
        &self,
        drafts: &[Draft<'_>],
        critiques: &[String],
    ) -> Vec<Result<String, Unscorable>> {
        let all: Vec<_> = drafts
            .iter()
            .zip(critiques)
            .map(|(draft, critique)| {
                let mut messages = Self::conversation(draft);
                messages.push(Message::new("assistant", critique));
                let request = format!(
                    "{} Reply with the new answer alone.",
                    draft.principle.revision
                );
                messages.push(Message::new("user", &request));
                messages
            })
            .collect();
        let said = self.oracle.write(&all).into_iter();
        said.map(|revision| {
            let revision = revision?;
            // What is cut in the middle would be learnt as an answer that ends there.
            if revision.cut {
                let reason =
                    "the revision was cut at the longest length: raise judge.max_new_tokens";
                return Err(Unscorable(reason.to_owned()));
            }
            Ok(revision.text)
        })
        .collect()
    }

    fn usage(&self) -> String {
        self.oracle.usage()
    }
}

/// The lab's critic.
pub struct LabCritic(pub lab::Critic);

impl LabCritic {
    fn each<T>(
        drafts: &[Draft<'_>],
        read: impl Fn(&Draft<'_>, &lab::LabPrompt) -> Result<T, togi_data::DataError>,
    ) -> Vec<Result<T, Unscorable>> {
        drafts
            .iter()
            .map(|draft| {
                lab::LabPrompt::parse(draft.prompt)
                    .and_then(|prompt| read(draft, &prompt))
                    .map_err(|e| Unscorable(e.to_string()))
            })
            .collect()
    }
}

impl Critic for LabCritic {
    fn name(&self) -> String {
        "lab critic".to_owned()
    }

    fn critique(&self, drafts: &[Draft<'_>]) -> Vec<Result<String, Unscorable>> {
        Self::each(drafts, |draft, prompt| {
            let said = self
                .0
                .critique(&draft.principle.name, prompt, draft.answer)?;
            Ok(said.0)
        })
    }

    fn revise(&self, drafts: &[Draft<'_>], _: &[String]) -> Vec<Result<String, Unscorable>> {
        Self::each(drafts, |draft, prompt| {
            self.0.revise(&draft.principle.name, prompt, draft.answer)
        })
    }
}
