//! The benches.

use crate::workspace::Workspace;
use crate::{policies, step};

/// Builds the policies (benches run them) and runs every bench of the workspace, or with `-p` in
/// the arguments those of one package.
pub(crate) fn bench(
    workspace: &Workspace,
    install: bool,
    arguments: &[String],
) -> anyhow::Result<()> {
    policies::build_all(workspace, install)?;
    let chosen = arguments
        .iter()
        .any(|argument| argument == "-p" || argument.starts_with("--package"));
    let mut cargo = workspace.cargo();
    cargo
        .arg("bench")
        .env("SIPBOX_POLICIES", workspace.target.join("policies"));
    if !chosen {
        cargo.args(["--package", "sipbox-bench"]);
    }
    step::run("benches", cargo.args(arguments))
}
