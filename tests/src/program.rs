//! Finds the binary under test.

use std::path::PathBuf;
use std::time::SystemTime;

/// The path of `sipbox`: from `SIPBOX_BIN`, else beside the test executable,
/// which is where `cargo xtask test` builds it (the same profile and folder).
///
/// # Panics
/// When it is absent, or older than a source file of the host: cargo does not
/// build another package's binary for a test, and a test of yesterday's binary
/// proves nothing.
#[must_use]
pub fn sipbox() -> PathBuf {
    if let Some(path) = std::env::var_os("SIPBOX_BIN") {
        let path = PathBuf::from(path);
        assert!(
            path.is_file(),
            "SIPBOX_BIN names {}, which is no file",
            path.display()
        );
        return path;
    }
    let executable = std::env::current_exe().unwrap();
    // target/PROFILE/deps/NAME-HASH, or target/PROFILE/examples/NAME.
    let folder = executable
        .parent()
        .and_then(std::path::Path::parent)
        .unwrap();
    let path = folder.join("sipbox");
    let advice = "run `cargo xtask test`, or set SIPBOX_BIN";
    assert!(path.is_file(), "{} is not built: {advice}", path.display());
    let built = path.metadata().and_then(|meta| meta.modified()).unwrap();
    let root = workspace();
    for folder in [
        "host",
        "policies/residential/src",
        "guest-sdk/allocator/src",
        "guest-sdk/nat-rules/src",
        "guest-sdk/rust/src",
        "wit",
    ] {
        if let Some(newer) = newer_source(&root.join(folder), built) {
            panic!(
                "{} is older than {}: {advice}",
                path.display(),
                newer.display()
            );
        }
    }
    path
}

/// Where the programs of all tests keep compiled policies. Wasmtime's cache
/// knows by content and version what is in it.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn compiled_components() -> PathBuf {
    let executable = std::env::current_exe().unwrap();
    let folder = executable
        .ancestors()
        .nth(2)
        .unwrap()
        .join("test-components");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The root of the workspace.
///
/// # Panics
/// Never: this package lies in a folder of it.
#[must_use]
pub fn workspace() -> PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// A source file in `folder` that was written after `built`.
fn newer_source(folder: &std::path::Path, built: SystemTime) -> Option<PathBuf> {
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            // What the binary is not made of.
            let other = [
                "tests", "benches", "fuzz", "xtask", "book", "dist", "target",
            ];
            if other.iter().any(|skipped| name == *skipped) {
                continue;
            }
            if let Some(newer) = newer_source(&path, built) {
                return Some(newer);
            }
        } else if path
            .extension()
            .is_some_and(|kind| kind == "rs" || kind == "wit")
            && entry
                .metadata()
                .and_then(|meta| meta.modified())
                .is_ok_and(|time| time > built)
        {
            return Some(path);
        }
    }
    None
}
