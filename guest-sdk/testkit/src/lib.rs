//! Runs Sipbox policies natively in unit tests.
//!
//! [`Kit`] configures a policy as the host would and calls its hooks against an
//! in-memory [`World`] of accounts and bindings. A [`Call`] is the message and
//! the facts about it; a [`Run`] is what came of it, with assertions.
//!
//! ```
//! use sipbox_guest::{NoSettings, Policy, Request, Verdict};
//! use sipbox_testkit::{Call, Kit};
//!
//! struct Busy;
//! impl Policy for Busy {
//!     type Settings = NoSettings;
//!     fn configure(_: NoSettings) -> Result<Self, String> {
//!         Ok(Self)
//!     }
//!     fn on_request(&self, _: &Request) -> Verdict {
//!         Verdict::reply(486).into()
//!     }
//! }
//!
//! let kit = Kit::<Busy>::new("{}");
//! kit.on_request(Call::request("INVITE", "sip:bob@example.com")).assert_reply(486);
//! ```
//!
//! The kit answers like the host where a policy can tell: limits, CPU budgets
//! and traps are the sandbox's and not simulated.

#![allow(
    clippy::panic,
    reason = "a test kit says by a panic that the test is wrong or has failed"
)]

mod call;
mod checks;
mod dialogs;
mod kit;
mod live;
mod location;
mod nat;
mod record;
mod run;
mod shared;
mod view;
mod world;

pub use call::{Call, Credentials};
pub use dialogs::{HeldLease, TestDialog};
pub use kit::Kit;
pub use nat::NatState;
pub use record::{Exchange, Recording};
pub use run::{Effect, RecordRoute, Run};
pub use world::{World, binding};

/// The examples of the README compile and hold.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
