//! The table of calls, as OpenSIPS's dialog module has it: states, timers, variables,
//! flags, profiles, leases.
//!
//! Dialogs are kept in shards, each behind its own mutex, which is never held together
//! with that of a transaction's shard. A dialog is put there before its INVITE leaves;
//! what its transactions do with it later comes as an event when their shard has been
//! let go of, and before anything of that step is sent. So an event that another one
//! brings about comes behind it; those that two workers see at the same time come in any
//! order, which the states bear.
//!
//! Not here: who may have a dialog (a policy decides), sockets, the table's SQL. Time is
//! an argument.

mod agenda;
mod changes;
mod ending;
mod event;
mod id;
mod leg;
mod options;
mod record;
mod row;
mod service;
mod state;
mod stored;
mod untold;
mod validate;
mod view;

pub use event::{Change, DialogTie, EndReason, Known, NewDialog, Notice, Side};
pub(crate) use event::{Event, Heard, Order, Tie, hangs_up};
pub use id::{DID_PARAM, DialogId};
pub use options::{Defaults, MatchMode, Wanted};
pub(crate) use record::{Now, Outcome};
pub use row::{DialogRow, Loaded, RowChange};
pub use service::{Counts, DialogService};
pub use state::State;
pub use validate::Validity;
pub use view::{LegView, View};
