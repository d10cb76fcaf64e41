//! Sockets: UDP workers, TCP connections, name resolution.
