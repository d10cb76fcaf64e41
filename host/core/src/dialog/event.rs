//! What transactions tell their dialogs, and what comes of it.

use std::sync::Arc;

use bytes::Bytes;
use sipbox_sip::{HeaderId, Message, Method, OwnedMessage};
use smallvec::SmallVec;

use super::id::DialogId;
use super::options::Wanted;
use crate::flow::{Flow, TenantId};
use crate::ids::Place;
use crate::intake;
use crate::lease::Lease;
use crate::policy::Facts;
use crate::transaction::{Wording, is_success, keep};

/// The end of a dialog that something comes from or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Who sent the INVITE.
    Caller,
    /// Who answers it.
    Callee,
}

impl Side {
    /// The one that hears what this one says.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Caller => Self::Callee,
            Self::Callee => Self::Caller,
        }
    }
}

/// The dialog that a request belongs to, and who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The dialog.
    pub id: DialogId,
    /// Who sent the request.
    pub from: Side,
}

/// A dialog that a policy wants, as it begins with the verdict.
#[derive(Debug)]
pub struct NewDialog {
    /// Its name, which stands in our Record-Route.
    pub id: DialogId,
    /// What is wanted of it.
    pub wanted: Wanted,
    /// Variables.
    pub vars: Vec<(String, String)>,
    /// The names of the flags that are set.
    pub flags: Vec<String>,
    /// Its memberships of profiles.
    pub profiles: Vec<Lease>,
    /// Whether its tenant's policies are told what becomes of it.
    pub watched: bool,
    /// What is known of the INVITE beside its bytes.
    pub facts: Arc<Facts>,
}

/// What a transaction remembers of the dialog that it began.
#[derive(Clone, Debug)]
pub struct DialogTie {
    /// The dialog.
    pub id: DialogId,
    /// What it is to begin with, until the verdict is carried out.
    pub new: Option<Arc<NewDialog>>,
}

impl PartialEq for DialogTie {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for DialogTie {}

/// How the responses of each callee came, by To tag.
pub(crate) type Heards = SmallVec<[(Bytes, Flow); 1]>;

/// What happened to a dialog, in the words of its transactions.
#[derive(Debug)]
pub(crate) enum Event {
    /// A response to the INVITE went upstream, or a failure of our own.
    Response {
        id: DialogId,
        status: u16,
        response: Wording,
        heard: Heards,
        /// The caller had sent a CANCEL before.
        cancelled: bool,
    },
    /// The transaction of the INVITE is gone.
    Gone { id: DialogId },
    /// A request within the dialog goes on.
    Request {
        known: Known,
        request: OwnedMessage,
        flow: Flow,
    },
    /// A BYE within the dialog was answered, or will not be.
    Bye {
        known: Known,
        cseq: u32,
        status: u16,
    },
    /// It was accepted, and says where its sender is from now on.
    Refreshed {
        known: Known,
        contact: Option<Bytes>,
        response: Wording,
    },
    /// The transaction of the INVITE holds these leases now.
    Leases { id: DialogId, leases: Vec<Lease> },
    /// What we asked a side was answered, or was not.
    Probed {
        id: DialogId,
        side: Side,
        heard: Heard,
    },
}

/// What became of a question to a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A final response of this status.
    Answer(u16),
    /// Nothing in time.
    Silence,
    /// It could not be sent: the side may be there all the same.
    Unsent,
}

impl Event {
    pub(super) fn id(&self) -> DialogId {
        match self {
            Self::Response { id, .. }
            | Self::Gone { id }
            | Self::Leases { id, .. }
            | Self::Probed { id, .. } => *id,
            Self::Request { known, .. }
            | Self::Bye { known, .. }
            | Self::Refreshed { known, .. } => known.id,
        }
    }
}

/// What a server transaction has to do with a dialog.
#[derive(Debug)]
pub(crate) enum Tie {
    /// It counts as a call of its tenant, until that is given to a dialog or is over.
    Counts(Option<Lease>),
    /// It is the INVITE's.
    Begins {
        id: DialogId,
        cancelled: bool,
        heard: Heards,
        /// Its place among the calls of the tenant, which the dialog has as well.
        call: Option<Lease>,
    },
    /// It is one of its later requests.
    Within {
        known: Known,
        /// The Contact of a target refresh request (RFC 3261 12.2).
        contact: Option<Bytes>,
        /// The CSeq number of a BYE.
        hangs_up: Option<u32>,
    },
}

/// The most callees of a fork whose flows are remembered.
const MAX_HEARD: usize = 16;

impl Tie {
    /// The tie of a request that is relayed.
    pub(crate) fn of(
        tie: Option<&DialogTie>,
        facts: &Facts,
        request: Message<'_>,
    ) -> Option<Box<Self>> {
        if let Some(tie) = tie {
            let (id, heard) = (tie.id, SmallVec::new());
            return Some(Box::new(Self::Begins {
                id,
                cancelled: false,
                heard,
                call: None,
            }));
        }
        let known = facts.dialog?;
        let refreshes = matches!(request.method(), Method::Invite | Method::Update);
        let contact = refreshes.then(|| contact_of(request)).flatten();
        Some(Box::new(Self::Within {
            known,
            contact,
            hangs_up: hangs_up(request),
        }))
    }

    /// A response came to a branch.
    pub(crate) fn hear(&mut self, response: Message<'_>, from: Flow) {
        let Self::Begins { heard, .. } = self else {
            return;
        };
        let tag = intake::tag(response, HeaderId::To).unwrap_or_default();
        if let Some((_, flow)) = heard.iter_mut().find(|(known, _)| known == tag) {
            *flow = from;
        } else if heard.len() < MAX_HEARD {
            heard.push((keep(tag), from));
        }
    }

    pub(crate) fn cancelled(&mut self) {
        if let Self::Begins { cancelled, .. } = self {
            *cancelled = true;
        }
    }

    /// What a response tells that goes upstream.
    pub(crate) fn response(&self, status: u16, response: &Wording) -> Option<Event> {
        match self {
            Self::Begins {
                id,
                cancelled,
                heard,
                ..
            } => {
                if status == 100 {
                    return None;
                }
                Some(Event::Response {
                    id: *id,
                    status,
                    response: response.clone(),
                    heard: heard.clone(),
                    cancelled: *cancelled,
                })
            }
            Self::Within {
                known,
                hangs_up: Some(cseq),
                ..
            } if status >= 200 => Some(Event::Bye {
                known: *known,
                cseq: *cseq,
                status,
            }),
            Self::Within { known, contact, .. } if is_success(status) && contact.is_some() => {
                Some(Event::Refreshed {
                    known: *known,
                    contact: contact.clone(),
                    response: response.clone(),
                })
            }
            Self::Within { .. } | Self::Counts(_) => None,
        }
    }

    /// The place among the calls of the tenant.
    pub(crate) fn call(&self) -> Option<&Lease> {
        match self {
            Self::Counts(call) | Self::Begins { call, .. } => call.as_ref(),
            Self::Within { .. } => None,
        }
    }

    pub(crate) fn take_call(&mut self) -> Option<Lease> {
        match self {
            Self::Counts(call) | Self::Begins { call, .. } => call.take(),
            Self::Within { .. } => None,
        }
    }

    /// What the end of the transaction tells.
    pub(crate) fn gone(&self) -> Option<Event> {
        match self {
            Self::Begins { id, .. } => Some(Event::Gone { id: *id }),
            Self::Within { .. } | Self::Counts(_) => None,
        }
    }

    /// What it tells that no final response will go upstream.
    pub(crate) fn unanswered(&self) -> Option<Event> {
        match self {
            Self::Within {
                known,
                hangs_up: Some(cseq),
                ..
            } => Some(Event::Bye {
                known: *known,
                cseq: *cseq,
                status: 408,
            }),
            _ => None,
        }
    }
}

/// The CSeq number of a BYE; `None`: it is none.
pub(crate) fn hangs_up(request: Message<'_>) -> Option<u32> {
    let number = || request.cseq().map(|cseq| cseq.number).unwrap_or_default();
    (request.method() == Method::Bye).then(number)
}

/// The URI of the first Contact.
pub(super) fn contact_of(message: Message<'_>) -> Option<Bytes> {
    let value = message.values(HeaderId::Contact).next()?;
    let contact = sipbox_sip::NameAddr::parse(value.as_bytes()).ok()?;
    Some(keep(contact.uri_raw()))
}

/// What has to be done for a dialog, once its shard is let go of.
#[derive(Debug)]
pub(crate) enum Order {
    /// A request of our own.
    Send(Box<crate::agent::request::OwnRequest>),
    /// The INVITE is given up.
    Cancel(Place),
}

/// Why a dialog ended, as OpenSIPS words it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The callee hung up.
    UpstreamBye,
    /// The caller hung up.
    DownstreamBye,
    /// Its time was over.
    Lifetime,
    /// A command or a policy ended it.
    Command,
    /// A side did not answer.
    Ping,
    /// A CANCEL crossed the 2xx.
    Race,
    /// The INVITE failed with this status.
    Failed(u16),
}

impl EndReason {
    /// The text.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::UpstreamBye => "Upstream BYE",
            Self::DownstreamBye => "Downstream BYE",
            Self::Lifetime => "Lifetime Timeout",
            Self::Command => "MI Termination",
            Self::Ping => "Ping Timeout",
            Self::Race => "SIP Race Condition",
            Self::Failed(_) => "Failed",
        }
    }
}

/// What became of a dialog: what `on-dialog` is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It began.
    Created,
    /// It was answered.
    Confirmed,
    /// It was over.
    Ended(EndReason),
    /// It was never answered.
    Failed(u16),
    /// Its time was over.
    TimedOut,
}

/// A change of a dialog that policies are to be told of.
#[derive(Clone, Debug)]
pub struct Notice {
    /// Whose.
    pub tenant: TenantId,
    /// What happened.
    pub change: Change,
    /// The dialog after it.
    pub dialog: Box<super::View>,
}
