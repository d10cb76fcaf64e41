//! How a node tells what it does: log set-up ([`logging`]) and counters
//! ([`Stats`]) under OpenSIPS's names.
//!
//! Not here: who asks for statistics (`sipbox-admin`), and what a policy logs.

pub mod logging;
mod stats;

pub use stats::{Counter, Stats, prometheus};
