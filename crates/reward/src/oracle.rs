//! Language models that are asked: to choose among labels, and to write.

use togi_data::{Message, Sample};
use togi_policy::{Finish, Policy, PolicyError, Sampling, generate};

use crate::Unscorable;

/// A question whose answer is one of a few labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The conversation so far; the model says the label next.
    pub messages: Vec<Message>,
    /// What it may say, for instance `A` and `B`. None is the beginning of another.
    pub labels: Vec<String>,
}

/// What a model wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The text, trimmed; never empty.
    pub text: String,
    /// It reached the longest length before it ended.
    pub cut: bool,
}

impl Written {
    /// The text, trimmed.
    ///
    /// # Errors
    /// When nothing is left.
    pub fn new(text: &str, cut: bool) -> Result<Self, Unscorable> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Unscorable("the model said nothing".to_owned()));
        }
        Ok(Self {
            text: text.to_owned(),
            cut,
        })
    }
}

/// A language model that is asked, on this machine or on a server.
pub trait Oracle: Send + Sync {
    /// A name for logs and tables.
    fn name(&self) -> String;

    /// For each question, in order: the probability of each of its labels; they add up to 1.
    fn choose(&self, questions: &[Question]) -> Vec<Result<Vec<f64>, Unscorable>>;

    /// For each conversation, in order: what the model says next; nothing is an error.
    fn write(&self, conversations: &[Vec<Message>]) -> Vec<Result<Written, Unscorable>>;

    /// What has been asked so far, for people; empty where that costs nothing.
    fn usage(&self) -> String {
        String::new()
    }
}

/// A model of ours: labels by their log-probabilities.
#[derive(Debug)]
pub struct LocalOracle {
    policy: Policy,
    sampling: Sampling,
    seed: u64,
}

impl LocalOracle {
    /// Asks this model; what it writes is drawn as `sampling` says.
    ///
    /// # Errors
    /// A field of `sampling` out of range.
    pub fn new(policy: Policy, sampling: Sampling, seed: u64) -> Result<Self, PolicyError> {
        sampling.validate()?;
        Ok(Self {
            policy,
            sampling,
            seed,
        })
    }

    /// The ids of a conversation up to where the model speaks. Without a chat template: its texts, and a
    /// line of its own for the answer.
    fn ids(&self, messages: &[Message]) -> Result<Vec<u32>, Unscorable> {
        let tokenizer = &self.policy.tokenizer;
        let ids = if tokenizer.has_template() {
            tokenizer
                .render(messages, true)
                .and_then(|text| tokenizer.encode(&text))
        } else {
            let texts: Vec<&str> = messages.iter().map(|m| m.content.as_str()).collect();
            tokenizer.encode_text(&(texts.join("\n\n") + "\n"))
        };
        ids.map_err(|e| Unscorable(e.to_string()))
    }

    /// The ids, where they leave room for an answer.
    fn with_room(&self, messages: &[Message]) -> Result<Vec<u32>, Unscorable> {
        let ids = self.ids(messages)?;
        let limit = self.policy.decoder.config.max_position_embeddings;
        if ids.len() >= limit {
            let reason = format!(
                "the conversation has {} tokens, and the model {limit} positions",
                ids.len()
            );
            return Err(Unscorable(reason));
        }
        Ok(ids)
    }

    fn labels(&self, question: &Question) -> Result<Vec<f64>, Unscorable> {
        let prompt = self.ids(&question.messages)?;
        let mut samples = Vec::with_capacity(question.labels.len());
        for label in &question.labels {
            // It follows the conversation: nothing that begins a text is added.
            let tokens = self.policy.tokenizer.encode(label);
            let tokens = tokens.map_err(|e| Unscorable(e.to_string()))?;
            samples.push(Sample::from_parts(&prompt, &tokens, &[]));
        }
        let begins = |a: &Sample, b: &Sample| b.ids.starts_with(&a.ids);
        for (i, a) in samples.iter().enumerate() {
            if samples
                .iter()
                .enumerate()
                .any(|(j, b)| i != j && begins(a, b))
            {
                let label = &question.labels[i];
                return Err(Unscorable(format!(
                    "label `{label}` is the beginning of another"
                )));
            }
        }
        let decoder = &self.policy.decoder;
        let views: Vec<&Sample> = samples.iter().collect();
        let logps = decoder.log_probs(&decoder.frozen(), &views, 1.0);
        let logps = logps.map_err(|e| Unscorable(e.to_string()))?;
        let sums = logps.sums().into_data().convert::<f32>();
        Ok(normalised(sums.iter::<f32>().map(f64::from).collect()))
    }
}

/// Probabilities in the proportion of `exp(logp)`.
pub(crate) fn normalised(logps: Vec<f64>) -> Vec<f64> {
    let top = logps.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let each: Vec<f64> = logps.iter().map(|l| (l - top).exp()).collect();
    let total: f64 = each.iter().sum();
    each.iter().map(|p| p / total).collect()
}

impl Oracle for LocalOracle {
    fn name(&self) -> String {
        "local model".to_owned()
    }

    fn choose(&self, questions: &[Question]) -> Vec<Result<Vec<f64>, Unscorable>> {
        questions.iter().map(|q| self.labels(q)).collect()
    }

    fn write(&self, conversations: &[Vec<Message>]) -> Vec<Result<Written, Unscorable>> {
        let Policy { decoder, tokenizer } = &self.policy;
        let mut results = Vec::with_capacity(conversations.len());
        let weights = decoder.sampling();
        for part in conversations.chunks(self.sampling.batch_size) {
            let prompts: Vec<_> = part
                .iter()
                .map(|messages| self.with_room(messages))
                .collect();
            let ready: Vec<&[u32]> = prompts.iter().flatten().map(Vec::as_slice).collect();
            // What is said depends on the conversation, not on its place among others.
            let streams: Vec<u64> = ready.iter().map(|ids| hash(ids)).collect();
            let (eos, sampling) = (tokenizer.eos_ids(), &self.sampling);
            let drawn = generate(
                decoder, &weights, &ready, eos, sampling, self.seed, &streams,
            );
            match drawn {
                Ok(drawn) => {
                    let mut drawn = drawn.into_iter();
                    results.extend(prompts.into_iter().map(|prompt| {
                        prompt?;
                        let missing = || Unscorable("the model said nothing".to_owned());
                        let said = drawn.next().ok_or_else(missing)?;
                        let cut = said.finish == Finish::Length;
                        Written::new(&tokenizer.decode(&said.ids), cut)
                    }));
                }
                // Those that could not be asked keep their own reason.
                Err(e) => results.extend(prompts.into_iter().map(|prompt| {
                    prompt?;
                    Err(Unscorable(e.to_string()))
                })),
            }
        }
        results
    }
}

/// FNV-1a.
fn hash(ids: &[u32]) -> u64 {
    ids.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, id| {
        (hash ^ u64::from(*id)).wrapping_mul(0x100_0000_01b3)
    })
}
