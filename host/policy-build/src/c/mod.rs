//! C: bindings are generated in this process, and one call of the compiler makes the module.

pub(crate) mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};

use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::Resolve;

use crate::{BuildError, BuildRequest, Built, OptLevel, Toolchain, component, contract, tool};

/// Generated names and files begin with it, whatever the guest calls its world: the SDK counts on it.
const BINDINGS: &str = "policy";

/// The C sources of a folder and of its `src`, sorted.
pub(crate) fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = [dir.to_owned(), dir.join("src")]
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "c"))
        .collect();
    found.sort();
    found
}

/// Compiles and wraps the guest.
pub(crate) fn build(
    request: &BuildRequest,
    dir: &Path,
    out: &Path,
    toolchain: &Toolchain,
) -> Result<Built, BuildError> {
    let wit = contract::write_world(dir, out)?;
    let bindings = out.join("bindings");
    generate(dir, &wit, &bindings)?;
    let sdk = out.join("sdk");
    contract::write_files(&sdk, contract::C_SDK)?;

    let module = out.join("module.wasm");
    let mut compiler = toolchain::command(toolchain);
    compiler
        .current_dir(dir)
        .args(["--target=wasm32-wasi", "-mexec-model=reactor"])
        .args(["-std=gnu17", "-Wall", "-Wextra", "-g0"])
        .arg(match request.profile.opt_level {
            OptLevel::Speed => "-O2",
            OptLevel::Size => "-Os",
        })
        // What is not used vanishes, imports too: then the list of a component's imports is honest.
        .args(["-ffunction-sections", "-fdata-sections"])
        .args(["-Wl,--strip-all", "-Wl,--gc-sections"])
        .arg(format!("-Wl,-z,stack-size={}", request.profile.stack_bytes))
        // Log lines name source files: no folder of the builder's belongs in a component.
        .arg(format!("-fmacro-prefix-map={}/=", out.display()))
        .arg("-I")
        .arg(&bindings)
        .arg("-I")
        .arg(&sdk)
        .arg("-o")
        .arg(&module);
    // The stack lies first in memory, so that running over its end traps; Zig has it so anyway.
    if matches!(toolchain, Toolchain::Clang { .. }) {
        compiler.arg("-Wl,--stack-first");
    }
    let sources = sources(dir);
    // Relative, as they are to stand in messages.
    compiler.args(
        sources
            .iter()
            .map(|source| source.strip_prefix(dir).unwrap_or(source)),
    );
    compiler
        .arg(bindings.join(format!("{BINDINGS}.c")))
        .arg(bindings.join(format!("{BINDINGS}_component_type.o")))
        .args(
            contract::C_SDK
                .iter()
                .filter(|(name, _)| name.ends_with(".c"))
                .map(|(name, _)| sdk.join(name)),
        );
    tool::run(request, toolchain, &mut compiler)?;

    let core = fs::read(&module).map_err(|source| BuildError::io("read", &module, source))?;
    Ok(Built {
        component: component::encode(&request.package, &core)?,
        inputs: contract::files_of(dir),
    })
}

/// Generates header, source and the object file that describes the world.
fn generate(dir: &Path, wit: &Path, bindings: &Path) -> Result<(), BuildError> {
    let failed = |reason: String| BuildError::World {
        path: dir.join("wit/world.wit"),
        reason,
    };
    let mut resolve = Resolve::default();
    let (package, _) = resolve
        .push_dir(wit)
        .map_err(|error| failed(format!("{error:#}")))?;
    let world = resolve
        .select_world(&[package], None)
        .map_err(|error| failed(format!("{error:#}")))?;
    let mut generator = wit_bindgen_c::Opts {
        rename_world: Some(BINDINGS.to_owned()),
        ..Default::default()
    }
    .build();
    let mut files = Files::default();
    generator
        .generate(&mut resolve, world, &mut files)
        .map_err(|error| failed(format!("{error:#}")))?;
    contract::create(bindings)?;
    for (name, bytes) in files.iter() {
        component::write_if_changed(&bindings.join(name), bytes)?;
    }
    Ok(())
}
