//! Chat servers that speak OpenAI's protocol: a provider's, vLLM, SGLang, llama.cpp.

use std::{
    collections::HashMap,
    panic::resume_unwind,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use togi_data::rng::CounterRng;
use ureq::http::{HeaderMap, Uri};

use crate::{
    ChatAnswer, ChatRequest, ServerConfig, ServerError, Unscorable,
    answer_cache::AnswerCache,
    chat::{Reply, error_message},
    pace::{Pace, retry_after},
    server_config::Key,
};

/// The longest reply that is read, in bytes.
const MAX_BODY: u64 = 16 << 20;
/// A server that asks to wait longer than this is not waited for.
const MAX_WAIT: Duration = Duration::from_secs(300);
/// The longest pause that doubling leads to, in seconds.
const MAX_BACKOFF_S: f64 = 60.0;
/// How much of what a server sent goes into an error, in characters.
const QUOTED: usize = 200;

/// What a server was used for, from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Requests that were sent.
    pub requests: u64,
    /// Those of them that were sent again.
    pub retries: u64,
    /// Answers that cost no request.
    pub cached: u64,
    /// Requests to [`Server::ask`] that have no answer.
    pub failed: u64,
    /// Tokens of conversations that were sent, as the server counts them.
    pub tokens_in: u64,
    /// Tokens of answers that came, usable or not, as the server counts them.
    pub tokens_out: u64,
    /// What they cost, at the prices of the configuration.
    pub cost: f64,
}

/// Why one exchange brought no answer.
struct Failure {
    reason: String,
    /// It may go better the next time.
    passing: bool,
    /// How long the server asks to wait.
    wait: Duration,
}

impl Failure {
    fn new(passing: bool, reason: String) -> Self {
        Self {
            reason,
            passing,
            wait: Duration::ZERO,
        }
    }
}

/// A client of one model on one chat server.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    endpoint: String,
    key: Option<Key>,
    agent: ureq::Agent,
    pace: Pace,
    cache: Option<AnswerCache>,
    usage: Mutex<Usage>,
}

impl Server {
    /// Prepares a client and reads its cache; nothing is sent.
    ///
    /// # Errors
    /// When a value of the configuration cannot be, the key is not in the environment, or the cache
    /// cannot be read or is damaged.
    pub fn new(mut config: ServerConfig) -> Result<Self, ServerError> {
        let uri = config.check()?;
        config.url = config.url.trim_end_matches('/').to_owned();
        let mut agent = ureq::Agent::config_builder()
            .user_agent("togi")
            .timeout_global(Some(Duration::from_secs_f64(config.timeout_s)))
            // The body of an error says what is wrong.
            .http_status_as_error(false)
            // The key goes to the server that was named and to no other.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(config.concurrency)
            .max_idle_connections_per_host(config.concurrency)
            // Uvicorn, and with it vLLM, closes idle connections after 5 seconds.
            .max_idle_age(Duration::from_secs(4));
        if is_loopback(&uri) {
            // A proxy's `localhost` is another machine.
            agent = agent.proxy(None);
        }
        Ok(Self {
            endpoint: format!("{}/chat/completions", config.url),
            key: Key::read(&config.key_env)?,
            agent: agent.build().new_agent(),
            pace: Pace::new(config.requests_per_minute),
            cache: config.cache.as_deref().map(AnswerCache::open).transpose()?,
            usage: Mutex::default(),
            config,
        })
    }

    /// How it is reached.
    pub fn config(&self) -> &ServerConfig {
        &self.config
    }

    /// What it was used for up to now.
    pub fn usage(&self) -> Usage {
        let mut usage = *self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        let price = |tokens: u64, million: f64| tokens as f64 * million / 1e6;
        usage.cost = price(usage.tokens_in, self.config.price_in)
            + price(usage.tokens_out, self.config.price_out);
        usage
    }

    /// Asks `concurrency` requests at a time and returns their answers in order. One that fails
    /// leaves the others alone; equal ones are sent once.
    pub fn ask(&self, requests: &[ChatRequest]) -> Vec<Result<ChatAnswer, Unscorable>> {
        let keys: Vec<String> = requests.iter().map(|r| self.cache_key(r)).collect();
        let mut places = HashMap::new();
        let mut unique: Vec<usize> = Vec::new();
        for (i, key) in keys.iter().enumerate() {
            places.entry(key).or_insert_with(|| {
                unique.push(i);
                unique.len() - 1
            });
        }
        let answers = self.parallel(unique.len(), |place| {
            let i = unique[place];
            self.answer(&keys[i], &requests[i])
        });
        let in_order = keys.iter().enumerate().map(|(i, key)| {
            let place = places[key];
            let mut result = answers[place].clone();
            if let Ok(answer) = &mut result {
                answer.cached |= unique[place] != i;
            }
            result
        });
        let results: Vec<_> = in_order.collect();
        self.count(|usage| {
            for result in &results {
                usage.cached += u64::from(result.as_ref().is_ok_and(|answer| answer.cached));
                usage.failed += u64::from(result.is_err());
            }
        });
        results
    }

    /// `work` of `0..n`, `concurrency` at a time, in order.
    fn parallel<T: Send>(&self, n: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
        let next = AtomicUsize::new(0);
        let worker = || {
            let mut done = Vec::new();
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= n {
                    return done;
                }
                done.push((i, work(i)));
            }
        };
        let mut all: Vec<(usize, T)> = thread::scope(|scope| {
            let workers: Vec<_> = (0..self.config.concurrency.min(n))
                .map(|_| scope.spawn(worker))
                .collect();
            workers
                .into_iter()
                .flat_map(|worker| worker.join().unwrap_or_else(|e| resume_unwind(e)))
                .collect()
        });
        all.sort_unstable_by_key(|(i, _)| *i);
        all.into_iter().map(|(_, result)| result).collect()
    }

    /// One answer, from the cache or the server.
    fn answer(&self, key: &str, request: &ChatRequest) -> Result<ChatAnswer, Unscorable> {
        if let Some(answer) = self.cache.as_ref().and_then(|cache| cache.get(key)) {
            return Ok(answer);
        }
        let answer = self.send(key, request)?;
        match &self.cache {
            // An answer that cannot be kept is refused: to go on would be to pay twice for all.
            Some(cache) => cache
                .keep(key, answer)
                .map_err(|e| Unscorable(format!("the answer could not be kept: {e}"))),
            None => Ok(answer),
        }
    }

    /// Names a request: SHA-256 of the server, the model and what is asked.
    fn cache_key(&self, request: &ChatRequest) -> String {
        let whole = json!({
            "url": self.config.url,
            "model": self.config.model,
            "request": request,
        });
        let digest = Sha256::digest(whole.to_string());
        digest.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Sends a request until an answer comes or there is no more point in it.
    fn send(&self, key: &str, request: &ChatRequest) -> Result<ChatAnswer, Unscorable> {
        if !request.temperature.is_finite() {
            let reason = format!("the temperature is {}", request.temperature);
            return Err(Unscorable(reason));
        }
        let body = request.body(&self.config.model).to_string();
        let stream: Vec<u64> = key.bytes().map(u64::from).collect();
        let mut rng = CounterRng::new(0, &stream);
        let mut attempt = 0_u32;
        loop {
            self.pace.turn();
            self.count(|usage| {
                usage.requests += 1;
                usage.retries += u64::from(attempt > 0);
            });
            let failure = match self.exchange(&body) {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if !failure.passing || attempt >= self.config.retries {
                let times = match attempt {
                    0 => String::new(),
                    n => format!(" (sent {} times)", u64::from(n) + 1),
                };
                let reason = format!("{}: {}{times}", self.endpoint, failure.reason);
                return Err(Unscorable(reason));
            }
            let doubled = self.config.backoff_s * 2_f64.powi(attempt.min(64) as i32);
            let backoff = doubled.min(MAX_BACKOFF_S) * (1.0 - 0.5 * rng.next_f64());
            thread::sleep(Duration::from_secs_f64(backoff).max(failure.wait));
            attempt += 1;
        }
    }

    /// Sends a request once.
    fn exchange(&self, body: &str) -> Result<ChatAnswer, Failure> {
        let mut post = self.agent.post(&self.endpoint);
        post = post.header("Content-Type", "application/json");
        if let Some(key) = &self.key {
            post = post.header("Authorization", key.header.clone());
        }
        let mut response = post.send(body).map_err(|e| self.broken(&e))?;
        let status = response.status().as_u16();
        let limited = response.body_mut().with_config().limit(MAX_BODY);
        let bytes = limited.read_to_vec();
        if !(200..300).contains(&status) {
            let text = bytes.unwrap_or_default();
            return Err(self.refused(status, response.headers(), &text));
        }
        let bytes = bytes.map_err(|e| self.broken(&e))?;
        let reply: Reply = serde_json::from_slice(&bytes).map_err(|e| {
            let (what, sent) = (self.quote(e.to_string()), self.quote_bytes(&bytes));
            Failure::new(true, format!("sent no chat completion ({what}): {sent}"))
        })?;
        // What is paid for counts, usable or not.
        let (tokens_in, tokens_out) = reply.tokens();
        self.count(|usage| {
            usage.tokens_in += tokens_in;
            usage.tokens_out += tokens_out;
        });
        reply.answer().map_err(|lack| {
            let sent = self.quote_bytes(&bytes);
            Failure::new(true, format!("there is {lack} in what it sent: {sent}"))
        })
    }

    /// No whole reply came.
    fn broken(&self, error: &ureq::Error) -> Failure {
        use ureq::Error;
        let lasting = matches!(
            error,
            Error::BadUri(_)
                | Error::Http(_)
                | Error::InvalidProxyUrl
                | Error::BodyExceedsLimit(_)
                | Error::LargeResponseHeader(..)
        );
        let reason = match error {
            Error::Timeout(_) => format!("no whole answer within {} s", self.config.timeout_s),
            _ => self.quote(error.to_string()),
        };
        Failure::new(!lasting, reason)
    }

    /// A reply came, of another status than success.
    fn refused(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Failure {
        let said = self.quote(error_message(&String::from_utf8_lossy(body)));
        let passing = matches!(status, 408 | 409 | 429 | 500..=599);
        let mut failure = Failure::new(passing, format!("status {status}: {said}"));
        let header = headers.get("retry-after").and_then(|h| h.to_str().ok());
        let wait = header.and_then(|h| retry_after(h, SystemTime::now()));
        let Some(wait) = wait.filter(|_| passing) else {
            return failure;
        };
        if wait > MAX_WAIT {
            failure.passing = false;
            let asks = format!(" (it asks to wait {} s)", wait.as_secs());
            failure.reason.push_str(&asks);
            return failure;
        }
        failure.wait = wait;
        // These two are said of the server and the key, not of one request.
        if matches!(status, 429 | 503) {
            self.pace.pause(wait);
        }
        failure
    }

    fn count(&self, change: impl FnOnce(&mut Usage)) {
        change(&mut self.usage.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn quote_bytes(&self, bytes: &[u8]) -> String {
        // Enough to cut from, also after a key is taken out; a reply may be large.
        let start = &bytes[..bytes.len().min(64 << 10)];
        self.quote(String::from_utf8_lossy(start).into_owned())
    }

    /// Foreign text in one short line, without the key: servers repeat keys that they refuse.
    fn quote(&self, text: String) -> String {
        let text = match &self.key {
            Some(key) => text.replace(&key.secret, "[key]"),
            None => text,
        };
        let plain: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let plain = plain.trim();
        if plain.is_empty() {
            return "nothing".to_owned();
        }
        match plain.char_indices().nth(QUOTED) {
            Some((end, _)) => format!("{}…", &plain[..end]),
            None => plain.to_owned(),
        }
    }
}

/// True if the address is this machine's.
fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or("");
    let number = host.trim_start_matches('[').trim_end_matches(']');
    let number = number.parse::<std::net::IpAddr>();
    host == "localhost" || number.is_ok_and(|ip| ip.is_loopback())
}
