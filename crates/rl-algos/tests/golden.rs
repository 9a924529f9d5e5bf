//! Values and gradients against PyTorch in float64 (`tools/golden/rl_algos.py`).

use std::collections::HashMap;

use burn::tensor::{Bool, Device, Tensor, TensorData};
use serde_json::Value;
use togi_rl_algos::{
    Normalisation, PairLogps, aot, apo, bco, bradley_terry, cispo, cpo, discopop, dpo, exo,
    f_divergence::{self, Divergence},
    gae,
    group::{self, GroupScale},
    gspo, ipo,
    kl::{KlController, KlEstimator, kl_per_token, times_ratio},
    kto, ld_dpo, nash_md, nca, orpo, plackett_luce, ppo, process_reward, regression, reinforce,
    sft, simpo, slic, sppo, ties, whiten, wpo, xpo,
};

const TOLERANCE: f64 = 1e-5;

fn list(value: &Value) -> Vec<f64> {
    let numbers = value.as_array().expect("a list");
    numbers
        .iter()
        .map(|x| x.as_f64().expect("a number"))
        .collect()
}

fn table(value: &Value) -> HashMap<String, Vec<f64>> {
    let object = value.as_object().expect("an object");
    object.iter().map(|(k, v)| (k.clone(), list(v))).collect()
}

fn host(x: Tensor<1>) -> Vec<f64> {
    x.into_data().iter::<f64>().collect()
}

fn flat(values: &[f64]) -> Tensor<1> {
    let values: Vec<f32> = values.iter().map(|x| *x as f32).collect();
    let shape = [values.len()];
    Tensor::from_data(TensorData::new(values, shape), &Device::flex().autodiff())
}

/// One case; every input is a leaf, so that what must take no gradient is seen to take none.
struct Case<'a> {
    json: &'a Value,
    leaves: HashMap<String, Tensor<1>>,
}

impl Case<'_> {
    fn scalar(&self, name: &str) -> f64 {
        self.json["scalars"][name].as_f64().expect("a scalar")
    }

    fn v(&self, name: &str) -> Tensor<1> {
        self.leaves[name].clone()
    }

    fn m(&self, name: &str) -> Tensor<2> {
        let shape = list(&self.json["shape"]);
        self.v(name).reshape([shape[0] as usize, shape[1] as usize])
    }

    fn mask(&self) -> Tensor<2, Bool> {
        let rows = self.json["mask"].as_array().expect("a mask");
        let flags: Vec<bool> = rows
            .iter()
            .flat_map(|row| row.as_array().expect("a row"))
            .map(|flag| flag.as_bool().expect("a flag"))
            .collect();
        let shape = [rows.len(), flags.len() / rows.len()];
        Tensor::from_data(TensorData::new(flags, shape), &Device::flex().autodiff())
    }

    fn pairs(&self, prefix: &str) -> PairLogps {
        PairLogps {
            chosen: self.v(&format!("{prefix}chosen")),
            rejected: self.v(&format!("{prefix}rejected")),
        }
    }

    fn outputs(
        &self,
        function: &str,
    ) -> Result<Vec<(&'static str, Tensor<1>)>, togi_rl_algos::AlgoError> {
        let one = |name, x: Tensor<1>| vec![(name, x)];
        let grid = |name, x: Tensor<2>| vec![(name, x.flatten(0, 1))];
        let (policy, reference) = (|| self.pairs(""), || self.pairs("ref_"));
        let kl = |k| kl_per_token(&self.m("logps"), &self.m("old"), k);
        Ok(match function {
            "dpo_sigmoid" => one(
                "loss",
                dpo::sigmoid_loss(
                    &policy(),
                    &reference(),
                    self.scalar("beta"),
                    self.scalar("e"),
                )?,
            ),
            "dpo_robust" => one(
                "loss",
                dpo::robust_loss(
                    &policy(),
                    &reference(),
                    self.scalar("beta"),
                    self.scalar("e"),
                )?,
            ),
            "dpo_hinge" => one(
                "loss",
                dpo::hinge_loss(&policy(), &reference(), self.scalar("beta"))?,
            ),
            "implicit_rewards" => {
                let (chosen, rejected) =
                    dpo::implicit_rewards(&policy(), &reference(), self.scalar("beta"))?;
                vec![("chosen", chosen), ("rejected", rejected)]
            }
            "ipo_summed" => one(
                "loss",
                ipo::summed_loss(&policy(), &reference(), self.scalar("tau"))?,
            ),
            "ipo_averaged" => one(
                "loss",
                ipo::token_averaged_loss(
                    &policy(),
                    &reference(),
                    &self.v("n_chosen"),
                    &self.v("n_rejected"),
                    self.scalar("tau"),
                )?,
            ),
            "slic_hf" => one(
                "loss",
                slic::slic_hf_loss(
                    &policy(),
                    &self.v("target"),
                    self.scalar("delta"),
                    self.scalar("lam"),
                )?,
            ),
            "bradley_terry" => {
                let margin = self.leaves.get("margin");
                one(
                    "loss",
                    bradley_terry::bradley_terry_loss(
                        &self.v("chosen"),
                        &self.v("rejected"),
                        margin,
                        self.scalar("c"),
                        0.0,
                    )?,
                )
            }
            "kl_k1" => grid("kl", kl(KlEstimator::K1)?),
            "kl_k2" => grid("kl", kl(KlEstimator::K2)?),
            "kl_k3" => grid("kl", kl(KlEstimator::K3)?),
            "policy_loss" => {
                let (low, high) = (self.scalar("low"), self.scalar("high"));
                let (logps, old, advantages) =
                    (self.m("logps"), self.m("old"), self.m("advantages"));
                let out = if low == high {
                    ppo::policy_loss(&logps, &old, &advantages, &self.mask(), low)?
                } else {
                    let clip = ppo::ClipRange { low, high };
                    ppo::asymmetric_policy_loss(&logps, &old, &advantages, &self.mask(), clip)?
                };
                [
                    ("loss", out.loss),
                    ("ratio", out.ratio),
                    ("approx_kl", out.approx_kl),
                    ("clipped", out.clipped),
                ]
                .map(|(name, x)| (name, x.flatten(0, 1)))
                .into()
            }
            "value_loss" => grid(
                "loss",
                ppo::value_loss(
                    &self.m("values"),
                    &self.m("old"),
                    &self.m("returns"),
                    &self.mask(),
                    self.scalar("eps"),
                )?,
            ),
            "gae" => {
                let out = gae::gae(
                    &self.m("rewards"),
                    &self.m("values"),
                    &self.mask(),
                    self.scalar("gamma"),
                    self.scalar("lam"),
                )?;
                vec![
                    ("advantages", out.advantages.flatten(0, 1)),
                    ("returns", out.returns.flatten(0, 1)),
                ]
            }
            "whiten" if self.scalar("keep") == 0.0 => {
                grid("out", whiten::whiten(&self.m("x"), &self.mask())?)
            }
            "whiten" => grid("out", whiten::whiten_keep_mean(&self.m("x"), &self.mask())?),
            "token_rewards" => {
                let scores = self.m("scores");
                let [batch, time] = scores.dims();
                let scores = scores.narrow(1, time - 1, 1).reshape([batch]);
                grid(
                    "rewards",
                    ppo::token_rewards(&scores, &self.m("kl"), &self.mask(), self.scalar("coef"))?,
                )
            }
            "nll" => grid("loss", sft::nll_loss(&self.m("logps"), &self.mask())?),
            "weighted_nll" => grid(
                "loss",
                sft::weighted_nll_loss(&self.m("logps"), &self.m("weights"), &self.mask())?,
            ),
            "mean_token" | "mean_sequence" => {
                let denominator = self.scalar("denominator");
                let by = match function {
                    "mean_token" => Normalisation::Token { denominator },
                    _ => Normalisation::Sequence { denominator },
                };
                one("out", by.tokens(self.m("logps"), &self.mask())?)
            }
            "kto" => self.kto()?,
            "group_group" | "group_batch" | "group_none" | "rloo" | "returns" | "reinforce"
            | "cispo" | "gspo" => self.online(function)?,
            "kl_controller" => {
                let controller = KlController::Adaptive {
                    target: self.scalar("target"),
                    horizon: self.scalar("horizon"),
                };
                let mut coef = self.scalar("coef");
                let mut coefs = Vec::new();
                for kl in list(&self.json["inputs"]["kl"]) {
                    coef = controller.update(coef, kl, self.scalar("n") as usize)?;
                    coefs.push(coef);
                }
                one("coef", flat(&coefs))
            }
            "bradley_terry_smoothed"
            | "bradley_terry_soft"
            | "dpo_soft"
            | "ties"
            | "regression"
            | "mean_nll"
            | "wpo"
            | "nash_md"
            | "xpo"
            | "plackett_luce"
            | "all_pairs"
            | "steps"
            | "ld_dpo"
            | "k3_times_ratio" => self.rewards_and_weights(function)?,
            other => return self.more_pair_objectives(other),
        })
    }

    /// The relatives of DPO, and objectives without a reference.
    fn more_pair_objectives(
        &self,
        function: &str,
    ) -> Result<Vec<(&'static str, Tensor<1>)>, togi_rl_algos::AlgoError> {
        let (policy, reference) = (&self.pairs(""), || self.pairs("ref_"));
        let beta = || self.scalar("beta");
        let counts = || (self.v("n_chosen"), self.v("n_rejected"));
        let divergence = |kind| f_divergence::f_dpo_loss(policy, &reference(), beta(), 0.0, kind);
        let alpha = || self.scalar("alpha");
        let loss = match function {
            "exo_pair" => exo::exo_pair_loss(policy, &reference(), beta(), self.scalar("e"))?,
            "nca_pair" => nca::nca_pair_loss(policy, &reference(), beta())?,
            "bco_pair" => bco::bco_pair_loss(policy, &reference(), beta(), self.scalar("delta"))?,
            "sppo_hard" => sppo::sppo_hard_loss(policy, &reference(), beta())?,
            "aot" => aot::aot_loss(policy, &reference(), beta(), self.scalar("e"))?,
            "aot_unpaired" => {
                aot::aot_unpaired_loss(policy, &reference(), beta(), self.scalar("e"))?
            }
            "apo_zero" => apo::apo_zero_loss(policy, &reference(), beta())?,
            "apo_down" => apo::apo_down_loss(policy, &reference(), beta())?,
            "discopop" => {
                discopop::discopop_loss(policy, &reference(), beta(), self.scalar("tau"))?
            }
            "sigmoid_norm" => {
                let (n, m) = counts();
                dpo::length_normalised_loss(policy, &reference(), &n, &m, beta())?
            }
            "simpo" => {
                let (n, m) = counts();
                simpo::simpo_loss(policy, &n, &m, beta(), self.scalar("gamma"))?
            }
            "cpo" => {
                let n = self.v("n_chosen");
                cpo::cpo_loss(policy, &n, beta(), alpha(), self.scalar("e"))?
            }
            "orpo" => {
                let (n, m) = counts();
                orpo::orpo_loss(policy, &n, &m, self.scalar("lam"))?
            }
            "f_dpo_reverse_kl" => divergence(Divergence::ReverseKl)?,
            "f_dpo_forward_kl" => divergence(Divergence::ForwardKl)?,
            "f_dpo_jensen_shannon" => divergence(Divergence::JensenShannon)?,
            "f_dpo_alpha" => divergence(Divergence::Alpha { alpha: alpha() })?,
            other => panic!("no function {other}"),
        };
        Ok(vec![("loss", loss)])
    }

    /// Advantages and losses of online methods.
    fn online(
        &self,
        function: &str,
    ) -> Result<Vec<(&'static str, Tensor<1>)>, togi_rl_algos::AlgoError> {
        let scores = || host(self.v("scores"));
        let size = || self.scalar("size") as usize;
        let relative = |scale| group::group_relative(&scores(), size(), scale);
        let one = |name, x: Tensor<2>| vec![(name, x.flatten(0, 1))];
        let (logps, old) = (|| self.m("logps"), || self.m("old"));
        let advantages = || self.m("advantages");
        Ok(match function {
            "group_group" => vec![("out", flat(&relative(GroupScale::Group)?))],
            "group_batch" => vec![("out", flat(&relative(GroupScale::Batch)?))],
            "group_none" => vec![("out", flat(&relative(GroupScale::None)?))],
            "rloo" => vec![("out", flat(&group::leave_one_out(&scores(), size())?))],
            "returns" => {
                let (rewards, gamma) = (self.m("rewards"), self.scalar("gamma"));
                let out = gae::discounted_returns(&rewards, &self.mask(), gamma)?;
                one("returns", out)
            }
            "reinforce" => one(
                "loss",
                reinforce::reinforce_loss(&logps(), &advantages(), &self.mask())?,
            ),
            "cispo" => {
                let (a, mask, eps) = (advantages(), self.mask(), self.scalar("eps"));
                one("loss", cispo::cispo_loss(&logps(), &old(), &a, &mask, eps)?)
            }
            _ => {
                let clip = ppo::ClipRange {
                    low: self.scalar("low"),
                    high: self.scalar("high"),
                };
                let a = advantages();
                let [batch, _] = a.dims();
                let a = a.narrow(1, 0, 1).reshape([batch]);
                let out = gspo::gspo_loss(&logps(), &old(), &a, &self.mask(), clip)?;
                vec![
                    ("loss", out.loss),
                    ("ratio", out.ratio),
                    ("clipped", out.clipped),
                ]
            }
        })
    }

    /// Reward modelling, and what weighs or reads log-probabilities in another way.
    fn rewards_and_weights(
        &self,
        function: &str,
    ) -> Result<Vec<(&'static str, Tensor<1>)>, togi_rl_algos::AlgoError> {
        let side = |name| self.v(name);
        let items = |name: &str| self.json[name].as_array().expect("a list").clone();
        let flags = |name| -> Vec<bool> { items(name).iter().map(|x| *x == true).collect() };
        let loss = match function {
            "bradley_terry_smoothed" => bradley_terry::bradley_terry_loss(
                &side("chosen"),
                &side("rejected"),
                None,
                self.scalar("c"),
                self.scalar("e"),
            )?,
            "bradley_terry_soft" => bradley_terry::soft_label_loss(
                &side("chosen"),
                &side("rejected"),
                &side("probability"),
                self.scalar("c"),
            )?,
            "dpo_soft" => dpo::soft_label_loss(
                &self.pairs(""),
                &self.pairs("ref_"),
                &side("probability"),
                self.scalar("beta"),
            )?,
            "ties" => {
                let outcomes: Vec<ties::Outcome> = items("outcome")
                    .into_iter()
                    .map(|x| serde_json::from_value(x).expect("an outcome"))
                    .collect();
                let (first, second) = (side("chosen"), side("rejected"));
                ties::rao_kupper_loss(&first, &second, &outcomes, self.scalar("theta"))?
            }
            "regression" => regression::regression_loss(&side("chosen"), &side("target"))?,
            "mean_nll" => sft::mean_nll_loss(&side("chosen"), &side("n_chosen"))?,
            "wpo" => {
                let (n, m) = (side("n_chosen"), side("n_rejected"));
                let weights = wpo::wpo_weights(&self.pairs(""), &self.pairs("ref_"), &n, &m)?;
                return Ok(vec![("weights", weights)]);
            }
            "nash_md" => {
                let likes = list(&self.json["likes"]);
                nash_md::nash_md_loss(
                    &side("policy"),
                    &side("reference"),
                    &likes,
                    self.scalar("tau"),
                )?
            }
            "xpo" => xpo::xpo_loss(
                &self.pairs(""),
                &self.pairs("ref_"),
                &side("target"),
                self.scalar("beta"),
                self.scalar("alpha"),
            )?,
            "plackett_luce" => plackett_luce::plackett_luce_loss(&self.m("scores"))?,
            "all_pairs" => plackett_luce::all_pairs_loss(&self.m("scores"))?,
            "steps" => {
                let labels = flags("right");
                let loss = process_reward::step_loss(&self.m("logps"), &labels, &self.mask())?;
                loss.flatten(0, 1)
            }
            "ld_dpo" => {
                let public: Vec<usize> = list(&self.json["public"])
                    .iter()
                    .map(|n| *n as usize)
                    .collect();
                let (logps, alpha) = (self.m("logps"), self.scalar("alpha"));
                let out = ld_dpo::length_desensitised(&logps, &self.mask(), &public, alpha)?;
                return Ok(vec![("out", out)]);
            }
            _ => {
                let (logps, old) = (self.m("logps"), self.m("old"));
                let k3 = kl_per_token(&logps, &self.m("reference"), KlEstimator::K3)?;
                return Ok(vec![("kl", times_ratio(k3, &logps, &old)?.flatten(0, 1))]);
            }
        };
        Ok(vec![("loss", loss)])
    }

    /// Single answers with a label.
    fn kto(&self) -> Result<Vec<(&'static str, Tensor<1>)>, togi_rl_algos::AlgoError> {
        let labels = self.json["desirable"].as_array().expect("labels");
        let labels: Vec<bool> = labels.iter().map(|x| *x == true).collect();
        let weights = kto::KtoWeights {
            desirable: self.scalar("up"),
            undesirable: self.scalar("down"),
        };
        let (policy, reference) = (self.v("policy"), self.v("reference"));
        let (z, beta) = (self.scalar("z"), self.scalar("beta"));
        let loss = kto::kto_loss(&policy, &reference, &labels, z, beta, weights)?;
        Ok(vec![("loss", loss)])
    }
}

/// The largest error in units of `1 + |expected|`.
fn compare(name: &str, found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len(), "{name}: length");
    let errors = found.iter().zip(expected).enumerate().map(|(i, (x, y))| {
        let error = (x - y).abs() / (1.0 + y.abs());
        assert!(error <= TOLERANCE, "{name}[{i}]: {x}, expected {y}");
        error
    });
    errors.fold(0.0, f64::max)
}

#[test]
fn values_and_gradients_are_those_of_pytorch() {
    let cases: Value = serde_json::from_str(include_str!("golden/rl_algos.json")).expect("JSON");
    let mut worst = HashMap::<String, [f64; 2]>::new();
    for (index, json) in cases.as_array().expect("cases").iter().enumerate() {
        let function = json["fn"].as_str().expect("a name");
        let inputs = table(&json["inputs"]);
        let leaves = inputs
            .iter()
            .map(|(k, v)| (k.clone(), flat(v).require_grad()))
            .collect();
        let case = Case { json, leaves };
        let name = format!("case {index}, {function} {}", json["scalars"]);
        let outputs = case
            .outputs(function)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let (expected, weights) = (table(&json["outputs"]), table(&json["weights"]));
        assert_eq!(outputs.len(), expected.len(), "{name}: outputs");
        let worst = worst.entry(function.to_owned()).or_default();
        let mut total = flat(&[0.0]);
        for (key, out) in outputs {
            let label = format!("{name}: {key}");
            worst[0] = worst[0].max(compare(&label, &host(out.clone()), &expected[key]));
            total = total + (out * flat(&weights[key])).sum();
        }
        let gradients = table(&json["gradients"]);
        if gradients.is_empty() {
            continue;
        }
        let found = total.backward();
        for (key, leaf) in &case.leaves {
            let label = format!("{name}: gradient of {key}");
            match (gradients.get(key), leaf.grad(&found)) {
                (Some(y), Some(x)) => worst[1] = worst[1].max(compare(&label, &host(x), y)),
                (None, None) => {}
                (expected, _) => panic!("{label}: a gradient is expected: {}", expected.is_some()),
            }
        }
    }
    println!("largest errors of values and gradients: {worst:#?}");
}
