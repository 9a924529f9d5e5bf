//! How a chat server is reached, and why it cannot be.

use std::{
    env, fmt, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use ureq::http::{HeaderValue, Uri};

/// How a chat server is reached. `url` and `model` must be given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Where the protocol begins, for example `http://localhost:8000/v1`.
    pub url: String,
    /// The model as the server calls it.
    pub model: String,
    /// Name of the environment variable with the key; empty (the default): no key is sent.
    pub key_env: String,
    /// Seconds until a request is given up, from connecting to the last byte (default: 120).
    pub timeout_s: f64,
    /// How often a request is sent again (default: 4).
    pub retries: u32,
    /// Seconds before the first time it is sent again, doubled each time up to a minute; a random
    /// part of up to half is taken off (default: 1). A server's `Retry-After` is waited for if that
    /// is longer, up to five minutes.
    pub backoff_s: f64,
    /// Requests that are under way at a time, in each call of [`Server::ask`](crate::Server::ask) (default: 8).
    pub concurrency: usize,
    /// Requests a minute, an equal time apart; those sent again count. 0 (the default): no limit.
    pub requests_per_minute: u32,
    /// Price of a million tokens of the conversations (default: 0).
    pub price_in: f64,
    /// Price of a million tokens of the answers (default: 0).
    pub price_out: f64,
    /// A JSONL file in which answers are kept and looked up (default: none).
    pub cache: Option<PathBuf>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            model: String::new(),
            key_env: String::new(),
            timeout_s: 120.0,
            retries: 4,
            backoff_s: 1.0,
            concurrency: 8,
            requests_per_minute: 0,
            price_in: 0.0,
            price_out: 0.0,
            cache: None,
        }
    }
}

impl ServerConfig {
    /// Checks the values and returns the server's address.
    pub(crate) fn check(&self) -> Result<Uri, ServerError> {
        let wrong = |field: &'static str, reason: &str| ServerError::Config {
            field,
            reason: reason.to_owned(),
        };
        let uri: Uri = self
            .url
            .parse()
            .map_err(|_| wrong("url", "is not an address such as http://localhost:8000/v1"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(wrong("url", "begins with neither http:// nor https://"));
        }
        // The address is in errors and decides the cache's keys: no secrets in it.
        if self.url.contains(['@', '?', '#']) {
            return Err(wrong(
                "url",
                "has a user, a password, a query or a fragment",
            ));
        }
        if self.model.trim().is_empty() {
            return Err(wrong("model", "is missing"));
        }
        if !(self.timeout_s > 0.0 && self.timeout_s <= 86_400.0) {
            return Err(wrong("timeout_s", "is not within 0 (exclusive) and 86400"));
        }
        if !(0.0..=3600.0).contains(&self.backoff_s) {
            return Err(wrong("backoff_s", "is not within 0 and 3600"));
        }
        if !(1..=1024).contains(&self.concurrency) {
            return Err(wrong("concurrency", "is not within 1 and 1024"));
        }
        for (field, price) in [("price_in", self.price_in), ("price_out", self.price_out)] {
            if !(price >= 0.0 && price.is_finite()) {
                return Err(wrong(field, "is not a price"));
            }
        }
        Ok(uri)
    }
}

/// Why a server cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A value of the configuration cannot be.
    #[error("`{field}` of the server {reason}")]
    Config {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no key to send.
    #[error("the key in the environment variable {variable} (`key_env` of the server) {reason}")]
    Key {
        /// The variable.
        variable: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The cache cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A line of the cache, not a torn last one, is not what was written there.
    #[error("{path}:{line}: is no kept answer, remove the line to have it asked again: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl ServerError {
    pub(crate) fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }
}

/// The key, which no text shows.
pub(crate) struct Key {
    pub(crate) secret: String,
    /// The header that carries it.
    pub(crate) header: HeaderValue,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// Reads it from the environment; without a variable's name there is none.
    pub(crate) fn read(variable: &str) -> Result<Option<Self>, ServerError> {
        if variable.is_empty() {
            return Ok(None);
        }
        let wrong = |reason| ServerError::Key {
            variable: variable.to_owned(),
            reason,
        };
        let secret = env::var(variable).map_err(|_| wrong("is not set"))?;
        let secret = secret.trim().to_owned();
        if secret.is_empty() {
            return Err(wrong("is empty"));
        }
        let mut header = HeaderValue::try_from(format!("Bearer {secret}"))
            .map_err(|_| wrong("has characters that cannot be sent"))?;
        header.set_sensitive(true);
        Ok(Some(Self { secret, header }))
    }
}
