//! Client transactions (RFC 3261 17.1, RFC 6026), each with the CANCEL that may
//! follow it (9.1): it shares the branch, so it lives in the same slot.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sipbox_sip::build::RequestBuilder;
use sipbox_sip::{Index, Message, Method, Transport};

use super::cancel::Cancel;
use super::machine::{self, Action, Event, Letter, Machine, State};
use super::{Due, Timer, Transactions, keep};
use crate::account::{Room, Ticket};
use crate::agent::request::Probe;
use crate::cx::{Cx, Mutation};
use crate::flow::NextHop;
use crate::ids::SendToken;
use crate::outbox;
use crate::settings::Settings;
use crate::table::Key;
use crate::wheel::TimerHandle;

pub(crate) struct Client {
    /// The server transaction whose user it serves.
    pub(crate) server: Key,
    /// Which branch of that user.
    pub(crate) branch: u16,
    pub(crate) machine: Machine,
    pub(crate) state: State,
    pub(crate) method: Method,
    pub(crate) settings: Arc<Settings>,
    pub(crate) hop: NextHop,
    /// The request as sent: for retransmission, and to build ACK and CANCEL from.
    pub(super) sent: Bytes,
    /// The ACK, for retransmitted final responses.
    ack: Option<Bytes>,
    /// Counts the sends to different places, so that a late error is known as such.
    pub(crate) attempt: u8,
    interval: Duration,
    retransmit: Option<TimerHandle>,
    life: Option<TimerHandle>,
    timer_c: Option<TimerHandle>,
    pub(super) cancel: Cancel,
    /// Timer C ended it.
    pub(super) given_up: bool,
    /// Who wants to know what is answered, of a request of our own.
    pub(crate) probe: Option<Box<Probe>>,
    ticket: Ticket,
}

/// What a response or a timer means to the transaction user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Nothing,
    /// The response is to be handed up.
    Pass,
    /// The client has ended without a final response.
    TimedOut,
    /// The client could not send.
    Unsent,
}

impl Client {
    pub(crate) fn reliable(&self) -> bool {
        match self.hop {
            NextHop::Flow { flow, .. } => flow.transport.reliable(),
            NextHop::Address { transport, .. } => transport.reliable(),
        }
    }

    /// Where it sends datagrams, if it does.
    pub(crate) fn datagrams_to(&self) -> Option<SocketAddr> {
        match self.hop {
            NextHop::Flow { flow, .. } => (flow.transport == Transport::Udp).then_some(flow.peer),
            NextHop::Address {
                transport, address, ..
            } => (transport == Transport::Udp).then_some(address),
        }
    }

    /// Keeps what was sent, for as long as it may have to be sent again.
    fn keep(&mut self, request: Bytes) {
        let more = request.len().saturating_sub(self.ticket.bytes());
        self.ticket.holds(more);
        self.sent = request;
    }

    /// Whether a final response can still come.
    pub(crate) fn pending(&self) -> bool {
        matches!(
            self.state,
            State::Calling | State::Trying | State::Proceeding
        )
    }

    /// Whether nothing was heard yet.
    pub(crate) fn untouched(&self) -> bool {
        matches!(self.state, State::Calling | State::Trying)
    }
}

impl Transactions {
    /// Counts a branch of a request that was let in. `None`: there are too many.
    pub(crate) fn admit_client(&self, server: Key, settings: &Settings) -> Option<Ticket> {
        let owner = self.servers.get(server)?;
        let bytes = owner.ticket.bytes();
        settings.admit(owner.tenant, bytes, Room::Begun).ok()
    }

    /// Takes a slot, so that the branch has a name. `None` when the table is full.
    pub(crate) fn reserve_client(
        &mut self,
        server: Key,
        branch: u16,
        method: Method,
        hop: NextHop,
        settings: &Arc<Settings>,
        ticket: Ticket,
    ) -> Option<Key> {
        let machine = if method == Method::Invite {
            Machine::ClientInvite
        } else {
            Machine::ClientNonInvite
        };
        self.clients.insert(Client {
            server,
            branch,
            machine,
            state: machine::begin(machine).0,
            method,
            settings: Arc::clone(settings),
            hop,
            sent: Bytes::new(),
            ack: None,
            attempt: 0,
            interval: Duration::ZERO,
            retransmit: None,
            life: None,
            timer_c: None,
            cancel: Cancel::No,
            given_up: false,
            probe: None,
            ticket,
        })
    }

    /// Sends the request and starts the machine.
    pub(crate) fn launch(&mut self, key: Key, request: Bytes, cx: &mut Cx<'_, '_>) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        client.keep(request);
        let (state, actions) = machine::begin(client.machine);
        client.state = state;
        let invite = client.method == Method::Invite;
        for action in actions {
            match *action {
                Action::Transmit => self.transmit_client(key, cx),
                Action::Start(letter) => self.start_client(key, letter, cx),
                _ => {}
            }
        }
        if invite {
            // 16.6 step 11.
            self.restart_timer_c(key, cx);
        }
    }

    /// Sends the request of a client that has had no response over another hop
    /// (18.1.1); the machine goes on where it is.
    pub(crate) fn relaunch(&mut self, key: Key, request: Bytes, hop: NextHop, cx: &mut Cx<'_, '_>) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        client.keep(request);
        client.hop = hop;
        client.attempt = client.attempt.wrapping_add(1);
        let invite = client.method == Method::Invite;
        self.transmit_client(key, cx);
        self.start_client(key, if invite { Letter::A } else { Letter::E }, cx);
    }

    /// A response with this client's branch. CSeq tells whether it answers the
    /// request or its CANCEL (17.1.3).
    pub(crate) fn client_response(
        &mut self,
        key: Key,
        response: Message<'_>,
        cx: &mut Cx<'_, '_>,
    ) -> Told {
        let Some(client) = self.clients.get_mut(key) else {
            return Told::Nothing;
        };
        let Some(status) = response.status() else {
            return Told::Nothing;
        };
        let Ok(cseq) = response.cseq() else {
            return Told::Nothing;
        };
        if cseq.method == Method::Cancel.token().as_bytes() && client.method != Method::Cancel {
            self.cancel_response(key, status);
            return Told::Nothing;
        }
        if client.method == Method::Invite && cseq.method != Method::Invite.token().as_bytes() {
            return Told::Nothing;
        }
        let event = match status {
            ..200 => Event::Provisional,
            200..300 => Event::Success,
            _ => Event::Failure,
        };
        if client.method == Method::Invite && status > 100 && event == Event::Provisional {
            // 16.7 step 2.
            self.restart_timer_c(key, cx);
        }
        self.client_event(key, event, Some(response), cx)
    }

    pub(crate) fn client_event(
        &mut self,
        key: Key,
        event: Event,
        response: Option<Message<'_>>,
        cx: &mut Cx<'_, '_>,
    ) -> Told {
        let Some(client) = self.clients.get_mut(key) else {
            return Told::Nothing;
        };
        let before = client.state;
        let (next, actions) = machine::step(client.machine, before, event);
        client.state = next;
        let mut told = Told::Nothing;
        for action in actions {
            match *action {
                Action::Transmit => {
                    self.transmit_client(key, cx);
                    if let Some(client) = self.clients.get(key) {
                        cx.out.event(outbox::Event::Retransmitted {
                            method: client.method,
                        });
                    }
                }
                Action::Ack => self.acknowledge(key, response, cx),
                Action::Start(letter) => self.start_client(key, letter, cx),
                Action::Stop(letter) => {
                    if letter != Letter::A || !cx.mutant(Mutation::KeepRetransmitting) {
                        self.stop_client(key, letter);
                    }
                }
                Action::Pass => told = Told::Pass,
                Action::TellTimeout => told = Told::TimedOut,
                Action::TellTransport => told = Told::Unsent,
            }
        }
        if told == Told::TimedOut
            && let Some(client) = self.clients.get(key)
        {
            cx.out.event(outbox::Event::TimedOut {
                method: client.method,
            });
        }
        match next {
            State::Terminated => self.end_client(key),
            State::Proceeding => self.send_wanted_cancel(key, cx),
            State::Completed | State::Accepted if before != next => self.settle(key),
            _ => {}
        }
        told
    }

    /// A timer of the machine.
    pub(crate) fn client_fired(&mut self, key: Key, letter: Letter, cx: &mut Cx<'_, '_>) -> Told {
        let Some(client) = self.clients.get_mut(key) else {
            return Told::Nothing;
        };
        match letter {
            Letter::A | Letter::E => client.retransmit = None,
            _ => client.life = None,
        }
        if matches!(letter, Letter::D | Letter::K) && cx.mutant(Mutation::LeakClient) {
            return Told::Nothing;
        }
        if letter == Letter::A && cx.mutant(Mutation::KeepRetransmitting) {
            self.transmit_client(key, cx);
        }
        self.client_event(key, Event::Fired(letter), None, cx)
    }

    /// 16.8: with a provisional response the INVITE is cancelled, without one it
    /// has timed out.
    pub(crate) fn timer_c_fired(&mut self, key: Key, cx: &mut Cx<'_, '_>) -> Told {
        let Some(client) = self.clients.get_mut(key) else {
            return Told::Nothing;
        };
        client.timer_c = None;
        if !client.pending() {
            return Told::Nothing;
        }
        if client.state == State::Proceeding {
            client.given_up = true;
            self.cancel_client(key, cx);
            return Told::Nothing;
        }
        self.end_client(key);
        Told::TimedOut
    }

    /// A final response is there: only what may come late is still waited for.
    fn settle(&mut self, key: Key) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        client.sent = Bytes::new();
        if let Some(timer) = client.timer_c.take() {
            self.wheel.cancel(timer);
        }
        // A CANCEL for an INVITE that has ended has nothing left to say (9.1).
        let cancel = std::mem::take(&mut client.cancel);
        self.drop_cancel(cancel);
    }

    /// Frees the client, whatever state it is in.
    pub(crate) fn end_client(&mut self, key: Key) {
        let Some(client) = self.clients.remove(key) else {
            return;
        };
        for timer in [client.retransmit, client.life, client.timer_c]
            .into_iter()
            .flatten()
        {
            self.wheel.cancel(timer);
        }
        self.drop_cancel(client.cancel);
    }

    fn transmit_client(&mut self, key: Key, cx: &mut Cx<'_, '_>) {
        let place = self.place(key);
        if let Some(client) = self.clients.get(key) {
            let token = SendToken {
                place,
                attempt: client.attempt,
            };
            cx.out.send(client.hop, &client.sent, Some(token));
        }
    }

    /// 17.1.1.3: built once, sent for each copy of the response.
    fn acknowledge(&mut self, key: Key, response: Option<Message<'_>>, cx: &mut Cx<'_, '_>) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        if let Some(ack) = &client.ack {
            if !cx.mutant(Mutation::AckOnce) {
                cx.out.send(client.hop, ack, None);
            }
            return;
        }
        let mut index = Index::new();
        let text = &mut self.scratch.message;
        text.clear();
        let built = response.and_then(|response| {
            let request = Message::parse(&client.sent, &mut index).ok()?;
            RequestBuilder::ack(request, response)
                .ok()?
                .write(text)
                .ok()
        });
        if built.is_none() {
            cx.out.dropped(outbox::Dropped::Unbuildable);
            return;
        }
        let ack = keep(text);
        cx.out.send(client.hop, &ack, None);
        client.ack = Some(ack);
    }

    fn start_client(&mut self, key: Key, letter: Letter, cx: &mut Cx<'_, '_>) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let reliable = client.reliable();
        let timers = &client.settings.timers;
        let after = machine::duration(letter, timers, reliable, client.state, client.interval);
        let Some(after) = after else { return };
        if after.is_zero() {
            self.client_event(key, Event::Fired(letter), None, cx);
            return;
        }
        let handle = self.wheel.arm(
            cx.now() + after,
            Timer {
                key,
                due: Due::Client(letter),
            },
        );
        let old = match letter {
            Letter::A | Letter::E => {
                client.interval = after;
                client.retransmit.replace(handle)
            }
            _ => client.life.replace(handle),
        };
        if let Some(old) = old {
            self.wheel.cancel(old);
        }
    }

    fn stop_client(&mut self, key: Key, letter: Letter) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let handle = match letter {
            Letter::A | Letter::E => client.retransmit.take(),
            _ => client.life.take(),
        };
        if let Some(handle) = handle {
            self.wheel.cancel(handle);
        }
    }

    fn restart_timer_c(&mut self, key: Key, cx: &mut Cx<'_, '_>) {
        if cx.mutant(Mutation::NoTimerC) {
            return;
        }
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        if !client.pending() {
            return;
        }
        let at = cx.now() + client.settings.timers.c;
        let handle = self.wheel.arm(
            at,
            Timer {
                key,
                due: Due::TimerC,
            },
        );
        if let Some(old) = client.timer_c.replace(handle) {
            self.wheel.cancel(old);
        }
    }
}
