//! Which tools build guests in TypeScript: esbuild, tsc and componentize-qjs, npm packages that are
//! locked beside the SDK, and Node that runs them.
//!
//! They are looked for as Node does it, in `node_modules` of the guest's folder and those above, and
//! then beside the SDK that the guest's `package.json` names by its path. So a policy of this
//! repository needs no installation of its own.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::environment::clean_command;
use crate::system::{self, Apt};
use crate::toolchain::first_line;
use crate::{BuildError, Language, Toolchain};

/// The SDK's name among a guest's dependencies.
const SDK: &str = "@sipbox/guest";
/// The programs that a build calls.
const PROGRAMS: &[&str] = &["esbuild", "tsc", "componentize-qjs"];
const OLDEST_NODE: u32 = 18;
const PACKAGES: &[&str] = &["nodejs", "npm"];

/// Finds the tools for a guest.
pub(crate) fn find(dir: &Path) -> Result<Toolchain, BuildError> {
    let missing = |why: String, fix: String| BuildError::NoToolchain {
        language: Language::TypeScript,
        why: format!("  - {why}"),
        fix: format!("install it with\n  {fix}\nin a clone of Sipbox, `cargo xtask setup` does it"),
    };
    let version = find_node().map_err(|why| missing(why, Apt::command_line(PACKAGES)))?;
    let candidates = candidates(dir);
    for modules in &candidates {
        if PROGRAMS
            .iter()
            .all(|program| modules.join(".bin").join(program).is_file())
        {
            return Ok(Toolchain::Node {
                version,
                modules: modules.clone(),
            });
        }
    }
    let why = format!(
        "{} are not in node_modules of {} or of the SDK",
        PROGRAMS.join(", "),
        dir.display()
    );
    let fix = match sdk(dir) {
        Some(sdk) => format!("npm ci --ignore-scripts --prefix {}", sdk.display()),
        None => format!("npm install --save-dev {SDK}"),
    };
    Err(missing(why, fix))
}

/// Installs Node where there is none, and the packages beside the SDK.
pub(crate) fn install(dir: &Path, apt: &mut Apt) -> Result<Toolchain, BuildError> {
    if find_node().is_err() || !system::is_installed("npm") {
        let packages: &[&str] = if find_node().is_ok() {
            &["npm"]
        } else {
            PACKAGES
        };
        apt.install(packages)?;
    }
    if let Some(sdk) = sdk(dir) {
        let command = format!("npm ci --ignore-scripts --prefix {}", sdk.display());
        eprintln!("installing the tools for TypeScript: {command}");
        let mut npm = clean_command("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&sdk);
        system::run_with_limit(&mut npm, system::DOWNLOAD_LIMIT).map_err(|reason| {
            BuildError::Install {
                what: "the tools for TypeScript".to_owned(),
                reason,
                command,
            }
        })?;
    }
    find(dir)
}

fn find_node() -> Result<String, String> {
    let version = first_line("node", &["--version"], Path::new("/"))
        .ok_or("no `node` on the path, which runs the tools for TypeScript")?;
    let major = version
        .trim_start_matches('v')
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(major) if major >= OLDEST_NODE => Ok(version),
        _ => Err(format!("node is {version}, and {OLDEST_NODE} is needed")),
    }
}

/// The folders that may have the tools, nearest first.
fn candidates(dir: &Path) -> Vec<PathBuf> {
    dir.ancestors()
        .map(|above| above.join("node_modules"))
        .chain(sdk(dir).map(|sdk| sdk.join("node_modules")))
        .collect()
}

/// The folder of the SDK, if the guest names it by a path, or is it.
pub(crate) fn sdk(dir: &Path) -> Option<PathBuf> {
    let package: Value = serde_json::from_slice(&fs::read(dir.join("package.json")).ok()?).ok()?;
    if package.get("name").and_then(Value::as_str) == Some(SDK) {
        return Some(dir.to_owned());
    }
    ["dependencies", "devDependencies"]
        .iter()
        .filter_map(|kind| package.get(kind)?.get(SDK)?.as_str()?.strip_prefix("file:"))
        .map(|path| dir.join(path))
        .find_map(|path| path.canonicalize().ok())
}
