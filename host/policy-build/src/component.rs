//! From core module to component, in this process.

use std::fs;
use std::path::Path;

use wit_component::{ComponentEncoder, DecodedWasm};

use crate::BuildError;

/// An encoded component and what its world says.
pub(crate) struct Component {
    pub(crate) bytes: Vec<u8>,
    pub(crate) imports: Vec<String>,
    pub(crate) exports: Vec<String>,
}

/// Wraps a core module by the description that its bindings left in it. The result is validated.
pub(crate) fn encode(package: &str, core: &[u8]) -> Result<Component, BuildError> {
    // `{:#}` prints the whole chain of causes on one line.
    let failed = |reason: String| BuildError::Encode {
        package: package.to_owned(),
        reason,
    };
    let bytes = ComponentEncoder::default()
        .validate(true)
        .module(core)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| failed(format!("{error:#}")))?;
    let Interfaces { imports, exports } = interfaces(&bytes).map_err(failed)?;
    Ok(Component {
        imports,
        exports,
        bytes,
    })
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
