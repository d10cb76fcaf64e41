//! Dialogs and their table: what it does not have yet, and what it had at the start.

use std::sync::Arc;
use std::time::Duration;

use sipbox_sip::Transport;

use super::id::DialogId;
use super::record::{Dialog, Now};
use super::row::{Context, DialogRow, Loaded, RowChange, Unread};
use super::service::{DialogService, Shard, lock};
use crate::flow::{Flow, Home, TenantId};
use crate::settings::Settings;
use crate::time::{Time, WallTime};

impl DialogService {
    /// What the table does not have yet: calls that were answered at least `settled` ago, and
    /// rows of those that are over. Many a call is over before. `socket` is the text of the
    /// socket of a flow.
    pub fn take_changes(
        &self,
        (now, wall): (Time, WallTime),
        settled: Duration,
        socket: impl Fn(Flow) -> Arc<str>,
    ) -> Vec<RowChange> {
        // A clock that was put back makes nobody wait.
        let age = |dialog: &Dialog| wall.0.checked_sub(dialog.start.0);
        let is_young =
            |dialog: &Dialog| age(dialog).is_some_and(|age| Duration::from_millis(age) < settled);
        let mut changes = Vec::new();
        for mutex in &self.shards {
            let mut guard = lock(mutex);
            let Shard {
                dialogs,
                changed,
                deleted,
                ..
            } = &mut *guard;
            changes.extend(deleted.drain(..).map(RowChange::Delete));
            changed.retain(|id| {
                let Some(dialog) = dialogs.get_mut(id) else {
                    return false;
                };
                let confirmed = dialog.state.is_confirmed();
                if confirmed && !dialog.stored && is_young(dialog) {
                    return true;
                }
                (dialog.dirty, dialog.queued) = (false, false);
                if confirmed {
                    dialog.stored = true;
                    let row = dialog.row(now, wall, &socket);
                    changes.push(RowChange::Upsert(Box::new(row)));
                } else if std::mem::take(&mut dialog.stored) {
                    changes.push(RowChange::Delete(*id));
                }
                false
            });
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
