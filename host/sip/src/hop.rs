//! Where messages go, as configuration writes it: owned, unlike what is read from
//! messages.

use crate::transport::Transport;

/// A host with an optional port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    /// `None`: any, or the default.
    pub port: Option<u16>,
}

/// A next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    /// `None`: as RFC 3263 finds it.
    pub port: Option<u16>,
    /// `None`: as RFC 3263 finds it.
    pub transport: Option<Transport>,
}
