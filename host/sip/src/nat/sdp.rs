//! Session descriptions that name an address nobody reaches, mended (fix_nated_sdp).

use std::net::IpAddr;

use super::bits;
use crate::body;
use crate::lex;
use crate::sdp::{Line, Sdp};
use crate::span::span_within;

bits! {
    /// What [`fix_body`] does, under OpenSIPS's names and in its order.
    SdpFixes {
        /// `a=direction:active` is added.
        ADD_DIR_ACTIVE = 0;
        /// The address of every `c=` is replaced.
        REWRITE_MEDIA_IP = 1;
        /// `a=nortpproxy:yes` is added: relays leave the description alone.
        ADD_NO_RTPPROXY = 2;
        /// The address of `o=` is replaced.
        REWRITE_ORIGIN_IP = 3;
        /// Null addresses of `c=` are replaced too, which mean a stream on hold.
        REWRITE_NULL_IPS = 4;
        /// The old addresses are not kept in `a=oldcip` and `a=oldoip`.
        OLDIP_SKIP = 5;
    }
}

/// The body with each session description in it mended; `None` if nothing changes.
/// `fields` are lines to add to each, without the last line end.
#[must_use]
pub fn fix_body(
    content_type: &[u8],
    body: &[u8],
    fixes: SdpFixes,
    address: IpAddr,
    fields: &[u8],
) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(body.len() + 128);
    let mut at = 0;
    let mut changed = false;
    for part in body::session_descriptions(content_type, body) {
        out.extend_from_slice(body.get(at..part.start as usize).unwrap_or_default());
        changed |= fix(
            part.of(body),
            fixes,
            address.to_canonical(),
            fields,
            &mut out,
        );
        at = part.end as usize;
    }
    out.extend_from_slice(body.get(at..).unwrap_or_default());
    changed.then_some(out)
}

/// One description; whether it differs.
fn fix(sdp: &[u8], fixes: SdpFixes, address: IpAddr, fields: &[u8], out: &mut Vec<u8>) -> bool {
    let begin = out.len();
    let mut old: Vec<(&[u8], &[u8])> = Vec::new();
    let mut at = 0;
    for line in Sdp::new(sdp).lines() {
        let replaced = match line.kind {
            b'c' if fixes.contains(SdpFixes::REWRITE_MEDIA_IP) => {
                media_address(&line, fixes).map(|words| (&b"oldcip"[..], words))
            }
            b'o' if fixes.contains(SdpFixes::REWRITE_ORIGIN_IP) => {
                family_and_address(line.value, 4).map(|words| (&b"oldoip"[..], words))
            }
            _ => None,
        };
        let Some((kept, (family, text))) = replaced else {
            continue;
        };
        if parse(text) == Some(address) {
            continue;
        }
        let (Some(from), Some(to)) = (span_within(sdp, family), span_within(sdp, text)) else {
            continue;
        };
        out.extend_from_slice(sdp.get(at..from.start as usize).unwrap_or_default());
        out.extend_from_slice(if address.is_ipv4() { b"IP4 " } else { b"IP6 " });
        lex::write_ip(address, out);
        at = to.end as usize;
        if !old.contains(&(kept, text)) {
            old.push((kept, text));
        }
    }
    out.extend_from_slice(sdp.get(at..).unwrap_or_default());
    if !fixes.contains(SdpFixes::OLDIP_SKIP) {
        for (name, text) in old {
            add_line(begin, &[b"a=", name, b":", text], out);
        }
    }
    let has = |line: &[u8]| {
        Sdp::new(sdp)
            .lines()
            .any(|known| known.kind == b'a' && Some(known.value) == line.strip_prefix(b"a="))
    };
    let added: [(SdpFixes, &[u8]); 2] = [
        (SdpFixes::ADD_DIR_ACTIVE, b"a=direction:active"),
        (SdpFixes::ADD_NO_RTPPROXY, b"a=nortpproxy:yes"),
    ];
    for (fix, line) in added {
        if fixes.contains(fix) && !has(line) {
            add_line(begin, &[line], out);
        }
    }
    if !fields.is_empty() {
        add_line(begin, &[fields], out);
    }
    out.get(begin..) != Some(sdp)
}

/// Appends a line; what stands before it ends first.
fn add_line(begin: usize, line: &[&[u8]], out: &mut Vec<u8>) {
    if out.len() > begin && !out.ends_with(b"\n") {
        out.extend_from_slice(b"\r\n");
    }
    for text in line {
        out.extend_from_slice(text);
    }
    out.extend_from_slice(b"\r\n");
}

/// Family and address of a `c=` that is to be replaced. A group is no address of anybody,
/// and a null one puts a stream on hold.
fn media_address<'a>(line: &Line<'a>, fixes: SdpFixes) -> Option<(&'a [u8], &'a [u8])> {
    let (family, text) = family_and_address(line.value, 1)?;
    let ip = parse(text);
    if ip.is_some_and(|ip| ip.is_multicast()) {
        return None;
    }
    let null = ip.is_some_and(|ip| ip.is_unspecified());
    (!null || fixes.contains(SdpFixes::REWRITE_NULL_IPS)).then_some((family, text))
}

/// The word at `place` and the one behind it, without a `/ttl`.
fn family_and_address(value: &[u8], place: usize) -> Option<(&[u8], &[u8])> {
    let mut words = value.split(|b| *b == b' ').skip(place);
    let (family, address) = (words.next()?, words.next()?);
    let address = address.split(|b| *b == b'/').next()?;
    (matches!(family, b"IP4" | b"IP6") && !address.is_empty()).then_some((family, address))
}

fn parse(text: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
