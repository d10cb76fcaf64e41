//! Transaction users (RFC 3261 section 5): who decides what a server transaction
//! says. The proxy's response context is one, the local user agent another, and a
//! request whose policies still think has a third that only knows how to stop.

use std::sync::Arc;
use std::time::Duration;

use sipbox_sip::{Index, Message, OwnedMessage};

use crate::agent::LocalAgent;
use crate::agent::session::{Answered, DialogKey};
use crate::context::ResponseContext;
use crate::cx::Cx;
use crate::flow::Flow;
use crate::ids::AskId;
use crate::intake::LoopHash;
use crate::policy::{Facts, Reply};
use crate::reply;
use crate::table::Key;
use crate::transaction::server::Server;
use crate::transaction::{Due, Timer, Transactions, UserTimer, keep};
use crate::wheel::{TimerHandle, Wheel};

/// Why a branch ended without a final response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    TimedOut,
    Unsent,
}

/// What a transaction user must know how to do. All of it happens under the shard's
/// lock, so none of it waits.
pub(crate) trait TransactionUser {
    /// The caller cancelled (9.2), or the element shuts down.
    fn cancelled(&mut self, why: Stop, io: &mut Io<'_, '_, '_>);
    /// A response came to one of its branches.
    fn response(&mut self, branch: u16, response: Message<'_>, flow: Flow, io: &mut Io<'_, '_, '_>);
    /// One of its branches ended without one.
    fn ended(&mut self, branch: u16, why: Ended, io: &mut Io<'_, '_, '_>);
    /// One of its timers fired.
    fn fired(&mut self, timer: UserTimer, io: &mut Io<'_, '_, '_>);
    /// Whether it can be forgotten: nothing more will come that it has to see.
    fn done(&self) -> bool;
    /// Its armed timers, to be cancelled with it.
    fn timers(&self) -> [Option<TimerHandle>; 5];
}

/// Why a transaction has to stop before it ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// CANCEL: 487.
    Cancel,
    /// Shutdown: 503.
    Shutdown,
}

impl Stop {
    pub(crate) const fn status(self) -> u16 {
        match self {
            Self::Cancel => 487,
            Self::Shutdown => 503,
        }
    }
}

/// The users that a server transaction can have.
pub(crate) enum User {
    Deciding(Box<Deciding>),
    Proxy(Box<ResponseContext>),
    Agent(Box<LocalAgent>),
}

impl User {
    pub(crate) fn as_dyn(&mut self) -> &mut dyn TransactionUser {
        match self {
            Self::Deciding(user) => &mut **user,
            Self::Proxy(user) => &mut **user,
            Self::Agent(user) => &mut **user,
        }
    }

    /// The bytes that it keeps.
    pub(crate) fn holds(&self) -> usize {
        let more = match self {
            Self::Deciding(_) | Self::Agent(_) => 0,
            Self::Proxy(user) => user.holds(),
        };
        more + self.request().as_ref().bytes().len()
    }

    pub(crate) fn cancel_timers(&self, wheel: &mut Wheel<Timer>) {
        let timers = match self {
            Self::Deciding(user) => user.timers(),
            Self::Proxy(user) => user.timers(),
            Self::Agent(user) => user.timers(),
        };
        for timer in timers.into_iter().flatten() {
            wheel.cancel(timer);
        }
    }

    /// Says 100 on behalf of the user, if the request may hear it.
    pub(crate) fn trying(&self, io: &mut Io<'_, '_, '_>) {
        if !matches!(self, Self::Agent(_)) {
            io.trying(self.request().as_ref());
        }
    }

    /// The request, for an answer to it.
    pub(crate) fn request(&self) -> &OwnedMessage {
        match self {
            Self::Deciding(user) => &user.request,
            Self::Proxy(user) => user.request(),
            Self::Agent(user) => user.request(),
        }
    }

    pub(crate) fn done(&self) -> bool {
        match self {
            Self::Deciding(user) => user.done(),
            Self::Proxy(user) => user.done(),
            Self::Agent(user) => user.done(),
        }
    }
}

/// What a transaction user may do: to its own server transaction, and with clients.
pub(crate) struct Io<'t, 'c, 'e> {
    pub(crate) tx: &'t mut Transactions,
    pub(crate) cx: &'t mut Cx<'c, 'e>,
    pub(crate) server: Key,
}

impl Io<'_, '_, '_> {
    /// Sends a response of our own; whether it is as it was worded. Its bytes stay in
    /// the scratch memory for a while.
    pub(crate) fn reply(&mut self, request: Message<'_>, reply: &Reply) -> bool {
        let Some(server) = self.tx.servers.get(self.server) else {
            return false;
        };
        let wanted = reply::Wanted::new(server.flow, server.tag, &server.settings);
        let scratch = &mut self.tx.scratch;
        scratch.message.clear();
        if reply::write(
            request,
            reply,
            &wanted,
            &mut scratch.text,
            &mut scratch.message,
        )
        .is_err()
        {
            // A policy's reply passed the validators, so this is our own mistake: the
            // caller gets the shortest answer that cannot fail.
            self.cx.out.dropped(crate::outbox::Dropped::Unbuildable);
            let plain = Reply::of(500);
            scratch.message.clear();
            if reply::write(
                request,
                &plain,
                &wanted,
                &mut scratch.text,
                &mut scratch.message,
            )
            .is_err()
            {
                // Nothing can be said, and a transaction that waits for an answer
                // which never comes would stay for ever.
                self.tx.end_server(self.server, self.cx);
                return false;
            }
            let bytes = keep(&scratch.message);
            self.tx.respond(self.server, 500, bytes, self.cx);
            return false;
        }
        let bytes = keep(&scratch.message);
        self.tx.respond(self.server, reply.status, bytes, self.cx);
        true
    }

    /// 13.3.1.4: a 2xx of our own was sent, and its ACK has to come. The session is
    /// another shard's, so it is told when this step is over.
    pub(crate) fn begin_session(&mut self, invite: &OwnedMessage) {
        let response = keep(&self.tx.scratch.message);
        let Some(server) = self.tx.servers.get(self.server) else {
            return;
        };
        let mut index = Index::new();
        let Ok(message) = Message::parse(&response, &mut index) else {
            return;
        };
        let dialog = DialogKey::of(message, self.cx.ids);
        self.cx.out.answered.push(Answered {
            dialog,
            invite: invite.clone(),
            hop: server.reply_to,
            arrived: server.flow,
            settings: Arc::clone(&server.settings),
            tenant: server.tenant,
            response,
        });
    }

    /// A reply that is nothing but its status.
    pub(crate) fn reply_status(&mut self, request: Message<'_>, status: u16) {
        self.reply(request, &Reply::of(status));
    }

    /// 17.2.1: an INVITE that will take a while gets a 100, once; other requests
    /// not before RFC 4320 4.1 lets them.
    pub(crate) fn trying(&mut self, request: Message<'_>) {
        let now = self.cx.now();
        let may = |server: &Server| {
            server.last.is_none() && !server.answered() && server.may_hear_100(now)
        };
        if self.tx.servers.get(self.server).is_some_and(may) {
            self.reply_status(request, 100);
        }
    }

    pub(crate) fn arm(&mut self, timer: UserTimer, after: Duration) -> TimerHandle {
        let timer = Timer {
            key: self.server,
            due: Due::User(timer),
        };
        self.tx.wheel.arm(self.cx.env.now + after, timer)
    }

    pub(crate) fn disarm(&mut self, handle: &mut Option<TimerHandle>) {
        if let Some(handle) = handle.take() {
            self.tx.wheel.cancel(handle);
        }
    }

    pub(crate) fn ask_id(&self, serial: u32) -> AskId {
        AskId {
            place: self.tx.place(self.server),
            serial,
        }
    }
}

/// A request whose policies have not decided yet.
pub(crate) struct Deciding {
    pub(crate) request: OwnedMessage,
    pub(crate) facts: Arc<Facts>,
    pub(crate) breadth: u8,
    pub(crate) loop_hash: LoopHash,
    pub(crate) timer: Option<TimerHandle>,
    /// It has been answered without a verdict, which comes too late then.
    pub(crate) over: bool,
    /// The verdict counts and is about to be given.
    pub(crate) settled: bool,
    /// What came after that.
    pub(crate) stopped: Option<Stop>,
}

impl Deciding {
    pub(crate) fn new(
        request: OwnedMessage,
        facts: Arc<Facts>,
        breadth: u8,
        loop_hash: LoopHash,
        timer: TimerHandle,
    ) -> Self {
        Self {
            request,
            facts,
            breadth,
            loop_hash,
            timer: Some(timer),
            over: false,
            settled: false,
            stopped: None,
        }
    }

    /// The verdict counts from now on, unless something else was first. It has as much
    /// time again, to store what it wrote.
    pub(crate) fn settle(&mut self, io: &mut Io<'_, '_, '_>) -> bool {
        if self.over || self.settled {
            return false;
        }
        self.settled = true;
        io.disarm(&mut self.timer);
        let after = io.cx.env.settings.timers.decide;
        self.timer = Some(io.arm(UserTimer::Decide, after));
        true
    }
}

impl TransactionUser for Deciding {
    fn cancelled(&mut self, why: Stop, io: &mut Io<'_, '_, '_>) {
        if io.cx.mutant(crate::cx::Mutation::VerdictAfterCancel) {
            return;
        }
        if self.settled {
            self.stopped.get_or_insert(why);
            return;
        }
        self.over = true;
        io.disarm(&mut self.timer);
        io.reply_status(self.request.as_ref(), why.status());
    }

    fn response(&mut self, _: u16, _: Message<'_>, _: Flow, _: &mut Io<'_, '_, '_>) {}

    fn ended(&mut self, _: u16, _: Ended, _: &mut Io<'_, '_, '_>) {}

    fn fired(&mut self, timer: UserTimer, io: &mut Io<'_, '_, '_>) {
        if timer == UserTimer::Decide {
            io.disarm(&mut self.timer);
            self.over = true;
            io.reply_status(
                self.request.as_ref(),
                crate::error::Internal::Undecided.status(),
            );
        }
    }

    fn done(&self) -> bool {
        self.over
    }

    fn timers(&self) -> [Option<TimerHandle>; 5] {
        [self.timer, None, None, None, None]
    }
}
