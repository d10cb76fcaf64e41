//! Which tools build a guest: the one place that decides, for build scripts, xtask and the CLI.
//! Each language looks for its own in its module.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::environment::clean_command;
use crate::rust::Preference;
use crate::system::Apt;
use crate::{BuildError, Language, TARGET, c, rust, typescript};

/// Tools that can build guests of one language. `Display` says in one line which.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Toolchain {
    /// Rust: the caller's, with the target's standard library installed.
    Rustup {
        /// The first line of `rustc --version`.
        version: String,
    },
    /// Rust: Debian's compiler; the standard library is compiled from its sources.
    Debian {
        /// The compiler.
        rustc: PathBuf,
        /// The first line of its `--version`.
        version: String,
        /// The linker for WebAssembly.
        linker: PathBuf,
    },
    /// C: LLVM's compiler with a C library for WebAssembly.
    Clang {
        /// The compiler.
        clang: PathBuf,
        /// The first line of its `--version`.
        version: String,
    },
    /// C: Zig's, which brings everything; from pip's `ziglang`.
    Zig {
        /// What `python3 -m ziglang version` prints.
        version: String,
    },
    /// TypeScript: npm's packages, run by Node.
    Node {
        /// What `node --version` prints.
        version: String,
        /// The folder `node_modules` that has the tools.
        modules: PathBuf,
    },
}

impl fmt::Display for Toolchain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rustup { version } => write!(out, "{version} with its {TARGET} target"),
            Self::Debian { rustc, version, .. } => {
                write!(
                    out,
                    "Debian's {version} at {}, standard library from source",
                    rustc.display()
                )
            }
            Self::Clang { clang, version } => write!(out, "{version} at {}", clang.display()),
            Self::Zig { version } => write!(out, "zig cc {version} of pip's ziglang"),
            Self::Node { version, modules } => write!(
                out,
                "esbuild and componentize-qjs in {}, run by node {version}",
                modules.display()
            ),
        }
    }
}

/// Finds the tools of a language for the guest in `dir` without changing anything.
pub(crate) fn find(
    language: Language,
    preference: &Preference,
    dir: &Path,
) -> Result<Toolchain, BuildError> {
    match language {
        Language::Rust => rust::toolchain::find(preference, dir),
        Language::C => c::toolchain::find(),
        Language::TypeScript => typescript::toolchain::find(dir),
    }
}

/// Installs what is missing, and finds the tools again.
pub(crate) fn install(
    language: Language,
    preference: &Preference,
    dir: &Path,
    apt: &mut Apt,
) -> Result<Toolchain, BuildError> {
    match language {
        Language::Rust => rust::toolchain::install(preference, dir, apt),
        Language::C => c::toolchain::install(apt),
        Language::TypeScript => typescript::toolchain::install(dir, apt),
    }
}

/// The first line that a program prints, if it succeeds.
pub(crate) fn first_line(
    program: impl AsRef<OsStr>,
    arguments: &[&str],
    dir: &Path,
) -> Option<String> {
    let output = clean_command(program)
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .next()
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty())
}
