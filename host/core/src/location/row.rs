//! What a database keeps of a binding, in the words of OpenSIPS's `location`
//! table, and how changes reach it.

use std::net::SocketAddr;
use std::sync::Arc;

use sipbox_sip::Transport;
use smallvec::SmallVec;

use super::aor::Aor;
use super::binding::Binding;
use crate::flow::{Flow, Home, TenantId};
use crate::policy::BindingFlags;
use crate::time::WallTime;

/// One change of one binding, to be made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The tenant.
    pub tenant: TenantId,
    /// The address of record.
    pub aor: Arc<Aor>,
    /// Orders the changes of one binding: workers may hand them in late, and
    /// then the higher number counts.
    pub sequence: u64,
    /// What changed.
    pub kind: ChangeKind,
}

/// What a [`Change`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The binding is new, or another one of the same id stood before.
    Upsert(Arc<Binding>),
    /// The binding of this id is gone.
    Delete(u64),
}

impl Change {
    /// The id of the binding that changed.
    #[must_use]
    pub fn contact_id(&self) -> u64 {
        match &self.kind {
            ChangeKind::Upsert(binding) => binding.id,
            ChangeKind::Delete(id) => *id,
        }
    }
}

/// Where changes become durable. Called by workers: it must not wait.
pub trait LocationSink: Send + Sync {
    /// Takes changes. `done` is called once, on any thread: with `Ok` when they
    /// have reached what the operator calls durable.
    ///
    /// # Errors
    /// The changes were not taken, and `done` will not be called.
    fn submit(
        &self,
        changes: SmallVec<[Change; 1]>,
        done: Box<dyn FnOnce(Result<(), SinkError>) + Send>,
    ) -> Result<(), SinkError>;
}

/// Why changes are not durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// More changes wait than the queue holds.
    #[error("the queue of the location store is full")]
    Full,
    /// The sink is shutting down.
    #[error("the location store is closed")]
    Closed,
    /// The database refused them.
    #[error("the location store failed: {0}")]
    Failed(Arc<str>),
}

/// A row of the `location` table, column by column.
#[derive(Clone, Debug, PartialEq)]
pub struct LocationRow {
    /// The binding's id; the primary key.
    pub contact_id: u64,
    /// The user of the address of record.
    pub username: String,
    /// Its domain.
    pub domain: String,
    /// The Contact URI.
    pub contact: String,
    /// The source as a URI.
    pub received: Option<String>,
    /// Path values, joined by commas.
    pub path: Option<String>,
    /// Seconds since 1970; 0 is permanent.
    pub expires: u64,
    /// 0.0 to 1.0.
    pub q: f64,
    /// Call-ID of the REGISTER.
    pub callid: String,
    /// Its CSeq number.
    pub cseq: u32,
    /// When the row was written.
    pub last_modified: WallTime,
    /// Always 0; OpenSIPS's internal marks.
    pub flags: u32,
    /// OpenSIPS's branch flags: [`BindingFlags`].
    pub cflags: Option<String>,
    /// User-Agent.
    pub user_agent: String,
    /// The socket that received the REGISTER.
    pub socket: Option<String>,
    /// Bit mask of allowed methods.
    pub methods: Option<u32>,
    /// `+sip.instance`.
    pub sip_instance: Option<String>,
    /// OpenSIPS's key/value blob; kept empty.
    pub kv_store: Option<String>,
    /// `reg-id=N`, where the contact has one: the table knows no better place.
    pub attr: Option<String>,
}

impl LocationRow {
    /// The row of a binding.
    #[must_use]
    pub fn of(aor: &Aor, binding: &Binding) -> Self {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let permanent = binding.expires == Binding::PERMANENT;
        Self {
            contact_id: binding.id,
            username: aor.user().to_owned(),
            domain: aor.domain().to_owned(),
            contact: binding.contact.to_string(),
            received: text(&binding.received),
            path: text(&binding.path.join(",")),
            expires: if permanent {
                0
            } else {
                binding.expires.seconds()
            },
            q: f64::from(binding.q) / 1000.0,
            callid: binding.call_id.to_string(),
            cseq: binding.cseq,
            last_modified: binding.last_modified,
            flags: 0,
            cflags: binding.flags.to_cflags(),
            user_agent: binding.user_agent.to_string(),
            socket: text(&binding.socket),
            methods: binding.methods,
            sip_instance: binding.instance.as_deref().and_then(text),
            kv_store: None,
            attr: binding.reg_id.map(|id| format!("reg-id={id}")),
        }
    }

    /// The binding of a row. `home` finds the listener of a socket's text, and which of
    /// its addresses is meant.
    ///
    /// A UDP flow comes back to life with its listener; a connection is gone.
    pub(super) fn into_binding(
        self,
        sequence: u64,
        home: &dyn Fn(&str) -> Option<Home>,
    ) -> Binding {
        let text = Option::unwrap_or_default;
        let (received, socket) = (text(self.received), text(self.socket));
        let flow = read_received_uri(&received).and_then(|(transport, peer)| {
            let (listener, local) = home(&socket)?;
            (transport == Transport::Udp).then_some(Flow {
                listener,
                transport,
                peer,
                connection: None,
                local,
            })
        });
        let path = self.path.as_deref().map(split_path).unwrap_or_default();
        Binding {
            id: self.contact_id,
            contact: self.contact.into(),
            q: q_of(self.q),
            expires: match self.expires {
                0 => Binding::PERMANENT,
                seconds => WallTime::from_seconds(seconds),
            },
            path,
            received: received.into(),
            flow,
            instance: self
                .sip_instance
                .filter(|s| !s.is_empty())
                .map(String::into_boxed_str),
            reg_id: self
                .attr
                .and_then(|a| a.strip_prefix("reg-id=")?.parse().ok()),
            call_id: self.callid.into(),
            cseq: self.cseq,
            user_agent: self.user_agent.into(),
            methods: self.methods,
            flags: BindingFlags::from_cflags(self.cflags.as_deref().unwrap_or_default()),
            last_modified: self.last_modified,
            socket: socket.into(),
            sequence,
        }
    }
}

/// A column's q in thousandths; what is no preference counts as the best.
fn q_of(q: f64) -> u16 {
    (0..=1000u16)
        .find(|n| f64::from(*n) >= q * 1000.0 - 0.5)
        .filter(|_| q >= 0.0)
        .unwrap_or(1000)
}

/// The values of a Path column: commas inside angle brackets or quotes do not part them.
fn split_path(text: &str) -> SmallVec<[Box<str>; 1]> {
    let (mut bracket, mut quoted) = (false, false);
    let parts = text.split(|c| {
        match c {
            '"' if !bracket => quoted = !quoted,
            '<' if !quoted => bracket = true,
            '>' if !quoted => bracket = false,
            _ => {}
        }
        c == ',' && !bracket && !quoted
    });
    parts
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(Box::from)
        .collect()
}

/// A flow's peer as a URI, the way OpenSIPS writes `received`:
/// `sip:192.0.2.1:5060;transport=tcp`, the parameter left out for UDP.
#[must_use]
pub fn received_uri(flow: &Flow) -> String {
    // Display of an IPv6 peer writes the zone too, which no URI may have.
    let peer = SocketAddr::new(flow.peer.ip(), flow.peer.port());
    match flow.transport {
        Transport::Udp => format!("sip:{peer}"),
        transport => format!("sip:{peer};transport={}", transport.param()),
    }
}

fn read_received_uri(text: &str) -> Option<(Transport, SocketAddr)> {
    let rest = text.strip_prefix("sip:")?;
    let (peer, transport) = match rest.split_once(";transport=") {
        Some((peer, transport)) => (peer, Transport::from_token(transport.as_bytes())?),
        None => (rest, Transport::Udp),
    };
    Some((transport, peer.parse().ok()?))
}

/// OpenSIPS's bit for each method that the `methods` column can name.
const METHOD_BITS: [(&str, u32); 14] = [
    ("INVITE", 1),
    ("CANCEL", 1 << 1),
    ("ACK", 1 << 2),
    ("BYE", 1 << 3),
    ("INFO", 1 << 4),
    ("OPTIONS", 1 << 5),
    ("UPDATE", 1 << 6),
    ("REGISTER", 1 << 7),
    ("MESSAGE", 1 << 8),
    ("SUBSCRIBE", 1 << 9),
    ("NOTIFY", 1 << 10),
    ("PRACK", 1 << 11),
    ("REFER", 1 << 12),
    ("PUBLISH", 1 << 13),
];

/// The mask of the methods in an Allow value. A method that the mask has no bit
/// for sets bit 14.
#[must_use]
pub fn method_mask(allow: &str) -> u32 {
    allow
        .split(',')
        .map(str::trim)
        .filter(|token| !token.is_empty())
        .fold(0, |mask, token| {
            let bit = METHOD_BITS
                .iter()
                .find(|(name, _)| *name == token)
                .map(|(_, bit)| *bit);
            mask | bit.unwrap_or(1 << 14)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{ConnectionId, ListenerId};

    fn binding(transport: Transport) -> Binding {
        let flow = Flow {
            listener: ListenerId(2),
            transport,
            peer: "[2001:db8::1]:5062".parse().unwrap(),
            connection: transport.reliable().then_some(ConnectionId {
                slot: 1,
                generation: 2,
            }),
            local: None,
        };
        Binding {
            id: 42,
            contact: "sip:alice@10.0.0.1".into(),
            q: 333,
            expires: WallTime::from_seconds(5000),
            path: ["<sip:edge.example.com;lr>", "\"a,b\" <sip:x,y@z;lr>"]
                .into_iter()
                .map(Box::from)
                .collect(),
            received: received_uri(&flow).into(),
            flow: Some(flow),
            instance: Some("<urn:uuid:1>".into()),
            reg_id: Some(2),
            call_id: "c1".into(),
            cseq: 9,
            user_agent: "phone".into(),
            methods: Some(method_mask("INVITE, BYE,X")),
            flags: BindingFlags::NATTED.with(BindingFlags::SIPPING),
            last_modified: WallTime::from_seconds(4000),
            socket: "udp:[::]:5060".into(),
            sequence: 7,
        }
    }

    #[test]
    fn a_udp_binding_survives_the_table_with_its_flow() {
        let aor = Aor::parse("alice@example.com").unwrap();
        let binding = binding(Transport::Udp);
        let row = LocationRow::of(&aor, &binding);
        assert_eq!(
            (row.username.as_str(), row.domain.as_str()),
            ("alice", "example.com")
        );
        assert_eq!(row.received.as_deref(), Some("sip:[2001:db8::1]:5062"));
        assert_eq!(row.cflags.as_deref(), Some("NAT SIP_PING_FLAG"));
        let find = |socket: &str| (socket == "udp:[::]:5060").then_some((ListenerId(2), None));
        assert_eq!(row.clone().into_binding(7, &find), binding);
        // Of a listener on every address the socket tells which one it was.
        let ours = Some("2001:db8::9".parse().unwrap());
        let back = row.into_binding(7, &|_| Some((ListenerId(4), ours)));
        let flow = back.flow.map(|flow| (flow.listener, flow.local));
        assert_eq!(flow, Some((ListenerId(4), ours)));
    }

    #[test]
    fn a_connection_does_not_survive_a_restart() {
        let aor = Aor::parse("alice@example.com").unwrap();
        let binding = binding(Transport::Tcp);
        let row = LocationRow::of(&aor, &binding);
        assert_eq!(
            row.received.as_deref(),
            Some("sip:[2001:db8::1]:5062;transport=tcp")
        );
        let back = row.into_binding(7, &|_| Some((ListenerId(2), None)));
        assert_eq!(
            back,
            Binding {
                flow: None,
                ..binding
            }
        );
    }

    #[test]
    fn a_flow_without_its_listener_is_forgotten() {
        let aor = Aor::parse("alice@example.com").unwrap();
        let row = LocationRow::of(&aor, &binding(Transport::Udp));
        assert_eq!(row.into_binding(7, &|_| None).flow, None);
    }

    #[test]
    fn a_permanent_binding_has_expires_zero() {
        let aor = Aor::parse("alice@example.com").unwrap();
        let binding = Binding {
            expires: Binding::PERMANENT,
            ..binding(Transport::Udp)
        };
        let row = LocationRow::of(&aor, &binding);
        assert_eq!(row.expires, 0);
        assert_eq!(row.into_binding(0, &|_| None).expires, Binding::PERMANENT);
    }

    #[test]
    fn every_q_survives_the_column() {
        for q in 0..=1000u16 {
            assert_eq!(q_of(f64::from(q) / 1000.0), q);
            assert_eq!(
                q_of(f64::from(f32::from(q) / 1000.0)),
                q,
                "single precision"
            );
        }
        assert_eq!(q_of(-1.0), 1000, "OpenSIPS's word for none");
        assert_eq!(q_of(f64::NAN), 1000);
    }

    #[test]
    fn methods_have_opensips_bits() {
        assert_eq!(
            method_mask("INVITE,ACK, CANCEL ,OPTIONS,BYE"),
            1 + 4 + 2 + 32 + 8
        );
        assert_eq!(method_mask("invite"), 1 << 14, "methods are case-sensitive");
        assert_eq!(method_mask(""), 0);
    }
}
