//! What is settled about a new request before anybody is asked: RFC 3261 16.3, the
//! tenant, and the facts that its policies get to know.

use std::hash::Hasher;
use std::sync::Arc;

use bytes::Bytes;
use sipbox_sip::{HeaderId, Message, Method, NameAddr, OwnedMessage, Params, Parts, Span, Via};

use crate::dialog::{DID_PARAM, DialogService};
use crate::error::Internal;
use crate::flow::{Flow, TenantId};
use crate::gathered::Gathered;
use crate::ids::{Ids, OwnBranch};
use crate::lease::Lease;
use crate::policy::{Facts, Reply};
use crate::routing;
use crate::settings::Settings;
use crate::stack::Env;
use crate::transaction::Scratch;

/// A request that may be decided about.
pub(crate) struct Intake {
    pub(crate) tenant: TenantId,
    pub(crate) request: OwnedMessage,
    pub(crate) facts: Arc<Facts>,
    /// RFC 5393 5.3: how many branches it may have at a time.
    pub(crate) breadth: u8,
    /// RFC 5393 4.2: what the routing decision depends on.
    pub(crate) loop_hash: LoopHash,
    /// Its place among the calls of the tenant.
    pub(crate) call: Option<Lease>,
}

/// Judges a request that matched no transaction.
///
/// # Errors
/// The reply to send instead of asking anybody.
#[allow(
    clippy::too_many_arguments,
    reason = "one message and what is known about it"
)]
pub(crate) fn judge(
    env: &Env<'_>,
    ids: &Ids,
    dialogs: &DialogService,
    message: Message<'_>,
    parts: &Parts,
    bytes: &Bytes,
    flow: Flow,
    scratch: &mut Scratch,
) -> Result<Intake, Box<Reply>> {
    let settings = env.settings;
    let ack = message.method() == Method::Ack;
    if spent(message) && !matches!(message.method(), Method::Options | Method::Register) {
        return Err(refusal(SPENT));
    }
    let loop_hash = loop_hash(message, parts, ids);
    if looped(message, loop_hash, settings, ids) {
        return Err(refusal(482));
    }
    if !ack {
        proxy_require(message, settings)?;
    }
    let in_dialog = !parts.to.tag.is_empty();
    let routed = routing::process(
        message, parts, bytes, in_dialog, env.wall, settings, ids, scratch,
    )
    .map_err(|_| refusal(Internal::Unbuildable.status()))?;
    let tenant = tenant(message, &routed, settings, flow)
        .ok_or_else(|| refusal(Internal::NoVerdict.status()))?;
    let dialog = in_dialog
        .then(|| {
            let did = Params::new(&routed.params).get(DID_PARAM.as_bytes());
            dialogs.find(tenant, message, parts, did, settings.dialogs.match_mode)
        })
        .flatten()
        .filter(|known| {
            let request = routed.request.as_ref();
            request.method() != Method::Invite || dialogs.goes_on_with(*known, request)
        });
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
        route_signature: routed.signature,
        leaves: routed.leaves,
        dialog,
    });
    // RFC 5393 5.3.3: a request that says nothing has the default, and none has more
    // than we allow.
    let breadth = match message.max_breadth() {
        Ok(Some(breadth)) => breadth.min(settings.max_breadth),
        _ => settings.max_breadth,
    };
    Ok(Intake {
        tenant,
        request: routed.request,
        facts,
        breadth,
        loop_hash,
        call: None,
    })
}

/// 16.3 step 3: the request may go no further. An OPTIONS may be answered all the same
/// (11.2), and a registrar does not look at Max-Forwards at all (10.3), so the policies
/// are asked about these two; what they want forwarded gets this status.
pub(crate) const SPENT: u16 = 483;

pub(crate) fn spent(message: Message<'_>) -> bool {
    message.max_forwards() == Ok(Some(0))
}

fn refusal(status: u16) -> Box<Reply> {
    Box::new(Reply::of(status))
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

/// RFC 5393 4.2.1: what the routing of a request depends on, the Vias left out, since
/// a loop changes them. A request that comes back with another hash is a spiral.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoopHash {
    /// Of all that our routing may depend on.
    pub(crate) stateful: u32,
    /// Of that part which an INVITE has in common with its CANCEL (9.1) and with the ACK
    /// for its failure (17.1.1.3), since they must get the same branch (16.11).
    pub(crate) stateless: u32,
}

pub(crate) fn loop_hash(message: Message<'_>, parts: &Parts, ids: &Ids) -> LoopHash {
    let mut hashed = Gathered::new(ids.hasher(b'l'));
    let list = |hashed: &mut Gathered<_>, id| {
        for value in message.values(id) {
            hashed.part(value.as_bytes());
        }
        hashed.part(b"");
    };
    hashed.part(message.request_uri());
    hashed.part(message.get(parts.from.tag));
    hashed.part(message.call_id().unwrap_or_default());
    let number = message.cseq().map(|cseq| cseq.number).unwrap_or_default();
    hashed.part(&number.to_be_bytes());
    list(&mut hashed, HeaderId::Route);
    let stateless = upper(hashed.hasher().finish());
    hashed.part(message.get(parts.to.tag));
    list(&mut hashed, HeaderId::ProxyRequire);
    list(&mut hashed, HeaderId::ProxyAuthorization);
    LoopHash {
        stateful: upper(hashed.hasher().finish()),
        stateless,
    }
}

fn upper(hash: u64) -> u32 {
    u32::try_from(hash >> 32).unwrap_or(0)
}

/// 16.3 step 4 and RFC 5393 4.2.2. The branch is looked at first: it tells most
/// Vias from ours before they have to be read.
fn looped(message: Message<'_>, hash: LoopHash, settings: &Settings, ids: &Ids) -> bool {
    message.values(HeaderId::Via).any(|value| {
        let value = value.as_bytes();
        let own = params_of(value)
            .get(b"branch")
            .and_then(|branch| ids.read_branch(branch));
        let looks_back = |own: OwnBranch| match own.place {
            Some(_) => own.loop_hash == hash.stateful,
            None => own.loop_hash == hash.stateless,
        };
        own.is_some_and(looks_back)
            && Via::parse(value)
                .is_ok_and(|via| settings.is_our_sent_by(&via.host, via.port_or_default()))
    })
}

/// The parameters of a Via, or of an address without brackets.
fn params_of(value: &[u8]) -> Params<'_> {
    let from = value.iter().position(|b| *b == b';').unwrap_or(value.len());
    Params::new(value.get(from..).unwrap_or_default())
}

/// The tag of a From or To that the validator has passed. It stands behind the
/// address, which need not be read again to find it.
pub(crate) fn tag(message: Message<'_>, id: HeaderId) -> Option<&[u8]> {
    let value = message.header(id)?;
    let tail = match value.iter().rposition(|b| *b == b'>') {
        Some(at) => value.get(at + 1..)?,
        None => value,
    };
    if tail.contains(&b'"') {
        // Quotes may hold brackets and semicolons.
        return NameAddr::parse(value).ok()?.tag();
    }
    params_of(tail).get(b"tag").filter(|tag| !tag.is_empty())
}

/// Whose request it is: in a dialog the tenant that our Record-Route names; else by
/// domain, the Request-URI's before the caller's; else the listener's.
fn tenant(
    message: Message<'_>,
    routed: &routing::Routed,
    settings: &Settings,
    flow: Flow,
) -> Option<TenantId> {
    if let Some(tenant) = routed.tenant {
        return Some(tenant);
    }
    let request = routed.request.as_ref();
    let parts = routed.request.parts();
    let of = |host: Span| settings.domain(request.get(host));
    let by_domain = if message.method() == Method::Register {
        of(parts.to.host).or_else(|| of(parts.uri.host))
    } else {
        of(parts.uri.host).or_else(|| of(parts.from.host))
    };
    by_domain.or_else(|| settings.listener(flow.listener)?.tenant)
}

#[cfg(test)]
mod tests {
    use sipbox_sip::Index;

    use super::*;

    #[test]
    fn a_tag_is_found_as_the_full_parser_finds_it() {
        for value in [
            "<sip:a@x>;tag=1",
            "<sip:a@x>",
            "sip:a@x;tag=2",
            "\"x>;tag=no\" <sip:a@x;tag=no>;x=y; TAG = 3",
            "\"<\" <sip:a@x;tag=no>",
            "<sip:a@x>;x=\">;tag=no\";tag=4",
            "A <sip:a@x>;tag=5;tag=6",
        ] {
            let text = format!("OPTIONS sip:a SIP/2.0\r\nTo: {value}\r\n\r\n");
            let mut index = Index::new();
            let message = Message::parse(text.as_bytes(), &mut index).unwrap();
            let full = message.to().unwrap().tag();
            assert_eq!(tag(message, HeaderId::To), full, "{value}");
        }
    }
}
