//! `cargo xtask export <source>`: a model as a folder that other programs read.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use togi_policy::{adapter, hf, source::Source};

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
    /// Where the model is loaded.
    #[arg(long, default_value = "cpu")]
    device: String,
}

pub(crate) fn run(arguments: &ExportArguments) -> Result<()> {
    let out = &arguments.out;
    if out.exists() {
        let text = format!(
            "--out {}: is there already; name another folder",
            out.display()
        );
        return Err(InputError(text).into());
    }
    let source = Source::parse(&arguments.source)?;
    let what = match &source {
        Source::Adapter(folder) if !arguments.merge => {
            adapter::copy(folder, out)?;
            "a PEFT adapter; --merge folds it into the weights"
        }
        _ => {
            let policy = source.load(&device::parse(&arguments.device)?, 0)?;
            hf::save(&policy, out)?;
            "a Hugging Face folder, float32"
        }
    };
    println!("Wrote {} ({what})", out.display());
    Ok(())
}
