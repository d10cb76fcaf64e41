//! The commands of dialogs and leases, under the names of OpenSIPS's dialog module.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sipbox_admin::{CommandError, Params};
use sipbox_core::dialog::{DialogId, LegView, View};
use sipbox_core::flow::TenantId;
use tokio::sync::oneshot;

use super::{Help, NodeCommands};
use crate::node::WorkerEvent;
use crate::snapshot::Snapshot;

/// The commands, by name.
pub(super) const COMMANDS: &[Help] = &[
    (
        "dlg_end_dlg",
        &["dialog_id", "extra_hdrs"],
        "end a dialog: BYE to both sides, or CANCEL before an answer; the id as in dlg_list, \
         as in `did`, or the Call-ID",
    ),
    (
        "dlg_list",
        &["callid", "from_tag", "index", "counter"],
        "dialogs: all, of one call, or so many from an index on",
    ),
    (
        "leases_audit",
        &[],
        "compare the leases that are counted with those that dialogs and transactions hold",
    ),
    (
        "leases_list",
        &["scope"],
        "how many leases of each key are held",
    ),
    (
        "list_all_profiles",
        &[],
        "profiles, and whether they have values",
    ),
    (
        "profile_get_size",
        &["profile", "value"],
        "how many dialogs are in a profile",
    ),
    (
        "profile_list_dlgs",
        &["profile", "value"],
        "the dialogs of a profile",
    ),
];

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn routes(leg: &LegView) -> String {
    let routes: Vec<String> = leg.routes.iter().map(text).collect();
    routes.join(",")
}

impl NodeCommands {
    /// What these commands do; `None`: it is none of them.
    pub(super) async fn dialog_command(
        &self,
        method: &str,
        params: &Params,
    ) -> Option<Result<Value, CommandError>> {
        Some(match method {
            "dlg_list" => self.dlg_list(params),
            "dlg_end_dlg" => self.dlg_end_dlg(params).await,
            "profile_get_size" => self.profile_get_size(params),
            "profile_list_dlgs" => self.profile_list_dlgs(params),
            "list_all_profiles" => Ok(self.list_all_profiles()),
            "leases_audit" => Ok(self.leases_audit()),
            "leases_list" => self.leases_list(params),
            _ => return None,
        })
    }

    /// Statistics of dialogs and leases.
    pub(super) fn dialog_statistics(&self, mut add: impl FnMut(&str, &str, u64)) {
        let count = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        let counts = self.node.stack.dialogs().counts();
        add("dialog", "active_dialogs", count(counts.active));
        add("dialog", "early_dialogs", count(counts.early));
        add("dialog", "processed_dialogs", counts.processed);
        add("dialog", "expired_dialogs", counts.expired);
        add("dialog", "failed_dialogs", counts.failed);
        let (held, reserved) = self.node.stack.leases().counts();
        add("leases", "held", held);
        add("leases", "reserved", reserved);
        let drift = self.node.lease_drift.load(Ordering::Relaxed);
        add("leases", "drift", drift);
    }

    fn views(&self, wanted: impl Fn(&View) -> bool) -> Vec<View> {
        let (now, _) = self.node.clock.now();
        let mut views = Vec::new();
        self.node.stack.dialogs().dump(None, now, |view| {
            if wanted(&view) {
                views.push(view);
            }
        });
        views.sort_by_key(|view| (view.start, view.id));
        views
    }

    fn dlg_list(&self, params: &Params) -> Result<Value, CommandError> {
        let snapshot = self.node.snapshot.load();
        if let Some(call_id) = params.text("callid", 0)? {
            let from_tag = params.text("from_tag", 1)?;
            let of_call = |view: &View| {
                view.call_id == call_id
                    && from_tag
                        .as_ref()
                        .is_none_or(|tag| view.caller.tag == *tag.as_bytes())
            };
            let found = self.views(of_call);
            if found.is_empty() {
                return Err(CommandError::NotFound("no such dialog".to_owned()));
            }
            let list: Vec<Value> = found
                .iter()
                .map(|view| self.shown(view, &snapshot))
                .collect();
            return Ok(json!({ "Dialogs": list }));
        }
        let index = params.number("index", 2)?;
        let counter = params.number("counter", 3)?;
        let views = self.views(|_| true);
        let all = views.len();
        let skip = usize::try_from(index.unwrap_or(0)).unwrap_or(usize::MAX);
        let take = counter.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let list: Vec<Value> = views
            .iter()
            .skip(skip)
            .take(take)
            .map(|view| self.shown(view, &snapshot))
            .collect();
        Ok(match (index, counter) {
            (None, None) => json!({ "Dialogs": list }),
            _ => json!({ "count": all, "Dialogs": list }),
        })
    }

    /// A dialog under OpenSIPS's keys.
    fn shown(&self, view: &View, snapshot: &Snapshot) -> Value {
        let socket = |leg: &LegView| {
            leg.flow
                .map(|flow| snapshot.socket(flow).to_string())
                .unwrap_or_default()
        };
        let callees: Vec<Value> = view
            .callees
            .iter()
            .map(|leg| {
                json!({
                    "callee_tag": text(&leg.tag),
                    "callee_contact": text(&leg.contact),
                    "callee_cseq": leg.cseq.to_string(),
                    "callee_route_set": routes(leg),
                    "callee_bind_addr": socket(leg),
                })
            })
            .collect();
        let pairs = |pairs: &[(String, String)]| {
            let pairs = pairs
                .iter()
                .map(|(name, value)| (name.clone(), json!(value)));
            Value::Object(pairs.collect::<Map<String, Value>>())
        };
        let list = |pairs: &[(String, String)]| -> Vec<Value> {
            let shown = pairs
                .iter()
                .map(|(name, value)| json!({ "name": name, "value": value }));
            shown.collect()
        };
        let wall = self.wall().seconds();
        json!({
            "ID": view.id.0.to_string(),
            "db_id": view.id.0.to_string(),
            "did": view.id.to_string(),
            "Tenant": &*view.tenant_name,
            "state": view.state.number(),
            "user_flags": view.flags,
            "timestart": view.start.seconds(),
            "timeout": wall.saturating_add(view.left),
            "callid": text(&view.call_id),
            "from_uri": text(&view.from_uri),
            "to_uri": text(&view.to_uri),
            "caller_tag": text(&view.caller.tag),
            "caller_contact": text(&view.caller.contact),
            "caller_cseq": view.caller.cseq.to_string(),
            "caller_route_set": routes(&view.caller),
            "caller_bind_addr": socket(&view.caller),
            "CALLEES": callees,
            "values": pairs(&view.vars),
            "profiles": list(&view.profiles),
            "leases": list(&view.leases),
        })
    }

    async fn dlg_end_dlg(&self, params: &Params) -> Result<Value, CommandError> {
        let wanted = params.required("dialog_id", 0)?;
        let extra = match params.text("extra_hdrs", 1)? {
            None => Vec::new(),
            Some(text) => fields(&text)?,
        };
        let (now, _) = self.node.clock.now();
        let named = DialogId::parse(wanted.as_bytes());
        let dialogs = self.node.stack.dialogs();
        let id = named
            .filter(|id| dialogs.view(*id, now).is_some())
            .or_else(|| {
                let of_call = self.views(|view| view.call_id == wanted);
                of_call.first().map(|view| view.id)
            });
        let missing = || CommandError::NotFound(format!("no dialog `{wanted}`"));
        let id = id.ok_or_else(missing)?;
        let (answer, answered) = oneshot::channel();
        let event = WorkerEvent::EndDialog(id, extra, answer);
        self.node.tell(0, event).await;
        match answered.await {
            Ok(true) => Ok(json!("OK")),
            _ => Err(missing()),
        }
    }

    fn profile_get_size(&self, params: &Params) -> Result<Value, CommandError> {
        let profile = params.required("profile", 0)?;
        let value = params.text("value", 1)?.unwrap_or_default();
        let snapshot = self.node.snapshot.load();
        let held = |tenant| {
            let profiles = self.node.stack.dialogs().profiles();
            profiles.held(tenant, &profile, &value)
        };
        let count: u64 = snapshot
            .tenants()
            .map(|tenant| u64::from(held(tenant.id)))
            .sum();
        Ok(json!({ "Profile": { "name": profile, "value": value, "count": count } }))
    }

    fn profile_list_dlgs(&self, params: &Params) -> Result<Value, CommandError> {
        let profile = params.required("profile", 0)?;
        let value = params.text("value", 1)?.unwrap_or_default();
        let snapshot = self.node.snapshot.load();
        let found = self.views(|view| view.is_in(&profile, &value));
        let list: Vec<Value> = found
            .iter()
            .map(|view| self.shown(view, &snapshot))
            .collect();
        Ok(json!({ "Dialogs": list }))
    }

    fn list_all_profiles(&self) -> Value {
        let mut profiles = std::collections::BTreeMap::<String, bool>::new();
        for (key, _) in self.node.stack.dialogs().profiles().list(None) {
            *profiles.entry(key.scope.into()).or_default() |= !key.key.is_empty();
        }
        let list: Vec<Value> = profiles
            .into_iter()
            .map(|(name, has_value)| json!({ "name": name, "has value": has_value }))
            .collect();
        json!({ "Profiles": list })
    }

    fn tenant_name(&self, tenant: TenantId) -> String {
        let snapshot = self.node.snapshot.load();
        let tenant = snapshot.tenant(tenant);
        tenant
            .map(|tenant| tenant.name.to_string())
            .unwrap_or_default()
    }

    fn leases_audit(&self) -> Value {
        let audit = self.node.stack.audit_leases();
        let drift: Vec<Value> = audit
            .drift
            .iter()
            .map(|(key, by)| {
                json!({
                    "Tenant": self.tenant_name(key.tenant),
                    "scope": &*key.scope,
                    "key": &*key.key,
                    "by": by,
                })
            })
            .collect();
        json!({
            "held": audit.held,
            "reserved": audit.reserved,
            "drift": audit.drift(),
            "keys": drift,
        })
    }

    fn leases_list(&self, params: &Params) -> Result<Value, CommandError> {
        let scope = params.text("scope", 0)?;
        let mut list = self.node.stack.leases().list(None);
        list.retain(|(key, _)| scope.as_ref().is_none_or(|scope| **scope == *key.scope));
        list.sort_by(|(a, _), (b, _)| (&a.scope, &a.key).cmp(&(&b.scope, &b.key)));
        let list: Vec<Value> = list
            .iter()
            .map(|(key, held)| {
                json!({
                    "Tenant": self.tenant_name(key.tenant),
                    "scope": &*key.scope,
                    "key": &*key.key,
                    "held": held,
                })
            })
            .collect();
        Ok(json!({ "Leases": list }))
    }
}

/// Header fields, one in a line.
fn fields(text: &str) -> Result<Vec<(String, String)>, CommandError> {
    let malformed = |line: &str| CommandError::Params(format!("`extra_hdrs`: `{line}`"));
    let lines = text.split(['\r', '\n']).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (name, value) = line.split_once(':').ok_or_else(|| malformed(line))?;
            let (name, value) = (name.trim(), value.trim());
            let fits = sipbox_sip::lex::is_token(name.as_bytes())
                && sipbox_sip::lex::is_field_value(value.as_bytes());
            fits.then(|| (name.to_owned(), value.to_owned()))
                .ok_or_else(|| malformed(line))
        })
        .collect()
}
