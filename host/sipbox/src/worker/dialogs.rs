//! Dialogs on a worker: what policies wanted of them, what is due, and the hook that is
//! told what became of them, of one dialog by one worker at a time.

use std::fmt;
use std::sync::Arc;

use sipbox_core::chain::ChainRun;
use sipbox_core::dialog::{DialogId, Notice};
use sipbox_core::flow::Flow;
use sipbox_core::policy::{
    DialogOp, Direction, Effect, Facts, RouteOutcome, RouteParams, RouteSignature,
};
use sipbox_wasm::ChainHost;
use smallvec::SmallVec;

use super::Worker;
use super::confined::{Confined, Turn};
use crate::node::Node;
use crate::snapshot::Tenant;
use crate::{dialogs, shared};

/// Something that is being told of a dialog. Nothing else of it is told until this is
/// dropped.
pub(crate) struct Telling {
    node: Arc<Node>,
    notice: Notice,
}

impl Telling {
    /// The next thing to tell of a dialog, if nobody else is at it.
    fn next(node: &Arc<Node>, dialog: DialogId) -> Option<Self> {
        let notice = node.stack.dialogs().next_notice(dialog)?;
        Some(Self {
            node: Arc::clone(node),
            notice,
        })
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.node.stack.dialogs().told(self.notice.dialog.id);
    }
}

impl fmt::Debug for Telling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Telling").field(&self.notice).finish()
    }
}

impl Worker {
    /// Makes changes of a dialog whose verdict counts.
    pub(super) fn change_dialog(&mut self, id: DialogId, ops: Vec<DialogOp>) {
        let node = Arc::clone(&self.node);
        let dialogs = node.stack.dialogs();
        for op in ops {
            match op {
                DialogOp::Create(_) => {}
                DialogOp::SetVar { name, value } => dialogs.set_var(id, &name, &value),
                DialogOp::SetFlag { name, on } => {
                    dialogs.set_flag(id, &name, on);
                }
                DialogOp::Join {
                    profile,
                    value,
                    clear,
                } => dialogs.join(id, &profile, &value, clear),
                DialogOp::Leave { profile, value } => dialogs.leave(id, &profile, &value),
                DialogOp::Timeout(seconds) => {
                    let snapshot = node.snapshot.load();
                    self.step(&snapshot, |env, _| {
                        node.stack.set_dialog_timeout(env, id, seconds);
                    });
                }
                DialogOp::End(extra) => {
                    self.end_dialog(id, &extra);
                }
            }
        }
    }

    /// Ends a dialog; `false`: there was nothing to end.
    pub(super) fn end_dialog(&mut self, id: DialogId, extra: &[(String, String)]) -> bool {
        let node = Arc::clone(&self.node);
        let snapshot = node.snapshot.load();
        let mut ended = false;
        self.step(&snapshot, |env, out| {
            ended = node.stack.end_dialog(env, id, extra, out);
        });
        ended
    }

    /// What `on-branch` or `on-reply` staged, whose answer counts.
    pub(super) fn commit_effects(
        &mut self,
        dialog: Option<DialogId>,
        effects: SmallVec<[Effect; 1]>,
    ) {
        shared::commit_writes(&self.node, &effects);
        let mut ops = Vec::new();
        for effect in effects {
            match effect {
                Effect::Dialog(op) => ops.push(op),
                Effect::Release(lease) => lease.end(),
                // Committed above, the last one of each key.
                Effect::Kv(_) => {}
                // Out of place in these hooks.
                Effect::SaveLocation { .. }
                | Effect::RemoveLocation { .. }
                | Effect::Challenge(_) => {}
            }
        }
        if let Some(id) = dialog
            && !ops.is_empty()
        {
            self.change_dialog(id, ops);
        }
    }

    /// What dialogs have to do by themselves.
    pub(super) fn dialogs_due(&mut self) {
        let node = Arc::clone(&self.node);
        let snapshot = node.snapshot.load();
        self.step(&snapshot, |env, out| node.stack.dialogs_due(env, out));
    }

    /// Tells the first thing that is untold of the first dialog; if there is none, or
    /// somebody else is at it, who will find the others, that dialog is done with.
    pub(super) fn tell_news(&mut self, dialog: DialogId) {
        match Telling::next(&self.node, dialog) {
            Some(telling) => self.tell(telling),
            None => {
                self.news.pop_front();
            }
        }
    }

    /// Tells the policies of a tenant what became of a dialog.
    pub(super) fn tell(&mut self, telling: Telling) {
        let notice = &telling.notice;
        let Some(tenant) = self.node.snapshot.load().tenant(notice.tenant).cloned() else {
            return;
        };
        match self.turn(&tenant) {
            Turn::Now => self.tell_of_dialog(&tenant, notice),
            Turn::Later(id, place) => {
                self.node
                    .tell_confined(Confined::Telling(id, Box::new(telling), place));
            }
            Turn::Never(_) => {
                tracing::warn!(
                    tenant = &*tenant.name,
                    dialog = %notice.dialog.id,
                    "a confined tenant is not told what became of a dialog"
                );
            }
        }
    }

    /// What the worker of confined tenants does with what it was given.
    pub(super) fn tell_in_turn(&mut self, telling: Telling) {
        // What came behind it waits for this to be told, and nobody else looks for it.
        self.news.push_back(telling.notice.dialog.id);
        self.tell(telling);
    }

    fn tell_of_dialog(&mut self, tenant: &Arc<Tenant>, notice: &Notice) {
        let (_, wall) = self.node.clock.now();
        let flow = notice.dialog.caller.flow;
        let (Some((event, request)), Some(flow)) = (dialogs::told(notice, wall), flow) else {
            return;
        };
        let facts = Arc::new(self.facts_of(tenant, notice, flow));
        let capabilities = self.capabilities(tenant, Vec::new());
        let mut host = ChainHost::new(&mut self.pools, &tenant.chain);
        let told = ChainRun {
            host: &mut host,
            policies: tenant.chain.len(),
            facts: Arc::clone(&facts),
            capabilities,
        }
        .on_dialog(request, &event);
        shared::commit_writes(&self.node, &told.effects);
        for failed in &told.failed {
            super::questions::log_failed(tenant, &facts, "on-dialog", Some(failed));
        }
    }

    fn facts_of(&self, tenant: &Tenant, notice: &Notice, flow: Flow) -> Facts {
        let snapshot = self.node.snapshot.load();
        let listener = snapshot.settings.listener(flow.listener);
        Facts {
            tenant: tenant.id,
            tenant_name: Arc::clone(&tenant.name),
            listener_name: listener.map_or_else(|| "".into(), |known| Arc::clone(&known.name)),
            flow,
            now: self.node.clock.now().1,
            in_dialog: false,
            direction: Direction::Unknown,
            route_outcome: RouteOutcome::None,
            route_params: RouteParams::new(),
            route_signature: RouteSignature::None,
            leaves: None,
            dialog: Some(sipbox_core::dialog::Known {
                id: notice.dialog.id,
                from: sipbox_core::dialog::Side::Caller,
            }),
        }
    }
}
