//! Builds every policy and test guest.

use std::fs;

use anyhow::Context as _;
use sipbox_policy_build::{BuildRequest, Messages, build};

use crate::setup;
use crate::step::say;
use crate::workspace::Workspace;

/// Builds all guests into `target/policies`, named after their packages.
pub(crate) fn build_all(workspace: &Workspace, install: bool) -> anyhow::Result<()> {
    setup::toolchain(workspace, install)?;
    let folder = workspace.target.join("policies");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for guest in workspace.guests()? {
        say(format_args!("building {}", guest.package));
        let mut request =
            BuildRequest::new(&guest.dir, &guest.package, workspace.target.join("guests"));
        request.messages = Messages::Shown;
        let artifact = build(&request)?;
        let path = folder.join(format!("{}.wasm", guest.package));
        // A copy whose time says when it changed, and which nobody sees half written.
        if artifact.changed || !path.is_file() {
            let partial = path.with_extension("wasm.partial");
            fs::copy(&artifact.component, &partial)
                .and_then(|_| fs::rename(&partial, &path))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        println!("{}  {} bytes", path.display(), artifact.size);
    }
    Ok(())
}
