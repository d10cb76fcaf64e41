//! A dialog as others see it: policies, commands, the table.

use std::sync::Arc;

use bytes::Bytes;

use super::event::EndReason;
use super::id::DialogId;
use super::leg::Leg;
use super::options::Wanted;
use super::record::Dialog;
use super::state::State;
use crate::flow::{Flow, TenantId};
use crate::time::{Time, WallTime};

/// One end of a dialog.
#[derive(Clone, Debug, Default)]
pub struct LegView {
    /// Its tag.
    pub tag: Bytes,
    /// The last CSeq number that came from it.
    pub cseq: u32,
    /// The CSeq number of our last OPTIONS to it.
    pub ping_cseq: u32,
    /// Where it is.
    pub contact: Bytes,
    /// The route set towards it, first hop first.
    pub routes: Vec<Bytes>,
    /// How it was heard.
    pub flow: Option<Flow>,
    /// Whether it is reached by that flow alone.
    pub by_flow: bool,
}

impl From<&Leg> for LegView {
    fn from(leg: &Leg) -> Self {
        Self {
            tag: leg.tag.clone(),
            cseq: leg.cseq,
            ping_cseq: leg.ping_cseq,
            contact: leg.contact.clone(),
            routes: leg.routes.clone(),
            flow: leg.flow,
            by_flow: leg.by_flow,
        }
    }
}

/// A dialog at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// Its name.
    pub id: DialogId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The tenant's name.
    pub tenant_name: Arc<str>,
    /// Where it stands.
    pub state: State,
    /// Why it ended, if it did.
    pub reason: Option<EndReason>,
    /// The Call-ID.
    pub call_id: Bytes,
    /// The URI in From of the INVITE.
    pub from_uri: Bytes,
    /// The URI in To of the INVITE.
    pub to_uri: Bytes,
    /// The caller.
    pub caller: LegView,
    /// The callees, the one that answered first.
    pub callees: Vec<LegView>,
    /// When it began, or was answered.
    pub start: WallTime,
    /// Seconds until its time is over.
    pub left: u64,
    /// What is wanted of it.
    pub wanted: Wanted,
    /// Variables, in the order of their first setting.
    pub vars: Vec<(String, String)>,
    /// The names of the flags that are set.
    pub flags: Vec<String>,
    /// Its memberships: profile and value.
    pub profiles: Vec<(String, String)>,
    /// Its leases: scope and key.
    pub leases: Vec<(String, String)>,
}

impl View {
    /// The value of a variable.
    #[must_use]
    pub fn var(&self, name: &str) -> Option<&str> {
        let var = self.vars.iter().find(|(known, _)| known == name);
        var.map(|(_, value)| value.as_str())
    }

    /// Whether a flag is set.
    #[must_use]
    pub fn has_flag(&self, name: &str) -> bool {
        self.flags.iter().any(|flag| flag == name)
    }

    /// Whether it is in a profile; with any value if `value` is empty.
    #[must_use]
    pub fn is_in(&self, profile: &str, value: &str) -> bool {
        let is =
            |(name, of): &(String, String)| name == profile && (value.is_empty() || of == value);
        self.profiles.iter().any(is)
    }
}

impl Dialog {
    pub(super) fn view(&self, now: Time) -> View {
        let first = self.answered.unwrap_or(0);
        let (before, from) = self.callees.split_at(first.min(self.callees.len()));
        let callees = from.iter().take(1).chain(before).chain(from.iter().skip(1));
        let pair = |lease: &crate::lease::Lease| {
            let key = lease.key();
            (key.scope.to_string(), key.key.to_string())
        };
        View {
            id: self.id,
            tenant: self.tenant,
            tenant_name: Arc::clone(&self.tenant_name),
            state: self.state,
            reason: self.reason,
            call_id: self.call_id.clone(),
            from_uri: self.from_uri.clone(),
            to_uri: self.to_uri.clone(),
            caller: LegView::from(&self.caller),
            callees: callees.map(LegView::from).collect(),
            start: self.start,
            left: self.ends.since(now).as_secs(),
            wanted: self.wanted,
            vars: self.vars.clone(),
            flags: self.flags.clone(),
            profiles: self.profiles.iter().map(pair).collect(),
            leases: self
                .leases
                .iter()
                .filter(|lease| !lease.is_ended())
                .map(pair)
                .collect(),
        }
    }
}
