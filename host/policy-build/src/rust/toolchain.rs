//! Which compiler builds guests in Rust.
//!
//! Two kinds work. The ordinary one is the caller's own Rust with the target's standard library,
//! which `rustup target add` installs. Where rustup's server cannot be reached, Debian has a second
//! compiler with the sources of its standard library (`rustc-web`, `rust-web-src`); cargo then
//! compiles that library too, once.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::environment::clean_command;
use crate::system::{self, Apt};
use crate::toolchain::first_line;
use crate::{BuildError, Language, TARGET, Toolchain};

/// The environment variable that forces a toolchain: `rustup` or `debian`.
pub const TOOLCHAIN_VARIABLE: &str = "SIPBOX_WASM_TOOLCHAIN";

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_PACKAGES: &[&str] = &["rustc-web", "rust-web-src"];
/// The oldest compiler that guests build with: the host's own.
const OLDEST: &str = env!("CARGO_PKG_RUST_VERSION");

/// Which toolchain to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preference {
    /// The caller's Rust when it has the target, else Debian's compiler.
    Auto,
    /// The caller's Rust only.
    Rustup,
    /// Debian's compiler only.
    Debian,
    /// The environment asked for something unknown; building reports it.
    Unknown(String),
}

impl Preference {
    /// Reads [`TOOLCHAIN_VARIABLE`].
    pub fn from_environment() -> Self {
        Self::parse(std::env::var_os(TOOLCHAIN_VARIABLE).as_deref())
    }

    fn parse(value: Option<&OsStr>) -> Self {
        match value.map(OsStr::to_string_lossy).as_deref() {
            None | Some("") => Self::Auto,
            Some("rustup") => Self::Rustup,
            Some("debian") => Self::Debian,
            Some(other) => Self::Unknown(other.to_owned()),
        }
    }
}

/// Makes a cargo command use this toolchain.
pub(crate) fn configure(toolchain: &Toolchain, cargo: &mut Command) {
    if let Toolchain::Debian { rustc, linker, .. } = toolchain {
        cargo
            .env("RUSTC", rustc)
            // Lets cargo and this stable compiler build the standard library.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker)
            .arg("-Zbuild-std=std,panic_abort");
    }
}

/// The cargo to call: the one that called us, else the one on the path.
pub(crate) fn cargo_program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The compiler that [`cargo_program`] will use. Beside a cargo that is named by its path lies its
/// own compiler; otherwise rustup's proxy chooses, by the folder that it is started in.
fn rustc_program() -> OsString {
    let beside = std::env::var_os("CARGO")
        .map(|cargo| Path::new(&cargo).with_file_name("rustc"))
        .filter(|rustc| rustc.is_absolute() && rustc.is_file());
    beside.map_or_else(|| "rustc".into(), PathBuf::into_os_string)
}

/// Finds a toolchain without changing anything on the machine.
pub(crate) fn find(preference: &Preference, crate_dir: &Path) -> Result<Toolchain, BuildError> {
    let mut why = Vec::new();
    let mut fixes = Vec::new();
    if matches!(preference, Preference::Auto | Preference::Rustup) {
        match find_rustup(crate_dir) {
            Ok(toolchain) => return Ok(toolchain),
            Err(reason) => {
                why.push(reason);
                fixes.push(format!("rustup target add {TARGET}"));
            }
        }
    }
    if matches!(preference, Preference::Auto | Preference::Debian) {
        match find_debian(crate_dir) {
            Ok(toolchain) => return Ok(toolchain),
            Err(missing) => {
                why.push(missing.reason);
                fixes.push(Apt::command_line(&missing.packages));
            }
        }
    }
    if let Preference::Unknown(value) = preference {
        return Err(BuildError::UnknownToolchain {
            value: value.clone(),
        });
    }
    let why = why
        .iter()
        .map(|line| format!("  - {line}"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut fix = format!("install one with\n  {}", fixes.join("\nor, on Debian,\n  "));
    fix.push_str("\nin a clone of Sipbox, `cargo xtask run` does it");
    Err(BuildError::NoToolchain {
        language: Language::Rust,
        why,
        fix,
    })
}

/// Installs what is missing, rustup's target first, and finds the toolchain again.
pub(crate) fn install(
    preference: &Preference,
    crate_dir: &Path,
    apt: &mut Apt,
) -> Result<Toolchain, BuildError> {
    let mut failure = None;
    if matches!(preference, Preference::Auto | Preference::Rustup) {
        let command = format!("rustup target add {TARGET}");
        eprintln!("installing Rust's {TARGET} target: {command}");
        let mut rustup = clean_command("rustup");
        // Rustup looks for a toolchain file from the folder that it is started in.
        rustup
            .args(["target", "add", TARGET])
            .current_dir(crate_dir)
            // Its reason is enough, whatever this shell wants of Rust programs.
            .env("RUST_BACKTRACE", "0");
        match system::run_with_limit(&mut rustup, system::DOWNLOAD_LIMIT) {
            Ok(()) => {}
            Err(reason) => {
                eprintln!("rustup could not: {reason}");
                failure = Some(BuildError::Install {
                    what: format!("Rust's {TARGET} target"),
                    reason,
                    command,
                });
            }
        }
        match find_rustup(crate_dir) {
            Ok(toolchain) => return Ok(toolchain),
            Err(reason) => {
                failure.get_or_insert(BuildError::Install {
                    what: format!("Rust's {TARGET} target"),
                    reason,
                    command: format!("rustup target add {TARGET}"),
                });
            }
        }
    }
    if matches!(preference, Preference::Auto | Preference::Debian) {
        match find_debian(crate_dir) {
            Ok(toolchain) => return Ok(toolchain),
            Err(missing) => apt.install(&missing.packages)?,
        }
    }
    // Whatever is still missing is said with all alternatives.
    match (find(preference, crate_dir), failure) {
        (Ok(toolchain), _) => Ok(toolchain),
        (Err(_), Some(failure)) => Err(failure),
        (Err(missing), None) => Err(missing),
    }
}

/// The caller's Rust, if the standard library for the target lies beside it.
fn find_rustup(crate_dir: &Path) -> Result<Toolchain, String> {
    let rustc = rustc_program();
    let version = first_line(&rustc, &["--version"], crate_dir)
        .ok_or("no `rustc` on the path: https://rustup.rs installs one")?;
    let libraries = first_line(
        &rustc,
        &["--print", "target-libdir", "--target", TARGET],
        crate_dir,
    )
    .ok_or_else(|| format!("{version} does not know the target {TARGET}"))?;
    let installed = std::fs::read_dir(&libraries).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
    });
    if installed {
        Ok(Toolchain::Rustup { version })
    } else {
        Err(format!("{version} has no standard library for it"))
    }
}

/// Why Debian's compiler cannot be used, and the packages that would change it.
struct Missing {
    reason: String,
    packages: Vec<&'static str>,
}

/// Debian's compiler, if its sources and a linker are there too.
fn find_debian(crate_dir: &Path) -> Result<Toolchain, Missing> {
    let missing = |reason: String| Missing {
        reason,
        packages: DEBIAN_PACKAGES.to_vec(),
    };
    let rustc = PathBuf::from(DEBIAN_RUSTC);
    if !rustc.is_file() {
        return Err(missing(format!("there is no {DEBIAN_RUSTC}")));
    }
    let version = first_line(rustc.as_os_str(), &["--version"], crate_dir)
        .ok_or_else(|| missing(format!("{DEBIAN_RUSTC} does not run")))?;
    if !at_least(&version, OLDEST) {
        return Err(missing(format!(
            "{DEBIAN_RUSTC} is {version}, and guests need {OLDEST}"
        )));
    }
    let sysroot = first_line(rustc.as_os_str(), &["--print", "sysroot"], crate_dir)
        .map_or_else(|| PathBuf::from("/usr"), PathBuf::from);
    let library = sysroot.join("lib/rustlib/src/rust/library");
    if !library.join("std/Cargo.toml").is_file() {
        return Err(missing(format!(
            "{DEBIAN_RUSTC} ({version}) is here without the standard library's sources in {}",
            library.display()
        )));
    }
    match find_linker(crate_dir, &sysroot) {
        Some(linker) => Ok(Toolchain::Debian {
            rustc,
            version,
            linker,
        }),
        None => Err(Missing {
            reason: format!("{DEBIAN_RUSTC} ({version}) is here without a linker for WebAssembly"),
            packages: vec!["lld"],
        }),
    }
}

/// A WebAssembly linker: `rust-lld` of the caller's Rust or of Debian's, else LLVM's own.
fn find_linker(crate_dir: &Path, debian_sysroot: &Path) -> Option<PathBuf> {
    let callers =
        first_line(rustc_program(), &["--print", "sysroot"], crate_dir).map(PathBuf::from);
    let rust_lld = callers
        .iter()
        .map(PathBuf::as_path)
        .chain([debian_sysroot])
        .find_map(|sysroot| {
            let hosts = std::fs::read_dir(sysroot.join("lib/rustlib")).ok()?;
            hosts
                .flatten()
                .map(|host| host.path().join("bin/rust-lld"))
                .find(|lld| lld.is_file())
        });
    if rust_lld.is_some() {
        return rust_lld;
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let mut found: Vec<(u32, PathBuf)> = std::env::split_paths(&folders)
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.strip_prefix("wasm-ld")?;
            let rank = match name.strip_prefix('-') {
                None if name.is_empty() => u32::MAX,
                suffix => suffix?.parse().ok()?,
            };
            Some((rank, path))
        })
        .collect();
    found.sort();
    found.pop().map(|(_, path)| path)
}

/// Whether `rustc 1.96.0 (...)` is at least `1.95`.
fn at_least(version: &str, oldest: &str) -> bool {
    let numbers = |text: &str| -> Option<(u32, u32)> {
        let mut parts = text.split(['.', '-']);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    let here = version.split_whitespace().nth(1).and_then(numbers);
    matches!((here, numbers(oldest)), (Some(here), Some(oldest)) if here >= oldest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(at_least("rustc 1.96.0 (ac68faa20 2026-05-25)", "1.95"));
        assert!(at_least("rustc 1.95.0", "1.95.0"));
        assert!(at_least("rustc 2.0.0-nightly (abc)", "1.95"));
        assert!(!at_least("rustc 1.63.0", "1.95"));
        assert!(!at_least("rustc 1.9.0", "1.95"));
        assert!(!at_least("", "1.95"));
    }

    #[test]
    fn the_environment_names_a_toolchain_or_nothing() {
        let parse = |value: Option<&str>| Preference::parse(value.map(OsStr::new));
        assert_eq!(parse(None), Preference::Auto);
        assert_eq!(parse(Some("")), Preference::Auto);
        assert_eq!(parse(Some("rustup")), Preference::Rustup);
        assert_eq!(parse(Some("debian")), Preference::Debian);
        assert_eq!(parse(Some("wasi")), Preference::Unknown("wasi".to_owned()));
    }

    #[test]
    fn an_unknown_name_is_an_error_that_teaches() {
        let error = find(&Preference::Unknown("wasi".to_owned()), Path::new("/")).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("SIPBOX_WASM_TOOLCHAIN=wasi"), "{text}");
        assert!(
            text.contains("`rustup`") && text.contains("`debian`"),
            "{text}"
        );
    }
}
