//! Benches: ratios against a peer or a floor in the same run.

#![allow(clippy::unwrap_used, reason = "a bench ends where it fails")]

pub mod bare;
pub mod floor;
