//! Where the parts of those values stand that every message is asked for: found
//! when a request is judged, kept with its index, so that nobody reads a value
//! twice.

use crate::header::HeaderId;
use crate::message::Message;
use crate::name_addr::{Contact, NameAddr};
use crate::span::{Span, span_within};
use crate::uri::{Scheme, Uri};

/// The parts of a message's values. None of them is empty where it is there, so an
/// empty span says that a part is missing (or that its value is malformed).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Of the Request-URI.
    pub uri: UriParts,
    /// Of From.
    pub from: AddressParts,
    /// Of To.
    pub to: AddressParts,
    /// Of the first Contact.
    pub contact: AddressParts,
    /// The digits of CSeq.
    pub cseq_number: Span,
    /// The method of CSeq.
    pub cseq_method: Span,
}

/// The parts of a URI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UriParts {
    /// The scheme, without its colon.
    pub scheme: Span,
    /// The user part; of a tel URI the number.
    pub user: Span,
    /// The host, brackets included.
    pub host: Span,
    /// The digits of the port.
    pub port: Span,
    /// The parameters, without the first semicolon.
    pub params: Span,
}

/// The parts of an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressParts {
    /// The URI as a whole.
    pub uri: Span,
    /// Its user part.
    pub user: Span,
    /// Its host, brackets included.
    pub host: Span,
    /// The digits of its port.
    pub port: Span,
    /// The `tag` parameter.
    pub tag: Span,
    /// The display name, quotes included.
    pub display: Span,
}

impl Parts {
    /// Reads them all; what is malformed has no parts.
    #[must_use]
    pub fn of(message: Message<'_>) -> Self {
        let buffer = message.buffer();
        let address = |address: Result<NameAddr<'_>, _>| {
            address.map_or_else(
                |_| AddressParts::default(),
                |address| AddressParts::of(buffer, &address),
            )
        };
        let uri = Uri::parse(message.request_uri());
        let mut parts = Self {
            uri: uri.map_or_else(|_| UriParts::default(), |uri| UriParts::of(buffer, &uri)),
            from: address(message.from()),
            to: address(message.to()),
            contact: Self::contact_of(message),
            ..Self::default()
        };
        if let Ok(cseq) = message.cseq() {
            parts.cseq(message, cseq.method);
        }
        parts
    }

    /// Those of the first Contact.
    pub(crate) fn contact_of(message: Message<'_>) -> AddressParts {
        match message.contacts().next() {
            Some(Ok(Contact::Addr(contact))) => AddressParts::of(message.buffer(), &contact),
            _ => AddressParts::default(),
        }
    }

    /// Notes a CSeq that was read and has this method.
    pub(crate) fn cseq(&mut self, message: Message<'_>, method: &[u8]) {
        self.cseq_method = within(message.buffer(), method);
        if let Some(field) = message.field(HeaderId::CSeq) {
            let start = field.value.start as usize;
            self.cseq_number = digits(message.buffer(), start);
        }
    }
}

impl UriParts {
    /// The parts of a URI that stands in `buffer`.
    #[must_use]
    pub fn of(buffer: &[u8], uri: &Uri<'_>) -> Self {
        let scheme = match uri.scheme {
            Scheme::Sip | Scheme::Tel => 3,
            Scheme::Sips => 4,
            Scheme::Other(name) => name.len(),
        };
        let params = uri.params.raw();
        Self {
            scheme: within(buffer, uri.raw.get(..scheme).unwrap_or_default()),
            user: within(buffer, uri.user.unwrap_or_default()),
            host: within(buffer, uri.host_raw),
            port: port(buffer, uri),
            params: within(buffer, params.strip_prefix(b";").unwrap_or(params)),
        }
    }
}

impl AddressParts {
    /// The parts of an address that stands in `buffer`.
    #[must_use]
    pub fn of(buffer: &[u8], address: &NameAddr<'_>) -> Self {
        Self {
            uri: within(buffer, address.uri.raw),
            user: within(buffer, address.uri.user.unwrap_or_default()),
            host: within(buffer, address.uri.host_raw),
            port: port(buffer, &address.uri),
            tag: within(buffer, address.tag().unwrap_or_default()),
            display: within(buffer, address.display.unwrap_or_default()),
        }
    }
}

fn within(buffer: &[u8], part: &[u8]) -> Span {
    if part.is_empty() {
        return Span::default();
    }
    span_within(buffer, part).unwrap_or_default()
}

/// The digits behind a host and its colon.
fn port(buffer: &[u8], uri: &Uri<'_>) -> Span {
    if uri.port.is_none() {
        return Span::default();
    }
    let host = within(buffer, uri.host_raw);
    digits(buffer, host.end as usize + 1)
}

fn digits(buffer: &[u8], start: usize) -> Span {
    let rest = buffer.get(start..).unwrap_or_default();
    let len = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    if len == 0 {
        return Span::default();
    }
    Span::new(start, start + len)
}
