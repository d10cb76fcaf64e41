//! Settings as configured, before they are checked.

use std::net::SocketAddr;
use std::time::Duration;

use sipbox_sip::{Hop, HostPort, Method, Transport};

use crate::dialog;
use crate::flow::TenantId;
use crate::location::PingSettings;
use crate::quota::Quota;

/// The timers of RFC 3261 section 17 and 16.6 that can be set; the others follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Estimate of the round trip; the first retransmission interval.
    pub t1: Duration,
    /// The longest interval of non-INVITE requests and of INVITE responses.
    pub t2: Duration,
    /// How long the network may keep a message.
    pub t4: Duration,
    /// Timer B: an INVITE without any response.
    pub b: Duration,
    /// Timer F: another request without a final response.
    pub f: Duration,
    /// Timer C: an INVITE that got a provisional response and nothing since.
    pub c: Duration,
    /// How long a policy chain may take before its request is answered 500.
    pub decide: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        let t1 = Duration::from_millis(500);
        Self {
            t1,
            t2: Duration::from_secs(4),
            t4: Duration::from_secs(5),
            b: t1 * 64,
            f: t1 * 64,
            c: Duration::from_secs(185),
            decide: Duration::from_secs(30),
        }
    }
}

impl Timers {
    /// 64 T1: timers H, J, L and M, and the wait behind a CANCEL (9.1).
    #[must_use]
    pub fn t1_64(&self) -> Duration {
        self.t1 * 64
    }

    /// How long it takes until Timer E of a client has been reset to T2: 1 + 2 + 4 times T1
    /// by default. It is never reset before it has fired once.
    #[must_use]
    pub fn e_grown(&self) -> Duration {
        let (mut interval, mut grown) = (self.t1 * 2, self.t1);
        while interval < self.t2 {
            grown += interval;
            interval *= 2;
        }
        grown
    }

    /// Timer D: how long responses to an INVITE are absorbed; at least 32 s over
    /// UDP (17.1.1.2), scaled down with T1 in tests.
    #[must_use]
    pub fn d(&self) -> Duration {
        self.t1 * 64
    }
}

/// One `[[route]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticRoute {
    /// The domain of the next hop, whatever its case.
    pub domain: String,
    /// Where requests to it go.
    pub next_hop: Hop,
}

/// A listener, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSpec {
    /// Its name.
    pub name: String,
    /// Its transport.
    pub transport: Transport,
    /// The address that it is bound to, with the actual port.
    pub address: SocketAddr,
    /// Host and port for Via and Record-Route, where `address` will not do.
    pub advertised: Option<HostPort>,
    /// Who serves requests that no domain claims.
    pub tenant: Option<TenantId>,
    /// Methods that are handled without a transaction (RFC 3261 16.11).
    pub stateless: Vec<Method>,
}

/// A tenant, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantSpec {
    /// Its id.
    pub id: TenantId,
    /// Its name.
    pub name: String,
    /// Its domains; no two tenants share one.
    pub domains: Vec<String>,
    /// Methods that are handled without a transaction (RFC 3261 16.11).
    pub stateless: Vec<Method>,
    /// The most transactions that it may have at a time; `None`: an equal share of
    /// [`SettingsSpec::transactions`].
    pub transactions: Option<u32>,
    /// What it may have of calls.
    pub quota: Quota,
}

/// How our Record-Route values are made and read: the options of OpenSIPS's rr module
/// under their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordRouteSpec {
    /// `;ftag=`: the caller's tag, by which the direction of a request is known.
    pub append_fromtag: bool,
    /// Two values where a request leaves from another listener than it came to (RFC 5658).
    pub enable_double_rr: bool,
    /// `;lr=on` instead of `;lr`, for those who cannot read the latter.
    pub enable_full_lr: bool,
    /// The user part of the Request-URI stands in the value.
    pub add_username: bool,
    /// A URI with this user part is not ours, whatever its host.
    pub ignore_user: Option<String>,
    /// A preset that names no address of ours is logged.
    pub enable_socket_mismatch_warning: bool,
    /// `;sig=`: the parameters are signed, together with Call-ID and the caller's tag, and
    /// count only if they come back as they were.
    pub sign: bool,
    /// How long a signature counts.
    pub signature_lifetime: Duration,
}

impl Default for RecordRouteSpec {
    fn default() -> Self {
        Self {
            append_fromtag: true,
            enable_double_rr: true,
            enable_full_lr: false,
            add_username: false,
            ignore_user: None,
            enable_socket_mismatch_warning: true,
            sign: true,
            signature_lifetime: Duration::from_secs(12 * 3600),
        }
    }
}

/// Everything that [`super::Settings::new`] checks.
#[derive(Clone, Debug)]
pub struct SettingsSpec {
    /// Timers.
    pub timers: Timers,
    /// Listeners; a [`crate::flow::ListenerId`] is a position here.
    pub listeners: Vec<ListenerSpec>,
    /// Tenants.
    pub tenants: Vec<TenantSpec>,
    /// Hosts that mean us in a Route, besides the listeners' own addresses.
    pub aliases: Vec<HostPort>,
    /// Static routes.
    pub routes: Vec<StaticRoute>,
    /// Where requests go whose next hop no static route names.
    pub outbound_proxy: Option<Hop>,
    /// Record-Route.
    pub record_route: RecordRouteSpec,
    /// Larger requests go over TCP if their next hop names no transport
    /// (RFC 3261 18.1.1); 0: never.
    pub mtu: usize,
    /// Max-Breadth of requests that name none, and the most that one may name
    /// (RFC 5393 5.3.3).
    pub max_breadth: u8,
    /// Option tags that Proxy-Require may name.
    pub supported: Vec<String>,
    /// Server header of our own responses; empty: none.
    pub server: String,
    /// 100 at once for every INVITE, instead of with the verdict to relay or the
    /// first wait. A stateless reply after a 100 breaks RFC 3261 8.2.7, so off is better.
    pub trying_at_once: bool,
    /// The most transactions at a time, of all tenants together. Requests beyond are
    /// refused; what belongs to one that was let in has as much room again.
    pub transactions: u32,
    /// Pings of bindings.
    pub pings: PingSettings,
    /// What is set for dialogs.
    pub dialogs: dialog::Defaults,
}

impl Default for SettingsSpec {
    fn default() -> Self {
        Self {
            timers: Timers::default(),
            listeners: Vec::new(),
            tenants: Vec::new(),
            aliases: Vec::new(),
            routes: Vec::new(),
            outbound_proxy: None,
            record_route: RecordRouteSpec::default(),
            mtu: 1300,
            max_breadth: 60,
            supported: Vec::new(),
            server: "Sipbox".into(),
            trying_at_once: false,
            transactions: 1 << 20,
            pings: PingSettings::default(),
            dialogs: dialog::Defaults::default(),
        }
    }
}
