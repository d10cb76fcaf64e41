//! Installing things on the machine: apt, and commands that may hang.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::BuildError;

/// How long a download may take before it is given up.
pub(crate) const DOWNLOAD_LIMIT: Duration = Duration::from_secs(300);

/// Installs Debian packages, reading the package lists once however often it is called.
#[derive(Debug, Default)]
pub struct Apt {
    lists_are_fresh: bool,
}

impl Apt {
    /// The command that a person would type.
    pub fn command_line(packages: &[&str]) -> String {
        let sudo = if is_root() { "" } else { "sudo " };
        format!(
            "{sudo}apt-get install -y --no-install-recommends {}",
            packages.join(" ")
        )
    }

    /// Reads the package lists, unless this has been done before.
    pub fn refresh_lists(&mut self) {
        if self.lists_are_fresh || !is_root() || !is_installed("apt-get") {
            return;
        }
        self.lists_are_fresh = true;
        eprintln!("reading Debian's package lists: apt-get update");
        // A mirror of some other product may be down while Debian's own is not.
        if let Err(reason) = run_with_limit(apt_get().args(["update", "-qq"]), 2 * DOWNLOAD_LIMIT) {
            eprintln!("apt-get update: {reason}; going on with the lists that are here");
        }
    }

    /// Installs packages, or says with which command a person can. Services that a package brings
    /// are not started.
    pub fn install(&mut self, packages: &[&str]) -> Result<(), BuildError> {
        let failed = |reason: String| BuildError::Install {
            what: packages.join(", "),
            reason,
            command: Self::command_line(packages),
        };
        if !is_installed("apt-get") {
            return Err(failed("there is no apt-get on this machine".to_owned()));
        }
        if !is_root() {
            return Err(failed("apt-get needs root".to_owned()));
        }
        let limit = 2 * DOWNLOAD_LIMIT;
        self.refresh_lists();
        eprintln!(
            "installing {}: {}",
            packages.join(", "),
            Self::command_line(packages)
        );
        let no_autostart = packages
            .iter()
            .any(|package| SERVICES.contains(package))
            .then(KeepServicesStopped::begin);
        let result = run_with_limit(
            apt_get()
                .args(["install", "-y", "-qq", "--no-install-recommends"])
                .args(packages)
                .stdout(Stdio::null()),
            limit,
        );
        drop(no_autostart);
        result.map_err(failed)
    }
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Someone else may be installing: wait for the lock.
        .args(["-o", "DPkg::Lock::Timeout=120"])
        .stdin(Stdio::null());
    command
}

/// Packages that would start a server at once. As test peers they are started by the tests.
const SERVICES: &[&str] = &["kamailio", "opensips", "redis-server", "valkey-server"];

/// Debian asks `/usr/sbin/policy-rc.d` whether a freshly installed service may start. While this
/// lives, the answer is no; a script that was there before is left alone.
struct KeepServicesStopped {
    ours: bool,
}

const POLICY_SCRIPT: &str = "/usr/sbin/policy-rc.d";

impl KeepServicesStopped {
    fn begin() -> Self {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;

        let written = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(POLICY_SCRIPT)
            .and_then(|mut file| file.write_all(b"#!/bin/sh\nexit 101\n"));
        Self {
            ours: written.is_ok(),
        }
    }
}

impl Drop for KeepServicesStopped {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = std::fs::remove_file(POLICY_SCRIPT)
        {
            eprintln!("cannot remove {POLICY_SCRIPT}, services will not start: {error}");
        }
    }
}

/// Whether this process may install packages.
pub fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.status.success() && output.stdout.trim_ascii() == b"0")
}

/// Whether a program is on the path, or in the folders of system programs that a user's path may
/// lack.
pub fn is_installed(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(program).is_file())
}

/// Runs a command to its end, or ends it after a time. The error is one line.
pub fn run_with_limit(command: &mut Command, limit: Duration) -> Result<(), String> {
    const STEP: Duration = Duration::from_millis(50);
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .spawn()
        .map_err(|error| format!("cannot run `{program}`: {error}"))?;
    let mut left = limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("`{program}` failed ({status})")),
            Ok(None) if left.is_zero() => {
                // It may end by itself just now; either way it is over.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!(
                    "`{program}` did not end within {} s",
                    limit.as_secs()
                ));
            }
            Ok(None) => {
                std::thread::sleep(STEP);
                left = left.saturating_sub(STEP);
            }
            Err(error) => return Err(format!("cannot wait for `{program}`: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_hangs_is_ended() {
        let error = run_with_limit(Command::new("sleep").arg("60"), Duration::from_millis(100));
        assert!(error.unwrap_err().contains("did not end"));
    }

    #[test]
    fn a_command_that_fails_or_is_missing_gives_one_line() {
        let limit = Duration::from_secs(10);
        assert_eq!(run_with_limit(&mut Command::new("true"), limit), Ok(()));
        let failed = run_with_limit(&mut Command::new("false"), limit).unwrap_err();
        assert!(failed.contains("`false` failed"), "{failed}");
        let missing = run_with_limit(&mut Command::new("no-such-program"), limit).unwrap_err();
        assert!(
            missing.contains("cannot run `no-such-program`"),
            "{missing}"
        );
    }

    #[test]
    fn programs_are_found_on_the_path() {
        assert!(is_installed("sh"));
        assert!(!is_installed("no-such-program"));
    }
}
