//! The location service as a whole: shards behind mutexes, one locked at a time,
//! and the operations on them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sipbox_sip::{Message, Uri};
use smallvec::SmallVec;

use super::aor::Aor;
use super::binding::{Binding, Bindings, sort};
use super::hash::KeyedState;
use super::plan::{Commit, NewContact, Plan, Planned};
use super::register::{ContactUpdate, Contacts, Register};
use super::row::{Change, ChangeKind, LocationRow};
use super::rules::{Refused, Step, Steps, end, judge, same_uri, standing};
use super::shard::Shard;
use crate::flow::{Flow, Home, TenantId};
use crate::policy::SaveLimits;
use crate::time::WallTime;

/// Bindings of all tenants.
#[derive(Debug)]
pub struct LocationService {
    pub(super) shards: Box<[Mutex<Shard>]>,
    keyed: KeyedState,
    next_id: AtomicU64,
    next_sequence: AtomicU64,
    /// The shard that [`LocationService::expire`] looks at next.
    turn: AtomicUsize,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Addresses of record with at least one binding.
    pub aors: usize,
    /// Bindings.
    pub bindings: usize,
}

/// What [`LocationService::load`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Rows that are bindings now.
    pub bindings: usize,
    /// Rows that had ended.
    pub ended: usize,
    /// Rows whose domain no tenant has, or that name no address of record.
    pub foreign: usize,
}

impl LocationService {
    /// An empty service of `shards` shards (at least one) whose maps are seeded
    /// by a secret key.
    #[must_use]
    pub fn new(shards: usize, key: &[u8; 16]) -> Self {
        let keyed = KeyedState::new(key);
        Self {
            shards: (0..shards.max(1))
                .map(|_| Mutex::new(Shard::new(&keyed)))
                .collect(),
            keyed,
            next_id: AtomicU64::new(1),
            next_sequence: AtomicU64::new(1),
            turn: AtomicUsize::new(0),
        }
    }

    /// What a REGISTER would do. Nothing changes.
    ///
    /// `flow` is where it came from, `socket` the text of the socket that
    /// received it, such as `udp:192.0.2.1:5060`.
    ///
    /// # Errors
    /// How it is to be answered instead.
    pub fn plan(
        &self,
        tenant: TenantId,
        aor: &Aor,
        message: &Message<'_>,
        source: (Flow, &Arc<str>),
        wall: WallTime,
        limits: &SaveLimits,
    ) -> Result<Planned, Refused> {
        let register = Register::read(message, source.0, limits.reached)?;
        if register.contacts == Contacts::Query {
            return Ok(Planned::Query(self.lookup(tenant, aor, wall)));
        }
        let shard = self.shard(tenant, aor);
        let steps = judge(shard.bindings(tenant, aor), &register, limits, wall)?;
        drop(shard);
        Ok(Planned::Save(Box::new(Plan {
            tenant,
            aor: aor.clone(),
            register,
            flow: Some(source.0),
            socket: source.1.clone(),
            limits: limits.clone(),
            standing: u32::try_from(standing(&steps)).unwrap_or(u32::MAX),
        })))
    }

    /// Carries out a plan, judged again by what stands now.
    ///
    /// # Errors
    /// When another REGISTER came between and this one fails after it.
    pub fn commit(&self, plan: &Plan, wall: WallTime) -> Result<Commit, Refused> {
        let mut shard = self.shard(plan.tenant, &plan.aor);
        let bindings = shard.bindings(plan.tenant, &plan.aor);
        let steps = judge(bindings, &plan.register, &plan.limits, wall)?;
        Ok(self.carry_out(&mut shard, plan, &steps, wall))
    }

    /// A commit was stored, or was not: then its changes are taken back, each to what
    /// stood before it, unless a later one stands. Called once for each commit, in any
    /// order, so that memory comes to what is stored: RFC 3261 section 10.3 wants all of a
    /// REGISTER, or nothing.
    pub fn settle(&self, commit: &Commit, stored: bool) {
        let mut shard = self.shard(commit.tenant, &commit.aor);
        if stored {
            for change in &commit.changes {
                shard.0.stored(change.contact_id(), change.sequence);
            }
            return;
        }
        let mut bindings = Bindings::from(shard.bindings(commit.tenant, &commit.aor));
        for change in &commit.changes {
            let id = change.contact_id();
            if let Some(before) = shard.0.not_stored(id, change.sequence) {
                bindings.retain(|binding| binding.id != id);
                bindings.extend(before);
            }
        }
        sort(&mut bindings);
        shard.0.replace(commit.tenant, &commit.aor, bindings);
    }

    /// The bindings that hold, best q first, then the latest.
    #[must_use]
    pub fn lookup(&self, tenant: TenantId, aor: &Aor, wall: WallTime) -> Bindings {
        let shard = self.shard(tenant, aor);
        shard
            .bindings(tenant, aor)
            .iter()
            .filter(|b| b.holds(wall))
            .cloned()
            .collect()
    }

    /// Adds a contact, or replaces the one with an equivalent URI.
    ///
    /// # Errors
    /// 400 for a URI that is none.
    pub fn add(
        &self,
        tenant: TenantId,
        aor: &Aor,
        contact: NewContact,
        wall: WallTime,
    ) -> Result<Commit, Refused> {
        if Uri::parse(contact.uri.as_bytes()).is_err() {
            return Err(Refused::new(400, "Malformed Contact"));
        }
        let (expires, plan) = (contact.expires, Plan::of_operator(tenant, aor, contact));
        let mut shard = self.shard(tenant, aor);
        // An operator's word counts whatever its order, so older ones by this way go first.
        let mut steps = Steps::new();
        let mut old = None;
        for binding in shard.bindings(tenant, aor) {
            if !binding.holds(wall) {
                steps.push(Step::Remove(binding.clone()));
            } else if old.is_none() && same_uri(&binding.contact, plan.uri()) {
                old = Some(binding.clone());
            } else {
                steps.push(Step::Keep(binding.clone()));
            }
        }
        let expires = expires.map_or(Binding::PERMANENT, |seconds| end(wall, seconds));
        steps.push(Step::Write {
            old,
            update: 0,
            expires,
        });
        Ok(self.carry_out(&mut shard, &plan, &steps, wall))
    }

    /// Removes all bindings of an address of record. `None` when there were none.
    pub fn remove(&self, tenant: TenantId, aor: &Aor, wall: WallTime) -> Option<Commit> {
        self.remove_where(tenant, aor, wall, |_| true)
    }

    /// Removes the binding with an equivalent Contact URI. `None` when there is none.
    pub fn remove_contact(
        &self,
        tenant: TenantId,
        aor: &Aor,
        contact: &str,
        wall: WallTime,
    ) -> Option<Commit> {
        self.remove_where(tenant, aor, wall, |binding| {
            same_uri(&binding.contact, contact)
        })
    }

    /// Takes away bindings that have ended, at most `max` of them, and tells so.
    /// Goes round the shards, so that frequent calls with a small `max` reach all.
    pub fn expire(&self, wall: WallTime, max: usize) -> Vec<Change> {
        let mut changes = Vec::new();
        for _ in 0..self.shards.len() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let at = turn.checked_rem(self.shards.len()).unwrap_or(0);
            let Some(mutex) = self.shards.get(at) else {
                break;
            };
            let mut shard = lock(mutex);
            while changes.len() < max {
                let sequence = self.sequence(1);
                let Some((tenant, aor, ended)) = shard.pop_ended(wall, sequence) else {
                    break;
                };
                changes.push(Change {
                    tenant,
                    aor,
                    sequence,
                    kind: ChangeKind::Delete(ended.id),
                });
            }
            drop(shard);
            if changes.len() >= max {
                break;
            }
        }
        changes
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Takes over the rows of a database at start. `tenant` finds the tenant of a
    /// domain, `home` the listener of a socket's text and [`Flow::local`].
    pub fn load(
        &self,
        rows: impl IntoIterator<Item = LocationRow>,
        wall: WallTime,
        tenant: impl Fn(&str) -> Option<TenantId>,
        home: impl Fn(&str) -> Option<Home>,
    ) -> Loaded {
        let mut loaded = Loaded::default();
        for row in rows {
            // Ids go on where the table ends, whatever becomes of the row.
            self.next_id
                .fetch_max(row.contact_id.saturating_add(1), Ordering::Relaxed);
            let domain = row.domain.to_ascii_lowercase();
            let aor = Aor::from_parts(row.username.as_bytes(), domain.as_bytes());
            let (Some(tenant), Ok(aor)) = (tenant(&domain), aor) else {
                loaded.foreign += 1;
                continue;
            };
            let sequence = self.sequence(1);
            let binding = row.into_binding(sequence, &home);
            if !binding.holds(wall) {
                loaded.ended += 1;
                continue;
            }
            let mut shard = self.shard(tenant, &aor);
            let mut bindings = Bindings::from(shard.bindings(tenant, &aor));
            bindings.retain(|other| other.id != binding.id);
            bindings.push(Arc::new(binding));
            // The sequence of rows tells nothing; their time of writing does.
            bindings.sort_by(|a, b| {
                b.q.cmp(&a.q)
                    .then(b.last_modified.cmp(&a.last_modified))
                    .then(a.id.cmp(&b.id))
            });
            let aor = shard.0.key(tenant, &aor).unwrap_or_else(|| Arc::new(aor));
            shard.0.replace(tenant, &aor, bindings);
            loaded.bindings += 1;
        }
        loaded
    }

    /// Shows every address of record with its bindings, those included that have
    /// ended but were not taken away yet. No lock is held while `visit` runs.
    pub fn dump(
        &self,
        tenant: Option<TenantId>,
        mut visit: impl FnMut(TenantId, &Aor, &[Arc<Binding>]),
    ) {
        for mutex in &self.shards {
            let records = lock(mutex).copy_out(tenant);
            for (tenant, aor, bindings) in records {
                visit(tenant, &aor, &bindings);
            }
        }
    }

    /// How much one tenant has, or all together.
    #[must_use]
    pub fn counts(&self, tenant: Option<TenantId>) -> Counts {
        self.shards
            .iter()
            .map(|mutex| lock(mutex).count(tenant))
            .fold(Counts::default(), |sum, (aors, bindings)| Counts {
                aors: sum.aors + aors,
                bindings: sum.bindings + bindings,
            })
    }

    /// How many ends are awaited over all shards.
    #[cfg(test)]
    pub(super) fn awaited(&self) -> usize {
        self.shards.iter().map(|mutex| lock(mutex).awaited()).sum()
    }

    /// How many bindings may have a turn to be pinged, and how many answers are awaited.
    #[cfg(test)]
    pub(super) fn pinged(&self) -> (usize, usize) {
        let shards = self.shards.iter().map(|mutex| lock(mutex).pings.counts());
        shards.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// How many changes wait to be settled over all shards.
    #[cfg(test)]
    pub(super) fn unsettled(&self) -> usize {
        self.shards
            .iter()
            .map(|mutex| lock(mutex).unsettled())
            .sum()
    }

    fn remove_where(
        &self,
        tenant: TenantId,
        aor: &Aor,
        wall: WallTime,
        goes: impl Fn(&Binding) -> bool,
    ) -> Option<Commit> {
        let mut shard = self.shard(tenant, aor);
        let steps: Steps = shard
            .bindings(tenant, aor)
            .iter()
            .map(|b| match goes(b) || !b.holds(wall) {
                true => Step::Remove(b.clone()),
                false => Step::Keep(b.clone()),
            })
            .collect();
        steps
            .iter()
            .any(|step| matches!(step, Step::Remove(b) if goes(b)))
            .then(|| {
                let plan = Plan::empty(tenant, aor);
                self.carry_out(&mut shard, &plan, &steps, wall)
            })
    }

    /// Turns steps into bindings and changes. The caller holds the shard.
    fn carry_out(
        &self,
        shard: &mut Guard<'_>,
        plan: &Plan,
        steps: &[Step],
        wall: WallTime,
    ) -> Commit {
        let (tenant, shard) = (plan.tenant, &mut shard.0);
        let aor = shard
            .key(tenant, &plan.aor)
            .unwrap_or_else(|| Arc::new(plan.aor.clone()));
        let updates: &[ContactUpdate] = match &plan.register.contacts {
            Contacts::Update(updates) => updates,
            Contacts::Query | Contacts::RemoveAll => &[],
        };
        let count = u64::try_from(updates.len()).unwrap_or(0).saturating_add(1);
        let version = self.sequence(count).saturating_add(count).saturating_sub(1);
        let mut changes = SmallVec::new();
        let mut bindings = Bindings::new();
        for step in steps {
            let (kind, before) = match step {
                Step::Keep(binding) => {
                    bindings.push(binding.clone());
                    continue;
                }
                Step::Remove(binding) => (ChangeKind::Delete(binding.id), Some(binding)),
                Step::Write {
                    old,
                    update: position,
                    expires,
                } => {
                    let Some(update) = updates.get(*position) else {
                        continue;
                    };
                    // Of contacts with equal q in one request the first is preferred.
                    let later = u64::try_from(*position).unwrap_or(0).saturating_add(1);
                    let binding = Arc::new(Binding {
                        id: match old {
                            Some(old) => old.id,
                            None => self.next_id.fetch_add(1, Ordering::Relaxed),
                        },
                        expires: *expires,
                        sequence: version.saturating_sub(later),
                        last_modified: wall,
                        ..plan.binding(update)
                    });
                    bindings.push(binding.clone());
                    (ChangeKind::Upsert(binding), old.as_ref())
                }
            };
            let change = Change {
                tenant,
                aor: aor.clone(),
                sequence: version,
                kind,
            };
            shard.changed(change.contact_id(), version, before.cloned());
            changes.push(change);
        }
        sort(&mut bindings);
        if !changes.is_empty() {
            shard.replace(tenant, &aor, bindings.clone());
        }
        Commit {
            changes,
            bindings,
            tenant,
            aor,
        }
    }

    pub(super) fn sequence(&self, count: u64) -> u64 {
        self.next_sequence.fetch_add(count, Ordering::Relaxed)
    }

    fn shard(&self, tenant: TenantId, aor: &Aor) -> Guard<'_> {
        let at = self.keyed.shard((tenant, aor), self.shards.len());
        // `at` is below the length, and there is at least one shard.
        #[allow(clippy::indexing_slicing, reason = "in range by construction")]
        Guard(lock(&self.shards[at]))
    }
}

struct Guard<'a>(MutexGuard<'a, Shard>);

impl Guard<'_> {
    fn bindings(&self, tenant: TenantId, aor: &Aor) -> &[Arc<Binding>] {
        self.0
            .get(tenant, aor)
            .map(Bindings::as_slice)
            .unwrap_or_default()
    }
}

/// A panic elsewhere leaves a shard usable: each change is one `replace`.
pub(super) fn lock(mutex: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
