//! Sessions that a 2xx of the local user agent began (RFC 3261 13.3.1.4): the 2xx is
//! sent again until its ACK comes, and where none comes a BYE ends the session.
//!
//! The server transaction ends on its own meanwhile (RFC 6026). The ACK has a branch of
//! its own, so a session lives in the shard of its dialog, not in that of the INVITE.
//! A 2xx that a policy wanted to be stateless has no session: who wants nothing to be
//! left behind has nobody to send it again (8.2.7).

use std::collections::HashMap;
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::FixedState;
use sipbox_sip::{HeaderId, Index, Message, Method, NameAddr, OwnedMessage, lex};
use siphasher::sip128::{Hasher128, SipHasher13};

use super::request::{Built, OwnRequest, Within};
use crate::account::{Room, Ticket};
use crate::cx::{Cx, Mutation};
use crate::flow::{Flow, NextHop, TenantId};
use crate::ids::Ids;
use crate::intake;
use crate::outbox;
use crate::settings::Settings;
use crate::table::{Key, Table};
use crate::transaction::{Due, Timer, Transactions};
use crate::wheel::TimerHandle;

/// What a 2xx and its ACK have in common (13.2.2.4): Call-ID, tags and CSeq number,
/// as a keyed hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DialogKey(u128);

impl DialogKey {
    pub(crate) fn of(message: Message<'_>, ids: &Ids) -> Self {
        let mut hasher = SipHasher13::new_with_key(ids.key());
        hasher.write_u8(b'd');
        for part in [
            message.call_id().unwrap_or_default(),
            intake::tag(message, HeaderId::From).unwrap_or_default(),
            intake::tag(message, HeaderId::To).unwrap_or_default(),
        ] {
            hasher.write_usize(part.len());
            hasher.write(part);
        }
        hasher.write_u32(message.cseq().map(|cseq| cseq.number).unwrap_or_default());
        Self(hasher.finish128().as_u128())
    }

    /// The shard of the session.
    pub(crate) fn shard(self, shards: usize) -> usize {
        let spread = u64::try_from(self.0 >> 64).unwrap_or(0);
        usize::try_from(spread % shards.max(1) as u64).unwrap_or(0)
    }
}

/// A 2xx that has just been sent.
pub(crate) struct Answered {
    pub(crate) dialog: DialogKey,
    pub(crate) invite: OwnedMessage,
    pub(crate) response: Bytes,
    /// Where the response went.
    pub(crate) hop: NextHop,
    /// How the INVITE came.
    pub(crate) arrived: Flow,
    pub(crate) settings: Arc<Settings>,
    pub(crate) tenant: TenantId,
}

/// The timers of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionTimer {
    Retransmit,
    End,
}

enum Stage {
    /// No ACK yet.
    Open {
        invite: OwnedMessage,
        response: Bytes,
    },
    /// What comes again is absorbed.
    Acknowledged,
}

struct Session {
    dialog: DialogKey,
    hop: NextHop,
    arrived: Flow,
    settings: Arc<Settings>,
    stage: Stage,
    interval: Duration,
    retransmit: Option<TimerHandle>,
    end: Option<TimerHandle>,
    tenant: TenantId,
    _ticket: Ticket,
}

/// The sessions of a shard.
pub(crate) struct Sessions {
    table: Table<Session>,
    /// The keys are keyed hashes already.
    matching: HashMap<DialogKey, Key, FixedState>,
}

impl Sessions {
    pub(crate) fn new() -> Self {
        Self {
            table: Table::new(),
            matching: HashMap::with_hasher(FixedState::default()),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Those whose ACK has not come.
    pub(crate) fn open(&self) -> usize {
        let acknowledged = |session: &Session| matches!(session.stage, Stage::Acknowledged);
        let sessions = self.table.iter();
        sessions
            .filter(|(_, session)| !acknowledged(session))
            .count()
    }
}

impl Transactions {
    pub(crate) fn begin_session(&mut self, answered: Answered, cx: &mut Cx<'_, '_>) {
        // Where there are too many, the 2xx has been sent once, and nobody waits for its ACK.
        let bytes = answered.invite.as_ref().bytes().len() + answered.response.len();
        let settings = &answered.settings;
        let Ok(ticket) = settings.admit(answered.tenant, bytes, Room::Begun) else {
            return;
        };
        let timers = settings.timers;
        let session = Session {
            dialog: answered.dialog,
            hop: answered.hop,
            arrived: answered.arrived,
            settings: answered.settings,
            stage: Stage::Open {
                invite: answered.invite,
                response: answered.response,
            },
            interval: timers.t1,
            retransmit: None,
            end: None,
            tenant: answered.tenant,
            _ticket: ticket,
        };
        let Some(key) = self.sessions.table.insert(session) else {
            return;
        };
        self.sessions.matching.insert(answered.dialog, key);
        cx.session_began();
        self.arm_session(key, SessionTimer::Retransmit, timers.t1, cx);
        self.arm_session(key, SessionTimer::End, timers.t1_64(), cx);
    }

    /// Whether this is the ACK of a session, which has seen it then.
    pub(crate) fn acknowledge_session(&mut self, dialog: DialogKey, cx: &mut Cx<'_, '_>) -> bool {
        if cx.mutant(Mutation::IgnoreOwnAck) {
            return false;
        }
        let Some(key) = self.sessions.matching.get(&dialog).copied() else {
            return false;
        };
        let Some(session) = self.sessions.table.get_mut(key) else {
            return false;
        };
        if matches!(session.stage, Stage::Open { .. }) {
            session.stage = Stage::Acknowledged;
        }
        if let Some(timer) = session.retransmit.take() {
            self.wheel.cancel(timer);
        }
        true
    }

    pub(crate) fn session_fired(&mut self, key: Key, timer: SessionTimer, cx: &mut Cx<'_, '_>) {
        let Some(session) = self.sessions.table.get_mut(key) else {
            return;
        };
        match timer {
            SessionTimer::Retransmit => {
                session.retransmit = None;
                let Stage::Open { response, .. } = &session.stage else {
                    return;
                };
                if cx.mutant(Mutation::AnswerOnce) {
                    return;
                }
                cx.out.send(session.hop, response, None);
                cx.out.event(outbox::Event::Retransmitted {
                    method: Method::Invite,
                });
                session.interval = (session.interval * 2).min(session.settings.timers.t2);
                let after = session.interval;
                self.arm_session(key, SessionTimer::Retransmit, after, cx);
            }
            SessionTimer::End => {
                session.end = None;
                self.give_up_session(key, cx);
            }
        }
    }

    /// 64 T1 are over. Without an ACK the dialog stands all the same, and the session
    /// in it is ended by a BYE.
    fn give_up_session(&mut self, key: Key, cx: &mut Cx<'_, '_>) {
        let Some(session) = self.sessions.table.get(key) else {
            return;
        };
        let Stage::Open { invite, response } = &session.stage else {
            self.end_session(key, cx);
            return;
        };
        cx.out.event(outbox::Event::TimedOut {
            method: Method::Invite,
        });
        let bye = (!cx.mutant(Mutation::NoBye)).then(|| bye(invite.as_ref(), response));
        if let Some(built) = bye.flatten() {
            let way = flows_back(invite.as_ref(), session.arrived)
                .then_some((session.arrived.listener, session.hop));
            let own = OwnRequest {
                built,
                way,
                listener: session.arrived.listener,
                settings: Arc::clone(&session.settings),
                tenant: session.tenant,
                // Whatever is answered, the session is over (15.1.1).
                probe: None,
            };
            self.end_session(key, cx);
            self.send_own(own, cx);
            return;
        }
        self.end_session(key, cx);
    }

    pub(crate) fn end_session(&mut self, key: Key, cx: &mut Cx<'_, '_>) {
        let Some(session) = self.sessions.table.remove(key) else {
            return;
        };
        cx.session_ended();
        if self.sessions.matching.get(&session.dialog) == Some(&key) {
            self.sessions.matching.remove(&session.dialog);
        }
        for timer in [session.retransmit, session.end].into_iter().flatten() {
            self.wheel.cancel(timer);
        }
    }

    fn arm_session(&mut self, key: Key, timer: SessionTimer, after: Duration, cx: &mut Cx<'_, '_>) {
        let due = Due::Session(timer);
        let handle = self.wheel.arm(cx.now() + after, Timer { key, due });
        let Some(session) = self.sessions.table.get_mut(key) else {
            self.wheel.cancel(handle);
            return;
        };
        let old = match timer {
            SessionTimer::Retransmit => session.retransmit.replace(handle),
            SessionTimer::End => session.end.replace(handle),
        };
        if let Some(old) = old {
            self.wheel.cancel(old);
        }
    }
}

/// Whether the caller itself is at the other end of the flow, and may be reached no other
/// way: by its connection (RFC 5626 section 4.3), or through the NAT that its Via does
/// not know of (RFC 3581 section 4).
pub(crate) fn flows_back(invite: Message<'_>, arrived: Flow) -> bool {
    let mut vias = invite.values(HeaderId::Via);
    let direct = vias.next().is_some()
        && vias.next().is_none()
        && invite.field(HeaderId::RecordRoute).is_none();
    let translated = || {
        let via = invite.via_top_lenient();
        via.map_or(true, |via| crate::reply::is_translated(&via, arrived))
    };
    direct && (arrived.transport.reliable() || translated())
}

/// 15.1.1 and 12.2.1.1, for the dialog that `response` made of `invite`: to the
/// remote target, which is the Contact of the INVITE, along its recorded routes in
/// their order (12.1.1).
///
/// `None` where that is not possible: the INVITE has no Contact to send it to, or came
/// inside a dialog. That dialog is of others, and a BYE in it would need their
/// sequence numbers.
fn bye(invite: Message<'_>, response: &[u8]) -> Option<Built> {
    if intake::tag(invite, HeaderId::To).is_some() {
        return None;
    }
    let mut index = Index::new();
    let response = Message::parse(response, &mut index).ok()?;
    let contact = invite.values(HeaderId::Contact).next()?;
    let target = NameAddr::parse(contact.as_bytes()).ok()?.uri_raw();
    let routes = invite
        .values(HeaderId::RecordRoute)
        .map(|value| lex::unfold(value.as_bytes()).into_owned())
        .collect();
    let from = lex::unfold(response.header(HeaderId::To)?);
    let to = lex::unfold(response.header(HeaderId::From)?);
    Within {
        method: Method::Bye,
        target,
        routes,
        from: &from,
        to: &to,
        call_id: response.call_id().ok()?,
        cseq: 1,
        extra: &[],
    }
    .build()
}
