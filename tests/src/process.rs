//! Child processes that never outlive their test and whose output is kept.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Whether a program that tests need is there; if not, the test fails with the
/// command that installs it.
///
/// # Panics
/// When the program is missing.
pub fn require(program: &str) {
    let package = match program {
        "sipp" => "sip-tester",
        "baresip" => "baresip",
        "linphonec" => "linphone-cli",
        "ip" => "iproute2",
        "nft" => "nftables",
        other => other,
    };
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()));
    assert!(
        found,
        "{program} is missing: sudo apt-get install --yes {package}"
    );
}

/// Polls until `done` is true.
///
/// # Panics
/// When it is not within `limit`; the text says what was waited for.
pub fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !done() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        sleep(Duration::from_millis(10));
    }
}

/// A child process; ended when dropped, its output in a file.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: PathBuf,
}

impl Process {
    /// Starts `command` with both outputs in the file `output`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(name: &str, command: &mut Command, output: &Path) -> Self {
        let file = File::options()
            .create(true)
            .append(true)
            .open(output)
            .unwrap();
        let child = command
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error} ({command:?})"));
        Self {
            name: name.to_owned(),
            child,
            output: output.to_owned(),
        }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote so far.
    #[must_use]
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// The last lines that it wrote.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        tail(&self.output(), lines)
    }

    /// Its standard input, once; the command must have piped it.
    ///
    /// # Panics
    /// When it was not piped or is taken.
    pub fn stdin(&mut self) -> std::process::ChildStdin {
        self.child
            .stdin
            .take()
            .expect("standard input is piped and not yet taken")
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).unwrap_or_else(|error| panic!("{signal} to {}: {error}", self.name));
    }

    /// The exit status, if it has ended.
    ///
    /// # Panics
    /// When the system refuses to tell.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for the end, at most `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            if Instant::now() > end {
                return None;
            }
            sleep(Duration::from_millis(10));
        }
    }

    /// Ends it without ado: SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.kill();
        }
    }
}

/// The last `lines` lines of a text.
#[must_use]
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// A command whose standard input is closed, in a folder.
#[must_use]
pub fn command(program: impl AsRef<std::ffi::OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).stdin(Stdio::null());
    command
}

/// A fresh folder, gone with its owner; kept and named when `SIPBOX_KEEP` is set.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn folder() -> tempfile::TempDir {
    let mut folder = tempfile::tempdir().unwrap();
    if std::env::var_os("SIPBOX_KEEP").is_some() {
        folder.disable_cleanup(true);
        println!("keeps {}", folder.path().display());
    }
    folder
}
