//! Server transactions (RFC 3261 17.2, RFC 6026).

use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sipbox_sip::{Index, Message, Method};

use super::key::TransactionKey;
use super::machine::{self, Action, Event, Letter, Machine, State};
use super::{Due, Timer, Transactions, Wording, is_success};
use crate::account::Ticket;
use crate::cx::{Cx, Mutation};
use crate::dialog::Tie;
use crate::flow::{Flow, NextHop, TenantId};
use crate::ids::TagText;
use crate::outbox;
use crate::settings::Settings;
use crate::table::Key;
use crate::time::Time;
use crate::user::User;
use crate::wheel::TimerHandle;

pub(crate) struct Server {
    pub(crate) key: TransactionKey,
    pub(crate) machine: Machine,
    pub(crate) state: State,
    pub(crate) method: Method,
    pub(crate) tenant: TenantId,
    pub(crate) settings: Arc<Settings>,
    /// Where the request came from.
    pub(crate) flow: Flow,
    /// Where responses go (18.2.2).
    pub(crate) reply_to: NextHop,
    /// The To tag of our own responses.
    pub(crate) tag: TagText,
    /// What is sent again when the request comes again.
    pub(crate) last: Option<Bytes>,
    /// For an INVITE without the magic cookie: a hash of the To tag that an ACK
    /// must have (17.2.3).
    pub(crate) ack_tag: Option<u64>,
    pub(crate) rfc2543: bool,
    pub(crate) user: Option<User>,
    /// The dialog that it began or belongs to.
    pub(crate) tie: Option<Box<Tie>>,
    pub(super) ticket: Ticket,
    /// The bytes that the user holds beside the request as it came.
    held: u32,
    began: Time,
    interval: Duration,
    retransmit: Option<TimerHandle>,
    life: Option<TimerHandle>,
}

pub(crate) struct NewServer {
    pub(crate) key: TransactionKey,
    pub(crate) method: Method,
    pub(crate) tenant: TenantId,
    pub(crate) flow: Flow,
    pub(crate) reply_to: NextHop,
    pub(crate) tag: TagText,
    pub(crate) rfc2543: bool,
    pub(crate) user: Option<User>,
    pub(crate) ticket: Ticket,
}

impl Server {
    /// Counts what the user holds, its request included.
    pub(crate) fn holds(&mut self, bytes: usize) {
        let held = bytes.saturating_sub(self.ticket.bytes());
        self.held = u32::try_from(held).unwrap_or(u32::MAX);
        self.weigh();
    }

    fn weigh(&mut self) {
        let last = self.last.as_ref().map_or(0, Bytes::len);
        let held = usize::try_from(self.held).unwrap_or(usize::MAX);
        self.ticket.holds(held.saturating_add(last));
    }

    fn reliable(&self) -> bool {
        self.flow.transport.reliable()
    }

    /// RFC 4320 4.1: a request that is no INVITE is told to be patient when Timer E of its
    /// client has grown to T2, whatever the transport. Before that a 100 would only slow
    /// the client down; over a stream it would be allowed, and is of no use.
    pub(crate) fn may_hear_100(&self, now: Time) -> bool {
        self.method == Method::Invite || now.since(self.began) >= self.settings.timers.e_grown()
    }

    /// Whether the caller has not heard a final response yet, as far as we know: what was
    /// sent to an INVITE is sent again until its ACK comes (17.2.1).
    pub(super) fn open(&self) -> bool {
        let unacknowledged =
            self.machine == Machine::ServerInvite && self.state == State::Completed;
        !self.answered() || unacknowledged
    }

    /// Whether a final response has been sent.
    pub(crate) fn answered(&self) -> bool {
        matches!(
            self.state,
            State::Accepted | State::Completed | State::Confirmed | State::Terminated
        )
    }
}

/// 17.2.3: what the ACK of an element without branches must carry.
fn to_tag_hash(response: &[u8], cx: &Cx<'_, '_>) -> Option<u64> {
    let mut index = Index::new();
    let response = Message::parse(response, &mut index).ok()?;
    Some(tag_hash(response, cx))
}

pub(crate) fn tag_hash(message: Message<'_>, cx: &Cx<'_, '_>) -> u64 {
    let mut hasher = cx.ids.hasher(b'a');
    hasher.write(
        message
            .to()
            .ok()
            .and_then(|to| to.tag())
            .unwrap_or_default(),
    );
    hasher.finish()
}

impl Transactions {
    /// `None` when the table is full.
    pub(crate) fn new_server(&mut self, new: NewServer, cx: &mut Cx<'_, '_>) -> Option<Key> {
        let machine = if new.method == Method::Invite {
            Machine::ServerInvite
        } else {
            Machine::ServerNonInvite
        };
        let (state, _) = machine::begin(machine);
        let match_key = new.key;
        let patience = cx.env.settings.timers.e_grown();
        let key = self.servers.insert(Server {
            key: new.key,
            machine,
            state,
            method: new.method,
            tenant: new.tenant,
            settings: Arc::clone(cx.env.settings),
            flow: new.flow,
            reply_to: new.reply_to,
            tag: new.tag,
            last: None,
            ack_tag: None,
            rfc2543: new.rfc2543,
            user: new.user,
            tie: None,
            ticket: new.ticket,
            held: 0,
            began: cx.now(),
            interval: Duration::ZERO,
            retransmit: None,
            life: None,
        })?;
        if !cx.mutant(Mutation::ForgetMatching) {
            self.matching.insert(match_key, key);
            if new.method == Method::Other {
                self.matching
                    .insert(match_key.with_method(Method::Other), key);
            }
        }
        // An INVITE hears a 100 when it is relayed, and a CANCEL is answered at once. The
        // timer gives way to that of the final response.
        if !matches!(new.method, Method::Invite | Method::Cancel) {
            let due = Due::Trying;
            let timer = self.wheel.arm(cx.now() + patience, Timer { key, due });
            if let Some(server) = self.servers.get_mut(key) {
                server.life = Some(timer);
            }
        }
        Some(key)
    }

    /// Sends a response of the transaction user; `status` is the response's.
    pub(crate) fn respond(
        &mut self,
        key: Key,
        status: u16,
        response: impl Into<Wording>,
        cx: &mut Cx<'_, '_>,
    ) {
        let response = response.into();
        let Some(server) = self.servers.get_mut(key) else {
            return;
        };
        let event = match status {
            ..200 => Event::Provisional,
            200..300 => Event::Success,
            _ => Event::Failure,
        };
        if server.answered() {
            // RFC 3261 16.7 step 5 and RFC 6026 8.7: each 2xx of an INVITE goes
            // upstream, whatever went before; anything else is too late.
            let late = server.method == Method::Invite && is_success(status);
            if late && !cx.mutant(Mutation::DropLateSuccess) {
                cx.out.tell(server.tie.as_deref(), status, &response);
                cx.out.send(server.reply_to, response.bytes(), None);
            }
            return;
        }
        if status >= 300 && server.rfc2543 {
            server.ack_tag = to_tag_hash(response.bytes(), cx);
        }
        cx.out.tell(server.tie.as_deref(), status, &response);
        server.last = Some(response.into_bytes());
        if status >= 200 {
            // From here on a dialog has it, or nobody.
            drop(server.tie.as_mut().and_then(|tie| tie.take_call()));
            cx.out.event(outbox::Event::Final {
                tenant: server.tenant,
                method: server.method,
                status,
            });
        }
        self.server_event(key, event, cx);
        if let Some(server) = self.servers.get_mut(key)
            && server.state == State::Accepted
        {
            // Its retransmission is the business of the UAS.
            server.last = None;
        }
        if let Some(server) = self.servers.get_mut(key) {
            server.weigh();
        }
    }

    /// Ends the transaction without a response, as if it had sent one: what comes
    /// again is absorbed for a while.
    pub(crate) fn respond_nothing(&mut self, key: Key, cx: &mut Cx<'_, '_>) {
        let Some(server) = self.servers.get_mut(key) else {
            return;
        };
        server.last = None;
        drop(server.tie.as_mut().and_then(|tie| tie.take_call()));
        let unanswered = server.tie.as_ref().and_then(|tie| tie.unanswered());
        cx.out.dialog_events.extend(unanswered);
        let (state, letter) = match server.machine {
            Machine::ServerInvite => (State::Accepted, Letter::L),
            _ => (State::Completed, Letter::J),
        };
        server.state = state;
        self.start_server(key, letter, cx);
    }

    /// One step of the machine; whether the message is to be passed up.
    pub(crate) fn server_event(&mut self, key: Key, event: Event, cx: &mut Cx<'_, '_>) -> bool {
        let Some(server) = self.servers.get_mut(key) else {
            return false;
        };
        if event == Event::Ack && cx.mutant(Mutation::IgnoreAck) {
            return false;
        }
        let (next, actions) = machine::step(server.machine, server.state, event);
        server.state = next;
        let mut pass = false;
        for action in actions {
            match *action {
                Action::Transmit => self.transmit_last(key, event, cx),
                Action::Start(letter) => self.start_server(key, letter, cx),
                Action::Stop(letter) => self.stop_server(key, letter),
                Action::Pass => pass = true,
                Action::TellTimeout => {
                    // 17.2.1: nobody acknowledged; there is nobody to tell either.
                    let method = self.servers.get(key).map(|server| server.method);
                    cx.out.event(outbox::Event::TimedOut {
                        method: method.unwrap_or(Method::Invite),
                    });
                }
                Action::Ack | Action::TellTransport => {}
            }
        }
        match next {
            State::Terminated => self.end_server(key, cx),
            State::Confirmed => {
                if let Some(server) = self.servers.get_mut(key) {
                    server.last = None;
                }
            }
            _ => {}
        }
        pass
    }

    /// A timer of the machine.
    pub(crate) fn server_fired(&mut self, key: Key, letter: Letter, cx: &mut Cx<'_, '_>) {
        if let Some(server) = self.servers.get_mut(key) {
            match letter {
                Letter::G => server.retransmit = None,
                _ => server.life = None,
            }
            self.server_event(key, Event::Fired(letter), cx);
        }
    }

    /// The time for a 100 has come.
    pub(crate) fn patience_over(&mut self, key: Key) {
        if let Some(server) = self.servers.get_mut(key) {
            server.life = None;
        }
    }

    /// Frees the transaction, whatever state it is in. Its clients go on alone.
    pub(crate) fn end_server(&mut self, key: Key, cx: &mut Cx<'_, '_>) {
        let Some(server) = self.servers.remove(key) else {
            return;
        };
        if let Some(tie) = &server.tie {
            let unanswered = || tie.unanswered().filter(|_| !server.answered());
            let event = tie.gone().or_else(unanswered);
            cx.out.dialog_events.extend(event);
        }
        let other = (server.method == Method::Other).then(|| server.key.with_method(Method::Other));
        for name in [Some(server.key), other].into_iter().flatten() {
            if self.matching.get(&name) == Some(&key) {
                self.matching.remove(&name);
            }
        }
        for timer in [server.retransmit, server.life].into_iter().flatten() {
            self.wheel.cancel(timer);
        }
        if let Some(user) = server.user {
            user.cancel_timers(&mut self.wheel);
        }
    }

    fn transmit_last(&mut self, key: Key, event: Event, cx: &mut Cx<'_, '_>) {
        let Some(server) = self.servers.get(key) else {
            return;
        };
        let Some(last) = &server.last else { return };
        cx.out.send(server.reply_to, last, None);
        if matches!(event, Event::Fired(_)) {
            cx.out.event(outbox::Event::Retransmitted {
                method: server.method,
            });
        }
    }

    fn start_server(&mut self, key: Key, letter: Letter, cx: &mut Cx<'_, '_>) {
        let Some(server) = self.servers.get_mut(key) else {
            return;
        };
        if letter == Letter::H && cx.mutant(Mutation::NoTimerH) {
            return;
        }
        let timers = &server.settings.timers;
        let after = machine::duration(
            letter,
            timers,
            server.reliable(),
            server.state,
            server.interval,
        );
        let Some(after) = after else { return };
        if after.is_zero() {
            self.server_event(key, Event::Fired(letter), cx);
            return;
        }
        let handle = self.wheel.arm(
            cx.now() + after,
            Timer {
                key,
                due: Due::Server(letter),
            },
        );
        let old = match letter {
            Letter::G => {
                server.interval = after;
                server.retransmit.replace(handle)
            }
            _ => server.life.replace(handle),
        };
        if let Some(old) = old {
            self.wheel.cancel(old);
        }
    }

    fn stop_server(&mut self, key: Key, letter: Letter) {
        let Some(server) = self.servers.get_mut(key) else {
            return;
        };
        let handle = match letter {
            Letter::G => server.retransmit.take(),
            _ => server.life.take(),
        };
        if let Some(handle) = handle {
            self.wheel.cancel(handle);
        }
    }
}
