//! Sockets: UDP workers, stream connections, name resolution. The only crate
//! that names a socket.
//!
//! [`Network::start`] binds the listeners and gives one [`Worker`] for each
//! worker thread. A worker waits for datagrams of *every* UDP listener and for
//! what its queue holds: frames of stream connections, failures of sends that
//! ended elsewhere, and the caller's own events. [`Network::send`] is
//! called from any thread and never blocks. Streams run on the
//! tokio runtime that the caller hands in.
//!
//! SIP itself is not understood here beyond what framing takes; what a message
//! means, and what a failed send leads to, is the core's business.

mod config;
mod error;
mod network;
mod queue;
mod resolver;
mod stun;
mod tcp;
mod udp;
mod worker;

pub use config::{ListenerConfig, NetConfig};
pub use error::{SendError, StartError};
pub use network::{Network, Started};
pub use queue::{Full, WorkerQueue};
pub use resolver::{Query, ResolverConfig, StaticNames};
pub use tcp::{StreamCounters, StreamLimits};
pub use worker::{Input, Received, Worker, WorkerCounters};
