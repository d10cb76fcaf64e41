//! What comes out of a step: messages to send, policies to ask, names to
//! resolve, and what happened. A worker owns one and reuses it.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use sipbox_sip::{Method, OwnedMessage, Transport};
use smallvec::SmallVec;

use crate::agent::request::Probe;
use crate::agent::session::Answered;
use crate::decision::{ArmedSet, ResolvedTarget};
use crate::dialog::{self, DialogId, Tie};
use crate::flow::{NextHop, TenantId};
use crate::ids::{AskId, ResolveToken, SendToken, StatelessId};
use crate::policy::{CallState, Facts, Failure};
use crate::stack::Pong;
use crate::transaction::{Scratch, Wording};

/// One message to send.
#[derive(Clone, Debug)]
pub struct Transmit {
    /// Where to.
    pub next_hop: NextHop,
    /// Where its bytes stand in [`Outbox::arena`]. What a transaction keeps is copied:
    /// a second owner would cost an allocation, which is more than a message's bytes.
    pub bytes: Range<usize>,
    /// To be given to `Stack::transport_error` if it cannot be sent.
    pub token: Option<SendToken>,
}

/// A decision that is due.
#[derive(Clone, Debug)]
pub enum Ask {
    /// `on-request`; answered by `Stack::request_verdict`.
    Request {
        /// The name of the question.
        id: AskId,
        /// Whose chain.
        tenant: TenantId,
        /// The request, Route processed.
        request: OwnedMessage,
        /// What is not in its bytes.
        facts: Arc<Facts>,
    },
    /// `on-request` for an ACK to a 2xx, for a CANCEL that matches no transaction, or
    /// for a request that is declared stateless; there is no transaction. Answered by
    /// `Stack::forward_stateless`.
    Stateless {
        /// To be given back.
        id: StatelessId,
        /// Whose chain.
        tenant: TenantId,
        /// The request, Route processed.
        request: OwnedMessage,
        /// What is not in its bytes.
        facts: Arc<Facts>,
    },
    /// `on-branch`; answered by `Stack::branch_verdict`.
    Branch {
        /// The name of the question.
        id: AskId,
        /// Whose chain.
        tenant: TenantId,
        /// The request as the branch will carry it.
        request: OwnedMessage,
        /// What is not in its bytes.
        facts: Arc<Facts>,
        /// The branch's target.
        target: Box<ResolvedTarget>,
        /// The transaction's memory.
        state: CallState,
        /// Hooks asked for.
        armed: ArmedSet,
    },
    /// `on-reply`; answered by `Stack::reply_verdict`.
    Reply {
        /// The name of the question.
        id: AskId,
        /// Whose chain.
        tenant: TenantId,
        /// The response, our Via removed.
        response: OwnedMessage,
        /// The request, as the chain edited it.
        request: OwnedMessage,
        /// What is not in the request's bytes.
        facts: Arc<Facts>,
        /// The transaction's memory.
        state: CallState,
        /// Hooks asked for.
        armed: ArmedSet,
    },
    /// `on-failure`; answered by `Stack::failure_verdict`.
    Failure {
        /// The name of the question.
        id: AskId,
        /// Whose chain.
        tenant: TenantId,
        /// The request, as the chain edited it.
        request: OwnedMessage,
        /// The best response, if a message of a branch stands for it.
        response: Option<OwnedMessage>,
        /// What is not in the request's bytes.
        facts: Arc<Facts>,
        /// What happened.
        failure: Box<Failure>,
        /// The transaction's memory.
        state: CallState,
        /// Hooks asked for.
        armed: ArmedSet,
    },
}

impl Ask {
    /// The name of the question; `None`: no transaction waits for the answer.
    #[must_use]
    pub fn id(&self) -> Option<AskId> {
        match self {
            Self::Request { id, .. }
            | Self::Branch { id, .. }
            | Self::Reply { id, .. }
            | Self::Failure { id, .. } => Some(*id),
            Self::Stateless { .. } => None,
        }
    }
}

/// A name to resolve (RFC 3263).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolve {
    /// To be given back.
    pub token: ResolveToken,
    /// The host's name.
    pub host: Bytes,
    /// The port, if one is written: then there is no SRV look-up.
    pub port: Option<u16>,
    /// The transport, if one is written.
    pub transport: Option<Transport>,
    /// A `sips` URI.
    pub secure: bool,
}

/// A place that a name resolved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHopCandidate {
    /// How.
    pub transport: Transport,
    /// Where.
    pub address: SocketAddr,
}

/// Candidates in the order in which they are tried.
pub type Candidates = SmallVec<[NextHopCandidate; 4]>;

/// Why a name did not resolve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The name does not exist, or has no address.
    #[error("no such name")]
    NoSuchName,
    /// No answer in time.
    #[error("no answer")]
    TimedOut,
    /// The answer was a failure.
    #[error("look-up failed")]
    Failed,
}

/// Why a message led to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dropped {
    /// No SIP message at all.
    Garbage,
    /// A request that cannot be answered: no readable Via, or an ACK with a fault.
    Unanswerable,
    /// A response whose top Via is not ours.
    ForeignVia,
    /// A response whose transaction is gone, or was never ours.
    Stray,
    /// An ACK that belongs to a final response of ours.
    AbsorbedAck,
    /// An ACK that no route leads on.
    LostAck,
    /// A verdict to drop.
    Verdict,
    /// A response that only had our Via.
    NoUpstream,
    /// A late answer to a question whose transaction has gone on.
    LateVerdict,
    /// A message that could not be built.
    Unbuildable,
}

/// What happened, for log and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A request that began a server transaction.
    Request {
        /// Whose.
        tenant: TenantId,
        /// Its method.
        method: Method,
    },
    /// A request that is handled without a transaction.
    Stateless {
        /// Whose.
        tenant: TenantId,
        /// Its method.
        method: Method,
    },
    /// A request was refused, since there are too many transactions.
    Full {
        /// Whose.
        tenant: TenantId,
        /// The tenant has too many itself.
        its_own: bool,
    },
    /// A final response went upstream.
    Final {
        /// Whose.
        tenant: TenantId,
        /// The method of the request.
        method: Method,
        /// The status.
        status: u16,
    },
    /// A request was answered before a tenant was asked.
    Refused {
        /// The status.
        status: u16,
    },
    /// A retransmission was absorbed.
    Absorbed {
        /// The method of the request.
        method: Method,
    },
    /// We retransmitted.
    Retransmitted {
        /// The method of the request.
        method: Method,
    },
    /// A transaction timed out.
    TimedOut {
        /// The method of the request.
        method: Method,
    },
    /// A message led to nothing.
    Dropped(Dropped),
    /// A transaction was ended because a step of it panicked.
    Broken,
}

/// The outputs of one or more steps. Reused: [`Outbox::clear`] keeps the memory.
#[derive(Default)]
pub struct Outbox {
    /// The bytes of the messages to send.
    pub arena: Vec<u8>,
    /// To be sent, in order.
    pub transmits: Vec<Transmit>,
    /// To be asked.
    pub asks: Vec<Ask>,
    /// To be resolved.
    pub resolves: Vec<Resolve>,
    /// What happened.
    pub events: Vec<Event>,
    /// Answers to pings, for the location service.
    pub pongs: Vec<Pong>,
    /// Dialogs of which policies are to be told something: what it is, and when it is the
    /// turn of whom, [`dialog::DialogService::next_notice`] knows.
    pub news: Vec<DialogId>,
    /// What happened to dialogs, for their shards.
    pub(crate) dialog_events: Vec<dialog::Event>,
    /// 2xx responses of our own, for the shards of their dialogs.
    pub(crate) answered: Vec<Answered>,
    /// Memory for steps outside of any shard.
    pub(crate) scratch: Scratch,
}

impl Outbox {
    /// Empties it, keeps its memory.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.transmits.clear();
        self.asks.clear();
        self.resolves.clear();
        self.events.clear();
        self.pongs.clear();
        self.news.clear();
        self.dialog_events.clear();
        self.answered.clear();
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.transmits.is_empty()
            && self.asks.is_empty()
            && self.resolves.is_empty()
            && self.news.is_empty()
            && self.events.is_empty()
            && self.pongs.is_empty()
    }

    /// The bytes of a transmit.
    #[must_use]
    pub fn bytes(&self, transmit: &Transmit) -> &[u8] {
        self.arena.get(transmit.bytes.clone()).unwrap_or_default()
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    pub(crate) fn dropped(&mut self, why: Dropped) {
        self.events.push(Event::Dropped(why));
    }

    /// A response goes upstream, which its dialog is to know.
    pub(crate) fn tell(&mut self, tie: Option<&Tie>, status: u16, response: &Wording) {
        let event = tie.and_then(|tie| tie.response(status, response));
        self.dialog_events.extend(event);
    }

    /// What we asked inside a dialog was answered, or was not.
    pub(crate) fn probed(&mut self, probe: Probe, heard: dialog::Heard) {
        let Probe { id, side } = probe;
        let event = dialog::Event::Probed { id, side, heard };
        self.dialog_events.push(event);
    }

    /// Sends a message.
    pub(crate) fn send(&mut self, next_hop: NextHop, bytes: &[u8], token: Option<SendToken>) {
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        self.send_from(next_hop, start, token);
    }

    /// Sends what `start..` of the arena holds.
    pub(crate) fn send_from(&mut self, next_hop: NextHop, start: usize, token: Option<SendToken>) {
        self.transmits.push(Transmit {
            next_hop,
            bytes: start..self.arena.len(),
            token,
        });
    }
}
