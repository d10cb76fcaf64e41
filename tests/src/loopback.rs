//! Addresses for one test: an own part of 127.0.0.0/8, so that tests run side
//! by side on well-known ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The addresses of one test. The process id picks the upper part (a runner
/// may give each test a process), a counter the rest.
#[derive(Debug)]
pub struct Loopback {
    /// Network number, 14 bits of process id and 4 of the counter; 4 host bits are left.
    prefix: u32,
    used: AtomicU32,
}

impl Default for Loopback {
    fn default() -> Self {
        Self::new()
    }
}

impl Loopback {
    /// Addresses that no other running test has.
    #[must_use]
    pub fn new() -> Self {
        let within = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(
            within < 64,
            "more than 64 tests in one process: widen the counter's part"
        );
        // 24 bits in all: 13 of process id, 6 of the counter, 5 for the hosts.
        let prefix = ((std::process::id() & 0x1fff) << 11) | (within << 5);
        Self {
            prefix: 0x7f00_0000 | prefix,
            used: AtomicU32::new(0),
        }
    }

    /// The next unused address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        // The first is left out: it may be 127.0.0.1, which is the demo's.
        let host = self.used.fetch_add(1, Ordering::Relaxed) + 2;
        assert!(host < 31, "a test uses at most 29 addresses");
        IpAddr::V4(Ipv4Addr::from(self.prefix | host))
    }

    /// The next unused address with SIP's port.
    #[must_use]
    pub fn sip(&self) -> SocketAddr {
        SocketAddr::new(self.ip(), 5060)
    }
}
