//! What is asked of a chat server and what it answers.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use togi_data::Message;

/// One question to a chat server.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChatRequest {
    /// The conversation so far.
    pub messages: Vec<Message>,
    /// Longest answer, in tokens.
    pub max_tokens: u32,
    /// Sampling temperature; 0: the likeliest token each time.
    pub temperature: f64,
    /// Seed of the sampling, where the server knows one. Several answers to one conversation need
    /// several seeds: equal requests are sent once.
    pub seed: Option<u64>,
    /// How many of the likeliest first tokens to report; 0: none.
    pub top_logprobs: u8,
    /// The answer ends before any of these.
    pub stop: Vec<String>,
}

impl ChatRequest {
    /// The body that is sent. What is not asked for is left out: not every server knows it.
    pub(crate) fn body(&self, model: &str) -> Value {
        let mut body = json!({
            "model": model,
            "messages": self.messages,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        });
        if let Some(seed) = self.seed {
            body["seed"] = seed.into();
        }
        if self.top_logprobs > 0 {
            body["logprobs"] = true.into();
            body["top_logprobs"] = self.top_logprobs.into();
        }
        if !self.stop.is_empty() {
            body["stop"] = json!(self.stop);
        }
        body
    }
}

/// A chat server's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatAnswer {
    /// What it says; never blank.
    pub text: String,
    /// Why it ends (`stop`, `length`), where the server says so.
    pub finish_reason: Option<String>,
    /// The likeliest first tokens and their log-probabilities, in nats and in the server's order;
    /// empty where the server gives none.
    pub first_token: Vec<(String, f64)>,
    /// Tokens of the conversation as the server counts them; 0 where it does not.
    pub tokens_in: u64,
    /// Tokens of the answer as the server counts them; 0 where it does not.
    pub tokens_out: u64,
    /// True if it cost no request: it is from the cache, or an equal request was in the same call.
    #[serde(skip)]
    pub cached: bool,
}

/// A server's reply, as far as it is read.
#[derive(Deserialize)]
pub(crate) struct Reply {
    choices: Option<Vec<Choice>>,
    usage: Option<TokenCounts>,
}

#[derive(Deserialize)]
struct Choice {
    message: Option<Said>,
    finish_reason: Option<String>,
    logprobs: Option<Logprobs>,
}

#[derive(Deserialize)]
struct Said {
    content: Option<String>,
}

#[derive(Deserialize)]
struct Logprobs {
    content: Option<Vec<Position>>,
}

#[derive(Deserialize)]
struct Position {
    top_logprobs: Option<Vec<Candidate>>,
}

#[derive(Deserialize)]
struct Candidate {
    token: String,
    logprob: f64,
}

#[derive(Deserialize)]
struct TokenCounts {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
}

impl Reply {
    /// Tokens in and out.
    pub(crate) fn tokens(&self) -> (u64, u64) {
        self.usage.as_ref().map_or((0, 0), |usage| {
            let count = |n: Option<u64>| n.unwrap_or(0);
            (count(usage.prompt_tokens), count(usage.completion_tokens))
        })
    }

    /// The answer, or what is wrong with it.
    pub(crate) fn answer(self) -> Result<ChatAnswer, &'static str> {
        let (tokens_in, tokens_out) = self.tokens();
        let choice = self.choices.and_then(|all| all.into_iter().next());
        let choice = choice.ok_or("no choices")?;
        let text = choice.message.and_then(|message| message.content);
        let text = text.ok_or("no content")?;
        if text.trim().is_empty() {
            return Err("blank content");
        }
        let positions = choice.logprobs.and_then(|logprobs| logprobs.content);
        let first = positions.and_then(|all| all.into_iter().next());
        let candidates = first.and_then(|position| position.top_logprobs);
        Ok(ChatAnswer {
            text,
            finish_reason: choice.finish_reason,
            first_token: candidates
                .into_iter()
                .flatten()
                .map(|candidate| (candidate.token, candidate.logprob))
                .collect(),
            tokens_in,
            tokens_out,
            cached: false,
        })
    }
}

/// The message of an error, from the forms in which servers send it, or else the whole body.
pub(crate) fn error_message(body: &str) -> String {
    let value: Value = serde_json::from_str(body).unwrap_or_default();
    let places = [
        &value["error"]["message"],
        &value["error"],
        &value["message"],
        &value["detail"],
    ];
    let message = places.into_iter().find_map(Value::as_str);
    message.unwrap_or(body).to_owned()
}
