//! Writes the view of a message as `wit/README.md` describes it, for the well
//! formed messages of unit tests. The host's own encoder is `sipbox-wasm`'s.

use sipbox_guest::bindings::host::sipbox::policy::message::MessageView;
use sipbox_guest::{Direction, RouteOutcome, RouteSignature, Transport, ids};

use crate::call::Call;

/// A span of the message: offset and length.
type Span = (usize, usize);

struct Writer {
    text: String,
    index: Vec<u32>,
}

impl Writer {
    fn words(&mut self, id: u32, first: u32, second: u32) {
        self.index.extend([id, first, second]);
    }

    fn span(&mut self, id: u32, (offset, length): Span) {
        self.words(id, word(offset), word(length));
    }

    fn part(&mut self, id: u32, part: Option<Span>) {
        if let Some(span) = part {
            self.span(id, span);
        }
    }

    fn fact(&mut self, id: u32, text: &str) {
        let span = (self.text.len(), text.len());
        self.text.push_str(text);
        self.span(id, span);
    }
}

fn word(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Start line and header fields.
pub(crate) fn bytes(call: &Call) -> Vec<u8> {
    head(call).0.into_bytes()
}

/// Start line and header fields, and where name and value of each field stand.
fn head(call: &Call) -> (String, Vec<(Span, Span)>) {
    let mut head = format!("{}\r\n", call.start_line);
    let mut fields: Vec<(Span, Span)> = Vec::new();
    for (name, value) in &call.headers {
        let name_span = (head.len(), name.len());
        head.push_str(name);
        head.push_str(": ");
        fields.push((name_span, (head.len(), value.len())));
        head.push_str(value);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    (head, fields)
}

pub(crate) fn view(call: &Call) -> MessageView {
    let (exact, fields) = head(call);
    let mut head = exact.clone();
    for &(_, (offset, length)) in &fields {
        let value = text(&exact, (offset, length));
        head.replace_range(offset..offset + length, &value.replace(['\r', '\n'], " "));
    }
    let mut writer = Writer {
        text: head.clone(),
        index: Vec::new(),
    };
    start_line(&mut writer, call);
    let first = |wanted: &str| {
        fields
            .iter()
            .find(|(name, _)| ids::long_form(text(&head, *name)).eq_ignore_ascii_case(wanted))
            .map(|(_, value)| *value)
    };
    let mut in_dialog = false;
    for (block, name) in [(ids::FROM, "From"), (ids::TO, "To")] {
        if let Some(value) = first(name) {
            let tag = party(&mut writer, block, &head, value);
            in_dialog |= block == ids::TO && tag;
        }
    }
    if let Some(value) = first("Call-ID") {
        writer.span(ids::CALL_ID, value);
    }
    if let Some((offset, length)) = first("CSeq")
        && let Some((number, method)) = text(&head, (offset, length)).split_once(' ')
    {
        let method = method.trim_start().len();
        writer.span(ids::CSEQ_NUMBER, (offset, number.len()));
        writer.span(ids::CSEQ_METHOD, (offset + length - method, method));
    }
    if let Some(value) = first("Contact")
        && text(&head, value) != "*"
    {
        contact(&mut writer, &head, value);
    }
    facts(&mut writer, call, in_dialog);
    writer.index = with_missing(&writer.index);
    for (name, value) in &fields {
        match ids::field(ids::long_form(text(&head, *name))) {
            Some(id) => writer.span(id, *value),
            None => {
                writer.span(ids::OTHER_NAME, *name);
                writer.span(ids::OTHER_VALUE, *value);
            }
        }
    }
    MessageView {
        text: writer.text,
        index: writer.index,
    }
}

/// The parts by their ids, those that are missing with the length 0.
fn with_missing(found: &[u32]) -> Vec<u32> {
    let (found, _) = found.as_chunks::<3>();
    let of = |id: u32| found.iter().find(|triple| triple[0] == id);
    let parts = (0..ids::OTHER_NAME).filter(|id| ids::is_part(*id));
    parts
        .flat_map(|id| of(id).copied().unwrap_or([id, 0, 0]))
        .collect()
}

fn start_line(writer: &mut Writer, call: &Call) {
    let line = &call.start_line;
    let mut words = line.splitn(3, ' ');
    let (first, second) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let second_at = first.len() + 1;
    if call.is_response() {
        writer.span(ids::STATUS, (second_at, second.len()));
        let reason_at = second_at + second.len() + 1;
        writer.span(
            ids::REASON,
            (reason_at, line.len().saturating_sub(reason_at)),
        );
        return;
    }
    writer.span(ids::METHOD, (0, first.len()));
    writer.span(ids::REQUEST_URI, (second_at, second.len()));
    let uri = UriSpans::of(line, (second_at, second.len()));
    writer.part(ids::URI_SCHEME, uri.scheme);
    writer.part(ids::URI_USER, uri.user);
    writer.part(ids::URI_HOST, uri.host);
    writer.part(ids::URI_PORT, uri.port);
    writer.part(ids::URI_PARAMS, uri.params);
}

fn facts(writer: &mut Writer, call: &Call, in_dialog: bool) {
    let (address, port, transport) = &call.source;
    writer.fact(ids::TENANT, &call.tenant);
    writer.fact(ids::LISTENER, &call.listener);
    writer.fact(ids::SOURCE, address);
    if let Some(user) = &call.authenticated_user {
        writer.fact(ids::AUTHENTICATED_USER, user);
    }
    if !call.route_params.is_empty() {
        writer.fact(ids::ROUTE_PARAMS, &call.route_params);
    }
    writer.words(ids::NOW, call.seconds, 0);
    let transport = match transport {
        Transport::Udp => 0,
        Transport::Tcp => 1,
        Transport::Tls => 2,
        Transport::Ws => 3,
        Transport::Wss => 4,
    };
    writer.words(ids::SOURCE_PORT, u32::from(*port), transport);
    let outcome = match call.route_outcome {
        RouteOutcome::None => 0,
        RouteOutcome::Loose => 1,
        RouteOutcome::Strict => 2,
        RouteOutcome::Preloaded => 3,
        RouteOutcome::Foreign => 4,
    };
    let direction = match call.direction {
        Direction::Unknown => 0,
        Direction::Downstream => 1,
        Direction::Upstream => 2,
    };
    writer.words(ids::ROUTING, outcome, direction);
    let mut flags = 0;
    if in_dialog {
        flags |= ids::FLAG_IN_DIALOG;
    }
    if call.is_response() {
        flags |= ids::FLAG_RESPONSE;
    }
    flags |= match call.route_signature {
        RouteSignature::None => 0,
        RouteSignature::Valid => ids::FLAG_ROUTE_SIGNED,
        RouteSignature::Invalid => ids::FLAG_ROUTE_FORGED,
        RouteSignature::Expired => ids::FLAG_ROUTE_EXPIRED,
    };
    if in_dialog && call.dialog.is_some() {
        flags |= ids::FLAG_KNOWN_DIALOG;
    }
    if !in_dialog && call.dialog.is_some() {
        flags |= ids::FLAG_DIALOG_CREATED;
    }
    writer.words(ids::FLAGS, flags, word(call.body.len()));
}

/// Writes a From or To; true: it has a tag.
fn party(writer: &mut Writer, block: u32, head: &str, value: Span) -> bool {
    use ids::party;
    let address = NameAddr::of(head, value);
    let uri = UriSpans::of(head, address.uri);
    let tag = address.param(head, "tag");
    writer.span(block + party::URI, address.uri);
    writer.part(block + party::USER, uri.user);
    writer.part(block + party::HOST, uri.host);
    writer.part(block + party::TAG, tag);
    writer.part(block + party::DISPLAY, address.display);
    writer.part(block + party::PORT, uri.port);
    tag.is_some()
}

fn contact(writer: &mut Writer, head: &str, value: Span) {
    use ids::contact;
    let address = NameAddr::of(head, value);
    let uri = UriSpans::of(head, address.uri);
    writer.span(ids::CONTACT + contact::URI, address.uri);
    writer.part(ids::CONTACT + contact::USER, uri.user);
    writer.part(ids::CONTACT + contact::HOST, uri.host);
    writer.part(ids::CONTACT + contact::PORT, uri.port);
}

fn text(head: &str, (offset, length): Span) -> &str {
    head.get(offset..offset + length).unwrap_or_default()
}

/// The parts of a name-addr or addr-spec.
pub(crate) struct NameAddr {
    pub(crate) uri: Span,
    display: Option<Span>,
    /// What stands behind the URI.
    params: Span,
}

impl NameAddr {
    pub(crate) fn of(head: &str, (offset, length): Span) -> Self {
        let value = text(head, (offset, length));
        let (uri, display) = match (value.find('<'), value.find('>')) {
            (Some(open), Some(close)) if open < close => {
                let name = value.get(..open).unwrap_or_default().trim();
                let display = (!name.is_empty()).then_some((offset, name.len()));
                ((offset + open + 1, close - open - 1), display)
            }
            _ => ((offset, value.find([';', ',']).unwrap_or(length)), None),
        };
        let behind = uri.0 + uri.1;
        Self {
            uri,
            display,
            params: (behind, offset + length - behind),
        }
    }

    pub(crate) fn param(&self, head: &str, name: &str) -> Option<Span> {
        let params = text(head, self.params);
        let mut offset = self.params.0;
        for pair in params.split(';') {
            let trimmed = pair.trim();
            if let Some((key, value)) = trimmed.split_once('=')
                && key.eq_ignore_ascii_case(name)
            {
                let start = pair.find('=').unwrap_or_default() + 1;
                return Some((offset + start, value.len()));
            }
            offset += pair.len() + 1;
        }
        None
    }
}

/// The parts of a URI.
#[derive(Default)]
struct UriSpans {
    scheme: Option<Span>,
    user: Option<Span>,
    host: Option<Span>,
    port: Option<Span>,
    params: Option<Span>,
}

impl UriSpans {
    fn of(head: &str, (offset, length): Span) -> Self {
        let uri = text(head, (offset, length));
        let Some(colon) = uri.find(':') else {
            return Self::default();
        };
        let mut spans = Self {
            scheme: Some((offset, colon)),
            ..Self::default()
        };
        let rest_at = colon + 1;
        let rest = uri.get(rest_at..).unwrap_or_default();
        // A user part may hold `;` of its own.
        let behind_user = rest.find('@').unwrap_or_default();
        let end = rest
            .get(behind_user..)
            .and_then(|behind| behind.find(';'))
            .map_or(rest.len(), |semicolon| behind_user + semicolon);
        let main = rest.get(..end).unwrap_or_default();
        let questionless = |text: &str| text.find('?').unwrap_or(text.len());
        if end < rest.len() {
            let params = rest.get(end + 1..).unwrap_or_default();
            spans.params = Some((offset + rest_at + end + 1, questionless(params)));
        }
        if uri
            .get(..colon)
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("tel"))
        {
            spans.user = Some((offset + rest_at, main.len()));
            return spans;
        }
        let host_at = match main.rfind('@') {
            Some(at) => {
                let user = main.get(..at).unwrap_or_default();
                let without_password = user.find(':').unwrap_or(user.len());
                spans.user = Some((offset + rest_at, without_password));
                at + 1
            }
            None => 0,
        };
        let host = main.get(host_at..).unwrap_or_default();
        let host = host.get(..questionless(host)).unwrap_or_default();
        let end_of_address = host.find(']').map_or(0, |bracket| bracket + 1);
        let colon = host.get(end_of_address..).and_then(|rest| rest.find(':'));
        let host_length = colon.map_or(host.len(), |colon| end_of_address + colon);
        let host_offset = offset + rest_at + host_at;
        spans.host = Some((host_offset, host_length));
        if host_length < host.len() {
            spans.port = Some((host_offset + host_length + 1, host.len() - host_length - 1));
        }
        spans
    }
}
