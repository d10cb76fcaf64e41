//! Route processing on receipt (RFC 3261 16.4): what strict routers did is undone,
//! Route values that name us are removed, and what was found becomes facts.

use std::hash::Hasher;

use bytes::Bytes;
use sipbox_sip::{EditError, EditList, HeaderId, Message, NameAddr, OwnedMessage, Parts, Uri};

use crate::ids::{Ids, TagText};
use crate::policy::{Direction, RouteOutcome, RouteParams};
use crate::settings::Settings;
use crate::transaction::{Scratch, keep};

/// The parameter of our Record-Route that names the tenant.
pub(crate) const TENANT_PARAM: &str = "tn";
/// The parameter of our Record-Route that tells the caller's From tag, hashed.
pub(crate) const FROM_PARAM: &str = "ft";

/// A request after Route processing.
pub(crate) struct Routed {
    /// The bytes, changed only if something had to be.
    pub(crate) request: OwnedMessage,
    pub(crate) outcome: RouteOutcome,
    pub(crate) direction: Direction,
    /// The URI parameters of the value that was ours, as received.
    pub(crate) params: RouteParams,
}

/// 16.4, all of it.
pub(crate) fn process(
    message: Message<'_>,
    parts: &Parts,
    bytes: &Bytes,
    in_dialog: bool,
    settings: &Settings,
    ids: &Ids,
    scratch: &mut Scratch,
) -> Result<Routed, EditError> {
    let Scratch {
        edits,
        message: changed,
        ..
    } = scratch;
    edits.clear();
    let mut params: Option<&[u8]> = None;
    let mut removed = 0usize;
    let mut strict = false;
    let total = message.values(HeaderId::Route).count();
    let mut dropped_last = false;
    let uri = Uri::parse(message.request_uri()).ok();

    // A strict router put our Record-Route value into the Request-URI, and the real
    // Request-URI at the end of the route set.
    if let Some(own) = uri.filter(|uri| total > 0 && uri.lr() && settings.is_us(uri))
        && let Some(last) = message.values(HeaderId::Route).last()
        && let Ok(target) = NameAddr::parse(last.as_bytes())
    {
        edits.set_request_uri(message, target.uri_raw())?;
        edits.remove_value(message, &last)?;
        params = Some(own.params.raw());
        strict = true;
        dropped_last = true;
    } else if let Some(uri) = uri {
        strip_maddr(message, &uri, settings, edits)?;
    }

    let left = total - usize::from(dropped_last);
    for value in message.values(HeaderId::Route).take(left) {
        let Ok(route) = NameAddr::parse(value.as_bytes()) else {
            break;
        };
        if !settings.is_us(&route.uri) {
            break;
        }
        edits.remove_value(message, &value)?;
        params.get_or_insert(route.uri.params.raw());
        removed += 1;
    }

    let outcome = if !in_dialog {
        if removed < left {
            RouteOutcome::Preloaded
        } else {
            RouteOutcome::None
        }
    } else if strict {
        RouteOutcome::Strict
    } else if removed > 0 {
        RouteOutcome::Loose
    } else {
        RouteOutcome::None
    };
    let direction = match params.filter(|_| in_dialog) {
        Some(params) => direction(message, params, ids),
        None => Direction::Unknown,
    };
    let params = params.map_or_else(RouteParams::new, RouteParams::from_slice);
    let request = if edits.is_empty() {
        OwnedMessage::new(bytes.clone(), message.index().clone(), Some(*parts))
    } else {
        changed.clear();
        edits.write(message, changed)?;
        OwnedMessage::parse(keep(changed)).map_err(|_| EditError::OutOfBounds)?
    };
    Ok(Routed {
        request,
        outcome,
        direction,
        params,
    })
}

/// 16.4, third paragraph: a `maddr` that is ours has done its work.
fn strip_maddr(
    message: Message<'_>,
    uri: &Uri<'_>,
    settings: &Settings,
    edits: &mut EditList,
) -> Result<(), EditError> {
    let Some(maddr) = uri.maddr() else {
        return Ok(());
    };
    if !uri.is_sip() || !settings.is_our_host(&maddr, uri.port_or_default()) {
        return Ok(());
    }
    let params = uri.params.raw();
    let head = uri.raw.len().saturating_sub(params.len());
    let mut text = uri.raw.get(..head).unwrap_or_default().to_vec();
    if uri.port.is_some()
        && let Some(colon) = text.iter().rposition(|b| *b == b':')
    {
        text.truncate(colon);
    }
    for param in uri.params {
        let gone = [&b"maddr"[..], b"transport"];
        if gone
            .iter()
            .any(|name| param.name.eq_ignore_ascii_case(name))
        {
            continue;
        }
        text.push(b';');
        text.extend_from_slice(param.name);
        if let Some(value) = param.value {
            text.push(b'=');
            text.extend_from_slice(value);
        }
    }
    edits.set_request_uri(message, &text)
}

/// The value of [`FROM_PARAM`] for a request that makes a dialog.
pub(crate) fn from_mark(message: Message<'_>, ids: &Ids) -> TagText {
    let mut hasher = ids.hasher(b'f');
    hasher.write(crate::intake::tag(message, HeaderId::From).unwrap_or_default());
    TagText::of(hasher.finish())
}

/// How much of the mark is written: a hint against mistakes, not a secret.
pub(crate) const MARK_LEN: usize = 6;

fn direction(message: Message<'_>, params: &[u8], ids: &Ids) -> Direction {
    let params = sipbox_sip::Params::new(params);
    let mark = from_mark(message, ids);
    match (
        params.get(FROM_PARAM.as_bytes()),
        mark.as_str().as_bytes().get(..MARK_LEN),
    ) {
        (Some(found), Some(own)) if found == own => Direction::Downstream,
        (Some(_), _) => Direction::Upstream,
        (None, _) => Direction::Unknown,
    }
}
