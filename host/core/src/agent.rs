//! The local user agent: the transaction user that answers by itself, as a policy
//! worded it, the sessions that such answers begin, and what it asks by itself inside
//! of dialogs. (Back-to-back calls will be here too.)

pub(crate) mod request;
pub(crate) mod session;

use sipbox_sip::{HeaderId, Message, Method, OwnedMessage};

use crate::context::strip_via;
use crate::decision::ResolvedTarget;
use crate::flow::Flow;
use crate::policy::Reply;
use crate::transaction::{UserTimer, is_success, keep};
use crate::user::{Ended, Io, Stop, TransactionUser};
use crate::wheel::TimerHandle;

/// A user agent server for one request.
pub(crate) struct LocalAgent {
    request: OwnedMessage,
    /// Set after a provisional reply: a final one has to follow in time.
    timer: Option<TimerHandle>,
    answered: bool,
}

impl LocalAgent {
    pub(crate) fn new(request: OwnedMessage) -> Self {
        Self {
            request,
            timer: None,
            answered: false,
        }
    }

    pub(crate) fn request(&self) -> &OwnedMessage {
        &self.request
    }

    /// Sends the reply (8.2.6).
    pub(crate) fn answer(&mut self, reply: &Reply, io: &mut Io<'_, '_, '_>) {
        let sent = io.reply(self.request.as_ref(), reply);
        if reply.status >= 200 {
            self.finished(io);
            if is_success(reply.status) && self.request.as_ref().method() == Method::Invite && sent
            {
                io.begin_session(&self.request);
            }
        } else if self.timer.is_none() {
            let after = io.cx.env.settings.timers.decide;
            self.timer = Some(io.arm(UserTimer::Decide, after));
        }
    }

    fn finished(&mut self, io: &mut Io<'_, '_, '_>) {
        self.answered = true;
        io.disarm(&mut self.timer);
    }
}

impl TransactionUser for LocalAgent {
    fn cancelled(&mut self, why: Stop, io: &mut Io<'_, '_, '_>) {
        if !self.answered {
            self.answer(&Reply::of(why.status()), io);
        }
    }

    /// RFC 6026 8.7: of a branch that was given up before the agent took over. A phone
    /// has been picked up, so its 2xx goes upstream.
    fn response(&mut self, _: u16, response: Message<'_>, _: Flow, io: &mut Io<'_, '_, '_>) {
        let status = response.status().unwrap_or_default();
        if self.request.as_ref().method() != Method::Invite || !is_success(status) {
            return;
        }
        if strip_via(response, &mut io.tx.scratch).is_some() {
            self.finished(io);
            let bytes = keep(&io.tx.scratch.message);
            io.tx.respond(io.server, status, bytes, io.cx);
        }
    }

    fn ended(&mut self, _: u16, _: Ended, _: &mut Io<'_, '_, '_>) {}

    fn fired(&mut self, timer: UserTimer, io: &mut Io<'_, '_, '_>) {
        if timer == UserTimer::Decide && !self.answered {
            self.timer = None;
            let status = crate::error::Internal::Undecided.status();
            self.answer(&Reply::of(status), io);
        }
    }

    fn done(&self) -> bool {
        self.answered
    }

    fn timers(&self) -> [Option<TimerHandle>; 5] {
        [self.timer, None, None, None, None]
    }
}

/// The 302 that lists targets, best q first (RFC 3261 8.3, 21.3.3).
pub(crate) fn redirect(targets: &[ResolvedTarget]) -> Reply {
    let mut order: Vec<&ResolvedTarget> = targets.iter().collect();
    order.sort_by_key(|target| std::cmp::Reverse(target.q));
    let contact = |target: &&ResolvedTarget| {
        let q = target.q.min(1000);
        let value = format!(
            "<{}>;q={}.{:03}",
            String::from_utf8_lossy(&target.uri),
            q / 1000,
            q % 1000
        );
        (HeaderId::Contact.name().to_owned(), value)
    };
    if order.is_empty() {
        let status = crate::error::Internal::NoTarget.status();
        return Reply::of(status);
    }
    Reply {
        status: 302,
        headers: order.iter().map(contact).collect(),
        ..Reply::default()
    }
}
