//! Everything that can keep a guest from becoming a component, worded for the person who can fix it.

use std::path::{Path, PathBuf};

use crate::Language;

/// Why a guest was not built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The folder holds no guest.
    #[error("{} holds no policy: no Cargo.toml (Rust), no *.c (C), no package.json (TypeScript)", dir.display())]
    NoLanguage {
        /// The folder that was asked for.
        dir: PathBuf,
    },
    /// The folder holds guests of several languages.
    #[error("{} has {signs}: a policy is written in one language, so put each in a folder of its own", dir.display())]
    Languages {
        /// The folder that was asked for.
        dir: PathBuf,
        /// What each language was told by.
        signs: String,
    },
    /// The world of a guest is missing or ill-formed.
    #[error("{}: {reason}", path.display())]
    World {
        /// The file that names the world.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// `SIPBOX_WASM_TOOLCHAIN` has a value that means nothing.
    #[error("{variable}={value} is not a toolchain: use `rustup`, `debian`, or leave it unset", variable = crate::TOOLCHAIN_VARIABLE)]
    UnknownToolchain {
        /// The value found.
        value: String,
    },
    /// The tools of a language are not here; the message says what to install.
    #[error("nothing here builds policies in {language}\n{why}\n{fix}")]
    NoToolchain {
        /// The language.
        language: Language,
        /// One line for each toolchain that was looked at.
        why: String,
        /// The commands that would change that.
        fix: String,
    },
    /// An installation was asked for and failed.
    #[error("could not install {what}: {reason}\nrun this yourself, then try again:\n  {command}")]
    Install {
        /// What was to be installed.
        what: String,
        /// What went wrong.
        reason: String,
        /// The command that failed, ready to paste.
        command: String,
    },
    /// A program could not be started.
    #[error("cannot run `{program}`: {source}")]
    Run {
        /// The program.
        program: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The guest does not compile.
    #[error("`{package}` does not compile ({toolchain})\n{output}")]
    Compile {
        /// The guest's package.
        package: String,
        /// The compiler that was used.
        toolchain: String,
        /// The compiler's messages, or where they went.
        output: String,
    },
    /// Cargo succeeded and left no module.
    #[error("cargo built `{package}` but reported no .wasm file; is there a library in it?")]
    NoModule {
        /// The guest's package.
        package: String,
    },
    /// The core module is not the inside of a component.
    #[error("the module of `{package}` does not make a component: {reason}")]
    Encode {
        /// The guest's package.
        package: String,
        /// What the encoder says.
        reason: String,
    },
    /// A file or folder could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl BuildError {
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}
