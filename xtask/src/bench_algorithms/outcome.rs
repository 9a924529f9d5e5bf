//! What the runs came to, read from their folders; and best-of-n, which needs no run.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use togi_eval::{Comparison, best_of_n};
use togi_policy::Policy;
use togi_reward::{LabGold, RewardModel};
use togi_train::{
    arena::lab_prompts,
    lab_defaults,
    rollout::{rollouts, scores},
};

use super::{Job, Prepared, seed_folder};

/// What a run came to.
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) recipe: &'static str,
    pub(crate) seed: u64,
    pub(crate) comparison: Comparison,
    pub(crate) seconds: f64,
    /// `(KL, proxy, gold)` of held-out answers while it was trained.
    pub(crate) curve: Vec<(f64, f64, f64)>,
}

pub(crate) fn outcome(job: &Job) -> Result<Outcome> {
    let read = |name: &str| {
        let path = job.folder.join(name);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let rows = |name: &str| -> Result<Vec<Value>> {
        let text = read(name)?;
        Ok(text
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?)
    };
    let number = |row: &Value, key: &str| row[key].as_f64();
    let seconds = rows("timings.jsonl")?
        .iter()
        .filter_map(|row| number(row, "seconds"))
        .sum();
    let curve = rows("metrics.jsonl")?
        .iter()
        .filter_map(|row| {
            let [kl, proxy, gold] =
                ["val/kl", "val/scores", "val/gold"].map(|key| number(row, key));
            Some((kl?, proxy?, gold?))
        })
        .collect();
    Ok(Outcome {
        name: job.name.clone(),
        recipe: job.recipe,
        seed: job.seed,
        comparison: serde_json::from_str(&read("comparison.json")?)?,
        seconds,
        curve,
    })
}

impl Outcome {
    /// The mean of a metric of the start or of the tuned model.
    pub(crate) fn mean(&self, system: &str, metric: &str) -> f64 {
        let system = self.comparison.systems.iter().find(|s| s.name == system);
        let Some(system) = system else {
            return f64::NAN;
        };
        let values = system.metrics.iter().find(|(name, _)| name == metric);
        if let Some((_, values)) = values {
            return values.iter().sum::<f64>() / values.len() as f64;
        }
        let total = system.totals.iter().find(|(name, _)| name == metric);
        total.map_or(f64::NAN, |(_, value)| *value)
    }

    pub(crate) fn tuned(&self, metric: &str) -> f64 {
        self.mean(self.recipe, metric)
    }

    pub(crate) fn gain(&self) -> f64 {
        self.tuned(GOLD) - self.mean("start", GOLD)
    }
}

pub(crate) const GOLD: &str = "gold reward";
pub(crate) const KL: &str = "KL (nats)";

/// Best-of-n of a seed's SFT model by its reward model: for each n, KL by the formula and as measured,
/// mean proxy and gold.
#[derive(Serialize, Deserialize)]
pub(crate) struct BestOf {
    pub(crate) rows: Vec<BestOfRow>,
    /// Of single answers.
    pub(crate) proxy: f64,
    pub(crate) gold: f64,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct BestOfRow {
    pub(crate) n: usize,
    pub(crate) kl: f64,
    pub(crate) measured_kl: f64,
    pub(crate) proxy: f64,
    pub(crate) gold: f64,
}

/// Prompts, and answers to each, that best-of-n is estimated from.
const BEST_OF_PROMPTS: usize = 200;
const BEST_OF_ANSWERS: usize = 256;

pub(crate) fn best_of(models: &Prepared, seed: u64, out: &Path) -> Result<BestOf> {
    let path = seed_folder(out, seed).join("best-of-n.json");
    if let Ok(text) = fs::read_to_string(&path) {
        return Ok(serde_json::from_str(&text)?);
    }
    eprintln!("best of n, seed {seed}");
    let Policy {
        decoder, tokenizer, ..
    } = &models.sft;
    let prompts = lab_prompts(tokenizer, BEST_OF_PROMPTS, seed)?;
    let repeated: Vec<_> = prompts
        .iter()
        .flat_map(|p| std::iter::repeat_n(p, BEST_OF_ANSWERS))
        .collect();
    let sampling = lab_defaults::sampling();
    let drawn = rollouts(
        decoder,
        tokenizer,
        &repeated,
        &sampling,
        seed ^ 0x626f_6e00,
        0,
    )?;
    let model = RewardModel::new(models.reward.decoder.clone(), tokenizer.answer_frame(), 64);
    let value =
        |all: Vec<togi_reward::Score>| -> Vec<f64> { all.iter().map(|s| s.value).collect() };
    let proxy = value(scores(&model, &drawn, "best of n", 0)?);
    let gold = value(scores(&LabGold, &drawn, "best of n", 0)?);
    let mut rows = Vec::new();
    for n in [1, 2, 4, 8, 16, 32, 64] {
        let mut row = BestOfRow {
            n,
            kl: best_of_n::analytic_kl(n),
            measured_kl: 0.0,
            proxy: 0.0,
            gold: 0.0,
        };
        let each = proxy
            .chunks(BEST_OF_ANSWERS)
            .zip(gold.chunks(BEST_OF_ANSWERS));
        for (proxy, gold) in each {
            let chances = best_of_n::chances(proxy, n);
            row.proxy += best_of_n::expected(&chances, proxy) / BEST_OF_PROMPTS as f64;
            row.gold += best_of_n::expected(&chances, gold) / BEST_OF_PROMPTS as f64;
            row.measured_kl += best_of_n::measured_kl(proxy, &chances) / BEST_OF_PROMPTS as f64;
        }
        rows.push(row);
    }
    let best = BestOf {
        proxy: rows[0].proxy,
        gold: rows[0].gold,
        rows,
    };
    fs::write(&path, serde_json::to_vec_pretty(&best)?)?;
    Ok(best)
}
