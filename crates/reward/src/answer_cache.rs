//! Answers kept in a file, so that nothing is paid for twice.

use std::{
    collections::HashMap,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{ChatAnswer, ServerError};

/// A JSONL file of answers. Each is appended as it comes, in one write, so that a killed run leaves
/// at most its last line torn; several servers and processes may share the file.
pub(crate) struct AnswerCache {
    path: PathBuf,
    state: Mutex<State>,
}

impl fmt::Debug for AnswerCache {
    /// Its path: the answers are many.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("AnswerCache");
        text.field("path", &self.path).finish_non_exhaustive()
    }
}

struct State {
    file: File,
    /// As far as the file has been read: the end of its last whole line.
    end: u64,
    lines: usize,
    answers: HashMap<String, ChatAnswer>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: String,
    answer: ChatAnswer,
}

impl AnswerCache {
    /// Opens the file, or begins it, and reads what is there.
    pub(crate) fn open(path: &Path) -> Result<Self, ServerError> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(ServerError::io(path))?;
        }
        // Not `append`: with it, Windows does not let a torn line be cut off.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let cache = Self {
            path: path.to_owned(),
            state: Mutex::new(State {
                file: options.open(path).map_err(ServerError::io(path))?,
                end: 0,
                lines: 0,
                answers: HashMap::new(),
            }),
        };
        cache.locked(|_| Ok(()))?;
        Ok(cache)
    }

    /// The answer under this key.
    pub(crate) fn get(&self, key: &str) -> Option<ChatAnswer> {
        let mut answer = self.state().answers.get(key).cloned()?;
        answer.cached = true;
        Some(answer)
    }

    /// Keeps an answer and returns it as a later run will read it: `serde_json` may be off by a last
    /// digit each time it reads a number.
    pub(crate) fn keep(&self, key: &str, answer: ChatAnswer) -> Result<ChatAnswer, ServerError> {
        let key = key.to_owned();
        let invalid = |e: serde_json::Error| ServerError::io(&self.path)(e.into());
        let mut text = serde_json::to_string(&Line { key, answer }).map_err(invalid)?;
        let Line { key, answer } = serde_json::from_str(&text).map_err(invalid)?;
        text.push('\n');
        self.locked(|state| {
            let written = state.file.seek(SeekFrom::Start(state.end));
            let written = written.and_then(|_| state.file.write_all(text.as_bytes()));
            written.map_err(ServerError::io(&self.path))?;
            state.end += text.len() as u64;
            state.lines += 1;
            state.answers.insert(key, answer.clone());
            Ok(())
        })?;
        Ok(answer)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something while no other process writes, after reading what others have written.
    fn locked(
        &self,
        work: impl FnOnce(&mut State) -> Result<(), ServerError>,
    ) -> Result<(), ServerError> {
        let mut state = self.state();
        match state.file.lock() {
            // A file system without locks serves a single process well enough.
            Err(e) if e.kind() != io::ErrorKind::Unsupported => {
                return Err(ServerError::io(&self.path)(e));
            }
            _ => {}
        }
        let result = state.catch_up(&self.path).and_then(|()| work(&mut state));
        // Fails only where `lock` did; the lock goes with the file in any case.
        let _ = state.file.unlock();
        result
    }
}

impl State {
    /// Reads the lines that are new and cuts off a torn last one: under the lock, only a run that
    /// was killed can have left it.
    fn catch_up(&mut self, path: &Path) -> Result<(), ServerError> {
        let io = ServerError::io(path);
        let length = self.file.metadata().map_err(&io)?.len();
        if length < self.end {
            // Someone emptied the file: begin again.
            (self.end, self.lines) = (0, 0);
        }
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(self.end)).map_err(&io)?;
        self.file.read_to_end(&mut bytes).map_err(&io)?;
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        for line in bytes[..whole].split_inclusive(|b| *b == b'\n') {
            let Line { key, answer } =
                serde_json::from_slice(line).map_err(|e| ServerError::Damaged {
                    path: path.to_owned(),
                    line: self.lines + 1,
                    reason: e.to_string(),
                })?;
            self.answers.insert(key, answer);
            self.end += line.len() as u64;
            self.lines += 1;
        }
        if whole < bytes.len() {
            self.file.set_len(self.end).map_err(&io)?;
        }
        Ok(())
    }
}
