//! Builds guests into WebAssembly components: one builder for build scripts, xtask and the CLI.
//!
//! A guest is a folder in one [`Language`]: a Rust library, C sources, or an npm package in
//! TypeScript. It becomes a core module, and the module is wrapped into a component in this process;
//! TypeScript has a tool of its own for that. The result imports what its WIT world names and its
//! code uses. A Rust guest is compiled for `wasm32-unknown-unknown`, which knows no operating
//! system, so it cannot even ask for WASI by accident.
//!
//! What lives here: which tools to use ([`Toolchain`]), how to call them, and the step from
//! module to component; each language is a module. What does not: anything that runs a component.
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
mod c;
mod component;
mod contract;
mod environment;
mod error;
mod language;
mod rust;
pub mod system;
mod tool;
mod toolchain;
mod typescript;

use std::fs::File;
use std::path::{Path, PathBuf};

use system::Apt;

pub use component::{Interfaces, interfaces};
pub use error::BuildError;
pub use language::Language;
pub use rust::{Preference, TOOLCHAIN_VARIABLE};
pub use toolchain::Toolchain;

/// The target that guests in Rust are compiled for.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// What to build and how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BuildRequest {
    /// The guest's folder.
    pub dir: PathBuf,
    /// Name of the guest's package, and of the component.
    pub package: String,
    /// Target folder for guests. It must not be the folder of a cargo that is running now (a build
    /// script's caller holds its lock); [`build_script::target_dir`] gives a good one.
    pub target_dir: PathBuf,
    /// Cargo features to switch on, in Rust.
    pub features: Vec<String>,
    /// How the guest is optimised.
    pub profile: Profile,
    /// Which compiler to use for Rust; [`BuildRequest::new`] reads it from the environment.
    pub toolchain: Preference,
    /// Install what is missing (rustup's target, Debian's packages, npm's) instead of saying how.
    pub install: bool,
    /// Whether `Cargo.lock` may change, in Rust.
    pub lockfile: Lockfile,
    /// Where the compiler's messages go.
    pub messages: Messages,
}

impl BuildRequest {
    /// A request with the defaults: optimised for speed, lock file kept, messages captured,
    /// nothing installed.
    pub fn new(
        dir: impl Into<PathBuf>,
        package: impl Into<String>,
        target_dir: impl Into<PathBuf>,
    ) -> Self {
        Self {
            dir: dir.into(),
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
    /// For speed or for size; TypeScript has no such choice.
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
    /// `opt-level = 3`, `-O2`.
    Speed,
    /// `opt-level = "s"`, `-Os`.
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
    /// The tools that were used; their `Display` is one line for a human.
    pub toolchain: Toolchain,
    /// Every file that went into it, for `cargo::rerun-if-changed`.
    pub inputs: Vec<PathBuf>,
    /// False when the component was already there, byte for byte. Then its modification time did
    /// not change either.
    pub changed: bool,
}

/// What a language's module makes of a guest.
pub(crate) struct Built {
    pub(crate) component: component::Component,
    pub(crate) inputs: Vec<PathBuf>,
}

/// Builds a guest into a component.
///
/// The tools decide what has to be compiled again. Two builds of one target folder, in this process
/// or another, wait for each other.
///
/// # Errors
/// When the folder holds no guest or several, tools are missing, or the guest does not compile.
pub fn build(request: &BuildRequest) -> Result<Artifact, BuildError> {
    let dir = absolute(&request.dir)?;
    let language = Language::of(&dir)?;
    let target_dir = absolute(&request.target_dir)?;
    let components = target_dir.join("components");
    contract::create(&components)?;

    let toolchain = toolchain(
        language,
        &request.toolchain,
        &dir,
        request.install.then(Apt::default).as_mut(),
    )?;

    // Cargo locks its part, but the module that it leaves behind is read after it has let go.
    let _lock = lock(&target_dir.join(".sipbox-build.lock"))?;
    let out = target_dir.join("work").join(&request.package);
    let built = match language {
        Language::Rust => rust::build(request, &dir, &target_dir, &toolchain)?,
        Language::C => c::build(request, &dir, &out, &toolchain)?,
        Language::TypeScript => typescript::build(request, &dir, &out, &toolchain)?,
    };

    let path = components.join(format!("{}.wasm", request.package));
    let changed = component::write_if_changed(&path, &built.component.bytes)?;
    Ok(Artifact {
        component: path,
        size: built.component.bytes.len() as u64,
        imports: built.component.imports,
        exports: built.component.exports,
        toolchain,
        inputs: built.inputs,
        changed,
    })
}

/// The toolchain that [`build`] would use for a guest in `dir`, without building anything. With an
/// installer, what is missing is installed first.
///
/// # Errors
/// When tools are missing and not to be installed, or the installation fails.
pub fn toolchain(
    language: Language,
    preference: &Preference,
    dir: &Path,
    install: Option<&mut Apt>,
) -> Result<Toolchain, BuildError> {
    toolchain::find(language, preference, dir).or_else(|missing| match install {
        Some(apt) => toolchain::install(language, preference, dir, apt),
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
