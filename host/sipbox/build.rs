//! Builds the embedded policy through the same builder as everything else.

use std::path::PathBuf;
use std::process::ExitCode;

use sipbox_policy_build::{BuildRequest, build_script};

fn main() -> ExitCode {
    // Cargo runs a build script in its package's folder; asked now and not when this was
    // compiled, so that checkouts may share a target folder.
    let folder = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(PathBuf::new, PathBuf::from);
    let root = folder.join("../..");
    let request = BuildRequest::new(
        root.join("policies/residential"),
        "policy-residential",
        build_script::target_dir(),
    );
    // The program says `include_bytes!(env!("SIPBOX_RESIDENTIAL"))`.
    build_script::embed(
        &request,
        "SIPBOX_RESIDENTIAL",
        &["../../wit", "../../guest-sdk/rust/src"],
    )
}
