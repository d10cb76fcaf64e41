//! One shard: bindings by tenant and address of record, the order in which they end,
//! and what to go back to if a change cannot be stored. No rule of the RFC lives here.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::aor::Aor;
use super::binding::{Binding, Bindings};
use super::hash::KeyedState;
use super::pings::Pings;
use crate::flow::TenantId;
use crate::time::WallTime;

#[derive(Debug)]
pub(super) struct Shard {
    tenants: HashMap<TenantId, Tenant, KeyedState>,
    /// What ends next; permanent bindings are not in it.
    ends: BTreeMap<(WallTime, u64), (TenantId, Arc<Aor>)>,
    /// What stood before each change whose fate is not known yet, by the binding's id and
    /// the sequence number of the change.
    before: BTreeMap<(u64, u64), Option<Arc<Binding>>>,
    /// Whose turn it is to be pinged.
    pub(super) pings: Pings,
    keyed: KeyedState,
}

#[derive(Debug)]
struct Tenant {
    /// The bindings of each address of record that has any.
    records: HashMap<Arc<Aor>, Bindings, KeyedState>,
    bindings: usize,
}

impl Shard {
    pub(super) fn new(keyed: &KeyedState) -> Self {
        Self {
            tenants: HashMap::with_hasher(keyed.clone()),
            ends: BTreeMap::new(),
            before: BTreeMap::new(),
            pings: Pings::default(),
            keyed: keyed.clone(),
        }
    }

    pub(super) fn get(&self, tenant: TenantId, aor: &Aor) -> Option<&Bindings> {
        self.tenants.get(&tenant)?.records.get(aor)
    }

    /// The shared copy of a key that is in use already.
    pub(super) fn key(&self, tenant: TenantId, aor: &Aor) -> Option<Arc<Aor>> {
        self.tenants
            .get(&tenant)?
            .records
            .get_key_value(aor)
            .map(|(key, _)| key.clone())
    }

    /// Puts bindings in the place of what was there.
    pub(super) fn replace(&mut self, tenant: TenantId, aor: &Arc<Aor>, bindings: Bindings) {
        let of_tenant = self.tenants.entry(tenant).or_insert_with(|| Tenant {
            records: HashMap::with_hasher(self.keyed.clone()),
            bindings: 0,
        });
        let key = of_tenant
            .records
            .get_key_value(aor)
            .map_or_else(|| aor.clone(), |(k, _)| k.clone());
        let ends = bindings
            .iter()
            .map(|b| (b.expires, b.id))
            .collect::<Vec<_>>();
        let stands = |id: u64| ends.iter().any(|(_, other)| *other == id);
        of_tenant.bindings += ends.len();
        let old = if ends.is_empty() {
            of_tenant.records.remove(&key)
        } else {
            of_tenant.records.insert(key.clone(), bindings)
        };
        for binding in old.iter().flatten() {
            of_tenant.bindings -= 1;
            self.ends.remove(&(binding.expires, binding.id));
            if !stands(binding.id) {
                self.pings.ends(binding.id);
            }
        }
        if of_tenant.records.is_empty() {
            self.tenants.remove(&tenant);
        }
        for end in ends {
            self.pings.stands(end.1, tenant, &key);
            if end.0 != Binding::PERMANENT {
                self.ends.insert(end, (tenant, key.clone()));
            }
        }
    }

    /// Takes one binding away that has ended by `wall`, if there is any. That counts as
    /// stored: an ended row is none.
    pub(super) fn pop_ended(
        &mut self,
        wall: WallTime,
        sequence: u64,
    ) -> Option<(TenantId, Arc<Aor>, Arc<Binding>)> {
        let (&(end, id), _) = self.ends.first_key_value()?;
        if end > wall {
            return None;
        }
        let (tenant, aor) = self.ends.remove(&(end, id))?;
        let ended = self.take(tenant, &aor, id, sequence)?;
        Some((tenant, aor, ended))
    }

    /// Takes one binding away for good.
    pub(super) fn take(
        &mut self,
        tenant: TenantId,
        aor: &Arc<Aor>,
        id: u64,
        sequence: u64,
    ) -> Option<Arc<Binding>> {
        let mut bindings = self.get(tenant, aor)?.clone();
        let at = bindings.iter().position(|b| b.id == id)?;
        let taken = bindings.remove(at);
        self.replace(tenant, aor, bindings);
        self.stored(id, sequence);
        Some(taken)
    }

    /// A binding was changed, and it is not known yet whether that will be stored.
    pub(super) fn changed(&mut self, id: u64, sequence: u64, before: Option<Arc<Binding>>) {
        self.before.insert((id, sequence), before);
    }

    /// A change was stored: nobody goes back behind it.
    pub(super) fn stored(&mut self, id: u64, sequence: u64) {
        while let Some((&key, _)) = self.before.range((id, 0)..=(id, sequence)).next() {
            self.before.remove(&key);
        }
    }

    /// A change was not stored. What stands for the binding now, unless a later change
    /// does: if that fails too, it goes back to what stood before this one.
    pub(super) fn not_stored(&mut self, id: u64, sequence: u64) -> Option<Option<Arc<Binding>>> {
        let before = self.before.remove(&(id, sequence))?;
        let later = self
            .before
            .range_mut((id, sequence)..=(id, u64::MAX))
            .next();
        match later {
            Some((_, later)) => {
                *later = before;
                None
            }
            None => Some(before),
        }
    }

    /// Addresses of record and bindings of one tenant, or of all.
    pub(super) fn count(&self, tenant: Option<TenantId>) -> (usize, usize) {
        self.tenants
            .iter()
            .filter(|(id, _)| tenant.is_none_or(|tenant| tenant == **id))
            .fold((0, 0), |(aors, bindings), (_, t)| {
                (aors + t.records.len(), bindings + t.bindings)
            })
    }

    pub(super) fn copy_out(&self, tenant: Option<TenantId>) -> Vec<(TenantId, Arc<Aor>, Bindings)> {
        self.tenants
            .iter()
            .filter(|(id, _)| tenant.is_none_or(|tenant| tenant == **id))
            .flat_map(|(id, t)| {
                t.records
                    .iter()
                    .map(|(aor, bindings)| (*id, aor.clone(), bindings.clone()))
            })
            .collect()
    }

    /// How many ends are awaited: as many as there are bindings that end.
    #[cfg(test)]
    pub(super) fn awaited(&self) -> usize {
        self.ends.len()
    }

    /// How many changes wait to be stored.
    #[cfg(test)]
    pub(super) fn unsettled(&self) -> usize {
        self.before.len()
    }
}
