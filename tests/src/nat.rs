//! Two phones behind two translations of addresses and ports, and the proxy between them:
//! network namespaces that only this test sees.
//!
//! ```text
//! phone 192.168.1.100 -- router 203.0.113.1 --+-- proxy 203.0.113.10
//! phone 192.168.1.100 -- router 203.0.113.2 --+
//! ```
//!
//! Both phones have the same private address, so nothing works by accident. The routers
//! give SIP another port, forget a mapping after [`FORGETS`], and let nothing in that no
//! mapping leads to, but media: those ports are open, as with a translation that maps
//! independently of the endpoint (RFC 4787 section 4.1).

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use crate::process::require;

/// How long a router remembers a mapping without traffic.
pub const FORGETS: Duration = Duration::from_secs(3);

/// The private address of either phone.
pub const PHONE: &str = "192.168.1.100";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A place in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Where the proxy is.
    Public,
    /// Behind the first router.
    First,
    /// Behind the second router.
    Second,
}

impl Place {
    const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::First => "phone1",
            Self::Second => "phone2",
        }
    }
}

/// The network. It is gone with its owner.
#[derive(Debug)]
pub struct Translated {
    prefix: String,
}

impl Translated {
    /// Makes the namespaces and the routers.
    ///
    /// # Panics
    /// When `ip` or `nft` are missing, or the system does not allow it: that takes root.
    #[must_use]
    pub fn new() -> Self {
        require("ip");
        require("nft");
        // Dropped, and the namespaces with it, if any of this fails.
        let net = Self {
            prefix: format!(
                "sipbox{}n{}",
                std::process::id(),
                NEXT.fetch_add(1, Ordering::Relaxed)
            ),
        };
        net.add("public");
        let public = net.name("public");
        net.link(&format!("-n {public} link add lan type bridge"));
        net.link(&format!("-n {public} address add 203.0.113.10/24 dev lan"));
        net.link(&format!("-n {public} link set lan up"));
        for number in [1, 2] {
            net.router(number);
        }
        net
    }

    /// Where the proxy listens.
    #[must_use]
    pub fn proxy(&self) -> SocketAddr {
        SocketAddr::from(([203, 0, 113, 10], 5060))
    }

    /// Does something at a place: sockets that it opens and programs that it starts are
    /// there for good.
    ///
    /// # Panics
    /// When the work does.
    pub fn at<R: Send>(&self, place: Place, work: impl FnOnce() -> R + Send) -> R {
        let path = format!("/run/netns/{}", self.name(place.name()));
        std::thread::scope(|scope| {
            let there = scope.spawn(move || {
                // A thread of its own: the others stay where they are.
                let namespace = File::open(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            match there.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn router(&self, number: u8) {
        let (router, phone) = (format!("router{number}"), format!("phone{number}"));
        self.add(&router);
        self.add(&phone);
        let (public, router) = (self.name("public"), self.name(&router));
        let phone = self.name(&phone);
        for line in [
            format!("link add wan{number} netns {public} type veth peer name wan netns {router}"),
            format!("-n {public} link set wan{number} master lan up"),
            format!("-n {router} address add 203.0.113.{number}/24 dev wan"),
            format!("-n {router} link set wan up"),
            format!("link add lan netns {router} type veth peer name lan netns {phone}"),
            format!("-n {router} address add 192.168.1.1/24 dev lan"),
            format!("-n {router} link set lan up"),
            format!("-n {phone} address add {PHONE}/24 dev lan"),
            format!("-n {phone} link set lan up"),
            format!("-n {phone} route add default via 192.168.1.1"),
        ] {
            self.link(&line);
        }
        let rules = format!(
            "table ip translation {{\n\
             chain leaving {{ type nat hook postrouting priority 100;\n\
             oifname \"wan\" udp sport 5060 masquerade to :31000-31999 random\n\
             oifname \"wan\" masquerade\n}}\n\
             chain media {{ type nat hook prerouting priority -100;\n\
             iifname \"wan\" udp dport 10000-30999 dnat to {PHONE}\n}}\n\
             chain through {{ type filter hook forward priority 0; policy drop;\n\
             iifname \"lan\" accept\nct state established,related accept\nct status dnat accept\n}}\n\
             chain own {{ type filter hook input priority 0; policy drop;\n\
             iifname \"lan\" accept\n}}\n}}\n"
        );
        self.inside(&router, &["nft", "-f", "-"], &rules);
        let seconds = FORGETS.as_secs();
        for (path, value) in [
            ("net/ipv4/ip_forward", 1),
            ("net/netfilter/nf_conntrack_udp_timeout", seconds),
            ("net/netfilter/nf_conntrack_udp_timeout_stream", seconds),
        ] {
            let path = format!("/proc/sys/{path}");
            self.inside(&router, &["tee", &path], &value.to_string());
        }
    }

    fn name(&self, place: &str) -> String {
        format!("{}-{place}", self.prefix)
    }

    fn add(&self, place: &str) {
        let name = self.name(place);
        self.link(&format!("netns add {name}"));
        self.link(&format!("-n {name} link set lo up"));
    }

    fn link(&self, arguments: &str) {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        run(Command::new("ip").args(&arguments), "");
    }

    fn inside(&self, namespace: &str, command: &[&str], input: &str) {
        let mut ip = Command::new("ip");
        run(ip.args(["netns", "exec", namespace]).args(command), input);
    }
}

impl Default for Translated {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Translated {
    fn drop(&mut self) {
        for place in ["public", "router1", "router2", "phone1", "phone2"] {
            let _ = Command::new("ip")
                .args(["netns", "delete", &self.name(place)])
                .stderr(Stdio::null())
                .status();
        }
    }
}

fn run(command: &mut Command, input: &str) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}
