//! The sandbox: policies as WebAssembly components, and the only crate that
//! names wasmtime.
//!
//! [`Engine`] (one for the process) compiles through a [`ComponentStore`];
//! components with settings, grants and limits form a tenant's [`Chain`]; each
//! worker keeps warm instances in its [`Pools`]; a [`ChainHost`] ties worker and
//! chain together for `sipbox-core`, which asks it for one hook of one policy at
//! a time. What a verdict does, and what follows a failure, is core's business.

mod auth;
mod bindings;
mod call;
mod chain;
mod component;
mod conduct;
mod convert;
mod counters;
mod cx;
mod dialogs;
mod edit;
mod engine;
mod epoch;
mod host;
mod kv;
mod leases;
mod limits;
mod linker;
mod location;
mod log;
mod message;
mod nat;
mod pattern;
mod pool;
mod record;
mod stats;
mod stock;
mod view;
mod wasi;

pub use chain::{Chain, PolicySpec};
pub use component::{Capability, ComponentStore, LoadError, Policy};
pub use conduct::{Conduct, Place};
pub use engine::{Engine, EngineError, EngineSettings, MAX_INSTANCES, config, pooling};
pub use host::ChainHost;
pub use limits::{CpuBudget, Limits, thread_cpu};
pub use pool::{Description, Pools};
pub use record::{Difference, Outcome, Recorder, Recording, replay};
pub use stats::{PolicyStats, REASONS, WasmStats};
pub use view::view_of;
