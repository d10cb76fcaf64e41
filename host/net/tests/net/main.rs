//! The network on real sockets over loopback.

mod resolver;
mod support;
mod tcp;
mod udp;
