//! The table of connections: slots with generations, who may be reused for
//! which address, and how many there are. No socket and no task here.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use foldhash::fast::RandomState;
use sipbox_core::flow::{ConnectionId, ListenerId};
use sipbox_sip::Transport;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::StreamLimits;
use crate::error::SendError;

/// A message on its way to a connection's task.
pub(super) struct Outgoing<S> {
    pub(super) bytes: Bytes,
    pub(super) token: Option<S>,
}

/// Where a connection's messages are handed in.
pub(super) struct Outlet<S> {
    sender: mpsc::Sender<Outgoing<S>>,
    /// Bytes that wait, so that many long messages are bounded too.
    waiting: Arc<AtomicUsize>,
}

impl<S> Clone for Outlet<S> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            waiting: Arc::clone(&self.waiting),
        }
    }
}

/// Why an outlet did not take a message.
#[derive(Debug)]
pub(super) enum Refused<S> {
    /// Too much waits already.
    Full,
    /// The connection has just ended; the message comes back.
    Gone(Outgoing<S>),
}

impl<S> std::fmt::Debug for Outgoing<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl<S> Outlet<S> {
    pub(super) fn new(limits: &StreamLimits) -> (Self, mpsc::Receiver<Outgoing<S>>) {
        let (sender, receiver) = mpsc::channel(limits.send_queue.max(1));
        (
            Self {
                sender,
                waiting: Arc::default(),
            },
            receiver,
        )
    }

    /// Hands a message in without blocking.
    pub(super) fn push(
        &self,
        message: Outgoing<S>,
        limits: &StreamLimits,
    ) -> Result<(), Refused<S>> {
        let length = message.bytes.len();
        let before = self.waiting.fetch_add(length, Ordering::Relaxed);
        // One message is taken however long it is, or it could never be sent.
        if before > 0 && before.saturating_add(length) > limits.send_queue_bytes {
            self.written(length);
            return Err(Refused::Full);
        }
        self.sender.try_send(message).map_err(|error| {
            self.written(length);
            match error {
                TrySendError::Full(_) => Refused::Full,
                TrySendError::Closed(message) => Refused::Gone(message),
            }
        })
    }

    /// Takes back what a message added to the bytes that wait.
    pub(super) fn written(&self, length: usize) {
        self.waiting.fetch_sub(length, Ordering::Relaxed);
    }

    /// For the connection's own task, which must not keep itself alive.
    pub(super) fn waiting(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.waiting)
    }

    pub(super) fn downgrade(&self) -> mpsc::WeakSender<Outgoing<S>> {
        self.sender.downgrade()
    }
}

/// Which connection serves a next hop. The listener is part of it, because a
/// listener may decide the tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) listener: ListenerId,
    pub(super) transport: Transport,
    pub(super) peer: SocketAddr,
}

struct Entry<S> {
    outlet: Outlet<S>,
    key: Key,
    accepted: bool,
}

struct Slot<S> {
    generation: u32,
    entry: Option<Entry<S>>,
}

/// All connections.
pub(super) struct Table<S> {
    slots: Vec<Slot<S>>,
    free: Vec<u32>,
    by_key: HashMap<Key, ConnectionId, RandomState>,
    per_source: HashMap<IpAddr, u32, RandomState>,
    closed: bool,
}

impl<S> Table<S> {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::default(),
            per_source: HashMap::default(),
            closed: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn by_id(&self, id: ConnectionId) -> Option<&Outlet<S>> {
        let slot = self.slots.get(usize::try_from(id.slot).ok()?)?;
        let entry = slot
            .entry
            .as_ref()
            .filter(|_| slot.generation == id.generation)?;
        Some(&entry.outlet)
    }

    pub(super) fn by_key(&self, key: &Key) -> Option<&Outlet<S>> {
        self.by_id(*self.by_key.get(key)?)
    }

    /// Enters a connection. One that was accepted counts against its source.
    pub(super) fn insert(
        &mut self,
        key: Key,
        accepted: bool,
        outlet: Outlet<S>,
        limits: &StreamLimits,
    ) -> Result<ConnectionId, SendError> {
        if self.closed {
            return Err(SendError::ShuttingDown);
        }
        if self.len() >= limits.connections {
            return Err(SendError::TooManyConnections);
        }
        if accepted {
            let count = self.per_source.entry(source(key.peer.ip())).or_default();
            if *count >= limits.connections_per_source {
                return Err(SendError::TooManyConnections);
            }
            *count += 1;
        }
        let entry = Some(Entry {
            outlet,
            key,
            accepted,
        });
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                let number = u32::try_from(self.slots.len())
                    .map_err(|_overflow| SendError::TooManyConnections)?;
                self.slots.push(Slot {
                    generation: 0,
                    entry: None,
                });
                number
            }
        };
        let Some(slot) = usize::try_from(number)
            .ok()
            .and_then(|n| self.slots.get_mut(n))
        else {
            return Err(SendError::TooManyConnections);
        };
        slot.generation = slot.generation.wrapping_add(1);
        slot.entry = entry;
        let id = ConnectionId {
            slot: number,
            generation: slot.generation,
        };
        // The newest wins: an older one to the same address is likelier dead.
        self.by_key.insert(key, id);
        Ok(id)
    }

    /// Takes a connection out; nothing happens if it is out already.
    pub(super) fn remove(&mut self, id: ConnectionId) {
        let Some(slot) = usize::try_from(id.slot)
            .ok()
            .and_then(|n| self.slots.get_mut(n))
        else {
            return;
        };
        if slot.generation != id.generation {
            return;
        }
        let Some(entry) = slot.entry.take() else {
            return;
        };
        self.free.push(id.slot);
        if self.by_key.get(&entry.key) == Some(&id) {
            self.by_key.remove(&entry.key);
        }
        if entry.accepted {
            let source = source(entry.key.peer.ip());
            if let Some(count) = self.per_source.get_mut(&source) {
                *count -= 1;
                if *count == 0 {
                    self.per_source.remove(&source);
                }
            }
        }
    }

    /// Takes every connection out and lets no new one in.
    pub(super) fn close(&mut self) {
        self.closed = true;
        let all: Vec<_> = (0..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.entry.is_some())
            .map(|(number, slot)| ConnectionId {
                slot: number,
                generation: slot.generation,
            })
            .collect();
        for id in all {
            self.remove(id);
        }
    }
}

/// What counts as one source: an IPv4 address, or an IPv6 /64, which one host
/// can use as a whole.
fn source(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => {
            let network = u128::from(v6) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(peer: &str) -> Key {
        Key {
            listener: ListenerId(0),
            transport: Transport::Tcp,
            peer: peer.parse().unwrap(),
        }
    }

    fn limits() -> StreamLimits {
        StreamLimits {
            connections: 4,
            connections_per_source: 2,
            ..StreamLimits::default()
        }
    }

    fn insert(table: &mut Table<u32>, peer: &str) -> Result<ConnectionId, SendError> {
        table.insert(key(peer), true, Outlet::new(&limits()).0, &limits())
    }

    #[test]
    fn a_stale_id_never_names_a_later_connection() {
        let mut table = Table::new();
        let first = insert(&mut table, "192.0.2.1:1").unwrap();
        table.remove(first);
        let second = insert(&mut table, "192.0.2.2:2").unwrap();
        assert_eq!(first.slot, second.slot);
        assert!(table.by_id(first).is_none());
        assert!(table.by_id(second).is_some());
        table.remove(first);
        assert!(table.by_id(second).is_some());
        assert!(table.by_key(&key("192.0.2.1:1")).is_none());
        assert!(table.by_key(&key("192.0.2.2:2")).is_some());
    }

    #[test]
    fn removing_an_older_connection_leaves_the_newer_one_reusable() {
        let mut table = Table::new();
        let old = insert(&mut table, "192.0.2.1:1").unwrap();
        let new = insert(&mut table, "192.0.2.1:1").unwrap();
        table.remove(old);
        assert!(table.by_key(&key("192.0.2.1:1")).is_some());
        table.remove(new);
        assert!(table.by_key(&key("192.0.2.1:1")).is_none());
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn limits_hold_for_all_and_for_each_source() {
        let mut table = Table::new();
        let full = Err(SendError::TooManyConnections);
        let a = insert(&mut table, "[2001:db8::1]:1").unwrap();
        insert(&mut table, "[2001:db8::2]:1").unwrap();
        // The same /64.
        assert_eq!(insert(&mut table, "[2001:db8::3]:1"), full);
        insert(&mut table, "192.0.2.1:1").unwrap();
        insert(&mut table, "192.0.2.2:1").unwrap();
        assert_eq!(insert(&mut table, "192.0.2.3:1"), full);
        table.remove(a);
        insert(&mut table, "[2001:db8::3]:1").unwrap();
        table.close();
        assert_eq!(table.len(), 0);
        assert!(table.per_source.is_empty());
        assert_eq!(
            insert(&mut table, "192.0.2.3:1"),
            Err(SendError::ShuttingDown)
        );
    }

    #[test]
    fn an_outlet_bounds_messages_and_bytes() {
        let limits = StreamLimits {
            send_queue: 3,
            send_queue_bytes: 10,
            ..limits()
        };
        let (outlet, mut receiver) = Outlet::<u32>::new(&limits);
        let push = |length: usize| {
            outlet.push(
                Outgoing {
                    bytes: vec![0; length].into(),
                    token: None,
                },
                &limits,
            )
        };
        push(11).unwrap();
        assert!(matches!(push(1), Err(Refused::Full)));
        outlet.written(receiver.try_recv().unwrap().bytes.len());
        for _ in 0..3 {
            push(1).unwrap();
        }
        assert!(matches!(push(1), Err(Refused::Full)));
        assert_eq!(outlet.waiting.load(Ordering::Relaxed), 3);
        drop(receiver);
        assert!(matches!(push(1), Err(Refused::Gone(_))));
        assert_eq!(outlet.waiting.load(Ordering::Relaxed), 3);
    }
}
