//! The log: one JSON line for each judgement, appended and never rewritten.
//!
//! A line is on the disk before [`Log::append`] returns. Several programs may append at once: each
//! holds the file's lock while it writes. What a crash left of a last line is cut off when the log
//! is opened or appended to next, and said; any other damage is an error.

use std::{
    collections::{HashMap, HashSet},
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    annotation::{Annotation, Entry, Retraction},
    error::FeedbackError,
};

/// A last line that was never written whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The log.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// How many bytes of it there were.
    pub bytes: usize,
}

impl std::fmt::Display for Torn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (path, line, bytes) = (self.path.display(), self.line, self.bytes);
        write!(
            f,
            "{path}:{line}: the last line was never written whole; its {bytes} bytes do not count"
        )
    }
}

/// A log that is open for appending.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
}

/// The lock of a file, until it is dropped. File systems without locks have appending alone.
struct Locked<'a>(&'a File);

impl<'a> Locked<'a> {
    fn exclusive(file: &'a File) -> std::io::Result<Self> {
        supported(file.lock()).map(|()| Self(file))
    }

    fn shared(file: &'a File) -> std::io::Result<Self> {
        supported(file.lock_shared()).map(|()| Self(file))
    }
}

fn supported(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(()),
        other => other,
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // Closing the file releases it, too.
        let _ = self.0.unlock();
    }
}

impl Log {
    /// Opens a log, or starts one, and reads the judgements that count. A torn last line is cut
    /// off and returned.
    ///
    /// # Errors
    /// When the file cannot be opened, or names the line that is damaged.
    pub fn open(path: &Path) -> Result<(Self, Vec<Annotation>, Option<Torn>), FeedbackError> {
        let new = !path.exists();
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(FeedbackError::io(path))?;
        if new {
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
            // The file's name is on the disk, too. Not every system opens folders.
            if let Ok(folder) = File::open(folder.unwrap_or(Path::new("."))) {
                let _ = folder.sync_all();
            }
        }
        let mut log = Self {
            path: path.to_owned(),
            file,
        };
        let handle = log.file.try_clone().map_err(FeedbackError::io(path))?;
        let _locked = Locked::exclusive(&handle).map_err(FeedbackError::io(path))?;
        let (bytes, torn) = log.mend()?;
        let annotations = live(lines(path, &bytes)?)?;
        Ok((log, annotations, torn))
    }

    /// Appends one line and returns when it is on the disk. Where another program left a torn line
    /// meanwhile, it is cut off first and returned.
    ///
    /// # Errors
    /// When the line cannot be written; what was written of it is taken away again.
    pub fn append(&mut self, entry: &Entry) -> Result<Option<Torn>, FeedbackError> {
        let path = self.path.clone();
        let io = |error| FeedbackError::io(&path)(error);
        let mut line = serde_json::to_vec(entry).map_err(|e| io(e.into()))?;
        line.push(b'\n');
        let handle = self.file.try_clone().map_err(io)?;
        let _locked = Locked::exclusive(&handle).map_err(io)?;
        let torn = if self.ends_with_newline().map_err(io)? {
            None
        } else {
            self.mend()?.1
        };
        let before = self.file.metadata().map_err(io)?.len();
        let written = self
            .file
            .write_all(&line)
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // A full disk: the start of the line is of no use.
            let _ = self.file.set_len(before);
            return Err(io(error));
        }
        Ok(torn)
    }

    fn ends_with_newline(&mut self) -> std::io::Result<bool> {
        if self.file.seek(SeekFrom::End(0))? == 0 {
            return Ok(true);
        }
        self.file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        self.file.read_exact(&mut last)?;
        Ok(last == *b"\n")
    }

    /// Cuts a torn line off, or ends a whole one that lacks its newline. The lock is held.
    fn mend(&mut self) -> Result<(Vec<u8>, Option<Torn>), FeedbackError> {
        let path = self.path.clone();
        let io = |error| FeedbackError::io(&path)(error);
        let mut bytes = Vec::new();
        self.file.rewind().map_err(io)?;
        self.file.read_to_end(&mut bytes).map_err(io)?;
        let torn = cut_torn(&path, &mut bytes);
        if torn.is_some() {
            self.file.set_len(bytes.len() as u64).map_err(io)?;
            self.file.sync_data().map_err(io)?;
        } else if bytes.last().is_some_and(|last| *last != b'\n') {
            self.file.write_all(b"\n").map_err(io)?;
            self.file.sync_data().map_err(io)?;
        }
        Ok((bytes, torn))
    }
}

/// The judgements of logs that count: without those taken back. A line that is in several logs
/// counts once. A torn last line is left out; [`read_saying`] says so.
///
/// # Errors
/// When a file cannot be read, or names the line that is damaged.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Annotation>, FeedbackError> {
    read_saying(paths).map(|(annotations, _)| annotations)
}

/// [`read`], and the torn lines that were left out. The files stay as they are.
///
/// # Errors
/// When a file cannot be read, or names the line that is damaged.
pub fn read_saying(paths: &[PathBuf]) -> Result<(Vec<Annotation>, Vec<Torn>), FeedbackError> {
    let (mut all, mut torn) = (Vec::new(), Vec::new());
    for path in paths {
        let io = |error| FeedbackError::io(path)(error);
        let mut file = File::open(path).map_err(io)?;
        let mut bytes = Vec::new();
        {
            let handle = file.try_clone().map_err(io)?;
            let _locked = Locked::shared(&handle).map_err(io)?;
            file.read_to_end(&mut bytes).map_err(io)?;
        }
        torn.extend(cut_torn(path, &mut bytes));
        all.extend(lines(path, &bytes)?);
    }
    Ok((live(all)?, torn))
}

/// Cuts off a last line without its newline, unless it is a whole JSON value all the same.
fn cut_torn(path: &Path, bytes: &mut Vec<u8>) -> Option<Torn> {
    let start = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    let tail = &bytes[start..];
    if tail.is_empty() || serde_json::from_slice::<Value>(tail).is_ok() {
        return None;
    }
    let torn = Torn {
        path: path.to_owned(),
        line: bytes[..start].iter().filter(|b| **b == b'\n').count() + 1,
        bytes: tail.len(),
    };
    bytes.truncate(start);
    Some(torn)
}

/// The entries with their places. Empty lines do not count.
fn lines(path: &Path, bytes: &[u8]) -> Result<Vec<(String, Entry)>, FeedbackError> {
    let mut entries = Vec::new();
    for (index, line) in bytes.split(|b| *b == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let place = format!("{}:{}", path.display(), index + 1);
        let entry = entry(line).map_err(|reason| {
            FeedbackError::row(
                &place,
                format!("is no line of a log of annotations: {reason}"),
            )
        })?;
        entries.push((place, entry));
    }
    Ok(entries)
}

fn entry(line: &[u8]) -> Result<Entry, String> {
    let value: Value = serde_json::from_slice(line).map_err(|e| e.to_string())?;
    if value.get("retracted").is_some() {
        let retraction = serde_json::from_value(value).map_err(|e| e.to_string())?;
        return Ok(Entry::Retraction(retraction));
    }
    let annotation: Annotation = serde_json::from_value(value).map_err(|e| e.to_string())?;
    annotation.check()?;
    Ok(Entry::Annotation(Box::new(annotation)))
}

/// Applies the retractions, which may only take back earlier lines of the same annotator.
fn live(entries: Vec<(String, Entry)>) -> Result<Vec<Annotation>, FeedbackError> {
    let mut known: HashMap<String, Annotation> = HashMap::new();
    let mut order = Vec::new();
    let mut retracted: HashSet<String> = HashSet::new();
    for (place, entry) in entries {
        match entry {
            Entry::Annotation(annotation) => match known.get(&annotation.id) {
                None => {
                    order.push(annotation.id.clone());
                    known.insert(annotation.id.clone(), *annotation);
                }
                Some(same) if *same == *annotation => {}
                Some(_) => {
                    let reason = format!("id {} is that of another line", annotation.id);
                    return Err(FeedbackError::row(place, reason));
                }
            },
            Entry::Retraction(Retraction {
                retracted: id,
                annotator,
                ..
            }) => {
                let reason = match known.get(&id) {
                    None => format!("takes back {id}, which no earlier line has"),
                    Some(annotation) if annotation.annotator != annotator => {
                        format!("takes back {id}, which {} judged", annotation.annotator)
                    }
                    Some(_) => {
                        retracted.insert(id);
                        continue;
                    }
                };
                return Err(FeedbackError::row(place, reason));
            }
        }
    }
    order.retain(|id| !retracted.contains(id));
    Ok(order.iter().filter_map(|id| known.remove(id)).collect())
}
