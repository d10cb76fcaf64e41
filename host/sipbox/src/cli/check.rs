//! `sipbox check`: every mistake of a configuration, its components included.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::configuration::Source;
use crate::start::Sandbox;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The configuration
    #[arg(default_value = "sipbox.toml", value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let source = Source::File(args.file.clone());
    let Some(configuration) = source.read()?.or_report() else {
        return Ok(ExitCode::FAILURE);
    };
    let parts = configuration.parts();
    // Components are compiled, but what that makes is not kept.
    let sandbox = Sandbox::new(None)?;
    if let Err(refused) = sandbox.chains(&parts.live) {
        eprint!("{}", configuration.refused(&refused));
        return Ok(ExitCode::FAILURE);
    }
    println!("{}: fine", args.file.display());
    Ok(ExitCode::SUCCESS)
}
