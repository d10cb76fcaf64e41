//! What a body holds: the session descriptions in it, alone or as parts of a multipart
//! body (RFC 2046 section 5.1, RFC 5621).

use smallvec::SmallVec;

use crate::lex;
use crate::params::Params;
use crate::span::{Span, span_within};

/// Where session descriptions stand in a body, one multipart level deep.
pub type Parts = SmallVec<[Span; 1]>;

/// The session descriptions of a body, by the value of its Content-Type.
#[must_use]
pub fn session_descriptions(content_type: &[u8], body: &[u8]) -> Parts {
    let mut parts = Parts::new();
    if is_sdp(content_type) {
        parts.push(Span::new(0, body.len()));
    } else if is_multipart(content_type)
        && let Some(boundary) = boundary(content_type)
    {
        multipart(body, &boundary, &mut parts);
    }
    parts
}

fn media_type(value: &[u8]) -> &[u8] {
    let end = value.iter().position(|b| *b == b';').unwrap_or(value.len());
    lex::trim(value.get(..end).unwrap_or(value))
}

fn is_sdp(content_type: &[u8]) -> bool {
    media_type(content_type).eq_ignore_ascii_case(b"application/sdp")
}

fn is_multipart(content_type: &[u8]) -> bool {
    media_type(content_type)
        .get(..10)
        .is_some_and(|head| head.eq_ignore_ascii_case(b"multipart/"))
}

fn boundary(content_type: &[u8]) -> Option<Vec<u8>> {
    let at = content_type.iter().position(|b| *b == b';')?;
    let value = Params::new(content_type.get(at..)?).get(b"boundary")?;
    let boundary = lex::unquote(value).into_owned();
    (!boundary.is_empty()).then_some(boundary)
}

/// Walks the lines: a delimiter begins and ends a part.
fn multipart(body: &[u8], boundary: &[u8], parts: &mut Parts) {
    let mut at = 0;
    let mut part: Option<usize> = None;
    while let Some(rest) = body.get(at..).filter(|rest| !rest.is_empty()) {
        let len = memchr::memchr(b'\n', rest).map_or(rest.len(), |lf| lf + 1);
        let line = rest.get(..len).unwrap_or(rest);
        if let Some(last) = delimiter(line, boundary) {
            if let Some(start) = part.take() {
                push(body, start, at, parts);
            }
            if last {
                return;
            }
            part = Some(at + len);
        }
        at += len;
    }
}

/// Whether a line is a delimiter, and if so the last one.
fn delimiter(line: &[u8], boundary: &[u8]) -> Option<bool> {
    let rest = line.strip_prefix(b"--")?.strip_prefix(boundary)?;
    match lex::trim(rest) {
        b"" => Some(false),
        b"--" => Some(true),
        _ => None,
    }
}

/// A part from behind its delimiter to the next one, whose line end is the delimiter's.
fn push(body: &[u8], start: usize, end: usize, parts: &mut Parts) {
    let Some(part) = body.get(start..end) else {
        return;
    };
    let part = part.strip_suffix(b"\n").unwrap_or(part);
    let part = part.strip_suffix(b"\r").unwrap_or(part);
    let mut sdp = false;
    let mut rest = part;
    while !rest.is_empty() {
        let len = memchr::memchr(b'\n', rest).map_or(rest.len(), |lf| lf + 1);
        let (line, after) = rest.split_at(len.min(rest.len()));
        rest = after;
        let line = lex::trim(line);
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|b| *b == b':').unwrap_or(0);
        let name = lex::trim(line.get(..colon).unwrap_or_default());
        if name.eq_ignore_ascii_case(b"Content-Type") || name.eq_ignore_ascii_case(b"c") {
            sdp = is_sdp(line.get(colon + 1..).unwrap_or_default());
        }
    }
    if sdp && let Some(span) = span_within(body, rest) {
        parts.push(span);
    }
}
