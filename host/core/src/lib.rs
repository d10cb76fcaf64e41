//! RFC 3261 without I/O.
//!
//! Bytes, time and randomness come in as arguments; what is to be sent, asked
//! or resolved comes out as values. No clock, socket, file or global lives
//! here, so everything runs under simulated time and loss.

pub mod account;
mod agent;
pub mod auth;
pub mod chain;
mod context;
mod cx;
pub mod decision;
pub mod dialog;
pub mod error;
pub mod flow;
mod forward;
mod gathered;
pub mod ids;
mod intake;
pub mod lease;
mod locate;
pub mod location;
pub mod outbox;
pub mod policy;
pub mod quota;
pub mod record_route;
mod reply;
mod routing;
pub mod settings;
mod shard;
pub mod shared;
#[cfg(test)]
mod sim;
pub mod stack;
mod stateless;
mod table;
#[cfg(test)]
mod testing;
pub mod time;
mod transaction;
mod user;
pub mod wheel;
