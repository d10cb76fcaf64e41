//! Server and client transactions of one shard: the machines' states, what they
//! keep to send again, their timers. What is *said* comes from the transaction user
//! ([`crate::user`]); here it is carried by RFC 3261 section 17.

mod cancel;
pub(crate) mod client;
pub(crate) mod key;
pub(crate) mod machine;
pub(crate) mod server;
mod wording;

use bytes::Bytes;
use foldhash::fast::FixedState;
use sipbox_sip::{EditList, Method};
use std::collections::HashMap;

use crate::agent::request::OwnRequests;
use crate::agent::session::{SessionTimer, Sessions};
use crate::ids::Place;
use crate::stateless::Waiting;
use crate::table::{Key, Table};
use crate::wheel::Wheel;

use client::Client;
use key::TransactionKey;
use machine::Letter;
use server::Server;

pub(crate) use wording::Wording;

/// What a timer of the shard is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Server(Letter),
    /// RFC 4320 4.1: a 100 for a request that is no INVITE.
    Trying,
    Client(Letter),
    /// RFC 3261 16.8.
    TimerC,
    /// 9.1: a CANCEL that no final response followed.
    CancelWait,
    /// The CANCEL's own machine.
    Cancel(Letter),
    User(UserTimer),
    Session(SessionTimer),
    /// A request of our own whose name nobody has resolved.
    Own,
    /// A stateless forward that waits for a name or a connection.
    Waiting,
}

/// The timers of transaction users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UserTimer {
    /// A question has not been answered.
    Decide,
    /// A name has not been resolved.
    LookUp,
    /// A group of targets has rung long enough.
    Ring,
    /// All groups together have.
    Total,
    /// A branch has said nothing for long enough.
    Silence,
}

/// One armed timer: whose, and what about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timer {
    pub(crate) key: Key,
    pub(crate) due: Due,
}

/// Memory that one step after the other uses.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) edits: EditList,
    pub(crate) text: Vec<u8>,
    pub(crate) message: Vec<u8>,
}

/// The transactions of a shard.
pub(crate) struct Transactions {
    pub(crate) shard: u8,
    pub(crate) wheel: Wheel<Timer>,
    pub(crate) servers: Table<Server>,
    pub(crate) clients: Table<Client>,
    pub(crate) waiting: Table<Waiting>,
    pub(crate) sessions: Sessions,
    pub(crate) own: OwnRequests,
    /// The keys are keyed hashes already.
    matching: HashMap<TransactionKey, Key, FixedState>,
    pub(crate) scratch: Scratch,
}

impl Transactions {
    pub(crate) fn new(shard: u8) -> Self {
        Self {
            shard,
            wheel: Wheel::new(),
            servers: Table::new(),
            clients: Table::new(),
            waiting: Table::new(),
            sessions: Sessions::new(),
            own: OwnRequests::new(),
            matching: HashMap::with_hasher(FixedState::default()),
            scratch: Scratch::default(),
        }
    }

    pub(crate) fn find(&self, key: &TransactionKey) -> Option<Key> {
        self.matching.get(key).copied()
    }

    /// 9.2: the transaction that a CANCEL means, by all but the method, which it does
    /// not tell.
    pub(crate) fn find_cancelled(&self, cancel: &TransactionKey) -> Option<Key> {
        let methods = Method::ALL.iter().copied();
        methods
            .filter(|method| !matches!(method, Method::Ack | Method::Cancel))
            // Transactions of extension methods stand under this name too.
            .chain([Method::Other])
            .find_map(|method| self.find(&cancel.with_method(method)))
    }

    /// How many of all these somebody still waits for.
    pub(crate) fn open(&self) -> usize {
        let servers = self.servers.iter().filter(|(_, server)| server.open());
        let clients = self.clients.iter().filter(|(_, client)| client.pending());
        let names = self.waiting.iter().filter(|(_, waiting)| waiting.open());
        servers.count() + clients.count() + names.count() + self.sessions.open() + self.own.len()
    }

    pub(crate) fn place(&self, key: Key) -> Place {
        Place {
            shard: self.shard,
            slot: key.slot,
            generation: key.generation,
        }
    }
}

/// Exact bytes of what scratch memory holds.
pub(crate) fn keep(text: &[u8]) -> Bytes {
    Bytes::copy_from_slice(text)
}

pub(crate) fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}
