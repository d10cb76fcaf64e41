//! `cargo xtask`: the repository's chores, each doing all of its own set-up.
//!
//! What lives here: the command line and which chore a command means. A chore is a module.

mod bench;
mod policies;
mod run;
mod setup;
mod step;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use workspace::Workspace;

/// Builds, runs and tests Sipbox. Each command installs what it needs, or says which command does.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    after_help = "On a fresh machine:\n  \
        cargo xtask run      build everything and start a proxy on 127.0.0.1:5060\n  \
        cargo xtask test     all that CI runs\n\n\
        SIPBOX_WASM_TOOLCHAIN=rustup|debian forces the compiler that policies are built with;\n\
        without it, Rust's own wasm32 target is used when it is there, else Debian's compiler."
)]
struct Arguments {
    /// Install nothing: fail with the commands that would.
    #[arg(long, global = true)]
    no_install: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the proxy and its policies (release) and start it.
    ///
    /// Without a configuration file, `sipbox run` serves a demonstration domain on 127.0.0.1:5060
    /// and prints two accounts to register with.
    #[command(after_help = "Examples:\n  cargo xtask run\n  cargo xtask run -- -c sipbox.toml")]
    Run {
        /// Arguments of `sipbox run`.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Run every test, as CI does: unit, property and documentation tests, then the real program
    /// against real phones.
    ///
    /// Test peers (SIPp, baresip, linphonec, sqlite3) are installed first. A peer that is missing
    /// fails the tests that need it; none is skipped.
    #[command(after_help = "Examples:\n  \
        cargo xtask test\n  \
        cargo xtask test -- -p sipbox-core\n  \
        cargo xtask test -- phones")]
    Test {
        /// Arguments of `cargo nextest run`: packages, filters.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Build every policy and test guest into target/policies/NAME.wasm.
    Policies,
    /// Run the benches: each compares with a peer or a floor in the same run.
    #[command(
        after_help = "Examples:\n  cargo xtask bench\n  cargo xtask bench sip\n\n\
        A bench stands alone on the machine: end what else is running."
    )]
    Bench {
        /// Only benches whose package or name contains one of these words.
        words: Vec<String>,
    },
    /// Install what the other commands need: compilers for policies and the test peers.
    Setup,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The causes on one line each, and never a stack trace.
            eprintln!("error: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("  because {cause}");
            }
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &Arguments) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    let install = !arguments.no_install;
    match &arguments.command {
        Command::Run { arguments } => run::run(&workspace, install, arguments),
        Command::Test { arguments } => test::test(&workspace, install, arguments),
        Command::Policies => policies::build_all(&workspace, install),
        Command::Bench { words } => bench::bench(&workspace, install, words),
        Command::Setup => setup::everything(&workspace, install).map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_follows_two_dashes_is_the_programs() {
        let arguments =
            Arguments::try_parse_from(["cargo xtask", "run", "--", "-c", "my.toml"]).unwrap();
        assert!(
            matches!(arguments.command, Command::Run { arguments } if arguments == ["-c", "my.toml"])
        );
    }
}
