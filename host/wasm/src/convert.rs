//! Between the contract's values and the host's, and what a verdict must
//! fulfil: options that are known, URIs that parse, texts that stay in their
//! line, and no more bytes than the tenant allows.

use bytes::Bytes;
use sipbox_core::dialog::Change;
use sipbox_core::policy::{
    Body, CallError, Destination, DialogCall, Failure, HookFailure, Preloaded, RelayPlan, Reply,
    Target, UriTarget, Verdict,
};
use sipbox_sip::{NameAddr, lex};

use crate::bindings::hooks::{dialog_hook, failure_hook};
use crate::bindings::wit::types as wit;
use crate::edit;
use crate::location::check_aor;

impl From<CallError> for wit::Error {
    fn from(error: CallError) -> Self {
        match error {
            CallError::OutOfPlace(text) => Self::OutOfPlace(text),
            CallError::Malformed(text) => Self::Malformed(text),
            CallError::Protected(text) => Self::Protected(text),
            CallError::UnknownOption(text) => Self::UnknownOption(text),
            CallError::Limit(text) => Self::Limit(text),
            CallError::Unavailable(text) => Self::Unavailable(text),
        }
    }
}

/// What `on-dialog` is told.
pub(crate) fn dialog_event(event: &DialogCall) -> dialog_hook::DialogEvent {
    dialog_hook::DialogEvent {
        change: match event.change {
            Change::Created => dialog_hook::Change::Created,
            Change::Confirmed => dialog_hook::Change::Confirmed,
            Change::Ended(reason) => dialog_hook::Change::Ended(reason.text().to_owned()),
            Change::Failed(status) => dialog_hook::Change::Failed(status),
            Change::TimedOut => dialog_hook::Change::TimedOut,
        },
        id: event.dialog.id.clone(),
        call_id: event.call_id.clone(),
        from_uri: event.from_uri.clone(),
        to_uri: event.to_uri.clone(),
        from_tag: event.from_tag.clone(),
        to_tag: event.to_tag.clone(),
        start: event.start,
        lifetime: event.dialog.lasted,
        variables: event.dialog.vars.clone(),
    }
}

/// A verdict, checked.
pub(crate) fn verdict(verdict: wit::Verdict, max_bytes: u32) -> Result<Verdict, HookFailure> {
    let bytes = verdict_size(&verdict);
    if bytes > max_bytes as usize {
        return Err(HookFailure::Output);
    }
    checked(verdict).map_err(|error| HookFailure::BadVerdict(error.to_string()))
}

fn checked(verdict: wit::Verdict) -> Result<Verdict, CallError> {
    Ok(match verdict {
        wit::Verdict::Next => Verdict::Next,
        wit::Verdict::Reply(r) => Verdict::Reply(reply(r)?),
        wit::Verdict::Relay(plan) => Verdict::Relay(relay(plan)?),
        wit::Verdict::Redirect(targets) => {
            Verdict::Redirect(targets.into_iter().map(target).collect::<Result<_, _>>()?)
        }
        wit::Verdict::Drop => Verdict::Drop,
        wit::Verdict::ForwardStateless(t) => {
            check_options(&t.options)?;
            Verdict::ForwardStateless(any_target(t)?)
        }
        wit::Verdict::ReplyStateless(r) => Verdict::ReplyStateless(reply(r)?),
    })
}

fn reply(reply: wit::Reply) -> Result<Reply, CallError> {
    no_options(&reply.options)?;
    // A verdict ends the request: provisional responses are the host's.
    if !(200..700).contains(&reply.status) {
        return Err(CallError::Malformed(format!("status {}", reply.status)));
    }
    edit::check_value("reason", &reply.reason)?;
    for field in &reply.headers {
        edit::check_reply_field(&field.name, &field.value)?;
    }
    if let Some(body) = &reply.body {
        edit::check_content_type(&body.content_type)?;
    }
    Ok(Reply {
        status: reply.status,
        reason: reply.reason,
        headers: reply
            .headers
            .into_iter()
            .map(|field| (field.name, field.value))
            .collect(),
        body: reply.body.map(|body| Body {
            content_type: body.content_type,
            bytes: Bytes::from(body.bytes),
        }),
        options: reply.options,
    })
}

fn relay(plan: wit::RelayPlan) -> Result<RelayPlan, CallError> {
    check_options(&plan.options)?;
    for (name, value) in plan.record_route.iter().flatten() {
        edit::check_route_param(name, value)?;
    }
    let group = |group: Vec<wit::Target>| group.into_iter().map(target).collect();
    Ok(RelayPlan {
        groups: plan
            .groups
            .into_iter()
            .map(group)
            .collect::<Result<_, _>>()?,
        ring_timeout: plan.ring_timeout,
        total_timeout: plan.total_timeout,
        fr_timeout: plan.fr_timeout,
        record_route: plan.record_route,
        options: plan.options,
    })
}

fn target(target: wit::Target) -> Result<Target, CallError> {
    no_options(&target.options)?;
    any_target(target)
}

fn any_target(target: wit::Target) -> Result<Target, CallError> {
    if target.q > 1000 {
        return Err(CallError::Malformed(format!(
            "q of {} thousandths",
            target.q
        )));
    }
    let destination = match target.destination {
        wit::Destination::Uri(uri) => Destination::Uri(uri_target(uri)?),
        wit::Destination::Registered(aor) => {
            check_aor(&aor)?;
            Destination::Registered(aor)
        }
        wit::Destination::Set(set) => {
            edit::check_value("destination set", &set.name)?;
            Destination::Set {
                name: set.name,
                algorithm: set.algorithm,
            }
        }
    };
    Ok(Target {
        destination,
        q: target.q,
        id: target.id,
        options: target.options,
    })
}

fn uri_target(target: wit::UriTarget) -> Result<UriTarget, CallError> {
    edit::check_uri("target uri", &target.uri)?;
    if !target.next_hop.is_empty() {
        edit::check_uri("next hop", &target.next_hop)?;
    }
    for route in &target.path {
        check_route(route)?;
    }
    if !target.flow.is_empty() && !target.flow.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(CallError::Malformed("flow".to_owned()));
    }
    Ok(UriTarget {
        uri: target.uri,
        next_hop: target.next_hop,
        path: target.path.into_iter().map(bracketed).collect(),
        flow: target.flow,
    })
}

/// A Route value: one address, or a bare URI.
fn check_route(route: &str) -> Result<(), CallError> {
    let malformed = || CallError::Malformed(format!("path `{}`", edit::shown(route)));
    if !lex::is_field_value(route.as_bytes()) {
        return Err(malformed());
    }
    NameAddr::parse(route.as_bytes())
        .map(drop)
        .map_err(|_| malformed())
}

/// A bare URI in the brackets that a Route value must have (RFC 3261 20.34).
fn bracketed(route: String) -> String {
    match NameAddr::parse(route.as_bytes()) {
        Ok(address) if !address.bracketed => format!("<{route}>"),
        _ => route,
    }
}

/// The options of what forwards a request; the names are listed in `wit/README.md`.
fn check_options(options: &[(String, String)]) -> Result<(), CallError> {
    for (name, value) in options {
        if name != Preloaded::OPTION {
            return Err(CallError::UnknownOption(edit::shown(name)));
        }
        if Preloaded::from_value(value).is_none() {
            let found = edit::shown(value);
            return Err(CallError::Malformed(format!(
                "option `{name}` is `follow` or `strip`, not `{found}`"
            )));
        }
    }
    Ok(())
}

/// No option is known yet; the names are listed in `wit/README.md`.
fn no_options(options: &[(String, String)]) -> Result<(), CallError> {
    match options.first() {
        None => Ok(()),
        Some((name, _)) => Err(CallError::UnknownOption(edit::shown(name))),
    }
}

fn verdict_size(verdict: &wit::Verdict) -> usize {
    match verdict {
        wit::Verdict::Next | wit::Verdict::Drop => 0,
        wit::Verdict::Reply(reply) | wit::Verdict::ReplyStateless(reply) => {
            let fields: usize = reply
                .headers
                .iter()
                .map(|f| f.name.len() + f.value.len())
                .sum();
            let body = reply
                .body
                .as_ref()
                .map_or(0, |b| b.content_type.len() + b.bytes.len());
            reply.reason.len() + fields + body + pairs_size(&reply.options)
        }
        wit::Verdict::Relay(plan) => {
            let groups: usize = plan.groups.iter().flatten().map(target_size).sum();
            let route = plan.record_route.as_deref().map_or(0, pairs_size);
            groups + route + pairs_size(&plan.options)
        }
        wit::Verdict::Redirect(targets) => targets.iter().map(target_size).sum(),
        wit::Verdict::ForwardStateless(target) => target_size(target),
    }
}

/// Each target counts for itself too: a million empty ones are no small verdict.
fn target_size(target: &wit::Target) -> usize {
    let texts = match &target.destination {
        wit::Destination::Uri(uri) => {
            let path: usize = uri.path.iter().map(|p| p.len() + size_of::<String>()).sum();
            uri.uri.len() + uri.next_hop.len() + uri.flow.len() + path
        }
        wit::Destination::Registered(aor) => aor.len(),
        wit::Destination::Set(set) => set.name.len() + set.algorithm.len(),
    };
    texts + size_of::<wit::Target>() + pairs_size(&target.options)
}

fn pairs_size(pairs: &[(String, String)]) -> usize {
    pairs
        .iter()
        .map(|(name, value)| name.len() + value.len() + 2 * size_of::<String>())
        .sum()
}

/// A target for `on-branch`.
pub(crate) fn branch_target(target: &Target) -> wit::Target {
    wit::Target {
        destination: match &target.destination {
            Destination::Uri(uri) => wit::Destination::Uri(wit::UriTarget {
                uri: uri.uri.clone(),
                next_hop: uri.next_hop.clone(),
                path: uri.path.clone(),
                flow: uri.flow.clone(),
            }),
            Destination::Registered(aor) => wit::Destination::Registered(aor.clone()),
            Destination::Set { name, algorithm } => wit::Destination::Set(wit::SetTarget {
                name: name.clone(),
                algorithm: algorithm.clone(),
            }),
        },
        q: target.q,
        id: target.id,
        options: target.options.clone(),
    }
}

/// A failure for `on-failure`.
pub(crate) fn failure(failure: &Failure) -> failure_hook::Failure {
    failure_hook::Failure {
        status: failure.status,
        reason: failure.reason.clone(),
        failed: failure
            .failed
            .iter()
            .map(|failed| failure_hook::FailedTarget {
                id: failed.id,
                uri: failed.uri.clone(),
                status: failed.status,
            })
            .collect(),
        cancelled: failure.cancelled,
    }
}
