//! A chat server as an oracle.

use togi_data::Message;

use crate::{
    ChatAnswer, ChatRequest, Server, Unscorable,
    oracle::{Oracle, Question, Written, normalised},
};

/// A model on an OpenAI-compatible server: labels by the log-probabilities of the first token where the
/// server gives them, and by what it says where not.
#[derive(Debug)]
pub struct ServerOracle {
    server: Server,
    /// Longest text that it writes, in tokens.
    max_tokens: u32,
    temperature: f64,
    seed: u64,
}

/// Log-probabilities that are asked for: as many as servers allow.
const CANDIDATES: u8 = 20;

/// Tokens of an answer that is to be a label: room for a word or two around it.
const LABEL_TOKENS: u32 = 8;

impl ServerOracle {
    /// Asks this server; what it writes is drawn at this temperature.
    pub fn new(server: Server, max_tokens: u32, temperature: f64, seed: u64) -> Self {
        Self {
            server,
            max_tokens,
            temperature,
            seed,
        }
    }
}

impl Oracle for ServerOracle {
    fn name(&self) -> String {
        let config = self.server.config();
        format!("{} at {}", config.model, config.url)
    }

    fn choose(&self, questions: &[Question]) -> Vec<Result<Vec<f64>, Unscorable>> {
        let requests: Vec<ChatRequest> = questions
            .iter()
            .map(|question| ChatRequest {
                messages: question.messages.clone(),
                max_tokens: LABEL_TOKENS,
                temperature: 0.0,
                seed: Some(self.seed),
                top_logprobs: CANDIDATES,
                stop: Vec::new(),
            })
            .collect();
        let answers = self.server.ask(&requests);
        let both = answers.into_iter().zip(questions);
        both.map(|(answer, question)| chances(&answer?, &question.labels))
            .collect()
    }

    fn write(&self, conversations: &[Vec<Message>]) -> Vec<Result<Written, Unscorable>> {
        let requests: Vec<ChatRequest> = conversations
            .iter()
            .map(|messages| ChatRequest {
                messages: messages.clone(),
                max_tokens: self.max_tokens,
                temperature: self.temperature,
                seed: Some(self.seed),
                top_logprobs: 0,
                stop: Vec::new(),
            })
            .collect();
        let answers = self.server.ask(&requests).into_iter();
        let written = |answer: ChatAnswer| {
            let cut = answer.finish_reason.as_deref() == Some("length");
            Written::new(&answer.text, cut)
        };
        answers.map(|answer| written(answer?)).collect()
    }

    fn usage(&self) -> String {
        let used = self.server.usage();
        let mut text = format!(
            "{}: {} requests ({} sent again), {} answers from the cache, {} failed; {} tokens in, {} out",
            self.name(),
            used.requests,
            used.retries,
            used.cached,
            used.failed,
            used.tokens_in,
            used.tokens_out
        );
        if used.cost > 0.0 {
            text.push_str(&format!("; cost {:.4}", used.cost));
        }
        text
    }
}

/// Of the first tokens' probabilities, the share that has to be on labels before they are believed: a model
/// that is about to say something else has labels among its candidates too.
const LABEL_MASS: f64 = 0.5;

/// The labels' probabilities: of the first tokens that are labels, or all on the one that was said.
fn chances(answer: &ChatAnswer, labels: &[String]) -> Result<Vec<f64>, Unscorable> {
    // "a" is a word; only "A" is a label.
    let place = |token: &str| labels.iter().position(|label| label == token);
    let mut weights = vec![0.0; labels.len()];
    for (token, logp) in &answer.first_token {
        if let Some(label) = place(token.trim()) {
            weights[label] += logp.exp();
        }
    }
    if weights.iter().sum::<f64>() >= LABEL_MASS {
        return Ok(normalised(weights.iter().map(|w| w.ln()).collect()));
    }
    // "A", "A.", "**A**", "Answer: B"; of a sentence nobody knows what it means.
    let bare = |text: &str| place(text.trim_matches(|c: char| !c.is_alphanumeric()));
    let end = answer.text.rsplit(':').next().unwrap_or("");
    match bare(&answer.text).or_else(|| bare(end)) {
        Some(label) => {
            let mut certain = vec![0.0; labels.len()];
            certain[label] = 1.0;
            Ok(certain)
        }
        None => {
            let text: String = answer.text.trim().chars().take(80).collect();
            let reason = format!(
                "the judge answered `{text}`, not one of {}",
                labels.join(", ")
            );
            Err(Unscorable(reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_from_tokens_or_words_and_nonsense_is_said() {
        let labels = ["A".to_owned(), "B".to_owned()];
        let answer = |text: &str, first: &[(&str, f64)]| {
            let first = first.iter().map(|(t, l)| ((*t).to_owned(), *l)).collect();
            let answer = ChatAnswer {
                text: text.to_owned(),
                finish_reason: None,
                first_token: first,
                tokens_in: 0,
                tokens_out: 0,
                cached: false,
            };
            chances(&answer, &labels)
        };
        let half = 0.5_f64.ln();
        let some = answer(
            "A",
            &[("A", half), (" B", 0.2_f64.ln()), ("The", 0.3_f64.ln())],
        );
        let some = some.unwrap();
        assert!((some[0] - 5.0 / 7.0).abs() < 1e-12 && (some[1] - 2.0 / 7.0).abs() < 1e-12);
        let sum = answer("A", &[("A", half), (" A", half)]).unwrap();
        assert!((sum[0] - 1.0).abs() < 1e-12);
        // Labels among the unlikely candidates of another answer say nothing.
        let aside = [("The", 0.999_f64.ln()), ("A", -14.0), (" a", -12.0)];
        assert!(answer("The better one is B", &aside).is_err());
        assert_eq!(answer("Answer: B", &aside).unwrap(), [0.0, 1.0]);
        assert_eq!(answer("**B**.", &[]).unwrap(), [0.0, 1.0]);
        assert_eq!(answer("Answer: A", &[("Answer", 0.0)]).unwrap(), [1.0, 0.0]);
        for nonsense in [
            "A or B",
            "Neither is a good answer",
            "It is a tie",
            "B is a better answer",
        ] {
            let error = answer(nonsense, &[]).unwrap_err().to_string();
            assert!(error.contains(nonsense), "{error}");
        }
    }
}
