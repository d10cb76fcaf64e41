//! One shard: records by tenant and address of record, and the order in which
//! their bindings end. No rule of the RFC lives here.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::aor::Aor;
use super::binding::{Binding, Bindings};
use super::hash::KeyedState;
use crate::flow::TenantId;
use crate::time::WallTime;

#[derive(Debug)]
pub(super) struct Shard {
    tenants: HashMap<TenantId, Tenant, KeyedState>,
    /// What ends next; permanent bindings are not in it.
    ends: BTreeMap<(WallTime, u64), (TenantId, Arc<Aor>)>,
    keyed: KeyedState,
}

#[derive(Debug)]
struct Tenant {
    records: HashMap<Arc<Aor>, Record, KeyedState>,
    bindings: usize,
}

/// The bindings of one address of record; never empty.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) bindings: Bindings,
    /// The sequence number of the last change.
    pub(super) version: u64,
}

impl Shard {
    pub(super) fn new(keyed: &KeyedState) -> Self {
        Self {
            tenants: HashMap::with_hasher(keyed.clone()),
            ends: BTreeMap::new(),
            keyed: keyed.clone(),
        }
    }

    pub(super) fn get(&self, tenant: TenantId, aor: &Aor) -> Option<&Record> {
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

    /// Puts a record in the place of what was there; one without bindings only
    /// takes the old one away.
    pub(super) fn replace(&mut self, tenant: TenantId, aor: &Arc<Aor>, record: Record) {
        let of_tenant = self.tenants.entry(tenant).or_insert_with(|| Tenant {
            records: HashMap::with_hasher(self.keyed.clone()),
            bindings: 0,
        });
        let key = of_tenant
            .records
            .get_key_value(aor)
            .map_or_else(|| aor.clone(), |(k, _)| k.clone());
        let ends = record
            .bindings
            .iter()
            .map(|b| (b.expires, b.id))
            .collect::<Vec<_>>();
        of_tenant.bindings += ends.len();
        let old = if ends.is_empty() {
            of_tenant.records.remove(&key)
        } else {
            of_tenant.records.insert(key.clone(), record)
        };
        for binding in old.iter().flat_map(|old| &old.bindings) {
            of_tenant.bindings -= 1;
            self.ends.remove(&(binding.expires, binding.id));
        }
        if of_tenant.records.is_empty() {
            self.tenants.remove(&tenant);
        }
        for end in ends {
            if end.0 != Binding::PERMANENT {
                self.ends.insert(end, (tenant, key.clone()));
            }
        }
    }

    /// Takes one binding away that has ended by `wall`, if there is any.
    pub(super) fn pop_ended(
        &mut self,
        wall: WallTime,
        version: u64,
    ) -> Option<(TenantId, Arc<Aor>, Arc<Binding>)> {
        let (&(end, id), _) = self.ends.first_key_value()?;
        if end > wall {
            return None;
        }
        let (tenant, aor) = self.ends.remove(&(end, id))?;
        let mut record = self.get(tenant, &aor)?.clone();
        let at = record.bindings.iter().position(|b| b.id == id)?;
        let ended = record.bindings.remove(at);
        record.version = version;
        self.replace(tenant, &aor, record);
        Some((tenant, aor, ended))
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
                    .map(|(aor, r)| (*id, aor.clone(), r.bindings.clone()))
            })
            .collect()
    }

    /// How many ends are awaited: as many as there are bindings that end.
    #[cfg(test)]
    pub(super) fn awaited(&self) -> usize {
        self.ends.len()
    }
}
