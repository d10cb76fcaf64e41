//! What policies and commands change of dialogs that are there.

use super::id::DialogId;
use super::record::Now;
use super::service::{DialogService, lock};
use super::state::State;
use crate::flow::TenantId;
use crate::lease::Lease;

impl DialogService {
    /// Whether policies of a tenant are told of dialogs, of those that were loaded.
    pub fn watch(&self, is_told: impl Fn(TenantId) -> bool) {
        for mutex in &self.shards {
            for dialog in lock(mutex).dialogs.values_mut() {
                dialog.watched = is_told(dialog.tenant);
            }
        }
    }

    /// Sets a variable.
    pub fn set_var(&self, id: DialogId, name: &str, value: &str) {
        self.with(id, |dialog| {
            match dialog.vars.iter_mut().find(|(known, _)| known == name) {
                Some((_, old)) => value.clone_into(old),
                None => dialog.vars.push((name.to_owned(), value.to_owned())),
            }
            dialog.dirty = true;
        });
    }

    /// Sets a flag, or takes it away; whether it was set before.
    pub fn set_flag(&self, id: DialogId, name: &str, on: bool) -> Option<bool> {
        self.with(id, |dialog| {
            let before = dialog.flags.iter().any(|flag| flag == name);
            if before && !on {
                dialog.flags.retain(|flag| flag != name);
            } else if !before && on {
                dialog.flags.push(name.to_owned());
            }
            dialog.dirty |= before != on;
            before
        })
    }

    /// Makes a dialog a member of a profile; with `clear` it leaves the profile's other
    /// values.
    pub fn join(&self, id: DialogId, profile: &str, value: &str, clear: bool) {
        // The seat is taken before the dialog is locked, and given back if it has one.
        let seat = self.profiles.take_among(self.tenant_of(id), profile, value);
        seat.commit();
        self.with(id, |dialog| {
            let is = |lease: &Lease| &*lease.key().scope == profile;
            if clear {
                let leaves = |lease: &Lease| is(lease) && &*lease.key().key != value;
                dialog.profiles.retain(|lease| !leaves(lease));
            }
            let member = |lease: &Lease| is(lease) && &*lease.key().key == value;
            if dialog.state != State::Deleted && !dialog.profiles.iter().any(member) {
                dialog.profiles.push(seat);
            }
            dialog.dirty = true;
        });
    }

    fn tenant_of(&self, id: DialogId) -> TenantId {
        let shard = self.shard(id);
        let dialog = shard.dialogs.get(&id);
        dialog.map_or(TenantId(u32::MAX), |dialog| dialog.tenant)
    }

    /// Takes a dialog out of a profile: out of one value, or out of all if it is empty.
    pub fn leave(&self, id: DialogId, profile: &str, value: &str) {
        self.with(id, |dialog| {
            dialog.profiles.retain(|lease| {
                let key = lease.key();
                *key.scope != *profile || !(value.is_empty() || *key.key == *value)
            });
            dialog.dirty = true;
        });
    }

    /// Gives a dialog so many seconds from now on.
    pub(crate) fn set_timeout(&self, id: DialogId, seconds: u32, at: Now<'_>) {
        self.with(id, |dialog| dialog.set_timeout(seconds, at));
    }
}
