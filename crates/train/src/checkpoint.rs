//! Checkpoints: written beside, verified by checksum, renamed into place.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use togi_policy::{Decoder, tensor_file};

use crate::{error::TrainError, optimizer::AdamW, run_folder::RunFolder};

/// Everything that a stage needs to go on: tensors by name, and a small state.
#[derive(Debug, Default)]
pub struct Checkpoint {
    /// Flat float32 tensors.
    pub tensors: Vec<(String, Tensor<1>)>,
    /// Scalars: step, controllers, running moments.
    pub state: Value,
    /// What is neither, by file name.
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

    /// Puts back what [`Checkpoint::add`] added.
    ///
    /// # Errors
    /// When a tensor is missing or has another size.
    pub fn restore(
        &mut self,
        prefix: &str,
        decoder: &mut Decoder,
        adam: &mut AdamW,
        step: u64,
    ) -> Result<(), TrainError> {
        let mut all: HashMap<String, Tensor<1>> =
            std::mem::take(&mut self.tensors).into_iter().collect();
        let mut take = |kind: &str, name: &str, target: &mut Tensor<1>| {
            let key = format!("{prefix}/{kind}/{name}");
            match all.remove(&key) {
                Some(tensor) if tensor.dims() == target.dims() => {
                    *target = tensor;
                    Ok(())
                }
                _ => Err(TrainError::config(
                    "checkpoint",
                    format!("tensor `{key}` is missing or of another size; was the model changed?"),
                )),
            }
        };
        for (name, param) in decoder.params.iter_mut().filter(|(_, p)| p.trainable) {
            take("param", name, &mut param.tensor)?;
        }
        for (name, m, v) in &mut adam.moments {
            take("m", name, m)?;
            take("v", name, v)?;
        }
        adam.step = step;
        self.tensors = all.into_iter().collect();
        Ok(())
    }

    /// Writes the checkpoint of a step and then removes all but the newest `keep`.
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
        let mut all = list(&root, stage);
        all.truncate(all.len().saturating_sub(keep));
        for (_, old) in all {
            fs::remove_dir_all(&old).map_err(TrainError::io(&old))?;
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

    /// The newest whole checkpoint of a stage, with the growing files cut back to where they were.
    /// Those that are not whole are passed over and named in the second result.
    ///
    /// # Errors
    /// When a file cannot be read, or a growing file has lost lines.
    pub fn newest(
        run: &RunFolder,
        stage: &str,
        device: &Device,
    ) -> Result<(Found, Vec<String>), TrainError> {
        let mut skipped = Vec::new();
        for (_, path) in list(&run.path().join("checkpoints"), stage)
            .into_iter()
            .rev()
        {
            match read(&path, device) {
                Ok((manifest, tensors, files)) => {
                    for (name, length) in &manifest.lengths {
                        run.cut(name, *length)?;
                    }
                    let checkpoint = Self {
                        tensors,
                        state: manifest.state,
                        files,
                    };
                    return Ok((Some((manifest.step, checkpoint)), skipped));
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
    pub fn before(run: &RunFolder, stage: &str, step: u64, device: &Device) -> Found {
        let mut found = None;
        for (at, path) in list(&run.path().join("checkpoints"), stage)
            .into_iter()
            .rev()
        {
            if let Ok((manifest, tensors, files)) = read(&path, device) {
                let state = manifest.state;
                let checkpoint = Self {
                    tensors,
                    state,
                    files,
                };
                found = Some((at, checkpoint));
                if at <= step {
                    break;
                }
            }
        }
        found
    }
}

/// A checkpoint and its step, if there is a whole one.
pub type Found = Option<(u64, Checkpoint)>;

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

type Tensors = Vec<(String, Tensor<1>)>;

type Files = Vec<(String, Vec<u8>)>;

fn read(path: &Path, device: &Device) -> Result<(Manifest, Tensors, Files), String> {
    let text = fs::read(path.join("manifest.json")).map_err(|e| format!("manifest.json: {e}"))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|e| format!("manifest.json: {e}"))?;
    let file = path.join("tensors.safetensors");
    let found = digest(&file).map_err(|e| e.to_string())?;
    if found != manifest.tensors {
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
    let tensors = tensor_file::read(&file, device).map_err(|e| e.to_string())?;
    Ok((manifest, tensors, files))
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

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
        let newest = || Checkpoint::newest(&run, "sft", &Device::flex()).unwrap();
        let (found, skipped) = newest();
        assert_eq!((found.unwrap().0, skipped.len()), (3, 0));
        let root = run.path().join("checkpoints");
        assert!(!root.join("sft-00000001").exists(), "only two are kept");
        // Cut the newest file short at several places: each time the one before is used.
        let file = root.join("sft-00000003/tensors.safetensors");
        let whole = fs::read(&file).unwrap();
        for cut in [0, 7, 20, whole.len() - 1] {
            fs::write(&file, &whole[..cut]).unwrap();
            let (found, skipped) = newest();
            let (step, checkpoint) = found.unwrap();
            assert_eq!((step, skipped.len()), (2, 1));
            assert_eq!(checkpoint.state, Value::from(2.0_f32));
        }
        assert_eq!(run.length("metrics.jsonl"), 6, "cut back to step 2");
        assert!(
            Checkpoint::newest(&run, "ppo", &Device::flex())
                .unwrap()
                .0
                .is_none()
        );
    }
}
