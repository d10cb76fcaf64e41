//! The message of a hook call, read from the one view that the host hands over.
//!
//! [`Message`] is what requests and responses share; [`Request`] and
//! [`Response`] add what is theirs. Getters cost no host call. Edits and the
//! transaction's memory are host calls and live in `call.rs`.

use std::cell::OnceCell;
use std::ops::{Deref, Range};

use crate::bindings::host::sipbox::policy::message::MessageView;
use crate::ids;
use crate::uri::{Party, Uri};

/// How a message travels.
pub use crate::bindings::host::sipbox::policy::types::Transport;

/// What processing the Route header fields found (RFC 3261 section 16.4).
pub use crate::bindings::host::sipbox::policy::call::RouteResult as RouteOutcome;

/// What [`Request::route_signature`] says.
pub use crate::bindings::host::sipbox::policy::call::SignatureResult as RouteSignature;

/// Where an in-dialog request goes.
pub use crate::bindings::host::sipbox::policy::call::DialogDirection as Direction;

/// The time of the call.
pub use crate::bindings::host::sipbox::policy::call::Time;

/// Where a message came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source<'a> {
    /// The address as text, IPv6 without brackets.
    pub address: &'a str,
    /// The port.
    pub port: u16,
    /// The transport.
    pub transport: Transport,
}

/// What requests and responses have in common.
#[derive(Debug)]
pub struct Message {
    text: String,
    index: Vec<u32>,
    /// Start line and header fields as received; fetched when somebody asks for them.
    bytes: OnceCell<Vec<u8>>,
}

/// A request, in `on_request`, `on_branch` and `on_failure`.
#[derive(Debug)]
pub struct Request(Message);

/// A response, in `on_reply`.
#[derive(Debug)]
pub struct Response(Message);

impl Deref for Request {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.0
    }
}

impl Deref for Response {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.0
    }
}

impl Request {
    /// Reads the request of this hook call.
    #[doc(hidden)]
    #[must_use]
    pub fn current() -> Self {
        Self::from_view(crate::sys::view())
    }

    /// Reads a request from a view.
    #[doc(hidden)]
    #[must_use]
    pub fn from_view(view: MessageView) -> Self {
        Self(Message::new(view))
    }

    /// The method: `INVITE`.
    #[must_use]
    pub fn method(&self) -> &str {
        self.text(ids::METHOD).unwrap_or_default()
    }

    /// The Request-URI.
    #[must_use]
    pub fn request_uri(&self) -> Uri<'_> {
        Uri(self)
    }

    /// What processing the Route header fields found.
    #[must_use]
    pub fn route_outcome(&self) -> RouteOutcome {
        match self.words(ids::ROUTING).map(|(outcome, _)| outcome) {
            Some(1) => RouteOutcome::Loose,
            Some(2) => RouteOutcome::Strict,
            Some(3) => RouteOutcome::Preloaded,
            Some(4) => RouteOutcome::Foreign,
            _ => RouteOutcome::None,
        }
    }

    /// What the signature of the Route value that was ours says.
    #[must_use]
    pub fn route_signature(&self) -> RouteSignature {
        let (flags, _) = self.words(ids::FLAGS).unwrap_or_default();
        if flags & ids::FLAG_ROUTE_SIGNED != 0 {
            RouteSignature::Valid
        } else if flags & ids::FLAG_ROUTE_FORGED != 0 {
            RouteSignature::Invalid
        } else if flags & ids::FLAG_ROUTE_EXPIRED != 0 {
            RouteSignature::Expired
        } else {
            RouteSignature::None
        }
    }

    /// The parameters of the Route value that was ours, without the first semicolon.
    #[must_use]
    pub fn route_params(&self) -> &str {
        self.text(ids::ROUTE_PARAMS).unwrap_or_default()
    }

    /// A parameter of the Route value that was ours; `Some("")`: it has no value.
    #[must_use]
    pub fn route_param(&self, name: &str) -> Option<&str> {
        crate::uri::param(self.text(ids::ROUTE_PARAMS)?, name)
    }

    /// The user that `auth.check` confirmed in an earlier hook or policy of this
    /// transaction.
    #[must_use]
    pub fn authenticated_user(&self) -> Option<&str> {
        self.text(ids::AUTHENTICATED_USER)
    }
}

impl Response {
    /// Reads the response of this hook call.
    #[doc(hidden)]
    #[must_use]
    pub fn current() -> Self {
        Self::from_view(crate::sys::view())
    }

    /// Reads a response from a view.
    #[doc(hidden)]
    #[must_use]
    pub fn from_view(view: MessageView) -> Self {
        Self(Message::new(view))
    }

    /// The status code, or 0 if it is unreadable.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.text(ids::STATUS)
            .and_then(|status| status.parse().ok())
            .unwrap_or_default()
    }

    /// The reason phrase.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.text(ids::REASON).unwrap_or_default()
    }
}

impl Message {
    fn new(view: MessageView) -> Self {
        Self {
            text: view.text,
            index: view.index,
            bytes: OnceCell::new(),
        }
    }

    /// From: who sends.
    #[must_use]
    pub fn from(&self) -> Party<'_> {
        Party {
            message: self,
            block: ids::FROM,
            port: ids::FROM + ids::party::PORT,
        }
    }

    /// To: whom it is meant for.
    #[must_use]
    pub fn to(&self) -> Party<'_> {
        Party {
            message: self,
            block: ids::TO,
            port: ids::TO + ids::party::PORT,
        }
    }

    /// The URI of the first Contact, with its parts.
    #[must_use]
    pub fn contact(&self) -> Option<Party<'_>> {
        let port = ids::CONTACT + ids::contact::PORT;
        self.text(ids::CONTACT + ids::contact::URI)?;
        Some(Party {
            message: self,
            block: ids::CONTACT,
            port,
        })
    }

    /// Call-ID.
    #[must_use]
    pub fn call_id(&self) -> &str {
        self.text(ids::CALL_ID).unwrap_or_default()
    }

    /// The number of CSeq.
    #[must_use]
    pub fn cseq_number(&self) -> Option<u32> {
        self.text(ids::CSEQ_NUMBER)?.parse().ok()
    }

    /// The method of CSeq: in a response, that of its request.
    #[must_use]
    pub fn cseq_method(&self) -> &str {
        self.text(ids::CSEQ_METHOD).unwrap_or_default()
    }

    /// The first header field of that name, in long or compact form.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).next()
    }

    /// Every header field of that name, in long or compact form. A field that
    /// holds a list is one item.
    pub fn headers<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        let name = ids::long_form(name);
        let id = ids::field(name);
        self.fields().filter_map(move |field| {
            let hit = match id {
                Some(id) => field.id == id,
                None => field.name.eq_ignore_ascii_case(name),
            };
            hit.then_some(field.value)
        })
    }

    /// Every header field with its name, in the order of the message. Names of
    /// known fields are in the standard spelling.
    pub fn all_headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields().map(|field| (field.name, field.value))
    }

    /// The exact bytes of the first header field of that name. The first time that this
    /// is asked costs a host call.
    #[must_use]
    pub fn header_bytes(&self, name: &str) -> Option<&[u8]> {
        let name = ids::long_form(name);
        let (offset, length) = match ids::field(name) {
            Some(id) => self.words(id)?,
            None => self
                .fields()
                .find(|field| field.name.eq_ignore_ascii_case(name))
                .map(|field| (field.offset, field.length))?,
        };
        let bytes = self.bytes.get_or_init(crate::sys::bytes);
        bytes.get(span(offset, length)?)
    }

    /// Where the message came from.
    #[must_use]
    pub fn source(&self) -> Source<'_> {
        let (port, transport) = self.words(ids::SOURCE_PORT).unwrap_or_default();
        Source {
            address: self.text(ids::SOURCE).unwrap_or_default(),
            port: u16::try_from(port).unwrap_or_default(),
            transport: match transport {
                1 => Transport::Tcp,
                2 => Transport::Tls,
                3 => Transport::Ws,
                4 => Transport::Wss,
                _ => Transport::Udp,
            },
        }
    }

    /// The name of the listener that received the message.
    #[must_use]
    pub fn listener(&self) -> &str {
        self.text(ids::LISTENER).unwrap_or_default()
    }

    /// The name of the tenant.
    #[must_use]
    pub fn tenant(&self) -> &str {
        self.text(ids::TENANT).unwrap_or_default()
    }

    /// The time of the call.
    #[must_use]
    pub fn now(&self) -> Time {
        let (seconds, milliseconds) = self.words(ids::NOW).unwrap_or_default();
        Time {
            seconds,
            milliseconds,
        }
    }

    /// Whether To has a tag.
    #[must_use]
    pub fn in_dialog(&self) -> bool {
        self.words(ids::FLAGS)
            .is_some_and(|(flags, _)| flags & ids::FLAG_IN_DIALOG != 0)
    }

    /// Whether the request belongs to a dialog that the host keeps (`dialogs`).
    #[must_use]
    pub fn has_known_dialog(&self) -> bool {
        self.words(ids::FLAGS)
            .is_some_and(|(flags, _)| flags & ids::FLAG_KNOWN_DIALOG != 0)
    }

    /// Whether an earlier policy of the chain has called `create-dialog` for this request.
    #[must_use]
    pub fn has_created_dialog(&self) -> bool {
        self.words(ids::FLAGS)
            .is_some_and(|(flags, _)| flags & ids::FLAG_DIALOG_CREATED != 0)
    }

    /// Where an in-dialog request goes.
    #[must_use]
    pub fn direction(&self) -> Direction {
        match self.words(ids::ROUTING).map(|(_, direction)| direction) {
            Some(1) => Direction::Downstream,
            Some(2) => Direction::Upstream,
            _ => Direction::Unknown,
        }
    }

    /// The length of the body in bytes.
    #[must_use]
    pub fn body_length(&self) -> usize {
        self.words(ids::FLAGS)
            .map_or(0, |(_, length)| length as usize)
    }

    /// A part or a header field by its id in the view: what is not UTF-8 is `?`, folds are
    /// blanks. The getters are spelled with it; use it for an id that this version of the SDK
    /// does not know.
    #[must_use]
    pub fn text(&self, id: u32) -> Option<&str> {
        let (offset, length) = self.words(id)?;
        if length == 0 && ids::is_part(id) {
            return None;
        }
        self.text_at(offset, length)
    }

    /// The two words of the first triple with this id.
    #[inline]
    fn words(&self, id: u32) -> Option<(u32, u32)> {
        let (triples, _) = self.index.as_chunks::<3>();
        let triple = match PLACES.get(id as usize) {
            Some(&place) => part(triples, id, usize::from(place))?,
            None => triples.iter().find(|triple| triple[0] == id)?,
        };
        Some((triple[1], triple[2]))
    }

    #[inline]
    fn text_at(&self, offset: u32, length: u32) -> Option<&str> {
        self.text.get(span(offset, length)?)
    }

    fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        let (triples, _) = self.index.as_chunks::<3>();
        let mut other = "";
        triples.iter().filter_map(move |&[id, offset, length]| {
            let name = match id {
                ids::OTHER_NAME => {
                    other = self.text_at(offset, length).unwrap_or_default();
                    return None;
                }
                ids::OTHER_VALUE => other,
                id => ids::field_name(id)?,
            };
            Some(Field {
                id,
                name,
                value: self.text_at(offset, length)?,
                offset,
                length,
            })
        })
    }
}

/// Ids below this one are those of parts and facts, which come by ascending id in front of
/// the header fields; a policy asks for a dozen of them.
const PARTS: usize = ids::OTHER_NAME as usize;

/// Where each of them stands.
static PLACES: [u8; PARTS] = {
    let mut places = [0; PARTS];
    let (mut id, mut place) = (0, 0);
    while id < PARTS {
        #[allow(clippy::indexing_slicing, reason = "runs at compile time")]
        {
            places[id] = place;
        }
        if ids::is_part(id as u32) {
            place += 1;
        }
        id += 1;
    }
    places
};

/// The triple of a part: at its place, or behind it, since a newer host has some that this
/// SDK does not know.
#[inline]
fn part(triples: &[[u32; 3]], id: u32, place: usize) -> Option<&[u32; 3]> {
    let mut from = triples.get(place..)?.iter();
    from.find(|triple| triple[0] >= id)
        .filter(|triple| triple[0] == id)
}

struct Field<'a> {
    id: u32,
    name: &'a str,
    value: &'a str,
    offset: u32,
    length: u32,
}

#[inline]
fn span(offset: u32, length: u32) -> Option<Range<usize>> {
    let offset = offset as usize;
    Some(offset..offset.checked_add(length as usize)?)
}
