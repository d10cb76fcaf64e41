//! Responses of our own (RFC 3261 8.2.6) and the way that responses take back
//! (18.2.2, RFC 3581).

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use sipbox_sip::build::ResponseBuilder;
use sipbox_sip::{BuildError, HeaderId, Message, NameAddr, Transport, Via};

use crate::flow::{Flow, NextHop};
use crate::ids::TagText;
use crate::policy::Reply;
use crate::settings::Settings;

/// What a response needs besides the request and the reply.
pub(crate) struct Wanted<'a> {
    /// Where the request came from.
    pub(crate) source: SocketAddr,
    /// The tag that To gets.
    pub(crate) tag: TagText,
    /// The Server header; empty: none.
    pub(crate) server: &'a str,
    /// Where we are, for the Contact of a dialog: `host:port;transport=tcp`.
    pub(crate) hostport: &'a str,
}

impl<'a> Wanted<'a> {
    /// For a request that came by this flow.
    pub(crate) fn new(flow: Flow, tag: TagText, settings: &'a Settings) -> Self {
        let listener = settings.listener(flow.listener);
        Self {
            source: flow.peer,
            tag,
            server: &settings.server,
            hostport: listener.map_or("", |listener| &listener.hostport),
        }
    }
}

/// Writes the response behind what `out` holds; `via` is memory for the top Via.
pub(crate) fn write(
    request: Message<'_>,
    reply: &Reply,
    wanted: &Wanted<'_>,
    via: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<(), BuildError> {
    received_via(request, wanted.source, via);
    // Folds are the sender's; a value that we write stands on one line.
    for byte in via.iter_mut().filter(|byte| matches!(byte, b'\r' | b'\n')) {
        *byte = b' ';
    }
    let dialog = (101..300).contains(&reply.status) && request.method().creates_dialog();
    let contact = dialog.then(|| contact(request, reply, wanted)).flatten();
    let mut builder = ResponseBuilder::new(request, reply.status)
        .to_tag(wanted.tag.as_str().as_bytes())
        .top_via(via);
    if !reply.reason.is_empty() {
        builder = builder.reason(reply.reason.as_bytes());
    }
    // 12.1.1: responses that can make a dialog carry the route set.
    if dialog {
        builder = builder.record_route();
    }
    if let Some(contact) = &contact {
        builder = builder.header(HeaderId::Contact, contact.as_bytes());
    }
    for (name, value) in &reply.headers {
        builder = builder.header(name.as_bytes(), value.as_bytes());
    }
    if !wanted.server.is_empty() && reply.status != 100 {
        builder = builder.header(HeaderId::Server, wanted.server.as_bytes());
    }
    if let Some(body) = &reply.body {
        builder = builder.body(body.content_type.as_bytes(), &body.bytes);
    }
    builder.write(out)
}

/// 12.1.1: where the requests of the dialog are to be sent, unless the policy has said so.
/// In a dialog that was asked for by SIPS it is a SIPS URI.
fn contact(request: Message<'_>, reply: &Reply, wanted: &Wanted<'_>) -> Option<String> {
    let named = reply
        .headers
        .iter()
        .any(|(name, _)| HeaderId::from_name(name.as_bytes()) == HeaderId::Contact);
    if named || wanted.hostport.is_empty() {
        return None;
    }
    let route = request.values(HeaderId::RecordRoute).next();
    let route = route.or_else(|| request.values(HeaderId::Contact).next());
    let uri = route.and_then(|value| NameAddr::parse(value.as_bytes()).ok());
    let secure = |uri: &[u8]| {
        uri.get(..5)
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"sips:"))
    };
    let secure = secure(request.request_uri()) || uri.is_some_and(|uri| secure(uri.uri_raw()));
    let scheme = if secure { "sips" } else { "sip" };
    Some(format!("<{scheme}:{}>", wanted.hostport))
}

/// The top Via as this element received it (18.2.1, RFC 3581 4), into `out`.
pub(crate) fn received_via(request: Message<'_>, source: SocketAddr, out: &mut Vec<u8>) {
    out.clear();
    if let Some(value) = request.values(HeaderId::Via).next()
        && let Ok(via) = Via::parse_lenient(value.as_bytes())
    {
        sipbox_sip::via::write_received(value.as_bytes(), &via, source, out);
    }
}

/// Where the responses to a request go (18.2.2): down its connection; over UDP to
/// `maddr`, to the source port if the sender asked for it (RFC 3581 4), else to the
/// source address and the port of sent-by.
pub(crate) fn hop(via: &Via<'_>, flow: Flow) -> NextHop {
    let ip = flow.peer.ip();
    if flow.transport.reliable() {
        // When the connection is gone a new one goes to received and the sent-by
        // port; over WebSocket there is nobody to connect to (RFC 7118 5).
        let reconnect = !matches!(flow.transport, Transport::Ws | Transport::Wss);
        let port = via.port.unwrap_or_else(|| flow.transport.default_port());
        return NextHop::Flow {
            flow,
            reconnect: reconnect.then_some(SocketAddr::new(ip, port)),
        };
    }
    let port = via.port.unwrap_or_else(|| Transport::Udp.default_port());
    let maddr = via
        .maddr()
        .and_then(|text| std::str::from_utf8(text).ok())
        .and_then(|text| text.trim_matches(['[', ']']).parse().ok());
    let address = match (maddr, via.params.has(b"rport")) {
        (Some(maddr), _) => SocketAddr::new(maddr, port),
        (None, true) => flow.peer,
        (None, false) => SocketAddr::new(ip, port),
    };
    NextHop::Address {
        listener: flow.listener,
        transport: flow.transport,
        address,
        local: flow.local,
    }
}

/// Where the response to a CANCEL goes: as [`hop`], but to its source if those to its INVITE
/// do, which a policy may have asked for.
pub(crate) fn hop_like(invite: NextHop, came: Flow, via: &Via<'_>, flow: Flow) -> NextHop {
    match (hop(via, flow), invite) {
        (
            NextHop::Address {
                listener,
                transport,
                local,
                ..
            },
            NextHop::Address { address, .. },
        ) if address == came.peer => NextHop::Address {
            listener,
            transport,
            address: flow.peer,
            local,
        },
        (hop, _) => hop,
    }
}

/// Where a response goes that no server transaction of ours waits for: along the Via
/// below ours (16.11, 18.2.2).
pub(crate) fn stateless_hop(
    via: &Via<'_>,
    arrived: Flow,
    outbound: Option<crate::flow::ListenerId>,
    local: Option<IpAddr>,
) -> Option<NextHop> {
    let transport = via.known_transport()?;
    let port = match via.rport() {
        Some(Some(port)) => port,
        _ => via.port_or_default(),
    };
    let maddr = (!transport.reliable())
        .then(|| via.maddr())
        .flatten()
        .and_then(|text| std::str::from_utf8(text).ok())
        .and_then(|text| text.trim_matches(['[', ']']).parse().ok());
    let ip = maddr.or_else(|| via.received()).or_else(|| via.host.ip())?;
    let listener = outbound.unwrap_or(arrived.listener);
    Some(NextHop::Address {
        listener,
        transport,
        address: SocketAddr::new(ip, port),
        local,
    })
}

/// Whether the sender does not know its own address: it is behind a NAT that its Via does
/// not tell of (RFC 3581 4).
pub(crate) fn is_translated(via: &Via<'_>, flow: Flow) -> bool {
    via.host.ip() != Some(flow.peer.ip()) || via.port_or_default() != flow.peer.port()
}

/// The parameter of our Via that keeps [`Flow::local`] of a request whose forward leaves
/// nothing behind. Who changes it only changes which of our own addresses an answer
/// leaves from, and could have it lost just as well.
const WAY_BACK: &str = "local";

/// Writes it, as a host (RFC 3261 25.1).
pub(crate) fn push_way_back(local: IpAddr, out: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _ = match local {
        IpAddr::V4(ip) => write!(out, ";{WAY_BACK}={ip}"),
        IpAddr::V6(ip) => write!(out, ";{WAY_BACK}=[{ip}]"),
    };
}

/// Reads it.
pub(crate) fn way_back(ours: &Via<'_>) -> Option<IpAddr> {
    let text = std::str::from_utf8(ours.params.get(WAY_BACK.as_bytes())?).ok()?;
    text.trim_matches(['[', ']']).parse().ok()
}
