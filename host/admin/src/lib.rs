//! The control socket: JSON-RPC 2.0 over a Unix socket, one request (or batch)
//! a line, commands under OpenSIPS's names.
//!
//! Here are the protocol ([`rpc`]), the server with its limits, and the blocking
//! [`Client`] that the command line uses. What the commands do is behind
//! [`Commands`], which the binary implements.

mod client;
mod commands;
pub mod rpc;
mod server;

pub use client::{Client, ClientError};
pub use commands::{CommandError, CommandFuture, Commands, Params};
pub use server::{Server, ServerError, ServerLimits};
