//! Models from the Hugging Face hub, in the cache that Python's `huggingface_hub` shares.
//!
//! `HF_ENDPOINT`, `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN` and `HF_HUB_OFFLINE` mean what they mean
//! there. What is downloaded is compared with the checksum that the hub gives for it.

use std::{
    env, fs,
    io::IsTerminal,
    path::{Path, PathBuf},
};

use hf_hub::{
    Cache, Repo, RepoType,
    api::sync::{ApiBuilder, ApiRepo},
};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::error::PolicyError;

/// A repository on the hub, `owner/name[@revision]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoId {
    /// `owner/name`.
    pub name: String,
    /// Branch, tag or commit.
    pub revision: String,
}

impl std::fmt::Display for RepoId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "hf:{}", self.name)?;
        if self.revision == "main" {
            return Ok(());
        }
        write!(f, "@{}", self.revision)
    }
}

/// The files that a model needs beside its weights; all but the first two may be missing.
const SMALL_FILES: [&str; 6] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
];
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// An adapter's files, in the place of the weights'.
const ADAPTER: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

impl RepoId {
    /// Reads `owner/name[@revision]`.
    ///
    /// # Errors
    /// When it is not of this form.
    pub fn parse(spec: &str) -> Result<Self, PolicyError> {
        let (name, revision) = spec.split_once('@').unwrap_or((spec, "main"));
        let plain = |part: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !part.is_empty() && part.chars().all(allowed) && !part.starts_with('.')
        };
        let whole = name.split('/').collect::<Vec<_>>();
        let valid = whole.len() == 2 && whole.iter().all(|part| plain(part));
        if !valid || !revision.split('/').all(plain) {
            return Err(PolicyError::Source {
                spec: format!("hf:{spec}"),
                reason: "is not of the form hf:owner/name or hf:owner/name@revision".to_owned(),
            });
        }
        Ok(Self {
            name: name.to_owned(),
            revision: revision.to_owned(),
        })
    }

    fn repo(&self) -> Repo {
        Repo::with_revision(self.name.clone(), RepoType::Model, self.revision.clone())
    }

    /// The folder of the repository's files in the local cache, if the model is whole there.
    ///
    /// # Errors
    /// When there is no home folder and no `HF_HOME`.
    pub fn cached(&self) -> Result<Option<PathBuf>, PolicyError> {
        let repo = self.cache()?.repo(self.repo());
        let Some(config) = repo.get(SMALL_FILES[0]).or_else(|| repo.get(ADAPTER[0])) else {
            return Ok(None);
        };
        let Some(folder) = config.parent() else {
            return Ok(None);
        };
        let index = folder.join(INDEX);
        let weights = if folder.join(ADAPTER[0]).exists() {
            vec![ADAPTER[1].to_owned()]
        } else if index.exists() {
            shards(&index)?
        } else {
            vec![WEIGHTS.to_owned()]
        };
        let whole = weights.iter().all(|file| folder.join(file).exists());
        Ok(whole.then(|| folder.to_owned()))
    }

    /// The folder of the repository's files, brought from the hub as far as they are not here.
    /// Without a connection, or with `HF_HUB_OFFLINE`, what is in the cache has to do.
    ///
    /// # Errors
    /// When the hub does not have the repository, or does not answer and the cache has no whole
    /// model; when the repository holds no safetensors; when a checksum does not fit.
    pub fn fetch(&self) -> Result<PathBuf, PolicyError> {
        let cached = self.cached()?;
        if offline() {
            return cached.ok_or_else(|| {
                self.failed("is not in the cache, and HF_HUB_OFFLINE is set".to_owned())
            });
        }
        let api = self.api()?;
        let info = match (api.info(), cached) {
            (Ok(info), _) => info,
            (Err(error), Some(folder)) if unreachable(&error) => return Ok(folder),
            (Err(error), _) => return Err(self.failed(explain(&error))),
        };
        let there: Vec<&str> = info.siblings.iter().map(|s| s.rfilename.as_str()).collect();
        let mut folder = None;
        for file in self.wanted(&there)? {
            folder = self.bring(&api, &file)?.parent().map(Path::to_owned);
            if file == INDEX {
                let index = folder.as_deref().map_or(PathBuf::new(), |f| f.join(INDEX));
                for shard in shards(&index)? {
                    self.bring(&api, &shard)?;
                }
            }
        }
        folder.ok_or_else(|| self.failed("has no files of a model".to_owned()))
    }

    /// Which of the files that are there make the model.
    fn wanted(&self, there: &[&str]) -> Result<Vec<String>, PolicyError> {
        let has = |file: &&str| there.contains(file);
        let mut wanted: Vec<&str> = SMALL_FILES.into_iter().filter(has).collect();
        if ADAPTER.iter().all(has) {
            wanted.extend(ADAPTER);
        } else if let Some(weights) = [INDEX, WEIGHTS].into_iter().find(has) {
            wanted.push(weights);
        } else {
            let reason = format!(
                "has neither {WEIGHTS} nor {INDEX}; weights are read from safetensors only (it \
                 has: {})",
                there.join(", ")
            );
            return Err(PolicyError::Source {
                spec: self.to_string(),
                reason,
            });
        }
        Ok(wanted.into_iter().map(str::to_owned).collect())
    }

    fn cache(&self) -> Result<Cache, PolicyError> {
        if let Some(folder) = variable("HF_HUB_CACHE") {
            return Ok(Cache::new(folder.into()));
        }
        if variable("HF_HOME").is_none() && env::home_dir().is_none() {
            return Err(self.failed("there is no home folder; set HF_HOME".to_owned()));
        }
        Ok(Cache::from_env())
    }

    fn api(&self) -> Result<ApiRepo, PolicyError> {
        let mut builder = ApiBuilder::from_cache(self.cache()?)
            .with_progress(std::io::stderr().is_terminal())
            .with_retries(3);
        if let Some(endpoint) = variable("HF_ENDPOINT") {
            if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
                return Err(PolicyError::Source {
                    spec: format!("HF_ENDPOINT={endpoint}"),
                    reason: "is not an http or https address".to_owned(),
                });
            }
            builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
        }
        if let Some(token) = variable("HF_TOKEN") {
            builder = builder.with_token(Some(token));
        }
        let api = builder.build().map_err(|e| self.failed(explain(&e)))?;
        Ok(api.repo(self.repo()))
    }

    /// One file, with its checksum compared.
    fn bring(&self, api: &ApiRepo, file: &str) -> Result<PathBuf, PolicyError> {
        let failed = |reason: String| self.failed(format!("{file}: {reason}"));
        let path = api.get(file).map_err(|e| failed(explain(&e)))?;
        // The cache names a file by its checksum on the hub and links to it.
        let blob = fs::canonicalize(&path).map_err(PolicyError::io(&path))?;
        let name = blob.file_name().and_then(|n| n.to_str()).unwrap_or("");
        if let Some(found) = checksum_like(&blob, name)?
            && found != name
        {
            for wrong in [&path, &blob] {
                fs::remove_file(wrong).map_err(PolicyError::io(wrong))?;
            }
            let reason =
                format!("its checksum is {found}, the hub says {name}; removed it, try again");
            return Err(failed(reason));
        }
        Ok(path)
    }

    fn failed(&self, reason: String) -> PolicyError {
        PolicyError::Fetch {
            spec: self.to_string(),
            reason,
        }
    }
}

/// The shards that an index names.
fn shards(index: &Path) -> Result<Vec<String>, PolicyError> {
    let files = crate::hf::shard_names(index)?;
    Ok(files.into_iter().collect())
}

/// A variable that is set to something.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// As `huggingface_hub` reads it.
fn offline() -> bool {
    let value = variable("HF_HUB_OFFLINE").unwrap_or_default();
    ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str())
}

/// The checksum of a file in the form of `expected`: SHA-256 for large files, git's blob hash for
/// small ones; `None` if it is in neither.
fn checksum_like(path: &Path, expected: &str) -> Result<Option<String>, PolicyError> {
    let hexadecimal = expected.bytes().all(|b| b.is_ascii_hexdigit());
    match expected.len() {
        64 if hexadecimal => sha256(path).map(Some),
        40 if hexadecimal => {
            let bytes = fs::read(path).map_err(PolicyError::io(path))?;
            let mut hasher = Sha1::new();
            hasher.update(format!("blob {}\0", bytes.len()));
            hasher.update(&bytes);
            Ok(Some(hex(&hasher.finalize())))
        }
        _ => Ok(None),
    }
}

/// SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256(path: &Path) -> Result<String, PolicyError> {
    let mut file = fs::File::open(path).map_err(PolicyError::io(path))?;
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut hasher).map_err(PolicyError::io(path))?;
    Ok(hex(&hasher.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

type ApiError = hf_hub::api::sync::ApiError;

/// True if the hub did not answer at all.
fn unreachable(error: &ApiError) -> bool {
    match error {
        ApiError::RequestError(inner) => !matches!(**inner, ureq::Error::StatusCode(_)),
        ApiError::TooManyRetries(inner) => unreachable(inner),
        _ => false,
    }
}

/// The error with what to do about it.
fn explain(error: &ApiError) -> String {
    if let ApiError::RequestError(inner) = error
        && let ureq::Error::StatusCode(status) = **inner
    {
        return match status {
            401 | 403 => format!(
                "the hub refuses access (status {status}): the repository does not exist, or is \
                 private or gated; set HF_TOKEN to a token that may read it"
            ),
            404 => "the hub has no such repository, revision or file (status 404)".to_owned(),
            _ => format!("the hub answers with status {status}"),
        };
    }
    if unreachable(error) {
        return format!("the hub does not answer: {error}");
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_repositories() {
        let parse = |spec: &str| RepoId::parse(spec).map(|id| id.to_string());
        assert_eq!(parse("a/b").unwrap(), "hf:a/b");
        assert_eq!(parse("a/b.c-d@v1.0").unwrap(), "hf:a/b.c-d@v1.0");
        for bad in [
            "a", "a/b/c", "/b", "a/", "a/../b", "a/b@", "a b/c", "../b", "a/b@../x",
        ] {
            let text = parse(bad).unwrap_err().to_string();
            assert!(text.contains("owner/name"), "{bad}: {text}");
        }
    }

    #[test]
    fn checksums_are_those_of_git_and_sha256sum() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, "hello\n").unwrap();
        let check = |name: &str| checksum_like(&path, name).unwrap();
        // `git hash-object x`, `sha256sum x`.
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        let sha = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert_eq!(check(git).unwrap(), git);
        assert_eq!(check(sha).unwrap(), sha);
        assert_eq!(check("etag-of-a-proxy"), None);
    }
}
