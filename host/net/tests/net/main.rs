//! The network on real sockets over loopback.

mod support;
mod tcp;
mod udp;
