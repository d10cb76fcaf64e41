//! Components that tests load beside the built-in policy.

use std::path::PathBuf;

use sipbox_policy_build::{BuildRequest, build};

use crate::program::workspace;

/// The component of a guest in `tests/guests` or a policy in `policies`: as `cargo xtask test` built
/// it (`SIPBOX_POLICIES`), or built now. Cargo decides whether there is anything to do.
///
/// # Panics
/// When it does not compile, or there is no compiler for WebAssembly.
#[must_use]
pub fn component(folder: &str, package: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os("SIPBOX_POLICIES") {
        let path = PathBuf::from(folder).join(format!("{package}.wasm"));
        assert!(
            path.is_file(),
            "{} is missing: cargo xtask policies",
            path.display()
        );
        return path;
    }
    let executable = std::env::current_exe().unwrap();
    // target/PROFILE/deps/NAME: the builder's folder is target/guests for everyone.
    let target = executable.ancestors().nth(3).unwrap();
    let request = BuildRequest::new(workspace().join(folder), package, target.join("guests"));
    let artifact = build(&request).unwrap_or_else(|error| panic!("{package}: {error}"));
    artifact.component
}

/// `tests/guests/hostile`.
#[must_use]
pub fn hostile() -> PathBuf {
    component("tests/guests/hostile", "guest-hostile")
}

/// `tests/guests/sleeper`: sleeps a minute.
#[must_use]
pub fn sleeper() -> PathBuf {
    component("tests/guests/sleeper", "guest-sleeper")
}

/// `tests/guests/foreign`: imports what no host of policies has.
#[must_use]
pub fn foreign() -> PathBuf {
    component("tests/guests/foreign", "guest-foreign")
}

/// `tests/guests/routes`: a table of users, in twenty lines.
#[must_use]
pub fn routes() -> PathBuf {
    component("tests/guests/routes", "guest-routes")
}

/// `policies/examples/route-to`: one next hop for everything, in twenty lines.
#[must_use]
pub fn route_to() -> PathBuf {
    component("policies/examples/route-to", "policy-route-to")
}

/// `policies/nat`
#[must_use]
pub fn nat() -> PathBuf {
    component("policies/nat", "policy-nat")
}

/// `policies/residential`, as a file.
#[must_use]
pub fn residential() -> PathBuf {
    component("policies/residential", "policy-residential")
}

/// `tests/guests/record-route`: asks for Record-Route, and tells what comes back.
#[must_use]
pub fn record_route() -> PathBuf {
    component("tests/guests/record-route", "guest-record-route")
}

/// `tests/guests/mirror`: does what a script of Kamailio does beside it.
#[must_use]
pub fn mirror() -> PathBuf {
    component("tests/guests/mirror", "guest-mirror")
}

/// `tests/guests/shared`: does with `kv` and `counters` what a request says.
#[must_use]
pub fn shared() -> PathBuf {
    component("tests/guests/shared", "guest-shared")
}

/// `tests/guests/dialogs`: follows calls, and writes down what it is told of them.
#[must_use]
pub fn dialogs() -> PathBuf {
    component("tests/guests/dialogs", "guest-dialogs")
}

/// The languages of the SDKs, as the names of the examples end.
pub const LANGUAGES: [&str; 3] = ["rust", "c", "ts"];

/// `policies/examples/screen-LANGUAGE`: the same policy in each language.
#[must_use]
pub fn screen(language: &str) -> PathBuf {
    component(
        &format!("policies/examples/screen-{language}"),
        &format!("policy-screen-{language}"),
    )
}

/// `tests/guests/hooks-LANGUAGE`: every hook, and what goes wrong in it.
#[must_use]
pub fn hooks(language: &str) -> PathBuf {
    component(
        &format!("tests/guests/hooks-{language}"),
        &format!("guest-hooks-{language}"),
    )
}

/// `policies/limits`: leases and dialogs.
#[must_use]
pub fn limits() -> PathBuf {
    component("policies/limits", "policy-limits")
}

/// `policies/load-balancer`
#[must_use]
pub fn load_balancer() -> PathBuf {
    component("policies/load-balancer", "policy-load-balancer")
}

/// `policies/trunking`
#[must_use]
pub fn trunking() -> PathBuf {
    component("policies/trunking", "policy-trunking")
}

/// `tests/guests/chain`: a member of a chain that tells what it sees of the others.
#[must_use]
pub fn chain() -> PathBuf {
    component("tests/guests/chain", "guest-chain")
}
