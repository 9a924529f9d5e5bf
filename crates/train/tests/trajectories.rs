//! Twenty steps of SFT, DPO and its relatives, and of a reward model, beside TRL's
//! (tools/golden/trajectories.py): same data, order, model and optimiser.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use serde_json::{Value, json};
use togi_data::{Located, LossOn, TokenizeOptions, Tokenizer, batch::Order, tokenize};
use togi_policy::{Decoder, decoder::SCORE_HEAD, hf};
use togi_rl_algos::f_divergence::Divergence;
use togi_train::{
    Event, Observer, RunFolder,
    config::{DataSection, LoopSection, OptimSection},
    kto::{Kto, KtoConfig},
    memory::Watch,
    offline::{self, Objective, Stage},
    preference::{Preference, PreferenceConfig, PreferenceLoss, Term},
    reference::ReferenceUpdate,
    reward::BradleyTerry,
    schedule::Schedule,
    sft::Sft,
};

const STEPS: u64 = 20;
const SEED: u64 = 7;

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/trajectories.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn fixture() -> togi_policy::Policy {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/tests/fixtures/llama");
    hf::load(&folder, &Device::flex()).unwrap()
}

/// The golden rows as samples, placed so that our shuffled order meets them in file order.
fn samples<T>(
    golden: &Value,
    record: impl FnMut(&Value) -> Value,
    layout: impl Fn(&Located, &Tokenizer, &TokenizeOptions) -> Result<Option<T>, togi_data::DataError>,
) -> Vec<T> {
    let tokenizer = fixture().tokenizer;
    let options = DataSection::default().options(LossOn::Completion);
    let rows = golden["rows"].as_array().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.jsonl");
    let lines: Vec<String> = rows.iter().map(record).map(|row| row.to_string()).collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    let records = togi_data::load(&file).unwrap().records;
    let size = golden["batch"].as_u64().unwrap() as usize;
    let mut order = Order::new(SEED, rows.len());
    let mut placed: Vec<Option<T>> = rows.iter().map(|_| None).collect();
    let mut next = 0;
    for step in 0..STEPS {
        for place in order.batch(step, size) {
            placed[place] = layout(&records[next], &tokenizer, &options).unwrap();
            next += 1;
        }
    }
    placed.into_iter().map(Option::unwrap).collect()
}

struct Steps(Vec<(f64, f64)>);

impl Observer for Steps {
    fn on(&mut self, event: Event<'_>) {
        if let Event::Step { row, .. } = event {
            let value = |name| row.get(name).unwrap();
            self.0.push((value("loss"), value("grad_norm")));
        }
    }
}

fn follows(name: &str, golden: &Value, decoder: &mut Decoder, objective: &mut impl Objective) {
    follows_cut(name, golden, decoder, objective, &[4, 3, 1]);
}

/// The result must not depend on how a batch is cut.
fn follows_cut(
    name: &str,
    golden: &Value,
    decoder: &mut Decoder,
    objective: &mut impl Objective,
    cuts: &[usize],
) {
    for &micro_batch_size in cuts {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::open(&folder.path().join("run"), "", false).unwrap();
        let mut steps = Steps(Vec::new());
        let mut stage = Stage {
            name,
            run: &run,
            seed: SEED,
            observer: &mut steps,
            watch: Watch::default(),
        };
        let optim = OptimSection {
            learning_rate: golden["learning_rate"].as_f64().unwrap(),
            schedule: Schedule::Constant,
            ..OptimSection::default()
        };
        let config = LoopSection {
            max_steps: STEPS,
            batch_size: 4,
            micro_batch_size,
            ..LoopSection::default()
        };
        let mut decoder = decoder.clone();
        offline::train(&mut stage, &mut decoder, objective, &optim, &config).unwrap();
        let theirs = golden[name].as_array().unwrap();
        assert_eq!(steps.0.len(), theirs.len());
        for (step, ((loss, norm), theirs)) in steps.0.iter().zip(theirs).enumerate() {
            let (their_loss, their_norm) = (
                theirs["loss"].as_f64().unwrap(),
                theirs["grad_norm"].as_f64().unwrap(),
            );
            // Squared losses are in the tens, where 1e-4 is less than float32 can tell.
            assert!(
                (loss - their_loss).abs() <= 1e-4 * their_loss.abs().max(1.0),
                "{name}, step {step}, micro-batch {micro_batch_size}: loss {loss}, TRL has {their_loss}"
            );
            assert!(
                (norm / their_norm - 1.0).abs() <= 1e-3,
                "{name}, step {step}, micro-batch {micro_batch_size}: gradient norm {norm}, TRL has {their_norm}"
            );
        }
    }
}

#[test]
fn preference_optimisation_follows_trl() {
    let golden = golden();
    let pairs = samples(&golden, Value::clone, tokenize::pair);
    let (beta, tau) = (0.1, 0.05);
    let f = |divergence| PreferenceLoss::FDivergence {
        beta,
        label_smoothing: 0.0,
        divergence,
    };
    let losses = [
        (
            "dpo_sigmoid",
            PreferenceLoss::Sigmoid {
                beta,
                label_smoothing: 0.0,
            },
        ),
        ("dpo_hinge", PreferenceLoss::Hinge { beta }),
        ("dpo_ipo", PreferenceLoss::IpoTokenAveraged { tau: 0.1 }),
        (
            "dpo_exo_pair",
            PreferenceLoss::ExoPair {
                beta,
                label_smoothing: 0.01,
            },
        ),
        ("dpo_nca_pair", PreferenceLoss::NcaPair { beta }),
        (
            "dpo_robust",
            PreferenceLoss::Robust {
                beta,
                label_smoothing: 0.1,
            },
        ),
        (
            "dpo_bco_pair",
            PreferenceLoss::BcoPair {
                beta,
                shift_decay: None,
            },
        ),
        ("dpo_sppo_hard", PreferenceLoss::SppoHard { beta }),
        (
            "dpo_aot",
            PreferenceLoss::Aot {
                beta,
                label_smoothing: 0.1,
            },
        ),
        (
            "dpo_aot_unpaired",
            PreferenceLoss::AotUnpaired {
                beta,
                label_smoothing: 0.0,
            },
        ),
        ("dpo_apo_zero", PreferenceLoss::ApoZero { beta }),
        ("dpo_apo_down", PreferenceLoss::ApoDown { beta }),
        ("dpo_discopop", PreferenceLoss::Discopop { beta, tau }),
        ("dpo_sigmoid_norm", PreferenceLoss::SigmoidNorm { beta }),
        ("dpo_forward_kl", f(Divergence::ForwardKl)),
        ("dpo_js_divergence", f(Divergence::JensenShannon)),
        ("dpo_alpha_divergence", f(Divergence::Alpha { alpha: 0.5 })),
    ];
    let with = |loss| PreferenceConfig::with(loss);
    let mut all: Vec<(&str, PreferenceConfig)> = losses
        .into_iter()
        .map(|(name, loss)| (name, with(loss)))
        .collect();
    let dpo = PreferenceConfig::default();
    let weighting = PreferenceConfig {
        use_weighting: true,
        ..dpo.clone()
    };
    let ld = PreferenceConfig {
        ld_alpha: 0.5,
        ..dpo.clone()
    };
    let synced = PreferenceConfig {
        reference: ReferenceUpdate::Synced {
            every: 3,
            alpha: 0.6,
        },
        ..dpo.clone()
    };
    let term = |weight, loss| Term { weight, loss };
    let sum = PreferenceLoss::WeightedSum {
        terms: vec![
            term(0.8, dpo.loss.clone()),
            term(
                0.2,
                PreferenceLoss::BcoPair {
                    beta,
                    shift_decay: None,
                },
            ),
        ],
    };
    all.extend([
        ("dpo_weighting", weighting),
        ("dpo_ld", ld),
        ("dpo_synced", synced),
        ("dpo_sum", with(sum)),
    ]);
    for (name, config) in all {
        // The losses that sort need the whole batch.
        let sorts = name.starts_with("dpo_aot");
        let cuts: &[usize] = if sorts { &[4] } else { &[4, 3, 1] };
        for cut in cuts {
            let mut decoder = fixture().decoder;
            let (mut objective, _) = Preference::new(&pairs, &[], &config, &decoder).unwrap();
            follows_cut(name, &golden, &mut decoder, &mut objective, &[*cut]);
        }
    }
}

#[test]
fn kto_follows_trl() {
    let golden = golden();
    // Two of three answers are wanted.
    let mut number = 0;
    let row = |row: &Value| {
        let wanted = number % 3 > 0;
        number += 1;
        let completion = &row[if wanted { "chosen" } else { "rejected" }];
        json!({"prompt": row["prompt"], "completion": completion, "label": wanted})
    };
    let train = samples(&golden, row, tokenize::labelled).concat();
    let mut decoder = fixture().decoder;
    let config = KtoConfig {
        undesirable_weight: 1.5,
        ..KtoConfig::default()
    };
    let mut objective = Kto::new(&train, &[], &config, &decoder);
    follows("kto", &golden, &mut decoder, &mut objective);
}

#[test]
fn sft_follows_trl() {
    let golden = golden();
    let row = |row: &Value| json!({"prompt": row["prompt"], "completion": row["chosen"]});
    let train = samples(&golden, row, tokenize::sft);
    let mut decoder = fixture().decoder;
    let mut objective = Sft {
        train: &train,
        valid: &[],
    };
    follows("sft", &golden, &mut decoder, &mut objective);
}

#[test]
fn a_reward_model_follows_trl() {
    let golden = golden();
    let pairs = samples(&golden, Value::clone, tokenize::pair);
    let mut decoder = fixture().decoder.with_score_head(None).unwrap();
    let score: Vec<f32> = golden["score"]
        .as_array()
        .unwrap()
        .iter()
        .map(|x| x.as_f64().unwrap() as f32)
        .collect();
    let count = score.len();
    let device = decoder.device().clone();
    decoder.params.get_mut(SCORE_HEAD).unwrap().tensor =
        Tensor::from_data(TensorData::new(score, [count]), &device);
    let mut objective = BradleyTerry {
        train: &pairs,
        valid: &[],
        centering: 0.0,
        use_margin: false,
        label_smoothing: 0.0,
        soft_labels: false,
    };
    follows("reward", &golden, &mut decoder, &mut objective);
}
