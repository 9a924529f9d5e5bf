//! Tokenised samples.

/// Whose token it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions before the conversation.
    System,
    /// What the model is given.
    Prompt,
    /// What the model is to say.
    Completion,
    /// What an environment said in between.
    Observation,
    /// The end of the completion, which the model is to say too.
    Eos,
}

/// A sequence with the role of each token and the weight of predicting it.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Sample {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Role of each token.
    pub roles: Vec<Role>,
    /// Weight of each token's log-probability in a loss; 0 is not scored.
    pub weights: Vec<f32>,
}

impl Sample {
    /// A prompt followed by a completion that is scored with weight 1.
    pub fn from_parts(prompt: &[u32], completion: &[u32], eos: &[u32]) -> Self {
        let mut sample = Self::default();
        for id in prompt {
            sample.push(*id, Role::Prompt, 0.0);
        }
        for id in completion {
            let role = if eos.contains(id) {
                Role::Eos
            } else {
                Role::Completion
            };
            sample.push(*id, role, 1.0);
        }
        sample
    }

    /// Appends one token.
    pub fn push(&mut self, id: u32, role: Role, weight: f32) {
        self.ids.push(id);
        self.roles.push(role);
        self.weights.push(weight);
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// True without tokens.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Positions of the scored tokens. The first token is never scored: nothing predicts it.
    pub fn scored(&self) -> impl Iterator<Item = usize> + '_ {
        (1..self.ids.len()).filter(|i| self.weights[*i] != 0.0)
    }

    /// Keeps the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.ids.truncate(len);
        self.roles.truncate(len);
        self.weights.truncate(len);
    }
}

/// Two completions of one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct PairSample {
    /// Prompt and preferred completion.
    pub chosen: Sample,
    /// Prompt and other completion.
    pub rejected: Sample,
    /// By how much the first is preferred, where the data says.
    pub margin: Option<f64>,
    /// The probability that it is the better one, where the data says.
    pub probability: Option<f64>,
}

/// One completion with a thumb up or down.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledSample {
    /// Prompt and completion.
    pub sample: Sample,
    /// True for a completion that is wanted.
    pub desirable: bool,
}

impl LabelledSample {
    /// The tokens before the first scored one, and those from there on.
    pub fn split(&self) -> (&[u32], &[u32]) {
        let at = self.sample.scored().next().unwrap_or(self.sample.len());
        self.sample.ids.split_at(at)
    }
}

/// Several completions of one prompt in the order of a preference.
#[derive(Clone, Debug, PartialEq)]
pub struct RankedSample {
    /// Prompt and completion of each, the best first.
    pub answers: Vec<Sample>,
    /// The rank of each; equal ranks are ties.
    pub ranks: Vec<u32>,
}

/// One completion with a rating.
#[derive(Clone, Debug, PartialEq)]
pub struct RatedSample {
    /// Prompt and completion.
    pub sample: Sample,
    /// The rating.
    pub score: f64,
}

/// A completion in steps, each right or wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct StepSample {
    /// Prompt and steps.
    pub sample: Sample,
    /// Position of each step's last token.
    pub ends: Vec<usize>,
    /// True for a right step.
    pub labels: Vec<bool>,
}

/// A prompt ready for generation.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptSample {
    /// Token ids, with what the chat template puts before an answer.
    pub ids: Vec<u32>,
    /// The prompt as text.
    pub text: String,
}
