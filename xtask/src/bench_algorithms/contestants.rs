//! Who takes part: every algorithm, and some at several strengths.

/// A row of the table: a recipe with settings.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    pub(crate) recipe: &'static str,
    pub(crate) settings: &'static [&'static str],
}

const fn plain_recipe(name: &'static str) -> Contestant {
    Contestant {
        name,
        recipe: name,
        settings: &[],
    }
}

const fn dpo(name: &'static str, settings: &'static [&'static str]) -> Contestant {
    Contestant {
        name,
        recipe: "dpo",
        settings,
    }
}

/// Every algorithm with the defaults of its recipe on the lab; losses of `dpo` with the strength of its
/// default (0.1) where they have one, the papers' values elsewhere, and where that does harm, what does
/// none.
pub(crate) const CONTESTANTS: &[Contestant] = &[
    plain_recipe("ppo"),
    plain_recipe("grpo"),
    plain_recipe("dapo"),
    plain_recipe("gspo"),
    plain_recipe("cispo"),
    plain_recipe("rloo"),
    plain_recipe("reinforce"),
    plain_recipe("reinforce-plus-plus"),
    plain_recipe("remax"),
    plain_recipe("raft"),
    plain_recipe("online-dpo"),
    Contestant {
        name: "online-ipo",
        recipe: "online-dpo",
        settings: &["algorithm.loss={kind=\"ipo_summed\",tau=0.1}"],
    },
    Contestant {
        name: "online-slic",
        recipe: "online-dpo",
        settings: &[
            "algorithm.loss={kind=\"slic_hf\",delta=10.0,lambda=1.0}",
            "kl_coef=0.2",
        ],
    },
    plain_recipe("xpo"),
    plain_recipe("nash-md"),
    plain_recipe("dpo"),
    plain_recipe("ipo"),
    plain_recipe("slic"),
    plain_recipe("kto"),
    plain_recipe("rso"),
    plain_recipe("simpo"),
    plain_recipe("cpo"),
    plain_recipe("orpo"),
    dpo("cdpo", &["loss.label_smoothing=0.1"]),
    dpo(
        "robust",
        &["loss={kind=\"robust\",beta=0.1,label_smoothing=0.1}"],
    ),
    dpo("hinge", &["loss={kind=\"hinge\",beta=0.1}"]),
    dpo(
        "ipo-averaged",
        &["loss={kind=\"ipo_token_averaged\",tau=0.1}"],
    ),
    dpo("sigmoid-norm", &["loss={kind=\"sigmoid_norm\",beta=2.0}"]),
    dpo(
        "exo",
        &["loss={kind=\"exo_pair\",beta=0.1,label_smoothing=0.001}"],
    ),
    dpo("nca", &["loss={kind=\"nca_pair\",beta=0.1}"]),
    dpo(
        "bco",
        &["loss={kind=\"bco_pair\",beta=0.1,shift_decay=0.9}"],
    ),
    dpo("sppo", &["loss={kind=\"sppo_hard\",beta=0.1}"]),
    dpo("aot", &["loss={kind=\"aot\",beta=0.1}"]),
    // Sorted apart, pairs no longer share their prompt: smaller steps.
    dpo(
        "aot-unpaired",
        &[
            "loss={kind=\"aot_unpaired\",beta=0.1}",
            "optim.learning_rate=5e-5",
        ],
    ),
    dpo("apo-zero", &["loss={kind=\"apo_zero\",beta=0.1}"]),
    // It makes the chosen answers less likely too: only small, soon saturated steps do no harm where
    // they are better than the model's.
    dpo(
        "apo-down",
        &[
            "loss={kind=\"apo_down\",beta=1.0}",
            "optim.learning_rate=2e-5",
        ],
    ),
    // With the paper's temperature of 0.05 the slope at a margin of 0, where every pair starts, is
    // +0.78: pairs are pushed the wrong way.
    dpo("discopop", &["loss={kind=\"discopop\",beta=0.1,tau=0.5}"]),
    dpo(
        "f-forward-kl",
        &["loss={kind=\"f_divergence\",beta=0.1,divergence={kind=\"forward_kl\"}}"],
    ),
    dpo(
        "f-jensen-shannon",
        &["loss={kind=\"f_divergence\",beta=0.1,divergence={kind=\"jensen_shannon\"}}"],
    ),
    dpo(
        "f-alpha",
        &["loss={kind=\"f_divergence\",beta=0.1,divergence={kind=\"alpha\",alpha=0.5}}"],
    ),
    dpo(
        "mpo",
        &[
            "loss={kind=\"weighted_sum\",terms=[{weight=0.8,loss={kind=\"sigmoid\",beta=0.1}},\
             {weight=0.2,loss={kind=\"bco_pair\",beta=0.1}},{weight=1.0,loss={kind=\"sft\"}}]}",
        ],
    ),
    dpo("wpo", &["use_weighting=true"]),
    dpo("ld-dpo", &["ld_alpha=0.5"]),
    dpo(
        "tr-dpo",
        &["reference={kind=\"synced\",every=50,alpha=0.6}"],
    ),
];

/// An algorithm at several strengths: a line of the frontier.
pub(crate) struct Sweep {
    pub(crate) recipe: &'static str,
    pub(crate) key: &'static str,
    pub(crate) values: &'static [&'static str],
}

pub(crate) const SWEEPS: &[Sweep] = &[
    Sweep {
        recipe: "dpo",
        key: "loss.beta",
        values: &["0.02", "0.3", "1.0"],
    },
    Sweep {
        recipe: "ipo",
        key: "loss.tau",
        values: &["0.02", "0.3", "1.0"],
    },
    Sweep {
        recipe: "ppo",
        key: "kl_coef",
        values: &["0.1", "1.0", "2.0"],
    },
    Sweep {
        recipe: "grpo",
        key: "kl_coef",
        values: &["0.1", "0.2", "1.0"],
    },
    Sweep {
        recipe: "rloo",
        key: "kl_coef",
        values: &["0.1", "0.2", "1.0"],
    },
];

/// PPO without a KL penalty for longer, looked at often: where the proxy stops being the truth.
pub(crate) const OVER_OPTIMISED: Contestant = Contestant {
    name: "ppo without KL",
    recipe: "ppo",
    settings: &[
        "kl_coef=0.0",
        "max_steps=150",
        "eval_every=5",
        "eval_samples=200",
    ],
};

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_algorithm_has_its_page() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/algorithms");
        let index = std::fs::read_to_string(docs.join("README.md")).unwrap();
        for Contestant { name, settings, .. } in CONTESTANTS {
            let text = std::fs::read_to_string(docs.join(format!("{name}.md")))
                .unwrap_or_else(|e| panic!("docs/algorithms/{name}.md: {e}"));
            assert!(
                index.contains(&format!("({name}.md)")),
                "{name}: not in the index"
            );
            for setting in *settings {
                assert!(
                    text.contains(setting),
                    "{name}.md does not have `{setting}`"
                );
            }
        }
    }
}
