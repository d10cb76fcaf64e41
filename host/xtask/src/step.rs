//! Steps of a chore: a line that says what begins, a command, and an error that says what failed.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, bail};

/// Announces a step. Every step that may take longer than a second has its line.
pub(crate) fn say(line: impl std::fmt::Display) {
    eprintln!("==> {line}");
}

/// Announces and runs a command to its end; its output is the user's.
pub(crate) fn run(what: &str, command: &mut Command) -> anyhow::Result<()> {
    say(what);
    let started = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("cannot run `{}`", command.get_program().to_string_lossy()))?;
    if !status.success() {
        bail!(
            "{what}: failed ({status}); the messages are above\n  {}",
            line(command)
        );
    }
    let seconds = started.elapsed().as_secs();
    if seconds > 0 {
        say(format_args!("{what}: done in {seconds} s"));
    }
    Ok(())
}

/// A command as a person would type it.
fn line(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let program = program.rsplit('/').next().unwrap_or_default();
    let mut words = vec![program.to_owned()];
    words.extend(
        command
            .get_args()
            .map(|argument| argument.to_string_lossy().into_owned()),
    );
    words.join(" ")
}
