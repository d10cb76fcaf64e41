//! All tests, in the order of what is cheap to learn first.

use std::process::Command;

use crate::workspace::Workspace;
use crate::{policies, setup, step};

/// One optimised profile for every test binary and the program under test, so that the big
/// dependencies are compiled once.
const PROFILE: &str = "ci";

/// Runs everything, or with arguments only what they select.
pub(crate) fn test(
    workspace: &Workspace,
    install: bool,
    arguments: &[String],
) -> anyhow::Result<()> {
    let machine = setup::everything(workspace, install)?;
    policies::build_all(workspace, install)?;

    // The program under test is a binary of another package than the tests, so cargo would not
    // build it for them. With the tests in the same call, features are the same for both, and no
    // dependency is compiled twice.
    step::run(
        "building the program and the tests",
        workspace.cargo().args([
            "build",
            "--workspace",
            "--bins",
            "--tests",
            "--profile",
            PROFILE,
        ]),
    )?;
    let environment = |command: &mut Command| {
        command
            .env("SIPBOX_BIN", workspace.target.join(PROFILE).join("sipbox"))
            .env("SIPBOX_POLICIES", workspace.target.join("policies"));
        if !machine.debian_rustc {
            command.env("SIPBOX_TEST_WITHOUT_DEBIAN_RUSTC", "1");
        }
    };

    if arguments.is_empty() {
        step::run(
            "documentation tests",
            workspace
                .cargo()
                .args(["test", "--doc", "--workspace", "--profile", PROFILE]),
        )?;
    }
    if has_nextest(workspace) {
        let mut nextest = workspace.cargo();
        nextest
            .args([
                "nextest",
                "run",
                "--workspace",
                "--cargo-profile",
                PROFILE,
                "--profile",
                "ci",
            ])
            .args(arguments);
        environment(&mut nextest);
        return step::run("tests", &mut nextest);
    }

    // The summaries of all binaries are printed one by one, which is what nextest is for.
    step::say(
        "cargo-nextest is not here, `cargo test` stands in (better: cargo install --locked cargo-nextest)",
    );
    let mut unit = workspace.cargo();
    unit.args([
        "test",
        "--workspace",
        "--exclude",
        "sipbox-tests",
        "--profile",
        PROFILE,
    ])
    .args(["--no-fail-fast", "--lib", "--bins", "--tests"])
    .args(arguments);
    environment(&mut unit);
    let unit = step::run("tests of the crates", &mut unit);
    // Tests with real time in them do not share the machine with each other.
    let mut end_to_end = workspace.cargo();
    end_to_end
        .args(["test", "--package", "sipbox-tests", "--profile", PROFILE])
        .args(["--no-fail-fast", "--lib", "--tests"])
        .args(arguments)
        .args(["--", "--test-threads=1"]);
    environment(&mut end_to_end);
    let end_to_end = step::run("tests of the program", &mut end_to_end);
    unit.and(end_to_end)
}

fn has_nextest(workspace: &Workspace) -> bool {
    workspace
        .cargo()
        .args(["nextest", "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
}
