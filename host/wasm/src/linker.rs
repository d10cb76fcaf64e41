//! What a component may import: one linker with all of it, made once, and the
//! question where an import comes from.

use wasmtime::component::{HasSelf, Linker};

use crate::bindings::wit;
use crate::component::Capability;
use crate::cx::CallCx;
use crate::view;
use crate::wasi;

/// The contract's package, in front of every interface name.
pub(crate) const PACKAGE: &str = "sipbox:policy/";
/// The version, behind it.
pub(crate) const VERSION: &str = "@0.1.0";

/// Where an import comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `message`, `call`, `log`, `types`: always there.
    Always,
    /// A capability that a tenant grants.
    Capability(Capability),
    /// A WASI function that we serve.
    Wasi,
    /// Nothing that we know.
    Foreign,
}

/// Where `interface#item` comes from.
pub(crate) fn origin(import: &str) -> Origin {
    let (interface, item) = import.split_once('#').unwrap_or((import, ""));
    let ours = interface
        .strip_prefix(PACKAGE)
        .and_then(|rest| rest.strip_suffix(VERSION));
    match ours {
        Some("types" | "message" | "call" | "log") => Origin::Always,
        Some(name) => Capability::from_name(name).map_or(Origin::Foreign, Origin::Capability),
        None if wasi::serves(interface, item) => Origin::Wasi,
        None => Origin::Foreign,
    }
}

/// Links everything. Types are checked when a component meets the linker.
pub(crate) fn link(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<CallCx>> {
    let mut linker = Linker::<CallCx>::new(engine);
    wit::message::add_to_linker::<_, HasSelf<CallCx>>(&mut linker, |cx| cx)?;
    wit::call::add_to_linker::<_, HasSelf<CallCx>>(&mut linker, |cx| cx)?;
    wit::log::add_to_linker::<_, HasSelf<CallCx>>(&mut linker, |cx| cx)?;
    wit::auth::add_to_linker::<_, HasSelf<CallCx>>(&mut linker, |cx| cx)?;
    wit::location::add_to_linker::<_, HasSelf<CallCx>>(&mut linker, |cx| cx)?;
    wit::nat::add_to_linker::<_, HasSelf<CallCx>>(&mut linker, |cx| cx)?;
    wit::dialogs::add_to_linker::<_, HasSelf<CallCx>>(&mut linker, |cx| cx)?;
    wit::leases::add_to_linker::<_, HasSelf<CallCx>>(&mut linker, |cx| cx)?;
    wit::kv::add_to_linker::<_, HasSelf<CallCx>>(&mut linker, |cx| cx)?;
    wit::counters::add_to_linker::<_, HasSelf<CallCx>>(&mut linker, |cx| cx)?;
    view::link(&mut linker)?;
    wasi::link(&mut linker)?;
    Ok(linker)
}
