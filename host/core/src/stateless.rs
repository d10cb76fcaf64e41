//! Forwarding without a transaction (RFC 3261 16.11): ACKs for 2xx responses, what
//! is declared stateless, and responses that only a Via knows the way of.

use std::sync::Arc;

use sipbox_sip::{Message, Method, OwnedMessage};
use smallvec::SmallVec;

use crate::context::strip_via;
use crate::cx::Cx;
use crate::decision::{Decision, ResolvedTarget, Ruling};
use crate::flow::{Flow, NextHop};
use crate::forward::{self, Outgoing, RecordRoute};
use crate::ids::{Ids, ResolveToken};
use crate::locate::{Located, locate};
use crate::outbox::{Candidates, Dropped, NextHopCandidate, Outbox, Resolve, ResolveError};
use crate::policy::{Facts, Reply};
use crate::reply;
use crate::settings::Settings;
use crate::table::Key;
use crate::transaction::key::TransactionKey;
use crate::transaction::{Due, Scratch, Timer, Transactions};
use crate::wheel::TimerHandle;

/// Marks the look-ups of this module among those of branches.
pub(crate) const SERIAL: u32 = u32::MAX;

/// A request with the one target that it goes to.
pub(crate) struct Forward {
    pub(crate) request: OwnedMessage,
    pub(crate) facts: Arc<Facts>,
    pub(crate) loop_hash: u32,
    pub(crate) target: ResolvedTarget,
    pub(crate) record_route: Option<Vec<(String, String)>>,
    pub(crate) route_params: SmallVec<[(String, String); 2]>,
}

/// A forward that waits for a name.
pub(crate) struct Waiting {
    forward: Forward,
    timer: Option<TimerHandle>,
}

/// What a verdict means for a request that has no transaction.
pub(crate) enum Outcome {
    Forward(Box<Forward>),
    Reply(Reply),
    Nothing(Dropped),
}

/// A stateless forward has one target: the first of the first group.
pub(crate) fn outcome(facts: &Arc<Facts>, loop_hash: u32, decision: Decision) -> Outcome {
    let ack = decision.request.as_ref().method() == Method::Ack;
    let (target, record_route) = match decision.ruling {
        Ruling::Relay(relay) => {
            let first = relay.groups.into_iter().flatten().next();
            (first.unwrap_or_default(), relay.record_route)
        }
        Ruling::ForwardStateless(target) => (target, None),
        // For ACK any reply means drop (17: it is never answered).
        Ruling::Reply(_) | Ruling::ReplyStateless(_) | Ruling::Redirect(_) | Ruling::Best
            if ack =>
        {
            return Outcome::Nothing(Dropped::LostAck);
        }
        Ruling::Reply(reply) | Ruling::ReplyStateless(reply) => return Outcome::Reply(reply),
        Ruling::Redirect(targets) => return Outcome::Reply(crate::agent::redirect(&targets)),
        Ruling::Best => {
            let status = crate::error::Internal::NoVerdict.status();
            return Outcome::Reply(Reply {
                status,
                ..Reply::default()
            });
        }
        Ruling::Drop => return Outcome::Nothing(Dropped::Verdict),
    };
    Outcome::Forward(Box::new(Forward {
        request: decision.request,
        facts: Arc::clone(facts),
        loop_hash,
        target,
        record_route,
        route_params: decision.state.route_params,
    }))
}

/// Sends it, or says which name it waits for.
pub(crate) fn forward(
    forward: Forward,
    settings: &Settings,
    ids: &Ids,
    scratch: &mut Scratch,
    out: &mut Outbox,
) -> Option<(Forward, Resolve)> {
    if let Some(flow) = forward.target.flow {
        let hop = match flow.connection {
            Some(_) => NextHop::Flow {
                flow,
                reconnect: None,
            },
            None => NextHop::Address {
                listener: flow.listener,
                transport: flow.transport,
                address: flow.peer,
            },
        };
        send(&forward, flow.listener, hop, settings, ids, scratch, out);
        return None;
    }
    match locate(forward.request.as_ref(), &forward.target, settings) {
        Located::At { candidates, .. } => {
            to_first(&forward, &candidates, settings, ids, scratch, out);
            None
        }
        Located::Name {
            host,
            port,
            transport,
            secure,
        } => {
            let place = crate::ids::Place {
                shard: 0,
                slot: 0,
                generation: 0,
            };
            let token = ResolveToken {
                place,
                serial: SERIAL,
            };
            Some((
                forward,
                Resolve {
                    token,
                    host,
                    port,
                    transport,
                    secure,
                },
            ))
        }
        Located::Nowhere => {
            out.dropped(Dropped::LostAck);
            None
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
) {
    let arrived = forward.facts.flow.listener;
    for NextHopCandidate { transport, address } in candidates.iter().copied() {
        if let Some(listener) = settings.outbound(arrived, transport, address.ip()) {
            let hop = NextHop::Address {
                listener,
                transport,
                address,
            };
            send(forward, listener, hop, settings, ids, scratch, out);
            return;
        }
    }
    out.dropped(Dropped::LostAck);
}

fn send(
    forward: &Forward,
    leaves: crate::flow::ListenerId,
    hop: NextHop,
    settings: &Settings,
    ids: &Ids,
    scratch: &mut Scratch,
    out: &mut Outbox,
) {
    let request = forward.request.as_ref();
    let Ok(via) = request.via_top() else {
        out.dropped(Dropped::Unanswerable);
        return;
    };
    let base = TransactionKey::of(ids.key(), request, &via).base;
    let incoming = u64::try_from(base & u128::from(u64::MAX)).unwrap_or(0);
    let branch = ids.stateless_branch(incoming, forward.loop_hash);
    let outgoing = Outgoing {
        request,
        arrived: forward.facts.flow,
        uri: &forward.target.uri,
        path: &forward.target.path,
        record_route: forward.record_route.as_ref().map(|params| RecordRoute {
            params,
            more: &forward.route_params,
            tenant: forward.facts.tenant,
            begins: !forward.facts.in_dialog && request.method().creates_dialog(),
        }),
        max_breadth: None,
        leaves,
        branch: branch.as_str(),
    };
    if forward::write(&outgoing, settings, ids, scratch).is_err() {
        out.dropped(Dropped::Unbuildable);
        return;
    }
    let start = out.arena.len();
    out.arena.extend_from_slice(&scratch.message);
    out.send_from(hop, start);
}

impl Transactions {
    /// Remembers a forward until its name is resolved, and asks for it.
    pub(crate) fn wait(&mut self, forward: Forward, mut resolve: Resolve, cx: &mut Cx<'_, '_>) {
        let after = cx.env.settings.timers.decide;
        let Some(key) = self.waiting.insert(Waiting {
            forward,
            timer: None,
        }) else {
            return;
        };
        let handle = self.wheel.arm(
            cx.now() + after,
            Timer {
                key,
                due: Due::Waiting,
            },
        );
        if let Some(waiting) = self.waiting.get_mut(key) {
            waiting.timer = Some(handle);
        }
        resolve.token.place = self.place(key);
        cx.out.resolves.push(resolve);
    }
}

/// The answer to a look-up.
pub(crate) fn resolved(
    tx: &mut Transactions,
    key: Key,
    result: Result<Candidates, ResolveError>,
    cx: &mut Cx<'_, '_>,
) {
    let Some(waiting) = tx.waiting.remove(key) else {
        return;
    };
    if let Some(timer) = waiting.timer {
        tx.wheel.cancel(timer);
    }
    let candidates = result.unwrap_or_default();
    let settings = Arc::clone(cx.env.settings);
    to_first(
        &waiting.forward,
        &candidates,
        &settings,
        cx.ids,
        &mut tx.scratch,
        cx.out,
    );
}

/// 16.11: our Via is removed, the one below tells the way.
pub(crate) fn respond(response: Message<'_>, flow: Flow, cx: &mut Cx<'_, '_>) {
    let settings = cx.env.settings;
    let mut vias = response.vias();
    let below = vias.nth(1).and_then(Result::ok);
    let hop = below.and_then(|via| {
        let transport = via.known_transport()?;
        let ip = via.received().or_else(|| via.host.ip())?;
        reply::stateless_hop(&via, flow, settings.outbound(flow.listener, transport, ip))
    });
    let mut scratch = std::mem::take(&mut cx.out.scratch);
    match (hop, strip_via(response, &mut scratch)) {
        (Some(hop), Some(bytes)) => cx.out.send_kept(hop, bytes, None),
        _ => cx.out.dropped(Dropped::NoUpstream),
    }
    cx.out.scratch = scratch;
}
