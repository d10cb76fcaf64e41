//! How a dialog ends: by a BYE that was answered, by silence, by its time, from the middle.
//! What leads there stands in `record`.

use std::sync::Arc;
use std::time::Duration;

use sipbox_sip::Method;

use super::event::{Change, EndReason, Heard, Order, Side};
use super::leg::Leg;
use super::record::{Bye, Dialog, Now, Outcome};
use super::state::{Happened, State};
use crate::agent::request::{OwnRequest, Probe, Within};
use crate::flow::ListenerId;
use crate::transaction::is_success;

/// A side that so many questions in a row could not be sent to cannot be reached.
const MAX_UNSENT: u8 = 3;
/// A dialog that is over waits for the end of its transaction this long at most.
const GONE_BY: Duration = Duration::from_secs(600);

impl Dialog {
    /// Its BYE was answered. Whoever sent that is gone (RFC 3261 15.1.1), but for one that
    /// is to come again with credentials. If the other side need not have heard of it,
    /// because the BYE went elsewhere or was refused, it is told by one of ours: no call
    /// goes on that is not counted.
    pub(super) fn bye(
        &mut self,
        from: Side,
        cseq: u32,
        status: u16,
        at: Now<'_>,
        out: &mut Outcome,
    ) {
        let is = |bye: &Bye| bye.from == from && bye.cseq == cseq;
        let fits = match self.byes.iter().position(is) {
            Some(place) => self.byes.remove(place).fits,
            None => false,
        };
        if !self.bye_seen || !self.state.is_confirmed() {
            return;
        }
        if matches!(status, 401 | 407) {
            self.bye_seen = !self.byes.is_empty();
            return;
        }
        let reason = match from {
            Side::Caller => EndReason::DownstreamBye,
            Side::Callee => EndReason::UpstreamBye,
        };
        let heard = is_success(status) || matches!(status, 408 | 481);
        if !heard || !fits {
            self.end(reason, &[], at, out);
        } else if self.happened(Happened::Bye) {
            self.over(reason, at, out);
        }
    }

    /// A side that says 408 or 481, or nothing, is not in the call any more. Whoever
    /// answers otherwise is there; if not well, that ends no call. What could not be sent
    /// says little of the other side, unless it stays so.
    pub(super) fn probed(&mut self, side: Side, heard: Heard, at: Now<'_>, out: &mut Outcome) {
        let Some(leg) = self.leg_mut(side) else {
            return;
        };
        leg.probing = false;
        leg.unsent = match heard {
            Heard::Unsent => leg.unsent.saturating_add(1),
            Heard::Answer(_) | Heard::Silence => 0,
        };
        let gone = match heard {
            Heard::Answer(status) => matches!(status, 408 | 481),
            Heard::Silence => true,
            Heard::Unsent => leg.unsent >= MAX_UNSENT,
        };
        if gone && self.state.is_confirmed() {
            self.end(EndReason::Ping, &[], at, out);
        }
    }

    /// It came to nothing.
    pub(super) fn failed(&mut self, status: u16, at: Now<'_>, out: &mut Outcome) {
        self.over(EndReason::Failed(status), at, out);
    }

    /// The state is `Deleted` from now on.
    pub(super) fn over(&mut self, reason: EndReason, at: Now<'_>, out: &mut Outcome) {
        self.reason = Some(reason);
        (self.race, self.ping) = (None, None);
        for lease in self.leases.iter().chain(&self.profiles) {
            lease.end();
        }
        self.forget(at);
        let change = match reason {
            EndReason::Failed(status) => Change::Failed(status),
            EndReason::Lifetime => Change::TimedOut,
            reason => Change::Ended(reason),
        };
        self.notice(change, at, out);
    }

    /// Sets when it is forgotten: not before its transaction is gone, since a late 2xx
    /// may come as long.
    pub(super) fn forget(&mut self, at: Now<'_>) {
        let delay = self
            .wanted
            .delete_delay
            .map_or(at.defaults().delete_delay, |own| {
                Duration::from_secs(own.into())
            });
        let delay = if self.invite.is_some() {
            delay.max(GONE_BY)
        } else {
            delay
        };
        self.forgotten = Some(at.now + delay);
    }

    /// Ends it from the middle: BYE to both sides, or CANCEL. Whether there was something
    /// to end.
    pub(super) fn end(
        &mut self,
        reason: EndReason,
        extra: &[(String, String)],
        at: Now<'_>,
        out: &mut Outcome,
    ) -> bool {
        if self.state.is_early() {
            // Its own 487 ends it, or a 2xx that was faster.
            let place = self.invite.map(Order::Cancel);
            let any = place.is_some();
            out.orders.extend(place);
            return any;
        }
        if !self.happened(Happened::Ended) {
            return false;
        }
        self.bye_seen = true;
        for side in [Side::Caller, Side::Callee] {
            let number = self.leg(side.other()).map_or(1, Leg::next_cseq);
            let order = self.own(side, Method::Bye, number, extra, false, at);
            out.orders.extend(order);
        }
        self.over(reason, at, out);
        true
    }

    /// What is due by now.
    pub(super) fn fire(&mut self, at: Now<'_>, out: &mut Outcome) -> bool {
        if self.state == State::Deleted {
            return false;
        }
        if self.ends <= at.now {
            return self.timed_out(at, out);
        }
        if self.race.is_some_and(|race| race <= at.now) {
            self.race = None;
            self.end(EndReason::Race, &[], at, out);
        }
        if self.ping.is_some_and(|ping| ping <= at.now) {
            self.ping = Some(at.now + self.ping_interval(at));
            self.ask(at, out);
        }
        false
    }

    /// Whether it counts as expired.
    fn timed_out(&mut self, at: Now<'_>, out: &mut Outcome) -> bool {
        if self.state.is_early() {
            // The transaction has its own timers; this is only for one that was lost.
            out.orders.extend(self.invite.take().map(Order::Cancel));
            self.happened(Happened::Gone);
            self.failed(408, at, out);
            return false;
        }
        if self.wanted.bye_on_timeout {
            return self.end(EndReason::Lifetime, &[], at, out);
        }
        self.happened(Happened::Ended);
        self.over(EndReason::Lifetime, at, out);
        true
    }

    /// OPTIONS to the sides that are to be asked. Its CSeq number is the last one that
    /// came from the other end: a higher one would make the next real request of that end
    /// look like an old one.
    fn ask(&mut self, at: Now<'_>, out: &mut Outcome) {
        for (side, wanted) in [
            (Side::Caller, self.wanted.ping_caller),
            (Side::Callee, self.wanted.ping_callee),
        ] {
            if !wanted || self.leg(side).is_none_or(|leg| leg.probing) {
                continue;
            }
            let number = self.leg(side.other()).map_or(1, |leg| leg.cseq.max(1));
            let order = self.own(side, Method::Options, number, &[], true, at);
            if let (Some(leg), Some(order)) = (self.leg_mut(side), order) {
                leg.probing = true;
                leg.ping_cseq = number;
                out.orders.push(order);
            }
        }
    }

    /// A request of our own to one side, in the name of the other.
    fn own(
        &self,
        side: Side,
        method: Method,
        cseq: u32,
        extra: &[(String, String)],
        probes: bool,
        at: Now<'_>,
    ) -> Option<Order> {
        let (to, from) = (self.leg(side)?, self.leg(side.other())?);
        let (to_uri, from_uri) = match side {
            Side::Caller => (&self.from_uri, &self.to_uri),
            Side::Callee => (&self.to_uri, &self.from_uri),
        };
        let built = Within {
            method,
            target: &to.contact,
            routes: to.routes.iter().map(|route| route.to_vec()).collect(),
            from: &tagged(from_uri, &from.tag),
            to: &tagged(to_uri, &to.tag),
            call_id: &self.call_id,
            cseq,
            extra,
        }
        .build()?;
        let flow = to.flow.filter(|_| to.by_flow);
        let id = self.id;
        Some(Order::Send(Box::new(OwnRequest {
            built,
            way: flow.map(|flow| (flow.listener, flow.request_hop())),
            listener: to.flow.map_or(ListenerId(0), |flow| flow.listener),
            settings: Arc::clone(at.settings),
            tenant: self.tenant,
            probe: probes.then_some(Probe { id, side }),
        })))
    }
}

/// `<uri>;tag=tag`
fn tagged(uri: &[u8], tag: &[u8]) -> Vec<u8> {
    let mut value = [b"<", uri, b">"].concat();
    if !tag.is_empty() {
        value.extend_from_slice(b";tag=");
        value.extend_from_slice(tag);
    }
    value
}
