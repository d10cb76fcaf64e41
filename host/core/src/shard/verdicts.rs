//! Answers of the policy chains.

use sipbox_sip::{Message, OwnedMessage};

use super::{Carried, Shard, Work, key, mend};
use crate::agent::{self, LocalAgent};
use crate::context::{AfterFailure, ResponseContext};
use crate::cx::{Cx, Mutation};
use crate::decision::{Decision, Ruling};
use crate::dialog::{self, Tie};
use crate::error::Internal;
use crate::ids::AskId;
use crate::intake;
use crate::outbox::Dropped;
use crate::policy::{CallState, Facts, Reply};
use crate::quota;
use crate::reply;
use crate::stack::{BranchVerdict, ReplyVerdict, Unsettled};
use crate::stateless;
use crate::table::Key;
use crate::transaction::UserTimer;
use crate::user::{Io, User};

impl Shard {
    /// Makes a verdict count that is about to be given.
    pub(crate) fn settle(
        &mut self,
        ask: AskId,
        forwards: bool,
        cx: &mut Cx<'_, '_>,
    ) -> Result<(), Unsettled> {
        if cx.mutant(Mutation::WriteAnyway) {
            return Ok(());
        }
        let late = |counts: bool| counts.then_some(()).ok_or(Unsettled::Late);
        self.with_user(key(ask.place), cx, |user, io| match user {
            User::Deciding(deciding) => {
                late(deciding.settle(io))?;
                if forwards && !in_time(&deciding.request, &deciding.facts, io.cx) {
                    return Err(Unsettled::Refused(Internal::TenantRate));
                }
                Ok(())
            }
            User::Proxy(context) => late(context.settle_failure(ask.serial, io)),
            User::Agent(_) => Err(Unsettled::Late),
        })
        .unwrap_or(Err(Unsettled::Late))
    }

    /// Nobody will answer: what happens when the time for it is over happens now.
    pub(crate) fn undecided(&mut self, ask: AskId, cx: &mut Cx<'_, '_>) {
        self.with_user(key(ask.place), cx, |user, io| {
            let waits = match user {
                User::Deciding(deciding) => !deciding.over,
                User::Proxy(context) => context.is_asked(ask.serial),
                User::Agent(_) => false,
            };
            if waits {
                user.as_dyn().fired(UserTimer::Decide, io);
            }
        });
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
        let (answered, name) = (server.answered(), server.key);
        if decision.state.nat.force_rport
            && let Ok(via) = decision.request.as_ref().via_top_lenient()
        {
            // The chain had it ask for its port (RFC 3581 4).
            server.reply_to = reply::hop(&via, server.flow);
        }
        let mut decided = match server.user.take() {
            Some(User::Deciding(decided)) if !answered => decided,
            other => {
                server.user = other;
                return Carried::Late;
            }
        };
        self.in_step = Some(Work::Server(key));
        self.in_hand = Some(decided.request.clone());
        let mut io = Io {
            tx: &mut self.tx,
            cx,
            server: key,
        };
        io.disarm(&mut decided.timer);
        if io.cx.mutant(Mutation::Panic) {
            mend::broken();
        }
        let mut carried = Carried::Out;
        let ruling = match decided.stopped {
            Some(why) if !decision.ruling.is_final() => Ruling::reply(why.status()),
            _ if decision.ruling.forwards() && intake::spent(decided.request.as_ref()) => {
                Ruling::reply(intake::SPENT)
            }
            // One that was settled has been let in already.
            _ if decision.ruling.forwards()
                && !decided.settled
                && !in_time(&decided.request, &decided.facts, io.cx) =>
            {
                Ruling::Reply(Internal::TenantRate.reply())
            }
            _ => decision.ruling,
        };
        let user = match ruling {
            Ruling::Relay(relay) => {
                let requests = (&decided.request, &decision.request);
                tie(&decision.state, requests, &decided.facts, &mut io);
                let mut context = ResponseContext::new(
                    *decided,
                    decision.request,
                    decision.state,
                    decision.armed,
                );
                context.relay(relay, &mut io);
                context.ask_next(&mut io);
                carried = Carried::Relayed;
                Some(User::Proxy(Box::new(context)))
            }
            Ruling::Reply(reply) => {
                ends(&decision.request, &reply, &decided.facts, &mut io);
                answer(decision.request, &reply, &mut io)
            }
            Ruling::Redirect(targets) => {
                answer(decision.request, &agent::redirect(&targets), &mut io)
            }
            Ruling::Best => {
                let status = Internal::NoVerdict.status();
                answer(decision.request, &Reply::of(status), &mut io)
            }
            Ruling::Drop => {
                io.tx.respond_nothing(key, io.cx);
                io.cx.out.dropped(Dropped::Verdict);
                None
            }
            Ruling::ReplyStateless(reply) => {
                stateless_reply(key, decision.request.as_ref(), &reply, &mut io);
                io.tx.end_server(key, io.cx);
                None
            }
            Ruling::ForwardStateless(target) => {
                io.tx.end_server(key, io.cx);
                let id = name.stateless(decided.loop_hash);
                carried = Carried::Forward(Box::new(stateless::Forward {
                    id,
                    request: decision.request,
                    facts: decided.facts,
                    target,
                    record_route: None,
                    state: decision.state,
                    implicit: false,
                }));
                None
            }
        };
        self.keep_user(key, user);
        self.in_hand = None;
        self.in_step = None;
        carried
    }

    pub(crate) fn failure_verdict(
        &mut self,
        ask: AskId,
        decision: Decision,
        cx: &mut Cx<'_, '_>,
    ) -> bool {
        self.with_user(key(ask.place), cx, |user, io| {
            let User::Proxy(context) = user else {
                return false;
            };
            match context.failure_verdict(ask.serial, decision, io) {
                AfterFailure::Late => false,
                AfterFailure::CarriedOut => true,
                AfterFailure::Answer(request, reply) => {
                    let mut agent = LocalAgent::new(request);
                    agent.answer(&reply, io);
                    user.cancel_timers(&mut io.tx.wheel);
                    *user = User::Agent(Box::new(agent));
                    true
                }
            }
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
            context.reply_verdict(ask.serial, verdict, io)
        })
        .unwrap_or(false)
    }
}

/// Whether a call may begin now; see [`quota::lets_in`].
fn in_time(request: &OwnedMessage, facts: &Facts, cx: &mut Cx<'_, '_>) -> bool {
    quota::lets_in(request, facts, cx.env.settings, cx.now())
}

/// What a request that is relayed has to do with a dialog, and what its policies took. A
/// dialog hears of the request as it was `received`, with the Request-URI and the routes
/// that its sender has of it.
fn tie(
    state: &CallState,
    (received, request): (&OwnedMessage, &OwnedMessage),
    facts: &Facts,
    io: &mut Io<'_, '_, '_>,
) {
    for lease in &state.leases {
        lease.commit();
    }
    let tie = Tie::of(state.dialog.as_ref(), facts, request.as_ref());
    if let Some(Tie::Within { known, .. }) = tie.as_deref() {
        io.cx.out.dialog_events.push(dialog::Event::Request {
            known: *known,
            request: received.clone(),
            flow: facts.flow,
        });
    }
    let (Some(server), Some(mut tie)) = (io.tx.servers.get_mut(io.server), tie) else {
        return;
    };
    let counted = server.tie.as_mut().and_then(|tie| tie.take_call());
    if let (Tie::Begins { id, call, .. }, Some(counted)) = (&mut *tie, counted) {
        io.cx.out.dialog_events.push(dialog::Event::Leases {
            id: *id,
            leases: vec![counted.clone()],
        });
        *call = Some(counted);
    }
    server.tie = Some(tie);
}

/// A BYE that a policy answers with a 2xx ends its dialog as one that is relayed does.
fn ends(request: &OwnedMessage, reply: &Reply, facts: &Facts, io: &mut Io<'_, '_, '_>) {
    if let Some(known) = facts.dialog
        && (200..300).contains(&reply.status)
        && let Some(cseq) = dialog::hangs_up(request.as_ref())
    {
        io.cx.out.dialog_events.push(dialog::Event::Request {
            known,
            request: request.clone(),
            flow: facts.flow,
        });
        io.cx.out.dialog_events.push(dialog::Event::Bye {
            known,
            cseq,
            status: reply.status,
        });
    }
}

fn answer(request: OwnedMessage, reply: &Reply, io: &mut Io<'_, '_, '_>) -> Option<User> {
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
    let wanted = reply::Wanted::new(server.flow, server.tag, &server.settings);
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
        Ok(()) => io.cx.out.send(to, &scratch.message, None),
        Err(_) => io.cx.out.dropped(Dropped::Unbuildable),
    }
}
