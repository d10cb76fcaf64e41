//! Verdicts and their builders.
//!
//! [`Verdict::reply`] and [`Verdict::relay`] start a builder that `.into()` ends;
//! `Verdict::Next` and `Verdict::Drop` need none. The functions make targets.

use crate::bindings::host::sipbox::policy::types;
use crate::call::{Body, Header};
use crate::location::Binding;
use crate::message::{Request, RouteOutcome, RouteSignature};

/// What becomes of a request.
pub use crate::bindings::host::sipbox::policy::types::Verdict;

/// Where a [`Target`] points.
pub use crate::bindings::host::sipbox::policy::types::Destination;

/// One member of the target set (RFC 3261 section 16.5).
pub use crate::bindings::host::sipbox::policy::types::Target;

/// A target that names a URI.
pub use crate::bindings::host::sipbox::policy::types::UriTarget;

/// q = 1, in thousandths.
const FULL_PREFERENCE: u16 = 1000;

impl Verdict {
    /// Answers with this status and the standard reason phrase.
    #[must_use]
    pub fn reply(status: u16) -> Reply {
        Reply(types::Reply {
            status,
            reason: String::new(),
            headers: Vec::new(),
            body: None,
            options: Vec::new(),
        })
    }

    /// Relays along the request's route set, or else to its Request-URI, until
    /// targets are given.
    #[must_use]
    pub fn relay() -> Relay {
        Relay(types::RelayPlan {
            groups: Vec::new(),
            ring_timeout: 0,
            total_timeout: 0,
            fr_timeout: 0,
            record_route: None,
            options: Vec::new(),
        })
    }

    /// What a request of a dialog gets that does not come along a Route which this proxy
    /// wrote; `None`: it does. A To tag alone is no dialog: whoever writes one could have
    /// us send anything anywhere. Nor does our Route prove more than that a dialog was here
    /// once: an INVITE whose dialog the host kept, and does not know, is astray as well.
    #[must_use]
    pub fn astray(request: &Request) -> Option<Self> {
        let ours = matches!(
            request.route_outcome(),
            RouteOutcome::Loose | RouteOutcome::Strict
        );
        let forged = request.route_signature() == RouteSignature::Invalid;
        match (ours, forged) {
            (true, false) => {
                let lost = request.method() == "INVITE"
                    && !request.has_known_dialog()
                    && request.route_param("did").is_some();
                lost.then(|| Self::reply(481).into())
            }
            _ if request.method() == "ACK" => Some(Self::Drop),
            (true, true) => Some(Self::reply(403).reason("Forged Route denied").into()),
            (false, _) => Some(Self::reply(404).reason("Not Here").into()),
        }
    }

    /// Answers 302 with the targets as Contacts.
    #[must_use]
    pub fn redirect(targets: impl IntoIterator<Item = Target>) -> Self {
        Self::Redirect(targets.into_iter().collect())
    }
}

/// All bindings of `user@domain`, found by the host after the verdict.
#[must_use]
pub fn registered(aor: impl Into<String>) -> Target {
    target(Destination::Registered(aor.into()))
}

/// A URI, reached as its own parts say.
#[must_use]
pub fn uri(uri: impl Into<String>) -> Target {
    target(Destination::Uri(UriTarget {
        uri: uri.into(),
        next_hop: String::new(),
        path: Vec::new(),
        flow: String::new(),
    }))
}

/// A URI, sent to a next hop that is another URI.
#[must_use]
pub fn uri_via(uri: impl Into<String>, next_hop: impl Into<String>) -> Target {
    target(Destination::Uri(UriTarget {
        uri: uri.into(),
        next_hop: next_hop.into(),
        path: Vec::new(),
        flow: String::new(),
    }))
}

fn target(destination: Destination) -> Target {
    Target {
        destination,
        q: FULL_PREFERENCE,
        id: 0,
        options: Vec::new(),
    }
}

impl Target {
    /// Sets the preference in thousandths, 0 to 1000.
    #[must_use]
    pub fn q(mut self, q: u16) -> Self {
        self.q = q;
        self
    }

    /// Sets the policy's own mark, told back to `on_branch` and `on_failure`.
    #[must_use]
    pub fn id(mut self, id: u32) -> Self {
        self.id = id;
        self
    }
}

impl From<Binding> for Target {
    /// The binding's contact with its path, over the flow that registered it.
    fn from(binding: Binding) -> Self {
        target(Destination::Uri(UriTarget {
            uri: binding.contact,
            next_hop: String::new(),
            path: binding.path,
            flow: binding.flow,
        }))
        .q(binding.q)
    }
}

/// A response of this proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply(types::Reply);

impl Reply {
    /// Replaces the standard reason phrase.
    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.0.reason = reason.into();
        self
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.headers.push(Header {
            name: name.into(),
            value: value.into(),
        });
        self
    }

    /// Gives it a body.
    #[must_use]
    pub fn body(mut self, content_type: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        self.0.body = Some(Body {
            content_type: content_type.into(),
            bytes: bytes.into(),
        });
        self
    }

    /// Answers without a transaction (RFC 3261 section 8.2.7).
    #[must_use]
    pub fn stateless(self) -> Verdict {
        Verdict::ReplyStateless(self.0)
    }
}

impl From<Reply> for Verdict {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply.0)
    }
}

/// What becomes of the route set that an initial request brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preloaded {
    /// The request goes along it, wherever that leads: only for senders who may do that.
    Follow,
    /// It is taken off, and the request goes to its targets.
    Strip,
}

/// A relay of the request (RFC 3261 section 16.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay(types::RelayPlan);

impl Relay {
    /// One more group with a single target, tried when the groups before have failed.
    #[must_use]
    pub fn to(self, target: Target) -> Self {
        self.to_all([target])
    }

    /// One more group, its targets tried in parallel. An empty one is left out.
    #[must_use]
    pub fn to_all(mut self, targets: impl IntoIterator<Item = Target>) -> Self {
        let group: Vec<Target> = targets.into_iter().collect();
        if !group.is_empty() {
            self.0.groups.push(group);
        }
        self
    }

    /// Groups in the order of q, targets of equal q in parallel.
    #[must_use]
    pub fn by_preference(mut self, targets: impl IntoIterator<Item = Target>) -> Self {
        let q_of = |group: &Vec<Target>| group.first().map_or(0, |first| first.q);
        let groups = &mut self.0.groups;
        let before = groups.len();
        for target in targets {
            // The groups of this call are few and in order already.
            let better = |group: &&Vec<Target>| q_of(group) > target.q;
            let place = before + groups.iter().skip(before).take_while(better).count();
            match groups.get_mut(place) {
                Some(group) if q_of(group) == target.q => group.push(target),
                _ => groups.insert(place, vec![target]),
            }
        }
        self
    }

    /// Stays on the path of the dialog: our Record-Route is inserted.
    #[must_use]
    pub fn record_route(mut self) -> Self {
        self.0.record_route.get_or_insert_default();
        self
    }

    /// Adds a URI parameter to our Record-Route, and asks for it.
    #[must_use]
    pub fn route_param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0
            .record_route
            .get_or_insert_default()
            .push((name.into(), value.into()));
        self
    }

    /// Says what becomes of the route set that an initial request brings
    /// ([`RouteOutcome::Preloaded`](crate::RouteOutcome)). Without it the host answers 403.
    #[must_use]
    pub fn preloaded(mut self, preloaded: Preloaded) -> Self {
        let value = match preloaded {
            Preloaded::Follow => "follow",
            Preloaded::Strip => "strip",
        };
        self.0.options.push(("preloaded".into(), value.into()));
        self
    }

    /// How many milliseconds a group may ring before the next one.
    #[must_use]
    pub fn ring_timeout(mut self, milliseconds: u32) -> Self {
        self.0.ring_timeout = milliseconds;
        self
    }

    /// How many milliseconds all groups together may take.
    #[must_use]
    pub fn total_timeout(mut self, milliseconds: u32) -> Self {
        self.0.total_timeout = milliseconds;
        self
    }

    /// How many milliseconds a target may say nothing at all, not even 100, before it
    /// counts as failed; without it 64 times T1 of the node, 32 seconds.
    #[must_use]
    pub fn fr_timeout(mut self, milliseconds: u32) -> Self {
        self.0.fr_timeout = milliseconds;
        self
    }
}

impl From<Relay> for Verdict {
    fn from(relay: Relay) -> Self {
        Self::Relay(relay.0)
    }
}
