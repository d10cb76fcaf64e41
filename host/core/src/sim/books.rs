//! The books: what has to hold of single messages as they pass, and of the calls when
//! everything is over.

use std::collections::{BTreeMap, BTreeSet};

use super::call::{Mood, Order, Temper};
use super::policies::hooks_in;
use super::uas::Uas;
use super::world::{DESK, Phone, Report, World, branch_of, status_of};
use crate::policy::CallState;
use crate::stack::Counts;
use crate::testing::header;
use crate::time::Time;

/// What the books say about one branch or transaction as seen at the proxy's door.
#[derive(Default)]
pub(super) struct Books {
    /// Calls whose non-2xx ACK has arrived at the proxy.
    pub(super) acked: BTreeMap<usize, Time>,
    /// Branches that a response to an INVITE has arrived for.
    heard: BTreeMap<String, Time>,
    /// Calls whose CANCEL has arrived.
    pub(super) cancelled: BTreeMap<usize, Time>,
    /// Calls that were being decided when it did.
    pub(super) cancelled_deciding: BTreeMap<usize, Time>,
    /// First INVITEs that left, by branch.
    invites: BTreeMap<String, Time>,
    pub(super) deciding: BTreeMap<usize, Time>,
    /// Calls that a policy picked up itself.
    answered: BTreeMap<usize, Time>,
    /// Those whose ACK has arrived.
    answer_acked: BTreeMap<usize, Time>,
    /// Those that we ended.
    hung_up: BTreeMap<usize, Time>,
    /// Those of which a later hook is never answered.
    pub(super) unanswered: BTreeSet<usize>,
    /// How many answers of later hooks have counted.
    hooks: BTreeMap<usize, usize>,
}

impl World {
    pub(super) fn note_arrival(&mut self, from: Phone, text: &str) {
        let now = self.rig.now;
        let cseq = header(text, "CSeq").unwrap_or_default();
        if text.starts_with("ACK ") && header(text, "Route").is_none() && from.number == 0 {
            self.books.acked.entry(from.call).or_insert(now);
        }
        if text.starts_with(&format!("ACK {DESK} ")) {
            self.books.answer_acked.entry(from.call).or_insert(now);
        }
        if text.starts_with("CANCEL ") {
            self.books.cancelled.entry(from.call).or_insert(now);
            if self.books.deciding.contains_key(&from.call) {
                self.books
                    .cancelled_deciding
                    .entry(from.call)
                    .or_insert(now);
            }
        }
        if text.starts_with("SIP/2.0 ") && cseq.ends_with("INVITE") {
            self.books.heard.entry(branch_of(text)).or_insert(now);
        }
    }

    pub(super) fn note_departure(&mut self, to: Phone, text: &str) {
        let now = self.rig.now;
        let cseq = header(text, "CSeq").unwrap_or_default();
        if text.starts_with("INVITE ") {
            let branch = branch_of(text);
            if let Some(at) = self.books.heard.get(&branch) {
                self.problems.push(format!(
                    "call {}: INVITE sent again at {now:?} after a response at {at:?}",
                    to.call
                ));
            }
            if !self.books.invites.contains_key(&branch) {
                if let Some(at) = self.books.cancelled.get(&to.call)
                    && now > *at
                {
                    self.problems.push(format!(
                        "call {}: a new INVITE at {now:?} after the CANCEL at {at:?}",
                        to.call
                    ));
                }
                self.books.invites.insert(branch, now);
            }
        }
        let status = status_of(text);
        if status == Some(200) && cseq.ends_with("INVITE") && text.contains(DESK) {
            self.books.answered.entry(to.call).or_insert(now);
            if let Some(at) = self.books.answer_acked.get(&to.call)
                && now > *at
            {
                self.problems.push(format!(
                    "call {}: the policy's 200 sent again at {now:?}, after its ACK at {at:?}",
                    to.call
                ));
            }
        }
        if text.starts_with("BYE ") && self.books.answered.contains_key(&to.call) {
            self.books.hung_up.entry(to.call).or_insert(now);
        }
        if to.number == 0
            && cseq.ends_with("INVITE")
            && status.is_some_and(|status| status >= 300)
            // A copy of the INVITE that comes while we shut down is refused without memory.
            && (status != Some(503) || self.shut_at.is_none())
            && let Some(at) = self.books.acked.get(&to.call)
            && now > *at
        {
            self.problems.push(format!(
                "call {}: {status:?} sent again at {now:?}, after its ACK at {at:?}",
                to.call
            ));
        }
    }

    /// A later hook is asked: it sees what all hooks before it have made of the variables.
    pub(super) fn note_variables(&mut self, call: usize, state: &CallState) {
        let (seen, hooks) = (hooks_in(state), self.books.hooks.get(&call));
        let hooks = hooks.copied().unwrap_or_default();
        if seen != hooks {
            self.problems.push(format!(
                "call {call}: {hooks} hooks have set variables, the next one sees those of {seen}"
            ));
        }
    }

    /// A later hook has answered.
    pub(super) fn note_hook(&mut self, call: usize, counts: bool) {
        *self.books.hooks.entry(call).or_default() += usize::from(counts);
    }

    /// What must hold when everything is over.
    pub(super) fn verdict(mut self) -> Result<Report, String> {
        let counts = self.rig.stack.counts();
        if counts != Counts::default() {
            self.problems.push(format!("{counts:?} left"));
        }
        let dialogs = self.rig.stack.dialogs();
        let (left, leases) = (dialogs.counts(), dialogs.leases().list(None));
        let members = dialogs.profiles().list(None);
        if left.live != 0 || left.early != 0 || left.active != 0 {
            self.problems.push(format!("dialogs left: {left:?}"));
        }
        if !leases.is_empty() || !members.is_empty() {
            let text = format!("leases left: {leases:?}, members: {members:?}");
            self.problems.push(text);
        }
        self.report.dialogs = left.processed;
        self.report.expired = left.expired;
        let counted = self.rig.settings.account.live();
        if counted != 0 {
            self.problems
                .push(format!("{counted} counted, though none is left"));
        }
        for call in 0..self.plans.len() {
            if !self.lines.cut.contains(&call) {
                self.judge(call);
            }
        }
        self.report.answered = self.books.answered.len();
        self.report.hung_up = self.books.hung_up.len();
        self.report.cancelled = self.books.cancelled.len();
        self.report.cancelled_deciding = self.books.cancelled_deciding.len();
        if self.problems.is_empty() {
            return Ok(self.report);
        }
        self.problems.truncate(12);
        Err(self.problems.join("\n"))
    }

    fn judge(&mut self, call: usize) {
        let plan = self.plans[call].clone();
        let caller = &self.callers[call];
        let mut problems = Vec::new();
        let mut say = |text: String| problems.push(format!("call {call}: {text}; {plan:?}"));
        let vanished = matches!(plan.mood, Mood::Vanishes { .. });
        let cancelled = self.books.cancelled.get(&call);
        let decided = plan.thinks.is_some();
        match (plan.invite, caller.final_status()) {
            (true, None) if !vanished => say("the caller never heard a final response".into()),
            (_, Some(200..300)) => self.report.established += 1,
            (_, Some(503)) if self.shut_at.is_some() => self.report.shut_down += 1,
            _ => self.report.failed += 1,
        }
        if let (Some(cancelled), Some(ended)) = (cancelled, caller.ended)
            && ended.0 > cancelled.0 + 80_000_000
        {
            say(format!(
                "the CANCEL at {cancelled:?} ended it at {ended:?} only"
            ));
        }
        let phones: Vec<&Uas> = (1..=plan.phones.len())
            .map(|number| &self.phones[&Phone { call, number }])
            .collect();
        for (at, phone) in phones.iter().enumerate() {
            // A call whose CANCEL crossed its 2xx may be ended before the caller knows of it.
            let ended = self.setup.dialogs && phone.hung_up;
            if phone.unacknowledged && !vanished && !ended {
                say(format!(
                    "phone {at} got no ACK for {:?}",
                    phone.final_status
                ));
            }
            if phone.ringing() {
                say(format!("phone {at} rings for ever"));
            }
            let picked_up = phone.final_status.is_some_and(|status| status / 100 == 2);
            if plan.invite && picked_up && !vanished {
                if !caller.talked_to(at + 1) && !ended {
                    say(format!(
                        "phone {at} picked up, and the caller does not know"
                    ));
                } else if !phone.hung_up {
                    say(format!("phone {at} was not told that the call is over"));
                }
            }
            if let (Some(silent), Some(ended)) = (phone.silent, caller.ended)
                && plan.invite
                && !vanished
                && silent.0 > ended.0 + 45_000_000
            {
                say(format!(
                    "phone {at} rings until {silent:?}, the call ended {ended:?}"
                ));
            }
        }
        if self.books.answered.contains_key(&call) {
            let acked = self.books.answer_acked.contains_key(&call);
            let hung_up = self.books.hung_up.contains_key(&call);
            // A dialog whose BYE was lost is ended by its time.
            let by_time = self.setup.dialogs && acked && hung_up;
            if acked == hung_up && !by_time {
                say(format!(
                    "the policy picked up, acknowledged {acked}, ended by us {hung_up}"
                ));
            }
        }
        // The best response (RFC 3261 16.7 step 6), where nothing else came between.
        let all_refused = phones.iter().all(|phone| {
            matches!(phone.temper, Temper::Refuses { .. })
                && phone.final_status.is_some_and(|status| status >= 300)
                && !phone.was_cancelled
        });
        let plain = decided
            && plan.order == Order::Parallel
            && cancelled.is_none()
            && !self.books.answered.contains_key(&call)
            && self.shut_at.is_none()
            && self.setup.loss <= 100;
        // A hook that is never answered is waited for as long as a caller is patient (17.1.2.2),
        // so that he may have given up in the moment when the response goes on.
        let gave_up = caller.gave_up() && self.books.unanswered.contains(&call);
        if plain && all_refused && !vanished && !gave_up {
            let statuses: Vec<u16> = phones
                .iter()
                .filter_map(|phone| phone.final_status)
                .collect();
            let class = |status: &u16| if status / 100 == 6 { 0 } else { status / 100 };
            let best = statuses.iter().map(class).min();
            let got = caller.final_status();
            if got.as_ref().map(class) != best {
                say(format!("{got:?} is not the best of {statuses:?}"));
            }
        }
        self.problems.extend(problems);
    }
}
