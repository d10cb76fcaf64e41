//! Messages made new: responses to a request (RFC 3261 8.2.6), the CANCEL and ACK
//! that belong to a request already sent (9.1, 17.1.1.3), and requests from
//! scratch (8.1.1, 12.2.1.1). Everything that is copied is copied as bytes.

use smallvec::SmallVec;

use crate::error::{BuildError, ValueError};
use crate::header::{HeaderId, HeaderName};
use crate::index::HeaderField;
use crate::lex::{self, Decimal};
use crate::message::Message;
use crate::method::Method;
use crate::name_addr::NameAddr;
use crate::status::reason_phrase;
use crate::uri::Uri;

type Extra<'a> = SmallVec<[(HeaderName<'a>, &'a [u8]); 4]>;

/// Builds the response to a request.
#[derive(Clone, Debug)]
pub struct ResponseBuilder<'a> {
    request: Message<'a>,
    status: u16,
    reason: Option<&'a [u8]>,
    to_tag: Option<&'a [u8]>,
    top_via: Option<&'a [u8]>,
    record_route: bool,
    timestamp_delay: Option<&'a [u8]>,
    headers: Extra<'a>,
    body: &'a [u8],
}

impl<'a> ResponseBuilder<'a> {
    /// A response with the usual reason phrase and no body. Via, From, To, Call-ID
    /// and CSeq come from the request, as far as it has them.
    #[must_use]
    pub fn new(request: Message<'a>, status: u16) -> Self {
        Self {
            request,
            status,
            reason: None,
            to_tag: None,
            top_via: None,
            record_route: false,
            timestamp_delay: None,
            headers: SmallVec::new(),
            body: b"",
        }
    }

    /// Another reason phrase.
    #[must_use]
    pub fn reason(mut self, reason: &'a [u8]) -> Self {
        self.reason = Some(reason);
        self
    }

    /// The tag that To gets unless it has one (8.2.6.2). Not for 100.
    #[must_use]
    pub fn to_tag(mut self, tag: &'a [u8]) -> Self {
        self.to_tag = Some(tag);
        self
    }

    /// What the topmost Via element became on receipt
    /// ([`crate::via::write_received`]), for a request whose bytes were kept as
    /// they came.
    #[must_use]
    pub fn top_via(mut self, value: &'a [u8]) -> Self {
        self.top_via = Some(value);
        self
    }

    /// Copies Record-Route, as a response that creates a dialog must (12.1.1).
    #[must_use]
    pub fn record_route(mut self) -> Self {
        self.record_route = true;
        self
    }

    /// Seconds between receipt and a 100, added to the Timestamp that is copied
    /// into it (8.2.6.1); without it Timestamp is copied as it is.
    #[must_use]
    pub fn timestamp_delay(mut self, seconds: &'a [u8]) -> Self {
        self.timestamp_delay = Some(seconds);
        self
    }

    /// Another field, in the order of the calls.
    #[must_use]
    pub fn header(mut self, name: impl Into<HeaderName<'a>>, value: &'a [u8]) -> Self {
        self.headers.push((name.into(), value));
        self
    }

    /// The body; Content-Length follows from it.
    #[must_use]
    pub fn body(mut self, content_type: &'a [u8], body: &'a [u8]) -> Self {
        self.headers
            .push((HeaderId::ContentType.into(), content_type));
        self.body = body;
        self
    }

    /// Writes the response behind what `out` holds.
    ///
    /// # Errors
    /// When something given is ill-formed; `out` is as before then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), BuildError> {
        if !self.request.is_request() {
            return Err(BuildError::Source);
        }
        if !(100..700).contains(&self.status) {
            return Err(BuildError::Status);
        }
        check_headers(&self.headers)?;
        let reason = self
            .reason
            .unwrap_or_else(|| reason_phrase(self.status).as_bytes());
        let given = [
            Some(reason),
            self.to_tag,
            self.top_via,
            self.timestamp_delay,
        ];
        if given
            .into_iter()
            .flatten()
            .any(|value| !lex::is_field_value(value))
        {
            return Err(BuildError::Value);
        }
        let request = self.request;
        out.extend_from_slice(b"SIP/2.0 ");
        out.extend_from_slice(Decimal::new(usize::from(self.status)).as_bytes());
        out.push(b' ');
        out.extend_from_slice(reason);
        out.extend_from_slice(b"\r\n");
        self.vias(out);
        if self.record_route {
            copy_all(request, HeaderId::RecordRoute, out);
        }
        copy_first(request, HeaderId::From, out);
        self.to(out);
        for id in [HeaderId::CallId, HeaderId::CSeq] {
            copy_first(request, id, out);
        }
        self.timestamp(out);
        finish(&self.headers, self.body, out);
        Ok(())
    }

    fn vias(&self, out: &mut Vec<u8>) {
        let Some((top, given)) = self.request.values(HeaderId::Via).next().zip(self.top_via) else {
            copy_all(self.request, HeaderId::Via, out);
            return;
        };
        for (at, field) in self.request.all(HeaderId::Via).enumerate() {
            if at == 0 {
                line(HeaderId::Via.into(), given, out);
                // The rest of a field that lists several elements follows apart.
                for value in self.request.field_values(top.field).skip(1) {
                    line(HeaderId::Via.into(), value.as_bytes(), out);
                }
            } else {
                copy(self.request, field, out);
            }
        }
    }

    fn to(&self, out: &mut Vec<u8>) {
        let Some(field) = self.request.field(HeaderId::To) else {
            return;
        };
        let value = self.request.get(field.value);
        let tag = self
            .to_tag
            .filter(|_| self.status != 100 && !has_tag(value));
        match tag {
            Some(tag) => {
                out.extend_from_slice(b"To: ");
                out.extend_from_slice(value);
                out.extend_from_slice(b";tag=");
                out.extend_from_slice(tag);
                out.extend_from_slice(b"\r\n");
            }
            None => copy(self.request, field, out),
        }
    }

    /// RFC 3261 8.2.6.1: a 100 carries the request's Timestamp.
    fn timestamp(&self, out: &mut Vec<u8>) {
        let Some(value) = self
            .request
            .header(HeaderId::Timestamp)
            .filter(|_| self.status == 100)
        else {
            return;
        };
        out.extend_from_slice(b"Timestamp: ");
        out.extend_from_slice(value);
        if let Some(delay) = self.timestamp_delay {
            out.push(b' ');
            out.extend_from_slice(delay);
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Builds a request.
#[derive(Clone, Debug)]
pub struct RequestBuilder<'a> {
    method: &'a [u8],
    uri: &'a [u8],
    copied: SmallVec<[Copied<'a>; 8]>,
    headers: Extra<'a>,
    body: &'a [u8],
}

/// A field taken over from another message.
#[derive(Clone, Copy, Debug)]
enum Copied<'a> {
    Field(Message<'a>, HeaderField),
    Value(HeaderId, &'a [u8]),
    CSeq(u32),
}

impl<'a> RequestBuilder<'a> {
    /// A request with nothing but its first line. The caller adds what 8.1.1
    /// demands: Via, From, To, Call-ID, CSeq, Max-Forwards.
    #[must_use]
    pub fn new(method: &'a [u8], uri: &'a [u8]) -> Self {
        let (copied, headers) = (SmallVec::new(), SmallVec::new());
        Self {
            method,
            uri,
            copied,
            headers,
            body: b"",
        }
    }

    /// The CANCEL for a request as it was sent (9.1): its Request-URI, topmost
    /// Via, Route, From, To, Call-ID and CSeq number. Max-Forwards is for the
    /// caller to add, or 70.
    ///
    /// # Errors
    /// When the request lacks one of these.
    pub fn cancel(request: Message<'a>) -> Result<Self, BuildError> {
        if !request.is_request() {
            return Err(BuildError::Source);
        }
        let to = request
            .field(HeaderId::To)
            .ok_or(ValueError::Missing(HeaderId::To))?;
        Self::belonging(request, Method::Cancel, request, *to)
    }

    /// The ACK for a final response other than 2xx (17.1.1.3): as a CANCEL, but To
    /// is that of the response.
    ///
    /// # Errors
    /// When the request or the response lacks a field.
    pub fn ack(request: Message<'a>, response: Message<'a>) -> Result<Self, BuildError> {
        if !request.is_request() || response.is_request() {
            return Err(BuildError::Source);
        }
        let to = response
            .field(HeaderId::To)
            .ok_or(ValueError::Missing(HeaderId::To))?;
        Self::belonging(request, Method::Ack, response, *to)
    }

    fn belonging(
        request: Message<'a>,
        method: Method,
        to_of: Message<'a>,
        to: HeaderField,
    ) -> Result<Self, BuildError> {
        let mut built = Self::new(method.token().as_bytes(), request.request_uri());
        let via = request.values(HeaderId::Via).next();
        let via = via.ok_or(ValueError::Missing(HeaderId::Via))?;
        built
            .copied
            .push(Copied::Value(HeaderId::Via, via.as_bytes()));
        let routes = request.all(HeaderId::Route);
        built
            .copied
            .extend(routes.map(|field| Copied::Field(request, *field)));
        let from = request
            .field(HeaderId::From)
            .ok_or(ValueError::Missing(HeaderId::From))?;
        let call_id = request.field(HeaderId::CallId);
        let call_id = call_id.ok_or(ValueError::Missing(HeaderId::CallId))?;
        built.copied.extend([
            Copied::Field(request, *from),
            Copied::Field(to_of, to),
            Copied::Field(request, *call_id),
            Copied::CSeq(request.cseq()?.number),
        ]);
        Ok(built)
    }

    /// Another field, in the order of the calls.
    #[must_use]
    pub fn header(mut self, name: impl Into<HeaderName<'a>>, value: &'a [u8]) -> Self {
        self.headers.push((name.into(), value));
        self
    }

    /// CSeq with this number and the request's method.
    #[must_use]
    pub fn cseq(mut self, number: u32) -> Self {
        self.copied.push(Copied::CSeq(number));
        self
    }

    /// The body; Content-Length follows from it.
    #[must_use]
    pub fn body(mut self, content_type: &'a [u8], body: &'a [u8]) -> Self {
        self.headers
            .push((HeaderId::ContentType.into(), content_type));
        self.body = body;
        self
    }

    /// Writes the request behind what `out` holds. Max-Forwards is 70 (8.1.1.6)
    /// unless it was given.
    ///
    /// # Errors
    /// When something given is ill-formed; `out` is as before then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), BuildError> {
        if !lex::is_token(self.method) {
            return Err(BuildError::Method);
        }
        Uri::parse(self.uri).map_err(|_| BuildError::RequestUri)?;
        check_headers(&self.headers)?;
        out.extend_from_slice(self.method);
        out.push(b' ');
        out.extend_from_slice(self.uri);
        out.extend_from_slice(b" SIP/2.0\r\n");
        // Via comes first, where every element looks for it.
        for (name, value) in self
            .headers
            .iter()
            .filter(|(name, _)| name.id() == HeaderId::Via)
        {
            line(*name, value, out);
        }
        for copied in &self.copied {
            match *copied {
                Copied::Field(message, field) => copy(message, &field, out),
                Copied::Value(id, value) => line(id.into(), value, out),
                Copied::CSeq(number) => {
                    out.extend_from_slice(b"CSeq: ");
                    out.extend_from_slice(Decimal::new(number as usize).as_bytes());
                    out.push(b' ');
                    out.extend_from_slice(self.method);
                    out.extend_from_slice(b"\r\n");
                }
            }
        }
        if !self
            .headers
            .iter()
            .any(|(name, _)| name.id() == HeaderId::MaxForwards)
        {
            line(HeaderId::MaxForwards.into(), b"70", out);
        }
        let others = self
            .headers
            .iter()
            .filter(|(name, _)| name.id() != HeaderId::Via);
        finish(others, self.body, out);
        Ok(())
    }
}

fn check_headers(headers: &[(HeaderName<'_>, &[u8])]) -> Result<(), BuildError> {
    for (name, value) in headers {
        if !lex::is_token(name.as_bytes()) {
            return Err(BuildError::Name);
        }
        if !lex::is_field_value(value) {
            return Err(BuildError::Value);
        }
    }
    Ok(())
}

fn finish<'h, 'a: 'h>(
    headers: impl IntoIterator<Item = &'h (HeaderName<'a>, &'a [u8])>,
    body: &[u8],
    out: &mut Vec<u8>,
) {
    for (name, value) in headers {
        if name.id() != HeaderId::ContentLength {
            line(*name, value, out);
        }
    }
    line(
        HeaderId::ContentLength.into(),
        Decimal::new(body.len()).as_bytes(),
        out,
    );
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
}

fn line(name: HeaderName<'_>, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn copy(message: Message<'_>, field: &HeaderField, out: &mut Vec<u8>) {
    let bytes = message.get(field.line);
    out.extend_from_slice(bytes);
    // A field at the very end of a head that was cut off has no line end.
    if !bytes.ends_with(b"\n") {
        out.extend_from_slice(b"\r\n");
    }
}

fn copy_first(message: Message<'_>, id: HeaderId, out: &mut Vec<u8>) {
    if let Some(field) = message.field(id) {
        copy(message, field, out);
    }
}

fn copy_all(message: Message<'_>, id: HeaderId, out: &mut Vec<u8>) {
    for field in message.all(id) {
        copy(message, field, out);
    }
}

/// Whether an address has a tag already. One that cannot be read is searched for
/// the parameter's text: a second tag would be worse than none.
fn has_tag(value: &[u8]) -> bool {
    match NameAddr::parse(value) {
        Ok(address) => address.params.has(b"tag"),
        Err(_) => value.split(|b| *b == b';').skip(1).any(|param| {
            lex::trim(param)
                .get(..3)
                .is_some_and(|n| n.eq_ignore_ascii_case(b"tag"))
        }),
    }
}
