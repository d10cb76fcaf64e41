//! Reading a REGISTER: what RFC 3261 section 10.3 wants to know of it, copied out
//! of the message once, so that planning and committing judge the same thing.

use std::net::{IpAddr, SocketAddr};

use sipbox_sip::{Contact, HeaderId, Message, NameAddr, Transport, Via, lex, nat};
use smallvec::SmallVec;

use super::row::method_mask;
use super::rules::Refused;
use crate::flow::Flow;
use crate::policy::Reached;
use crate::reply;

/// A REGISTER, as far as it concerns bindings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    /// What it asks for.
    pub contacts: Contacts,
    /// Call-ID.
    pub call_id: Box<str>,
    /// The CSeq number.
    pub cseq: u32,
    /// Path values, first hop first.
    pub path: SmallVec<[Box<str>; 1]>,
    /// User-Agent, or empty.
    pub user_agent: Box<str>,
    /// The methods that Allow names.
    pub methods: Option<u32>,
}

/// What the Contact header fields of a REGISTER say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contacts {
    /// There is none: the current bindings are wanted (section 10.2.3).
    Query,
    /// `*` with Expires 0 (section 10.2.2).
    RemoveAll,
    /// Bindings to write or to remove.
    Update(SmallVec<[ContactUpdate; 1]>),
}

/// One Contact of a REGISTER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContactUpdate {
    /// The URI.
    pub uri: Box<str>,
    /// The seconds asked for: the `expires` parameter, or else the Expires header
    /// field; 0 removes.
    pub expires: Option<u32>,
    /// Preference in thousandths; 1000 where none is given.
    pub q: u16,
    /// `+sip.instance`, without quotes.
    pub instance: Option<Box<str>>,
    /// `reg-id`.
    pub reg_id: Option<u32>,
    /// The sender registers somebody else: requests go to the URI.
    pub elsewhere: bool,
}

impl Register {
    /// Reads a REGISTER that came by this flow.
    ///
    /// # Errors
    /// 400 for a malformed Contact, Path, Call-ID or CSeq, and for `*` beside
    /// other contacts or without Expires 0 (section 10.3, step 6).
    pub fn read(message: &Message<'_>, flow: Flow, reached: Reached) -> Result<Self, Refused> {
        let bad = |reason| Refused::new(400, reason);
        let call_id = message.call_id().map_err(|_| bad("Malformed Call-ID"))?;
        let cseq = message.cseq().map_err(|_| bad("Malformed CSeq"))?;
        let mut path = SmallVec::new();
        for value in message.values(HeaderId::Path) {
            NameAddr::parse(value.as_bytes()).map_err(|_| bad("Malformed Path"))?;
            path.push(text(value.as_bytes()).ok_or(bad("Malformed Path"))?);
        }
        let allow = message
            .all(HeaderId::Allow)
            .fold(None, |mask: Option<u32>, field| {
                let value = String::from_utf8_lossy(message.get(field.value));
                Some(mask.unwrap_or(0) | method_mask(&value))
            });
        let user_agent = message.header(HeaderId::UserAgent).unwrap_or_default();
        Ok(Self {
            contacts: Contacts::read(message, flow, reached)?,
            call_id: text(call_id).ok_or(bad("Malformed Call-ID"))?,
            cseq: cseq.number,
            path,
            user_agent: String::from_utf8_lossy(&lex::unfold(user_agent)).into(),
            methods: allow,
        })
    }
}

impl Contacts {
    fn read(message: &Message<'_>, flow: Flow, reached: Reached) -> Result<Self, Refused> {
        // A malformed Expires counts as none (RFC 4475 section 3.1.2.4); only with `*`,
        // which wants a literal 0, is it an error.
        let header = message.expires().ok().flatten();
        let mut updates = SmallVec::new();
        let mut star = false;
        for contact in message.contacts() {
            match contact.map_err(|_| Refused::new(400, "Malformed Contact"))? {
                Contact::Star if star => return Err(mixed()),
                Contact::Star => star = true,
                Contact::Addr(address) => updates.push(ContactUpdate {
                    elsewhere: match reached {
                        Reached::Auto => is_elsewhere(message, &address, flow),
                        Reached::Source => false,
                        Reached::Contact => {
                            flow.transport == Transport::Udp && !is_at(&address, flow.peer)
                        }
                    },
                    ..ContactUpdate::read(&address, header)?
                }),
            }
        }
        match (star, updates.is_empty()) {
            (false, true) => Ok(Self::Query),
            (false, false) => Ok(Self::Update(updates)),
            (true, false) => Err(mixed()),
            (true, true) if header == Some(0) => Ok(Self::RemoveAll),
            (true, true) => Err(Refused::new(400, "Contact * Needs Expires 0")),
        }
    }
}

fn mixed() -> Refused {
    Refused::new(400, "Contact * Must Stand Alone")
}

impl ContactUpdate {
    fn read(address: &NameAddr<'_>, expires: Option<u32>) -> Result<Self, Refused> {
        let malformed = Refused::new(400, "Malformed Contact");
        Ok(Self {
            uri: text(address.uri_raw()).ok_or(malformed)?,
            expires: address.expires().or(expires),
            q: address.q().unwrap_or(1000),
            instance: match address.instance().filter(|i| !i.is_empty()) {
                Some(instance) => Some(text(&instance).ok_or(malformed)?),
                None => None,
            },
            reg_id: address.reg_id(),
            elsewhere: false,
        })
    }
}

/// Whether requests to a Contact go to where the REGISTER came from anyway.
fn is_at(contact: &NameAddr<'_>, source: SocketAddr) -> bool {
    let named = contact.uri.maddr().unwrap_or(contact.uri.host).ip();
    named.map(|named| named.to_canonical()) == Some(source.ip().to_canonical())
        && contact.uri.port_or_default() == source.port()
}

/// Whether a Contact names another host than the one that sends the REGISTER over UDP: a
/// script that registers phones, or a proxy that knows no Path. RFC 3261 section 10.3
/// wants requests at the Contact then.
///
/// A phone behind a NAT names an address that is not the source's either, but its Via
/// does as well (RFC 3581 section 4). So the Via must name the source, and a Contact of
/// a private network counts for nothing outside of it; nobody is reached at an address
/// of ourselves or of many. Names count as the sender's own, and a connection is always
/// the way back.
fn is_elsewhere(message: &Message<'_>, contact: &NameAddr<'_>, flow: Flow) -> bool {
    let source = flow.peer.ip();
    let named = contact.uri.maddr().unwrap_or(contact.uri.host).ip();
    let named = named.map(|named| named.to_canonical());
    let Some(named) = named.filter(|named| contact.uri.is_sip() && *named != source) else {
        return false;
    };
    let direct = |via: Via<'_>| !reply::is_translated(&via, flow);
    flow.transport == Transport::Udp
        && message.via_top_lenient().is_ok_and(direct)
        && is_somebody(named, source)
        && (!is_private(named) || is_private(source))
}

/// Whether an address can be another host's, seen from a source.
fn is_somebody(ip: IpAddr, source: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    let ours = ip.is_loopback() && !source.is_loopback();
    !(ours || broadcast || ip.is_unspecified() || ip.is_multicast())
}

/// Whether an address means nothing outside of its network.
fn is_private(ip: IpAddr) -> bool {
    ip.is_loopback() || nat::is_private(ip)
}

/// Text that may stand in a header field and in a database: UTF-8 without
/// control characters, folds undone.
fn text(bytes: &[u8]) -> Option<Box<str>> {
    let unfolded = lex::unfold(bytes);
    let text = std::str::from_utf8(&unfolded).ok()?;
    (!text.chars().any(char::is_control)).then(|| text.into())
}
