//! Components: compiled once for their bytes, shared by every tenant that uses
//! them; what each imports and which hooks it exports.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use sha2::{Digest, Sha256};
use sipbox_core::policy::Hook;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, InstancePre};

use crate::bindings::hooks;
use crate::cx::CallCx;
use crate::engine::Engine;
use crate::linker::{self, Origin};

/// Why a component is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The bytes are a core module, or something else.
    #[error("not a component: {0}")]
    NotAComponent(&'static str),
    /// The bytes do not compile.
    #[error("does not compile: {0}")]
    Compile(String),
    /// The component wants something that no host of policies has.
    #[error(
        "imports `{0}`, which is no part of sipbox:policy@0.1.0 and not among the wasi functions served"
    )]
    ForeignImport(String),
    /// The component wants something that its tenant does not grant.
    #[error("imports `{import}`, which the tenant does not grant")]
    NotGranted {
        /// The first import of the capability.
        import: String,
        /// What would have to be granted.
        capability: Capability,
    },
    /// An import or export has another type than the contract gives it.
    #[error("does not fit the contract: {0}")]
    Mismatch(String),
    /// The component exports no hook at all.
    #[error("exports no hook of sipbox:policy@0.1.0")]
    NoHook,
    /// `configure` refused the settings.
    #[error("settings refused: {0}")]
    Settings(String),
    /// `configure` did not return.
    #[error("configure failed: {0}")]
    Configure(#[source] sipbox_core::policy::HookFailure),
}

/// A capability that a tenant grants, by interface. `message`, `call` and `log`
/// are always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Capability {
    /// `auth`
    Auth,
    /// `location`
    Location,
    /// `nat`
    Nat,
    /// `dialogs`
    Dialogs,
    /// `leases`
    Leases,
    /// `kv`
    Kv,
    /// `counters`
    Counters,
}

impl Capability {
    /// Every capability.
    pub const ALL: [Self; 7] = [
        Self::Auth,
        Self::Location,
        Self::Nat,
        Self::Dialogs,
        Self::Leases,
        Self::Kv,
        Self::Counters,
    ];

    /// The interface's name, as configuration spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Location => "location",
            Self::Nat => "nat",
            Self::Dialogs => "dialogs",
            Self::Leases => "leases",
            Self::Kv => "kv",
            Self::Counters => "counters",
        }
    }

    /// The capability of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|capability| capability.name() == name)
    }
}

/// The hooks that a component exports, ready to be looked up in an instance.
pub(crate) struct Exports {
    pub(crate) lifecycle: Option<hooks::lifecycle::GuestIndices>,
    pub(crate) route: Option<hooks::route_hook::GuestIndices>,
    pub(crate) request: Option<hooks::request_hook::GuestIndices>,
    pub(crate) branch: Option<hooks::branch_hook::GuestIndices>,
    pub(crate) reply: Option<hooks::reply_hook::GuestIndices>,
    pub(crate) failure: Option<hooks::failure_hook::GuestIndices>,
    pub(crate) dialog: Option<hooks::dialog_hook::GuestIndices>,
}

/// A compiled component: linked and checked, not yet bound to a tenant.
pub struct Policy {
    pub(crate) pre: InstancePre<CallCx>,
    pub(crate) exports: Exports,
    pub(crate) engine: Engine,
    imports: Vec<String>,
    digest: [u8; 32],
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy")
            .field("imports", &self.imports)
            .finish_non_exhaustive()
    }
}

impl Policy {
    /// The functions that the component imports, as `interface#function`,
    /// sorted; an interface of types alone by its name.
    #[must_use]
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// SHA-256 of the component's bytes.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Whether the component exports a hook.
    #[must_use]
    pub fn exports(&self, hook: Hook) -> bool {
        match hook {
            Hook::Route => self.exports.route.is_some(),
            Hook::Request => self.exports.request.is_some(),
            Hook::Branch => self.exports.branch.is_some(),
            Hook::Reply => self.exports.reply.is_some(),
            Hook::Failure => self.exports.failure.is_some(),
            Hook::Dialog => self.exports.dialog.is_some(),
        }
    }

    /// Checks that the grants cover the imports.
    ///
    /// # Errors
    /// [`LoadError::NotGranted`] for each capability beyond them.
    pub fn check_grants(&self, grants: &[Capability]) -> Result<(), Vec<LoadError>> {
        let mut missing = Vec::new();
        let mut errors = Vec::new();
        for import in &self.imports {
            if let Origin::Capability(capability) = linker::origin(import)
                && !grants.contains(&capability)
                && !missing.contains(&capability)
            {
                missing.push(capability);
                errors.push(LoadError::NotGranted {
                    import: import.clone(),
                    capability,
                });
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }

    fn new(engine: &Engine, bytes: &[u8], digest: [u8; 32]) -> Result<Self, LoadError> {
        check_kind(bytes)?;
        let component = engine.compile(bytes)?;
        let imports = imports(engine, &component);
        for import in &imports {
            if matches!(linker::origin(import), Origin::Foreign) {
                return Err(LoadError::ForeignImport(import.clone()));
            }
        }
        let pre = engine
            .linker
            .instantiate_pre(&component)
            .map_err(|error| LoadError::Mismatch(format!("{error:#}")))?;
        let exports = exports(&pre)?;
        Ok(Self {
            pre,
            exports,
            engine: engine.clone(),
            imports,
            digest,
        })
    }
}

/// Compiles components, each set of bytes once.
pub struct ComponentStore {
    engine: Engine,
    // Control plane only: loads happen at start and reload. Weak, so that a
    // component goes with the last snapshot that uses it.
    loaded: Mutex<HashMap<[u8; 32], Weak<Policy>, foldhash::fast::RandomState>>,
}

impl ComponentStore {
    /// An empty store.
    #[must_use]
    pub fn new(engine: &Engine) -> Self {
        Self {
            engine: engine.clone(),
            loaded: Mutex::default(),
        }
    }

    /// The engine that compiles.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Compiles and checks a component.
    ///
    /// # Errors
    /// When it is none, does not compile, or wants something foreign.
    pub fn load(&self, bytes: &[u8]) -> Result<Arc<Policy>, LoadError> {
        let digest: [u8; 32] = Sha256::digest(bytes).into();
        if let Some(policy) = self.find(&digest) {
            return Ok(policy);
        }
        // Compiling takes up to seconds: without the lock.
        let policy = Arc::new(Policy::new(&self.engine, bytes, digest)?);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.retain(|_, policy| policy.strong_count() > 0);
        loaded.insert(digest, Arc::downgrade(&policy));
        Ok(policy)
    }

    /// Compiles and checks a component from a file.
    ///
    /// # Errors
    /// As [`ComponentStore::load`], or when the file cannot be read.
    pub fn load_file(&self, path: &Path) -> Result<Arc<Policy>, LoadError> {
        let bytes = std::fs::read(path).map_err(|source| LoadError::Read {
            path: path.display().to_string(),
            source,
        })?;
        self.load(&bytes)
    }

    fn find(&self, digest: &[u8; 32]) -> Option<Arc<Policy>> {
        self.loaded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(digest)?
            .upgrade()
    }
}

/// The eighth byte tells a component from a core module.
fn check_kind(bytes: &[u8]) -> Result<(), LoadError> {
    match bytes.get(..8) {
        Some([0, b'a', b's', b'm', _, _, 1, 0]) => Ok(()),
        Some([0, b'a', b's', b'm', ..]) => Err(LoadError::NotAComponent(
            "a core module; `wasm-tools component new` makes it one",
        )),
        _ => Err(LoadError::NotAComponent("no webassembly")),
    }
}

/// Every imported function as `interface#function`; an import without functions
/// by its name. Resources alone do nothing: each is made by a function.
fn imports(engine: &Engine, component: &Component) -> Vec<String> {
    let mut imports = Vec::new();
    for (name, item) in component.component_type().imports(&engine.inner) {
        let before = imports.len();
        if let ComponentItem::ComponentInstance(instance) = item.ty {
            for (function, item) in instance.exports(&engine.inner) {
                if matches!(item.ty, ComponentItem::ComponentFunc(_)) {
                    imports.push(format!("{name}#{function}"));
                }
            }
        }
        if imports.len() == before {
            imports.push(name.to_owned());
        }
    }
    imports.sort();
    imports
}

fn exports(pre: &InstancePre<CallCx>) -> Result<Exports, LoadError> {
    let has = |interface: &str| {
        let name = format!("{}{interface}{}", linker::PACKAGE, linker::VERSION);
        pre.component().get_export_index(None, &name).is_some()
    };
    let mismatch = |error: wasmtime::Error| LoadError::Mismatch(format!("{error:#}"));
    macro_rules! probe {
        ($name:literal, $module:ident) => {
            has($name)
                .then(|| hooks::$module::GuestIndices::new(pre))
                .transpose()
                .map_err(mismatch)?
        };
    }
    let exports = Exports {
        lifecycle: probe!("lifecycle", lifecycle),
        route: probe!("route-hook", route_hook),
        request: probe!("request-hook", request_hook),
        branch: probe!("branch-hook", branch_hook),
        reply: probe!("reply-hook", reply_hook),
        failure: probe!("failure-hook", failure_hook),
        dialog: probe!("dialog-hook", dialog_hook),
    };
    let any = exports.route.is_some()
        || exports.request.is_some()
        || exports.branch.is_some()
        || exports.reply.is_some()
        || exports.failure.is_some()
        || exports.dialog.is_some();
    if any {
        Ok(exports)
    } else {
        Err(LoadError::NoHook)
    }
}
