//! Route processing on receipt (RFC 3261 16.4): what strict routers did is undone,
//! Route values that name us are removed, and what was found becomes facts.

use bytes::Bytes;
use sipbox_sip::{EditError, EditList, HeaderId, Message, NameAddr, OwnedMessage, Parts, Uri};

use crate::flow::{ListenerId, TenantId};
use crate::ids::Ids;
use crate::policy::{Direction, RouteOutcome, RouteParams, RouteSignature};
use crate::record_route;
use crate::settings::Settings;
use crate::time::WallTime;
use crate::transaction::Scratch;

/// A request after Route processing.
pub(crate) struct Routed {
    /// The bytes, changed only if something had to be.
    pub(crate) request: OwnedMessage,
    pub(crate) outcome: RouteOutcome,
    pub(crate) direction: Direction,
    /// The URI parameters of the value that was ours, if they can be believed.
    pub(crate) params: RouteParams,
    pub(crate) signature: RouteSignature,
    /// Whom the value that was ours names.
    pub(crate) tenant: Option<TenantId>,
    /// Where a pair of values says that the request leaves.
    pub(crate) leaves: Option<ListenerId>,
}

/// What was taken off a request.
#[derive(Default)]
struct Taken<'a> {
    /// The first value of ours.
    first: Option<Uri<'a>>,
    /// The other one of a pair.
    second: Option<Uri<'a>>,
    removed: usize,
    strict: bool,
}

/// 16.4, all of it, with OpenSIPS's `loose_route()` where the RFC says nothing.
#[allow(
    clippy::too_many_arguments,
    reason = "one message and what it is judged by"
)]
pub(crate) fn process(
    message: Message<'_>,
    parts: &Parts,
    bytes: &Bytes,
    in_dialog: bool,
    now: WallTime,
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
    let total = message.values(HeaderId::Route).count();
    let uri = Uri::parse(message.request_uri()).ok();
    let ours = uri.filter(|uri| in_dialog && total > 0 && is_ours_back(uri, settings));
    let taken = match ours {
        Some(own) => strict(message, &own, total, settings, edits)?,
        None => {
            if let Some(uri) = uri {
                strip_maddr(message, &uri, settings, edits)?;
            }
            loose(message, in_dialog, settings, edits)?
        }
    };
    let outcome = match (in_dialog, taken.strict, taken.removed) {
        (true, true, _) => RouteOutcome::Strict,
        // What is left of it names nobody.
        (true, false, _) if ours.is_some() => RouteOutcome::None,
        (true, false, 0) if total > 0 => RouteOutcome::Foreign,
        (true, false, 0) => RouteOutcome::None,
        (true, false, _) => RouteOutcome::Loose,
        (false, _, removed) if removed < total => RouteOutcome::Preloaded,
        (false, ..) => RouteOutcome::None,
    };
    let params = taken.first.map(|uri| uri.params).unwrap_or_default();
    let due = settings.record_route.sign
        && taken.first.is_some()
        && (in_dialog || record_route::says_something(params));
    let (signature, signed) = match due {
        true => judge(&taken, (message, parts), now, settings, ids),
        false => (RouteSignature::None, None),
    };
    let direction = match signed {
        _ if !in_dialog => Direction::Unknown,
        Some(direction) => direction,
        None if signature == RouteSignature::Invalid => Direction::Unknown,
        None => record_route::direction(params, message, parts),
    };
    // What somebody else wrote chooses neither the tenant nor the way out.
    let believed = signature != RouteSignature::Invalid;
    let tenant = params
        .get(record_route::TENANT.as_bytes())
        .filter(|_| in_dialog && believed)
        .and_then(|name| settings.tenant_by_param(name));
    let params = match signature {
        RouteSignature::Invalid => RouteParams::new(),
        _ => RouteParams::from_slice(params.raw()),
    };
    let leaves = taken.second.filter(|_| believed && in_dialog);
    let request = if edits.is_empty() {
        OwnedMessage::new(bytes.clone(), message.index().clone(), Some(*parts))
    } else {
        edits.edited(message, Some(parts), changed)?
    };
    Ok(Routed {
        request,
        outcome,
        direction,
        params,
        signature,
        tenant,
        leaves: leaves.and_then(|uri| settings.listener_of(&uri)),
    })
}

/// Whether a Request-URI is what we wrote into Record-Route: only a strict router puts
/// that there. A GRUU of ours looks alike (RFC 5627 3.4).
fn is_ours_back(uri: &Uri<'_>, settings: &Settings) -> bool {
    uri.lr() && !uri.params.has(b"gr") && settings.is_us(uri)
}

/// A strict router put our Record-Route value into the Request-URI, and the real
/// Request-URI at the end of the route set.
fn strict<'a>(
    message: Message<'a>,
    own: &Uri<'a>,
    total: usize,
    settings: &Settings,
    edits: &mut EditList,
) -> Result<Taken<'a>, EditError> {
    let mut taken = Taken {
        first: Some(*own),
        ..Taken::default()
    };
    if record_route::is_paired(own)
        && let Some(first) = message.values(HeaderId::Route).next()
        && let Ok(twin) = NameAddr::parse(first.as_bytes())
        && record_route::is_paired(&twin.uri)
        && settings.is_us(&twin.uri)
    {
        edits.remove_value(message, &first)?;
        taken.second = Some(twin.uri);
        taken.removed += 1;
    }
    if taken.removed < total
        && let Some(last) = message.values(HeaderId::Route).last()
        && let Ok(target) = NameAddr::parse(last.as_bytes())
    {
        edits.set_request_uri(message, target.uri_raw())?;
        edits.remove_value(message, &last)?;
        taken.removed += 1;
        taken.strict = true;
    }
    Ok(taken)
}

/// Takes our value off, or both of a pair. Of the next one, even if it is ours, the
/// request knows more when it comes here again; only what begins a dialog and brings
/// several of ours has nothing to tell.
fn loose<'a>(
    message: Message<'a>,
    in_dialog: bool,
    settings: &Settings,
    edits: &mut EditList,
) -> Result<Taken<'a>, EditError> {
    let mut taken = Taken::default();
    let mut pair = false;
    for value in message.values(HeaderId::Route) {
        let Ok(route) = NameAddr::parse(value.as_bytes()) else {
            break;
        };
        if !settings.is_us(&route.uri) || (in_dialog && taken.removed > 0 && !pair) {
            break;
        }
        edits.remove_value(message, &value)?;
        if pair {
            taken.second = Some(route.uri);
        }
        pair = !pair && record_route::is_paired(&route.uri);
        taken.first.get_or_insert(route.uri);
        taken.removed += 1;
    }
    Ok(taken)
}

/// Whether what our value says can be believed, and the direction that it proves. In a
/// dialog ours always says something, but a route to us that somebody has configured for
/// its first requests need not. Of a pair both have to be ours, since the second chooses
/// the way out.
fn judge(
    taken: &Taken<'_>,
    (message, parts): (Message<'_>, &Parts),
    now: WallTime,
    settings: &Settings,
    ids: &Ids,
) -> (RouteSignature, Option<Direction>) {
    let proof = |uri: &Uri<'_>| record_route::verify(uri, message, parts, now, ids);
    let first = taken.first.as_ref().and_then(proof);
    let twin = taken.second.as_ref().map(proof);
    match (first, twin) {
        (Some(first), None | Some(Some(_))) => {
            let old = first.age > settings.record_route.signature_lifetime;
            let signature = match old {
                true => RouteSignature::Expired,
                false => RouteSignature::Valid,
            };
            (signature, Some(first.direction))
        }
        _ => (RouteSignature::Invalid, None),
    }
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
