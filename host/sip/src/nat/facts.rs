//! The tests of nat_uac_test, each a fact of its own.

use std::net::{IpAddr, SocketAddr};

use super::{bits, is_carrier_grade, is_private};
use crate::body;
use crate::header::HeaderId;
use crate::lex;
use crate::message::Message;
use crate::name_addr::Contact;
use crate::ordinary;
use crate::parts::{AddressParts, Parts};
use crate::sdp::Sdp;
use crate::transport::Transport;
use crate::uri::Host;

bits! {
    /// Facts about the source of a message, under OpenSIPS's names and in its order.
    Facts {
        /// The source's port is not that of the top Via.
        DIFF_PORT_SRC_VIA = 0;
        /// The source's address is not that of the top Via.
        DIFF_IP_SRC_VIA = 1;
        /// The address of a Contact is private.
        PRIVATE_CONTACT = 2;
        /// The address of a stream in a session description is private. The body is read
        /// only for this one.
        PRIVATE_SDP = 3;
        /// The address of the top Via is private.
        PRIVATE_VIA = 4;
        /// The source's address is not that of a Contact.
        DIFF_IP_SRC_CONTACT = 5;
        /// The source's port is not that of a Contact.
        DIFF_PORT_SRC_CONTACT = 6;
        /// The source, the top Via or a Contact is of a carrier's translation (RFC 6598,
        /// RFC 6333).
        CARRIER_GRADE_NAT = 7;
        /// The source is private.
        PRIVATE_SOURCE = 8;
        /// The source is this machine.
        LOOPBACK = 9;
        /// The source is an IPv6 address.
        IPV6 = 10;
    }
}

/// What the top Via can tell.
const OF_VIA: Facts = Facts::DIFF_PORT_SRC_VIA
    .with(Facts::DIFF_IP_SRC_VIA)
    .with(Facts::PRIVATE_VIA)
    .with(Facts::CARRIER_GRADE_NAT);

/// What a Contact can tell.
const OF_CONTACT: Facts = Facts::PRIVATE_CONTACT
    .with(Facts::DIFF_IP_SRC_CONTACT)
    .with(Facts::DIFF_PORT_SRC_CONTACT)
    .with(Facts::CARRIER_GRADE_NAT);

/// Which of the facts `asked` hold of a message with these parts that came from `source`. The
/// top Via of a response names somebody else, so nothing follows from it.
#[must_use]
pub fn classify(
    message: Message<'_>,
    parts: &Parts,
    source: SocketAddr,
    transport: Transport,
    asked: Facts,
) -> Facts {
    let mut found = Found {
        source,
        transport,
        facts: Facts::empty(),
    };
    found.source();
    if message.is_request()
        && !asked.and(OF_VIA).is_empty()
        && let Ok((host, port)) = message.sent_by()
    {
        found.via(&host, port);
    }
    if !asked.and(OF_CONTACT).is_empty() {
        if let Some((host, port)) = plain_contact(message, &parts.contact) {
            found.contact(&host, port);
        } else {
            for contact in message.contacts().flatten() {
                if let Contact::Addr(address) = contact
                    && address.uri.is_sip()
                {
                    found.contact(&address.uri.host, address.uri.port_or_default());
                }
            }
        }
    }
    if asked.contains(Facts::PRIVATE_SDP) && !message.body().is_empty() {
        let content_type = message.header(HeaderId::ContentType).unwrap_or_default();
        let private = body::session_descriptions(content_type, message.body())
            .iter()
            .any(|part| has_private_media(part.of(message.body())));
        found.set(Facts::PRIVATE_SDP, private);
    }
    found.facts.and(asked)
}

/// Host and port of the only Contact, if it is one that most phones write: a SIP URI with an
/// IPv4 address, whose parts are known. Nothing is read again for it.
fn plain_contact<'a>(message: Message<'a>, parts: &AddressParts) -> Option<(Host<'a>, u16)> {
    if !message.get(parts.uri).starts_with(b"sip:") {
        return None;
    }
    let mut fields = message.headers().iter();
    let field = fields.find(|field| field.id == HeaderId::Contact)?;
    let behind = parts.uri.end as usize..field.value.end as usize;
    let others = message.buffer().get(behind)?.contains(&b',');
    if others || fields.any(|field| field.id == HeaderId::Contact) {
        return None;
    }
    let host = ordinary::ipv4(message.get(parts.host))?;
    let port = match message.get(parts.port) {
        // Parameters may say what stands for a missing port.
        b"" if parts.uri.end == parts.host.end => Transport::Udp.default_port(),
        b"" => return None,
        digits => lex::decimal(digits).and_then(|port| u16::try_from(port).ok())?,
    };
    Some((Host::V4(host), port))
}

struct Found {
    source: SocketAddr,
    transport: Transport,
    facts: Facts,
}

impl Found {
    fn set(&mut self, fact: Facts, holds: bool) {
        if holds {
            self.facts = self.facts.with(fact);
        }
    }

    fn ip(&self) -> IpAddr {
        self.source.ip().to_canonical()
    }

    fn source(&mut self) {
        let ip = self.ip();
        self.set(Facts::PRIVATE_SOURCE, is_private(ip));
        self.set(Facts::CARRIER_GRADE_NAT, is_carrier_grade(ip));
        self.set(Facts::LOOPBACK, ip.is_loopback());
        self.set(Facts::IPV6, ip.is_ipv6());
    }

    fn via(&mut self, host: &Host<'_>, port: Option<u16>) {
        let port = port.unwrap_or_else(|| self.transport.default_port());
        self.set(Facts::DIFF_PORT_SRC_VIA, port != self.source.port());
        self.set(Facts::DIFF_IP_SRC_VIA, differs(host, self.ip()));
        let host = host.ip();
        self.set(Facts::PRIVATE_VIA, host.is_some_and(is_private));
        self.set(Facts::CARRIER_GRADE_NAT, host.is_some_and(is_carrier_grade));
    }

    fn contact(&mut self, host: &Host<'_>, port: u16) {
        self.set(Facts::DIFF_IP_SRC_CONTACT, differs(host, self.ip()));
        self.set(Facts::DIFF_PORT_SRC_CONTACT, port != self.source.port());
        let host = host.ip();
        self.set(Facts::PRIVATE_CONTACT, host.is_some_and(is_private));
        self.set(Facts::CARRIER_GRADE_NAT, host.is_some_and(is_carrier_grade));
    }
}

/// Whether a host is not the source. A name cannot be compared, but for those of `.invalid`
/// that browsers make up (RFC 7118 section 5): they are nobody's.
fn differs(host: &Host<'_>, source: IpAddr) -> bool {
    match host {
        Host::Name(name) => {
            let name = name.strip_suffix(b".").unwrap_or(name);
            let tail = name.len().checked_sub(b".invalid".len());
            tail.and_then(|at| name.get(at..))
                .is_some_and(|tail| tail.eq_ignore_ascii_case(b".invalid"))
        }
        Host::V4(_) | Host::V6(_) => host.ip().map(|ip| ip.to_canonical()) != Some(source),
    }
}

/// Whether any `c=` names a private address. A null address names nobody.
fn has_private_media(sdp: &[u8]) -> bool {
    let sdp = Sdp::new(sdp);
    let sections = std::iter::once(sdp.session()).chain(sdp.media());
    sections
        .flat_map(|section| section.connections())
        .filter_map(|connection| connection.ip())
        .any(|ip| !ip.is_unspecified() && is_private(ip))
}
