//! Dialogs and their table: what it does not have yet, and what it had at the start.

use std::sync::Arc;

use sipbox_sip::Transport;

use super::id::DialogId;
use super::record::Now;
use super::row::{Context, DialogRow, Loaded, RowChange, Unread};
use super::service::{DialogService, lock};
use crate::flow::{Flow, Home, TenantId};
use crate::settings::Settings;
use crate::time::{Time, WallTime};

impl DialogService {
    /// What the table does not have yet: calls that were answered, and rows of those that
    /// are over. `socket` is the text of the socket of a flow.
    pub fn take_changes(
        &self,
        now: Time,
        wall: WallTime,
        socket: impl Fn(Flow) -> Arc<str>,
    ) -> Vec<RowChange> {
        let mut changes = Vec::new();
        for mutex in &self.shards {
            let mut guard = lock(mutex);
            let shard = &mut *guard;
            changes.extend(shard.deleted.drain(..).map(RowChange::Delete));
            for id in shard.changed.drain(..) {
                let Some(dialog) = shard.dialogs.get_mut(&id) else {
                    continue;
                };
                (dialog.dirty, dialog.queued) = (false, false);
                if dialog.state.is_confirmed() {
                    dialog.stored = true;
                    let row = dialog.row(now, wall, &socket);
                    changes.push(RowChange::Upsert(Box::new(row)));
                } else if std::mem::take(&mut dialog.stored) {
                    changes.push(RowChange::Delete(id));
                }
            }
        }
        changes
    }

    /// Changes that could not be written: they are to be taken again, as they are then.
    pub fn take_back(&self, changes: Vec<RowChange>) {
        for change in changes {
            let id = match &change {
                RowChange::Upsert(row) => DialogId(row.dlg_id),
                RowChange::Delete(id) => *id,
            };
            let there = self.with(id, |dialog| {
                dialog.dirty = true;
                dialog.stored = true;
            });
            if there.is_none() {
                self.shard(id).deleted.push(id);
            }
        }
    }

    /// Takes over the rows of a database at start. `tenant` finds a tenant by its name,
    /// `home` the listener of a socket's text.
    pub fn load(
        &self,
        rows: impl IntoIterator<Item = DialogRow>,
        (now, wall): (Time, WallTime),
        settings: &Arc<Settings>,
        tenant: impl Fn(&str) -> Option<(TenantId, Arc<str>)>,
        home: impl Fn(&str) -> Option<(Home, Transport)>,
    ) -> Loaded {
        let mut loaded = Loaded::default();
        let context = Context {
            now,
            wall,
            tenant: &tenant,
            home: &home,
            leases: &self.leases,
            profiles: &self.profiles,
        };
        for row in rows {
            let id = DialogId(row.dlg_id);
            let dialog = match row.into_dialog(&context) {
                Ok(dialog) => dialog,
                Err(Unread::Over) => {
                    loaded.over += 1;
                    self.shard(id).deleted.push(id);
                    continue;
                }
                Err(Unread::Foreign) => {
                    loaded.foreign += 1;
                    continue;
                }
            };
            self.insert(dialog.restored(Now {
                now,
                wall,
                settings,
            }));
            loaded.dialogs += 1;
        }
        loaded
    }
}
