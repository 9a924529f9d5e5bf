//! `cargo xtask export <source>`: a model as a folder that other programs read.

use std::{path::PathBuf, str::FromStr};

use anyhow::Result;
use burn::tensor::Device;
use clap::Args;
use togi_policy::{
    Decoder, Head, ModelConfig, Params, Policy, Precision, adapter, hf, source::Source,
};

use crate::{InputError, device};

#[derive(Args)]
pub(crate) struct ExportArguments {
    /// A Hugging Face or PEFT folder, a run folder, a .gguf file, hf:owner/name, or a fetched model.
    source: String,
    /// The folder that is written; it must not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Fold an adapter into the weights.
    #[arg(long)]
    merge: bool,
    /// Random weights of another size instead, to measure with: the width, a multiple of 64, and the
    /// layers. 2048x16 is Llama 3.2 1B's shape: heads of 64, a key head for four of them, a feed-forward
    /// layer of four times the width.
    #[arg(long, value_name = "WIDTHxLAYERS", conflicts_with = "merge")]
    random: Option<Size>,
    /// Where the model is loaded.
    #[arg(long, default_value = "cpu")]
    device: String,
}

pub(crate) fn run(arguments: &ExportArguments) -> Result<()> {
    let precision = Precision::of_program();
    if precision != Precision::F32 {
        let text = format!(
            "--dtype {precision}: export writes float32, and an adapter as it is; leave --dtype out"
        );
        return Err(InputError(text).into());
    }
    // A device that is not there is refused where files are only copied, too.
    let device = device::parse(&arguments.device)?;
    let out = &arguments.out;
    if out.exists() {
        let text = format!(
            "--out {}: is there already; name another folder",
            out.display()
        );
        return Err(InputError(text).into());
    }
    let source = Source::parse(&arguments.source)?;
    let what = match (&source, arguments.random) {
        (_, Some(size)) => {
            let policy = size.of(source.load(&device, 0)?, device)?;
            hf::save(&policy, out)?;
            "random weights, a Hugging Face folder, float32"
        }
        (Source::Adapter(folder), None) if !arguments.merge => {
            adapter::copy(folder, out)?;
            "a PEFT adapter; --merge folds it into the weights"
        }
        _ => {
            let policy = source.load(&device, 0)?;
            hf::save(&policy, out)?;
            "a Hugging Face folder, float32"
        }
    };
    println!("Wrote {} ({what})", out.display());
    Ok(())
}

/// The size of a model whose weights are drawn.
#[derive(Clone, Copy)]
struct Size {
    width: usize,
    layers: usize,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('x');
        let numbers = numbers.and_then(|(w, l)| Some((w.parse().ok()?, l.parse().ok()?)));
        match numbers {
            Some((width, layers)) if width > 0 && width % HEAD == 0 && layers > 0 => {
                Ok(Self { width, layers })
            }
            _ => Err("must be a multiple of 64, x, and a number of layers: 2048x16".to_owned()),
        }
    }
}

/// Width of an attention head.
const HEAD: usize = 64;

impl Size {
    /// A model of this size with the tokenizer and the family of another.
    fn of(self, policy: Policy, device: Device) -> Result<Policy> {
        let heads = self.width / HEAD;
        let config = ModelConfig {
            hidden_size: self.width,
            intermediate_size: 4 * self.width,
            num_hidden_layers: self.layers,
            num_attention_heads: heads,
            num_key_value_heads: if heads.is_multiple_of(4) {
                heads / 4
            } else {
                heads
            },
            head_dim: HEAD,
            ..policy.decoder.config
        };
        let params = Params::random(&config, Head::LanguageModel, 0, &device);
        let decoder = Decoder::new(config, params, device)?;
        Ok(Policy::new(decoder, policy.tokenizer, "the random model")?)
    }
}
