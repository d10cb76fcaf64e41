//! Requests of our own inside a dialog (RFC 3261 12.2.1.1): built of what is known of
//! it, sent in a client transaction that has no transaction user.

use std::sync::Arc;

use bytes::Bytes;
use sipbox_sip::build::RequestBuilder;
use sipbox_sip::{HeaderId, Method, NameAddr, OwnedMessage};

use crate::cx::Cx;
use crate::decision::ResolvedTarget;
use crate::dialog::Heard;
use crate::dialog::{DialogId, Side};
use crate::flow::{ListenerId, NextHop, TenantId};
use crate::ids::ResolveToken;
use crate::intake;
use crate::locate::{Located, locate};
use crate::outbox::{self, Candidates, NextHopCandidate, Resolve, ResolveError};
use crate::settings::Settings;
use crate::table::{Key, Table};
use crate::transaction::{Due, Timer, Transactions, keep};
use crate::wheel::TimerHandle;

/// Marks the look-ups of this module among those of branches.
pub(crate) const SERIAL: u32 = u32::MAX - 1;

/// What a request inside a dialog is made of.
pub(crate) struct Within<'a> {
    pub(crate) method: Method,
    /// The remote target.
    pub(crate) target: &'a [u8],
    /// The route set, first hop first.
    pub(crate) routes: Vec<Vec<u8>>,
    pub(crate) from: &'a [u8],
    pub(crate) to: &'a [u8],
    pub(crate) call_id: &'a [u8],
    pub(crate) cseq: u32,
    pub(crate) extra: &'a [(String, String)],
}

/// A request before it has a Via.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) request: OwnedMessage,
    /// As a URI.
    pub(crate) next_hop: Bytes,
}

impl Within<'_> {
    /// 12.2.1.1; `None` where what is known is not enough.
    pub(crate) fn build(mut self) -> Option<Built> {
        let first = match self.routes.first() {
            Some(first) => Some(NameAddr::parse(first).ok()?),
            None => None,
        };
        let next_hop = keep(first.as_ref().map_or(self.target, |route| route.uri_raw()));
        let mut uri = keep(self.target);
        if first.is_some_and(|route| !route.uri.lr()) {
            // A strict router: it gets itself as the Request-URI, and the target last.
            self.routes.remove(0);
            self.routes.push([b"<", self.target, b">"].concat());
            uri = next_hop.clone();
        }
        let mut builder = RequestBuilder::new(self.method.token().as_bytes(), &uri);
        for route in &self.routes {
            builder = builder.header(HeaderId::Route, route);
        }
        builder = builder
            .header(HeaderId::From, self.from)
            .header(HeaderId::To, self.to)
            .header(HeaderId::CallId, self.call_id)
            .cseq(self.cseq);
        for (name, value) in self.extra {
            builder = builder.header(name.as_bytes(), value.as_bytes());
        }
        let mut text = Vec::new();
        builder.write(&mut text).ok()?;
        let request = OwnedMessage::parse(text.into()).ok()?;
        Some(Built { request, next_hop })
    }
}

/// Who wants to know what was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) id: DialogId,
    pub(crate) side: Side,
}

/// A request of our own on its way out.
#[derive(Debug)]
pub(crate) struct OwnRequest {
    pub(crate) built: Built,
    /// The way, if there is no other one.
    pub(crate) way: Option<(ListenerId, NextHop)>,
    /// The listener of that side.
    pub(crate) listener: ListenerId,
    pub(crate) settings: Arc<Settings>,
    pub(crate) tenant: TenantId,
    pub(crate) probe: Option<Probe>,
}

impl OwnRequest {
    /// The first place that a listener of ours can send to.
    fn first(&self, candidates: &Candidates) -> Option<(ListenerId, NextHop)> {
        candidates.iter().find_map(|candidate| {
            let NextHopCandidate { transport, address } = *candidate;
            let listener = self
                .settings
                .outbound(self.listener, transport, address.ip())?;
            let hop = NextHop::Address {
                listener,
                transport,
                address,
                local: None,
            };
            Some((listener, hop))
        })
    }
}

/// A request that waits for a name.
pub(crate) struct Named {
    own: OwnRequest,
    timer: Option<TimerHandle>,
}

impl Transactions {
    /// Sends a request of our own, once it is known where to.
    pub(crate) fn send_own(&mut self, own: OwnRequest, cx: &mut Cx<'_, '_>) {
        if own.way.is_some() {
            self.launch_own(&own, own.way, cx);
            return;
        }
        let target = ResolvedTarget {
            next_hop: own.built.next_hop.clone(),
            ..ResolvedTarget::default()
        };
        match locate(own.built.request.as_ref(), &target, &own.settings) {
            Located::At { candidates, .. } => {
                let way = own.first(&candidates);
                self.launch_own(&own, way, cx);
            }
            Located::Name {
                host,
                port,
                transport,
                secure,
            } => self.name_own(own, cx, |token| Resolve {
                token,
                host,
                port,
                transport,
                secure,
            }),
            Located::Nowhere => self.launch_own(&own, None, cx),
        }
    }

    fn name_own(
        &mut self,
        own: OwnRequest,
        cx: &mut Cx<'_, '_>,
        resolve: impl FnOnce(ResolveToken) -> Resolve,
    ) {
        let at = cx.now() + own.settings.timers.decide;
        let Some(key) = self.own.insert(Named { own, timer: None }) else {
            return;
        };
        let due = Due::Own;
        let timer = self.wheel.arm(at, Timer { key, due });
        if let Some(named) = self.own.get_mut(key) {
            named.timer = Some(timer);
        }
        let token = ResolveToken {
            place: self.place(key),
            serial: SERIAL,
        };
        cx.out.resolves.push(resolve(token));
    }

    /// The answer to a look-up; none came if there are no candidates.
    pub(crate) fn own_resolved(
        &mut self,
        key: Key,
        result: Result<Candidates, ResolveError>,
        cx: &mut Cx<'_, '_>,
    ) {
        let Some(Named { own, timer }) = self.own.remove(key) else {
            return;
        };
        if let Some(timer) = timer {
            self.wheel.cancel(timer);
        }
        let way = own.first(&result.unwrap_or_default());
        self.launch_own(&own, way, cx);
    }

    /// In a client transaction that has no user.
    fn launch_own(
        &mut self,
        own: &OwnRequest,
        way: Option<(ListenerId, NextHop)>,
        cx: &mut Cx<'_, '_>,
    ) {
        if !self.try_own(own, way, cx)
            && let Some(probe) = own.probe
        {
            cx.out.probed(probe, Heard::Unsent);
        }
    }

    fn try_own(
        &mut self,
        own: &OwnRequest,
        way: Option<(ListenerId, NextHop)>,
        cx: &mut Cx<'_, '_>,
    ) -> bool {
        let Some((listener, hop)) = way else {
            return false;
        };
        let settings = &own.settings;
        let Some(leaves) = settings.listener(listener) else {
            return false;
        };
        let request = own.built.request.as_ref();
        let ticket = settings.count(own.tenant);
        let client = self.reserve_client(Key::NOBODY, 0, request.method(), hop, settings, ticket);
        let Some(client) = client else { return false };
        let branch = cx.ids.branch(
            self.place(client),
            intake::loop_hash(request, own.built.request.parts(), cx.ids).stateful,
        );
        let scratch = &mut self.scratch;
        scratch.text.clear();
        scratch.text.extend_from_slice(leaves.via.as_bytes());
        scratch.text.extend_from_slice(branch.as_str().as_bytes());
        scratch.edits.clear();
        scratch.message.clear();
        let written = scratch
            .edits
            .prepend_header(request, HeaderId::Via, &scratch.text)
            .and_then(|()| scratch.edits.write(request, &mut scratch.message));
        if written.is_err() {
            cx.out.dropped(outbox::Dropped::Unbuildable);
            self.end_client(client);
            return false;
        }
        let bytes = keep(&scratch.message);
        if let Some(client) = self.clients.get_mut(client) {
            client.probe = own.probe.map(Box::new);
        }
        self.launch(client, bytes, cx);
        true
    }
}

/// The requests of a shard that wait for a name.
pub(crate) type OwnRequests = Table<Named>;
