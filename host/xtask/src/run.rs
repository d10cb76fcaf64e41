//! Builds the proxy and starts it.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::workspace::Workspace;
use crate::{setup, step};

/// Replaces this process by `sipbox run`, so that signals and the terminal are the proxy's.
pub(crate) fn run(
    workspace: &Workspace,
    install: bool,
    arguments: &[String],
) -> anyhow::Result<()> {
    setup::toolchain(workspace, install)?;
    step::run(
        "building sipbox (the first time this takes some minutes)",
        workspace
            .cargo()
            .args(["build", "--release", "--package", "sipbox"]),
    )?;
    let program = workspace.target.join("release/sipbox");
    step::say(format_args!(
        "{} run {}",
        program.display(),
        arguments.join(" ")
    ));
    let error = Command::new(&program).arg("run").args(arguments).exec();
    Err(anyhow::Error::new(error).context(format!("cannot start {}", program.display())))
}
