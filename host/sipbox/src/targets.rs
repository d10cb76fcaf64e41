//! From a policy's targets to concrete ones: bindings are looked up and flow
//! tokens read before the shard is asked to carry a verdict out, so that no
//! thread holds two locks.

use std::sync::Arc;

use sipbox_core::decision::{Relay, ResolvedTarget, Ruling};
use sipbox_core::location::{Aor, Binding};
use sipbox_core::policy::{Destination, RelayPlan, Reply, Target, UriTarget, Verdict};
use sipbox_core::time::WallTime;

use crate::node::Node;
use crate::snapshot::Tenant;

/// What a target was looked up with.
pub(crate) struct Lookup<'a> {
    /// The node.
    pub(crate) node: &'a Node,
    /// Whose bindings.
    pub(crate) tenant: &'a Tenant,
    /// Which bindings still hold.
    pub(crate) wall: WallTime,
}

/// How many targets a verdict may come to. Addresses of record stand for as many as
/// they have bindings, which the limits of the hook do not see.
const MAX_TARGETS: usize = 128;

impl Lookup<'_> {
    /// A verdict with its targets looked up. [`Verdict::Next`] is what a failure
    /// hook leaves: the best response.
    ///
    /// A relay to addresses of record none of which has a binding is answered 480
    /// (RFC 3261 section 16.5: the target set is empty).
    pub(crate) fn ruling(&self, verdict: Verdict) -> Ruling {
        match verdict {
            Verdict::Next => Ruling::Best,
            Verdict::Reply(reply) => Ruling::Reply(reply),
            Verdict::ReplyStateless(reply) => Ruling::ReplyStateless(reply),
            Verdict::Drop => Ruling::Drop,
            Verdict::Relay(plan) => self.relay(plan),
            Verdict::Redirect(targets) => {
                let targets = self.group(&targets, &mut { MAX_TARGETS });
                if targets.is_empty() {
                    unavailable()
                } else {
                    Ruling::Redirect(targets)
                }
            }
            Verdict::ForwardStateless(target) => {
                let first = self
                    .group(std::slice::from_ref(&target), &mut 1)
                    .into_iter()
                    .next();
                first.map_or_else(unavailable, Ruling::ForwardStateless)
            }
        }
    }

    fn relay(&self, plan: RelayPlan) -> Ruling {
        let along_route = plan.groups.is_empty();
        let mut room = MAX_TARGETS;
        let groups: Vec<_> = plan
            .groups
            .iter()
            .map(|group| self.group(group, &mut room))
            .filter(|group| !group.is_empty())
            .collect();
        if groups.is_empty() && !along_route {
            return unavailable();
        }
        Ruling::Relay(Relay {
            groups,
            ring_timeout: plan.ring_timeout,
            total_timeout: plan.total_timeout,
            fr_timeout: plan.fr_timeout,
            record_route: plan.record_route,
        })
    }

    /// Takes what it adds off `room`; what there is no room for is left out.
    fn group(&self, targets: &[Target], room: &mut usize) -> Vec<ResolvedTarget> {
        let mut resolved = Vec::with_capacity(targets.len().min(*room));
        for target in targets {
            if resolved.len() >= *room {
                tracing::debug!(
                    tenant = &*self.tenant.name,
                    "targets beyond {MAX_TARGETS} left out"
                );
                break;
            }
            match &target.destination {
                Destination::Uri(uri) => resolved.extend(self.uri(uri, target)),
                Destination::Registered(aor) => {
                    self.registered(aor, target, *room, &mut resolved);
                }
                // Refused by the sandbox until there are destination sets.
                Destination::Set { .. } => {}
            }
        }
        *room -= resolved.len().min(*room);
        resolved
    }

    /// `None`: the flow that the target must use is gone for good.
    fn uri(&self, uri: &UriTarget, target: &Target) -> Option<ResolvedTarget> {
        let flow = match uri.flow.as_str() {
            "" => None,
            token => match self.node.tokens.decode(self.tenant.id, token) {
                Ok(flow) => Some(flow),
                Err(error) => {
                    tracing::debug!(tenant = &*self.tenant.name, %error, "target left out");
                    return None;
                }
            },
        };
        Some(ResolvedTarget {
            uri: uri.uri.clone().into(),
            next_hop: uri.next_hop.clone().into(),
            path: uri.path.iter().map(|value| value.clone().into()).collect(),
            flow,
            flow_token: uri.flow.clone(),
            q: target.q,
            id: target.id,
            aor: None,
        })
    }

    fn registered(
        &self,
        aor: &str,
        target: &Target,
        room: usize,
        resolved: &mut Vec<ResolvedTarget>,
    ) {
        let Ok(parsed) = Aor::parse(aor) else { return };
        let bindings = self
            .node
            .location
            .lookup(self.tenant.id, &parsed, self.wall);
        let aor: Arc<str> = parsed.as_str().into();
        resolved.extend(
            bindings
                .iter()
                .take(room.saturating_sub(resolved.len()))
                .map(|binding| self.binding(binding, target, &aor)),
        );
    }

    fn binding(&self, binding: &Binding, target: &Target, aor: &Arc<str>) -> ResolvedTarget {
        // RFC 3327 section 5.4: with a Path, the request goes to its first hop,
        // which knows the flow; the one that we know is that hop's own.
        let flow = if binding.path.is_empty() {
            binding.flow
        } else {
            None
        };
        ResolvedTarget {
            uri: bytes::Bytes::copy_from_slice(binding.contact.as_bytes()),
            path: binding
                .path
                .iter()
                .map(|value| bytes::Bytes::copy_from_slice(value.as_bytes()))
                .collect(),
            flow,
            q: binding.q,
            id: target.id,
            aor: Some(Arc::clone(aor)),
            ..ResolvedTarget::default()
        }
    }
}

fn unavailable() -> Ruling {
    Ruling::Reply(Reply::of(480))
}
