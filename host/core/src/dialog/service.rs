//! The dialogs of all tenants: shards behind mutexes, one locked at a time and never
//! with one of the transactions'.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::FixedState;
use sipbox_sip::{Message, OwnedMessage, Parts};
use smallvec::SmallVec;

use super::agenda::Agenda;
use super::event::{EndReason, Event, Known, NewDialog, Notice};
use super::id::{DialogId, ENTRIES};
use super::options::MatchMode;
use super::record::{Dialog, Now, Outcome};
use super::state::State;
use super::untold::Untold;
use super::validate::Validity;
use super::view::View;
use crate::flow::TenantId;
use crate::ids::Place;
use crate::lease::{Lease, LeaseTable};
use crate::location::KeyedState;
use crate::time::Time;

/// Dialogs of one shard.
#[derive(Default)]
pub(super) struct Shard {
    /// Boxed: a table of whole dialogs would be megabytes that each new one is written to
    /// somewhere in.
    pub(super) dialogs: HashMap<DialogId, Box<Dialog>, FixedState>,
    agenda: Agenda,
    /// Those that changed since they were written.
    pub(super) changed: Vec<DialogId>,
    /// Rows that the table still has.
    pub(super) deleted: Vec<DialogId>,
    /// What policies are to be told, also of dialogs that are gone.
    untold: Untold,
}

impl Shard {
    fn dialog(&self, id: DialogId) -> Option<&Dialog> {
        self.dialogs.get(&id).map(|dialog| &**dialog)
    }
}

type Calls = HashMap<u64, SmallVec<[DialogId; 1]>, FixedState>;

/// Dialogs, their leases and their profiles.
pub struct DialogService {
    pub(super) shards: Box<[Mutex<Shard>]>,
    /// The dialogs of each call, by the keyed hash of tenant and Call-ID. The name of a
    /// dialog outlives the key, so this is apart.
    calls: Box<[Mutex<Calls>]>,
    keyed: KeyedState,
    next: AtomicU32,
    pub(super) leases: LeaseTable,
    pub(super) profiles: LeaseTable,
    totals: Totals,
}

#[derive(Default)]
struct Totals {
    /// All that can be found, those that are over included.
    live: AtomicUsize,
    early: AtomicUsize,
    active: AtomicUsize,
    processed: AtomicU64,
    expired: AtomicU64,
    failed: AtomicU64,
}

/// How many dialogs there are and were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All that are known, those that are over and not forgotten included.
    pub live: usize,
    /// Those with a provisional response.
    pub early: usize,
    /// Those that are answered.
    pub active: usize,
    /// All that were answered or are to be, since the start.
    pub processed: u64,
    /// Those whose time was over.
    pub expired: u64,
    /// Those that came to nothing.
    pub failed: u64,
}

impl DialogService {
    /// An empty service whose maps are seeded by a secret key. Numbers of dialogs go on
    /// from `first`.
    #[must_use]
    pub fn new(shards: usize, key: &[u8; 16], first: u32) -> Self {
        let shards = shards.max(1);
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            calls: (0..shards).map(|_| Mutex::default()).collect(),
            keyed: KeyedState::new(key),
            next: AtomicU32::new(first),
            leases: LeaseTable::new(shards, key),
            profiles: LeaseTable::new(shards, key),
            totals: Totals::default(),
        }
    }

    /// The leases of dialogs and transactions.
    #[must_use]
    pub fn leases(&self) -> &LeaseTable {
        &self.leases
    }

    /// The members of profiles: the scope is the profile, the key the value.
    #[must_use]
    pub fn profiles(&self) -> &LeaseTable {
        &self.profiles
    }

    /// How many there are.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let totals = &self.totals;
        Counts {
            live: totals.live.load(Ordering::Acquire),
            early: totals.early.load(Ordering::Acquire),
            active: totals.active.load(Ordering::Acquire),
            processed: totals.processed.load(Ordering::Relaxed),
            expired: totals.expired.load(Ordering::Relaxed),
            failed: totals.failed.load(Ordering::Relaxed),
        }
    }

    /// A name for a dialog of this call.
    #[must_use]
    pub fn reserve(&self, tenant: TenantId, call_id: &[u8]) -> DialogId {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        DialogId::new(self.entry(self.call(tenant, call_id)), number)
    }

    fn call(&self, tenant: TenantId, call_id: &[u8]) -> u64 {
        self.keyed.hash((tenant, call_id))
    }

    fn entry(&self, call: u64) -> u32 {
        u32::try_from(call >> 32).unwrap_or(0) % ENTRIES
    }

    /// A dialog begins: before its INVITE is sent. Nothing is told of it until
    /// [`Self::told`].
    pub(crate) fn create(
        &self,
        new: &NewDialog,
        invite: &OwnedMessage,
        place: Place,
        leases: Vec<Lease>,
        at: Now<'_>,
    ) {
        let mut dialog = Dialog::new(new, invite, place, at);
        dialog.leases = leases;
        let mut created = Outcome::default();
        dialog.created(at, &mut created);
        if !created.notices.is_empty() {
            let mut shard = self.shard(dialog.id);
            shard.untold.push(dialog.id, created.notices);
            shard.untold.hold(dialog.id);
        }
        self.totals.processed.fetch_add(1, Ordering::Relaxed);
        self.insert(dialog);
    }

    /// What policies are to be told of a dialog next: whoever gets it tells it and says
    /// [`Self::told`], then asks again. `None`: there is nothing, or somebody else is at it.
    #[must_use]
    pub fn next_notice(&self, id: DialogId) -> Option<Notice> {
        self.shard(id).untold.next(id)
    }

    /// Policies were told, or will not be: what is next may be.
    pub fn told(&self, id: DialogId) {
        self.shard(id).untold.release(id);
    }

    pub(super) fn insert(&self, mut dialog: Dialog) {
        let (id, call) = (dialog.id, self.call(dialog.tenant, &dialog.call_id));
        self.totals.live.fetch_add(1, Ordering::AcqRel);
        self.count(None, Some(dialog.state));
        let mut shard = self.shard(id);
        dialog.looked_at = dialog.due().map(|due| shard.agenda.note(id, due));
        shard.dialogs.insert(id, Box::new(dialog));
        drop(shard);
        self.calls(call).entry(call).or_default().push(id);
    }

    /// The verdict that wanted it did not count after all.
    pub(crate) fn discard(&self, id: DialogId) {
        let mut shard = self.shard(id);
        shard.untold.forget(id);
        if let Some(dialog) = shard.dialogs.remove(&id) {
            self.totals.processed.fetch_sub(1, Ordering::Relaxed);
            self.removed(shard, &dialog);
        }
    }

    fn removed(&self, mut shard: MutexGuard<'_, Shard>, dialog: &Dialog) {
        if dialog.stored {
            shard.deleted.push(dialog.id);
        }
        drop(shard);
        let call = self.call(dialog.tenant, &dialog.call_id);
        let mut calls = self.calls(call);
        if let Some(of_call) = calls.get_mut(&call) {
            of_call.retain(|id| *id != dialog.id);
            if of_call.is_empty() {
                calls.remove(&call);
            }
        }
        drop(calls);
        self.count(Some(dialog.state), None);
        self.totals.live.fetch_sub(1, Ordering::AcqRel);
    }

    fn count(&self, before: Option<State>, after: Option<State>) {
        let change = |total: &AtomicUsize, is: fn(State) -> bool| match (
            before.is_some_and(is),
            after.is_some_and(is),
        ) {
            (false, true) => {
                total.fetch_add(1, Ordering::AcqRel);
            }
            (true, false) => {
                total.fetch_sub(1, Ordering::AcqRel);
            }
            _ => {}
        };
        change(&self.totals.early, |state| state == State::Early);
        change(&self.totals.active, State::is_confirmed);
    }

    /// One step of a dialog, and what follows for the books.
    fn step(&self, id: DialogId, step: impl FnOnce(&mut Dialog, &mut Outcome)) -> Outcome {
        let mut out = Outcome::default();
        self.work(id, &mut out, step);
        out
    }

    /// Works on a dialog, of which there is nothing to tell. `None`: there is no such dialog.
    pub(super) fn with<R>(&self, id: DialogId, step: impl FnOnce(&mut Dialog) -> R) -> Option<R> {
        self.work(id, &mut Outcome::default(), |dialog, _| step(dialog))
    }

    /// Works on a dialog. `None`: there is no such dialog.
    fn work<R>(
        &self,
        id: DialogId,
        out: &mut Outcome,
        step: impl FnOnce(&mut Dialog, &mut Outcome) -> R,
    ) -> Option<R> {
        if self.totals.live.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut guard = self.shard(id);
        let shard = &mut *guard;
        let dialog = shard.dialogs.get_mut(&id)?;
        let before = dialog.state;
        let result = step(dialog, out);
        let after = dialog.state;
        if !out.notices.is_empty() {
            // In the order in which it happened, whoever made it happen.
            shard.untold.push(id, out.notices.drain(..));
            out.news.push(id);
        }
        if let Some(due) = dialog.due()
            && dialog.looked_at.is_none_or(|at| due < at)
        {
            dialog.looked_at = Some(shard.agenda.note(id, due));
        }
        if dialog.dirty && !dialog.queued {
            dialog.queued = true;
            shard.changed.push(id);
        }
        if before != after {
            self.count(Some(before), Some(after));
            if before.is_early()
                && matches!(dialog.reason, Some(EndReason::Failed(_)))
                && after == State::Deleted
            {
                self.totals.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        Some(result)
    }

    /// Takes a dialog away that nobody needs any more.
    fn sweep(&self, id: DialogId, now: Time) {
        let mut shard = self.shard(id);
        let forgotten = |dialog: &Dialog| dialog.is_forgotten(now);
        if shard.dialog(id).is_some_and(forgotten)
            && let Some(dialog) = shard.dialogs.remove(&id)
        {
            self.removed(shard, &dialog);
        }
    }

    /// Something happened to a dialog.
    pub(crate) fn apply(&self, event: Event, at: Now<'_>) -> Outcome {
        let id = event.id();
        let mut forgotten = false;
        let out = self.step(id, |dialog, out| {
            dialog.apply(event, at, out);
            forgotten = dialog.is_forgotten(at.now);
        });
        if forgotten {
            self.sweep(id, at.now);
        }
        out
    }

    /// Ends a dialog from the middle. `None`: there is none, or it is over.
    pub(crate) fn end(
        &self,
        id: DialogId,
        extra: &[(String, String)],
        at: Now<'_>,
    ) -> Option<Outcome> {
        let mut out = Outcome::default();
        let ended = self.work(id, &mut out, |dialog, out| {
            dialog.end(EndReason::Command, extra, at, out)
        });
        self.sweep(id, at.now);
        (ended == Some(true)).then_some(out)
    }

    /// Does what is due by now, for one dialog after the other.
    pub(crate) fn fire(&self, at: Now<'_>) -> Outcome {
        let mut all = Outcome::default();
        let next = |shard: &Mutex<Shard>| lock(shard).agenda.take(at.now);
        for at_shard in &self.shards {
            while let Some((noted, id)) = next(at_shard) {
                let mut out = Outcome::default();
                let expired = self.work(id, &mut out, |dialog, out| {
                    if dialog.looked_at == Some(noted) {
                        dialog.looked_at = None;
                    }
                    dialog.fire(at, out)
                });
                if expired == Some(true) {
                    self.totals.expired.fetch_add(1, Ordering::Relaxed);
                }
                self.sweep(id, at.now);
                all.orders.append(&mut out.orders);
                all.news.append(&mut out.news);
            }
        }
        all
    }

    /// When the next dialog has something to do by itself, or is to be looked at for it.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        if self.totals.live.load(Ordering::Acquire) == 0 {
            return None;
        }
        let first = |mutex: &Mutex<Shard>| lock(mutex).agenda.next();
        self.shards.iter().filter_map(first).min()
    }

    /// The dialog of a request that came inside one, and who sent it.
    pub(crate) fn find(
        &self,
        tenant: TenantId,
        request: Message<'_>,
        parts: &Parts,
        did: Option<&[u8]>,
        mode: MatchMode,
    ) -> Option<Known> {
        if self.totals.live.load(Ordering::Acquire) == 0 {
            return None;
        }
        let call_id = request.call_id().ok()?;
        let (from_tag, to_tag) = (request.get(parts.from.tag), request.get(parts.to.tag));
        let sender = |dialog: &Dialog| {
            (dialog.tenant == tenant && dialog.call_id == call_id)
                .then(|| dialog.sender(from_tag, to_tag))
                .flatten()
        };
        let named = did
            .filter(|_| mode != MatchMode::DidNone)
            .and_then(DialogId::parse);
        if let Some(id) = named {
            // Whoever makes up a name still has to know Call-ID and tags.
            if let Some(from) = self.shard(id).dialog(id).and_then(sender) {
                return Some(Known { id, from });
            }
        }
        if mode == MatchMode::DidOnly {
            return None;
        }
        let call = self.call(tenant, call_id);
        let of_call = self.calls(call).get(&call).cloned()?;
        of_call.into_iter().find_map(|id| {
            let from = self.shard(id).dialog(id).and_then(sender)?;
            Some(Known { id, from })
        })
    }

    /// Whether an INVITE is one of this call. Its tags prove that there was a dialog, not that
    /// it lives, nor where the request goes.
    pub(crate) fn goes_on_with(&self, known: Known, invite: Message<'_>) -> bool {
        let shard = self.shard(known.id);
        let dialog = shard.dialog(known.id);
        dialog.is_some_and(|dialog| dialog.goes_on_with(known.from, invite))
    }

    /// A dialog as it is now.
    #[must_use]
    pub fn view(&self, id: DialogId, now: Time) -> Option<View> {
        self.shard(id).dialog(id).map(|dialog| dialog.view(now))
    }

    /// What `validate_dialog` says of a request.
    #[must_use]
    pub fn validate(&self, known: Known, request: Message<'_>) -> Validity {
        let shard = self.shard(known.id);
        let dialog = shard.dialog(known.id);
        dialog.map_or(Validity::Other, |dialog| {
            dialog.validate(known.from, request)
        })
    }

    /// Shows every dialog of a tenant, or of all. No lock is held while `visit` runs.
    pub fn dump(&self, tenant: Option<TenantId>, now: Time, mut visit: impl FnMut(View)) {
        for mutex in &self.shards {
            let views: Vec<View> = lock(mutex)
                .dialogs
                .values()
                .filter(|dialog| tenant.is_none_or(|tenant| tenant == dialog.tenant))
                .map(|dialog| dialog.view(now))
                .collect();
            views.into_iter().for_each(&mut visit);
        }
    }

    /// The leases of all dialogs, for an audit.
    #[must_use]
    pub fn held(&self) -> Vec<Lease> {
        let mut held = Vec::new();
        for mutex in &self.shards {
            let shard = lock(mutex);
            let dialogs = shard.dialogs.values();
            held.extend(dialogs.flat_map(|dialog| dialog.leases.iter().cloned()));
        }
        held
    }

    fn calls(&self, call: u64) -> MutexGuard<'_, Calls> {
        let at = usize::try_from(call >> 32).unwrap_or(0) % self.calls.len();
        // `at` is below the length, and there is at least one shard.
        #[allow(clippy::indexing_slicing, reason = "in range by construction")]
        lock(&self.calls[at])
    }

    pub(super) fn shard(&self, id: DialogId) -> MutexGuard<'_, Shard> {
        let at = usize::try_from(id.entry()).unwrap_or(0) % self.shards.len();
        // `at` is below the length, and there is at least one shard.
        #[allow(clippy::indexing_slicing, reason = "in range by construction")]
        lock(&self.shards[at])
    }
}

/// A panic elsewhere leaves a shard usable: each step changes one dialog.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
