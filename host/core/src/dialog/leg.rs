//! One end of a dialog: what a request to it is made of (RFC 3261 12.1).

use bytes::Bytes;
use sipbox_sip::uri::equivalent;
use sipbox_sip::{HeaderId, Message, NameAddr, OwnedMessage, Uri, Value, lex};

use super::event::{Heards, contact_of};
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
    pub(super) fn caller(invite: &OwnedMessage, flow: Flow) -> Self {
        let (message, parts) = (invite.as_ref(), invite.parts());
        Self {
            tag: keep(message.get(parts.from.tag)),
            cseq: message.cseq().map(|cseq| cseq.number).unwrap_or_default(),
            contact: keep(message.get(parts.contact.uri)),
            routes: message.values(HeaderId::RecordRoute).map(route).collect(),
            flow: Some(flow),
            by_flow: crate::agent::session::flows_back(message, flow),
            ..Self::default()
        }
    }

    /// A callee, by a response of its own (12.1.2): of the recorded routes those are on the
    /// way to it that were added behind us, the last one first.
    pub(super) fn callee(
        response: Message<'_>,
        id: DialogId,
        heard: &Heards,
        settings: &Settings,
    ) -> Self {
        let tag = intake::tag(response, HeaderId::To).unwrap_or_default();
        let flow = heard.iter().find(|(known, _)| known == tag);
        let flow = flow.map(|(_, flow)| *flow);
        let ours = |uri: &Uri<'_>| {
            let did = uri.params.get(DID_PARAM.as_bytes());
            did.and_then(DialogId::parse) == Some(id)
        };
        let place = |is: &dyn Fn(&Uri<'_>) -> bool| {
            response.values(HeaderId::RecordRoute).position(|value| {
                NameAddr::parse(value.as_bytes()).is_ok_and(|route| is(&route.uri))
            })
        };
        let behind = place(&ours)
            .or_else(|| place(&|uri| settings.is_us(uri)))
            .unwrap_or(0);
        let recorded = response.values(HeaderId::RecordRoute).take(behind);
        let mut routes: Vec<Bytes> = recorded.map(route).collect();
        routes.reverse();
        Self {
            tag: keep(tag),
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

fn route(value: Value<'_>) -> Bytes {
    keep(&lex::unfold(value.as_bytes()))
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
