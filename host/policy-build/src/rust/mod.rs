//! Rust: from a crate to a core module by one call of cargo.

pub(crate) mod toolchain;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::environment::clean_command;
use crate::{BuildError, BuildRequest, Built, Lockfile, Messages, TARGET, Toolchain, component};

pub use toolchain::{Preference, TOOLCHAIN_VARIABLE};

/// Compiles and wraps the guest. `cargo rustc --crate-type cdylib` serves guests that declare the crate
/// type and guests that are plain libraries alike.
pub(crate) fn build(
    request: &BuildRequest,
    crate_dir: &Path,
    target_dir: &Path,
    toolchain: &Toolchain,
) -> Result<Built, BuildError> {
    let program = toolchain::cargo_program();
    let mut cargo = clean_command(&program);
    cargo
        .current_dir(crate_dir)
        .args(["rustc", "--release", "--lib", "--crate-type", "cdylib"])
        .args(["--package", &request.package])
        .args(["--target", TARGET])
        .arg("--target-dir")
        .arg(target_dir)
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null());
    if !request.features.is_empty() {
        cargo.args(["--features", &request.features.join(",")]);
    }
    let lock_file = lock_file(crate_dir);
    if request.lockfile == Lockfile::Keep && lock_file.is_some() {
        cargo.arg("--locked");
    }

    // The environment outranks the profile of whatever workspace the guest lives in, so guests of
    // this repository and a user's are built alike.
    cargo
        .env(
            "CARGO_PROFILE_RELEASE_OPT_LEVEL",
            request.profile.opt_level.as_cargo(),
        )
        .env("CARGO_PROFILE_RELEASE_LTO", "true")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "false")
        .env("CARGO_PROFILE_RELEASE_INCREMENTAL", "false")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(request));
    toolchain::configure(toolchain, &mut cargo);

    if request.messages == Messages::Shown {
        cargo.stderr(Stdio::inherit());
    }
    let output = cargo.output().map_err(|source| BuildError::Run {
        program: program.to_string_lossy().into_owned(),
        source,
    })?;
    if !output.status.success() {
        let output = match request.messages {
            Messages::Shown => "the compiler's messages are above".to_owned(),
            Messages::Captured => useful(&String::from_utf8_lossy(&output.stderr)),
        };
        return Err(BuildError::Compile {
            package: request.package.clone(),
            toolchain: toolchain.to_string(),
            output,
        });
    }

    let path =
        module_path(&String::from_utf8_lossy(&output.stdout), crate_dir).ok_or_else(|| {
            BuildError::NoModule {
                package: request.package.clone(),
            }
        })?;
    let mut inputs = dependency_file(&path.with_extension("d"));
    inputs.insert(crate_dir.join("Cargo.toml"));
    inputs.extend(lock_file);
    let core = fs::read(&path).map_err(|source| BuildError::io("read", &path, source))?;
    Ok(Built {
        component: component::encode(&request.package, &core)?,
        inputs: inputs.into_iter().collect(),
    })
}

/// The flags of every guest. The stack is small because each instance pays for it, and lies first
/// in memory (the linker's default for this target), so that running over its end traps.
fn rustflags(request: &BuildRequest) -> String {
    let mut flags = vec![format!(
        "-Clink-arg=-zstack-size={}",
        request.profile.stack_bytes
    )];
    // Panic messages name source files: no home folder belongs in a component.
    if let Some(home) = cargo_home() {
        flags.push(format!("--remap-path-prefix={}=/cargo", home.display()));
    }
    flags.join("\u{1f}")
}

fn cargo_home() -> Option<PathBuf> {
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
        .filter(|home| home.is_absolute())
}

/// The lock file that governs a crate: beside it, or beside the workspace above it.
fn lock_file(crate_dir: &Path) -> Option<PathBuf> {
    let manifest = fs::read_to_string(crate_dir.join("Cargo.toml")).unwrap_or_default();
    let own_workspace = manifest
        .lines()
        .any(|line| line.trim_start().starts_with("[workspace"));
    let mut dirs = crate_dir.ancestors();
    if own_workspace {
        return dirs
            .next()
            .map(|dir| dir.join("Cargo.lock"))
            .filter(|lock| lock.is_file());
    }
    dirs.map(|dir| dir.join("Cargo.lock"))
        .find(|lock| lock.is_file())
}

/// The `.wasm` file that cargo reports for the crate in `crate_dir`. Dependencies that are
/// themselves `cdylib`s report theirs first, so the manifest decides.
fn module_path(messages: &str, crate_dir: &Path) -> Option<PathBuf> {
    let manifest = crate_dir.join("Cargo.toml");
    let same_manifest = |path: &str| {
        let path = Path::new(path);
        path == manifest
            || matches!((path.canonicalize(), manifest.canonicalize()), (Ok(a), Ok(b)) if a == b)
    };
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| {
            message.get("reason").and_then(|reason| reason.as_str()) == Some("compiler-artifact")
        })
        .filter(|message| {
            message
                .get("manifest_path")
                .and_then(|path| path.as_str())
                .is_some_and(same_manifest)
        })
        .filter_map(|message| {
            message
                .get("filenames")?
                .as_array()?
                .iter()
                .find_map(|name| {
                    let name = name.as_str()?;
                    name.ends_with(".wasm").then(|| PathBuf::from(name))
                })
        })
        .next_back()
}

/// The sources that cargo lists for a finished module: of the guest and of every path dependency,
/// with the WIT that its bindings read.
fn dependency_file(path: &Path) -> BTreeSet<PathBuf> {
    let Ok(text) = fs::read_to_string(path) else {
        return BTreeSet::new();
    };
    parse_dependencies(&text)
}

/// One rule of a makefile: `target: file file`, with spaces in names escaped.
fn parse_dependencies(text: &str) -> BTreeSet<PathBuf> {
    let Some((_, files)) = text.lines().next().and_then(|line| line.split_once(": ")) else {
        return BTreeSet::new();
    };
    let mut found = BTreeSet::new();
    let mut name = String::new();
    let mut characters = files.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if characters.peek() == Some(&' ') => {
                name.push(' ');
                characters.next();
            }
            ' ' => {
                found.insert(PathBuf::from(std::mem::take(&mut name)));
            }
            other => name.push(other),
        }
    }
    found.insert(PathBuf::from(name));
    found.retain(|path| !path.as_os_str().is_empty());
    found
}

/// The compiler's messages without the lines that only tell of progress.
fn useful(stderr: &str) -> String {
    const PROGRESS: &[&str] = &[
        "Compiling ",
        "Downloading ",
        "Downloaded ",
        "Updating ",
        "Locking ",
        "Adding ",
    ];
    stderr
        .lines()
        .filter(|line| {
            !PROGRESS
                .iter()
                .any(|word| line.trim_start().starts_with(word))
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependency_files_may_have_spaces_in_names() {
        let files = parse_dependencies("/t/a.wasm: /src/a.rs /src/my\\ file.rs /wit/b.wit\n\n");
        let expected = ["/src/a.rs", "/src/my file.rs", "/wit/b.wit"].map(PathBuf::from);
        assert_eq!(files.into_iter().collect::<Vec<_>>(), expected);
        assert!(parse_dependencies("").is_empty());
    }

    #[test]
    fn the_module_is_the_guests_own_and_not_a_dependencys() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","manifest_path":"/dep/Cargo.toml","filenames":["/t/dep.wasm"]}"#,
            "\nnot json\n",
            r#"{"reason":"compiler-artifact","manifest_path":"/guest/Cargo.toml","filenames":["/t/guest.d","/t/guest.wasm"]}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(
            module_path(messages, Path::new("/guest")),
            Some("/t/guest.wasm".into())
        );
        assert_eq!(module_path(messages, Path::new("/other")), None);
    }

    #[test]
    fn progress_lines_are_left_out_of_errors() {
        let text =
            useful("   Compiling a v1\nerror[E0308]: mismatched types\n  --> src/lib.rs:1:1");
        assert_eq!(text, "error[E0308]: mismatched types\n  --> src/lib.rs:1:1");
    }
}
