//! One shard: the steps that its lock is held for. Each takes one input to its
//! transaction and hands what comes of it to the transaction user.

mod mend;
mod requests;
mod verdicts;

use std::net::SocketAddr;

use sipbox_sip::{Message, Method, OwnedMessage, Via};

use crate::agent::request;
use crate::context::{ResponseContext, strip_via};
use crate::cx::{Cx, Mutation};
use crate::dialog::Heard;
use crate::flow::Flow;
use crate::ids::{Place, ResolveToken, SendToken};
use crate::outbox::{Candidates, Dropped, ResolveError};
use crate::stateless;
use crate::table::Key;
use crate::transaction::client::Told;
use crate::transaction::machine::Event;
use crate::transaction::{Due, Timer, Transactions, is_success, keep};
use crate::user::{Ended, Io, User};

pub(crate) struct Shard {
    pub(crate) tx: Transactions,
    /// What a step works on; left behind by a panic.
    in_step: Option<Work>,
    /// The request of the user that a step has taken out.
    in_hand: Option<OwnedMessage>,
    /// What a panic left behind is being ended.
    mending: bool,
}

/// What a step can work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Server(Key),
    Session(Key),
    Own(Key),
    Waiting(Key),
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
    /// The request is on its way.
    Relayed,
    Out,
    /// What is left is no state of a shard.
    Forward(Box<stateless::Forward>),
}

impl Shard {
    pub(crate) fn new(shard: u8) -> Self {
        Self {
            tx: Transactions::new(shard),
            in_step: None,
            in_hand: None,
            mending: false,
        }
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
        if token.serial == request::SERIAL {
            let own = key(token.place);
            self.in_step = Some(Work::Own(own));
            self.tx.own_resolved(own, result, cx);
            self.in_step = None;
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
        via: &Via<'_>,
        flow: Flow,
        cx: &mut Cx<'_, '_>,
    ) {
        let client_key = key(place);
        let Some(client) = self.tx.clients.get(client_key) else {
            cx.out.dropped(Dropped::Stray);
            return;
        };
        if !client
            .settings
            .is_our_sent_by(&via.host, via.port_or_default())
        {
            cx.out.dropped(Dropped::ForeignVia);
            return;
        }
        let (server, branch, invite) = (
            client.server,
            client.branch,
            client.method == Method::Invite,
        );
        let probe = client.probe.as_deref().copied();
        self.in_step = Some(Work::Server(server));
        let told = self.tx.client_response(client_key, response, cx);
        if told == Told::Pass {
            if let Some(tie) = self.tx.servers.get_mut(server).and_then(|s| s.tie.as_mut()) {
                tie.hear(response, flow);
            }
            if let (Some(probe), Some(status @ 200..)) = (probe, response.status()) {
                cx.out.probed(probe, Heard::Answer(status));
            }
            let seen = self.with_user(server, cx, |user, io| {
                user.as_dyn().response(branch, response, flow, io);
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
        if let (Some(status), Some(())) =
            (response.status(), strip_via(response, &mut self.tx.scratch))
        {
            let bytes = keep(&self.tx.scratch.message);
            self.tx.respond(server, status, bytes, cx);
        }
    }

    pub(crate) fn transport_error(&mut self, token: SendToken, cx: &mut Cx<'_, '_>) {
        let client_key = key(token.place);
        if token.is_stateless() {
            self.tx.refused(client_key, cx);
            return;
        }
        let Some(client) = self.tx.clients.get(client_key) else {
            return;
        };
        if client.attempt != token.attempt {
            return;
        }
        let (server, branch) = (client.server, client.branch);
        let probe = client.probe.as_deref().copied();
        if client.untouched() {
            let tried = self.with_context(server, cx, |context, io| {
                context.fall_back(branch, client_key, io)
            });
            if tried == Some(true) {
                return;
            }
        }
        self.in_step = Some(Work::Server(server));
        let told = self
            .tx
            .client_event(client_key, Event::TransportError, None, cx);
        self.told(told, server, branch, probe, cx);
        self.in_step = None;
    }

    /// 18.4: what came back was the request itself, not its CANCEL or ACK, if nothing
    /// was heard since; and not one that has gone over another hop meanwhile.
    pub(crate) fn undeliverable(&mut self, place: Place, peer: SocketAddr, cx: &mut Cx<'_, '_>) {
        let Some(client) = self.tx.clients.get(key(place)) else {
            return;
        };
        if client.untouched() && client.datagrams_to() == Some(peer) {
            let attempt = client.attempt;
            self.transport_error(SendToken { place, attempt }, cx);
        }
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
        let probe = client.and_then(|client| client.probe.as_deref().copied());
        self.in_step = Some(match due {
            Due::Session(_) => Work::Session(key),
            Due::Own => Work::Own(key),
            Due::Waiting => Work::Waiting(key),
            _ => Work::Server(owner.0),
        });
        if cx.mutant(Mutation::Panic) {
            mend::broken();
        }
        let told = match due {
            Due::Server(letter) => {
                self.tx.server_fired(key, letter, cx);
                Told::Nothing
            }
            Due::Trying => {
                self.tx.patience_over(key);
                self.trying(key, cx);
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
            Due::Session(timer) => {
                self.tx.session_fired(key, timer, cx);
                Told::Nothing
            }
            Due::Own => {
                self.tx.own_resolved(key, Err(ResolveError::TimedOut), cx);
                Told::Nothing
            }
            Due::Waiting => {
                self.tx.waiting.remove(key);
                Told::Nothing
            }
        };
        self.told(told, owner.0, owner.1, probe, cx);
        self.in_step = None;
        true
    }

    fn told(
        &mut self,
        told: Told,
        server: Key,
        branch: u16,
        probe: Option<request::Probe>,
        cx: &mut Cx<'_, '_>,
    ) {
        let (why, heard) = match told {
            Told::TimedOut => (Ended::TimedOut, Heard::Silence),
            Told::Unsent => (Ended::Unsent, Heard::Unsent),
            Told::Nothing | Told::Pass => return,
        };
        if let Some(probe) = probe {
            cx.out.probed(probe, heard);
        }
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
        self.in_step = Some(Work::Server(key));
        self.in_hand = Some(user.request().clone());
        let mut io = Io {
            tx: &mut self.tx,
            cx,
            server: key,
        };
        let result = step(&mut user, &mut io);
        if let User::Proxy(context) = &mut user {
            context.ask_next(&mut io);
        }
        if let Some(server) = self.tx.servers.get_mut(key) {
            server.holds(user.holds());
        }
        self.keep_user(key, Some(user));
        self.in_hand = None;
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

pub(crate) const fn key(place: Place) -> Key {
    Key {
        slot: place.slot,
        generation: place.generation,
    }
}
