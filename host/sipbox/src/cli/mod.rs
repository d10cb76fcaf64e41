//! The command line: what a user can type, and who carries it out.
//!
//! stdout is for data, stderr for messages; both read well without colour.

mod check;
mod ctl;
mod location;
mod run;
mod user;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Parser, Subcommand};

use crate::configuration::{Draft, Source};

/// A SIP proxy, registrar and redirect server whose routing is a sandboxed WebAssembly component.
#[derive(Debug, Parser)]
#[command(
    name = "sipbox",
    version,
    about,
    after_help = "\
Start here:
  sipbox run                     a demo on 127.0.0.1:5060: one domain, two accounts
  sipbox check sipbox.toml       every mistake in a configuration at once
  sipbox run -c sipbox.toml      the real thing
  sipbox user add alice@example.com

Every setting, commented: host/dist/sipbox.toml in the source tree."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the proxy
    ///
    /// Without a file it is a demo on 127.0.0.1:5060 (UDP and TCP): one domain, two accounts
    /// with generated passwords, SQLite in a state folder. SIGHUP reloads the configuration;
    /// SIGTERM finishes the transactions in flight, then stops.
    Run(run::RunArgs),
    /// Check a configuration and load its components, without starting anything
    ///
    /// Prints every mistake at once, with file, line, column and what was expected.
    /// The exit status is 0 if the file would be accepted.
    Check(check::CheckArgs),
    /// Send a management command to a running proxy
    ///
    /// The commands have OpenSIPS's names; `sipbox ctl which` lists them. Parameters are
    /// NAME=VALUE, or values in the command's order. The answer is JSON.
    #[command(after_help = "\
Examples:
  sipbox ctl which
  sipbox ctl get_statistics tm: core:
  sipbox ctl ul_show_contact location alice@example.com
  sipbox ctl reload")]
    Ctl(ctl::CtlArgs),
    /// Manage accounts (table `subscriber`)
    ///
    /// Talks to the running proxy, or, where none runs, to its database.
    User(user::UserArgs),
    /// Show and remove bindings of a running proxy
    Location(location::LocationArgs),
}

/// How a client finds the proxy that it talks to.
#[derive(Debug, Clone, Args)]
pub(crate) struct Instance {
    /// The configuration that the proxy runs with; without it, the demo's
    #[arg(short, long, global = true, value_name = "FILE", env = "SIPBOX_CONFIG")]
    config: Option<PathBuf>,
    /// The control socket, if it is not the configuration's
    #[arg(long, global = true, value_name = "PATH", env = "SIPBOX_CONTROL")]
    socket: Option<PathBuf>,
    /// The state folder of the demo
    #[arg(long, global = true, value_name = "DIR", env = "SIPBOX_STATE")]
    state: Option<PathBuf>,
}

impl Instance {
    fn draft(&self) -> anyhow::Result<Draft> {
        let source = match &self.config {
            Some(path) => Source::File(path.clone()),
            None => Source::Demo(self.state.clone().unwrap_or_else(default_state_folder)),
        };
        source.read()
    }

    /// The control socket.
    fn socket(&self) -> anyhow::Result<PathBuf> {
        if let Some(path) = &self.socket {
            return Ok(path.clone());
        }
        let draft = self.draft()?;
        match draft.control() {
            Some(path) => Ok(path.to_path_buf()),
            None => {
                draft.finish()?;
                bail!("the configuration names no control socket")
            }
        }
    }

    /// The database.
    fn database(&self) -> anyhow::Result<PathBuf> {
        Ok(self.draft()?.finish()?.database().to_path_buf())
    }
}

/// The demo's state folder: `$XDG_STATE_HOME/sipbox`, or `~/.local/state/sipbox`, or, without a
/// home, `sipbox-state` in the working directory.
pub(crate) fn default_state_folder() -> PathBuf {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    if let Some(state) = absolute("XDG_STATE_HOME") {
        return state.join("sipbox");
    }
    if let Some(home) = absolute("HOME") {
        return home.join(".local/state/sipbox");
    }
    Path::new("sipbox-state").to_path_buf()
}

/// Carries out the command line. Errors are printed here, with their causes.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::check(&args),
        Command::Ctl(args) => ctl::ctl(&args),
        Command::User(args) => user::user(args),
        Command::Location(args) => location::location(args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
