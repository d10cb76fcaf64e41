//! Whether a request fits its dialog (RFC 3261 section 12.2).

use sipbox_sip::{Message, Method};

use super::event::Side;
use super::leg::{same_routes, same_target};
use super::record::Dialog;

/// What `validate_dialog` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// All of it is as it should be.
    Valid,
    /// The CSeq number does not grow.
    CSeq,
    /// The Request-URI is not the remote target.
    RemoteTarget,
    /// The Route values are not the route set.
    RouteSet,
    /// There is nothing to compare with.
    Other,
}

impl Dialog {
    /// What `validate_dialog` says of a request that came from a side.
    pub(super) fn validate(&self, from: Side, request: Message<'_>) -> Validity {
        let (Some(sender), Some(other)) = (self.leg(from), self.leg(from.other())) else {
            return Validity::Other;
        };
        let number = request.cseq().map(|cseq| cseq.number).unwrap_or_default();
        if request.method() != Method::Ack && number <= sender.cseq {
            return Validity::CSeq;
        }
        if !same_target(request.request_uri(), &other.contact) {
            return Validity::RemoteTarget;
        }
        if !same_routes(request, &other.routes) {
            return Validity::RouteSet;
        }
        Validity::Valid
    }

    /// Whether an INVITE that came from a side can be one of this call: it has been answered,
    /// is not over, and the request goes to the other side (12.2.1.1).
    pub(super) fn goes_on_with(&self, from: Side, invite: Message<'_>) -> bool {
        let other = self.leg(from.other());
        self.state.is_confirmed()
            && other.is_some_and(|other| same_target(invite.request_uri(), &other.contact))
    }
}
