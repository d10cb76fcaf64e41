//! What a received message must be like before anything acts on it: RFC 3261
//! 8.1.1, 16.3 and 18.3, and the cases of RFC 4475. Each rule is one entry here.
//!
//! Three rules of 16.3 that need a proxy's own knowledge are not here but in
//! `sipbox-core`: Max-Forwards 0 (483), loops (482), Proxy-Require (420).

use std::net::IpAddr;

use crate::error::ValueError;
use crate::header::HeaderId;
use crate::index::ContentLength;
use crate::lex;
use crate::message::Message;
use crate::method::Method;
use crate::name_addr::{Contact, NameAddr};
use crate::parts::{AddressParts, Parts, UriParts};
use crate::uri::{Scheme, Uri};
use crate::via::{MAGIC_COOKIE, Via};

/// What the rules need to know besides the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The message came in a datagram: its body is all that came, so a shorter
    /// one than Content-Length says is an error (18.3).
    pub datagram: bool,
    /// Longest message that is processed (513 beyond it).
    pub message: usize,
    /// Largest number of header fields.
    pub headers: usize,
    /// Longest Request-URI (414 beyond it).
    pub request_uri: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            datagram: true,
            message: 65_535,
            headers: 512,
            request_uri: 8_192,
        }
    }
}

/// What is wrong with a message, and how to say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status} {reason} ({rfc})")]
pub struct Fault {
    /// The status to answer a request with.
    pub status: u16,
    /// The reason phrase, naming the culprit.
    pub reason: &'static str,
    /// Where it is written.
    pub rfc: &'static str,
    /// Whether an answer can be sent: the message is a request other than ACK and
    /// its topmost Via is readable. Otherwise the message is dropped.
    pub answerable: bool,
}

/// What was read of a message that passed.
#[derive(Clone, Copy, Debug)]
pub struct Checked<'a> {
    /// Its topmost Via, which whoever acts on it needs first.
    pub via: Via<'a>,
    /// Of a request: where the parts of its values stand.
    pub parts: Parts,
}

/// Judges a received message. A response with a fault is to be dropped; what a
/// proxy does not read of it is not judged (16.7), for its sender cannot be told.
///
///
/// # Errors
/// The first rule that the message breaks.
pub fn check<'a>(message: Message<'a>, limits: &Limits) -> Result<Checked<'a>, Fault> {
    let mut parts = Parts::default();
    let judged = if message.is_request() {
        request(message, limits, &mut parts)
    } else {
        response(message, limits)
    };
    match judged {
        Ok(via) => Ok(Checked { via, parts }),
        Err(rule) => Err(fault(message, rule)),
    }
}

fn fault(message: Message<'_>, rule: Rule) -> Fault {
    let answerable = message.is_request()
        && message.method() != Method::Ack
        && message.via_top_lenient().is_ok();
    Fault {
        status: rule.0,
        reason: rule.1,
        rfc: rule.2,
        answerable,
    }
}

/// Judges a message that had passed before some of it was changed: what may be wrong is the
/// whole of it, what is counted, and the fields that were changed, all of which `changed` has
/// to name.
///
/// # Errors
/// The first rule that the message breaks.
pub fn check_changed(
    message: Message<'_>,
    limits: &Limits,
    changed: &[HeaderId],
) -> Result<(), Fault> {
    let has = |ids: &[HeaderId]| ids.iter().any(|id| changed.contains(id));
    let request = message.is_request();
    let judged = || {
        if request {
            size(message, limits)?;
        }
        framing(message, limits)?;
        head(message, limits)?;
        if request {
            request_line(message, limits)?;
        }
        singles(message)?;
        if has(&[HeaderId::From, HeaderId::To, HeaderId::CallId]) {
            addresses(message)?;
        }
        if has(&[HeaderId::CSeq]) {
            cseq(message)?;
        }
        if has(&[HeaderId::Via]) {
            vias(message)?;
        }
        if request && has(&[HeaderId::MaxForwards]) {
            hops(message)?;
        }
        if request && has(&ROUTES) {
            routes(message)?;
        }
        if request && has(&[HeaderId::Contact]) {
            contacts(message)?;
        }
        Ok(())
    };
    judged().map_err(|rule| fault(message, rule))
}

#[derive(Clone, Copy)]
struct Rule(u16, &'static str, &'static str);

fn request<'a>(message: Message<'a>, limits: &Limits, parts: &mut Parts) -> Result<Via<'a>, Rule> {
    version(message)?;
    size(message, limits)?;
    framing(message, limits)?;
    head(message, limits)?;
    parts.uri = request_line(message, limits)?;
    singles(message)?;
    let (from, to) = addresses(message)?;
    parts.from = AddressParts::of(message.buffer(), &from);
    parts.to = AddressParts::of(message.buffer(), &to);
    let method = cseq(message)?;
    parts.cseq(message, method);
    hops(message)?;
    let top = vias(message)?;
    routes(message)?;
    parts.contact = contacts(message)?;
    Ok(top)
}

fn response<'a>(message: Message<'a>, limits: &Limits) -> Result<Via<'a>, Rule> {
    if !message.version().eq_ignore_ascii_case(b"SIP/2.0") {
        return Err(Rule(505, "Version Not Supported", "RFC 3261 7.2"));
    }
    if message.status().is_none() {
        return Err(Rule(400, "Bad Request: status code", "RFC 4475 3.1.2.19"));
    }
    framing(message, limits)?;
    head(message, limits)?;
    singles(message)?;
    addresses(message)?;
    cseq(message)?;
    vias(message)
}

/// 21.5.7: how large a request may be.
fn size(message: Message<'_>, limits: &Limits) -> Result<(), Rule> {
    if message.buffer().len() > limits.message {
        return Err(Rule(513, "Message Too Large", "RFC 3261 21.5.7"));
    }
    Ok(())
}

/// 8.1.1.5: CSeq is there, and in a request names its method.
fn cseq(message: Message<'_>) -> Result<&[u8], Rule> {
    let cseq = message.cseq();
    let cseq = cseq.map_err(|error| field(HeaderId::CSeq, error))?;
    if message.is_request() && cseq.method != message.method_token() {
        return Err(Rule(
            400,
            "Bad Request: CSeq method differs",
            "RFC 4475 3.1.2.17",
        ));
    }
    Ok(cseq.method)
}

/// 20.22: Max-Forwards is a small number.
fn hops(message: Message<'_>) -> Result<(), Rule> {
    let hops = message.max_forwards();
    hops.map_err(|error| field(HeaderId::MaxForwards, error))?;
    Ok(())
}

/// The fields of routes.
const ROUTES: [HeaderId; 3] = [HeaderId::Route, HeaderId::RecordRoute, HeaderId::Path];

/// Route and its kin are name-addr only (20.30, 20.34).
fn routes(message: Message<'_>) -> Result<(), Rule> {
    for id in ROUTES {
        for address in message.addresses(id) {
            if !address.map_err(|error| field(id, error))?.bracketed {
                return Err(field(id, ValueError::Malformed("address")));
            }
        }
    }
    Ok(())
}

/// 16.3 1 and 21.5.6: a version that is not ours is said to be so, before anything
/// else in a message of that version is judged.
fn version(message: Message<'_>) -> Result<(), Rule> {
    let version = message.version();
    if version.eq_ignore_ascii_case(b"SIP/2.0") {
        return Ok(());
    }
    if crate::index::is_version(version) {
        return Err(Rule(505, "Version Not Supported", "RFC 4475 3.1.2.16"));
    }
    Err(Rule(400, "Bad Request: SIP-Version", "RFC 3261 7.1"))
}

/// 18.3 and 20.14: Content-Length is one number; a datagram holds that many bytes.
fn framing(message: Message<'_>, limits: &Limits) -> Result<(), Rule> {
    let index = message.index();
    match index.content_length() {
        ContentLength::Invalid => Err(Rule(400, "Bad Request: Content-Length", "RFC 4475 3.1.2.3")),
        ContentLength::Conflicting => Err(Rule(
            400,
            "Bad Request: several Content-Length",
            "RFC 4475 3.3.9",
        )),
        ContentLength::Value(n)
            if limits.datagram && message.buffer().len() - index.head_end() < n as usize =>
        {
            Err(Rule(
                400,
                "Bad Request: body shorter than Content-Length",
                "RFC 4475 3.1.2.2",
            ))
        }
        ContentLength::Absent if !limits.datagram => Err(Rule(
            400,
            "Bad Request: missing Content-Length",
            "RFC 3261 20.14",
        )),
        _ => Ok(()),
    }
}

/// 7.3.1 and 7.5: header fields in lines that end with CRLF, up to an empty line.
fn head(message: Message<'_>, limits: &Limits) -> Result<(), Rule> {
    let index = message.index();
    if index.malformed.is_some() {
        return Err(Rule(
            400,
            "Bad Request: malformed header line",
            "RFC 3261 7.3.1",
        ));
    }
    if !index.terminated {
        return Err(Rule(
            400,
            "Bad Request: header fields without end",
            "RFC 3261 7",
        ));
    }
    if index.headers().len() > limits.headers {
        return Err(Rule(
            513,
            "Message Too Large: header fields",
            "RFC 3261 21.5.7",
        ));
    }
    // A CR alone is a line end to some readers and white space to others.
    if index.stray_cr {
        return Err(Rule(400, "Bad Request: CR without LF", "RFC 3261 25.1"));
    }
    Ok(())
}

/// 7.1 and 16.3 2: one space between the parts, a URI of a scheme that is routed,
/// without headers (19.1.1).
fn request_line(message: Message<'_>, limits: &Limits) -> Result<UriParts, Rule> {
    let start = &message.index().start;
    if !lex::is_token(message.method_token()) {
        return Err(Rule(400, "Bad Request: method", "RFC 3261 7.1"));
    }
    let raw = message.request_uri();
    if raw.len() > limits.request_uri {
        return Err(Rule(414, "Request-URI Too Long", "RFC 3261 21.4.13"));
    }
    if !start.exact || raw.iter().any(|b| lex::is_lws_byte(*b)) {
        return Err(Rule(
            400,
            "Bad Request: white space in Request-Line",
            "RFC 4475 3.1.2.8",
        ));
    }
    let uri =
        Uri::parse(raw).map_err(|_| Rule(400, "Bad Request: Request-URI", "RFC 4475 3.1.2.7"))?;
    if matches!(uri.scheme, Scheme::Other(_)) {
        return Err(Rule(416, "Unsupported URI Scheme", "RFC 4475 3.3.2"));
    }
    if !uri.headers.is_empty() {
        return Err(Rule(
            400,
            "Bad Request: Request-URI with headers",
            "RFC 4475 3.1.2.11",
        ));
    }
    Ok(UriParts::of(message.buffer(), &uri))
}

/// 7.3.1: fields whose grammar is no list appear once. Which of several values
/// another element would believe nobody knows (RFC 4475 3.3.8).
fn singles(message: Message<'_>) -> Result<(), Rule> {
    for (at, header) in message.headers().iter().enumerate() {
        if header.id.is_single()
            && header.id != HeaderId::ContentLength
            && message.index().position(header.id) != Some(at)
        {
            return Err(field(header.id, ValueError::Repeated(header.id)));
        }
    }
    Ok(())
}

/// 8.1.1: From, To and Call-ID are there and readable.
fn addresses(message: Message<'_>) -> Result<(NameAddr<'_>, NameAddr<'_>), Rule> {
    let from = message
        .from()
        .map_err(|error| field(HeaderId::From, error))?;
    let to = message.to().map_err(|error| field(HeaderId::To, error))?;
    message
        .call_id()
        .map_err(|error| field(HeaderId::CallId, error))?;
    Ok((from, to))
}

/// Every Via is well-formed: responses will go along each of them. A branch that
/// is nothing but the cookie identifies nothing (RFC 4475 3.2.1). A response that
/// would go on to a broadcast or multicast address is not sent there (3.3.10).
fn vias(message: Message<'_>) -> Result<Via<'_>, Rule> {
    let mut top = None;
    let mut second = false;
    for via in message.vias() {
        let via = via.map_err(|error| field(HeaderId::Via, error))?;
        if !via.protocol.eq_ignore_ascii_case(b"SIP") || via.version != b"2.0" {
            return Err(Rule(400, "Bad Request: Via protocol", "RFC 3261 20.42"));
        }
        if top.is_none()
            && message.is_request()
            && via.has_cookie()
            && via
                .branch()
                .is_some_and(|branch| branch.len() == MAGIC_COOKIE.len())
        {
            return Err(Rule(
                400,
                "Bad Request: empty branch in Via",
                "RFC 4475 3.2.1",
            ));
        }
        if second && !message.is_request() && destination(&via).is_some_and(is_many) {
            return Err(Rule(
                400,
                "Bad Request: broadcast address in Via",
                "RFC 4475 3.3.10",
            ));
        }
        second = top.is_none();
        top.get_or_insert(via);
    }
    top.ok_or_else(|| field(HeaderId::Via, ValueError::Missing(HeaderId::Via)))
}

/// Contact elements are well-formed. The star stands alone and in REGISTER only
/// (10.2.2); a proxy does not judge that, the registrar does. Returns the parts of
/// the first.
fn contacts(message: Message<'_>) -> Result<AddressParts, Rule> {
    let mut first = None;
    for contact in message.contacts() {
        let contact = contact.map_err(|error| field(HeaderId::Contact, error))?;
        first.get_or_insert_with(|| match contact {
            Contact::Addr(address) => AddressParts::of(message.buffer(), &address),
            Contact::Star => AddressParts::default(),
        });
    }
    Ok(first.unwrap_or_default())
}

fn destination(via: &Via<'_>) -> Option<IpAddr> {
    via.received().or_else(|| via.host.ip())
}

fn is_many(ip: IpAddr) -> bool {
    ip.is_multicast() || ip.is_unspecified() || matches!(ip, IpAddr::V4(v4) if v4.is_broadcast())
}

/// The 400 that names a field.
fn field(id: HeaderId, error: ValueError) -> Rule {
    let missing = matches!(error, ValueError::Missing(_));
    let repeated = matches!(error, ValueError::Repeated(_));
    let reason = match id {
        HeaderId::Via if missing => "Bad Request: missing Via",
        HeaderId::Via => "Bad Request: Via",
        HeaderId::From if missing => "Bad Request: missing From",
        HeaderId::From if repeated => "Bad Request: several From",
        HeaderId::From => "Bad Request: From",
        HeaderId::To if missing => "Bad Request: missing To",
        HeaderId::To if repeated => "Bad Request: several To",
        HeaderId::To => "Bad Request: To",
        HeaderId::CallId if missing => "Bad Request: missing Call-ID",
        HeaderId::CallId if repeated => "Bad Request: several Call-ID",
        HeaderId::CallId => "Bad Request: Call-ID",
        HeaderId::CSeq if missing => "Bad Request: missing CSeq",
        HeaderId::CSeq if repeated => "Bad Request: several CSeq",
        HeaderId::CSeq => "Bad Request: CSeq",
        HeaderId::MaxForwards if repeated => "Bad Request: several Max-Forwards",
        HeaderId::MaxForwards => "Bad Request: Max-Forwards",
        HeaderId::Contact => "Bad Request: Contact",
        HeaderId::Route => "Bad Request: Route",
        HeaderId::RecordRoute => "Bad Request: Record-Route",
        HeaderId::Path => "Bad Request: Path",
        HeaderId::ContentType => "Bad Request: several Content-Type",
        HeaderId::Expires => "Bad Request: several Expires",
        _ => "Bad Request: repeated header field",
    };
    let rfc = if missing {
        "RFC 3261 8.1.1"
    } else {
        "RFC 3261 20"
    };
    Rule(400, reason, if repeated { "RFC 4475 3.3.8" } else { rfc })
}
