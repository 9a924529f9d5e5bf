//! `--judge`: who compares answers.

use std::path::Path;

use anyhow::Result;
use burn::tensor::Device;
use togi_policy::{Head, ModelConfig, Policy, source::Source};
use togi_reward::{RewardModel, Rulebook};
use togi_train::judge_config::JudgeSource;

use crate::InputError;

/// True if it is the lab's.
pub(crate) fn is_lab(spec: &str) -> bool {
    spec == "lab"
}

/// The address of a chat server, if it is one.
pub(crate) fn address(spec: &str) -> Option<String> {
    let is_url = spec.starts_with("http://") || spec.starts_with("https://");
    is_url.then(|| spec.to_owned())
}

/// True if it is a model of its own on this machine.
pub(crate) fn is_own_model(spec: &str) -> bool {
    !is_lab(spec) && spec != "self" && address(spec).is_none() && !spec.starts_with("rules:")
}

/// Reads a judge: `lab`, `self`, the address of a chat server, `rules:FILE`, the folder of a reward model or
/// of a language model. `own` is the model that `self` means.
pub(crate) fn parse(spec: &str, own: &Policy, device: &Device, seed: u64) -> Result<JudgeSource> {
    if is_lab(spec) {
        return Ok(JudgeSource::Lab);
    }
    if spec == "self" {
        return Ok(JudgeSource::Model(Box::new(own.clone())));
    }
    if let Some(url) = address(spec) {
        return Ok(JudgeSource::Server(url));
    }
    if let Some(file) = spec.strip_prefix("rules:") {
        let rules = Rulebook::read(Path::new(file));
        let rules = rules.map_err(|e| InputError(format!("--judge rules:{e}")))?;
        return Ok(JudgeSource::Reward(Box::new(rules)));
    }
    let model = Source::parse(spec)?.load(device, seed)?;
    if ModelConfig::head_of(&model.decoder.params) != Head::Score {
        return Ok(JudgeSource::Model(Box::new(model)));
    }
    if !model.tokenizer.reads_ids_of(&own.tokenizer) {
        let text = format!(
            "--judge {spec}: its tokens are not the policy's, and a reward model reads the policy's tokens"
        );
        return Err(InputError(text).into());
    }
    Ok(JudgeSource::Reward(Box::new(RewardModel::new(
        model.decoder,
        model.tokenizer.answer_frame(),
        16,
    ))))
}
