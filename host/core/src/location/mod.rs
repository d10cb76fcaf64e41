//! The location service (RFC 3261 section 10): which contacts an address of
//! record is bound to, and how REGISTER changes that.
//!
//! Bindings are kept by tenant and [`Aor`] in shards, each behind its own mutex;
//! no call holds two. A REGISTER is first planned ([`LocationService::plan`]: what
//! would happen?), then committed ([`LocationService::commit`]), which judges it
//! again, since another one may have come between. The commit's [`Change`]s are
//! for a [`LocationSink`]; nothing here waits for one. Time is an argument.
//!
//! Not here: sockets, SQL (`sipbox-store`), the 200's other header fields, and
//! whether somebody may register (a policy decides).

mod aor;
mod binding;
mod flow_token;
mod hash;
mod pings;
mod plan;
mod register;
mod row;
mod rules;
mod service;
mod shard;
#[cfg(test)]
mod tests;
pub(crate) mod text64;

pub use aor::{Aor, AorError};
pub use binding::{Binding, Bindings, contact_header_values};
pub use flow_token::{FlowTokens, Origin, TokenError};
pub(crate) use hash::{KeyedState, shard_of};
pub use pings::{Datagram, Ping, PingId, PingRound, PingSettings};
pub use plan::{Commit, NewContact, Plan, Planned};
pub use register::{ContactUpdate, Contacts, Register};
pub use row::{
    Change, ChangeKind, LocationRow, LocationSink, SinkError, method_mask, received_uri,
};
pub use rules::{DEFAULT_EXPIRES, Refused};
pub use service::{Counts, Loaded, LocationService};
