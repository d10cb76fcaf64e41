//! Help for a `build.rs` that embeds a component.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use sipbox_policy_build::{BuildRequest, build_script};
//!
//! fn main() -> ExitCode {
//!     let request = BuildRequest::new(
//!         concat!(env!("CARGO_MANIFEST_DIR"), "/../../policies/residential"),
//!         "policy-residential",
//!         build_script::target_dir(),
//!     );
//!     // The program then says `include_bytes!(env!("SIPBOX_RESIDENTIAL"))`.
//!     build_script::embed(&request, "SIPBOX_RESIDENTIAL", &["../../wit", "../../guest-sdk/rust"])
//! }
//! ```

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::{Artifact, BuildError, BuildRequest, TOOLCHAIN_VARIABLE, build};

/// The folder that guests share, `<target>/guests`, found from a build script's `OUT_DIR`. All
/// profiles of the host and xtask use the same, so a guest is compiled once.
pub fn target_dir() -> PathBuf {
    let out_dir = std::env::var_os("OUT_DIR")
        .map(PathBuf::from)
        .unwrap_or_default();
    target_dir_above(&out_dir)
}

/// Cargo marks a target folder with `CACHEDIR.TAG`. A folder without the mark is still ours to
/// build in, only not shared.
fn target_dir_above(out_dir: &Path) -> PathBuf {
    out_dir
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").is_file())
        .unwrap_or(out_dir)
        .join("guests")
}

/// The whole of a build script: builds the guest, names the component's path to the crate in the
/// environment variable `variable`, and tells cargo when to run again: when a file of the guest or
/// one of the `watched` paths changes, or another toolchain is asked for.
///
/// When it fails, cargo shows the reason as its own error and nothing else.
pub fn embed(request: &BuildRequest, variable: &str, watched: &[&str]) -> ExitCode {
    let result = build(request);
    for line in directives(request, &result, variable, watched) {
        println!("{line}");
    }
    match result {
        Ok(artifact) => {
            println!(
                "built {} with {}",
                artifact.component.display(),
                artifact.toolchain
            );
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}

/// The lines that a build script prints for a build, in cargo's language.
pub fn directives(
    request: &BuildRequest,
    result: &Result<Artifact, BuildError>,
    variable: &str,
    watched: &[&str],
) -> Vec<String> {
    let mut lines = vec![format!("cargo::rerun-if-env-changed={TOOLCHAIN_VARIABLE}")];
    let manifest = request.dir.join("Cargo.toml");
    let sources = request.dir.join("src");
    let mut changed: Vec<&Path> = vec![&manifest, &sources];
    changed.extend(watched.iter().map(Path::new));
    if let Ok(artifact) = result {
        changed.extend(artifact.inputs.iter().map(PathBuf::as_path));
    }
    // A path that does not exist counts as changed for ever.
    changed.retain(|path| path.exists());
    lines.extend(
        changed
            .iter()
            .map(|path| format!("cargo::rerun-if-changed={}", path.display())),
    );
    match result {
        Ok(artifact) => {
            lines.push(format!(
                "cargo::rustc-env={variable}={}",
                artifact.component.display()
            ));
        }
        // Each directive is one line, and cargo prefixes each with `error:`.
        Err(error) => lines.extend(
            error
                .to_string()
                .lines()
                .map(|line| format!("cargo::error={line}")),
        ),
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shared_folder_is_in_the_target_folder() {
        let root = tempfile::tempdir().unwrap();
        let out_dir = root.path().join("target/ci/build/sipbox-0123/out");
        std::fs::create_dir_all(&out_dir).unwrap();
        assert_eq!(target_dir_above(&out_dir), out_dir.join("guests"));
        std::fs::write(root.path().join("target/CACHEDIR.TAG"), "").unwrap();
        assert_eq!(
            target_dir_above(&out_dir),
            root.path().join("target/guests")
        );
    }

    #[test]
    fn a_failure_is_told_in_cargos_own_words() {
        let request = BuildRequest::new("/no/such/crate", "ghost", "/no/such/target");
        let result = build(&request);
        assert!(matches!(result, Err(BuildError::NoLanguage { .. })));
        let lines = directives(&request, &result, "GHOST", &[]);
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with("cargo::error=/no/such/crate holds no policy")),
            "{lines:?}"
        );
        assert!(
            !lines.iter().any(|line| line.contains("rustc-env")),
            "{lines:?}"
        );
        assert!(
            !lines.iter().any(|line| line.contains("rerun-if-changed")),
            "{lines:?}"
        );
    }
}
