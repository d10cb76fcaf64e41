//! The policies of the simulated calls: what they decide, how long they take, what they
//! write and remember.

use sipbox_sip::Method;

use super::call::Order;
use super::world::{DESK, Event, Phone, World, call_of};
use crate::decision::{Decision, Relay, ResolvedTarget, Ruling};
use crate::dialog::Wanted;
use crate::ids::AskId;
use crate::lease::Acquired;
use crate::outbox::Ask;
use crate::policy::{Armed, CallState, Facts, Reply};
use crate::stack::{BranchVerdict, ReplyVerdict};

impl World {
    pub(super) fn ask(&mut self, ask: Ask) {
        match &ask {
            Ask::Request { request, id, .. } => {
                let call = call_of(&String::from_utf8_lossy(request.as_ref().bytes()));
                let dialog = request.as_ref().to().is_ok_and(|to| to.tag().is_some());
                let thinks = if dialog {
                    Some(0)
                } else {
                    self.plans[call].thinks
                };
                let id = *id;
                if !dialog {
                    self.books.deciding.insert(call, self.rig.now);
                }
                match thinks {
                    Some(0) => self.decide(ask),
                    Some(after) => {
                        if after > 200 {
                            self.rig.call(|stack, env, out| stack.trying(env, id, out));
                        }
                        self.at(after, Event::Verdict(Box::new(ask)));
                    }
                    None => {}
                }
            }
            Ask::Stateless { request, .. } => {
                if request.as_ref().request_uri() == DESK.as_bytes() {
                    self.problems.push("an ACK of ours was offered".into());
                }
                self.decide(ask);
            }
            _ if !self.setup.hooks => {
                self.problems
                    .push("a hook was asked that nobody armed".into());
            }
            Ask::Branch { request, state, .. }
            | Ask::Reply { request, state, .. }
            | Ask::Failure { request, state, .. } => {
                self.report.asked += 1;
                let call = call_of(&String::from_utf8_lossy(request.as_ref().bytes()));
                self.note_variables(call, state);
                if self.random.permille(10) {
                    // A few are never answered.
                    self.books.unanswered.insert(call);
                } else {
                    let quick = self.random.permille(500);
                    let after = if quick { 0 } else { self.random.below(800) };
                    self.at(after, Event::Verdict(Box::new(ask)));
                }
            }
        }
        // What the verdict sent comes out with the next step, at the same time.
        if !self.rig.sent.is_empty() {
            self.collect();
        }
    }

    pub(super) fn decide(&mut self, ask: Ask) {
        match ask {
            Ask::Request {
                id, request, facts, ..
            } => {
                let text = String::from_utf8_lossy(request.as_ref().bytes()).into_owned();
                let ruling = self.ruling(&text, &facts);
                if !facts.in_dialog {
                    self.books.deciding.remove(&call_of(&text));
                }
                self.rig.armed = self.armed(&facts);
                let decision = self.rig.decide(request, ruling);
                let decision = self.with_dialog(decision, &facts);
                let call = call_of(&text);
                if !facts.in_dialog && self.plans[call].writes.is_some() {
                    self.write(call, id, false, decision);
                } else {
                    self.rig
                        .call(|stack, env, out| stack.request_verdict(env, id, decision, out));
                }
            }
            Ask::Branch {
                id, request, state, ..
            } => {
                let call = call_of(&String::from_utf8_lossy(request.as_ref().bytes()));
                let verdict = BranchVerdict {
                    keep: true,
                    request,
                    route: crate::policy::BranchRoute::default(),
                    state: counted_on(state),
                };
                let counts = self
                    .rig
                    .call(|stack, env, out| stack.branch_verdict(env, id, verdict, out));
                self.note_hook(call, counts);
            }
            Ask::Reply {
                id,
                response,
                request,
                state,
                ..
            } => {
                let call = call_of(&String::from_utf8_lossy(request.as_ref().bytes()));
                let forward = !self.random.permille(200);
                let verdict = ReplyVerdict {
                    forward,
                    response,
                    state: counted_on(state),
                };
                let counts = self
                    .rig
                    .call(|stack, env, out| stack.reply_verdict(env, id, verdict, out));
                self.note_hook(call, counts);
            }
            Ask::Failure {
                id, request, state, ..
            } => {
                let call = call_of(&String::from_utf8_lossy(request.as_ref().bytes()));
                self.rig.armed = Armed::default();
                let invite = request.as_ref().method() == Method::Invite;
                let ruling = if invite && self.random.permille(200) {
                    picks_up()
                } else {
                    Ruling::Best
                };
                let state = self.with_leases(state);
                let decision = Decision {
                    state: counted_on(state),
                    ..self.rig.decide(request, ruling)
                };
                if self.plans[call].writes.is_some() {
                    self.write(call, id, true, decision);
                } else {
                    let counts = self
                        .rig
                        .call(|stack, env, out| stack.failure_verdict(env, id, decision, out));
                    self.note_hook(call, counts);
                }
            }
            Ask::Stateless {
                id, request, facts, ..
            } => {
                let decision = self.rig.decide(request, Ruling::Relay(Relay::default()));
                self.rig.call(|stack, env, out| {
                    stack.forward_stateless(env, id, &facts, decision, out);
                });
            }
        }
        self.collect();
    }

    /// Writes what a verdict staged, if it counts.
    fn write(&mut self, call: usize, id: AskId, failure: bool, decision: Decision) {
        let forwards = decision.ruling.forwards();
        let settled = self
            .rig
            .call(|stack, env, out| stack.settle(env, id, forwards, out));
        if settled.is_err() {
            self.report.unwritten += 1;
            return;
        }
        self.report.written += 1;
        let stored = Event::Stored {
            call,
            id,
            failure,
            decision: Box::new(decision),
        };
        self.at(self.plans[call].writes.unwrap_or_default(), stored);
    }

    pub(super) fn stored(&mut self, call: usize, id: AskId, failure: bool, decision: Decision) {
        let counts = self.rig.call(|stack, env, out| {
            if failure {
                stack.failure_verdict(env, id, decision, out)
            } else {
                stack.request_verdict(env, id, decision, out)
            }
        });
        if failure {
            self.note_hook(call, counts);
        }
        // A phone that was given up may be picked up while a failure is decided about.
        if !counts && !failure {
            self.problems.push(format!(
                "call {call}: written, and the verdict counts for nothing"
            ));
        }
    }

    fn armed(&mut self, facts: &Facts) -> Armed {
        let mut coin = || self.setup.hooks && !facts.in_dialog && self.random.permille(500);
        Armed {
            branch: coin(),
            reply: coin(),
            failure: coin(),
        }
    }

    fn ruling(&self, text: &str, facts: &Facts) -> Ruling {
        if facts.in_dialog {
            return if text.contains(&format!(" {DESK} ")) {
                Ruling::reply(200)
            } else {
                Ruling::Relay(Relay::default())
            };
        }
        let call = call_of(text);
        let plan = &self.plans[call];
        let target = |at: usize| {
            let phone = Phone {
                call,
                number: at + 1,
            };
            ResolvedTarget::uri(format!("sip:bob@{}", plan.uri_host(phone)))
        };
        let targets: Vec<ResolvedTarget> = (0..plan.phones.len()).map(target).collect();
        let groups = match plan.order {
            Order::Refuse => return Ruling::reply(403),
            Order::Answer => return picks_up(),
            Order::Parallel => vec![targets],
            Order::Serial => targets.into_iter().map(|target| vec![target]).collect(),
        };
        Ruling::Relay(Relay {
            groups,
            ring_timeout: plan.ring_timeout,
            total_timeout: 0,
            fr_timeout: 0,
            record_route: Some(vec![]),
        })
    }
}

impl World {
    /// A dialog and a lease for a call, which are lost if the policy traps after it.
    fn with_dialog(&mut self, decision: Decision, facts: &Facts) -> Decision {
        if !self.setup.dialogs {
            return decision;
        }
        let wanted = Wanted {
            bye_on_timeout: true,
            timeout: Some(90),
            delete_delay: Some(u32::try_from(self.random.below(3)).unwrap()),
            end_on_race_condition: self.random.permille(500),
            ..Wanted::default()
        };
        let limit = u32::MAX;
        let state = self
            .rig
            .dialog_state(&decision.request, facts, wanted, limit);
        if !facts.in_dialog && self.random.permille(50) {
            self.report.trapped += 1;
            return decision;
        }
        Decision { state, ..decision }
    }

    /// The place of another target, and perhaps not that of the one that failed.
    fn with_leases(&mut self, mut state: CallState) -> CallState {
        if self.setup.dialogs {
            let leases = self.rig.stack.leases();
            let tenant = crate::flow::TenantId(0);
            if let Acquired::Granted(lease) = leases.acquire(tenant, "target", "next", u32::MAX) {
                state.leases.push(lease);
            }
            if self.random.permille(300) {
                state.leases.remove(0).end();
            }
        }
        state
    }

    /// Now and then: what is counted is what somebody holds.
    pub(super) fn audit(&mut self) {
        if !self.setup.dialogs || !self.random.permille(5) {
            return;
        }
        self.report.audits += 1;
        let drift = self.rig.stack.audit_leases().drift;
        if !drift.is_empty() {
            self.problems.push(format!("leases drift: {drift:?}"));
        }
    }
}

/// The variable that counts the hooks of a call.
const HOOKS: &str = "hooks";

/// How many hooks have left their mark in the variables.
pub(super) fn hooks_in(state: &CallState) -> usize {
    let mark = state.vars.iter().find(|(name, _)| name == HOOKS);
    mark.map_or(0, |(_, count)| count.parse().unwrap())
}

/// The variables with the mark of one hook more.
fn counted_on(mut state: CallState) -> CallState {
    let count = hooks_in(&state) + 1;
    state.vars = vec![(HOOKS.to_owned(), count.to_string())];
    state
}

fn picks_up() -> Ruling {
    Ruling::Reply(Reply {
        status: 200,
        headers: vec![("Contact".into(), format!("<{DESK}>"))],
        ..Reply::default()
    })
}
