//! `message.view`: start line and headers as text, and an index of triples over it, made
//! once for the policies of a chain. Which ids there are is in [`ids`].

mod ids;

use std::sync::Arc;

use sipbox_core::policy::{
    DialogOp, Direction, Effect, Facts, HookCall, RouteOutcome, RouteSignature,
};
use sipbox_sip::{AddressParts, HeaderId, Message, OwnedMessage, Parts, Span, lex};
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Linker, Lower};

use self::ids::{FLAGS_AT, IDS, MISSING, PARTS, PLACES, REMOTE_PARTY_ID, id};
use crate::cx::{CallCx, message_of};
use crate::linker::{PACKAGE, VERSION};

/// The record `message.view`, lowered from shared buffers: returning vectors
/// would cost two allocations for each call.
#[derive(Clone, Default, ComponentType, Lower)]
#[component(record)]
pub(crate) struct View {
    text: String,
    index: Vec<u32>,
}

/// The last view of a worker. It serves all policies of a chain until one of them edits the
/// message, and its buffers the next message.
#[derive(Default)]
pub(crate) struct LastView {
    view: Arc<View>,
    of: Option<Of>,
}

/// What a view was made of. It is kept as long as the view, so that nothing else has its
/// address.
struct Of {
    message: OwnedMessage,
    facts: Arc<Facts>,
    user: Option<String>,
}

impl Of {
    fn is(&self, message: &OwnedMessage, call: &HookCall) -> bool {
        self.message.is(message)
            && Arc::ptr_eq(&self.facts, &call.facts)
            && self.user == call.state.authenticated_user
    }
}

/// Bit of the flags: `create-dialog` was called in this hook.
const CREATES_DIALOG: u32 = 1 << 6;

/// That bit, if one has.
fn creates_dialog(call: &HookCall) -> u32 {
    let create = |effect: &Effect| matches!(effect, Effect::Dialog(DialogOp::Create(_)));
    u32::from(call.effects.iter().any(create)) * CREATES_DIALOG
}

impl CallCx {
    /// The view of this call's message; built if the last one was of another.
    pub(crate) fn shared_view(&mut self) -> Arc<View> {
        let LastView { view, of } = &mut self.view;
        let message = message_of(&self.call, self.hook);
        if !of.as_ref().is_some_and(|of| of.is(message, &self.call)) {
            // Nobody else holds them between calls, so nothing is copied.
            build(message, &self.call, Arc::make_mut(view));
            *of = Some(Of {
                message: message.clone(),
                facts: Arc::clone(&self.call.facts),
                user: self.call.state.authenticated_user.clone(),
            });
        }
        // The one fact that another policy of the chain has often changed.
        let view = &mut self.view.view;
        if let Some(flags) = Arc::make_mut(view).index.get_mut(FLAGS_AT) {
            *flags = *flags & !CREATES_DIALOG | creates_dialog(&self.call);
        }
        Arc::clone(view)
    }

    pub(crate) fn owned_view(&mut self) -> (String, Vec<u32>) {
        let view = self.shared_view();
        (view.text.clone(), view.index.clone())
    }
}

/// Puts the function that lowers from shared buffers in the place of the
/// generated one.
pub(crate) fn link(linker: &mut Linker<CallCx>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker
        .instance(&format!("{PACKAGE}message{VERSION}"))?
        .func_wrap("view", |mut store: StoreContextMut<'_, CallCx>, (): ()| {
            let cx = store.data_mut();
            cx.enter()?;
            Ok((cx.shared_view(),))
        })?;
    linker.allow_shadowing(false);
    Ok(())
}

/// The text and the index that `message.view` gives a guest for the request of
/// a call.
#[must_use]
pub fn view_of(call: &HookCall) -> (String, Vec<u32>) {
    let mut view = View::default();
    build(&call.request, call, &mut view);
    (view.text, view.index)
}

/// Start line and header fields.
pub(crate) fn head(message: Message<'_>) -> &[u8] {
    let buffer = message.buffer();
    buffer.get(..message.head_end()).unwrap_or(buffer)
}

/// Fills both buffers for a message. What is no header field comes by ascending id.
fn build(owned: &OwnedMessage, call: &HookCall, View { text, index }: &mut View) {
    let message = owned.as_ref();
    let parts = owned.parts();
    let buffer = message.buffer();
    let mut bytes = std::mem::take(text).into_bytes();
    bytes.clear();
    index.clear();
    // The parts, then name and value of each field.
    index.reserve(3 * (PARTS.len() + 2 * message.headers().len()));
    bytes.extend_from_slice(head(message));
    unfold(message, &mut bytes);
    let mut spans = Spans::new(buffer, index);
    start_line(message, parts, &mut spans);
    well_known(message, parts, &mut spans);
    texts(call, &mut bytes, &mut spans);
    immediate(message, call, &mut spans);
    fields(message, &mut spans);
    *text = readable(bytes);
}

/// Makes blanks of the line ends inside of values.
fn unfold(message: Message<'_>, bytes: &mut [u8]) {
    // A message without folds has one line end for the start line, one for each field, and
    // one at the end, which one that the validator has let in does not lack.
    let lines = memchr::memchr_iter(b'\n', bytes).count();
    if lines <= message.headers().len() + 2 {
        return;
    }
    for field in message.headers() {
        let value = field.value.start as usize..field.value.start as usize + field.value.len();
        for byte in bytes.get_mut(value).unwrap_or_default() {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
    }
}

/// The bytes as text of the same length.
fn readable(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| {
        let bytes = error.as_bytes();
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            text.extend(chunk.invalid().iter().map(|_| '?'));
        }
        text
    })
}

/// The index while it is written: all parts are there from the start, and say that they are
/// missing.
struct Spans<'a> {
    buffer: &'a [u8],
    index: &'a mut Vec<u32>,
}

impl<'a> Spans<'a> {
    fn new(buffer: &'a [u8], index: &'a mut Vec<u32>) -> Self {
        index.extend_from_slice(MISSING.as_flattened());
        Self { buffer, index }
    }

    /// The two words of a part.
    fn set(&mut self, id: u32, first: u32, second: u32) {
        debug_assert!(PARTS.contains(&id), "{id} is no part");
        let place = 3 * usize::from(PLACES.get(id as usize).copied().unwrap_or(0));
        if let Some([_, words @ ..]) = self.index.get_mut(place..place + 3) {
            words.copy_from_slice(&[first, second]);
        }
    }

    /// A part of the buffer, found by its address.
    fn part(&mut self, id: u32, part: &[u8]) {
        let start = (part.as_ptr() as usize).wrapping_sub(self.buffer.as_ptr() as usize);
        if !part.is_empty() && start.saturating_add(part.len()) <= self.buffer.len() {
            self.set(id, word(start), word(part.len()));
        }
    }

    /// A part that is missing where it is empty.
    fn span(&mut self, id: u32, span: Span) {
        if !span.is_empty() {
            self.set(id, span.start, word(span.len()));
        }
    }

    /// A text that is not in the buffer.
    fn text(&mut self, id: u32, text: &[u8], bytes: &mut Vec<u8>) {
        self.set(id, word(bytes.len()), word(text.len()));
        bytes.extend_from_slice(text);
    }

    fn field(&mut self, id: u32, start: usize, len: usize) {
        self.index.extend_from_slice(&[id, word(start), word(len)]);
    }

    fn address(&mut self, base: u32, address: &AddressParts) {
        self.span(base, address.uri);
        self.span(base + id::ADDRESS_USER, address.user);
        self.span(base + id::ADDRESS_HOST, address.host);
        self.span(base + id::ADDRESS_TAG, address.tag);
        self.span(base + id::ADDRESS_DISPLAY, address.display);
        self.span(base + id::ADDRESS_PORT, address.port);
    }
}

fn start_line(message: Message<'_>, parts: &Parts, spans: &mut Spans<'_>) {
    if message.is_request() {
        spans.part(id::METHOD, message.method_token());
        spans.part(id::REQUEST_URI, message.request_uri());
        spans.span(id::URI_SCHEME, parts.uri.scheme);
        spans.span(id::URI_USER, parts.uri.user);
        spans.span(id::URI_HOST, parts.uri.host);
        spans.span(id::URI_PORT, parts.uri.port);
        spans.span(id::URI_PARAMS, parts.uri.params);
    } else {
        // The three digits stand right in front of the reason's space.
        let version = message.version();
        let after = (version.as_ptr() as usize).wrapping_sub(spans.buffer.as_ptr() as usize)
            + version.len();
        let rest = spans.buffer.get(after..).unwrap_or_default();
        let blanks = rest
            .iter()
            .take_while(|b| matches!(b, b' ' | b'\t'))
            .count();
        if message.status().is_some() {
            spans.set(id::STATUS, word(after + blanks), 3);
        }
        spans.part(id::REASON, message.reason());
    }
}

fn well_known(message: Message<'_>, parts: &Parts, spans: &mut Spans<'_>) {
    spans.address(id::FROM, &parts.from);
    spans.address(id::TO, &parts.to);
    if let Some(call_id) = message.field(HeaderId::CallId) {
        spans.span(id::CALL_ID, call_id.value);
    }
    spans.span(id::CSEQ_NUMBER, parts.cseq_number);
    spans.span(id::CSEQ_METHOD, parts.cseq_method);
    spans.span(id::CONTACT_URI, parts.contact.uri);
    spans.span(id::CONTACT_USER, parts.contact.user);
    spans.span(id::CONTACT_HOST, parts.contact.host);
    spans.span(id::CONTACT_PORT, parts.contact.port);
}

fn immediate(message: Message<'_>, call: &HookCall, spans: &mut Spans<'_>) {
    let facts = &call.facts;
    let (seconds, milliseconds) = time(facts.now);
    spans.set(id::NOW, seconds, milliseconds);
    let (port, transport) = (facts.flow.peer.port(), transport(facts.flow.transport));
    spans.set(id::SOURCE, port.into(), transport);
    let (outcome, direction) = (outcome(facts.route_outcome), direction(facts.direction));
    spans.set(id::ROUTING, outcome, direction);
    let flags = u32::from(facts.in_dialog)
        | u32::from(!message.is_request()) << 1
        | u32::from(facts.route_signature == RouteSignature::Valid) << 2
        | u32::from(facts.route_signature == RouteSignature::Invalid) << 3
        | u32::from(facts.route_signature == RouteSignature::Expired) << 4
        | u32::from(facts.dialog.is_some()) << 5
        | creates_dialog(call);
    spans.set(id::FLAGS, flags, word(message.body().len()));
}

fn texts(call: &HookCall, bytes: &mut Vec<u8>, spans: &mut Spans<'_>) {
    let facts = &call.facts;
    spans.text(id::TENANT, facts.tenant_name.as_bytes(), bytes);
    spans.text(id::LISTENER, facts.listener_name.as_bytes(), bytes);
    let start = bytes.len();
    lex::write_ip(facts.flow.peer.ip(), bytes);
    let length = bytes.len() - start;
    spans.set(id::SOURCE_ADDRESS, word(start), word(length));
    if let Some(user) = &call.state.authenticated_user {
        spans.text(id::AUTHENTICATED_USER, user.as_bytes(), bytes);
    }
    let params: &[u8] = &facts.route_params;
    let params = params.strip_prefix(b";").unwrap_or(params);
    spans.text(id::ROUTE_PARAMS, params, bytes);
}

fn fields(message: Message<'_>, spans: &mut Spans<'_>) {
    for field in message.headers() {
        let value = (field.value.start as usize, field.value.len());
        match IDS.get(field.id as usize) {
            Some(&known) if known != 0 => spans.field(u32::from(known), value.0, value.1),
            _ if message
                .get(field.name)
                .eq_ignore_ascii_case(b"Remote-Party-ID") =>
            {
                spans.field(REMOTE_PARTY_ID, value.0, value.1);
            }
            _ => {
                spans.field(id::NAME, field.name.start as usize, field.name.len());
                spans.field(id::VALUE, value.0, value.1);
            }
        }
    }
}

/// Seconds since 1970 and milliseconds: good until 2106.
pub(crate) fn time(now: sipbox_core::time::WallTime) -> (u32, u32) {
    let seconds = u32::try_from(now.seconds()).unwrap_or(u32::MAX);
    (seconds, u32::try_from(now.0 % 1000).unwrap_or(0))
}

fn transport(transport: sipbox_sip::Transport) -> u32 {
    use sipbox_sip::Transport as T;
    match transport {
        T::Udp => 0,
        T::Tcp | T::Sctp => 1,
        T::Tls | T::TlsSctp => 2,
        T::Ws => 3,
        T::Wss => 4,
    }
}

const fn outcome(outcome: RouteOutcome) -> u32 {
    match outcome {
        RouteOutcome::None => 0,
        RouteOutcome::Loose => 1,
        RouteOutcome::Strict => 2,
        RouteOutcome::Preloaded => 3,
        RouteOutcome::Foreign => 4,
    }
}

const fn direction(direction: Direction) -> u32 {
    match direction {
        Direction::Unknown => 0,
        Direction::Downstream => 1,
        Direction::Upstream => 2,
    }
}

fn word(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use sipbox_core::dialog::Wanted;

    use super::ids::FIELDS;
    use super::*;

    #[test]
    fn what_is_no_header_field_always_comes_first_and_by_ascending_id() {
        for user in [None, Some("alice".to_owned())] {
            let mut call = crate::cx::placeholder().unwrap();
            call.state.authenticated_user = user;
            let (text, index) = view_of(&call);
            let (triples, _) = index.as_chunks::<3>();
            let ids = triples.iter().map(|triple| triple[0]);
            assert!(ids.take(PARTS.len()).eq(PARTS));
            let of = |id: u32| {
                let [_, start, len] = triples[usize::from(PLACES[id as usize])];
                &text[start as usize..][..len as usize]
            };
            let known = call.state.authenticated_user.as_deref();
            assert_eq!(of(id::AUTHENTICATED_USER), known.unwrap_or_default());
            assert_eq!(of(id::STATUS), "");
            assert!(!of(id::METHOD).is_empty());
        }
    }

    /// The placeholder with a field that has this value.
    fn call_with(value: &[u8]) -> Box<HookCall> {
        let mut call = crate::cx::placeholder().unwrap();
        let bytes = call.request.buffer();
        let end = bytes.windows(2).position(|pair| pair == b"\r\n").unwrap();
        let line = [b"\r\nSubject: ", value].concat();
        let message = [&bytes[..end], &line, &bytes[end..]].concat();
        call.request = OwnedMessage::parse(message.into()).unwrap();
        call
    }

    fn subject(call: &HookCall) -> String {
        let (text, index) = view_of(call);
        assert!(text.len() > call.request.as_ref().head_end());
        let (triples, _) = index.as_chunks::<3>();
        let is_subject =
            |triple: &&[u32; 3]| FIELDS[(triple[0] - id::FIELDS) as usize] == HeaderId::Subject;
        let [_, start, len] = *triples
            .iter()
            .filter(|triple| triple[0] >= id::FIELDS)
            .find(is_subject)
            .unwrap();
        text[start as usize..][..len as usize].to_owned()
    }

    #[test]
    fn the_view_is_text_of_the_same_length() {
        for (value, expected) in [
            (&b"one"[..], "one"),
            (b"one\r\n two\r\n\tthree", "one   two  \tthree"),
            (b"one\n two", "one  two"),
            ("z\u{fc}g\u{1f600}".as_bytes(), "z\u{fc}g\u{1f600}"),
            (b"a\xff\xe2\x82b\xf0\x9f", "a???b??"),
            (b"\xff\r\n \xc3\xbc", "?   \u{fc}"),
        ] {
            assert_eq!(subject(&call_with(value)), expected);
        }
    }

    #[test]
    fn a_view_serves_until_the_message_or_what_is_known_of_it_changes() {
        let mut call = call_with(b"one");
        let mut cx = CallCx::new("p".into(), crate::Limits::default(), [0; 32]).unwrap();
        let mut seen = |call: &mut Box<HookCall>, mark: &str| {
            std::mem::swap(&mut cx.call, call);
            Arc::make_mut(&mut cx.view.view).text.push_str(mark);
            let view = cx.shared_view();
            std::mem::swap(&mut cx.call, call);
            ((), view.text.clone(), view.index[FLAGS_AT])
        };
        let first = seen(&mut call, "");
        // What is served again is what is kept, whatever was done to it.
        assert_eq!(seen(&mut call, "kept").1, format!("{}kept", first.1));
        call.state.authenticated_user = Some("alice".to_owned());
        let (_, known, flags) = seen(&mut call, "kept");
        assert_eq!(known, format!("{}alice", first.1));
        let create = Effect::Dialog(DialogOp::Create(Wanted::default()));
        call.effects.push(create);
        assert_eq!(seen(&mut call, "").2, flags | 1 << 6);
        call.effects.clear();
        assert_eq!(seen(&mut call, "").2, flags);
        let mut facts = Facts::clone(&call.facts);
        facts.tenant_name = "other".into();
        call.facts = Arc::new(facts);
        assert!(seen(&mut call, "").1.contains("other"));
        call.request = call_with(b"two").request;
        assert!(seen(&mut call, "").1.contains("Subject: two"));
        // A response is another message, though its request is the same.
        let response = "SIP/2.0 200 OK\r\nSubject: three\r\n\r\n";
        call.response = Some(OwnedMessage::parse(response.into()).unwrap());
        assert!(seen(&mut call, "").1.contains("Subject: two"));
        cx.hook = Some(sipbox_core::policy::Hook::Reply);
        std::mem::swap(&mut cx.call, &mut call);
        assert!(cx.shared_view().text.contains("Subject: three"));
    }
}
