//! Why the network did not start, and why a message was not sent.

use std::io;
use std::net::SocketAddr;

use sipbox_core::flow::ListenerId;
use sipbox_sip::Transport;

/// Why the network could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A listener's socket could not be made or bound.
    #[error("cannot listen on {transport}:{address}: {source}")]
    Listen {
        /// The listener's transport.
        transport: Transport,
        /// The listener's address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A listener of a transport that this build does not carry.
    #[error("transport `{0}` is not supported")]
    UnsupportedTransport(Transport),
    /// More listeners than a [`ListenerId`] can number.
    #[error("too many listeners: {0}")]
    TooManyListeners(usize),
    /// A worker's means of waiting could not be made.
    #[error("cannot set up a worker: {0}")]
    Worker(io::Error),
}

/// Why a message was not sent. Values, so that they travel in events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// There is no such listener, or it is of another transport.
    #[error("no {1} listener {listener}", listener = .0.0)]
    NoListener(ListenerId, Transport),
    /// The transport is not carried.
    #[error("transport `{0}` is not supported")]
    UnsupportedTransport(Transport),
    /// The flow's connection is gone and may not be replaced.
    #[error("the flow's connection is gone")]
    FlowGone,
    /// The connection's send queue is full. A full buffer of a UDP socket loses its
    /// datagram, and is no error of [`Network::send`](crate::Network::send).
    #[error("the send queue is full")]
    Congested,
    /// The datagram is larger than UDP or the path takes.
    #[error("the message is too large for a datagram")]
    TooLarge,
    /// No connection came about in time.
    #[error("the connection was not up in time")]
    ConnectTimeout,
    /// The peer or the network refused the connection, or the datagram.
    #[error("the next hop cannot be reached: {0}")]
    Unreachable(io::ErrorKind),
    /// The connection ended before the message was written.
    #[error("the connection ended: {0}")]
    ConnectionLost(io::ErrorKind),
    /// No more connections are allowed.
    #[error("too many connections")]
    TooManyConnections,
    /// The network is shutting down.
    #[error("the network is shutting down")]
    ShuttingDown,
}
