//! The environment of the inner cargo: what a caller's cargo left in ours must not reach it.
//!
//! A build script, a test and a `cargo run` all inherit dozens of variables that describe *their*
//! build: flags, wrappers (clippy), a target folder, a job server. A guest built under them would
//! differ from one built at a prompt, and a shared target folder would deadlock.

use std::ffi::OsStr;
use std::process::Command;

/// Variables of cargo that say how to reach the network, where its home is and how to print: they
/// belong to the machine, not to the caller's build.
const KEPT: &[&str] = &[
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTRY_",
    "CARGO_REGISTRIES_",
    "CARGO_SOURCE_",
    "CARGO_TERM_",
    "CARGO_BUILD_JOBS",
];

/// Dropped besides everything that begins with `CARGO`, `RUSTC`, `CLIPPY_` or `DEP_`.
const DROPPED: &[&str] = &[
    "RUSTFLAGS",
    "RUSTDOC",
    "RUSTDOCFLAGS",
    "MAKEFLAGS",
    "MFLAGS",
    "MAKELEVEL",
    "TARGET",
    "HOST",
    "OUT_DIR",
    "OPT_LEVEL",
    "PROFILE",
    "DEBUG",
    "NUM_JOBS",
    "SOURCE_DATE_EPOCH",
    "__CARGO_TESTS_ONLY_SRC_ROOT",
];

fn is_dropped(name: &str) -> bool {
    if KEPT.iter().any(|kept| name.starts_with(kept)) {
        return false;
    }
    name == "CARGO"
        || name.starts_with("CARGO_")
        || name.starts_with("RUSTC")
        || name.starts_with("CLIPPY_")
        || name.starts_with("DEP_")
        || DROPPED.contains(&name)
}

/// A command that has forgotten the caller's build.
pub(crate) fn clean_command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_dropped) {
            command.env_remove(&name);
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_build_settings_are_dropped_and_the_machines_kept() {
        for dropped in [
            "CARGO",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_MAKEFLAGS",
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_TARGET",
            "CARGO_MANIFEST_DIR",
            "CARGO_PROFILE_RELEASE_LTO",
            "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS",
            "CARGO_CFG_TARGET_OS",
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTC_BOOTSTRAP",
            "RUSTFLAGS",
            "CLIPPY_ARGS",
            "OUT_DIR",
            "DEP_Z_ROOT",
            "MAKEFLAGS",
        ] {
            assert!(
                is_dropped(dropped),
                "{dropped} would reach the guest's build"
            );
        }
        for kept in [
            "CARGO_HOME",
            "CARGO_HTTP_CAINFO",
            "CARGO_NET_OFFLINE",
            "CARGO_REGISTRIES_CRATES_IO_PROTOCOL",
            "CARGO_TERM_COLOR",
            "PATH",
            "HOME",
            "RUSTUP_HOME",
            "RUSTUP_TOOLCHAIN",
            "SSL_CERT_FILE",
            "HTTPS_PROXY",
            "TARGETS",
        ] {
            assert!(!is_dropped(kept), "{kept} would be lost");
        }
    }
}
