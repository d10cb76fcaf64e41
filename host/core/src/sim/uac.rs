//! A caller, written down from RFC 3261 without a look at the stack: its own timers,
//! its ACKs, its CANCEL, its BYE.

use std::time::Duration;

use super::call::{Mood, Plan};
use super::world::{Alarm, Desk, Phone, status_of};
use crate::testing::{all, header};
use crate::time::Time;

const T1: u64 = 500;
const T2: u64 = 4000;

/// A request of the caller's that is sent until it is answered.
struct Pending {
    text: String,
    interval: u64,
    over: bool,
}

/// A dialog that a 2xx made.
struct Dialog {
    /// Which phone.
    number: usize,
    tag: String,
    ack: String,
    route: String,
    contact: String,
}

pub(super) struct Uac {
    me: Phone,
    plan: Plan,
    call_id: String,
    branch: String,
    /// Requests by number: 0 the INVITE (or MESSAGE), 1 the CANCEL, then BYEs.
    pending: Vec<Pending>,
    provisional: bool,
    cancel_due: bool,
    failure: Option<u16>,
    failure_ack: Option<String>,
    dialogs: Vec<Dialog>,
    gone: bool,
    timed_out: bool,
    begun: Time,
    /// When the first final response came.
    pub(super) ended: Option<Time>,
}

impl Uac {
    pub(super) fn new(me: Phone, plan: &Plan, seed: u64) -> Self {
        Self {
            me,
            plan: plan.clone(),
            call_id: format!("c-{}-{seed}", me.call),
            branch: format!("z9hG4bKu{}x{seed}", me.call),
            pending: Vec::new(),
            provisional: false,
            cancel_due: false,
            failure: None,
            failure_ack: None,
            dialogs: Vec::new(),
            gone: false,
            timed_out: false,
            begun: Time::default(),
            ended: None,
        }
    }

    /// The first 2xx, or the failure, or its own time-out.
    pub(super) fn final_status(&self) -> Option<u16> {
        if !self.dialogs.is_empty() {
            return Some(200);
        }
        self.failure.or(self.timed_out.then_some(408))
    }

    /// Whether nobody told it how its request ended.
    pub(super) fn gave_up(&self) -> bool {
        self.timed_out && self.dialogs.is_empty() && self.failure.is_none()
    }

    pub(super) fn talked_to(&self, number: usize) -> bool {
        self.dialogs.iter().any(|dialog| dialog.number == number)
    }

    fn head(
        &self,
        method: &str,
        uri: &str,
        branch: &str,
        to: &str,
        cseq: u32,
        more: &str,
    ) -> String {
        format!(
            "{method} {uri} SIP/2.0\r\nVia: {} {};branch={branch}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:alice@home.example>;tag=a{}\r\nTo: {to}\r\n\
             Call-ID: {}\r\nCSeq: {cseq} {method}\r\n{more}Content-Length: 0\r\n\r\n",
            self.plan.via(self.me),
            self.me.address(),
            self.me.call,
            self.call_id,
        )
    }

    fn begin(&mut self, text: String, desk: &mut Desk) {
        let number = u32::try_from(self.pending.len()).unwrap();
        desk.send(&text);
        if !self.plan.streams[self.me.number] {
            desk.alarm(T1, Alarm::Retransmit(number));
        }
        desk.alarm(64 * T1, Alarm::GiveUp(number));
        self.pending.push(Pending {
            text,
            interval: T1,
            over: false,
        });
    }

    pub(super) fn ring(&mut self, alarm: Alarm, desk: &mut Desk) {
        if self.gone {
            return;
        }
        match alarm {
            Alarm::Begin => {
                self.begun = desk.now;
                let method = if self.plan.invite {
                    "INVITE"
                } else {
                    "MESSAGE"
                };
                let contact = format!("Contact: <sip:alice@{}>\r\n", self.plan.uri_host(self.me));
                let branch = self.branch.clone();
                let to = "<sip:bob@home.example>";
                let text = self.head(method, "sip:bob@home.example", &branch, to, 1, &contact);
                self.begin(text, desk);
                if let Mood::Vanishes { after } = self.plan.mood {
                    desk.alarm(after, Alarm::Vanish);
                }
            }
            Alarm::Retransmit(number) => {
                let invite = self.plan.invite && number == 0;
                let quiet = invite && self.provisional;
                let Some(pending) = self.pending.get_mut(number as usize) else {
                    return;
                };
                if pending.over || quiet {
                    return;
                }
                desk.send(&pending.text);
                pending.interval *= 2;
                if !invite {
                    pending.interval = pending.interval.min(T2);
                }
                desk.alarm(pending.interval, Alarm::Retransmit(number));
            }
            Alarm::GiveUp(number) => {
                let invite = self.plan.invite && number == 0;
                if invite && self.provisional {
                    return;
                }
                if let Some(pending) = self.pending.get_mut(number as usize)
                    && !pending.over
                {
                    pending.over = true;
                    if number == 0 {
                        self.timed_out = true;
                        self.ended.get_or_insert(desk.now);
                    }
                }
            }
            Alarm::Cancel => {
                self.cancel_due = true;
                self.maybe_cancel(desk);
            }
            Alarm::Vanish => self.gone = true,
            Alarm::HangUp => {
                if let Some(tag) = self.dialogs.first().map(|dialog| dialog.tag.clone()) {
                    self.bye(&tag, desk);
                }
            }
            Alarm::Answer => {}
        }
    }

    /// 9.1: not before a provisional, not after a final response.
    fn maybe_cancel(&mut self, desk: &mut Desk) {
        if self.cancel_due && self.provisional && self.ended.is_none() && self.pending.len() == 1 {
            let branch = self.branch.clone();
            let to = "<sip:bob@home.example>";
            let text = self.head("CANCEL", "sip:bob@home.example", &branch, to, 1, "");
            self.begin(text, desk);
        }
    }

    fn bye(&mut self, tag: &str, desk: &mut Desk) {
        let Some(dialog) = self.dialogs.iter().find(|dialog| dialog.tag == tag) else {
            return;
        };
        let branch = format!("{}b{}", self.branch, dialog.number);
        if self
            .pending
            .iter()
            .any(|pending| pending.text.contains(&branch))
        {
            return;
        }
        let to = format!("<sip:bob@home.example>;tag={tag}");
        let route = routed(&dialog.route);
        let text = self.head("BYE", &dialog.contact.clone(), &branch, &to, 2, &route);
        self.begin(text, desk);
    }

    pub(super) fn receive(&mut self, text: &str, desk: &mut Desk) {
        if self.gone {
            return;
        }
        if let Some(status) = status_of(text) {
            self.response(status, text, desk);
        } else if text.starts_with("BYE ") {
            desk.send(&crate::testing::response(text, 200, ""));
        } else {
            desk.problem(format!("call {}: the caller got {text}", self.me.call));
        }
    }

    fn response(&mut self, status: u16, text: &str, desk: &mut Desk) {
        let vias = all(text, "Via");
        if vias.len() != 1
            || !vias[0].contains(&format!("{};branch={}", self.me.address(), self.branch))
        {
            desk.problem(format!(
                "call {}: the caller got a foreign Via: {vias:?}",
                self.me.call
            ));
            return;
        }
        let cseq = header(text, "CSeq").unwrap_or_default();
        if cseq.ends_with("BYE") {
            for pending in &mut self.pending {
                let own = pending.text.starts_with("BYE")
                    && vias[0].contains(&super::world::branch_of(&pending.text));
                pending.over |= own && status >= 200;
            }
        } else if cseq.ends_with("CANCEL") {
            if let Some(cancel) = self.pending.get_mut(1)
                && status >= 200
            {
                cancel.over = true;
            }
        } else if cseq.ends_with("MESSAGE") {
            // RFC 4320 4.1: not before Timer E has grown to T2.
            let early = desk.now.since(self.begun) < Duration::from_millis(7 * T1);
            if status == 100 && early || (101..200).contains(&status) {
                desk.problem(format!("call {}: {status} for a MESSAGE", self.me.call));
            }
            if status >= 200 {
                self.pending[0].over = true;
                self.ended.get_or_insert(desk.now);
                self.failure.get_or_insert(status);
            }
        } else {
            self.invite_response(status, text, desk);
        }
    }

    fn invite_response(&mut self, status: u16, text: &str, desk: &mut Desk) {
        if status < 200 {
            if !self.provisional {
                self.provisional = true;
                if let Mood::Cancels { after } = self.plan.mood {
                    desk.alarm(after, Alarm::Cancel);
                }
            }
            self.maybe_cancel(desk);
            return;
        }
        self.pending[0].over = true;
        let to = header(text, "To").unwrap_or_default();
        let tag = to.split("tag=").nth(1).unwrap_or_default().to_owned();
        if status < 300 {
            self.picked_up(text, &to, tag, desk);
            return;
        }
        if let Some(known) = self.failure
            && known != status
        {
            desk.problem(format!("call {}: {status} after {known}", self.me.call));
        }
        self.failure.get_or_insert(status);
        self.ended.get_or_insert(desk.now);
        let ack = match &self.failure_ack {
            Some(ack) => ack.clone(),
            None => {
                let branch = self.branch.clone();
                self.head("ACK", "sip:bob@home.example", &branch, &to, 1, "")
            }
        };
        desk.send(&ack);
        self.failure_ack = Some(ack);
    }

    fn picked_up(&mut self, text: &str, to: &str, tag: String, desk: &mut Desk) {
        if let Some(dialog) = self.dialogs.iter().find(|dialog| dialog.tag == tag) {
            desk.send(&dialog.ack);
            return;
        }
        let contact = header(text, "Contact").unwrap_or_default();
        let contact = contact.trim_matches(['<', '>']).to_owned();
        let number = contact
            .rsplit('.')
            .next()
            .and_then(|tail| tail.split(':').next())
            .and_then(|number| number.parse::<usize>().ok())
            .map_or(0, |number| number - 1);
        let mut routes = all(text, "Record-Route");
        routes.reverse();
        let route = routes.join(", ");
        let branch = format!("{}a{number}", self.branch);
        let more = routed(&route);
        let ack = self.head("ACK", &contact, &branch, to, 1, &more);
        desk.send(&ack);
        let unwanted = !self.dialogs.is_empty() || self.failure.is_some() || self.pending.len() > 1;
        self.ended.get_or_insert(desk.now);
        self.dialogs.push(Dialog {
            number,
            tag: tag.clone(),
            ack,
            route,
            contact,
        });
        if unwanted {
            self.bye(&tag, desk);
        } else if !self.plan.callee_hangs_up {
            desk.alarm(self.plan.talks, Alarm::HangUp);
        }
    }
}

fn routed(route: &str) -> String {
    if route.is_empty() {
        String::new()
    } else {
        format!("Route: {route}\r\n")
    }
}
