//! Configurations: the TOML is the struct, unknown keys are errors, defaults are in one place.

use std::path::Path;

use burn::tensor::Device;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use togi_data::{BadRows, HhAs, LossOn, OverLong, TokenizeOptions};
use togi_policy::Sampling;
use toml::{Table, Value};

use crate::{error::TrainError, schedule::Schedule};

/// Optimiser and schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimSection {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// How it falls.
    pub schedule: Schedule,
    /// Steps in which it rises from 0.
    pub warmup_steps: u64,
    /// Decoupled weight decay, not on norms and biases.
    pub weight_decay: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Gradients are scaled down to this global norm; 0: not.
    pub max_grad_norm: f64,
}

impl Default for OptimSection {
    /// PyTorch's AdamW without weight decay, and the clipping of TRL.
    fn default() -> Self {
        Self {
            learning_rate: 1e-5,
            schedule: Schedule::Linear,
            warmup_steps: 0,
            weight_decay: 0.0,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            max_grad_norm: 1.0,
        }
    }
}

/// Batches, evaluation, checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoopSection {
    /// Updates.
    pub max_steps: u64,
    /// Samples (or pairs) an update.
    pub batch_size: usize,
    /// Samples that go through the model at a time; smaller needs less memory and changes no
    /// result but rounding. On the command line `auto` is the largest that memory allows.
    pub micro_batch_size: usize,
    /// Keep only what goes into each layer of the model, and run the layers again in the backward pass:
    /// less memory, about a third more work, the same gradients.
    pub gradient_checkpointing: bool,
    /// Updates between looks at held-out data; 0: at the end only.
    pub eval_every: u64,
    /// Held-out samples that are looked at.
    pub eval_samples: usize,
    /// Stop after this many looks without improvement; 0: never.
    pub patience: u64,
    /// Updates between checkpoints; 0: at the end only.
    pub checkpoint_every: u64,
    /// Checkpoints that are kept.
    pub keep_checkpoints: usize,
}

impl Default for LoopSection {
    fn default() -> Self {
        Self {
            max_steps: 100,
            batch_size: 16,
            micro_batch_size: 4,
            gradient_checkpointing: false,
            eval_every: 50,
            eval_samples: 200,
            patience: 0,
            checkpoint_every: 100,
            keep_checkpoints: 2,
        }
    }
}

/// How rows become samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataSection {
    /// Longest sample, in tokens.
    pub max_length: usize,
    /// What happens to longer ones.
    pub over_long: OverLong,
    /// What happens to rows that cannot be used: empty or equal answers, missing fields.
    pub bad_rows: BadRows,
    /// How HH dialogues are shown to the model.
    pub hh: HhAs,
    /// Share of the rows that is held out, where there is no file of its own for it.
    pub valid_fraction: f64,
    /// Rows made by the lab, where it is the data.
    pub lab_rows: usize,
}

impl Default for DataSection {
    fn default() -> Self {
        Self {
            max_length: 512,
            over_long: OverLong::Error,
            bad_rows: BadRows::Error,
            hh: HhAs::Text,
            valid_fraction: 0.05,
            lab_rows: 4000,
        }
    }
}

impl DataSection {
    /// How rows become samples.
    pub fn options(&self, loss_on: LossOn) -> TokenizeOptions {
        TokenizeOptions {
            max_length: self.max_length,
            over_long: self.over_long,
            loss_on,
            hh: self.hh,
        }
    }

    /// # Errors
    /// Names the field that is out of range.
    pub fn validate(&self) -> Result<(), TrainError> {
        at_least_one("data.max_length", self.max_length)?;
        at_least_one("data.lab_rows", self.lab_rows)?;
        within("data.valid_fraction", self.valid_fraction, 0.0, 0.9)
    }
}

impl OptimSection {
    /// # Errors
    /// Names the field that is out of range.
    pub fn validate(&self) -> Result<(), TrainError> {
        positive("optim.learning_rate", self.learning_rate)?;
        within("optim.weight_decay", self.weight_decay, 0.0, f64::MAX)?;
        within("optim.beta1", self.beta1, 0.0, 0.999_999_9)?;
        within("optim.beta2", self.beta2, 0.0, 0.999_999_9)?;
        positive("optim.eps", self.eps)?;
        within("optim.max_grad_norm", self.max_grad_norm, 0.0, f64::MAX)
    }

    /// The learning rate at `step` (from 0) of `total`.
    pub fn rate(&self, step: u64, total: u64) -> f64 {
        self.learning_rate * self.schedule.factor(step, self.warmup_steps, total)
    }
}

impl LoopSection {
    /// # Errors
    /// Names the field that is out of range.
    pub fn validate(&self) -> Result<(), TrainError> {
        at_least_one("train.max_steps", self.max_steps as usize)?;
        at_least_one("train.batch_size", self.batch_size)?;
        at_least_one("train.micro_batch_size", self.micro_batch_size)?;
        at_least_one("train.eval_samples", self.eval_samples)?;
        at_least_one("train.keep_checkpoints", self.keep_checkpoints)
    }
}

pub(crate) fn positive(key: &str, value: f64) -> Result<(), TrainError> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(TrainError::config(
        key,
        format!("{value} is not a positive number"),
    ))
}

pub(crate) fn within(key: &str, value: f64, low: f64, high: f64) -> Result<(), TrainError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(TrainError::config(
        key,
        format!("{value} is not in [{low}, {high}]"),
    ))
}

/// For methods that take a ratio of probabilities: it is taken on the distribution that is sampled
/// from.
pub(crate) fn whole_distribution(sampling: &Sampling) -> Result<(), TrainError> {
    sampling.validate()?;
    positive("sampling.temperature", sampling.temperature)?;
    if sampling.top_k > 0 || sampling.top_p < 1.0 || sampling.min_p > 0.0 {
        let reason = "top_k, top_p and min_p change the distribution that is sampled from, and \
                      the ratio is taken on the whole one";
        return Err(TrainError::config("sampling", reason));
    }
    Ok(())
}

pub(crate) fn at_least_one(key: &str, value: usize) -> Result<(), TrainError> {
    if value > 0 {
        return Ok(());
    }
    Err(TrainError::config(key, "must be at least 1"))
}

/// A recipe's configuration.
pub trait RecipeConfig: Serialize + DeserializeOwned + Default {
    /// # Errors
    /// Names the field that is out of range.
    fn validate(&self) -> Result<(), TrainError>;

    /// # Errors
    /// Names the field that asks of this device what it has not.
    fn check_device(&self, _: &Device) -> Result<(), TrainError> {
        Ok(())
    }
}

/// Defaults, then the file, then the `key=value` settings, each over the one before.
///
/// # Errors
/// Names file or setting, key and line; suggests the key that was meant. When a micro-batch is to be
/// chosen by itself.
pub fn resolve<C: RecipeConfig>(
    defaults: &C,
    file: Option<&Path>,
    settings: &[String],
) -> Result<C, TrainError> {
    let Resolved { config, auto } = resolve_auto(defaults, file, settings)?;
    match auto.first() {
        None => Ok(config),
        Some(key) => {
            let reason = "cannot be `auto` here: what goes through the model is not known before; give \
                          a number";
            Err(TrainError::config(key, reason))
        }
    }
}

/// What [`resolve_auto`] comes to.
#[derive(Clone, Debug)]
pub struct Resolved<C> {
    /// The configuration. A micro-batch that is left open has the default, and was taken to be the batch when the
    /// rest was validated.
    pub config: C,
    /// Keys of the micro-batches that are `auto`.
    pub auto: Vec<String>,
}

/// As [`resolve`]; a `micro_batch_size` may be `auto`, which is left to the caller to choose.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_auto<C: RecipeConfig>(
    defaults: &C,
    file: Option<&Path>,
    settings: &[String],
) -> Result<Resolved<C>, TrainError> {
    let mut auto = Vec::new();
    let mut table =
        Table::try_from(defaults).map_err(|e| TrainError::config("defaults", e.to_string()))?;
    if let Some(path) = file {
        let place = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|e| TrainError::config(&place, format!("cannot be read: {e}")))?;
        let mut given: Table = text
            .parse()
            .map_err(|e: toml::de::Error| TrainError::config(&place, e.to_string()))?;
        take_auto(&mut given, "", &mut auto);
        merge(&mut table, given);
        parse::<C>(&table, &place)?;
    }
    // A field that is missing may come with a later setting: `loss.kind` first, then `loss.tau`.
    let mut incomplete = None;
    for setting in settings {
        let place = format!("--set {setting}");
        let Some((key, value)) = setting.split_once('=') else {
            return Err(TrainError::config(place, "is not of the form key=value"));
        };
        let mut value = setting_value(value.trim());
        for part in key.trim().rsplit('.') {
            value = Value::Table(Table::from_iter([(part.to_owned(), value)]));
        }
        if let Value::Table(mut given) = value {
            take_auto(&mut given, "", &mut auto);
            merge(&mut table, given);
        }
        incomplete = match parse::<C>(&table, &place) {
            Ok(_) => None,
            Err(error) if error.to_string().contains("missing field") => Some(error),
            Err(error) => return Err(error),
        };
    }
    if let Some(error) = incomplete {
        return Err(error);
    }
    let config: C = parse(&table, "config")?;
    // What is left open is taken to be the whole batch for now: the rest must be right before anything is loaded.
    for key in &auto {
        open_to_the_batch(&mut table, key);
    }
    parse::<C>(&table, "config")?.validate()?;
    Ok(Resolved { config, auto })
}

/// Sets a micro-batch to the batch, or the minibatch, that stands beside it.
fn open_to_the_batch(table: &mut Table, key: &str) {
    let mut section = table;
    let (path, _) = key.rsplit_once('.').unwrap_or_default();
    for part in path.split('.').filter(|part| !part.is_empty()) {
        match section.get_mut(part) {
            Some(Value::Table(inner)) => section = inner,
            _ => return,
        }
    }
    let batch = ["batch_size", "minibatch_size"]
        .iter()
        .find_map(|name| section.get(*name).cloned());
    if let Some(batch) = batch {
        section.insert(MICRO_BATCH.to_owned(), batch);
    }
}

/// Takes every `micro_batch_size = "auto"` out of what was given and notes its key; a number that comes
/// later counts instead.
fn take_auto(given: &mut Table, path: &str, auto: &mut Vec<String>) {
    given.retain(|name, value| {
        let key = match path {
            "" => name.to_string(),
            _ => format!("{path}.{name}"),
        };
        if let Value::Table(inner) = value {
            take_auto(inner, &key, auto);
        }
        if name != MICRO_BATCH {
            return true;
        }
        auto.retain(|known| *known != key);
        let left_open = value.as_str() == Some("auto");
        if left_open {
            auto.push(key);
        }
        !left_open
    });
}

/// Last part of the keys of micro-batches.
const MICRO_BATCH: &str = "micro_batch_size";

/// A TOML value; what is none is a string, so that `--set optim.schedule=cosine` works.
fn setting_value(text: &str) -> Value {
    let table: Result<Table, _> = format!("x = {text}").parse();
    table
        .ok()
        .and_then(|mut t| t.remove("x"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            // A table with another `kind` is another variant: its fields do not carry over.
            (Some(Value::Table(old)), Value::Table(new)) => {
                if new.contains_key("kind") && new.get("kind") != old.get("kind") {
                    *old = new;
                } else {
                    merge(old, new);
                }
            }
            // 1 is as good as 1.0.
            (Some(old @ Value::Float(_)), Value::Integer(n)) => *old = Value::Float(n as f64),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

fn parse<C: DeserializeOwned>(table: &Table, place: &str) -> Result<C, TrainError> {
    C::deserialize(Value::Table(table.clone())).map_err(|e| {
        let message = e.to_string();
        let reason = match suggestion(&message) {
            Some(meant) => format!("{}; did you mean `{meant}`?", message.trim()),
            None => message.trim().to_owned(),
        };
        TrainError::config(place, reason)
    })
}

/// From serde's "unknown field `x`, expected one of `a`, `b`": the nearest of those.
fn suggestion(message: &str) -> Option<String> {
    let rest = &message[message
        .find("unknown field `")
        .or(message.find("unknown variant `"))?..];
    let mut quoted = rest.split('`').skip(1).step_by(2);
    let given = quoted.next()?;
    quoted
        .map(|known| (strsim::damerau_levenshtein(given, known), known))
        .filter(|(distance, known)| *distance <= known.len().max(given.len()) / 2)
        .min()
        .map(|(_, known)| known.to_owned())
}

/// The complete configuration as TOML.
///
/// # Errors
/// When it cannot be written as TOML.
pub fn to_toml<C: Serialize>(config: &C) -> Result<String, TrainError> {
    toml::to_string_pretty(config).map_err(|e| TrainError::config("config", e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sft::SftConfig;

    fn resolve_sft(settings: &[&str]) -> Result<SftConfig, TrainError> {
        let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
        resolve(&SftConfig::default(), None, &settings)
    }

    #[test]
    fn settings_go_over_defaults() {
        let config = resolve_sft(&[
            "optim.learning_rate=1e-3",
            "optim.schedule=cosine",
            "train.max_steps=7",
        ])
        .unwrap();
        assert_eq!(config.optim.learning_rate, 1e-3);
        assert_eq!(config.optim.schedule, Schedule::Cosine);
        assert_eq!(config.train.max_steps, 7);
        assert_eq!(
            resolve_sft(&["optim.learning_rate=1"])
                .unwrap()
                .optim
                .learning_rate,
            1.0
        );
    }

    #[test]
    fn mistakes_are_named_with_what_was_meant() {
        let error = |s: &str| resolve_sft(&[s]).unwrap_err().to_string();
        let text = error("optim.learnin_rate=1");
        assert!(text.contains("--set optim.learnin_rate=1"), "{text}");
        assert!(text.contains("did you mean `learning_rate`?"), "{text}");
        assert!(error("optim.schedule=cosin").contains("did you mean `cosine`?"));
        assert!(
            error("train.max_steps=many").contains("max_steps"),
            "{}",
            error("train.max_steps=many")
        );
        assert!(error("optim.learning_rate=-1").contains("optim.learning_rate"));
        assert!(error("nothing").contains("key=value"));
    }

    #[test]
    fn a_kind_may_come_before_its_fields() {
        use crate::reward::{RewardConfig, RewardLoss};
        let resolve = |settings: &[&str]| {
            let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
            resolve(&RewardConfig::default(), None, &settings)
        };
        let config = resolve(&["loss.kind=ties", "loss.theta=2"]).unwrap();
        assert_eq!(config.loss, RewardLoss::Ties { theta: 2.0 });
        let text = resolve(&["loss.kind=ties", "seed=1"])
            .unwrap_err()
            .to_string();
        assert!(text.contains("missing field `theta`"), "{text}");
        let text = resolve(&["loss.kind=ties", "loss.centering=1"]).unwrap_err();
        assert!(text.to_string().contains("centering"), "{text}");
    }

    #[test]
    fn a_micro_batch_may_be_left_open() {
        let resolve = |settings: &[&str]| {
            let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
            resolve_auto(&SftConfig::default(), None, &settings).unwrap()
        };
        let open = resolve(&["train.micro_batch_size=auto", "seed=3"]);
        assert_eq!(open.auto, ["train.micro_batch_size"]);
        assert_eq!(open.config.seed, 3);
        let later = resolve(&["train.micro_batch_size=auto", "train.micro_batch_size=2"]);
        assert!(later.auto.is_empty());
        assert_eq!(later.config.train.micro_batch_size, 2);
        let settings =
            ["train.micro_batch_size=auto", "data.valid_fraction=1.5"].map(str::to_owned);
        let error = resolve_auto(&SftConfig::default(), None, &settings).unwrap_err();
        assert!(error.to_string().contains("valid_fraction"), "{error}");
        let error = resolve_sft(&["train.micro_batch_size=auto"]).unwrap_err();
        assert!(error.to_string().contains("give a number"), "{error}");
        assert!(resolve_sft(&["train.micro_batch_size=\"many\""]).is_err());
    }

    #[test]
    fn the_resolved_config_reads_back() {
        let config = resolve_sft(&["seed=4"]).unwrap();
        let text = to_toml(&config).unwrap();
        let table: Table = text.parse().unwrap();
        assert_eq!(parse::<SftConfig>(&table, "x").unwrap(), config);
    }
}
