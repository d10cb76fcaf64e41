//! Forwarding without a transaction (RFC 3261 16.11): ACKs for 2xx responses, what
//! is declared stateless and the CANCELs of it, and responses that only a Via knows
//! the way of. Answers without a transaction (8.2.7) are here too.

use std::sync::Arc;

use sipbox_sip::{Message, Method, OwnedMessage};
use smallvec::SmallVec;

use crate::context::strip_via;
use crate::cx::Cx;
use crate::decision::{Decision, ResolvedTarget, Ruling};
use crate::error::Internal;
use crate::flow::{Flow, NextHop};
use crate::forward::{self, Outgoing, RecordRoute};
use crate::ids::{Ids, ResolveToken, StatelessId};
use crate::locate::{Located, locate};
use crate::outbox::{Candidates, Dropped, Event, NextHopCandidate, Outbox, Resolve, ResolveError};
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
    pub(crate) id: StatelessId,
    pub(crate) request: OwnedMessage,
    pub(crate) facts: Arc<Facts>,
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
pub(crate) fn outcome(id: StatelessId, facts: &Arc<Facts>, decision: Decision) -> Outcome {
    let method = decision.request.as_ref().method();
    let ack = method == Method::Ack;
    let (target, record_route) = match decision.ruling {
        Ruling::Relay(relay) => {
            let first = relay.groups.into_iter().flatten().next();
            (first.unwrap_or_default(), relay.record_route)
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
            return Outcome::Reply(Reply {
                status,
                ..Reply::default()
            });
        }
        Ruling::Drop => return Outcome::Nothing(Dropped::Verdict),
    };
    Outcome::Forward(Box::new(Forward {
        // 16.6 step 4: what ends a request begins no dialog.
        record_route: record_route.filter(|_| method != Method::Cancel),
        id,
        request: decision.request,
        facts: Arc::clone(facts),
        target,
        route_params: decision.state.route_params,
    }))
}

/// 9.2
fn no_transaction() -> Reply {
    Reply {
        status: 481,
        ..Reply::default()
    }
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
    let wanted = reply::Wanted {
        source: flow.peer,
        tag: ids.to_tag(key.base),
        server: &settings.server,
    };
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
    out.send_from(reply::hop(&via, flow), start);
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
        _ => Reply {
            status: Internal::Unavailable.status(),
            ..Reply::default()
        },
    };
    refuse(request, forward.facts.flow, &reply, settings, ids, out);
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
            unavailable(&forward, settings, ids, out);
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
    unavailable(forward, settings, ids, out);
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
    let branch = ids.stateless_branch(forward.id);
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
        max_breadth: breadth(request, settings),
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
