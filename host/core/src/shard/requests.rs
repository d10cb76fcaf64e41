//! Requests that arrive: retransmissions, new ones, ACK, CANCEL.

use std::sync::Arc;

use sipbox_sip::{Message, Method, Via};

use super::{Matched, Shard, Work};
use crate::account::Room;
use crate::cx::{Cx, Mutation};
use crate::dialog::Tie;
use crate::error::Internal;
use crate::flow::Flow;
use crate::ids::AskId;
use crate::intake::Intake;
use crate::outbox::{self, Ask, Dropped};
use crate::policy::Reply;
use crate::reply;
use crate::table::Key;
use crate::transaction::key::TransactionKey;
use crate::transaction::machine::Event;
use crate::transaction::server::{NewServer, tag_hash};
use crate::transaction::{Due, Timer, UserTimer};
use crate::user::{Deciding, Io, Stop, User};

impl Shard {
    /// A request that may be a retransmission.
    pub(crate) fn retransmission(&mut self, key: &TransactionKey, cx: &mut Cx<'_, '_>) -> Matched {
        let Some(server) = self.tx.find(key) else {
            return Matched::No;
        };
        self.in_step = Some(Work::Server(server));
        self.tx.server_event(server, Event::Request, cx);
        // What comes again while nobody has answered hears a 100, if it may.
        self.with_user(server, cx, |user, io| user.trying(io));
        if let Some(server) = self.tx.servers.get(server) {
            cx.out.event(outbox::Event::Absorbed {
                method: server.method,
            });
        }
        self.in_step = None;
        Matched::Absorbed
    }

    /// A new request: its server transaction begins, and its chain is asked.
    pub(crate) fn begin(
        &mut self,
        key: TransactionKey,
        via: &Via<'_>,
        method: Method,
        intake: Intake,
        flow: Flow,
        cx: &mut Cx<'_, '_>,
    ) -> Result<(), Internal> {
        let Intake {
            tenant,
            request,
            facts,
            breadth,
            loop_hash,
            call,
        } = intake;
        let room = if facts.continues(cx.env.settings.record_route.sign) {
            Room::Begun
        } else {
            Room::New
        };
        let bytes = request.as_ref().bytes().len();
        let ticket = cx.env.settings.admit(tenant, bytes, room)?;
        let new = NewServer {
            key,
            method,
            tenant,
            flow,
            reply_to: reply::hop(via, flow),
            tag: cx.ids.to_tag(key.base),
            rfc2543: !via.has_cookie(),
            user: None,
            ticket,
        };
        let server = self.tx.new_server(new, cx).ok_or(Internal::Full)?;
        self.in_step = Some(Work::Server(server));
        let timer = Timer {
            key: server,
            due: Due::User(UserTimer::Decide),
        };
        let at = cx.now() + cx.env.settings.timers.decide;
        let timer = self.tx.wheel.arm(at, timer);
        if let Some(server) = self.tx.servers.get_mut(server) {
            let facts = Arc::clone(&facts);
            let deciding = Deciding::new(request.clone(), facts, breadth, loop_hash, timer);
            server.user = Some(User::Deciding(Box::new(deciding)));
            if let Some(call) = call {
                call.commit();
                server.tie = Some(Box::new(Tie::Counts(Some(call))));
            }
        }
        if cx.env.settings.trying_at_once {
            self.trying(server, cx);
        }
        cx.out.event(outbox::Event::Request { tenant, method });
        let id = AskId {
            place: self.tx.place(server),
            serial: 0,
        };
        cx.out.asks.push(Ask::Request {
            id,
            tenant,
            request,
            facts,
        });
        self.in_step = None;
        Ok(())
    }

    /// 17.2.1: a 100 for a request whose chain has to wait.
    pub(crate) fn trying(&mut self, server: Key, cx: &mut Cx<'_, '_>) {
        self.with_user(server, cx, |user, io| user.trying(io));
    }

    /// 17.2.1, RFC 6026 7.1: an ACK for a final response of ours ends here, one for
    /// a 2xx goes on.
    pub(crate) fn ack(
        &mut self,
        key: &TransactionKey,
        message: Message<'_>,
        cx: &mut Cx<'_, '_>,
    ) -> Matched {
        let Some(found) = self.tx.find(key) else {
            return Matched::No;
        };
        let Some(server) = self.tx.servers.get(found) else {
            return Matched::No;
        };
        if server
            .ack_tag
            .is_some_and(|tag| tag != tag_hash(message, cx))
        {
            return Matched::No;
        }
        self.in_step = Some(Work::Server(found));
        let pass = self.tx.server_event(found, Event::Ack, cx);
        self.in_step = None;
        if pass {
            return Matched::No;
        }
        cx.out.dropped(Dropped::AbsorbedAck);
        Matched::Absorbed
    }

    /// 9.2 and 16.10: a CANCEL has a transaction of its own, and stops the INVITE
    /// with its branch. Any other request goes on as it was.
    pub(crate) fn cancel(
        &mut self,
        key: TransactionKey,
        message: Message<'_>,
        via: &Via<'_>,
        flow: Flow,
        cx: &mut Cx<'_, '_>,
    ) -> Matched {
        if let Matched::Absorbed = self.retransmission(&key, cx) {
            return Matched::Absorbed;
        }
        let Some(found) = self.tx.find_cancelled(&key) else {
            return Matched::No;
        };
        let Some(cancelled) = self.tx.servers.get(found) else {
            return Matched::No;
        };
        let (tenant, tag) = (cancelled.tenant, cancelled.tag);
        let reply_to = reply::hop_like(cancelled.reply_to, cancelled.flow, via, flow);
        // 9.2: it has no effect on other requests.
        let invite = (cancelled.method == Method::Invite).then_some(found);
        let ticket = cx.env.settings.count(tenant);
        let new = NewServer {
            key,
            method: Method::Cancel,
            tenant,
            flow,
            reply_to,
            // 9.2: the tag that the response to the cancelled request has.
            tag,
            rfc2543: false,
            user: None,
            ticket,
        };
        if let Some(server) = self.tx.new_server(new, cx) {
            self.in_step = Some(Work::Server(server));
            let ok = Reply::of(200);
            Io {
                tx: &mut self.tx,
                cx,
                server,
            }
            .reply(message, &ok);
        }
        if let Some(invite) = invite.filter(|_| !cx.mutant(Mutation::LoseCancel)) {
            self.stop(invite, Stop::Cancel, cx);
        }
        self.in_step = None;
        Matched::Absorbed
    }

    /// Stops a request that has no final response.
    pub(crate) fn stop(&mut self, server: Key, why: Stop, cx: &mut Cx<'_, '_>) {
        if let Some(tie) = self.tx.servers.get_mut(server).and_then(|s| s.tie.as_mut()) {
            tie.cancelled();
        }
        if self
            .tx
            .servers
            .get(server)
            .is_some_and(|server| !server.answered())
        {
            self.with_user(server, cx, |user, io| user.as_dyn().cancelled(why, io));
        }
    }

    /// Ends everything that has no final response yet.
    pub(crate) fn shutdown(&mut self, cx: &mut Cx<'_, '_>) {
        let open: Vec<Key> = self
            .tx
            .servers
            .iter()
            .filter(|(_, server)| !server.answered())
            .map(|(key, _)| key)
            .collect();
        for key in open {
            self.stop(key, Stop::Shutdown, cx);
        }
    }
}
