//! Builds every policy and test guest.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use sipbox_policy_build::{BuildRequest, Messages, build};

use crate::setup;
use crate::step::say;
use crate::workspace::Workspace;

/// Builds all guests into `target/policies`, named after their packages.
pub(crate) fn build_all(workspace: &Workspace, install: bool) -> anyhow::Result<()> {
    setup::toolchains(workspace, install)?;
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
        // What the build says it changed is not asked: a build script may have built
        // the same guest meanwhile.
        if !same(&artifact.component, &path) {
            let partial = path.with_extension("wasm.partial");
            fs::copy(&artifact.component, &partial)
                .and_then(|_| fs::rename(&partial, &path))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        println!("{}  {} bytes", path.display(), artifact.size);
    }
    Ok(())
}

/// Whether two files can be read and are equal.
fn same(one: &Path, other: &Path) -> bool {
    matches!((fs::read(one), fs::read(other)), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_the_same_by_what_is_in_them() {
        let folder = std::env::temp_dir().join(format!("sipbox-xtask-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let (one, equal, other) = (file("a", "x"), file("b", "x"), file("c", "y"));
        assert!(same(&one, &equal));
        assert!(!same(&one, &other));
        assert!(!same(&one, &folder.join("none")));
        fs::remove_dir_all(&folder).unwrap();
    }
}
