//! `sipbox check`: every mistake of a configuration, its components included.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::configuration::Source;
use crate::sandbox::Sandbox;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The configuration
    #[arg(default_value = "sipbox.toml", value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let mut draft = Source::File(args.file.clone()).read()?;
    // Components are compiled, but what that makes is not kept.
    draft.check_components(&Sandbox::for_checks()?);
    match draft.finish() {
        Ok(configuration) => {
            configuration.report_warnings();
            println!("{}: fine", args.file.display());
            Ok(ExitCode::SUCCESS)
        }
        Err(mistakes) => {
            mistakes.report();
            Ok(ExitCode::FAILURE)
        }
    }
}
