//! The harness of the end-to-end tests: it starts the real binary on loopback
//! addresses of its own, and the peers that talk to it.
//!
//! The program under test is a process; nothing of the host is linked here. So
//! the small user agent ([`agent`]) and its messages ([`message`]) are written
//! without the host's parser: a mistake there does not hide behind itself.
//!
//! Whatever goes wrong in here panics, since a panic is how a test fails, and
//! says what was expected, what came, and where the logs are.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "everything here runs inside a test, where a panic is the report"
)]

pub mod agent;
pub mod audio;
pub mod baresip;
mod books;
pub mod call_load;
pub mod control;
pub mod digest;
pub mod guest;
pub mod kamailio;
pub mod link;
pub mod linphone;
pub mod loopback;
pub mod message;
pub mod nat;
pub mod process;
pub mod program;
pub mod random_ends;
pub mod relay;
pub mod server;
pub mod sipbox;
pub mod sipp;

pub use agent::Agent;
pub use link::{Link, Listener};
pub use loopback::Loopback;
pub use message::Message;
pub use process::Process;
pub use server::Server;
pub use sipbox::{Setup, Sipbox};
pub use sipp::{Sipp, Transport};
