//! Forwarding without a transaction (RFC 3261 16.11): ACKs for 2xx responses, what
//! is declared stateless and the CANCELs of it, and responses that only a Via knows
//! the way of. Answers without a transaction (8.2.7) are here too.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sipbox_sip::{EditError, Message, Method, OwnedMessage, Uri};

use crate::account::{Room, Ticket};
use crate::context::{strip_via, to_bytes};
use crate::cx::Cx;
use crate::decision::{Decision, ResolvedTarget, Ruling};
use crate::error::Internal;
use crate::flow::{Flow, ListenerId, NextHop, TenantId};
use crate::forward::{self, Outgoing};
use crate::ids::{Ids, ResolveToken, SendToken, StatelessId};
use crate::intake;
use crate::locate::{Located, locate, over_tcp};
use crate::outbox::{Candidates, Dropped, Event, NextHopCandidate, Outbox, Resolve, ResolveError};
use crate::policy::{CallState, Facts, Reply};
use crate::record_route::RecordRoute;
use crate::reply;
use crate::settings::Settings;
use crate::table::Key;
use crate::transaction::key::TransactionKey;
use crate::transaction::{Due, Scratch, Timer, Transactions, keep};
use crate::wheel::TimerHandle;

/// Marks the look-ups of this module among those of branches.
pub(crate) const SERIAL: u32 = u32::MAX;

/// A request with the one target that it goes to.
pub(crate) struct Forward {
    pub(crate) id: StatelessId,
    pub(crate) request: OwnedMessage,
    pub(crate) facts: Arc<Facts>,
    pub(crate) target: ResolvedTarget,
    pub(crate) record_route: Option<Vec<(String, String)>>,
    /// What the policies asked for beside the verdict.
    pub(crate) state: CallState,
    /// The transport was not named, so the size may choose it (18.1.1).
    pub(crate) implicit: bool,
}

/// What is remembered for a moment.
pub(crate) struct Waiting {
    what: Awaited,
    timer: Option<TimerHandle>,
    _ticket: Ticket,
}

impl Waiting {
    /// Whether it has gone nowhere yet.
    pub(crate) fn open(&self) -> bool {
        matches!(self.what, Awaited::Name(_))
    }
}

enum Awaited {
    /// A look-up.
    Name(Box<Forward>),
    /// The report that a connection could not be made.
    Refusal(NextHop, Bytes),
}

/// What is left to do for a forward.
pub(crate) enum Left {
    Nothing,
    /// Its name has to be resolved.
    Resolve(Box<Forward>, Resolve),
    /// It goes over TCP for its size; over UDP if there is no connection (18.1.1).
    Connect {
        over_tcp: (NextHop, Bytes),
        over_udp: (NextHop, Bytes),
    },
}

/// How long the report of a failed connection is waited for: longer than the network
/// tries to connect.
const REFUSAL: Duration = Duration::from_secs(4);

/// What a verdict means for a request that has no transaction.
pub(crate) enum Outcome {
    Forward(Box<Forward>),
    Reply(Reply),
    Nothing(Dropped),
}

/// A stateless forward has one target: the first of the first group.
pub(crate) fn outcome(id: StatelessId, facts: &Arc<Facts>, mut decision: Decision) -> Outcome {
    let method = decision.request.as_ref().method();
    let ack = method == Method::Ack;
    if decision.ruling.forwards() && intake::spent(decision.request.as_ref()) {
        return Outcome::Reply(Reply::of(intake::SPENT));
    }
    let next_hop = decision.state.nat.next_hop.take();
    let (target, record_route) = match decision.ruling {
        Ruling::Relay(relay) => {
            let first = relay.groups.into_iter().flatten().next();
            let along = || ResolvedTarget {
                next_hop: next_hop.map(to_bytes).unwrap_or_default(),
                ..ResolvedTarget::default()
            };
            (first.unwrap_or_else(along), relay.record_route)
        }
        Ruling::ForwardStateless(target) => (target, None),
        // 16.10: a CANCEL without a response context is forwarded or has nothing to
        // cancel; nobody but its transaction could say more.
        _ if method == Method::Cancel => return Outcome::Reply(no_transaction()),
        // For ACK any reply means drop (17: it is never answered).
        Ruling::Reply(_) | Ruling::ReplyStateless(_) | Ruling::Redirect(_) | Ruling::Best
            if ack =>
        {
            return Outcome::Nothing(Dropped::LostAck);
        }
        Ruling::Reply(reply) | Ruling::ReplyStateless(reply) => return Outcome::Reply(reply),
        Ruling::Redirect(targets) => return Outcome::Reply(crate::agent::redirect(&targets)),
        Ruling::Best => {
            let status = Internal::NoVerdict.status();
            return Outcome::Reply(Reply::of(status));
        }
        Ruling::Drop => return Outcome::Nothing(Dropped::Verdict),
    };
    Outcome::Forward(Box::new(Forward {
        record_route,
        id,
        request: decision.request,
        facts: Arc::clone(facts),
        target,
        state: decision.state,
        implicit: false,
    }))
}

/// 9.2
fn no_transaction() -> Reply {
    Reply::of(481)
}

/// Answers without a transaction (8.2.7): the tag is the same for each copy of the
/// request, so nothing has to be remembered.
pub(crate) fn refuse(
    request: Message<'_>,
    flow: Flow,
    reply: &Reply,
    settings: &Settings,
    ids: &Ids,
    out: &mut Outbox,
) {
    let Ok(via) = request.via_top_lenient() else {
        out.dropped(Dropped::Unanswerable);
        return;
    };
    let key = TransactionKey::of(ids.key(), request, &via);
    let wanted = reply::Wanted::new(flow, ids.to_tag(key.base), settings);
    let start = out.arena.len();
    let written = reply::write(
        request,
        reply,
        &wanted,
        &mut out.scratch.text,
        &mut out.arena,
    );
    if written.is_err() {
        out.arena.truncate(start);
        out.dropped(Dropped::Unbuildable);
        return;
    }
    out.send_from(reply::hop(&via, flow), start, None);
    out.event(Event::Refused {
        status: reply.status,
    });
}

/// No listener of ours can send it anywhere.
fn unavailable(forward: &Forward, settings: &Settings, ids: &Ids, out: &mut Outbox) {
    let request = forward.request.as_ref();
    let reply = match request.method() {
        Method::Ack => {
            out.dropped(Dropped::LostAck);
            return;
        }
        Method::Cancel => no_transaction(),
        _ => Reply::of(Internal::Unavailable.status()),
    };
    refuse(request, forward.facts.flow, &reply, settings, ids, out);
}

/// Sends it, or says what is left to do.
pub(crate) fn forward(
    mut forward: Forward,
    settings: &Settings,
    ids: &Ids,
    scratch: &mut Scratch,
    out: &mut Outbox,
) -> Left {
    if let Some(flow) = forward.target.flow {
        // As for a branch: a Contact that asks for UDP gets datagrams.
        forward.implicit = Uri::parse(&forward.target.uri)
            .is_ok_and(|uri| uri.transport().is_none() && uri.is_sip());
        let hop = flow.request_hop();
        return send(&forward, flow.listener, hop, settings, ids, scratch, out);
    }
    match locate(forward.request.as_ref(), &forward.target, settings) {
        Located::At {
            candidates,
            implicit,
        } => {
            forward.implicit = implicit;
            to_first(&forward, &candidates, settings, ids, scratch, out)
        }
        Located::Name {
            host,
            port,
            transport,
            secure,
        } => {
            forward.implicit = transport.is_none() && !secure;
            let place = crate::ids::Place {
                shard: 0,
                slot: 0,
                generation: 0,
            };
            let token = ResolveToken {
                place,
                serial: SERIAL,
            };
            Left::Resolve(
                Box::new(forward),
                Resolve {
                    token,
                    host,
                    port,
                    transport,
                    secure,
                },
            )
        }
        Located::Nowhere => {
            unavailable(&forward, settings, ids, out);
            Left::Nothing
        }
    }
}

fn to_first(
    forward: &Forward,
    candidates: &Candidates,
    settings: &Settings,
    ids: &Ids,
    scratch: &mut Scratch,
    out: &mut Outbox,
) -> Left {
    let arrived = forward.facts.departs_from();
    for NextHopCandidate { transport, address } in candidates.iter().copied() {
        if let Some(listener) = settings.outbound(arrived, transport, address.ip()) {
            let hop = NextHop::Address {
                listener,
                transport,
                address,
                local: None,
            };
            return send(forward, listener, hop, settings, ids, scratch, out);
        }
    }
    unavailable(forward, settings, ids, out);
    Left::Nothing
}

fn send(
    forward: &Forward,
    leaves: ListenerId,
    hop: NextHop,
    settings: &Settings,
    ids: &Ids,
    scratch: &mut Scratch,
    out: &mut Outbox,
) -> Left {
    if write(forward, leaves, settings, ids, scratch).is_err() {
        out.dropped(Dropped::Unbuildable);
        return Left::Nothing;
    }
    if let Some((listener, over_tcp)) = too_large(forward, hop, settings, scratch) {
        let over_udp = (hop, keep(&scratch.message));
        if write(forward, listener, settings, ids, scratch).is_ok() {
            let over_tcp = (over_tcp, keep(&scratch.message));
            return Left::Connect { over_tcp, over_udp };
        }
        out.dropped(Dropped::Unbuildable);
        return Left::Nothing;
    }
    out.send(hop, &scratch.message, None);
    Left::Nothing
}

/// 18.1.1: where the written request goes if it has to go over TCP.
///
/// Each request goes by its own size. A CANCEL, or the ACK for a failure, may so take UDP
/// where its INVITE took TCP, since nobody remembers; its branch and sent-by are the
/// INVITE's as long as both listeners have one port, and that is what it is matched by
/// (17.2.3).
fn too_large(
    forward: &Forward,
    hop: NextHop,
    settings: &Settings,
    scratch: &Scratch,
) -> Option<(ListenerId, NextHop)> {
    over_tcp(
        hop,
        scratch.message.len(),
        forward.implicit,
        forward.facts.departs_from(),
        settings,
    )
}

fn write(
    forward: &Forward,
    leaves: ListenerId,
    settings: &Settings,
    ids: &Ids,
    scratch: &mut Scratch,
) -> Result<(), EditError> {
    let request = forward.request.as_ref();
    let branch = ids.stateless_branch(forward.id);
    let outgoing = Outgoing {
        request,
        arrived: forward.facts.flow,
        uri: &forward.target.uri,
        path: &forward.target.path,
        record_route: RecordRoute::wanted(
            &forward.facts,
            forward.record_route.as_deref(),
            &forward.state,
            None,
        )
        // 16.6 step 4: what ends a request begins no dialog.
        .filter(|_| request.method() != Method::Cancel),
        max_breadth: breadth(request, settings),
        leaves,
        branch: branch.as_str(),
        way_back: forward.facts.flow.local,
    };
    forward::write(&outgoing, settings, ids, scratch)
}

/// RFC 5393 5.3.3: a single branch keeps what came. ACK and CANCEL go where their INVITE
/// went and fork nowhere.
fn breadth(request: Message<'_>, settings: &Settings) -> Option<u8> {
    if matches!(request.method(), Method::Ack | Method::Cancel) {
        return None;
    }
    let stated = request.max_breadth().ok().flatten();
    Some(stated.map_or(settings.max_breadth, |stated| {
        stated.min(settings.max_breadth)
    }))
}

impl Transactions {
    /// Does what is left to do for a forward; this shard remembers it meanwhile.
    pub(crate) fn carry_on(&mut self, left: Left, tenant: TenantId, cx: &mut Cx<'_, '_>) {
        match left {
            Left::Nothing => {}
            Left::Resolve(forward, mut resolve) => {
                let after = cx.env.settings.timers.decide;
                if let Some(key) = self.wait(Awaited::Name(forward), tenant, after, cx) {
                    resolve.token.place = self.place(key);
                    cx.out.resolves.push(resolve);
                }
            }
            Left::Connect {
                over_tcp: (hop, bytes),
                over_udp,
            } => {
                let refusal = Awaited::Refusal(over_udp.0, over_udp.1);
                let key = self.wait(refusal, tenant, REFUSAL, cx);
                let token = key.map(|key| SendToken::stateless(self.place(key)));
                cx.out.send(hop, &bytes, token);
            }
        }
    }

    /// `None` when there is too much to be remembered.
    fn wait(
        &mut self,
        what: Awaited,
        tenant: TenantId,
        after: Duration,
        cx: &Cx<'_, '_>,
    ) -> Option<Key> {
        let bytes = match &what {
            Awaited::Name(forward) => forward.request.as_ref().bytes().len(),
            Awaited::Refusal(_, bytes) => bytes.len(),
        };
        let ticket = cx.env.settings.admit(tenant, bytes, Room::Begun).ok()?;
        let key = self.waiting.insert(Waiting {
            what,
            timer: None,
            _ticket: ticket,
        })?;
        let due = Due::Waiting;
        let handle = self.wheel.arm(cx.now() + after, Timer { key, due });
        if let Some(waiting) = self.waiting.get_mut(key) {
            waiting.timer = Some(handle);
        }
        Some(key)
    }

    fn waited(&mut self, key: Key) -> Option<Awaited> {
        let waiting = self.waiting.remove(key)?;
        if let Some(timer) = waiting.timer {
            self.wheel.cancel(timer);
        }
        Some(waiting.what)
    }

    /// The connection for a large request could not be made (18.1.1).
    pub(crate) fn refused(&mut self, key: Key, cx: &mut Cx<'_, '_>) {
        if let Some(Awaited::Refusal(hop, bytes)) = self.waited(key) {
            cx.out.send(hop, &bytes, None);
        }
    }
}

/// The answer to a look-up.
pub(crate) fn resolved(
    tx: &mut Transactions,
    key: Key,
    result: Result<Candidates, ResolveError>,
    cx: &mut Cx<'_, '_>,
) {
    let Some(Awaited::Name(forward)) = tx.waited(key) else {
        return;
    };
    let candidates = result.unwrap_or_default();
    let settings = Arc::clone(cx.env.settings);
    let left = to_first(
        &forward,
        &candidates,
        &settings,
        cx.ids,
        &mut tx.scratch,
        cx.out,
    );
    tx.carry_on(left, forward.facts.tenant, cx);
}

/// 16.11: our Via is removed, the one below tells the way.
pub(crate) fn respond(response: Message<'_>, flow: Flow, cx: &mut Cx<'_, '_>) {
    let settings = cx.env.settings;
    let mut vias = response.vias();
    let ours = vias.next().and_then(Result::ok);
    let local = ours.and_then(|via| reply::way_back(&via));
    let below = vias.next().and_then(Result::ok);
    let hop = below.and_then(|via| {
        let transport = via.known_transport()?;
        let ip = via.received().or_else(|| via.host.ip())?;
        let outbound = settings.outbound(flow.listener, transport, ip);
        reply::stateless_hop(&via, flow, outbound, local)
    });
    let mut scratch = std::mem::take(&mut cx.out.scratch);
    match (hop, strip_via(response, &mut scratch)) {
        (Some(hop), Some(())) => cx.out.send(hop, &scratch.message, None),
        _ => cx.out.dropped(Dropped::NoUpstream),
    }
    cx.out.scratch = scratch;
}
