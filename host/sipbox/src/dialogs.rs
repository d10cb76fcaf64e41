//! What policies want of dialogs, and what they are told of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use sipbox_core::dialog::{
    DID_PARAM, DialogId, DialogRow, DialogTie, Loaded, NewDialog, Notice, Side, View, Wanted,
};
use sipbox_core::lease::LeaseTable;
use sipbox_core::policy::{CallState, DialogCall, DialogOp, Facts, Hook};
use sipbox_core::time::WallTime;
use sipbox_sip::build::RequestBuilder;
use sipbox_sip::{Method, OwnedMessage};
use sipbox_store::Store;

use crate::capabilities::seen;
use crate::node::Node;
use crate::snapshot::{Snapshot, Tenant};

/// What is to become of the dialog of a call. One that is to begin goes into `state`, and
/// begins when the verdict is carried out; what is left is for one that is there.
pub(crate) fn changes(
    node: &Node,
    tenant: &Tenant,
    facts: &Arc<Facts>,
    request: &OwnedMessage,
    state: &mut CallState,
    mut ops: Vec<DialogOp>,
    records: bool,
) -> Option<(DialogId, Vec<DialogOp>)> {
    if records && counts_calls(node, tenant, facts, request) {
        ops.push(DialogOp::Create(Wanted::default()));
    }
    if ops.is_empty() {
        return None;
    }
    let there = state.dialog.as_ref().map(|tie| tie.id);
    if let Some(id) = there.or_else(|| facts.dialog.map(|known| known.id)) {
        ops.retain(|op| !matches!(op, DialogOp::Create(_)));
        return (!ops.is_empty()).then_some((id, ops));
    }
    let wanted = ops.iter().find_map(|op| match op {
        DialogOp::Create(wanted) => Some(*wanted),
        _ => None,
    })?;
    let dialogs = node.stack.dialogs();
    let call_id = request.as_ref().call_id().unwrap_or_default();
    let id = dialogs.reserve(tenant.id, call_id);
    let new = new_dialog(id, wanted, &ops, dialogs.profiles(), tenant, facts);
    state
        .route_params
        .push((DID_PARAM.to_owned(), id.to_string()));
    let new = Some(Arc::new(new));
    state.dialog = Some(DialogTie { id, new });
    None
}

/// Whether the host follows a call by itself: it counts in the quota of its tenant.
fn counts_calls(node: &Node, tenant: &Tenant, facts: &Facts, request: &OwnedMessage) -> bool {
    let quota = || {
        let snapshot = node.snapshot.load();
        let known = snapshot.settings.tenant(tenant.id);
        known.is_some_and(|known| known.quota.calls.is_some())
    };
    !facts.in_dialog && request.as_ref().method() == Method::Invite && quota()
}

fn new_dialog(
    id: DialogId,
    wanted: Wanted,
    ops: &[DialogOp],
    profiles: &LeaseTable,
    tenant: &Tenant,
    facts: &Arc<Facts>,
) -> NewDialog {
    let mut view = sipbox_core::policy::DialogView {
        id: String::new(),
        state: sipbox_core::dialog::State::Unconfirmed,
        from: None,
        lasted: 0,
        left: 0,
        vars: Vec::new(),
        flags: Vec::new(),
        profiles: Vec::new(),
    };
    let mut wanted = wanted;
    for op in ops {
        view.staged(op);
        if let DialogOp::Timeout(seconds) = op {
            wanted.timeout = Some(*seconds);
        }
    }
    let seat = |(profile, value): &(String, String)| profiles.take_among(tenant.id, profile, value);
    NewDialog {
        id,
        wanted,
        profiles: view.profiles.iter().map(seat).collect(),
        vars: view.vars,
        flags: view.flags,
        watched: tenant.is_told_of_dialogs(),
        facts: Arc::clone(facts),
    }
}

impl Tenant {
    /// Whether one of its policies wants to know what becomes of dialogs.
    pub(crate) fn is_told_of_dialogs(&self) -> bool {
        (0..self.chain.len()).any(|policy| self.chain.exports(policy, Hook::Dialog))
    }
}

impl Node {
    /// Takes over the dialogs of the table.
    pub(crate) fn load_dialogs(&self, rows: Vec<DialogRow>) {
        let snapshot = self.snapshot.load();
        let tenant = |name: &str| {
            let tenant = snapshot.tenants().find(|tenant| *tenant.name == *name)?;
            Some((tenant.id, Arc::clone(&tenant.name)))
        };
        let home = |socket: &str| {
            let home = snapshot.home_of(socket)?;
            let listener = snapshot.settings.listener(home.0)?;
            Some((home, listener.transport))
        };
        let dialogs = self.stack.dialogs();
        let loaded = dialogs.load(rows, self.clock.now(), &snapshot.settings, tenant, home);
        self.watch_dialogs(&snapshot);
        if loaded != Loaded::default() {
            tracing::info!(
                dialogs = loaded.dialogs,
                over = loaded.over,
                foreign = loaded.foreign,
                "dialogs restored"
            );
        }
    }

    /// Finds out anew whose policies are told of dialogs that are there already.
    pub(crate) fn watch_dialogs(&self, snapshot: &Snapshot) {
        self.stack.dialogs().watch(|id| {
            let tenant = snapshot.tenant(id);
            tenant.is_some_and(|tenant| tenant.is_told_of_dialogs())
        });
    }

    /// Compares what leases count with what calls hold. A difference is a fault of ours.
    pub(crate) fn audit_leases(&self) {
        let audit = self.stack.audit_leases();
        self.lease_drift.store(audit.drift(), Ordering::Relaxed);
        for (key, by) in &audit.drift {
            tracing::error!(
                tenant = key.tenant.0,
                scope = &*key.scope,
                key = &*key.key,
                by,
                "a lease counts what nobody holds"
            );
        }
    }

    /// Writes what has changed since the last time. Who comes second waits, so that an
    /// older state of a dialog is never written over a newer one.
    /// Calls that were answered less than `settled` ago wait for the next time.
    pub(crate) async fn store_dialogs(&self, store: &Store, settled: Duration) {
        let _one_at_a_time = self.storing_dialogs.lock().await;
        let snapshot = self.snapshot.load_full();
        let dialogs = self.stack.dialogs();
        let socket = |flow| snapshot.socket(flow);
        let changes = dialogs.take_changes(self.clock.now(), settled, socket);
        if changes.is_empty() {
            return;
        }
        if let Err(error) = store.write_dialogs(&changes).await {
            tracing::error!(%error, changes = changes.len(), "dialogs were not stored");
            dialogs.take_back(changes);
        }
    }
}

/// What `on-dialog` is told, and the request that it sees: as the INVITE was, without
/// what nobody kept.
pub(crate) fn told(notice: &Notice, now: WallTime) -> Option<(DialogCall, OwnedMessage)> {
    let dialog = &*notice.dialog;
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let callee = dialog.callees.first();
    let call = DialogCall {
        change: notice.change,
        call_id: text(&dialog.call_id),
        from_uri: text(&dialog.from_uri),
        to_uri: text(&dialog.to_uri),
        from_tag: text(&dialog.caller.tag),
        to_tag: callee.map(|leg| text(&leg.tag)).unwrap_or_default(),
        start: u32::try_from(dialog.start.seconds()).unwrap_or(u32::MAX),
        dialog: seen(dialog, Some(Side::Caller), now),
    };
    Some((call, stand_in(dialog)?))
}

fn stand_in(dialog: &View) -> Option<OwnedMessage> {
    let from = [b"<", &*dialog.from_uri, b">;tag=", &*dialog.caller.tag].concat();
    let to = [b"<", &*dialog.to_uri, b">"].concat();
    let mut text = Vec::new();
    RequestBuilder::new(b"INVITE", &dialog.to_uri)
        .header(
            &b"Via"[..],
            b"SIP/2.0/UDP dialog.invalid;branch=z9hG4bKdialog",
        )
        .header(&b"From"[..], &from)
        .header(&b"To"[..], &to)
        .header(&b"Call-ID"[..], &dialog.call_id)
        .cseq(dialog.caller.cseq)
        .write(&mut text)
        .ok()?;
    OwnedMessage::parse(text.into()).ok()
}
