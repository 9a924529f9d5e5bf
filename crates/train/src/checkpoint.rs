//! Checkpoints: written beside, verified by checksum, renamed into place.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use togi_policy::{
    Decoder,
    tensor_file::{self, TensorFile},
};

use crate::{error::TrainError, optimizer::AdamW, run_folder::RunFolder};

/// Everything that a stage needs to go on, to be written: tensors by name, and a small state.
#[derive(Debug, Default)]
pub struct Checkpoint {
    /// Flat float32 tensors.
    pub tensors: Vec<(String, Tensor<1>)>,
    /// Scalars: step, controllers, running moments.
    pub state: Value,
    /// What is neither, by file name.
    pub files: Vec<(String, Vec<u8>)>,
}

/// A whole checkpoint on disk. Its tensors stay there until one takes its place: all at once beside the model and
/// moments that they replace would need twice the memory.
#[derive(Debug)]
pub struct Stored {
    /// The step that it is of.
    pub step: u64,
    tensors: TensorFile,
    /// As in [`Checkpoint`].
    pub state: Value,
    /// As in [`Checkpoint`].
    pub files: Vec<(String, Vec<u8>)>,
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    stage: String,
    step: u64,
    /// SHA-256 of `tensors.safetensors`.
    tensors: String,
    /// Bytes of the files that grow, when the checkpoint was made.
    lengths: Vec<(String, u64)>,
    state: Value,
    /// Further files and their SHA-256.
    #[serde(default)]
    files: Vec<(String, String)>,
}

/// Files of a run folder that grow by lines and are the same bytes in a resumed run.
const GROWING: [&str; 3] = ["metrics.jsonl", "samples.jsonl", "alarms.jsonl"];

impl Checkpoint {
    /// Adds a model's trainable parameters and its optimiser's moments under a prefix.
    pub fn add(&mut self, prefix: &str, decoder: &Decoder, adam: &AdamW) {
        for (name, param) in decoder.params.iter().filter(|(_, p)| p.trainable) {
            self.tensors
                .push((format!("{prefix}/param/{name}"), param.tensor.clone()));
        }
        for (name, m, v) in &adam.moments {
            self.tensors.push((format!("{prefix}/m/{name}"), m.clone()));
            self.tensors.push((format!("{prefix}/v/{name}"), v.clone()));
        }
    }

    /// Writes the checkpoint of a step and then removes all but the newest `keep`. Later ones are of a run that could
    /// not go on from them.
    ///
    /// # Errors
    /// When a file cannot be written (a full disk, say); older checkpoints are untouched then.
    pub fn save(
        &self,
        run: &RunFolder,
        stage: &str,
        step: u64,
        keep: usize,
    ) -> Result<(), TrainError> {
        let root = run.path().join("checkpoints");
        let name = format!("{stage}-{step:08}");
        let fresh = root.join(format!(".{name}.new"));
        if fresh.exists() {
            fs::remove_dir_all(&fresh).map_err(TrainError::io(&fresh))?;
        }
        fs::create_dir_all(&fresh).map_err(TrainError::io(&fresh))?;
        let path = fresh.join("tensors.safetensors");
        self.write_tensors(&path)?;
        let mut files = Vec::with_capacity(self.files.len());
        for (file, bytes) in &self.files {
            let path = fresh.join(file);
            crate::run_folder::write_whole(&path, bytes)?;
            files.push((file.clone(), digest(&path)?));
        }
        for grows in GROWING {
            let path = run.path().join(grows);
            if let Ok(file) = File::open(&path) {
                file.sync_all().map_err(TrainError::io(&path))?;
            }
        }
        let manifest = Manifest {
            stage: stage.to_owned(),
            step,
            tensors: digest(&path)?,
            lengths: GROWING
                .map(|name| (name.to_owned(), run.length(name)))
                .to_vec(),
            state: self.state.clone(),
            files,
        };
        let text =
            serde_json::to_vec_pretty(&manifest).map_err(|e| TrainError::io(&fresh)(e.into()))?;
        crate::run_folder::write_whole(&fresh.join("manifest.json"), &text)?;
        let place = root.join(&name);
        if place.exists() {
            fs::remove_dir_all(&place).map_err(TrainError::io(&place))?;
        }
        fs::rename(&fresh, &place).map_err(TrainError::io(&place))?;
        if let Ok(dir) = File::open(&root) {
            dir.sync_all().map_err(TrainError::io(&root))?;
        }
        let all = list(&root, stage);
        let until = all.iter().filter(|(at, _)| *at <= step).count();
        for (i, (_, path)) in all.iter().enumerate() {
            if i + keep < until || i >= until {
                fs::remove_dir_all(path).map_err(TrainError::io(path))?;
            }
        }
        Ok(())
    }

    fn write_tensors(&self, path: &Path) -> Result<(), TrainError> {
        let tensors = self.tensors.iter();
        let flat = tensors.map(|(name, tensor)| (name.clone(), tensor.dims().to_vec(), tensor));
        tensor_file::write(flat, None, path)?;
        let file = File::open(path).map_err(TrainError::io(path))?;
        file.sync_all().map_err(TrainError::io(path))
    }
}

impl Stored {
    /// Puts back what [`Checkpoint::add`] added: parameters and moments.
    ///
    /// # Errors
    /// When a tensor is missing or has another size, or the file cannot be read.
    pub fn restore(
        &self,
        prefix: &str,
        decoder: &mut Decoder,
        adam: &mut AdamW,
        step: u64,
    ) -> Result<(), TrainError> {
        self.restore_parameters(prefix, decoder)?;
        for (name, m, v) in &mut adam.moments {
            self.take(&format!("{prefix}/m/{name}"), m)?;
            self.take(&format!("{prefix}/v/{name}"), v)?;
        }
        adam.step = step;
        Ok(())
    }

    /// Puts the trainable parameters back alone.
    ///
    /// # Errors
    /// As [`Stored::restore`].
    pub fn restore_parameters(
        &self,
        prefix: &str,
        decoder: &mut Decoder,
    ) -> Result<(), TrainError> {
        for (name, param) in decoder.params.iter_mut().filter(|(_, p)| p.trainable) {
            self.take(&format!("{prefix}/param/{name}"), &mut param.tensor)?;
        }
        Ok(())
    }

    fn take(&self, key: &str, target: &mut Tensor<1>) -> Result<(), TrainError> {
        let [count] = target.dims();
        let wrong = || {
            let reason =
                format!("tensor `{key}` is missing or of another size; was the model changed?");
            TrainError::config("checkpoint", reason)
        };
        if !self.tensors.names().any(|name| name == key) {
            return Err(wrong());
        }
        let (_, values) = self.tensors.read(key)?;
        if values.len() != count {
            return Err(wrong());
        }
        *target = Tensor::from_data(TensorData::new(values, [count]), &target.device());
        Ok(())
    }

    /// The newest whole checkpoint of a stage, with the growing files cut back to where they were.
    /// Those that are not whole are passed over and named in the second result.
    ///
    /// # Errors
    /// When a file cannot be read, or a growing file has lost lines.
    pub fn newest(run: &RunFolder, stage: &str) -> Result<(Option<Self>, Vec<String>), TrainError> {
        let mut skipped = Vec::new();
        let all = list(&run.path().join("checkpoints"), stage);
        for (_, path) in all.into_iter().rev() {
            match Self::open(&path) {
                Ok((found, lengths)) => {
                    for (name, length) in &lengths {
                        run.cut(name, *length)?;
                    }
                    return Ok((Some(found), skipped));
                }
                Err(reason) => skipped.push(format!("{}: {reason}", path.display())),
            }
        }
        for name in GROWING {
            run.cut_stage(name, stage)?;
        }
        Ok((None, skipped))
    }

    /// The newest whole checkpoint of a stage that is not younger than `step`, or else the oldest whole
    /// one. The run's files stay as they are.
    pub fn before(run: &RunFolder, stage: &str, step: u64) -> Option<Self> {
        let mut found = None;
        let all = list(&run.path().join("checkpoints"), stage);
        for (at, path) in all.into_iter().rev() {
            if let Ok((stored, _)) = Self::open(&path) {
                found = Some(stored);
                if at <= step {
                    break;
                }
            }
        }
        found
    }

    /// With the lengths of the files that grow.
    fn open(path: &Path) -> Result<(Self, Vec<(String, u64)>), String> {
        let text =
            fs::read(path.join("manifest.json")).map_err(|e| format!("manifest.json: {e}"))?;
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|e| format!("manifest.json: {e}"))?;
        let file = path.join("tensors.safetensors");
        if digest(&file).map_err(|e| e.to_string())? != manifest.tensors {
            return Err("tensors.safetensors does not have its checksum".to_owned());
        }
        let mut files = Vec::with_capacity(manifest.files.len());
        for (name, checksum) in &manifest.files {
            let file = path.join(name);
            if digest(&file).map_err(|e| e.to_string())? != *checksum {
                return Err(format!("{name} does not have its checksum"));
            }
            files.push((name.clone(), fs::read(&file).map_err(|e| e.to_string())?));
        }
        let stored = Self {
            step: manifest.step,
            tensors: TensorFile::open(&file).map_err(|e| e.to_string())?,
            state: manifest.state,
            files,
        };
        Ok((stored, manifest.lengths))
    }
}

/// Checkpoints of a stage, oldest first.
fn list(root: &Path, stage: &str) -> Vec<(u64, PathBuf)> {
    let mut all: Vec<(u64, PathBuf)> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let step = name.strip_prefix(stage)?.strip_prefix('-')?.parse().ok()?;
            Some((step, entry.path()))
        })
        .collect();
    all.sort();
    all
}

fn digest(path: &Path) -> Result<String, TrainError> {
    let mut file = File::open(path).map_err(TrainError::io(path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).map_err(TrainError::io(path))?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
    }
    Ok(hasher
        .finalize()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn checkpoint(value: f32) -> Checkpoint {
        let device = Device::flex();
        let tensor = Tensor::from_data(TensorData::new(vec![value; 5], [5]), &device);
        Checkpoint {
            tensors: vec![("x".to_owned(), tensor)],
            state: Value::from(value),
            files: Vec::new(),
        }
    }

    #[test]
    fn the_newest_whole_checkpoint_is_found_and_broken_ones_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunFolder::open(&dir.path().join("run"), "", false).unwrap();
        for step in 1..=3 {
            run.append("metrics.jsonl", &serde_json::Map::new())
                .unwrap();
            checkpoint(step as f32).save(&run, "sft", step, 2).unwrap();
        }
        let newest = || Stored::newest(&run, "sft").unwrap();
        let (found, skipped) = newest();
        assert_eq!((found.unwrap().step, skipped.len()), (3, 0));
        let root = run.path().join("checkpoints");
        assert!(!root.join("sft-00000001").exists(), "only two are kept");
        // Cut the newest file short at several places: each time the one before is used.
        let file = root.join("sft-00000003/tensors.safetensors");
        let whole = fs::read(&file).unwrap();
        for cut in [0, 7, 20, whole.len() - 1] {
            fs::write(&file, &whole[..cut]).unwrap();
            let (found, skipped) = newest();
            let found = found.unwrap();
            assert_eq!((found.step, skipped.len()), (2, 1));
            assert_eq!(found.state, Value::from(2.0_f32));
        }
        assert_eq!(run.length("metrics.jsonl"), 6, "cut back to step 2");
        assert!(Stored::newest(&run, "ppo").unwrap().0.is_none());
        // What goes on from before a broken one takes its place, however few are kept.
        for (step, keep) in [(1, 1), (2, 1)] {
            checkpoint(9.0).save(&run, "sft", step, keep).unwrap();
            let (found, skipped) = newest();
            assert_eq!((found.unwrap().step, skipped.len()), (step, 0));
        }
    }
}
