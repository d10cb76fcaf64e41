//! Builds guests into WebAssembly components: one builder for build scripts, xtask and the CLI.
//!
//! A guest is a Rust library. It is compiled to a core module for `wasm32-unknown-unknown`, which
//! knows no operating system, and the module is wrapped into a component in this process. The
//! result imports only what its WIT world names, so a guest cannot even ask for WASI by accident.
//!
//! What lives here: which compiler to use ([`Toolchain`]), how to call it, and the step from
//! module to component. What does not: anything that runs a component.
//!
//! ```no_run
//! use sipbox_policy_build::{BuildRequest, build};
//!
//! let request = BuildRequest::new("policies/residential", "policy-residential", "target/guests");
//! let artifact = build(&request)?;
//! println!("{} ({})", artifact.component.display(), artifact.toolchain);
//! # Ok::<(), sipbox_policy_build::BuildError>(())
//! ```

pub mod build_script;
mod compile;
mod component;
mod environment;
mod error;
pub mod system;
mod toolchain;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use system::Apt;

pub use component::{Interfaces, interfaces};
pub use error::BuildError;
pub use toolchain::{Preference, TOOLCHAIN_VARIABLE, Toolchain};

/// The target that guests are compiled for.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// What to build and how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BuildRequest {
    /// Folder with the guest's `Cargo.toml`.
    pub crate_dir: PathBuf,
    /// Name of the guest's package.
    pub package: String,
    /// Target folder for guests. It must not be the folder of a cargo that is running now (a build
    /// script's caller holds its lock); [`build_script::target_dir`] gives a good one.
    pub target_dir: PathBuf,
    /// Cargo features to switch on.
    pub features: Vec<String>,
    /// How the guest is optimised.
    pub profile: Profile,
    /// Which compiler to use; [`BuildRequest::new`] reads it from the environment.
    pub toolchain: Preference,
    /// Install what is missing (rustup's target, else Debian's packages) instead of saying how.
    pub install: bool,
    /// Whether `Cargo.lock` may change.
    pub lockfile: Lockfile,
    /// Where the compiler's messages go.
    pub messages: Messages,
}

impl BuildRequest {
    /// A request with the defaults: optimised for speed, lock file kept, messages captured,
    /// nothing installed.
    pub fn new(
        crate_dir: impl Into<PathBuf>,
        package: impl Into<String>,
        target_dir: impl Into<PathBuf>,
    ) -> Self {
        Self {
            crate_dir: crate_dir.into(),
            package: package.into(),
            target_dir: target_dir.into(),
            features: Vec::new(),
            profile: Profile::default(),
            toolchain: Preference::from_environment(),
            install: false,
            lockfile: Lockfile::Keep,
            messages: Messages::Captured,
        }
    }
}

/// How a guest is optimised. Link-time optimisation, one codegen unit, abort on panic and stripped
/// symbols are not choices: without them a guest is several times larger and slower to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// `opt-level`: `3` for speed, `s` or `z` for size.
    pub opt_level: OptLevel,
    /// Size of the guest's stack in bytes. It lies at the bottom of its memory, so overrunning it
    /// is a trap.
    pub stack_bytes: u32,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            opt_level: OptLevel::Speed,
            stack_bytes: 64 * 1024,
        }
    }
}

/// The optimisation level of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptLevel {
    /// `opt-level = 3`.
    Speed,
    /// `opt-level = "s"`.
    Size,
}

impl OptLevel {
    fn as_cargo(self) -> &'static str {
        match self {
            Self::Speed => "3",
            Self::Size => "s",
        }
    }
}

/// Whether a build may change the guest's `Cargo.lock`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lockfile {
    /// Pass `--locked` when there is a lock file; create one when there is none.
    Keep,
    /// Let cargo update it, as an ordinary `cargo build` does.
    Update,
}

/// Where the compiler's messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Messages {
    /// Kept back, and part of the error when the build fails (build scripts).
    Captured,
    /// To this process's standard error as they come (xtask, the CLI).
    Shown,
}

/// A finished component.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Artifact {
    /// The component: `<target_dir>/components/<package>.wasm`.
    pub component: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Interfaces and functions that the component imports, as its WIT names them.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// The compiler that was used; its `Display` is one line for a human.
    pub toolchain: Toolchain,
    /// Every file that went into it, for `cargo::rerun-if-changed`.
    pub inputs: Vec<PathBuf>,
    /// False when the component was already there, byte for byte. Then its modification time did
    /// not change either.
    pub changed: bool,
}

/// Builds a guest into a component.
///
/// Cargo decides what has to be compiled again. Two builds of one target folder, in this process
/// or another, wait for each other.
pub fn build(request: &BuildRequest) -> Result<Artifact, BuildError> {
    let crate_dir = absolute(&request.crate_dir)?;
    if !crate_dir.join("Cargo.toml").is_file() {
        return Err(BuildError::NoCrate { crate_dir });
    }
    let target_dir = absolute(&request.target_dir)?;
    let components = target_dir.join("components");
    fs::create_dir_all(&components)
        .map_err(|source| BuildError::io("create", &components, source))?;

    let toolchain = toolchain(
        &request.toolchain,
        &crate_dir,
        request.install.then(Apt::default).as_mut(),
    )?;

    // Cargo locks its part, but the module that it leaves behind is read after it has let go.
    let _lock = lock(&target_dir.join(".sipbox-build.lock"))?;
    let module = compile::compile(request, &crate_dir, &target_dir, &toolchain)?;
    let core =
        fs::read(&module.path).map_err(|source| BuildError::io("read", &module.path, source))?;
    let component = component::encode(&request.package, &core)?;

    let path = components.join(format!("{}.wasm", request.package));
    let changed = component::write_if_changed(&path, &component.bytes)?;
    Ok(Artifact {
        component: path,
        size: component.bytes.len() as u64,
        imports: component.imports,
        exports: component.exports,
        toolchain,
        inputs: module.inputs,
        changed,
    })
}

/// The toolchain that [`build`] would use, without building anything. With an installer, what
/// is missing is installed first.
pub fn toolchain(
    preference: &Preference,
    crate_dir: &Path,
    install: Option<&mut Apt>,
) -> Result<Toolchain, BuildError> {
    toolchain::find(preference, crate_dir).or_else(|missing| match install {
        Some(apt) => toolchain::install(preference, crate_dir, apt),
        None => Err(missing),
    })
}

fn absolute(path: &Path) -> Result<PathBuf, BuildError> {
    std::path::absolute(path).map_err(|source| BuildError::io("resolve", path, source))
}

/// Held until the returned file is dropped.
fn lock(path: &Path) -> Result<File, BuildError> {
    let file = File::create(path).map_err(|source| BuildError::io("create", path, source))?;
    file.lock()
        .map_err(|source| BuildError::io("lock", path, source))?;
    Ok(file)
}
