//! From core module to component, in this process.

use std::fs;
use std::path::Path;

use wasi_preview1_component_adapter_provider::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER;
use wit_component::{ComponentEncoder, DecodedWasm};

use crate::BuildError;

/// An encoded component and what its world says.
pub(crate) struct Component {
    pub(crate) bytes: Vec<u8>,
    pub(crate) imports: Vec<String>,
    pub(crate) exports: Vec<String>,
}

impl Component {
    /// A component that another tool has encoded.
    pub(crate) fn finished(package: &str, bytes: Vec<u8>) -> Result<Self, BuildError> {
        let Interfaces { imports, exports } =
            interfaces(&bytes).map_err(|reason| BuildError::Encode {
                package: package.to_owned(),
                reason,
            })?;
        Ok(Self {
            bytes,
            imports,
            exports,
        })
    }
}

/// Wraps a core module by the description that its bindings left in it. The result is validated.
pub(crate) fn encode(package: &str, core: &[u8]) -> Result<Component, BuildError> {
    // `{:#}` prints the whole chain of causes on one line.
    let failed = |reason: String| BuildError::Encode {
        package: package.to_owned(),
        reason,
    };
    let encode = || {
        let mut encoder = ComponentEncoder::default().validate(true).module(core)?;
        if imports_preview1(core) {
            encoder = encoder.adapter(PREVIEW1, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)?;
        }
        encoder.encode()
    };
    let bytes = encode().map_err(|error| failed(format!("{error:#}")))?;
    Component::finished(package, bytes)
}

/// What C libraries ask of an operating system, before there were components.
const PREVIEW1: &str = "wasi_snapshot_preview1";

/// Whether a module asks for it. The name stands in front of each import; a guest that has the same
/// text among its data gets an adapter of which nothing is left in the end.
fn imports_preview1(core: &[u8]) -> bool {
    core.windows(PREVIEW1.len())
        .any(|window| window == PREVIEW1.as_bytes())
}

/// What a component asks for and what it offers, as its WIT names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interfaces {
    /// Interfaces and functions that it imports.
    pub imports: Vec<String>,
    /// Interfaces and functions that it exports.
    pub exports: Vec<String>,
}

/// Reads the interfaces of a finished component; an error says in one line why there are none.
pub fn interfaces(component: &[u8]) -> Result<Interfaces, String> {
    let decoded = wit_component::decode(component).map_err(|error| format!("{error:#}"))?;
    let DecodedWasm::Component(resolve, world) = decoded else {
        return Err("this is a WIT package, not a component".to_owned());
    };
    let Some(world) = resolve.worlds.get(world) else {
        return Err("the component has no world".to_owned());
    };
    let names =
        |items: &mut dyn Iterator<Item = _>| items.map(|key| resolve.name_world_key(key)).collect();
    Ok(Interfaces {
        imports: names(&mut world.imports.keys()),
        exports: names(&mut world.exports.keys()),
    })
}

/// Writes a file unless it already has these bytes, so that its modification time tells the truth
/// to whoever embeds it. True when it was written.
pub(crate) fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<bool, BuildError> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    // Whoever opens the path at this moment sees the old component or the new one, whole.
    let partial = path.with_extension("wasm.partial");
    fs::write(&partial, bytes).map_err(|source| BuildError::io("write", &partial, source))?;
    fs::rename(&partial, path).map_err(|source| BuildError::io("write", path, source))?;
    Ok(true)
}
