//! Flows: where a message came from and where a message can be sent back to.
//!
//! A flow is a value; the socket behind it is `sipbox-net`'s.

use std::net::{IpAddr, SocketAddr};

use sipbox_sip::Transport;

/// A listener, by its position in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u16);

/// A tenant, by its position in the snapshot's table of tenants. The position
/// is kept over reloads as long as the tenant's name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(pub u32);

/// A stream connection: a slot of the connection table and the generation of
/// its use, so that a stale id never names a later connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// The slot.
    pub slot: u32,
    /// Counts the slot's uses.
    pub generation: u32,
}

/// A path between us and one peer: for UDP the listener and both addresses, for streams
/// also the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// The listener that received the message; for a connection that we
    /// opened, the listener whose address stands in our Via.
    pub listener: ListenerId,
    /// How messages travel.
    pub transport: Transport,
    /// The peer's address, as seen by the socket.
    pub peer: SocketAddr,
    /// The connection, for streams.
    pub connection: Option<ConnectionId>,
    /// Which of our addresses the peer wrote to, and hears from: of a UDP listener on
    /// every address. `None`: there is no choice, or the kernel has it.
    pub local: Option<IpAddr>,
}

/// Where a datagram arrives and leaves: the listener, and [`Flow::local`].
pub type Home = (ListenerId, Option<IpAddr>);

impl Flow {
    /// The way of a request down the flow: by its connection or not at all (RFC 5626
    /// section 5.3). A datagram has no flow that could be gone.
    #[must_use]
    pub fn request_hop(self) -> NextHop {
        match self.connection {
            Some(_) => NextHop::Flow {
                flow: self,
                reconnect: None,
            },
            None => NextHop::Address {
                listener: self.listener,
                transport: self.transport,
                address: self.peer,
                local: self.local,
            },
        }
    }
}

/// Where a message is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NextHop {
    /// Down an existing flow. A stream flow that is gone is an error
    /// (RFC 5626 section 5.3), unless `reconnect` allows a new connection to the peer,
    /// as for a response (RFC 3261 section 18.2.2).
    Flow {
        /// The flow.
        flow: Flow,
        /// Where to connect when the flow's connection is gone.
        reconnect: Option<SocketAddr>,
    },
    /// To an address: an open connection to it is reused, or one is opened.
    Address {
        /// The listener that the message leaves from.
        listener: ListenerId,
        /// How it travels.
        transport: Transport,
        /// Where to.
        address: SocketAddr,
        /// Which of our addresses a datagram leaves from, see [`Flow::local`].
        local: Option<IpAddr>,
    },
}
