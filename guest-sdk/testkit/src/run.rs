//! What came of a hook call, and what a test says about it.

use std::collections::BTreeMap;

use sipbox_guest::auth::Algorithm;
use sipbox_guest::bindings::host::sipbox::policy::types::{RelayPlan, Reply};
use sipbox_guest::location::{Binding, SaveLimits};
use sipbox_guest::log::Level;
use sipbox_guest::{Destination, Edit, Hooks, Target, Verdict};

use crate::call::Call;
use crate::dialogs::{HeldLease, TestDialog};
use crate::nat::NatState;
use crate::record::Recording;

/// A write that the hook staged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// `auth.challenge`
    Challenge {
        /// The realm.
        realm: String,
        /// 407 instead of 401.
        proxy: bool,
        /// The algorithms, best first.
        algorithms: Vec<Algorithm>,
    },
    /// `location.save`
    Save {
        /// `user@domain`.
        aor: String,
        /// The limits that the policy set.
        limits: SaveLimits,
        /// The bindings that stand afterwards.
        bindings: Vec<Binding>,
    },
    /// `location.remove`
    Remove {
        /// `user@domain`.
        aor: String,
    },
    /// `leases.acquire`, granted.
    Acquire {
        /// The scope.
        scope: String,
        /// The key.
        key: String,
    },
    /// `leases.release`
    Release {
        /// The scope.
        scope: String,
        /// The key.
        key: String,
    },
    /// `kv.set`, `kv.remove`, `kv.compare-and-set`.
    Kv {
        /// The key.
        key: String,
        /// The value; `None`: removed.
        value: Option<Vec<u8>>,
        /// Seconds that it lasts; 0: until it is removed.
        ttl: u32,
        /// The version that this call sees.
        version: u32,
    },
}

/// What `call.record-route` and `call.record-route-preset` asked for; without texts the
/// addresses are the listeners'.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordRoute {
    /// What stands for the address on the callee's side.
    pub outbound: String,
    /// What stands for it on the caller's, in a second value.
    pub inbound: Option<String>,
}

/// What a hook returned, and what it did on the way.
#[derive(Clone, Debug)]
pub struct Run<V = Verdict> {
    /// What the hook returned.
    pub verdict: V,
    /// The edits that it made, in order.
    pub edits: Vec<Edit>,
    /// The lines that it logged.
    pub logs: Vec<(Level, String)>,
    /// The later hooks that it asked for.
    pub armed: Hooks,
    /// The writes that it staged.
    pub effects: Vec<Effect>,
    /// The variables of the transaction.
    pub vars: BTreeMap<String, String>,
    /// The parameters for our Record-Route.
    pub route_params: Vec<(String, String)>,
    /// Whether it asked for a Record-Route itself.
    pub record_route: Option<RecordRoute>,
    /// What `nat` was told.
    pub nat: NatState,
    /// The dialog as the hook left it.
    pub dialog: Option<TestDialog>,
    /// The leases that the call holds.
    pub leases: Vec<HeldLease>,
    /// Its host calls.
    pub recording: Recording,
    pub(crate) call: Call,
}

impl<V> Run<V> {
    /// The same message for a later hook of the transaction: variables and the
    /// confirmed user are kept, edits are not applied.
    #[must_use]
    pub fn then(&self) -> Call {
        self.call.clone()
    }

    /// Fails unless a line of this level holds the text.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn assert_logged(&self, level: Level, text: &str) -> &Self {
        assert!(
            self.logs
                .iter()
                .any(|(other, line)| *other == level && line.contains(text)),
            "no {level:?} line holds `{text}`: {:?}",
            self.logs
        );
        self
    }

    /// Fails unless the hook called exactly these host functions, in order.
    ///
    /// # Panics
    /// When it called others.
    #[track_caller]
    pub fn assert_host_calls(&self, functions: &[&str]) -> &Self {
        assert_eq!(self.recording.functions(), functions, "host calls");
        self
    }
}

impl Run {
    /// The reply.
    ///
    /// # Panics
    /// When the verdict is another.
    #[track_caller]
    #[must_use]
    pub fn reply(&self) -> &Reply {
        match &self.verdict {
            Verdict::Reply(reply) | Verdict::ReplyStateless(reply) => reply,
            other => panic!("a reply was expected, not {other:?}"),
        }
    }

    /// The relay.
    ///
    /// # Panics
    /// When the verdict is another.
    #[track_caller]
    #[must_use]
    pub fn relay(&self) -> &RelayPlan {
        match &self.verdict {
            Verdict::Relay(plan) => plan,
            other => panic!("a relay was expected, not {other:?}"),
        }
    }

    /// The reply's values of a header field.
    ///
    /// # Panics
    /// When the verdict is no reply.
    #[track_caller]
    #[must_use]
    pub fn reply_headers(&self, name: &str) -> Vec<&str> {
        self.reply()
            .headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value.as_str())
            .collect()
    }

    /// Fails unless the verdict is a reply with this status.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn assert_reply(&self, status: u16) -> &Self {
        assert_eq!(self.reply().status, status, "status of {:?}", self.reply());
        self
    }

    /// Fails unless the verdict is a reply with this status and phrase.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn assert_reply_saying(&self, status: u16, reason: &str) -> &Self {
        self.assert_reply(status);
        assert_eq!(self.reply().reason, reason, "reason phrase");
        self
    }

    /// Fails unless the verdict is a 401 or 407 that carries the challenges of
    /// this realm.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn assert_challenge(&self, status: u16, realm: &str) -> &Self {
        self.assert_reply(status);
        let asked = self.effects.iter().any(|effect| {
            matches!(effect, Effect::Challenge { realm: name, proxy, .. }
                if name == realm && *proxy == (status == 407))
        });
        assert!(asked, "no challenge of `{realm}`: {:?}", self.effects);
        self
    }

    /// Fails unless the verdict relays to these groups; targets are written as
    /// [`Self::targets`] writes them.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn assert_relayed_to(&self, groups: &[&[&str]]) -> &Self {
        assert_eq!(self.targets(), groups, "target set");
        self
    }

    /// Fails unless the verdict relays along the route set or to the Request-URI.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn assert_relayed_as_it_is(&self) -> &Self {
        self.assert_relayed_to(&[])
    }

    /// Fails unless the verdict relays with, or without, our Record-Route.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn assert_record_route(&self, wanted: bool) -> &Self {
        assert_eq!(self.relay().record_route.is_some(), wanted, "record-route");
        self
    }

    /// Fails unless nothing is sent.
    ///
    /// # Panics
    /// When something is.
    #[track_caller]
    pub fn assert_dropped(&self) -> &Self {
        assert_eq!(self.verdict, Verdict::Drop);
        self
    }

    /// The targets of a relay, group by group: `registered bob@example.com`,
    /// `sip:bob@192.0.2.7`, `sip:bob@192.0.2.7 via sip:edge.example.com`,
    /// `set gateways`.
    ///
    /// # Panics
    /// When the verdict is no relay.
    #[track_caller]
    #[must_use]
    pub fn targets(&self) -> Vec<Vec<String>> {
        self.relay()
            .groups
            .iter()
            .map(|group| group.iter().map(words).collect())
            .collect()
    }

    /// The Contacts of a redirection, best first.
    ///
    /// # Panics
    /// When the verdict is another.
    #[track_caller]
    #[must_use]
    pub fn contacts(&self) -> Vec<String> {
        match &self.verdict {
            Verdict::Redirect(targets) => targets.iter().map(words).collect(),
            other => panic!("a redirection was expected, not {other:?}"),
        }
    }
}

/// A target in words.
fn words(target: &Target) -> String {
    match &target.destination {
        Destination::Registered(aor) => format!("registered {aor}"),
        Destination::Set(set) => format!("set {}", set.name),
        Destination::Uri(uri) if uri.next_hop.is_empty() => uri.uri.clone(),
        Destination::Uri(uri) => format!("{} via {}", uri.uri, uri.next_hop),
    }
}
