//! The folder that a run writes.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::TrainError;

/// `config.toml`, `metrics.jsonl`, `samples.jsonl`, `alarms.jsonl`, `timings.jsonl`, `checkpoints/`,
/// `model/`, `report.html`. One process at a time: a lock is held until this is dropped.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Settings of a resumed run that are others than it was started with.
    changed: Vec<(String, String)>,
    _lock: File,
}

/// Settings that a resumed run may change: they change what is in memory at a time, and of the results
/// their rounding. Last parts of their keys.
const MAY_CHANGE: [&str; 3] = [
    "micro_batch_size",
    "gradient_checkpointing",
    "sampling.batch_size",
];

impl RunFolder {
    /// Makes a new run folder, or opens an old one to resume it.
    ///
    /// # Errors
    /// When the folder holds something already and is not resumed, when the configuration differs
    /// from the one it was started with (but for what memory needs), when another process works in it.
    pub fn open(path: &Path, config: &str, resume: bool) -> Result<Self, TrainError> {
        let folder = |reason: String| TrainError::Folder {
            path: path.to_owned(),
            reason,
        };
        let stored = path.join("config.toml");
        let used = path.is_dir() && begun(path).map_err(TrainError::io(path))?;
        if path.exists() && !path.is_dir() {
            return Err(folder("is not a folder".to_owned()));
        }
        if used && !resume {
            let reason = "is not empty; give --resume to go on with it, or another --out";
            return Err(folder(reason.to_owned()));
        }
        if used && !stored.is_file() {
            return Err(folder("is no run folder (no config.toml)".to_owned()));
        }
        fs::create_dir_all(path.join("checkpoints")).map_err(TrainError::io(path))?;
        let lock_path = path.join(".lock");
        let lock = File::create(&lock_path).map_err(TrainError::io(&lock_path))?;
        if lock.try_lock().is_err() {
            return Err(folder("another process is working in it".to_owned()));
        }
        let mut changed = Vec::new();
        if used {
            let old = fs::read_to_string(&stored).map_err(TrainError::io(&stored))?;
            let (kept, ours) = (without_memory(&old), without_memory(config));
            if let Some((old, new)) = first_difference(&kept, &ours) {
                return Err(folder(format!(
                    "was started with another configuration (`{old}`, now `{new}`); a resumed run \
                     keeps its own"
                )));
            }
            changed = memory_lines(&old)
                .into_iter()
                .zip(memory_lines(config))
                .filter(|(old, new)| old != new)
                .collect();
            if old != config {
                write_whole(&stored, config.as_bytes())?;
            }
        } else {
            write_whole(&stored, config.as_bytes())?;
        }
        Ok(Self {
            path: path.to_owned(),
            changed,
            _lock: lock,
        })
    }

    /// Lines of the configuration that this resumed run was started with, and what they are now.
    pub fn changed(&self) -> &[(String, String)] {
        &self.changed
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the model goes.
    pub fn model(&self) -> PathBuf {
        self.path.join("model")
    }

    /// Appends one line to a file of the folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn append(&self, name: &str, row: &Map<String, Value>) -> Result<(), TrainError> {
        let path = self.path.join(name);
        let mut line = serde_json::to_vec(row).map_err(|e| TrainError::io(&path)(e.into()))?;
        line.push(b'\n');
        let mut options = OpenOptions::new();
        let mut file = options
            .create(true)
            .append(true)
            .open(&path)
            .map_err(TrainError::io(&path))?;
        file.write_all(&line).map_err(TrainError::io(&path))
    }

    /// Bytes of a file of the folder; 0 if it is not there.
    pub fn length(&self, name: &str) -> u64 {
        fs::metadata(self.path.join(name)).map_or(0, |m| m.len())
    }

    /// Cuts a file back to a length: what a killed run wrote after its last checkpoint.
    ///
    /// # Errors
    /// When it cannot be cut, or is shorter already.
    pub fn cut(&self, name: &str, length: u64) -> Result<(), TrainError> {
        let path = self.path.join(name);
        let found = self.length(name);
        if found < length {
            let reason = format!("has {found} bytes where the checkpoint counted {length}");
            return Err(TrainError::Folder { path, reason });
        }
        if found == length {
            return Ok(());
        }
        let file = OpenOptions::new()
            .write(true)
            .open(&path)
            .map_err(TrainError::io(&path))?;
        file.set_len(length).map_err(TrainError::io(&path))
    }

    /// The rows of a file that grows by lines, each of which is kept: a line that was being written when a
    /// run was killed is cut off. None if the file is not there.
    ///
    /// # Errors
    /// When the file cannot be read or cut, or a line is damaged.
    pub fn read_lines<T: DeserializeOwned>(&self, name: &str) -> Result<Vec<T>, TrainError> {
        let path = self.path.join(name);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let mut bytes = fs::read(&path).map_err(TrainError::io(&path))?;
        // A line may be torn within a character.
        let whole = bytes.iter().rposition(|b| *b == b'\n');
        bytes.truncate(whole.map_or(0, |at| at + 1));
        self.cut(name, bytes.len() as u64)?;
        let text = String::from_utf8(bytes).map_err(|e| TrainError::Folder {
            path: path.clone(),
            reason: format!("is not UTF-8: {e}"),
        })?;
        let row = |(number, line): (usize, &str)| {
            serde_json::from_str(line).map_err(|e| TrainError::Folder {
                path: path.clone(),
                reason: format!("line {}: {e}", number + 1),
            })
        };
        text.lines().enumerate().map(row).collect()
    }

    /// Cuts a file back to before the first row of a stage: what a run wrote that was killed
    /// before the stage's first checkpoint.
    ///
    /// # Errors
    /// When the file cannot be read or cut.
    pub fn cut_stage(&self, name: &str, stage: &str) -> Result<(), TrainError> {
        let path = self.path.join(name);
        if !path.exists() {
            return Ok(());
        }
        let bytes = fs::read(&path).map_err(TrainError::io(&path))?;
        let mut kept = 0;
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            // A line that is not whole was being written when the run was killed.
            let row: Result<Value, _> = serde_json::from_slice(line);
            if row.map_or(true, |row| row["stage"] == stage) {
                break;
            }
            kept += line.len();
        }
        self.cut(name, kept as u64)
    }
}

/// True if a folder holds more than what a run leaves that was killed before its `config.toml`
/// was written.
fn begun(path: &Path) -> std::io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let first_traces = match entry.file_name().to_str() {
            Some(".lock" | "config.new") => true,
            Some("checkpoints") => fs::read_dir(entry.path())?.next().is_none(),
            _ => false,
        };
        if !first_traces {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The lines of a configuration, each with its key where it is one of [`MAY_CHANGE`].
fn keyed(config: &str) -> impl Iterator<Item = (&str, Option<String>)> {
    let mut section = "";
    config.lines().map(move |line| {
        if let Some(rest) = line.strip_prefix('[') {
            section = rest.trim_end_matches(']');
        }
        let name = line.split('=').next().unwrap_or("").trim();
        let key = format!(".{section}.{name}");
        let found = MAY_CHANGE
            .iter()
            .any(|last| key.ends_with(&format!(".{last}")));
        let key = found.then(|| key.trim_start_matches('.').to_owned());
        (line, key)
    })
}

/// Settings of memory, written `key = value`.
fn memory_lines(config: &str) -> Vec<String> {
    let value = |line: &str| line.split('=').nth(1).unwrap_or("").trim().to_owned();
    keyed(config)
        .filter_map(|(line, key)| Some(format!("{} = {}", key?, value(line))))
        .collect()
}

fn without_memory(config: &str) -> String {
    let lines = keyed(config).filter(|(_, key)| key.is_none());
    lines.map(|(line, _)| format!("{line}\n")).collect()
}

fn first_difference(old: &str, new: &str) -> Option<(String, String)> {
    let (mut a, mut b) = (old.lines(), new.lines());
    loop {
        match (a.next(), b.next()) {
            (None, None) => return None,
            (x, y) if x == y => {}
            (x, y) => return Some((x.unwrap_or("").to_owned(), y.unwrap_or("").to_owned())),
        }
    }
}

/// Writes a file beside and renames it into place, so that it is never half there.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let fresh = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().map_err(TrainError::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_torn_within_a_character_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunFolder::open(&dir.path().join("run"), "", false).unwrap();
        let path = run.path().join("lines.jsonl");
        let whole = "\"研ぎ\"\n";
        let torn = &"\"研ぎ\"".as_bytes()[..5];
        fs::write(&path, [whole.as_bytes(), torn].concat()).unwrap();
        let lines: Vec<String> = run.read_lines("lines.jsonl").unwrap();
        assert_eq!(lines, ["研ぎ"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);
    }

    #[test]
    fn a_used_folder_is_refused_and_a_run_resumes_with_its_own_config() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let run = RunFolder::open(&path, "a = 1\n", false).unwrap();
        let busy = RunFolder::open(&path, "a = 1\n", true).unwrap_err();
        assert!(busy.to_string().contains("another process"), "{busy}");
        drop(run);
        let used = RunFolder::open(&path, "a = 1\n", false).unwrap_err();
        assert!(
            used.to_string().contains("--resume") && used.is_input(),
            "{used}"
        );
        let other = RunFolder::open(&path, "a = 2\n", true).unwrap_err();
        assert!(
            other.to_string().contains("`a = 1`, now `a = 2`"),
            "{other}"
        );
        let memory = |n: usize| format!("a = 1\n[sft.train]\nmicro_batch_size = {n}\n");
        let path_of_memory = dir.path().join("memory");
        drop(RunFolder::open(&path_of_memory, &memory(4), false).unwrap());
        let smaller = RunFolder::open(&path_of_memory, &memory(2), true).unwrap();
        assert_eq!(smaller.changed().len(), 1);
        assert_eq!(smaller.changed()[0].1, "sft.train.micro_batch_size = 2");
        let stored = fs::read_to_string(path_of_memory.join("config.toml")).unwrap();
        assert_eq!(stored, memory(2));
        drop(smaller);
        let batch = |section: &str| format!("[{section}]\nbatch_size = 1\n");
        for (section, may) in [("label.sampling", true), ("train", false)] {
            let path = dir.path().join(section);
            drop(RunFolder::open(&path, &batch(section), false).unwrap());
            let other = batch(section).replace('1', "2");
            assert_eq!(
                RunFolder::open(&path, &other, true).is_ok(),
                may,
                "{section}"
            );
        }
        let run = RunFolder::open(&path, "a = 1\n", true).unwrap();
        assert!(run.changed().is_empty());
        run.append("metrics.jsonl", &Map::new()).unwrap();
        run.append("metrics.jsonl", &Map::new()).unwrap();
        run.cut("metrics.jsonl", 3).unwrap();
        assert_eq!(run.length("metrics.jsonl"), 3);
        assert!(run.cut("metrics.jsonl", 9).is_err());
    }
}
