//! One shard: the steps that its lock is held for. Each takes one input to its
//! transaction and hands what comes of it to the transaction user.

use std::sync::Arc;

use sipbox_sip::{Message, Method, Via};

use crate::agent::{self, LocalAgent};
use crate::context::{ResponseContext, strip_via};
use crate::cx::{Cx, Mutation};
use crate::decision::{Decision, Ruling};
use crate::error::Internal;
use crate::flow::Flow;
use crate::ids::{AskId, Place, ResolveToken, SendToken};
use crate::intake::Intake;
use crate::outbox::{self, Ask, Candidates, Dropped, ResolveError};
use crate::policy::Reply;
use crate::reply;
use crate::stack::{BranchVerdict, ReplyVerdict};
use crate::stateless;
use crate::table::Key;
use crate::transaction::client::Told;
use crate::transaction::key::TransactionKey;
use crate::transaction::machine::Event;
use crate::transaction::server::{NewServer, tag_hash};
use crate::transaction::{Due, Timer, Transactions, UserTimer, is_success, keep};
use crate::user::{Deciding, Ended, Io, Stop, User};

pub(crate) struct Shard {
    pub(crate) tx: Transactions,
    /// The server transaction that a step works on; left behind by a panic.
    in_step: Option<Key>,
}

/// What became of a request that is matched first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Matched {
    /// It belongs to a transaction, which has seen it.
    Absorbed,
    /// It is new.
    No,
}

/// What became of a verdict.
pub(crate) enum Carried {
    /// It came too late.
    Late,
    Out,
    /// What is left is no state of a shard.
    Forward(Box<stateless::Forward>),
}

impl Shard {
    pub(crate) fn new(shard: u8) -> Self {
        Self {
            tx: Transactions::new(shard),
            in_step: None,
        }
    }

    /// Ends what a step was working on when it panicked.
    pub(crate) fn recover(&mut self, out: &mut outbox::Outbox) {
        let Some(key) = self.in_step.take() else {
            return;
        };
        let clients: Vec<Key> = self
            .tx
            .clients
            .iter()
            .filter(|(_, client)| client.server == key)
            .map(|(client, _)| client)
            .collect();
        for client in clients {
            self.tx.end_client(client);
        }
        self.tx.end_server(key);
        out.event(outbox::Event::Broken);
    }

    /// A request that may be a retransmission.
    pub(crate) fn retransmission(&mut self, key: &TransactionKey, cx: &mut Cx<'_, '_>) -> Matched {
        let Some(server) = self.tx.find(key) else {
            return Matched::No;
        };
        self.in_step = Some(server);
        self.tx.server_event(server, Event::Request, cx);
        // What comes again while nobody has answered hears a 100, if it may.
        self.with_user(server, cx, |user, io| user.trying(io));
        if let Some(server) = self.tx.servers.get(server) {
            cx.out.event(outbox::Event::Absorbed {
                method: server.method,
            });
        }
        self.in_step = None;
        Matched::Absorbed
    }

    /// A new request: its server transaction begins, and its chain is asked.
    pub(crate) fn begin(
        &mut self,
        key: TransactionKey,
        via: &Via<'_>,
        method: Method,
        intake: Intake,
        flow: Flow,
        cx: &mut Cx<'_, '_>,
    ) -> Result<(), Internal> {
        let Intake {
            tenant,
            request,
            facts,
            breadth,
            loop_hash,
        } = intake;
        let deciding = Deciding {
            request: request.clone(),
            facts: Arc::clone(&facts),
            breadth,
            loop_hash,
            timer: None,
            over: false,
        };
        let new = NewServer {
            key,
            method,
            tenant,
            flow,
            reply_to: reply::hop(via, flow),
            tag: cx.ids.to_tag(key.base),
            rfc2543: !via.has_cookie(),
            user: None,
        };
        let server = self.tx.new_server(new, cx).ok_or(Internal::Full)?;
        self.in_step = Some(server);
        let timer = Timer {
            key: server,
            due: Due::User(UserTimer::Decide),
        };
        let at = cx.now() + cx.env.settings.timers.decide;
        let timer = Some(self.tx.wheel.arm(at, timer));
        if let Some(server) = self.tx.servers.get_mut(server) {
            server.user = Some(User::Deciding(Box::new(Deciding { timer, ..deciding })));
        }
        if cx.env.settings.trying_at_once {
            self.trying(server, cx);
        }
        cx.out.event(outbox::Event::Request { tenant, method });
        let id = AskId {
            place: self.tx.place(server),
            serial: 0,
        };
        cx.out.asks.push(Ask::Request {
            id,
            tenant,
            request,
            facts,
        });
        self.in_step = None;
        Ok(())
    }

    /// 17.2.1: a 100 for a request whose chain has to wait.
    pub(crate) fn trying(&mut self, server: Key, cx: &mut Cx<'_, '_>) {
        self.with_user(server, cx, |user, io| user.trying(io));
    }

    /// 17.2.1, RFC 6026 7.1: an ACK for a final response of ours ends here, one for
    /// a 2xx goes on.
    pub(crate) fn ack(
        &mut self,
        key: &TransactionKey,
        message: Message<'_>,
        cx: &mut Cx<'_, '_>,
    ) -> Matched {
        let Some(found) = self.tx.find(key) else {
            return Matched::No;
        };
        let Some(server) = self.tx.servers.get(found) else {
            return Matched::No;
        };
        if server
            .ack_tag
            .is_some_and(|tag| tag != tag_hash(message, cx))
        {
            return Matched::No;
        }
        self.in_step = Some(found);
        let pass = self.tx.server_event(found, Event::Ack, cx);
        self.in_step = None;
        if pass {
            return Matched::No;
        }
        cx.out.dropped(Dropped::AbsorbedAck);
        Matched::Absorbed
    }

    /// 9.2 and 16.10: a CANCEL has a transaction of its own, and stops the INVITE
    /// with its branch.
    pub(crate) fn cancel(
        &mut self,
        key: TransactionKey,
        message: Message<'_>,
        via: &Via<'_>,
        flow: Flow,
        cx: &mut Cx<'_, '_>,
    ) -> Matched {
        if let Matched::Absorbed = self.retransmission(&key, cx) {
            return Matched::Absorbed;
        }
        let Some(invite) = self.tx.find(&key.with_method(Method::Invite)) else {
            return Matched::No;
        };
        let Some(tenant) = self.tx.servers.get(invite).map(|server| server.tenant) else {
            return Matched::No;
        };
        let new = NewServer {
            key,
            method: Method::Cancel,
            tenant,
            flow,
            reply_to: reply::hop(via, flow),
            // 9.2: the tag that the response to the INVITE has.
            tag: cx.ids.to_tag(key.base),
            rfc2543: false,
            user: None,
        };
        if let Some(server) = self.tx.new_server(new, cx) {
            self.in_step = Some(server);
            let ok = Reply {
                status: 200,
                ..Reply::default()
            };
            Io {
                tx: &mut self.tx,
                cx,
                server,
            }
            .reply(message, &ok);
        }
        if !cx.mutant(Mutation::LoseCancel) {
            self.stop(invite, Stop::Cancel, cx);
        }
        self.in_step = None;
        Matched::Absorbed
    }

    fn stop(&mut self, server: Key, why: Stop, cx: &mut Cx<'_, '_>) {
        if self
            .tx
            .servers
            .get(server)
            .is_some_and(|server| !server.answered())
        {
            self.with_user(server, cx, |user, io| user.as_dyn().cancelled(why, io));
        }
    }

    /// Ends everything that has no final response yet.
    pub(crate) fn shutdown(&mut self, cx: &mut Cx<'_, '_>) {
        let open: Vec<Key> = self
            .tx
            .servers
            .iter()
            .filter(|(_, server)| !server.answered())
            .map(|(key, _)| key)
            .collect();
        for key in open {
            self.stop(key, Stop::Shutdown, cx);
        }
    }

    /// The verdict of `on-request`.
    pub(crate) fn request_verdict(
        &mut self,
        ask: AskId,
        decision: Decision,
        cx: &mut Cx<'_, '_>,
    ) -> Carried {
        let key = key(ask.place);
        let Some(server) = self.tx.servers.get_mut(key) else {
            return Carried::Late;
        };
        let answered = server.answered();
        let mut decided = match server.user.take() {
            Some(User::Deciding(decided)) if !answered => decided,
            other => {
                server.user = other;
                return Carried::Late;
            }
        };
        self.in_step = Some(key);
        let mut io = Io {
            tx: &mut self.tx,
            cx,
            server: key,
        };
        io.disarm(&mut decided.timer);
        if io.cx.mutant(Mutation::Panic) {
            broken();
        }
        let mut carried = Carried::Out;
        let user = match decision.ruling {
            Ruling::Relay(relay) => {
                let mut context = ResponseContext::new(
                    *decided,
                    decision.request,
                    decision.state,
                    decision.armed,
                );
                context.relay(relay, &mut io);
                Some(User::Proxy(Box::new(context)))
            }
            Ruling::Reply(reply) => answer(decision.request, &reply, &mut io),
            Ruling::Redirect(targets) => {
                answer(decision.request, &agent::redirect(&targets), &mut io)
            }
            Ruling::Best => {
                let status = Internal::NoVerdict.status();
                answer(
                    decision.request,
                    &Reply {
                        status,
                        ..Reply::default()
                    },
                    &mut io,
                )
            }
            Ruling::Drop => {
                io.tx.respond_nothing(key, io.cx);
                io.cx.out.dropped(Dropped::Verdict);
                None
            }
            Ruling::ReplyStateless(reply) => {
                stateless_reply(key, decision.request.as_ref(), &reply, &mut io);
                io.tx.end_server(key);
                None
            }
            Ruling::ForwardStateless(target) => {
                io.tx.end_server(key);
                carried = Carried::Forward(Box::new(stateless::Forward {
                    request: decision.request,
                    facts: decided.facts,
                    loop_hash: decided.loop_hash,
                    target,
                    record_route: None,
                    route_params: decision.state.route_params,
                }));
                None
            }
        };
        self.keep_user(key, user);
        self.in_step = None;
        carried
    }

    pub(crate) fn failure_verdict(
        &mut self,
        ask: AskId,
        decision: Decision,
        cx: &mut Cx<'_, '_>,
    ) -> bool {
        self.with_context(key(ask.place), cx, |context, io| {
            context.failure_verdict(ask.serial, decision, io)
        })
        .unwrap_or(false)
    }

    pub(crate) fn branch_verdict(
        &mut self,
        ask: AskId,
        verdict: BranchVerdict,
        cx: &mut Cx<'_, '_>,
    ) -> bool {
        self.with_context(key(ask.place), cx, |context, io| {
            context.branch_verdict(ask.serial, verdict, io)
        })
        .unwrap_or(false)
    }

    pub(crate) fn reply_verdict(
        &mut self,
        ask: AskId,
        verdict: ReplyVerdict,
        cx: &mut Cx<'_, '_>,
    ) -> bool {
        self.with_context(key(ask.place), cx, |context, io| {
            context.reply_verdict(verdict, io)
        })
        .unwrap_or(false)
    }

    pub(crate) fn resolved(
        &mut self,
        token: ResolveToken,
        result: Result<Candidates, ResolveError>,
        cx: &mut Cx<'_, '_>,
    ) {
        if token.serial == stateless::SERIAL {
            stateless::resolved(&mut self.tx, key(token.place), result, cx);
            return;
        }
        self.with_context(key(token.place), cx, |context, io| {
            context.resolved(token.serial, result, io);
        });
    }

    /// A response whose top Via names this client.
    pub(crate) fn response(
        &mut self,
        place: Place,
        response: Message<'_>,
        flow: Flow,
        cx: &mut Cx<'_, '_>,
    ) {
        let client_key = key(place);
        let Some(client) = self.tx.clients.get(client_key) else {
            cx.out.dropped(Dropped::Stray);
            return;
        };
        let (server, branch, invite) = (
            client.server,
            client.branch,
            client.method == Method::Invite,
        );
        self.in_step = Some(server);
        let told = self.tx.client_response(client_key, response, cx);
        if told == Told::Pass {
            let seen = self.with_user(server, cx, |user, io| {
                user.as_dyn().response(branch, response, io);
            });
            if seen.is_none() && invite && response.status().is_some_and(is_success) {
                self.late_success(server, response, flow, cx);
            }
        }
        self.in_step = None;
    }

    /// 16.7 step 5, RFC 6026 8.7: a 2xx that nobody waits for any more goes upstream
    /// all the same, since a phone has been picked up.
    fn late_success(
        &mut self,
        server: Key,
        response: Message<'_>,
        flow: Flow,
        cx: &mut Cx<'_, '_>,
    ) {
        if self.tx.servers.get(server).is_none() {
            stateless::respond(response, flow, cx);
            return;
        }
        if let (Some(status), Some(bytes)) =
            (response.status(), strip_via(response, &mut self.tx.scratch))
        {
            self.tx.respond(server, status, bytes, cx);
        }
    }

    pub(crate) fn transport_error(&mut self, token: SendToken, cx: &mut Cx<'_, '_>) {
        let client_key = key(token.place);
        let Some(client) = self.tx.clients.get(client_key) else {
            return;
        };
        if client.attempt != token.attempt {
            return;
        }
        let (server, branch) = (client.server, client.branch);
        if client.untouched() {
            let tried = self.with_context(server, cx, |context, io| {
                context.fall_back(branch, client_key, io)
            });
            if tried == Some(true) {
                return;
            }
        }
        self.in_step = Some(server);
        let told = self
            .tx
            .client_event(client_key, Event::TransportError, None, cx);
        self.told(told, server, branch, cx);
        self.in_step = None;
    }

    /// Fires one timer; `false`: none is due.
    pub(crate) fn fire(&mut self, cx: &mut Cx<'_, '_>) -> bool {
        let Some(Timer { key, due }) = self.tx.wheel.pop(cx.now()) else {
            return false;
        };
        let of_client = matches!(
            due,
            Due::Client(_) | Due::TimerC | Due::CancelWait | Due::Cancel(_)
        );
        let client = if of_client {
            self.tx.clients.get(key)
        } else {
            None
        };
        let owner = client.map_or((key, 0), |client| (client.server, client.branch));
        self.in_step = Some(owner.0);
        let told = match due {
            Due::Server(letter) => {
                self.tx.server_fired(key, letter, cx);
                Told::Nothing
            }
            Due::Client(letter) => self.tx.client_fired(key, letter, cx),
            Due::TimerC => self.tx.timer_c_fired(key, cx),
            Due::CancelWait => self.tx.cancel_wait_over(key),
            Due::Cancel(letter) => {
                self.tx.cancel_fired(key, letter, cx);
                Told::Nothing
            }
            Due::User(timer) => {
                self.with_user(key, cx, |user, io| user.as_dyn().fired(timer, io));
                Told::Nothing
            }
            Due::Waiting => {
                self.tx.waiting.remove(key);
                Told::Nothing
            }
        };
        self.told(told, owner.0, owner.1, cx);
        self.in_step = None;
        true
    }

    fn told(&mut self, told: Told, server: Key, branch: u16, cx: &mut Cx<'_, '_>) {
        let why = match told {
            Told::TimedOut => Ended::TimedOut,
            Told::Unsent => Ended::Unsent,
            Told::Nothing | Told::Pass => return,
        };
        self.with_user(server, cx, |user, io| user.as_dyn().ended(branch, why, io));
    }

    /// Takes the user out, so that it can work on the transactions, and puts it
    /// back unless it has nothing left to do.
    fn with_user<R>(
        &mut self,
        key: Key,
        cx: &mut Cx<'_, '_>,
        step: impl FnOnce(&mut User, &mut Io<'_, '_, '_>) -> R,
    ) -> Option<R> {
        let mut user = self.tx.servers.get_mut(key)?.user.take()?;
        self.in_step = Some(key);
        let result = step(
            &mut user,
            &mut Io {
                tx: &mut self.tx,
                cx,
                server: key,
            },
        );
        self.keep_user(key, Some(user));
        self.in_step = None;
        Some(result)
    }

    fn with_context<R>(
        &mut self,
        key: Key,
        cx: &mut Cx<'_, '_>,
        step: impl FnOnce(&mut ResponseContext, &mut Io<'_, '_, '_>) -> R,
    ) -> Option<R> {
        self.with_user(key, cx, |user, io| match user {
            User::Proxy(context) => Some(step(context, io)),
            User::Deciding(_) | User::Agent(_) => None,
        })
        .flatten()
    }

    fn keep_user(&mut self, key: Key, user: Option<User>) {
        let Some(user) = user else { return };
        match self.tx.servers.get_mut(key) {
            Some(server) if !user.done() => server.user = Some(user),
            _ => user.cancel_timers(&mut self.tx.wheel),
        }
    }
}

fn answer(
    request: sipbox_sip::OwnedMessage,
    reply: &Reply,
    io: &mut Io<'_, '_, '_>,
) -> Option<User> {
    let mut agent = LocalAgent::new(request);
    agent.answer(reply, io);
    Some(User::Agent(Box::new(agent)))
}

/// 8.2.7: nothing is kept, and an INVITE that had a 100 was not stateless to begin
/// with.
fn stateless_reply(key: Key, request: Message<'_>, reply: &Reply, io: &mut Io<'_, '_, '_>) {
    let Some(server) = io.tx.servers.get(key) else {
        return;
    };
    let wanted = reply::Wanted {
        source: server.flow.peer,
        tag: server.tag,
        server: &server.settings.server,
    };
    let to = server.reply_to;
    let scratch = &mut io.tx.scratch;
    scratch.message.clear();
    match reply::write(
        request,
        reply,
        &wanted,
        &mut scratch.text,
        &mut scratch.message,
    ) {
        Ok(()) => io.cx.out.send_kept(to, keep(&scratch.message), None),
        Err(_) => io.cx.out.dropped(Dropped::Unbuildable),
    }
}

#[allow(clippy::panic, reason = "a deliberate fault of the tests")]
fn broken() {
    panic!("deliberate fault");
}

pub(crate) const fn key(place: Place) -> Key {
    Key {
        slot: place.slot,
        generation: place.generation,
    }
}
