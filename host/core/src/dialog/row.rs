//! The table `dialog`: its rows, and what is to be written to it.
//!
//! The columns are OpenSIPS's. What they have no place for (the tenant, leases, the
//! flow of a phone behind a NAT, times of its own) stands among the variables, under
//! names with a colon in front, which no policy can set.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use sipbox_sip::Transport;

use super::id::DialogId;
use super::leg::Leg;
use super::options::Wanted;
use super::record::Dialog;
use super::state::State;
use crate::flow::{Flow, Home, TenantId};
use crate::lease::LeaseTable;
use crate::time::{Time, WallTime};

/// A row of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the columns of the table, under its names")]
pub struct DialogRow {
    pub dlg_id: u64,
    pub callid: String,
    pub from_uri: String,
    pub from_tag: String,
    pub to_uri: String,
    pub to_tag: String,
    pub mangled_from_uri: Option<String>,
    pub mangled_to_uri: Option<String>,
    pub caller_cseq: String,
    pub callee_cseq: String,
    pub caller_ping_cseq: u32,
    pub callee_ping_cseq: u32,
    pub caller_route_set: Option<String>,
    pub callee_route_set: Option<String>,
    pub caller_contact: Option<String>,
    pub callee_contact: Option<String>,
    pub caller_sock: String,
    pub callee_sock: String,
    pub state: u32,
    pub start_time: u64,
    pub timeout: u64,
    pub vars: Option<Vec<u8>>,
    pub profiles: Option<String>,
    pub script_flags: Option<String>,
    pub module_flags: u32,
    pub flags: u32,
    pub rt_on_answer: Option<String>,
    pub rt_on_timeout: Option<String>,
    pub rt_on_hangup: Option<String>,
}

/// What the table does not have yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowChange {
    /// The row as it is now.
    Upsert(Box<DialogRow>),
    /// It has gone.
    Delete(DialogId),
}

/// What [`super::DialogService::load`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Rows that are dialogs now.
    pub dialogs: usize,
    /// Rows of calls that are over, which are removed.
    pub over: usize,
    /// Rows that are not ours, or whose tenant is not configured. They stay.
    pub foreign: usize,
}

/// Why a row makes no dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// The call is over, or was never answered.
    Over,
    /// Others wrote it, or its tenant is not there now.
    Foreign,
}

/// How long the row of a call whose time is over is left to a tenant that is not there.
const LEFT_BEHIND: u64 = 86_400;

const TENANT: &str = ":tenant";
const LEASE: &str = ":lease";
const TIMEOUT: &str = ":timeout";
const DELETE_DELAY: &str = ":delete-delay";
const PING_INTERVAL: &str = ":ping-interval";
const CALLER: &str = ":caller";
const CALLEE: &str = ":callee";
/// Between scope and key: neither has control characters.
const APART: char = '\n';

/// `name#value|name#value`, with a backslash before these signs where they are meant.
fn pack(pairs: &[(String, String)]) -> String {
    let mut text = String::new();
    let mut push = |part: &str, end: char| {
        for c in part.chars() {
            if matches!(c, '\\' | '#' | '|') {
                text.push('\\');
            }
            text.push(c);
        }
        text.push(end);
    };
    for (name, value) in pairs {
        push(name, '#');
        push(value, '|');
    }
    text
}

fn unpack(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let (mut name, mut part) = (String::new(), String::new());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => part.extend(chars.next()),
            '#' => name = std::mem::take(&mut part),
            '|' => pairs.push((std::mem::take(&mut name), std::mem::take(&mut part))),
            c => part.push(c),
        }
    }
    pairs
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn joined(routes: &[Bytes]) -> Option<String> {
    let routes: Vec<String> = routes.iter().map(text).collect();
    some(routes.join(","))
}

/// The values of a route set, in whose URIs commas may stand.
fn split(routes: &str) -> Vec<Bytes> {
    let mut values = Vec::new();
    let (mut begin, mut inside) = (0, false);
    for (at, c) in routes.char_indices() {
        match c {
            '<' => inside = true,
            '>' => inside = false,
            ',' if !inside => {
                values.push(routes.get(begin..at).unwrap_or_default());
                begin = at + 1;
            }
            _ => {}
        }
    }
    values.push(routes.get(begin..).unwrap_or_default());
    values
        .into_iter()
        .filter(|value| !value.is_empty())
        .map(|value| Bytes::copy_from_slice(value.as_bytes()))
        .collect()
}

/// The flow that alone leads to a side, of those that outlive a restart.
fn peer(leg: &Leg) -> Option<String> {
    let flow = leg
        .flow
        .filter(|flow| leg.by_flow && flow.connection.is_none())?;
    Some(flow.peer.to_string())
}

impl Dialog {
    pub(super) fn row(
        &self,
        now: Time,
        wall: WallTime,
        socket: &dyn Fn(Flow) -> Arc<str>,
    ) -> DialogRow {
        let none = Leg::default();
        let callee = self.callee().unwrap_or(&none);
        let sock = |leg: &Leg| match (leg.flow, &leg.socket) {
            (Some(flow), _) => socket(flow).to_string(),
            (None, Some(socket)) => socket.to_string(),
            (None, None) => String::new(),
        };
        DialogRow {
            dlg_id: self.id.0,
            callid: text(&self.call_id),
            from_uri: text(&self.from_uri),
            from_tag: text(&self.caller.tag),
            to_uri: text(&self.to_uri),
            to_tag: text(&callee.tag),
            caller_cseq: self.caller.cseq.to_string(),
            callee_cseq: callee.cseq.to_string(),
            caller_ping_cseq: self.caller.ping_cseq,
            callee_ping_cseq: callee.ping_cseq,
            caller_route_set: joined(&self.caller.routes),
            callee_route_set: joined(&callee.routes),
            caller_contact: some(text(&self.caller.contact)),
            callee_contact: some(text(&callee.contact)),
            caller_sock: sock(&self.caller),
            callee_sock: sock(callee),
            state: self.state.number(),
            start_time: self.start.seconds(),
            timeout: wall
                .seconds()
                .saturating_add(self.ends.since(now).as_secs()),
            vars: Some(pack(&self.kept(callee)).into_bytes()),
            profiles: some(pack(&pairs(&self.profiles))),
            script_flags: some(self.flags.join(" ")),
            flags: self.wanted.bits(),
            ..DialogRow::default()
        }
    }

    /// The variables, and what has no column.
    fn kept(&self, callee: &Leg) -> Vec<(String, String)> {
        let mut kept = vec![(TENANT.to_owned(), self.tenant_name.to_string())];
        let live = self.leases.iter().filter(|lease| !lease.is_ended());
        kept.extend(live.map(|lease| {
            let key = lease.key();
            (LEASE.to_owned(), format!("{}{APART}{}", key.scope, key.key))
        }));
        for (name, seconds) in [
            (TIMEOUT, self.wanted.timeout),
            (DELETE_DELAY, self.wanted.delete_delay),
            (PING_INTERVAL, self.wanted.ping_interval),
        ] {
            kept.extend(seconds.map(|seconds| (name.to_owned(), seconds.to_string())));
        }
        for (name, leg) in [(CALLER, &self.caller), (CALLEE, callee)] {
            kept.extend(peer(leg).map(|peer| (name.to_owned(), peer)));
        }
        kept.extend(self.vars.iter().cloned());
        kept
    }
}

fn pairs(leases: &[crate::lease::Lease]) -> Vec<(String, String)> {
    let pair = |lease: &crate::lease::Lease| {
        let key = lease.key();
        (key.scope.to_string(), key.key.to_string())
    };
    leases.iter().map(pair).collect()
}

/// Finds a tenant by its name.
type TenantOf<'a> = &'a dyn Fn(&str) -> Option<(TenantId, Arc<str>)>;
/// Finds the listener of a socket's text.
type HomeOf<'a> = &'a dyn Fn(&str) -> Option<(Home, Transport)>;

/// What a row is turned into a dialog with.
pub(super) struct Context<'a> {
    pub(super) now: Time,
    pub(super) wall: WallTime,
    pub(super) tenant: TenantOf<'a>,
    pub(super) home: HomeOf<'a>,
    pub(super) leases: &'a LeaseTable,
    pub(super) profiles: &'a LeaseTable,
}

/// The columns of one side.
struct LegRow {
    tag: String,
    cseq: String,
    ping_cseq: u32,
    contact: Option<String>,
    routes: Option<String>,
    socket: String,
    peer: Option<SocketAddr>,
}

impl LegRow {
    fn into_leg(self, context: &Context<'_>) -> Leg {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let home = (context.home)(&self.socket);
        let flow = home.map(|((listener, local), transport)| Flow {
            listener,
            transport,
            peer: self.peer.unwrap_or(nowhere),
            connection: None,
            local,
        });
        let routes = self.routes.as_deref().map(split);
        Leg {
            tag: Bytes::from(self.tag),
            cseq: self.cseq.parse().unwrap_or(0),
            contact: Bytes::from(self.contact.unwrap_or_default()),
            routes: routes.unwrap_or_default(),
            by_flow: flow.is_some() && self.peer.is_some(),
            flow,
            socket: Some(self.socket.into()),
            probing: false,
            unsent: 0,
            ping_cseq: self.ping_cseq,
        }
    }
}

impl DialogRow {
    /// The dialog of a row. What others wrote into the table is not ours to judge.
    pub(super) fn into_dialog(self, context: &Context<'_>) -> Result<Dialog, Unread> {
        let kept = self.vars.unwrap_or_default();
        let kept = String::from_utf8(kept).map_err(|_| Unread::Foreign)?;
        let kept = unpack(&kept);
        let value = |name: &str| {
            let found = kept.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.as_str())
        };
        let seconds = |name| value(name).and_then(|value| value.parse().ok());
        let name = value(TENANT).ok_or(Unread::Foreign)?;
        let Some((tenant, tenant_name)) = (context.tenant)(name) else {
            let over = self.timeout.saturating_add(LEFT_BEHIND) < context.wall.seconds();
            return Err(if over { Unread::Over } else { Unread::Foreign });
        };
        let state = State::from_number(self.state).filter(|state| state.is_confirmed());
        let state = state.ok_or(Unread::Over)?;
        let peer = |name| value(name).and_then(|peer| peer.parse().ok());
        let caller = LegRow {
            tag: self.from_tag,
            cseq: self.caller_cseq,
            ping_cseq: self.caller_ping_cseq,
            contact: self.caller_contact,
            routes: self.caller_route_set,
            socket: self.caller_sock,
            peer: peer(CALLER),
        };
        let callee = LegRow {
            tag: self.to_tag,
            cseq: self.callee_cseq,
            ping_cseq: self.callee_ping_cseq,
            contact: self.callee_contact,
            routes: self.callee_route_set,
            socket: self.callee_sock,
            peer: peer(CALLEE),
        };
        let leases = kept.iter().filter(|(name, _)| name == LEASE);
        let leases = leases.filter_map(|(_, value)| {
            let (scope, key) = value.split_once(APART)?;
            let lease = context.leases.take(tenant, scope, key);
            lease.commit();
            Some(lease)
        });
        let leases = leases.collect();
        let profiles = unpack(self.profiles.as_deref().unwrap_or_default());
        let profiles = profiles.iter().map(|(profile, value)| {
            let seat = context.profiles.take_among(tenant, profile, value);
            seat.commit();
            seat
        });
        let left = self.timeout.saturating_sub(context.wall.seconds());
        Ok(Dialog {
            call_id: Bytes::from(self.callid),
            from_uri: Bytes::from(self.from_uri),
            to_uri: Bytes::from(self.to_uri),
            caller: caller.into_leg(context),
            callees: std::iter::once(callee.into_leg(context)).collect(),
            answered: Some(0),
            state,
            start: WallTime::from_seconds(self.start_time),
            wanted: Wanted {
                timeout: seconds(TIMEOUT),
                delete_delay: seconds(DELETE_DELAY),
                ping_interval: seconds(PING_INTERVAL),
                ..Wanted::from_bits(self.flags)
            },
            profiles: profiles.collect(),
            leases,
            flags: self
                .script_flags
                .unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
            ends: context.now + std::time::Duration::from_secs(left),
            vars: kept
                .iter()
                .filter(|(name, _)| !name.starts_with(':'))
                .cloned()
                .collect(),
            ..Dialog::empty(DialogId(self.dlg_id), tenant, tenant_name)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let pairs = [
            pair("plain", "value"),
            pair("", ""),
            pair("a#b|c\\d", "x|y#z\\"),
            pair(":lease", "user\nalice@example.com"),
        ];
        assert_eq!(pack(&pairs[..1]), "plain#value|");
        assert_eq!(unpack(&pack(&pairs)), pairs);
        assert!(unpack("").is_empty());
    }

    #[test]
    fn a_route_set_is_split_where_its_values_end() {
        let routes = ["<sip:a,b@192.0.2.1;lr>", "<sip:192.0.2.2;lr>;x=y"];
        let bytes = routes.map(|route| Bytes::from_static(route.as_bytes()));
        let text = joined(&bytes).unwrap();
        assert_eq!(split(&text), bytes);
        assert!(split("").is_empty() && joined(&[]).is_none());
    }
}
