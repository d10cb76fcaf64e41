//! Builds the embedded policy through the same builder as everything else.

use std::path::Path;
use std::process::ExitCode;

use sipbox_policy_build::{BuildRequest, build_script};

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
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
