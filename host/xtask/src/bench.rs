//! The benches.

use anyhow::bail;

use crate::workspace::Workspace;
use crate::{policies, step};

/// Runs every bench, or those whose package or name contains one of the words. Policies are built
/// first: benches run them.
pub(crate) fn bench(workspace: &Workspace, install: bool, words: &[String]) -> anyhow::Result<()> {
    let mut benches = workspace.benches()?;
    let all: Vec<String> = benches
        .iter()
        .map(|bench| format!("{} {}", bench.package, bench.name))
        .collect();
    benches.retain(|bench| {
        words.is_empty()
            || words
                .iter()
                .any(|word| bench.package.contains(word) || bench.name.contains(word))
    });
    if benches.is_empty() {
        bail!(
            "no bench is called {}; there are:\n  {}",
            words.join(" or "),
            all.join("\n  ")
        );
    }
    policies::build_all(workspace, install)?;
    for bench in benches {
        let mut cargo = workspace.cargo();
        cargo
            .arg("bench")
            .arg("--manifest-path")
            .arg(&bench.manifest)
            .args(["--package", &bench.package, "--bench", &bench.name])
            .arg("--target-dir")
            .arg(&workspace.target)
            .env("SIPBOX_POLICIES", workspace.target.join("policies"));
        step::run(
            &format!("bench {} of {}", bench.name, bench.package),
            &mut cargo,
        )?;
    }
    Ok(())
}
