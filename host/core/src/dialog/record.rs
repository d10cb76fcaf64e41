//! One dialog, and what it makes of what happens to it. Under its shard's lock; what is
//! to be done comes out as [`Order`]s and [`Notice`]s.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sipbox_sip::{Message, Method, OwnedMessage};
use smallvec::SmallVec;

use super::event::{Change, EndReason, Event, Heards, NewDialog, Notice, Order, Side};
use super::id::DialogId;
use super::leg::Leg;
use super::options::{Defaults, Wanted};
use super::state::{Happened, State, next};
use super::validate::Validity;
use crate::flow::{Flow, TenantId};
use crate::ids::Place;
use crate::lease::Lease;
use crate::settings::Settings;
use crate::time::{Time, WallTime};
use crate::transaction::{Wording, is_success, keep};

/// The most callees of one INVITE that are remembered.
const MAX_CALLEES: usize = 32;
/// What has not been answered has the timers of its transaction; this is only for one
/// that was lost.
const RINGS: Duration = Duration::from_secs(12 * 3600);

/// What a step makes known to the outside.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) orders: Vec<Order>,
    /// What is to be told, within the step.
    pub(super) notices: Vec<Notice>,
    /// The dialogs of which it is, behind it: [`super::DialogService::next_notice`] tells.
    pub(crate) news: Vec<DialogId>,
}

/// What a step of a dialog may know.
#[derive(Clone, Copy)]
pub(crate) struct Now<'a> {
    pub(crate) now: Time,
    pub(crate) wall: WallTime,
    pub(crate) settings: &'a Arc<Settings>,
}

impl Now<'_> {
    pub(super) fn defaults(&self) -> &Defaults {
        &self.settings.dialogs
    }
}

/// A BYE that has not been answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bye {
    pub(super) from: Side,
    pub(super) cseq: u32,
    /// It went to the other side, as far as its Request-URI, Route and CSeq tell.
    pub(super) fits: bool,
}

/// The most of them that are told apart.
const MAX_BYES: usize = 8;

/// A dialog.
#[derive(Debug)]
pub(super) struct Dialog {
    pub(super) id: DialogId,
    pub(super) tenant: TenantId,
    pub(super) tenant_name: Arc<str>,
    pub(super) call_id: Bytes,
    pub(super) from_uri: Bytes,
    pub(super) to_uri: Bytes,
    pub(super) caller: Leg,
    pub(super) callees: SmallVec<[Leg; 1]>,
    /// The callee whose 2xx was the first.
    pub(super) answered: Option<usize>,
    pub(super) state: State,
    pub(super) bye_seen: bool,
    /// Those that have not been answered.
    pub(super) byes: SmallVec<[Bye; 1]>,
    pub(super) reason: Option<EndReason>,
    /// When it began, and was answered from then on.
    pub(super) start: WallTime,
    pub(super) wanted: Wanted,
    pub(super) vars: Vec<(String, String)>,
    pub(super) flags: Vec<String>,
    pub(super) profiles: Vec<Lease>,
    pub(super) leases: Vec<Lease>,
    pub(super) watched: bool,
    /// The transaction of the INVITE, while it lives.
    pub(super) invite: Option<Place>,
    /// When its time is over.
    pub(super) ends: Time,
    /// When it is forgotten.
    pub(super) forgotten: Option<Time>,
    pub(super) race: Option<Time>,
    pub(super) ping: Option<Time>,
    /// When its shard looks at it next, which is not later than it has something to do.
    pub(super) looked_at: Option<Time>,
    /// A change that the table does not have.
    pub(super) dirty: bool,
    /// It is among those that are to be written.
    pub(super) queued: bool,
    /// The table has a row of it.
    pub(super) stored: bool,
}

impl Dialog {
    pub(super) fn new(new: &NewDialog, invite: &OwnedMessage, place: Place, at: Now<'_>) -> Self {
        let (message, parts) = (invite.as_ref(), invite.parts());
        let mut dialog = Self {
            id: new.id,
            tenant: new.facts.tenant,
            tenant_name: Arc::clone(&new.facts.tenant_name),
            call_id: keep(message.call_id().unwrap_or_default()),
            from_uri: keep(message.get(parts.from.uri)),
            to_uri: keep(message.get(parts.to.uri)),
            caller: Leg::caller(invite, new.facts.flow),
            callees: SmallVec::new(),
            answered: None,
            state: State::Unconfirmed,
            bye_seen: false,
            byes: SmallVec::new(),
            reason: None,
            start: at.wall,
            wanted: new.wanted,
            vars: new.vars.clone(),
            flags: new.flags.clone(),
            profiles: new.profiles.clone(),
            leases: Vec::new(),
            watched: new.watched,
            invite: Some(place),
            ends: at.now,
            forgotten: None,
            race: None,
            ping: None,
            looked_at: None,
            dirty: false,
            queued: false,
            stored: false,
        };
        dialog.ends = at.now + RINGS;
        for seat in &dialog.profiles {
            seat.commit();
        }
        dialog
    }

    /// One that a restart has brought back.
    pub(super) fn restored(mut self, at: Now<'_>) -> Self {
        self.ping = self.pings().then(|| at.now + self.ping_interval(at));
        self
    }

    /// The parts of a dialog that a row does not tell.
    pub(super) fn empty(id: DialogId, tenant: TenantId, tenant_name: Arc<str>) -> Self {
        Self {
            id,
            tenant,
            tenant_name,
            call_id: Bytes::new(),
            from_uri: Bytes::new(),
            to_uri: Bytes::new(),
            caller: Leg::default(),
            callees: SmallVec::new(),
            answered: None,
            state: State::Confirmed,
            bye_seen: false,
            byes: SmallVec::new(),
            reason: None,
            start: WallTime::default(),
            wanted: Wanted::default(),
            vars: Vec::new(),
            flags: Vec::new(),
            profiles: Vec::new(),
            leases: Vec::new(),
            watched: false,
            invite: None,
            ends: Time::default(),
            forgotten: None,
            race: None,
            ping: None,
            looked_at: None,
            dirty: false,
            queued: false,
            stored: true,
        }
    }

    pub(super) fn lifetime(&self, at: Now<'_>) -> Duration {
        let own = self.wanted.timeout;
        own.map_or(at.defaults().timeout, |own| Duration::from_secs(own.into()))
    }

    pub(super) fn ping_interval(&self, at: Now<'_>) -> Duration {
        let own = self.wanted.ping_interval.filter(|own| *own > 0);
        own.map_or(at.defaults().ping_interval, |own| {
            Duration::from_secs(own.into())
        })
    }

    pub(super) const fn pings(&self) -> bool {
        self.wanted.ping_caller || self.wanted.ping_callee
    }

    /// The callee that the dialog is with.
    pub(super) fn callee(&self) -> Option<&Leg> {
        self.callees.get(self.answered.unwrap_or(0))
    }

    pub(super) fn leg_mut(&mut self, side: Side) -> Option<&mut Leg> {
        match side {
            Side::Caller => Some(&mut self.caller),
            Side::Callee => {
                let at = self.answered.unwrap_or(0);
                self.callees.get_mut(at)
            }
        }
    }

    pub(super) fn leg(&self, side: Side) -> Option<&Leg> {
        match side {
            Side::Caller => Some(&self.caller),
            Side::Callee => self.callee(),
        }
    }

    /// Who sent a request with these tags, if it belongs here.
    pub(super) fn sender(&self, from_tag: &[u8], to_tag: &[u8]) -> Option<Side> {
        let callee = |tag: &[u8]| self.callees.iter().any(|leg| leg.tag == tag);
        if self.caller.tag == from_tag && callee(to_tag) {
            return Some(Side::Caller);
        }
        (self.caller.tag == to_tag && callee(from_tag)).then_some(Side::Callee)
    }

    /// When it has something to do by itself.
    pub(super) fn due(&self) -> Option<Time> {
        if self.state == State::Deleted {
            return self.forgotten;
        }
        [Some(self.ends), self.race, self.ping]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether nobody needs it any more.
    pub(super) fn is_forgotten(&self, now: Time) -> bool {
        self.state == State::Deleted && self.forgotten.is_some_and(|at| at <= now)
    }

    pub(super) fn set_timeout(&mut self, seconds: u32, at: Now<'_>) {
        self.wanted.timeout = Some(seconds);
        if !self.state.is_early() {
            self.ends = at.now + self.lifetime(at);
        }
        self.dirty = true;
    }

    pub(super) fn notice(&self, change: Change, at: Now<'_>, out: &mut Outcome) {
        if self.watched {
            out.notices.push(Notice {
                tenant: self.tenant,
                change,
                dialog: Box::new(self.view(at.now)),
            });
        }
    }

    pub(super) fn created(&self, at: Now<'_>, out: &mut Outcome) {
        self.notice(Change::Created, at, out);
    }

    /// Something happened; the new state if it is another one.
    pub(super) fn apply(&mut self, event: Event, at: Now<'_>, out: &mut Outcome) {
        match event {
            Event::Response {
                status,
                response,
                heard,
                cancelled,
                ..
            } => self.response(status, &response, &heard, cancelled, at, out),
            Event::Gone { .. } => {
                self.invite = None;
                if self.happened(Happened::Gone) {
                    self.failed(408, at, out);
                } else if self.state == State::Deleted {
                    self.forget(at);
                }
            }
            Event::Request {
                known,
                request,
                flow,
            } => self.request(known.from, &request, flow),
            Event::Bye {
                known,
                cseq,
                status,
            } => self.bye(known.from, cseq, status, at, out),
            Event::Refreshed {
                known,
                contact,
                response,
            } => {
                let answer = response.message();
                let answer = answer.and_then(|answer| super::event::contact_of(answer.as_ref()));
                for (side, contact) in [(known.from, contact), (known.from.other(), answer)] {
                    if let Some(leg) = self.leg_mut(side) {
                        leg.moved(contact);
                    }
                }
                self.dirty = true;
            }
            Event::Leases { leases, .. } => {
                // Those of one that is over may be taken again by a late 2xx.
                if self.state != State::Deleted {
                    for lease in leases {
                        if !self.leases.contains(&lease) {
                            self.leases.push(lease);
                        }
                    }
                    self.leases.retain(|lease| !lease.is_ended());
                    self.dirty = true;
                }
            }
            Event::Probed { side, heard, .. } => self.probed(side, heard, at, out),
        }
    }

    /// One step of the states; whether it is another one.
    pub(super) fn happened(&mut self, happened: Happened) -> bool {
        match next(self.state, happened, self.bye_seen) {
            Some(state) => {
                self.state = state;
                self.dirty = true;
                true
            }
            None => false,
        }
    }

    fn response(
        &mut self,
        status: u16,
        response: &Wording,
        heard: &Heards,
        cancelled: bool,
        at: Now<'_>,
        out: &mut Outcome,
    ) {
        if status >= 300 {
            if self.happened(Happened::Failure) {
                self.failed(status, at, out);
            }
            return;
        }
        let Some(message) = response.message() else {
            return;
        };
        let leg = self.hear(message.as_ref(), heard, at);
        if !is_success(status) {
            self.happened(Happened::Provisional);
            return;
        }
        let revived = self.state == State::Deleted;
        if !self.happened(Happened::Success) {
            return;
        }
        self.answered = leg;
        self.start = at.wall;
        self.ends = at.now + self.lifetime(at);
        self.forgotten = None;
        self.reason = None;
        if revived {
            for lease in self.leases.iter().chain(&self.profiles) {
                lease.revive();
            }
        }
        if cancelled && self.wanted.end_on_race_condition {
            self.race = Some(at.now + at.defaults().race_condition_timeout);
        }
        if self.pings() {
            self.ping = Some(at.now + self.ping_interval(at));
        }
        self.notice(Change::Confirmed, at, out);
    }

    /// Remembers what a callee says of itself; which one it is.
    fn hear(&mut self, response: Message<'_>, heard: &Heards, at: Now<'_>) -> Option<usize> {
        let leg = Leg::callee(response, self.id, heard, at.settings);
        // A callee of RFC 2543 has no tag, and is one all the same.
        let known = self.callees.iter().position(|known| known.tag == leg.tag);
        match known {
            Some(known) if self.answered.is_none() => {
                if let Some(old) = self.callees.get_mut(known) {
                    old.learn(leg);
                }
                Some(known)
            }
            Some(known) => Some(known),
            None => {
                // Whoever answers is more than one of many who ring.
                if self.callees.len() >= MAX_CALLEES && self.answered.is_none() {
                    self.callees.pop();
                }
                if self.callees.len() < MAX_CALLEES {
                    self.callees.push(leg);
                    return Some(self.callees.len() - 1);
                }
                None
            }
        }
    }

    fn request(&mut self, from: Side, request: &OwnedMessage, flow: Flow) {
        let message = request.as_ref();
        let method = message.method();
        if method == Method::Ack {
            self.happened(Happened::Ack);
            return;
        }
        let parts = request.parts();
        let tag = message.get(match from {
            Side::Caller => parts.to.tag,
            Side::Callee => parts.from.tag,
        });
        let fits = self.validate(from, message) == Validity::Valid;
        let number = message.cseq().map(|cseq| cseq.number).unwrap_or_default();
        let leg = match from {
            Side::Caller => Some(&mut self.caller),
            Side::Callee => self.callees.iter_mut().find(|leg| leg.tag == tag),
        };
        if let Some(leg) = leg {
            leg.cseq = leg.cseq.max(number);
            // Whoever has a new connection is reached by that one.
            if leg.by_flow || leg.flow.is_none() {
                leg.flow = Some(flow);
            }
            self.dirty = true;
        }
        if method != Method::Bye {
            return;
        }
        let answered = self.answered.and_then(|at| self.callees.get(at));
        if answered.is_none_or(|leg| leg.tag != tag) {
            // It ends another leg of a fork, or comes before any answer.
            return;
        }
        self.bye_seen = true;
        let same = |bye: &Bye| bye.from == from && bye.cseq == number;
        if let Some(bye) = self.byes.iter_mut().find(|bye| same(bye)) {
            bye.fits &= fits;
        } else if self.byes.len() < MAX_BYES {
            // Of too many each counts as one that does not fit.
            self.byes.push(Bye {
                from,
                cseq: number,
                fits,
            });
        }
    }
}
