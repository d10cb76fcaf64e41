//! The network: datagrams are lost, doubled, delayed and overtaken; a connection keeps
//! order and loses nothing until it breaks, and then all that is on its way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::call::Temper;
use super::world::{Event, Phone, World};
use crate::flow::{ConnectionId, Flow, NextHop};
use crate::ids::SendToken;
use crate::testing::{Sent, TCP, udp};
use crate::time::Time;
use sipbox_sip::Transport;

/// The connection between a phone and us, if there is one.
#[derive(Default)]
pub(super) struct Line {
    generation: u32,
    open: bool,
    /// When the last message of each direction arrives: none comes before it.
    to_proxy: Time,
    to_phone: Time,
}

#[derive(Default)]
pub(super) struct Lines {
    lines: BTreeMap<Phone, Line>,
    /// Calls that lost a message with a connection. Nobody sends it again, so both sides
    /// need not agree in the end.
    pub(super) cut: BTreeSet<usize>,
}

/// Phones of one call that a slot can tell apart.
const PHONES: usize = 8;

impl Phone {
    fn slot(self) -> u32 {
        u32::try_from(self.call * PHONES + self.number).unwrap()
    }

    fn of_slot(slot: u32) -> Self {
        let slot = usize::try_from(slot).unwrap();
        Self {
            call: slot / PHONES,
            number: slot % PHONES,
        }
    }

    fn of_address(ip: IpAddr) -> Option<Self> {
        let IpAddr::V4(ip) = ip else { return None };
        let [_, high, low, number] = ip.octets();
        Some(Self {
            call: usize::from(high) * 200 + usize::from(low),
            number: usize::from(number).checked_sub(1)?,
        })
    }
}

impl World {
    /// A phone sends.
    pub(super) fn phone_sends(&mut self, from: Phone, text: &str) {
        if !self.plans[from.call].streams[from.number] {
            let flow = udp(&from.address());
            let event = |text| Event::ToProxy { from, text, flow };
            self.datagram(event, text);
            return;
        }
        self.report.streamed += 1;
        self.open(from);
        let delay = self.delay();
        let now = self.rig.now;
        let line = self.lines.lines.entry(from).or_default();
        line.to_proxy = line.to_proxy.max(later(now, delay));
        let (at, generation) = (line.to_proxy, line.generation);
        let flow = Flow {
            listener: TCP,
            transport: Transport::Tcp,
            peer: from.address().parse().unwrap(),
            connection: Some(ConnectionId {
                slot: from.slot(),
                generation,
            }),
            local: None,
        };
        let text = text.to_owned();
        self.at_time(at, Event::ToProxy { from, text, flow });
        self.maybe_break(from);
    }

    /// The stack sends.
    pub(super) fn stack_sends(&mut self, sent: &Sent) {
        let (to, current, may_connect) = match sent.hop {
            NextHop::Flow { flow, reconnect } => {
                let Some(connection) = flow.connection else {
                    self.problems.push(format!("a flow without one: {flow:?}"));
                    return;
                };
                let to = Phone::of_slot(connection.slot);
                let line = self.lines.lines.get(&to);
                let current =
                    line.is_some_and(|line| line.open && line.generation == connection.generation);
                (to, current, reconnect.is_some())
            }
            NextHop::Address {
                transport, address, ..
            } => {
                let Some(to) = Phone::of_address(address.ip()) else {
                    return;
                };
                let streams = self.plans.get(to.call).map(|plan| &plan.streams);
                let Some(stream) = streams.and_then(|streams| streams.get(to.number)) else {
                    return;
                };
                if *stream != (transport == Transport::Tcp) {
                    self.problems
                        .push(format!("{to:?} is sent to over {transport}: {}", sent.text));
                    return;
                }
                if transport == Transport::Udp {
                    self.note_departure(to, &sent.text);
                    self.datagram(
                        |text| Event::ToPhone {
                            to,
                            text,
                            line: None,
                        },
                        &sent.text,
                    );
                    return;
                }
                let open = self.lines.lines.get(&to).is_some_and(|line| line.open);
                (to, open, true)
            }
        };
        let plan = &self.plans[to.call];
        let dead = to.number > 0 && plan.phones[to.number - 1] == Temper::Dead;
        if !current && (!may_connect || dead) {
            if let Some(token) = sent.token {
                let after = self.delay();
                self.at(after, Event::Refused(token));
            }
            return;
        }
        self.note_departure(to, &sent.text);
        self.report.streamed += 1;
        if !current {
            self.open(to);
        }
        let delay = self.delay();
        let now = self.rig.now;
        let line = self.lines.lines.entry(to).or_default();
        line.to_phone = line.to_phone.max(later(now, delay));
        let (at, generation) = (line.to_phone, line.generation);
        let text = sent.text.clone();
        let line = Some(generation);
        self.at_time(at, Event::ToPhone { to, text, line });
        self.maybe_break(to);
    }

    /// Whether what was on its way on a connection still arrives.
    pub(super) fn arrives(&mut self, phone: Phone, generation: u32) -> bool {
        let line = self.lines.lines.get(&phone);
        let arrives = line.is_some_and(|line| line.open && line.generation == generation);
        if !arrives {
            self.lines.cut.insert(phone.call);
        }
        arrives
    }

    pub(super) fn refused(&mut self, token: SendToken) {
        self.report.refused += 1;
        self.rig
            .call(|stack, env, out| stack.transport_error(env, token, out));
    }

    fn open(&mut self, phone: Phone) {
        let line = self.lines.lines.entry(phone).or_default();
        if !line.open {
            line.open = true;
            line.generation += 1;
        }
    }

    fn maybe_break(&mut self, phone: Phone) {
        if self.setup.breaks > 0 && self.random.permille(self.setup.breaks) {
            self.report.broken += 1;
            if let Some(line) = self.lines.lines.get_mut(&phone) {
                line.open = false;
            }
        }
    }

    fn delay(&mut self) -> u64 {
        1 + self.random.below(self.setup.delay_ms + 1)
    }

    /// Loses, doubles and delays.
    fn datagram(&mut self, event: impl Fn(String) -> Event, text: &str) {
        let copies = if self.random.permille(self.setup.duplication) {
            self.report.doubled += 1;
            2
        } else {
            1
        };
        for _ in 0..copies {
            if self.random.permille(self.setup.loss) {
                self.report.lost += 1;
                continue;
            }
            let delay = self.delay();
            self.at(delay, event(text.to_owned()));
        }
    }
}

fn later(now: Time, ms: u64) -> Time {
    Time(now.0 + ms * 1000)
}
