//! One end of a dialog: what a request to it is made of (RFC 3261 12.1).

use bytes::Bytes;
use sipbox_sip::uri::equivalent;
use sipbox_sip::{HeaderId, Message, NameAddr, Uri, lex};

use super::event::contact_of;
use super::id::{DID_PARAM, DialogId};
use crate::flow::Flow;
use crate::intake;
use crate::settings::Settings;
use crate::transaction::keep;

/// One end.
#[derive(Clone, Debug, Default)]
pub(super) struct Leg {
    pub(super) tag: Bytes,
    /// The last CSeq number that came from it.
    pub(super) cseq: u32,
    /// The remote target.
    pub(super) contact: Bytes,
    /// The route set towards it, first hop first.
    pub(super) routes: Vec<Bytes>,
    /// How it was heard, unless that was before a restart.
    pub(super) flow: Option<Flow>,
    /// It is reached by that flow or not at all.
    pub(super) by_flow: bool,
    /// The socket's text, of a dialog that was restored.
    pub(super) socket: Option<Box<str>>,
    /// What is asked has not been answered.
    pub(super) probing: bool,
    /// So many questions in a row could not be sent.
    pub(super) unsent: u8,
    /// The CSeq number of the last question.
    pub(super) ping_cseq: u32,
}

impl Leg {
    /// The caller, by its INVITE (12.1.1).
    pub(super) fn caller(invite: Message<'_>, flow: Flow) -> Self {
        Self {
            tag: keep(intake::tag(invite, HeaderId::From).unwrap_or_default()),
            cseq: invite.cseq().map(|cseq| cseq.number).unwrap_or_default(),
            contact: contact_of(invite).unwrap_or_default(),
            routes: invite
                .values(HeaderId::RecordRoute)
                .map(|value| keep(&lex::unfold(value.as_bytes())))
                .collect(),
            flow: Some(flow),
            by_flow: crate::agent::session::flows_back(invite, flow),
            ..Self::default()
        }
    }

    /// A callee, by a response of its own (12.1.2): of the recorded routes those are on the
    /// way to it that were added behind us, the last one first.
    pub(super) fn callee(
        response: Message<'_>,
        id: DialogId,
        flow: Option<Flow>,
        settings: &Settings,
    ) -> Self {
        let did = id.to_string();
        let ours = |route: &NameAddr<'_>| match route.uri.params.get(DID_PARAM.as_bytes()) {
            Some(found) => found.eq_ignore_ascii_case(did.as_bytes()),
            None => false,
        };
        let recorded: Vec<Bytes> = response
            .values(HeaderId::RecordRoute)
            .map(|value| keep(&lex::unfold(value.as_bytes())))
            .collect();
        let place = |is: &dyn Fn(&NameAddr<'_>) -> bool| {
            recorded
                .iter()
                .position(|value| NameAddr::parse(value).is_ok_and(|route| is(&route)))
        };
        let behind = place(&ours)
            .or_else(|| place(&|route| settings.is_us(&route.uri)))
            .unwrap_or(0);
        let mut routes: Vec<Bytes> = recorded.into_iter().take(behind).collect();
        routes.reverse();
        Self {
            tag: keep(intake::tag(response, HeaderId::To).unwrap_or_default()),
            contact: contact_of(response).unwrap_or_default(),
            by_flow: routes.is_empty() && flow.is_some_and(|flow| flow.connection.is_some()),
            routes,
            flow,
            ..Self::default()
        }
    }

    /// What a later response of the same callee says: a 2xx has the last word (13.2.2.4).
    pub(super) fn learn(&mut self, later: Self) {
        let Self {
            contact,
            routes,
            flow,
            by_flow,
            ..
        } = later;
        if !contact.is_empty() {
            self.contact = contact;
        }
        self.routes = routes;
        if flow.is_some() {
            (self.flow, self.by_flow) = (flow, by_flow);
        }
    }

    /// A target refresh (12.2).
    pub(super) fn moved(&mut self, contact: Option<Bytes>) {
        if let Some(contact) = contact.filter(|contact| !contact.is_empty()) {
            self.contact = contact;
        }
    }

    /// The next CSeq number of a request to the other end that stands for one of this.
    pub(super) const fn next_cseq(&self) -> u32 {
        self.cseq.saturating_add(1)
    }
}

/// Whether a URI means this remote target.
pub(super) fn same_target(uri: &[u8], target: &[u8]) -> bool {
    uri == target
        || match (Uri::parse(uri), Uri::parse(target)) {
            (Ok(uri), Ok(target)) => equivalent(&uri, &target),
            _ => false,
        }
}

/// Whether the Route values of a request are this route set.
pub(super) fn same_routes(request: Message<'_>, routes: &[Bytes]) -> bool {
    let mut found = request.values(HeaderId::Route);
    let same = routes.iter().all(|route| {
        let (Some(found), Ok(route)) = (found.next(), NameAddr::parse(route)) else {
            return false;
        };
        NameAddr::parse(found.as_bytes())
            .is_ok_and(|found| same_target(found.uri_raw(), route.uri_raw()))
    });
    same && found.next().is_none()
}
