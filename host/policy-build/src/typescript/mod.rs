//! TypeScript: type-checked, bundled into one module of JavaScript, and put into a component with
//! the interpreter.

mod lines;
pub(crate) mod toolchain;

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::component::Component;
use crate::environment::clean_command;
use crate::{BuildError, BuildRequest, Built, Toolchain, contract, tool};

/// Compiles and wraps the guest.
///
/// The interpreter's image is never the same twice, since it is seeded when it is made. So that a
/// component changes when its guest does, what nobody changed is not built again.
pub(crate) fn build(
    request: &BuildRequest,
    dir: &Path,
    out: &Path,
    toolchain: &Toolchain,
) -> Result<Built, BuildError> {
    let Toolchain::Node { modules, .. } = toolchain else {
        return Err(BuildError::NoLanguage {
            dir: dir.to_owned(),
        });
    };
    let wit = contract::write_world(dir, out)?;
    let inputs = inputs(dir, modules);
    let stamp = stamp(&inputs, toolchain);
    let (finished, mark) = (out.join("component.wasm"), out.join("stamp"));
    let known = fs::read_to_string(&mark).is_ok_and(|mark| mark == stamp);
    if !known || !finished.is_file() {
        make(request, dir, &wit, &finished, toolchain, modules)?;
        fs::write(&mark, stamp).map_err(|source| BuildError::io("write", &mark, source))?;
    }
    let bytes = fs::read(&finished).map_err(|source| BuildError::io("read", &finished, source))?;
    Ok(Built {
        component: Component::finished(&request.package, bytes)?,
        inputs,
    })
}

fn make(
    request: &BuildRequest,
    dir: &Path,
    wit: &Path,
    finished: &Path,
    toolchain: &Toolchain,
    modules: &Path,
) -> Result<(), BuildError> {
    let program = |name: &str| -> Command {
        let mut command = clean_command(modules.join(".bin").join(name));
        command.current_dir(dir);
        command
    };
    let mut tsc = program("tsc");
    tsc.args([
        "--noEmit",
        "--pretty",
        "false",
        "--project",
        "tsconfig.json",
    ]);
    tool::run(request, toolchain, &mut tsc)?;

    let bundle = finished.with_file_name("policy.js");
    let mut esbuild = program("esbuild");
    esbuild
        .arg(main_of(dir)?)
        .args(["--bundle", "--format=esm", "--target=es2022"])
        // The interfaces of the world are the component's, not files.
        .args(["--external:sipbox:*", "--external:wasi:*"])
        .args(["--sourcemap=external", "--sources-content=false"])
        .args(["--log-level=warning", "--legal-comments=none"])
        .arg(format!("--outfile={}", bundle.display()));
    tool::run(request, toolchain, &mut esbuild)?;
    lines::append(&bundle, dir)?;

    // A build that is broken off leaves no half of a component.
    let partial = finished.with_extension("partial");
    let mut componentize = program("componentize-qjs");
    componentize
        .arg("--wit")
        .arg(wit)
        .arg("--js")
        .arg(&bundle)
        .args(["--sync", "--stub-wasi", "--output"])
        .arg(&partial);
    tool::run(request, toolchain, &mut componentize)?;
    fs::rename(&partial, finished).map_err(|source| BuildError::io("write", finished, source))
}

/// The module that `package.json` names as `main`.
fn main_of(dir: &Path) -> Result<String, BuildError> {
    let manifest = dir.join("package.json");
    let failed = |reason: &str| BuildError::World {
        path: manifest.clone(),
        reason: reason.to_owned(),
    };
    let bytes = fs::read(&manifest).map_err(|source| BuildError::io("read", &manifest, source))?;
    let package: Value =
        serde_json::from_slice(&bytes).map_err(|error| failed(&error.to_string()))?;
    package
        .get("main")
        .and_then(Value::as_str)
        .map(|main| format!("./{}", main.trim_start_matches("./")))
        .ok_or_else(|| failed("names no `main`, such as \"src/policy.ts\""))
}

/// What a component is made of: the guest's files, the SDK's, and the versions of the tools.
fn inputs(dir: &Path, modules: &Path) -> Vec<PathBuf> {
    let mut inputs = contract::files_of(dir);
    inputs.extend(
        toolchain::sdk(dir)
            .iter()
            .flat_map(|sdk| contract::files_of(sdk)),
    );
    inputs.push(modules.join(".package-lock.json"));
    inputs
}

/// A number for the contents of all inputs. Files that strangers choose are not among them, so a
/// hash that is fast will do.
fn stamp(inputs: &[PathBuf], toolchain: &Toolchain) -> String {
    let mut hasher = DefaultHasher::new();
    (env!("CARGO_PKG_VERSION"), toolchain.to_string()).hash(&mut hasher);
    contract::hash(&mut hasher);
    for input in inputs {
        (input, fs::read(input).ok()).hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}
