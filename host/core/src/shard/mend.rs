//! What happens when a step has panicked: the transaction that it worked on is ended,
//! and the shard goes on.

use sipbox_sip::OwnedMessage;

use super::{Shard, Work};
use crate::cx::Cx;
use crate::error::Internal;
use crate::outbox;
use crate::table::Key;
use crate::user::{Io, User};

impl Shard {
    /// Ends what a step was working on when it panicked. Its caller is told, if it still
    /// waits, and its branches are cancelled. If that panics as well, what is left is
    /// freed without a word.
    pub(crate) fn recover(&mut self, cx: &mut Cx<'_, '_>) {
        let again = std::mem::take(&mut self.mending);
        let request = self.in_hand.take();
        let Some(work) = self.in_step.take() else {
            return;
        };
        let key = match work {
            Work::Server(key) => key,
            Work::Session(key) => {
                self.tx.end_session(key, cx);
                return;
            }
            Work::Own(key) => {
                self.tx.own.remove(key);
                return;
            }
            Work::Waiting(key) => {
                self.tx.waiting.remove(key);
                return;
            }
        };
        if again {
            self.free(key, cx);
            return;
        }
        cx.out.event(outbox::Event::Broken);
        match self.unanswered(key, request) {
            Some(request) => {
                self.in_step = Some(work);
                self.mending = true;
                self.fail(key, &request, cx);
                self.mending = false;
                self.in_step = None;
            }
            None => self.free(key, cx),
        }
    }

    /// The request of a transaction whose caller waits for an answer. Its user is gone
    /// from here on, wherever the panic has left it.
    fn unanswered(&mut self, key: Key, in_hand: Option<OwnedMessage>) -> Option<OwnedMessage> {
        let server = self.tx.servers.get_mut(key)?;
        let user = server.user.take();
        if let Some(user) = &user {
            user.cancel_timers(&mut self.tx.wheel);
        }
        if server.answered() {
            return None;
        }
        in_hand.or_else(|| user.as_ref().map(User::request).cloned())
    }

    fn fail(&mut self, key: Key, request: &OwnedMessage, cx: &mut Cx<'_, '_>) {
        for client in self.clients_of(key) {
            self.tx.cancel_client(client, cx);
        }
        let mut io = Io {
            tx: &mut self.tx,
            cx,
            server: key,
        };
        io.reply_status(request.as_ref(), Internal::Broken.status());
    }

    fn free(&mut self, key: Key, cx: &mut Cx<'_, '_>) {
        for client in self.clients_of(key) {
            self.tx.end_client(client);
        }
        self.tx.end_server(key, cx);
    }

    fn clients_of(&self, key: Key) -> Vec<Key> {
        let clients = self.tx.clients.iter();
        clients
            .filter(|(_, client)| client.server == key)
            .map(|(client, _)| client)
            .collect()
    }
}

#[allow(clippy::panic, reason = "a deliberate fault of the tests")]
pub(super) fn broken() {
    panic!("deliberate fault");
}
