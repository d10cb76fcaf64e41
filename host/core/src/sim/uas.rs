//! A phone that is called, written down from RFC 3261 without a look at the stack.

use super::call::{Plan, Temper};
use super::world::{Alarm, Desk, Phone, branch_of, status_of};
use crate::testing::{all, header, response};
use crate::time::Time;

const T1: u64 = 500;
const T2: u64 = 4000;

pub(super) struct Uas {
    me: Phone,
    pub(super) temper: Temper,
    plan: Plan,
    request: Option<String>,
    branch: String,
    sent: Option<String>,
    interval: u64,
    acknowledged: bool,
    /// Nobody acknowledged a final response in time.
    pub(super) unacknowledged: bool,
    pub(super) final_status: Option<u16>,
    pub(super) was_cancelled: bool,
    /// When it stopped ringing.
    pub(super) silent: Option<Time>,
    pub(super) hung_up: bool,
    bye: Option<(String, u64)>,
}

impl Uas {
    pub(super) fn new(me: Phone, temper: Temper, plan: &Plan) -> Self {
        Self {
            me,
            temper,
            plan: plan.clone(),
            request: None,
            branch: String::new(),
            sent: None,
            interval: T1,
            acknowledged: false,
            unacknowledged: false,
            final_status: None,
            was_cancelled: false,
            silent: None,
            hung_up: false,
            bye: None,
        }
    }

    pub(super) fn ringing(&self) -> bool {
        self.request.is_some() && self.final_status.is_none()
    }

    fn stream(&self) -> bool {
        self.plan.streams[self.me.number]
    }

    fn answer(&mut self, status: u16, desk: &mut Desk) {
        let Some(request) = &self.request else { return };
        let contact = format!("Contact: <sip:bob@{}>\r\n", self.plan.uri_host(self.me));
        // Each phone has a tag of its own.
        let text = response(request, status, &contact)
            .replace(";tag=b1", &format!(";tag=b{}", self.me.number));
        desk.send(&text);
        self.sent = Some(text);
        if status < 200 {
            return;
        }
        self.final_status = Some(status);
        self.silent = Some(desk.now);
        if self.plan.invite {
            self.interval = T1;
            // 13.3.1.4: a 2xx goes from end to end.
            if status < 300 || !self.stream() {
                desk.alarm(T1, Alarm::Retransmit(0));
            }
            desk.alarm(64 * T1, Alarm::GiveUp(0));
        } else {
            self.acknowledged = true;
        }
    }

    pub(super) fn receive(&mut self, text: &str, desk: &mut Desk) {
        if self.temper == Temper::Dead {
            return;
        }
        if status_of(text).is_some() {
            if header(text, "CSeq").is_some_and(|cseq| cseq.ends_with("BYE")) {
                self.bye = None;
                self.hung_up = true;
            }
            return;
        }
        let method = text.split(' ').next().unwrap_or_default();
        // CANCEL, and ACK for a failure, go from hop to hop.
        let wanted = match (method, self.final_status) {
            // Of the caller, or of a proxy that ends the dialog.
            ("BYE", _) => all(text, "Via").len().clamp(1, 2),
            ("CANCEL", _) => 1,
            ("ACK", Some(300..)) => 1,
            _ => 2,
        };
        if all(text, "Via").len() != wanted {
            desk.problem(format!(
                "call {}: {method} with a wrong number of Via",
                self.me.call
            ));
        }
        match method {
            "INVITE" | "MESSAGE" => self.invited(text, desk),
            "ACK" => self.acknowledged = true,
            "CANCEL" => {
                desk.send(&response(text, 200, ""));
                if branch_of(text) == self.branch && self.final_status.is_none() {
                    self.was_cancelled = true;
                    self.answer(487, desk);
                }
            }
            "BYE" => {
                self.hung_up = true;
                desk.send(&response(text, 200, ""));
            }
            other => desk.problem(format!("call {}: a phone got {other}", self.me.call)),
        }
    }

    fn invited(&mut self, text: &str, desk: &mut Desk) {
        if self.request.is_some() {
            if branch_of(text) != self.branch {
                desk.problem(format!(
                    "call {}: phone {} was called twice",
                    self.me.call, self.me.number
                ));
                return;
            }
            // A copy: the last response again, but a 2xx has its own clock.
            if let Some(sent) = &self.sent
                && !(self.plan.invite && status_of(sent).is_some_and(|s| s / 100 == 2))
                && !(self.plan.invite && self.acknowledged)
            {
                desk.send(sent);
            }
            return;
        }
        self.request = Some(text.to_owned());
        self.branch = branch_of(text);
        let after = match self.temper {
            Temper::Answers { after } | Temper::Refuses { after, .. } => Some(after),
            _ => None,
        };
        if self.plan.invite {
            self.answer(180, desk);
        }
        if let Some(after) = after {
            desk.alarm(after, Alarm::Answer);
        }
    }

    pub(super) fn ring(&mut self, alarm: Alarm, desk: &mut Desk) {
        match alarm {
            Alarm::Answer if self.final_status.is_none() => match self.temper {
                Temper::Answers { .. } => {
                    self.answer(200, desk);
                    if self.plan.invite && self.plan.callee_hangs_up {
                        desk.alarm(self.plan.talks + 40_000, Alarm::HangUp);
                    }
                }
                Temper::Refuses { status, .. } => self.answer(status, desk),
                Temper::RingsForEver | Temper::Dead => {}
            },
            Alarm::Retransmit(0) if !self.acknowledged && !self.unacknowledged => {
                if let Some(sent) = &self.sent {
                    desk.send(sent);
                }
                self.interval = (self.interval * 2).min(T2);
                desk.alarm(self.interval, Alarm::Retransmit(0));
            }
            Alarm::GiveUp(0) if !self.acknowledged => self.unacknowledged = true,
            Alarm::HangUp if !self.hung_up => self.hang_up(desk),
            Alarm::Retransmit(1) => {
                if let Some((text, interval)) = &mut self.bye {
                    desk.send(text);
                    *interval = (*interval * 2).min(T2);
                    desk.alarm(*interval, Alarm::Retransmit(1));
                }
            }
            Alarm::GiveUp(1) => self.bye = None,
            _ => {}
        }
    }

    fn hang_up(&mut self, desk: &mut Desk) {
        let Some(request) = &self.request else { return };
        let contact = header(request, "Contact").unwrap_or_default();
        let from = header(request, "From").unwrap_or_default();
        let call_id = header(request, "Call-ID").unwrap_or_default();
        let route = all(request, "Record-Route").join(", ");
        let text = format!(
            "BYE {} SIP/2.0\r\nVia: {} {};branch=z9hG4bKbye{}\r\nMax-Forwards: 70\r\n\
             From: <sip:bob@home.example>;tag=b{}\r\nTo: {from}\r\nCall-ID: {call_id}\r\n\
             CSeq: 1 BYE\r\nRoute: {route}\r\nContent-Length: 0\r\n\r\n",
            contact.trim_matches(['<', '>']),
            self.plan.via(self.me),
            self.me.address(),
            self.branch,
            self.me.number,
        );
        desk.send(&text);
        if !self.stream() {
            desk.alarm(T1, Alarm::Retransmit(1));
        }
        desk.alarm(64 * T1, Alarm::GiveUp(1));
        self.bye = Some((text, T1));
    }
}
