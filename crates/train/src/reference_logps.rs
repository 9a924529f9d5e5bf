//! Log-probabilities under the reference: each is computed once and kept, in memory and, where that is
//! wanted, on disk for later runs.
//!
//! What is kept is found by content: the tokens that are scored, in the company they are scored in.
//! On disk there is one file a reference model.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fs,
    path::PathBuf,
};

use burn::tensor::Tensor;
use sha2::{Digest, Sha256};
use togi_data::Sample;
use togi_kernels::is_cpu;
use togi_policy::{Decoder, Precision, TokenLogps, Weights, known::home};
use togi_rl_algos::ld_dpo::length_desensitised;

use crate::{
    checkpoint::{Checkpoint, Stored},
    error::TrainError,
    offline::host,
    reference::ReferenceUpdate,
    run_folder::write_whole,
};

/// Of the content of a unit.
type Key = [u8; 16];

/// Samples that are scored together: the two sides of a pair, or one by itself.
pub(crate) type Unit<'a> = Vec<&'a Sample>;

/// Summed log-probabilities of samples, `[samples]`, in nats, with everything that was computed on the
/// way. `ld_alpha` below 1 counts tokens past the shorter side of their unit less (LD-DPO).
pub(crate) fn summed(
    decoder: &Decoder,
    weights: &Weights,
    units: &[Unit<'_>],
    ld_alpha: f64,
) -> Result<(Tensor<1>, TokenLogps), TrainError> {
    let samples: Vec<&Sample> = units.iter().flatten().copied().collect();
    let tokens = decoder.log_probs(weights, &samples, 1.0)?;
    if ld_alpha == 1.0 {
        return Ok((tokens.sums(), tokens));
    }
    let mut public = Vec::with_capacity(samples.len());
    for unit in units {
        let shortest = unit.iter().map(|s| s.scored().count()).min().unwrap_or(0);
        public.extend(unit.iter().map(|_| shortest));
    }
    let (padded, mask) = tokens.padded();
    let sums = length_desensitised(&padded, &mask, &public, ld_alpha)?;
    Ok((sums, tokens))
}

/// The reference, and what is known of it.
#[derive(Debug)]
pub(crate) struct ReferenceLogps {
    decoder: Decoder,
    ld_alpha: f64,
    known: RefCell<HashMap<Key, Vec<f32>>>,
    disk: Option<PathBuf>,
    /// Something is known that is not on disk.
    fresh: Cell<bool>,
}

impl ReferenceLogps {
    /// Keeps what is computed in memory.
    pub(crate) fn new(decoder: Decoder, ld_alpha: f64) -> Self {
        Self {
            decoder,
            ld_alpha,
            known: RefCell::default(),
            disk: None,
            fresh: Cell::new(false),
        }
    }

    /// Reads what earlier runs left in the user's cache folder, and adds to it on
    /// [`ReferenceLogps::store`]. A file that is damaged is not used; the second result says so.
    ///
    /// # Errors
    /// When there is no cache folder, or the file cannot be read.
    pub(crate) fn on_disk(mut self) -> Result<(Self, Option<String>), TrainError> {
        let folder = cache_folder()?;
        fs::create_dir_all(&folder).map_err(TrainError::io(&folder))?;
        let path = folder.join(format!("{}.logps", model_digest(&self.decoder)));
        let mut note = None;
        match fs::read(&path) {
            Ok(bytes) => match decode(&bytes) {
                Some(known) => self.known = RefCell::new(known),
                None => {
                    let path = path.display();
                    note = Some(format!("{path} is damaged; its values are computed again"));
                }
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(TrainError::io(path)(e)),
        }
        self.disk = Some(path);
        Ok((self, note))
    }

    /// The model.
    pub(crate) fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The model, to put back what a checkpoint has of it.
    pub(crate) fn decoder_mut(&mut self) -> &mut Decoder {
        &mut self.decoder
    }

    /// Lets the model follow the policy after update number `update` (from 1). When it moves, what was
    /// known of it is forgotten.
    ///
    /// # Errors
    /// As [`ReferenceUpdate::follow`].
    pub(crate) fn follow(
        &mut self,
        follows: ReferenceUpdate,
        policy: &Decoder,
        update: u64,
    ) -> Result<(), TrainError> {
        if follows.follow(&mut self.decoder, policy, update)? {
            self.known.get_mut().clear();
        }
        Ok(())
    }

    /// The summed log-probability of each sample of each unit.
    ///
    /// Units that are not known go through the model together; where they are kept on disk each goes
    /// by itself, so that what is kept does not depend on the run that computed it.
    ///
    /// # Errors
    /// As [`Decoder::log_probs`].
    pub(crate) fn of(&self, units: &[Unit<'_>]) -> Result<Vec<Vec<f32>>, TrainError> {
        let keys: Vec<Key> = units.iter().map(|unit| self.key(unit)).collect();
        let mut known = self.known.borrow_mut();
        let missing: Vec<usize> = (0..units.len())
            .filter(|i| !known.contains_key(&keys[*i]))
            .collect();
        let weights = self.decoder.frozen();
        let at_once = if self.disk.is_some() {
            1
        } else {
            missing.len().max(1)
        };
        for part in missing.chunks(at_once) {
            let asked: Vec<Unit<'_>> = part.iter().map(|i| units[*i].clone()).collect();
            let (sums, _) = summed(&self.decoder, &weights, &asked, self.ld_alpha)?;
            let mut values = host(&sums).into_iter().map(|x| x as f32);
            for i in part {
                let unit = values.by_ref().take(units[*i].len()).collect();
                known.insert(keys[*i], unit);
            }
            self.fresh.set(true);
        }
        Ok(keys.iter().map(|key| known[key].clone()).collect())
    }

    /// Puts what is known into a checkpoint: a resumed run that computed it again, in other company,
    /// would round differently.
    pub(crate) fn save(&self, checkpoint: &mut Checkpoint) {
        if self.disk.is_none() {
            let bytes = encode(&self.known.borrow());
            checkpoint.files.push((FILE.to_owned(), bytes));
        }
    }

    /// Puts it back.
    ///
    /// # Errors
    /// When the checkpoint does not have it.
    pub(crate) fn restore(&mut self, stored: &Stored) -> Result<(), TrainError> {
        if self.disk.is_some() {
            return Ok(());
        }
        let mut files = stored.files.iter();
        let bytes = files.find(|(name, _)| name == FILE).map(|(_, bytes)| bytes);
        let known = bytes.and_then(|bytes| decode(bytes));
        let reason = format!("has no `{FILE}`; was it written by another version?");
        self.known = RefCell::new(known.ok_or_else(|| TrainError::config("checkpoint", reason))?);
        Ok(())
    }

    fn key(&self, unit: &Unit<'_>) -> Key {
        let mut hash = Sha256::new();
        hash.update(self.ld_alpha.to_le_bytes());
        for sample in unit {
            hash.update((sample.len() as u64).to_le_bytes());
            for (id, weight) in sample.ids.iter().zip(&sample.weights) {
                hash.update(id.to_le_bytes());
                hash.update(weight.to_le_bytes());
            }
        }
        let mut key = Key::default();
        key.copy_from_slice(&hash.finalize()[..16]);
        key
    }

    /// Writes what is known to disk, beside what other runs have written meanwhile.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn store(&self) -> Result<(), TrainError> {
        let Some(path) = self.disk.as_ref().filter(|_| self.fresh.get()) else {
            return Ok(());
        };
        let mut all = fs::read(path)
            .ok()
            .and_then(|bytes| decode(&bytes))
            .unwrap_or_default();
        for (key, values) in &*self.known.borrow() {
            all.insert(*key, values.clone());
        }
        write_whole(path, &encode(&all))?;
        self.fresh.set(false);
        Ok(())
    }
}

/// `reference` in the folder where Togi keeps things.
fn cache_folder() -> Result<PathBuf, TrainError> {
    home().map(|home| home.join("reference")).ok_or_else(|| {
        let reason = "there is no folder for it: set TOGI_HOME";
        TrainError::config("cache_reference", reason)
    })
}

/// Of configuration, parameters, and what computes: a GPU's numbers are not the CPU's to the last bit, and those of a
/// lower precision are others.
fn model_digest(decoder: &Decoder) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{:?}", decoder.config));
    if decoder.precision != Precision::F32 {
        hash.update(decoder.precision.name());
    }
    if !is_cpu(decoder.device()) {
        hash.update("GPU");
    }
    for (name, param) in decoder.params.iter() {
        hash.update(name);
        let data = param.tensor.clone().into_data().convert::<f32>();
        hash.update(data.as_bytes());
    }
    let digest = hash.finalize();
    digest[..16].iter().map(|b| format!("{b:02x}")).collect()
}

/// In checkpoints.
const FILE: &str = "reference.logps";

const MAGIC: &[u8; 8] = b"togiref1";

/// Magic, then key, count and values of each unit in the order of keys, then the SHA-256 of all that.
fn encode(all: &HashMap<Key, Vec<f32>>) -> Vec<u8> {
    let mut entries: Vec<_> = all.iter().collect();
    entries.sort_unstable_by_key(|entry| entry.0);
    let mut bytes = MAGIC.to_vec();
    for (key, values) in entries {
        bytes.extend_from_slice(key);
        bytes.push(values.len() as u8);
        for value in values {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
    }
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(&digest);
    bytes
}

/// `None` if it is not whole.
fn decode(bytes: &[u8]) -> Option<HashMap<Key, Vec<f32>>> {
    let (body, digest) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if Sha256::digest(body)[..] != *digest {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    let mut all = HashMap::new();
    while !rest.is_empty() {
        let (key, after) = rest.split_first_chunk::<16>()?;
        let (count, after) = after.split_first()?;
        let (values, after) = after.split_at_checked(4 * usize::from(*count))?;
        let (values, _) = values.as_chunks::<4>();
        all.insert(
            *key,
            values.iter().map(|v| f32::from_le_bytes(*v)).collect(),
        );
        rest = after;
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_reads_back_and_any_damage_is_seen() {
        let all = HashMap::from([([7; 16], vec![-1.5, 2.25]), ([1; 16], vec![0.0])]);
        let bytes = encode(&all);
        assert_eq!(decode(&bytes), Some(all));
        for cut in [0, 7, 31, bytes.len() - 1] {
            assert_eq!(decode(&bytes[..cut]), None);
        }
        for place in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[place] ^= 1;
            assert_eq!(decode(&flipped), None, "byte {place}");
        }
    }
}
