//! The request as a branch carries it (RFC 3261 16.6): Request-URI, Max-Forwards,
//! Record-Route, Route, Via, written in one walk over the received bytes.

use std::net::IpAddr;

use bytes::Bytes;
use sipbox_sip::{EditError, EditList, HeaderId, Message, NameAddr, Uri};
use smallvec::SmallVec;

use crate::flow::{Flow, ListenerId};
use crate::ids::Ids;
use crate::record_route::{self, RecordRoute};
use crate::reply;
use crate::settings::Settings;
use crate::transaction::Scratch;

/// One branch's request, before it has its bytes.
pub(crate) struct Outgoing<'a> {
    pub(crate) request: Message<'a>,
    /// How the request came.
    pub(crate) arrived: Flow,
    /// The new Request-URI; empty: as it is.
    pub(crate) uri: &'a [u8],
    pub(crate) path: &'a [Bytes],
    pub(crate) record_route: Option<RecordRoute<'a>>,
    pub(crate) max_breadth: Option<u8>,
    /// The listener that it leaves from.
    pub(crate) leaves: ListenerId,
    pub(crate) branch: &'a str,
    /// [`Flow::local`] of how the request came, if nobody else will know when the
    /// response is here.
    pub(crate) way_back: Option<IpAddr>,
}

/// Writes the request into `scratch.message`.
pub(crate) fn write(
    outgoing: &Outgoing<'_>,
    settings: &Settings,
    ids: &Ids,
    scratch: &mut Scratch,
) -> Result<(), EditError> {
    let Scratch {
        edits,
        text,
        message: out,
    } = scratch;
    let request = outgoing.request;
    let leaves = settings
        .listener(outgoing.leaves)
        .ok_or(EditError::OutOfBounds)?;
    edits.clear();
    routes(outgoing, edits)?;
    max_forwards(request, edits)?;
    if let Some(record_route) = &outgoing.record_route {
        let arrived = settings.listener(outgoing.arrived.listener);
        let sides = (arrived, leaves);
        record_route::insert(request, record_route, sides, settings, ids, edits, text)?;
    }
    // RFC 5393 5.3.3: each request that can be forked says how often.
    if let Some(breadth) = outgoing.max_breadth {
        let value = itoa(u32::from(breadth));
        edits.set_header(request, HeaderId::MaxBreadth, value.as_slice())?;
    }
    if leaves.transport.reliable() && request.field(HeaderId::ContentLength).is_none() {
        // 16.6 step 9: a stream cannot do without.
        let length = itoa(u32::try_from(request.body().len()).unwrap_or(u32::MAX));
        edits.append_header(request, HeaderId::ContentLength, length.as_slice())?;
    }
    // 18.2.1 on the Via of the previous hop, 16.6 step 8 with ours on top.
    if let Some(top) = request.values(HeaderId::Via).next() {
        reply::received_via(request, outgoing.arrived.peer, text);
        if text.as_slice() != top.as_bytes() {
            // Its own bytes with parameters added: the folds in them are the sender's.
            edits.replace(top.span, text)?;
        }
    }
    text.clear();
    text.extend_from_slice(leaves.via.as_bytes());
    text.extend_from_slice(outgoing.branch.as_bytes());
    if let Some(local) = outgoing.way_back {
        reply::push_way_back(local, text);
    }
    edits.prepend_header(request, HeaderId::Via, text)?;
    out.clear();
    edits.write(request, out)
}

/// 16.6 steps 2 and 6: Request-URI and Route, also for a next hop that is a strict
/// router.
fn routes(outgoing: &Outgoing<'_>, edits: &mut EditList) -> Result<(), EditError> {
    let request = outgoing.request;
    let uri = if outgoing.uri.is_empty() {
        request.request_uri()
    } else {
        outgoing.uri
    };
    let first_path = outgoing.path.first().map(Bytes::as_ref);
    let first_own = request.values(HeaderId::Route).next();
    let first = first_path.or(first_own.map(|value| value.as_bytes()));
    let strict = first
        .and_then(|value| NameAddr::parse(value).ok())
        .filter(|route| !route.uri.lr() && route.uri.is_sip());
    let path = match (&strict, first_path) {
        (Some(_), Some(_)) => outgoing.path.get(1..).unwrap_or_default(),
        _ => outgoing.path,
    };
    if let Some(strict) = strict {
        edits.set_request_uri(request, strict.uri_raw())?;
        if first_path.is_none()
            && let Some(own) = first_own
        {
            edits.remove_value(request, &own)?;
        }
        let mut last = Vec::with_capacity(uri.len() + 2);
        last.push(b'<');
        last.extend_from_slice(uri);
        last.push(b'>');
        edits.append_header(request, HeaderId::Route, &last)?;
    } else if uri != request.request_uri() {
        set_uri(request, uri, edits)?;
    }
    for value in path.iter().rev() {
        edits.prepend_header(request, HeaderId::Route, value)?;
    }
    Ok(())
}

/// 16.6 step 2: what may not stand in a Request-URI is left out (19.1.1).
fn set_uri(request: Message<'_>, uri: &[u8], edits: &mut EditList) -> Result<(), EditError> {
    let parsed = Uri::parse(uri).map_err(|_| EditError::RequestUri)?;
    if parsed.headers.is_empty() && !parsed.params.has(b"method") {
        return edits.set_request_uri(request, uri);
    }
    let tail = parsed.params.raw().len() + parsed.headers.len();
    let tail = tail + usize::from(!parsed.headers.is_empty());
    let mut text = uri
        .get(..uri.len().saturating_sub(tail))
        .unwrap_or(uri)
        .to_vec();
    for param in parsed.params {
        if !param.name.eq_ignore_ascii_case(b"method") {
            text.push(b';');
            text.extend_from_slice(param.name);
            if let Some(value) = param.value {
                text.push(b'=');
                text.extend_from_slice(value);
            }
        }
    }
    edits.set_request_uri(request, &text)
}

/// 16.6 step 3.
fn max_forwards(request: Message<'_>, edits: &mut EditList) -> Result<(), EditError> {
    match (request.field(HeaderId::MaxForwards), request.max_forwards()) {
        (Some(field), Ok(Some(hops))) => {
            edits.replace_value(field, itoa(u32::from(hops.saturating_sub(1))).as_slice())
        }
        _ => edits.append_header(request, HeaderId::MaxForwards, b"70"),
    }
}

/// Decimal digits without an allocation.
fn itoa(mut number: u32) -> SmallVec<[u8; 10]> {
    let mut digits = SmallVec::new();
    loop {
        digits.insert(0, b'0' + u8::try_from(number % 10).unwrap_or(0));
        number /= 10;
        if number == 0 {
            return digits;
        }
    }
}
