//! The network on real sockets over loopback.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail, in its helpers too"
)]

mod resolver;
mod support;
mod tcp;
mod tcp_limits;
mod udp;
