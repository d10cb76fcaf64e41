//! The Rust SDK for Sipbox policies.
#[doc(hidden)]
pub mod bindings;
