//! What a policy chain decided, in concrete terms: the verdict with its targets
//! looked up. The chain makes it, the shard carries it out.

use std::sync::Arc;

use bytes::Bytes;
use sipbox_sip::OwnedMessage;
use smallvec::SmallVec;

use crate::flow::Flow;
use crate::policy::{Armed, CallState, Destination, Reply, Target, UriTarget};

/// Which later hooks each policy of the chain asked for, by position.
pub type ArmedSet = SmallVec<[Armed; 4]>;

/// One member of the target set (RFC 3261 16.5), looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedTarget {
    /// The Request-URI of the branch.
    pub uri: Bytes,
    /// Where the branch is sent, as a URI; empty: the first of `path`, else `uri`.
    pub next_hop: Bytes,
    /// Route values put in front (RFC 3327), first hop first.
    pub path: SmallVec<[Bytes; 1]>,
    /// The flow of the binding: the branch goes down it or fails.
    pub flow: Option<Flow>,
    /// The flow's token, as the policy knows it.
    pub flow_token: String,
    /// Preference in thousandths.
    pub q: u16,
    /// The policy's own mark.
    pub id: u32,
    /// The address of record whose binding it is.
    pub aor: Option<Arc<str>>,
}

impl ResolvedTarget {
    /// The bytes that it takes, about.
    pub(crate) fn holds(&self) -> usize {
        let path: usize = self.path.iter().map(Bytes::len).sum();
        size_of::<Self>() + self.uri.len() + self.next_hop.len() + path + self.flow_token.len()
    }

    /// A target that is a URI and nothing else.
    #[must_use]
    pub fn uri(uri: impl Into<Bytes>) -> Self {
        Self {
            uri: uri.into(),
            q: 1000,
            ..Self::default()
        }
    }

    /// The target as a policy words it, for `on-branch`.
    #[must_use]
    pub fn describe(&self) -> Target {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        Target {
            destination: Destination::Uri(UriTarget {
                uri: text(&self.uri),
                next_hop: text(&self.next_hop),
                path: self.path.iter().map(text).collect(),
                flow: self.flow_token.clone(),
            }),
            q: self.q,
            id: self.id,
            options: Vec::new(),
        }
    }
}

/// A relay with its targets looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relay {
    /// Tried in series; the targets of one group in parallel. Empty: along the
    /// route set, or else to the Request-URI.
    pub groups: Vec<Vec<ResolvedTarget>>,
    /// Milliseconds that a group may ring; 0: Timer C alone.
    pub ring_timeout: u32,
    /// Milliseconds for all groups together; 0: no limit but Timer C.
    pub total_timeout: u32,
    /// Milliseconds that a branch may go without any response; 0: Timer B or F alone.
    pub fr_timeout: u32,
    /// `Some` inserts a Record-Route with these URI parameters.
    pub record_route: Option<Vec<(String, String)>>,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// Answered by us.
    Reply(Reply),
    /// Answered, and nothing is left behind.
    ReplyStateless(Reply),
    /// Forwarded with transactions.
    Relay(Relay),
    /// Forwarded, and nothing is left behind.
    ForwardStateless(ResolvedTarget),
    /// 302 with the targets as Contacts, best q first.
    Redirect(Vec<ResolvedTarget>),
    /// Nothing is sent.
    Drop,
    /// Of `on-failure` only: the best response goes upstream.
    Best,
}

impl Ruling {
    /// Whether the request goes on.
    #[must_use]
    pub const fn forwards(&self) -> bool {
        matches!(self, Self::Relay(_) | Self::ForwardStateless(_))
    }

    /// Whether nothing is left to stop once it is carried out.
    pub(crate) const fn is_final(&self) -> bool {
        match self {
            Self::Reply(reply) | Self::ReplyStateless(reply) => reply.status >= 200,
            _ => !self.forwards(),
        }
    }

    /// A plain reply.
    #[must_use]
    pub fn reply(status: u16) -> Self {
        Self::Reply(Reply::of(status))
    }
}

/// The chain's answer to `Ask::Request` or `Ask::Failure`.
#[derive(Clone, Debug)]
pub struct Decision {
    /// What becomes of the request.
    pub ruling: Ruling,
    /// The request as the chain edited it.
    pub request: OwnedMessage,
    /// What the transaction remembers for the policies.
    pub state: CallState,
    /// Hooks asked for.
    pub armed: ArmedSet,
}
