//! Transport protocols as Via and URI parameters name them.

use std::fmt;

/// A transport that SIP runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// WebSocket (RFC 7118).
    Ws,
    /// WebSocket over TLS (RFC 7118).
    Wss,
    /// SCTP (RFC 4168).
    Sctp,
    /// TLS over SCTP (RFC 4168).
    TlsSctp,
}

impl Transport {
    /// Every transport.
    pub const ALL: &'static [Self] = &[
        Self::Udp,
        Self::Tcp,
        Self::Tls,
        Self::Ws,
        Self::Wss,
        Self::Sctp,
        Self::TlsSctp,
    ];

    /// Recognises a transport token, whatever its case.
    #[must_use]
    pub fn from_token(token: &[u8]) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|t| t.token().as_bytes().eq_ignore_ascii_case(token))
    }

    /// The token for a Via header field.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Ws => "WS",
            Self::Wss => "WSS",
            Self::Sctp => "SCTP",
            Self::TlsSctp => "TLS-SCTP",
        }
    }

    /// The token for a URI's `transport` parameter.
    #[must_use]
    pub const fn param(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Sctp => "sctp",
            Self::TlsSctp => "tls-sctp",
        }
    }

    /// The port that a missing one stands for (RFC 3261 19.1.2, RFC 7118 5.3).
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp | Self::Sctp => 5060,
            Self::Tls | Self::TlsSctp => 5061,
            Self::Ws => 80,
            Self::Wss => 443,
        }
    }

    /// Whether the transport itself retransmits (RFC 3261 17).
    #[must_use]
    pub const fn reliable(self) -> bool {
        !matches!(self, Self::Udp)
    }

    /// Whether the transport encrypts.
    #[must_use]
    pub const fn secure(self) -> bool {
        matches!(self, Self::Tls | Self::Wss | Self::TlsSctp)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.param())
    }
}
