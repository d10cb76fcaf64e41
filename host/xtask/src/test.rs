//! All tests, in the order of what is cheap to learn first.

use std::process::Command;

use crate::workspace::Workspace;
use crate::{policies, setup, step};

/// One optimised profile for every test binary and the program under test, so that the big
/// dependencies are compiled once.
const PROFILE: &str = "ci";

/// The test that cannot pass where the distribution has no `rustc-web`.
const NEEDS_DEBIAN_RUSTC: &str = "debians_compiler_builds_the_same_component_world";

/// Runs everything, or with arguments only what they select.
pub(crate) fn test(
    workspace: &Workspace,
    install: bool,
    arguments: &[String],
) -> anyhow::Result<()> {
    let machine = setup::everything(workspace, install)?;
    let chosen = Chosen::from(arguments);
    if chosen.end_to_end {
        policies::build_all(workspace, install)?;
        // The program under test is a binary of another package than the tests, so cargo would not
        // build it for them. With all tests in the same call, features are the same for both, and
        // no dependency is compiled twice.
        let mut build = workspace.cargo();
        build.args(["build", "--profile", PROFILE]);
        if chosen.everything {
            build.args(["--workspace", "--bins", "--tests"]);
        } else {
            build.args(["--package", "sipbox"]);
        }
        step::run("building the program and the tests", &mut build)?;
    }
    // Behind `--`, for the test executables: left out in sight, as skipped.
    let without: &[&str] = if machine.debian_rustc {
        &[]
    } else {
        &["--skip", NEEDS_DEBIAN_RUSTC]
    };
    let separator: &[&str] = if arguments.iter().any(|argument| argument == "--") {
        &[]
    } else {
        &["--"]
    };
    let run = |what: &str, command: &mut Command| {
        command
            .env("SIPBOX_BIN", workspace.target.join(PROFILE).join("sipbox"))
            .env("SIPBOX_POLICIES", workspace.target.join("policies"));
        step::run(what, command)
    };

    if arguments.is_empty() {
        let mut doc = workspace.cargo();
        doc.args(["test", "--doc", "--workspace", "--profile", PROFILE]);
        step::run("documentation tests", &mut doc)?;
    }
    // Cargo ignores `--package` beside `--workspace`.
    let packages: &[&str] = if chosen.packages {
        &[]
    } else {
        &["--workspace"]
    };
    if has_nextest(workspace) {
        let mut nextest = workspace.cargo();
        nextest
            .args([
                "nextest",
                "run",
                "--cargo-profile",
                PROFILE,
                "--profile",
                "ci",
            ])
            .args(packages)
            .args(arguments)
            .args(separator)
            .args(without);
        return run("tests", &mut nextest);
    }

    step::say(
        "cargo-nextest is not here, `cargo test` stands in \
         (better: cargo install --locked cargo-nextest)",
    );
    let cargo_test = || {
        let mut test = workspace.cargo();
        // Everything that has tests in it: libraries, binaries, test files.
        test.args(["test", "--profile", PROFILE, "--no-fail-fast", "--tests"]);
        test
    };
    if chosen.packages {
        let mut test = cargo_test();
        test.args(arguments).args(separator).args(without);
        return run("tests", &mut test);
    }
    let crates = run(
        "tests of the crates",
        cargo_test()
            .args(["--workspace", "--exclude", "sipbox-tests"])
            .args(arguments)
            .args(separator)
            .args(without),
    );
    // Tests with real time in them do not share the machine with each other.
    let program = run(
        "tests of the program",
        cargo_test()
            .args(["--package", "sipbox-tests"])
            .args(arguments)
            .args(separator)
            .arg("--test-threads=1"),
    );
    crates.and(program)
}

/// What the arguments for the test runner select.
#[derive(Debug, PartialEq, Eq)]
struct Chosen {
    /// Nothing was selected.
    everything: bool,
    /// Packages were named.
    packages: bool,
    /// Tests of the running program may be among them.
    end_to_end: bool,
}

impl Chosen {
    fn from(arguments: &[String]) -> Self {
        let packages = arguments
            .iter()
            .any(|argument| argument.starts_with("--package") || argument.starts_with("-p"));
        Self {
            everything: arguments.is_empty(),
            packages,
            end_to_end: !packages
                || arguments
                    .iter()
                    .any(|argument| argument.ends_with("sipbox-tests")),
        }
    }
}

fn has_nextest(workspace: &Workspace) -> bool {
    workspace
        .cargo()
        .args(["nextest", "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_built_when_its_tests_may_run() {
        let chosen = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
            let Chosen {
                everything,
                packages,
                end_to_end,
            } = Chosen::from(&arguments);
            (everything, packages, end_to_end)
        };
        assert_eq!(chosen(&[]), (true, false, true));
        assert_eq!(chosen(&["phones"]), (false, false, true));
        assert_eq!(chosen(&["-p", "sipbox-core"]), (false, true, false));
        assert_eq!(chosen(&["-psipbox-core", "timers"]), (false, true, false));
        assert_eq!(chosen(&["--package=sipbox-tests"]), (false, true, true));
        assert_eq!(
            chosen(&["-p", "sipbox-tests", "calls"]),
            (false, true, true)
        );
    }
}
