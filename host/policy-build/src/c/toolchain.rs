//! Which compiler builds guests in C.
//!
//! The ordinary one is Debian's clang with its C library and runtime for WebAssembly. Where there is
//! none, Zig's compiler does, which pip installs and which brings all of that.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::environment::clean_command;
use crate::system::Apt;
use crate::toolchain::first_line;
use crate::{BuildError, Language, Toolchain};

const PACKAGES: &[&str] = &[
    "clang-14",
    "lld-14",
    "wasi-libc",
    "libclang-rt-14-dev-wasm32",
];
/// Compilers by the names that Debian gives them. The newest goes first, if it has the rest.
const NEWEST: u32 = 30;
const OLDEST: u32 = 14;
const LIBC: &str = "/usr/lib/wasm32-wasi/libc.a";
const ZIG: &str = "pip install ziglang==0.14.1";

/// Finds a compiler.
pub(crate) fn find() -> Result<Toolchain, BuildError> {
    let mut why = Vec::new();
    match find_clang() {
        Ok(clang) => return Ok(clang),
        Err(reason) => why.push(reason),
    }
    match first_line("python3", &["-m", "ziglang", "version"], Path::new("/")) {
        Some(version) => return Ok(Toolchain::Zig { version }),
        None => why.push("python3 has no module ziglang".to_owned()),
    }
    Err(BuildError::NoToolchain {
        language: Language::C,
        why: why
            .iter()
            .map(|line| format!("  - {line}"))
            .collect::<Vec<_>>()
            .join("\n"),
        fix: format!(
            "on Debian, install it with\n  {}\nor\n  {ZIG}\nin a clone of Sipbox, \
             `cargo xtask setup` does it",
            Apt::command_line(PACKAGES)
        ),
    })
}

/// Installs Debian's packages.
pub(crate) fn install(apt: &mut Apt) -> Result<Toolchain, BuildError> {
    apt.install(PACKAGES)?;
    find()
}

/// The first compiler that has linker, runtime and C library beside it.
fn find_clang() -> Result<Toolchain, String> {
    if !Path::new(LIBC).is_file() {
        return Err(format!("there is no C library for WebAssembly at {LIBC}"));
    }
    let numbered = (OLDEST..=NEWEST).rev().map(|n| format!("clang-{n}"));
    let mut reason = "there is no clang on the path".to_owned();
    for name in std::iter::once("clang".to_owned()).chain(numbered) {
        let Some(version) = first_line(&name, &["--version"], Path::new("/")) else {
            continue;
        };
        match lacks(&name, &version) {
            None => {
                return Ok(Toolchain::Clang {
                    clang: PathBuf::from(name),
                    version,
                });
            }
            Some(missing) => reason = format!("{name} ({version}) is here without {missing}"),
        }
    }
    Err(reason)
}

/// What a compiler would miss when it makes a module.
fn lacks(clang: &str, version: &str) -> Option<&'static str> {
    let asked = |what: &str| {
        first_line(clang, &["--target=wasm32-wasi", what], Path::new("/")).map(PathBuf::from)
    };
    if !asked("-print-libgcc-file-name").is_some_and(|file| file.is_file()) {
        return Some("its runtime for WebAssembly");
    }
    // What the compiler finds it names by its path. Debian's calls the linker of its own version.
    let found = ["wasm-ld".to_owned(), format!("wasm-ld-{}", major(version))]
        .iter()
        .any(|name| {
            asked(&format!("-print-prog-name={name}")).is_some_and(|path| path.is_absolute())
        });
    (!found).then_some("the linker wasm-ld")
}

/// The number behind the word `version`, up to the first full stop.
fn major(version: &str) -> &str {
    let (_, number) = version.split_once("version ").unwrap_or_default();
    number.split('.').next().unwrap_or_default()
}

/// The compiler, ready for its arguments.
pub(crate) fn command(toolchain: &Toolchain) -> Command {
    match toolchain {
        Toolchain::Clang { clang, .. } => clean_command(clang),
        _ => {
            let mut zig = clean_command("python3");
            zig.args(["-m", "ziglang", "cc"]);
            zig
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compilers_line_tells_its_version() {
        assert_eq!(major("Debian clang version 14.0.6"), "14");
        assert_eq!(major("clang version 19.1.7 (3+b1)"), "19");
        assert_eq!(major(""), "");
    }
}
