//! Time, network, policies and the books: everything between the phones and the
//! stack, and what must hold of it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::books::Books;
use super::call::Plan;
use super::network::Lines;
use super::random::Random;
use super::uac::Uac;
use super::uas::Uas;
use crate::cx::Mutation;
use crate::decision::Decision;
use crate::flow::Flow;
use crate::ids::{AskId, SendToken};
use crate::outbox::{Ask, Dropped, Event as StackEvent};
use crate::stack::Stack;
use crate::testing::{Rig, header};
use crate::time::Time;

/// How a run is set up; chances are in thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Setup {
    pub(super) calls: usize,
    pub(super) loss: u64,
    pub(super) duplication: u64,
    /// The most that a message takes; shorter ones overtake.
    pub(super) delay_ms: u64,
    pub(super) shutdown: bool,
    /// Policies arm their later hooks, and take their time in them.
    pub(super) hooks: bool,
    /// Policies have a dialog and leases for each call, and trap now and then.
    pub(super) dialogs: bool,
    /// How many phones use TCP.
    pub(super) tcp: u64,
    /// How many messages are the last of their connection.
    pub(super) breaks: u64,
    pub(super) mutation: Option<Mutation>,
}

/// What happened, so that a run can be seen to be worth something.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    pub(super) calls: usize,
    pub(super) established: usize,
    pub(super) cancelled: usize,
    pub(super) cancelled_deciding: usize,
    pub(super) late_verdicts: usize,
    /// Verdicts that waited for what they wrote, and those that must not write.
    pub(super) written: usize,
    pub(super) unwritten: usize,
    pub(super) failed: usize,
    pub(super) shut_down: usize,
    pub(super) lost: usize,
    pub(super) doubled: usize,
    pub(super) asked: usize,
    pub(super) answered: usize,
    pub(super) hung_up: usize,
    pub(super) streamed: usize,
    pub(super) broken: usize,
    pub(super) refused: usize,
    /// Dialogs: begun, and ended by their time; hooks that trapped.
    pub(super) dialogs: u64,
    pub(super) expired: u64,
    pub(super) trapped: usize,
    pub(super) audits: usize,
}

/// Who picks up where a policy does.
pub(super) const DESK: &str = "sip:desk@192.0.2.100:5060";

impl Report {
    pub(super) fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.established += other.established;
        self.cancelled += other.cancelled;
        self.cancelled_deciding += other.cancelled_deciding;
        self.late_verdicts += other.late_verdicts;
        self.written += other.written;
        self.unwritten += other.unwritten;
        self.failed += other.failed;
        self.shut_down += other.shut_down;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.asked += other.asked;
        self.answered += other.answered;
        self.hung_up += other.hung_up;
        self.streamed += other.streamed;
        self.broken += other.broken;
        self.refused += other.refused;
        self.dialogs += other.dialogs;
        self.expired += other.expired;
        self.trapped += other.trapped;
        self.audits += other.audits;
    }
}

/// A phone: the caller of a call, or one of its callees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Phone {
    pub(super) call: usize,
    /// 0: the caller.
    pub(super) number: usize,
}

impl Phone {
    pub(super) fn address(self) -> String {
        format!(
            "10.{}.{}.{}:5060",
            self.call / 200,
            self.call % 200,
            self.number + 1
        )
    }
}

/// What a phone wants to be reminded of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    Begin,
    Retransmit(u32),
    GiveUp(u32),
    Cancel,
    Vanish,
    HangUp,
    Answer,
}

pub(super) enum Event {
    ToProxy {
        from: Phone,
        text: String,
        flow: Flow,
    },
    ToPhone {
        to: Phone,
        text: String,
        /// The connection's generation.
        line: Option<u32>,
    },
    /// A message could not be sent.
    Refused(SendToken),
    Alarm {
        phone: Phone,
        alarm: Alarm,
    },
    Verdict(Box<Ask>),
    /// What a verdict wrote is stored.
    Stored {
        call: usize,
        id: AskId,
        failure: bool,
        decision: Box<Decision>,
    },
    Shutdown,
}

/// What phones do things with.
pub(super) struct Desk {
    pub(super) now: Time,
    sends: Vec<String>,
    alarms: Vec<(u64, Alarm)>,
    problems: Vec<String>,
}

impl Desk {
    pub(super) fn send(&mut self, text: &str) {
        self.sends.push(text.to_owned());
    }

    pub(super) fn alarm(&mut self, after: u64, alarm: Alarm) {
        self.alarms.push((after, alarm));
    }

    pub(super) fn problem(&mut self, text: String) {
        self.problems.push(text);
    }
}

pub(super) struct World {
    pub(super) setup: Setup,
    pub(super) rig: Rig,
    pub(super) random: Random,
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    events: BTreeMap<u64, Event>,
    serial: u64,
    pub(super) plans: Vec<Plan>,
    pub(super) callers: Vec<Uac>,
    pub(super) phones: BTreeMap<Phone, Uas>,
    pub(super) lines: Lines,
    pub(super) books: Books,
    pub(super) report: Report,
    pub(super) problems: Vec<String>,
    pub(super) shut_at: Option<Time>,
}

impl World {
    pub(super) fn new(seed: u64, setup: Setup) -> Self {
        let mut random = Random::new(seed);
        let mut rig = Rig::undecided();
        rig.stack.mutation = setup.mutation;
        let plans: Vec<Plan> = (0..setup.calls)
            .map(|_| Plan::draw(&mut random, setup.tcp))
            .collect();
        let callers = plans
            .iter()
            .enumerate()
            .map(|(call, plan)| Uac::new(Phone { call, number: 0 }, plan, seed))
            .collect();
        let mut phones = BTreeMap::new();
        for (call, plan) in plans.iter().enumerate() {
            for (at, temper) in plan.phones.iter().enumerate() {
                let phone = Phone {
                    call,
                    number: at + 1,
                };
                phones.insert(phone, Uas::new(phone, *temper, plan));
            }
        }
        let mut world = Self {
            setup,
            rig,
            random,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            serial: 0,
            plans,
            callers,
            phones,
            lines: Lines::default(),
            books: Books::default(),
            report: Report {
                calls: setup.calls,
                ..Report::default()
            },
            problems: Vec::new(),
            shut_at: None,
        };
        for call in 0..setup.calls {
            let phone = Phone { call, number: 0 };
            let after = world.plans[call].begins;
            world.at(
                after,
                Event::Alarm {
                    phone,
                    alarm: Alarm::Begin,
                },
            );
        }
        if setup.shutdown {
            let after = world.random.between(5_000, 25_000);
            world.at(after, Event::Shutdown);
        }
        world
    }

    pub(super) fn at(&mut self, after_ms: u64, event: Event) {
        self.at_time(Time(self.rig.now.0 + after_ms * 1000), event);
    }

    pub(super) fn at_time(&mut self, at: Time, event: Event) {
        self.serial += 1;
        self.queue.push(Reverse((at, self.serial)));
        self.events.insert(self.serial, event);
    }

    /// Until nothing is on its way, nobody waits and no timer is armed, or for
    /// half an hour.
    pub(super) fn run(&mut self) {
        let end = Time(self.rig.now.0 + 1_800_000_000);
        loop {
            let stack = &self.rig.stack;
            let timer = (0..stack.shards())
                .filter_map(|shard| stack.next_deadline(shard))
                .chain(stack.dialogs().next_deadline())
                .min();
            let event = self.queue.peek().map(|Reverse((at, _))| *at);
            let next = match (timer, event) {
                (Some(a), Some(b)) => a.min(b),
                (Some(a), None) => a,
                (None, Some(b)) => b,
                (None, None) => return,
            };
            if next > end || self.problems.len() > 20 {
                return;
            }
            self.rig.now = self.rig.now.max(next);
            if event.is_some_and(|at| at <= self.rig.now) {
                if let Some(Reverse((_, serial))) = self.queue.pop()
                    && let Some(event) = self.events.remove(&serial)
                {
                    self.happen(event);
                }
            } else {
                for shard in 0..self.rig.stack.shards() {
                    self.rig.call(|stack, env, out| stack.tick(env, shard, out));
                }
                self.rig.call(Stack::dialogs_due);
            }
            self.collect();
            self.audit();
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToProxy { from, text, flow } => {
                let generation = flow.connection.map(|connection| connection.generation);
                if generation.is_none_or(|generation| self.arrives(from, generation)) {
                    self.note_arrival(from, &text);
                    self.rig.receive(&text, flow);
                }
            }
            Event::Refused(token) => self.refused(token),
            Event::ToPhone {
                to,
                line: Some(generation),
                ..
            } if !self.arrives(to, generation) => {}
            Event::ToPhone { to, text, .. } => self.desk(to, |world, desk| {
                if to.number == 0 {
                    world.callers[to.call].receive(&text, desk);
                } else if let Some(phone) = world.phones.get_mut(&to) {
                    phone.receive(&text, desk);
                }
            }),
            Event::Alarm { phone, alarm } => self.desk(phone, |world, desk| {
                if phone.number == 0 {
                    world.callers[phone.call].ring(alarm, desk);
                } else if let Some(phone) = world.phones.get_mut(&phone) {
                    phone.ring(alarm, desk);
                }
            }),
            Event::Verdict(ask) => self.decide(*ask),
            Event::Stored {
                call,
                id,
                failure,
                decision,
            } => self.stored(call, id, failure, *decision),
            Event::Shutdown => {
                self.shut_at = Some(self.rig.now);
                self.rig.call(Stack::shutdown);
            }
        }
    }

    fn desk(&mut self, phone: Phone, act: impl FnOnce(&mut Self, &mut Desk)) {
        let mut desk = Desk {
            now: self.rig.now,
            sends: Vec::new(),
            alarms: Vec::new(),
            problems: Vec::new(),
        };
        act(self, &mut desk);
        for text in desk.sends {
            self.phone_sends(phone, &text);
        }
        for (after, alarm) in desk.alarms {
            self.at(after, Event::Alarm { phone, alarm });
        }
        self.problems.extend(desk.problems);
    }

    /// What came out of the stack.
    pub(super) fn collect(&mut self) {
        for sent in self.rig.take() {
            self.stack_sends(&sent);
        }
        for event in std::mem::take(&mut self.rig.events) {
            if event == StackEvent::Dropped(Dropped::LateVerdict) {
                self.report.late_verdicts += 1;
            }
        }
        for ask in std::mem::take(&mut self.rig.asks) {
            self.ask(ask);
        }
    }
}

pub(super) fn call_of(text: &str) -> usize {
    let id = header(text, "Call-ID").unwrap_or_default();
    id.split('-')
        .nth(1)
        .and_then(|call| call.parse().ok())
        .unwrap_or(usize::MAX)
}

pub(super) fn branch_of(text: &str) -> String {
    let via = header(text, "Via").unwrap_or_default();
    via.split("branch=")
        .nth(1)
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .to_owned()
}

pub(super) fn status_of(text: &str) -> Option<u16> {
    text.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()
}
