//! The CANCEL of a client transaction (RFC 3261 9.1): it shares branch and slot with
//! its INVITE, and has a machine of its own.

use std::time::Duration;

use bytes::Bytes;
use sipbox_sip::build::RequestBuilder;
use sipbox_sip::{Index, Message, Method};

use super::client::Told;
use super::machine::{self, Action, Event, Letter, Machine, State};
use super::{Due, Timer, Transactions, keep};
use crate::cx::Cx;
use crate::outbox;
use crate::table::Key;
use crate::wheel::TimerHandle;

#[derive(Default)]
pub(super) enum Cancel {
    #[default]
    No,
    /// To be sent when a provisional response shows that the request arrived (9.1).
    Wanted,
    Sent {
        state: State,
        bytes: Bytes,
        interval: Duration,
        retransmit: Option<TimerHandle>,
        life: Option<TimerHandle>,
        wait: Option<TimerHandle>,
    },
}

impl Transactions {
    /// 9.1: no final response followed the CANCEL.
    pub(crate) fn cancel_wait_over(&mut self, key: Key) -> Told {
        let Some(client) = self.clients.get_mut(key) else {
            return Told::Nothing;
        };
        if let Cancel::Sent { wait, .. } = &mut client.cancel {
            *wait = None;
        }
        if !client.pending() {
            return Told::Nothing;
        }
        self.end_client(key);
        Told::TimedOut
    }

    /// Cancels an INVITE: at once if it has a provisional response, else when it
    /// gets one (9.1).
    pub(crate) fn cancel_client(&mut self, key: Key, cx: &mut Cx<'_, '_>) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        if client.method != Method::Invite || !client.pending() {
            return;
        }
        if matches!(client.cancel, Cancel::No) {
            client.cancel = Cancel::Wanted;
        }
        if client.state == State::Proceeding {
            self.send_wanted_cancel(key, cx);
        }
    }

    /// Whether Timer C ended the client transaction.
    pub(crate) fn was_given_up(&self, key: Key) -> bool {
        self.clients.get(key).is_some_and(|client| client.given_up)
    }

    pub(super) fn send_wanted_cancel(&mut self, key: Key, cx: &mut Cx<'_, '_>) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        if !matches!(client.cancel, Cancel::Wanted) {
            return;
        }
        let mut index = Index::new();
        let text = &mut self.scratch.message;
        text.clear();
        let built = Message::parse(&client.sent, &mut index)
            .ok()
            .and_then(|request| RequestBuilder::cancel(request).ok())
            .and_then(|builder| builder.write(text).ok());
        if built.is_none() {
            client.cancel = Cancel::No;
            cx.out.dropped(outbox::Dropped::Unbuildable);
            return;
        }
        let bytes = keep(text);
        let reliable = client.reliable();
        let timers = client.settings.timers;
        cx.out.send(client.hop, &bytes, None);
        let now = cx.now();
        let mut arm = |after: Duration, due: Due| self.wheel.arm(now + after, Timer { key, due });
        client.cancel = Cancel::Sent {
            state: State::Trying,
            bytes,
            interval: timers.t1,
            retransmit: (!reliable).then(|| arm(timers.t1, Due::Cancel(Letter::E))),
            life: Some(arm(timers.f, Due::Cancel(Letter::F))),
            wait: Some(arm(timers.t1_64(), Due::CancelWait)),
        };
    }

    pub(super) fn cancel_response(&mut self, key: Key, status: u16) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let Cancel::Sent {
            state,
            retransmit,
            life,
            ..
        } = &mut client.cancel
        else {
            return;
        };
        let event = if status < 200 {
            Event::Provisional
        } else {
            Event::Success
        };
        *state = machine::step(Machine::ClientNonInvite, *state, event).0;
        if *state == State::Completed {
            // What comes again is absorbed by being no news; Timer K has no use.
            for timer in [retransmit.take(), life.take()].into_iter().flatten() {
                self.wheel.cancel(timer);
            }
        }
    }

    /// A timer of the CANCEL.
    pub(crate) fn cancel_fired(&mut self, key: Key, letter: Letter, cx: &mut Cx<'_, '_>) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let hop = client.hop;
        let timers = client.settings.timers;
        let Cancel::Sent {
            state,
            bytes,
            interval,
            retransmit,
            life,
            ..
        } = &mut client.cancel
        else {
            return;
        };
        let (next, actions) = machine::step(Machine::ClientNonInvite, *state, Event::Fired(letter));
        if letter == Letter::E {
            *retransmit = None;
        } else {
            *life = None;
        }
        let from = *state;
        *state = next;
        for action in actions {
            match *action {
                Action::Transmit => {
                    cx.out.send(hop, bytes, None);
                    cx.out.event(outbox::Event::Retransmitted {
                        method: Method::Cancel,
                    });
                }
                Action::Start(letter) => {
                    let after = machine::duration(letter, &timers, false, from, *interval);
                    let after = after.unwrap_or(timers.t2);
                    *interval = after;
                    let timer = Timer {
                        key,
                        due: Due::Cancel(letter),
                    };
                    *retransmit = Some(self.wheel.arm(cx.env.now + after, timer));
                }
                Action::Stop(Letter::E) => {
                    if let Some(timer) = retransmit.take() {
                        self.wheel.cancel(timer);
                    }
                }
                _ => {}
            }
        }
    }

    pub(super) fn drop_cancel(&mut self, cancel: Cancel) {
        if let Cancel::Sent {
            retransmit,
            life,
            wait,
            ..
        } = cancel
        {
            for timer in [retransmit, life, wait].into_iter().flatten() {
                self.wheel.cancel(timer);
            }
        }
    }
}
