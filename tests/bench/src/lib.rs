//! Benches: ratios against a peer or a floor in the same run.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a bench ends where it fails"
)]

pub mod bare;
pub mod calls;
pub mod floor;
