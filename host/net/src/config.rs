//! What the network is started with: values that somebody else has read and
//! checked.

use std::net::SocketAddr;

use sipbox_sip::Transport;

use crate::resolver::ResolverConfig;
use crate::tcp::StreamLimits;

/// One listener. Its [`ListenerId`](sipbox_core::flow::ListenerId) is its
/// position in [`NetConfig::listeners`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// How messages travel.
    pub transport: Transport,
    /// Where to listen. An IPv6 wildcard takes IPv6 only; port 0 lets the
    /// system choose.
    pub address: SocketAddr,
}

/// The settings of a [`Network`](crate::Network).
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// The listeners.
    pub listeners: Vec<ListenerConfig>,
    /// How many workers; at least one is made.
    pub workers: usize,
    /// How many events of the caller a worker's queue holds.
    pub event_queue: usize,
    /// How many stream frames a worker's queue holds; connections are not read
    /// while it is full.
    pub frame_queue: usize,
    /// The receive buffer asked for each UDP socket, in bytes. The kernel gives
    /// at most `net.core.rmem_max`.
    pub udp_receive_buffer: usize,
    /// The send buffer asked for each UDP socket, in bytes.
    pub udp_send_buffer: usize,
    /// Limits and times of stream connections.
    pub streams: StreamLimits,
    /// How names are resolved.
    pub resolver: ResolverConfig,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            listeners: Vec::new(),
            workers: 1,
            event_queue: 4096,
            frame_queue: 1024,
            udp_receive_buffer: 4 << 20,
            udp_send_buffer: 4 << 20,
            streams: StreamLimits::default(),
            resolver: ResolverConfig::default(),
        }
    }
}
