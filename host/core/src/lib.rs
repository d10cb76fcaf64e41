//! RFC 3261 without I/O.
//!
//! Bytes, time and randomness come in as arguments; what is to be sent, asked
//! or resolved comes out as values. No clock, socket, file or global lives
//! here, so everything runs under simulated time and loss.

pub mod auth;
pub mod decision;
pub mod chain;
pub mod flow;
pub mod ids;
pub mod location;
pub mod outbox;
pub mod policy;
pub mod settings;
pub mod stack;
pub mod time;
pub mod wheel;
