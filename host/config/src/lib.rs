//! TOML to a checked configuration model, with diagnostics that point.
//!
//! [`Config::parse`] reports every mistake at once, each with the place, what was
//! expected and, where it can, a suggestion. What the settings do is other
//! crates' business; that policies load is checked by who can load them, and
//! [`Reading`] gives them what could be read of a text with mistakes, so that
//! theirs and these are reported together.

mod diagnostic;
mod model;
mod read;
mod restart;
mod sections;
mod syntax;
#[cfg(test)]
mod tests;

pub use diagnostic::{Diagnostic, Severity, render};
pub use model::{
    Auth, Component, Config, Control, Datagram, Dialog, Dns, Durability, Limits, Listener, Log,
    LogFormat, MatchMode, Nathelper, Policy, PolicyLimits, RecordRoute, Route, Span, Store, Tenant,
    Timers,
};
pub use read::similar;
pub use restart::needs_restart;
pub use sections::Reading;

/// The example that documents every setting.
pub const EXAMPLE: &str = include_str!("../../dist/sipbox.toml");
