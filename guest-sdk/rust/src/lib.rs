//! The Rust SDK for Sipbox policies.
//!
//! A policy implements [`Policy`] and exports itself; see the README for one in
//! twenty lines. A hook gets a [`Request`] (or [`Response`]) whose getters read
//! one view of the message without asking the host again, and returns a
//! [`Verdict`]. The capabilities are modules: [`auth`], [`counters`], [`dialogs`],
//! [`kv`], [`leases`], [`location`], [`nat`], [`log`].
//! A capability that is not used is not imported by the component.
//!
//! Natively, the same crate runs under `sipbox-testkit`, which implements
//! [`sys::Host`].

// The same name for the crate inside and outside, for the macros' sake.
#[doc(hidden)]
pub mod bindings;
#[doc(hidden)]
pub mod export;
pub mod ids;
#[doc(hidden)]
pub mod sys;

pub mod auth;
mod call;
pub mod counters;
pub mod dialogs;
pub mod kv;
pub mod leases;
pub mod location;
pub mod log;
mod message;
pub mod nat;
mod policy;
pub mod settings;
mod uri;
pub mod verdict;

pub use call::{Body, Edit, Error, Header, Hooks, SourceClass};
pub use message::{
    Direction, Message, Request, Response, RouteOutcome, RouteSignature, Source, Time, Transport,
};
pub use policy::{
    BranchVerdict, Change, DialogEvent, FailedTarget, Failure, NoSettings, Policy, ReplyVerdict,
    configure,
};
pub use uri::{Party, Uri, aor, canonical_user};
pub use verdict::{Destination, Preloaded, Target, UriTarget, Verdict};

#[cfg(all(target_family = "wasm", feature = "allocator"))]
#[global_allocator]
static ALLOCATOR: sipbox_guest_allocator::Pockets<talc::wasm::WasmDynamicTalc> =
    sipbox_guest_allocator::Pockets::new(talc::wasm::new_wasm_dynamic_allocator());
