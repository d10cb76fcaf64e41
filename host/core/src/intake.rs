//! What is settled about a new request before anybody is asked: RFC 3261 16.3, the
//! tenant, and the facts that its policies get to know.

use std::hash::Hasher;
use std::sync::Arc;

use bytes::Bytes;
use sipbox_sip::{EditList, HeaderId, Message, Method, OwnedMessage, Uri};

use crate::error::Internal;
use crate::flow::{Flow, TenantId};
use crate::ids::Ids;
use crate::policy::{Facts, Reply};
use crate::routing::{self, TENANT_PARAM};
use crate::settings::Settings;
use crate::stack::Env;

/// A request that may be decided about.
pub(crate) struct Intake {
    pub(crate) tenant: TenantId,
    pub(crate) request: OwnedMessage,
    pub(crate) facts: Arc<Facts>,
    /// RFC 5393 5.3: how many branches it may have at a time.
    pub(crate) breadth: u8,
    /// RFC 5393 4.2: what the routing decision depends on.
    pub(crate) loop_hash: u32,
}

/// Judges a request that matched no transaction.
///
/// # Errors
/// The reply to send instead of asking anybody.
pub(crate) fn judge(
    env: &Env<'_>,
    ids: &Ids,
    message: Message<'_>,
    bytes: &Bytes,
    flow: Flow,
    edits: &mut EditList,
) -> Result<Intake, Box<Reply>> {
    let settings = env.settings;
    let ack = message.method() == Method::Ack;
    // 16.3 step 3. An OPTIONS could be answered in the name of its target; we
    // answer none that its chain has not seen.
    if message.max_forwards() == Ok(Some(0)) {
        return Err(refusal(483));
    }
    let loop_hash = loop_hash(message, ids);
    if looped(message, loop_hash, settings, ids) {
        return Err(refusal(482));
    }
    if !ack {
        proxy_require(message, settings)?;
    }
    let in_dialog = message.to().is_ok_and(|to| to.tag().is_some());
    let routed = routing::process(message, bytes, in_dialog, settings, ids, edits)
        .map_err(|_| refusal(Internal::Unbuildable.status()))?;
    let tenant = tenant(message, &routed, in_dialog, settings, flow)
        .ok_or_else(|| refusal(Internal::NoVerdict.status()))?;
    let listener = settings.listener(flow.listener);
    let facts = Arc::new(Facts {
        tenant,
        tenant_name: settings
            .tenant(tenant)
            .map_or_else(|| "".into(), |t| Arc::clone(&t.name)),
        listener_name: listener.map_or_else(|| "".into(), |l| Arc::clone(&l.name)),
        flow,
        now: env.wall,
        in_dialog,
        direction: routed.direction,
        route_outcome: routed.outcome,
        route_params: routed.params,
    });
    let breadth = match message.max_breadth() {
        Ok(Some(breadth)) => breadth,
        _ => settings.max_breadth,
    };
    Ok(Intake {
        tenant,
        request: routed.request,
        facts,
        breadth,
        loop_hash,
    })
}

fn refusal(status: u16) -> Box<Reply> {
    Box::new(Reply {
        status,
        ..Reply::default()
    })
}

/// 16.3 step 5: extensions that we are required to know (20.29).
fn proxy_require(message: Message<'_>, settings: &Settings) -> Result<(), Box<Reply>> {
    let mut unknown = String::new();
    for tag in message.values(HeaderId::ProxyRequire) {
        let tag = tag.as_bytes();
        let known = settings
            .supported
            .iter()
            .any(|own| own.as_bytes().eq_ignore_ascii_case(tag));
        if !known && sipbox_sip::lex::is_token(tag) {
            if !unknown.is_empty() {
                unknown.push_str(", ");
            }
            unknown.push_str(&String::from_utf8_lossy(tag));
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    let mut reply = refusal(420);
    reply
        .headers
        .push((HeaderId::Unsupported.name().to_owned(), unknown));
    Err(reply)
}

/// RFC 5393 4.2.1: everything that our routing may depend on, the Vias left out, since
/// a loop changes them. A request that comes back with another hash is a spiral.
pub(crate) fn loop_hash(message: Message<'_>, ids: &Ids) -> u32 {
    let mut hasher = ids.hasher(b'l');
    let mut part = |bytes: &[u8]| {
        hasher.write_usize(bytes.len());
        hasher.write(bytes);
    };
    part(message.request_uri());
    for address in [message.from(), message.to()] {
        part(
            address
                .ok()
                .and_then(|address| address.tag())
                .unwrap_or_default(),
        );
    }
    part(message.call_id().unwrap_or_default());
    part(
        &message
            .cseq()
            .map(|cseq| cseq.number)
            .unwrap_or_default()
            .to_be_bytes(),
    );
    for id in [
        HeaderId::Route,
        HeaderId::ProxyRequire,
        HeaderId::ProxyAuthorization,
    ] {
        for value in message.values(id) {
            part(value.as_bytes());
        }
        part(b"");
    }
    u32::try_from(hasher.finish() >> 32).unwrap_or(0)
}

/// 16.3 step 4 and RFC 5393 4.2.2.
fn looped(message: Message<'_>, hash: u32, settings: &Settings, ids: &Ids) -> bool {
    message.vias().flatten().any(|via| {
        settings.is_our_sent_by(&via.host, via.port_or_default())
            && via
                .branch()
                .and_then(|branch| ids.read_branch(branch))
                .is_some_and(|own| own.loop_hash == hash)
    })
}

/// Whose request it is: in a dialog the tenant that our Record-Route names; else by
/// domain, the Request-URI's before the caller's; else the listener's.
fn tenant(
    message: Message<'_>,
    routed: &routing::Routed,
    in_dialog: bool,
    settings: &Settings,
    flow: Flow,
) -> Option<TenantId> {
    if in_dialog {
        let params = sipbox_sip::Params::new(&routed.params);
        let named = params
            .get(TENANT_PARAM.as_bytes())
            .and_then(|name| settings.tenant_by_param(name));
        if let Some(tenant) = named {
            return Some(tenant);
        }
    }
    let request = routed.request.as_ref();
    let uri = Uri::parse(request.request_uri()).ok();
    let of_uri = uri.and_then(|uri| settings.domain(uri.host_raw));
    let of = |address: Option<&[u8]>| address.and_then(|host| settings.domain(host));
    let by_domain = if message.method() == Method::Register {
        of(message.to().ok().map(|to| to.uri.host_raw)).or(of_uri)
    } else {
        of_uri.or_else(|| of(message.from().ok().map(|from| from.uri.host_raw)))
    };
    by_domain.or_else(|| settings.listener(flow.listener)?.tenant)
}
