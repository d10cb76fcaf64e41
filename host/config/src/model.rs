//! The checked model: every value in range, every name resolved.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sipbox_sip::{Hop, HostPort, Method, Transport};

/// A place in the file: bytes of its text.
pub type Span = std::ops::Range<usize>;

/// A whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `workers`: threads that handle messages; 0: one for each processor.
    pub workers: usize,
    /// `node`: tells this proxy from others in the ids that leave it.
    pub node: u16,
    /// `server`: the Server header of our own responses; empty: none.
    pub server: String,
    /// `aliases`: hosts that mean this proxy in a Route.
    pub aliases: Vec<HostPort>,
    /// `outbound_proxy`: where requests go that no route names a next hop for.
    pub outbound_proxy: Option<Hop>,
    /// `[[listener]]`
    pub listeners: Vec<Listener>,
    /// `[[tenant]]`
    pub tenants: Vec<Tenant>,
    /// `[[route]]`
    pub routes: Vec<Route>,
    /// `[record_route]`
    pub record_route: RecordRoute,
    /// `[timers]`
    pub timers: Timers,
    /// `[limits]`
    pub limits: Limits,
    /// `[dns]`
    pub dns: Dns,
    /// `[store]`
    pub store: Store,
    /// `[control]`
    pub control: Control,
    /// `[log]`
    pub log: Log,
    /// `[auth]`
    pub auth: Auth,
    /// `[dialog]`
    pub dialog: Dialog,
    /// `[nathelper]`
    pub nathelper: Nathelper,
}

/// `[[listener]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// `name`
    pub name: String,
    /// `transport`
    pub transport: Transport,
    /// `address`
    pub address: SocketAddr,
    /// `advertised`: host and port for Via and Record-Route.
    pub advertised: Option<HostPort>,
    /// `tenant`: a position in [`Config::tenants`]; who serves what no domain claims.
    pub tenant: Option<usize>,
    /// `stateless`: methods that are handled without a transaction.
    pub stateless: Vec<Method>,
    /// Where the listener stands.
    pub span: Span,
    /// Where its address stands.
    pub address_span: Span,
}

/// `[[tenant]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// `name`
    pub name: String,
    /// `domains`, in lower case; at most one tenant has each.
    pub domains: Vec<String>,
    /// `grants`: capabilities that its policies may import.
    pub grants: Vec<String>,
    /// `stateless`: methods that are handled without a transaction.
    pub stateless: Vec<Method>,
    /// `[tenant.limits]`
    pub limits: PolicyLimits,
    /// `[[tenant.policy]]`: the chain.
    pub policies: Vec<Policy>,
}

/// `[tenant.limits]`: what one hook call may use, and the tenant's share of CPU and
/// of transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyLimits {
    /// `cpu`: CPU time of a hook call.
    pub cpu: Duration,
    /// `wall`: wall-clock time of a wait.
    pub wall: Duration,
    /// `memory_mib`: linear memory.
    pub memory_mib: u32,
    /// `host_calls`: host calls of a hook call.
    pub host_calls: u32,
    /// `edits`: edits of a hook call.
    pub edits: u32,
    /// `edit_bytes`: their bytes.
    pub edit_bytes: u32,
    /// `output_bytes`: bytes of a verdict.
    pub output_bytes: u32,
    /// `log_bytes`: bytes of log text of a hook call, 128 more for each line.
    pub log_bytes: u32,
    /// `cpu_budget`: CPU time of all its hook calls in each second.
    pub cpu_budget: Duration,
    /// `transactions`: the most that the tenant may have at a time; `None`: an equal
    /// share of [`Limits::transactions`].
    pub transactions: Option<u32>,
    /// `calls`: calls of the tenant at a time; `None`: no limit.
    pub calls: Option<u32>,
    /// `calls_per_second`: calls that may begin in a second; `None`: no limit.
    pub calls_per_second: Option<u32>,
    /// `kv_entries`: values that its policies may keep.
    pub kv_entries: u32,
    /// `kv_mib`: what all of them may take, with their keys.
    pub kv_mib: u32,
    /// `kv_value_bytes`: bytes of one of them.
    pub kv_value_bytes: u32,
    /// `counters`: counters that its policies may keep.
    pub counters: u32,
}

impl Default for PolicyLimits {
    fn default() -> Self {
        Self {
            cpu: Duration::from_millis(5),
            wall: Duration::from_secs(2),
            memory_mib: 16,
            host_calls: 1000,
            edits: 64,
            edit_bytes: 65_536,
            output_bytes: 65_536,
            log_bytes: 4096,
            cpu_budget: Duration::from_millis(500),
            transactions: None,
            calls: None,
            calls_per_second: None,
            kv_entries: 10_000,
            kv_mib: 4,
            kv_value_bytes: 16_384,
            counters: 10_000,
        }
    }
}

/// `[[tenant.policy]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// `name`; by default the component's.
    pub name: String,
    /// `builtin` or `component`
    pub component: Component,
    /// `settings`, as JSON.
    pub settings: serde_json::Value,
    /// `memory_mib`: linear memory; `None`: what [`PolicyLimits`] say.
    pub memory_mib: Option<u32>,
    /// Where the component is named.
    pub component_span: Span,
    /// Where the settings stand; the component's place if there are none.
    pub settings_span: Span,
}

/// Where a component comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Component {
    /// `builtin = "residential"`
    Residential,
    /// `component = "path.wasm"`, relative to the configuration's folder.
    File(PathBuf),
}

/// `[[route]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// `domain`
    pub domain: String,
    /// `next_hop`
    pub next_hop: Hop,
}

/// `[record_route]`: OpenSIPS's rr module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordRoute {
    /// `append_fromtag`: the caller's tag stands in our value.
    pub append_fromtag: bool,
    /// `enable_double_rr`: two values where a request changes listeners.
    pub enable_double_rr: bool,
    /// `enable_full_lr`: `;lr=on` instead of `;lr`.
    pub enable_full_lr: bool,
    /// `add_username`: the user of the Request-URI stands in our value.
    pub add_username: bool,
    /// `ignore_user`: a URI with this user is not ours.
    pub ignore_user: Option<String>,
    /// `enable_socket_mismatch_warning`: a preset that names no address of ours is logged.
    pub enable_socket_mismatch_warning: bool,
    /// `sign`: the parameters of our value are signed, and count only as they were written.
    pub sign: bool,
    /// `signature_lifetime`: how long a signature counts.
    pub signature_lifetime: Duration,
}

/// `[dialog]`: OpenSIPS's dialog module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialog {
    /// `default_timeout`: how long a dialog may last, from its answer on.
    pub default_timeout: Duration,
    /// `delete_delay`: how long one that is over can be looked at.
    pub delete_delay: Duration,
    /// `options_ping_interval`
    pub options_ping_interval: Duration,
    /// `race_condition_timeout`
    pub race_condition_timeout: Duration,
    /// `dlg_match_mode`
    pub dlg_match_mode: MatchMode,
}

/// `dlg_match_mode`: how a request finds its dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchMode {
    /// `did_only`: by the parameter `did` of our Route value.
    DidOnly,
    /// `did_fallback`: by `did`; by Call-ID and tags where it names none.
    DidFallback,
    /// `did_none`: by Call-ID and tags.
    DidNone,
}

/// `[timers]`: RFC 3261 section 17 and 16.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// `t1`
    pub t1: Duration,
    /// `t2`
    pub t2: Duration,
    /// `t4`
    pub t4: Duration,
    /// `b`; by default 64 T1.
    pub b: Duration,
    /// `f`; by default 64 T1.
    pub f: Duration,
    /// `c`
    pub c: Duration,
}

/// `[limits]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `transactions`: the most that there may be at a time; `None`: what half of the
    /// memory is good for.
    pub transactions: Option<u32>,
    /// `udp_max`: larger requests go over TCP if they may; 0: never.
    pub udp_max: usize,
    /// `max_breadth`: Max-Breadth of requests without one.
    pub max_breadth: u8,
    /// `message_max`: bytes of a message on a stream.
    pub message_max: usize,
    /// `connections`: stream connections.
    pub connections: usize,
    /// `connections_per_source`
    pub connections_per_source: u32,
    /// `idle_timeout` of a stream connection.
    pub idle_timeout: Duration,
    /// `message_timeout`: how long a message on a stream may take to come.
    pub message_timeout: Duration,
    /// `connect_timeout`
    pub connect_timeout: Duration,
    /// `drain`: how long a stop waits for the transactions in flight.
    pub drain: Duration,
}

/// `[dns]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// `servers`; none: those of the system.
    pub servers: Vec<SocketAddr>,
    /// `hosts`: the path of a hosts file, relative to the configuration's folder.
    pub hosts: Option<PathBuf>,
    /// `timeout`: how long one try waits for its answer.
    pub timeout: Duration,
    /// `attempts`: how often a question is tried.
    pub attempts: usize,
    /// `deadline`: how long all questions for one name may take together.
    pub deadline: Duration,
    /// `cache`: names that are remembered.
    pub cache: u64,
    /// `max_ttl`: how long one is remembered at most.
    pub max_ttl: Duration,
    /// `negative_ttl`: how long a failure is remembered.
    pub negative_ttl: Duration,
}

/// `[store]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// `path`: the SQLite file, relative to the configuration's folder.
    pub path: PathBuf,
    /// `key`: the file of the secret that outlives restarts; by default beside the database.
    pub key: PathBuf,
    /// `durability`
    pub durability: Durability,
}

/// `durability`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The 200 to a REGISTER follows the disk.
    Commit,
    /// A crash loses at most the last second.
    Behind,
}

/// `[control]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// `socket`: the path, relative to the configuration's folder.
    pub socket: PathBuf,
    /// Where it stands, or its table.
    pub socket_span: Span,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// `format`
    pub format: LogFormat,
    /// `filter`
    pub filter: String,
}

/// `format`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One object a line.
    Json,
}

/// `[auth]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth {
    /// `nonce_lifetime`
    pub nonce_lifetime: Duration,
    /// `nonce_table`: nonces in use that are remembered.
    pub nonce_table: usize,
    /// `failures` of a source and account in `failure_window` that go unpunished.
    pub failures: u32,
    /// `failure_window`
    pub failure_window: Duration,
}

/// `[nathelper]`: pings of bindings, under OpenSIPS's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nathelper {
    /// `natping_interval`: each binding is pinged once in it, all of them spread over it;
    /// zero: none is.
    pub natping_interval: Duration,
    /// `ping_nated_only`: only bindings that are marked so.
    pub ping_nated_only: bool,
    /// `natping_tcp`: connections too.
    pub natping_tcp: bool,
    /// `natping_datagram`: what goes over UDP to bindings that are not marked for requests.
    pub natping_datagram: Datagram,
    /// `sipping_method`
    pub sipping_method: String,
    /// `sipping_from`: a URI; empty: the listener's address.
    pub sipping_from: String,
    /// `sipping_ignore_rpl_codes`: statuses that are no answer.
    pub sipping_ignore_rpl_codes: Vec<u16>,
    /// `ping_threshold`: how long an answer may take.
    pub ping_threshold: Duration,
    /// `max_pings_lost`: missed answers that remove a binding marked so; 0: never.
    pub max_pings_lost: u32,
}

/// What a ping over UDP is that asks for no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram {
    /// `zeros`: four bytes.
    Zeros,
    /// `crlf`: two line ends.
    Crlf,
    /// `stun`: a Binding indication.
    Stun,
}
