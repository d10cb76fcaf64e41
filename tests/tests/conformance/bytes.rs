//! What became of a message, compared byte by byte and without the parser under test.

use std::net::IpAddr;

use sipbox_tests::message::find;

/// The header fields of a message, each with its folds, and the rest.
pub(crate) fn fields(bytes: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>, Vec<u8>) {
    // One of the messages has no empty line at its end.
    let end = find(bytes, b"\r\n\r\n").map_or(bytes.len(), |at| at + 2);
    let body = bytes.get(end + 2..).unwrap_or_default().to_vec();
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut rest = &bytes[..end];
    while !rest.is_empty() {
        let length = find(rest, b"\r\n").map_or(rest.len(), |at| at + 2);
        let (line, next) = rest.split_at(length);
        rest = next;
        match lines.last_mut() {
            Some(last) if line.starts_with(b" ") || line.starts_with(b"\t") => {
                last.extend_from_slice(line);
            }
            _ => lines.push(line.to_vec()),
        }
    }
    let start = lines.remove(0);
    (start, lines, body)
}

pub(crate) fn name(field: &[u8]) -> String {
    let end = field
        .iter()
        .position(|byte| *byte == b':')
        .unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end])
        .trim()
        .to_ascii_lowercase()
}

pub(crate) fn is_via(field: &[u8]) -> bool {
    matches!(name(field).as_str(), "via" | "v")
}

/// The topmost Via's transport and port, read as loosely as can be: broken
/// messages have one as well.
pub(crate) fn top_via(bytes: &[u8]) -> (bool, u16) {
    let (_, fields, _) = fields(bytes);
    let via = fields
        .iter()
        .find(|field| is_via(field))
        .cloned()
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&via).into_owned();
    let stream = text.contains("/TCP") || text.contains("/TLS") || text.contains("/ TCP");
    let sent_by = text.split(';').next().unwrap_or_default();
    let port = sent_by
        .rsplit_once(':')
        .and_then(|(_, port)| port.trim().parse().ok());
    (stream, port.unwrap_or(5060))
}

/// The bytes that are the message: what lies behind Content-Length in a
/// datagram is cut off (RFC 3261 section 18.3).
pub(crate) fn cut(bytes: &[u8]) -> Vec<u8> {
    let (_, fields, body) = fields(bytes);
    let length = fields
        .iter()
        .find(|field| matches!(name(field).as_str(), "content-length" | "l"))
        .and_then(|field| {
            String::from_utf8_lossy(field)
                .split_once(':')?
                .1
                .trim()
                .parse()
                .ok()
        })
        .unwrap_or(body.len());
    bytes[..bytes.len() - body.len().saturating_sub(length)].to_vec()
}

/// Takes `;received=...` and the value of `;rport` out of a Via field.
fn without_source(field: &[u8]) -> String {
    let text = String::from_utf8_lossy(field).into_owned();
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find(";received=").or_else(|| rest.find(";rport=")) {
        let at = rest.find(";rport=").map_or(at, |rport| rport.min(at));
        out.push_str(&rest[..at]);
        if rest[at..].starts_with(";rport=") {
            out.push_str(";rport");
        }
        let after = &rest[at + 1..];
        rest = &after[after.find([';', ',', '\r']).unwrap_or(after.len())..];
    }
    out + rest
}

/// A first Route without `lr` is a strict router's: it changes places with the
/// Request-URI (RFC 3261 section 16.6, step 6).
fn swap_with_strict_route(start: &mut Vec<u8>, fields: &mut [Vec<u8>]) {
    let Some(route) = fields.iter_mut().find(|field| name(field) == "route") else {
        return;
    };
    let text = String::from_utf8_lossy(route).into_owned();
    if text.contains(";lr") {
        return;
    }
    let line = String::from_utf8_lossy(start).into_owned();
    let words: Vec<&str> = line.split(' ').collect();
    let router = sipbox_tests::message::uri(&text);
    *start = format!("{} {router} {}", words[0], words[2]).into_bytes();
    *route = format!("Route: <{}>\r\n", words[1]).into_bytes();
}

/// Why `forwarded` is not `original` as a proxy forwards it, if it is not.
pub(crate) fn difference(original: &[u8], forwarded: &[u8], proxy: IpAddr) -> Option<String> {
    let (mut start, mut wanted, body) = fields(&cut(original));
    swap_with_strict_route(&mut start, &mut wanted);
    let (got_start, mut got, got_body) = fields(forwarded);
    let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if start != got_start {
        return Some(format!(
            "start line {:?} became {:?}",
            show(&start),
            show(&got_start)
        ));
    }
    if body != got_body {
        return Some(format!(
            "{} bytes of body became {}",
            body.len(),
            got_body.len()
        ));
    }
    let ours = got.iter().position(|field| is_via(field))?;
    let via = show(&got.remove(ours));
    if !via.contains(&proxy.to_string()) {
        return Some(format!("the topmost Via is not ours: {via:?}"));
    }
    // What a proxy must change or may add.
    let recorded = |field: &Vec<u8>| {
        name(field) == "record-route" && show(field).contains(&format!("sip:{proxy}"))
    };
    got.retain(|field| !recorded(field));
    // RFC 5393 5.3.3: every request that leaves has one.
    if !wanted.iter().any(|field| name(field) == "max-breadth") {
        got.retain(|field| name(field) != "max-breadth");
    }
    let hops = |field: &Vec<u8>| name(field) == "max-forwards";
    let before = wanted
        .iter()
        .find(|field| hops(field))
        .map(|field| show(field));
    let after = got
        .iter()
        .find(|field| hops(field))
        .map(|field| show(field));
    let number = |text: &String| -> i64 {
        text.split_once(':')
            .and_then(|(_, value)| value.trim().parse().ok())
            .unwrap_or(-1)
    };
    match (&before, &after) {
        (Some(before), Some(after)) if number(after) == number(before) - 1 => {}
        (None, Some(after)) if number(after) == 70 => {}
        _ => return Some(format!("Max-Forwards {before:?} became {after:?}")),
    }
    let wanted: Vec<Vec<u8>> = wanted.into_iter().filter(|field| !hops(field)).collect();
    got.retain(|field| !hops(field));
    let mut first_via = true;
    for (at, field) in wanted.iter().enumerate() {
        let Some(found) = got.get(at) else {
            return Some(format!("lost {:?}", show(field)));
        };
        let same = if is_via(field) && std::mem::take(&mut first_via) {
            // A `received` that was there is kept or replaced, and a field that
            // is changed may lose its folds.
            let packed =
                |field: &[u8]| without_source(field).split_whitespace().collect::<String>();
            packed(found) == packed(field)
        } else {
            found == field
        };
        if !same {
            return Some(format!("{:?} became {:?}", show(field), show(found)));
        }
    }
    (got.len() > wanted.len()).then(|| format!("added {:?}", show(&got[wanted.len()])))
}
