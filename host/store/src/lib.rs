//! Databases behind core's traits: SQLite with OpenSIPS's tables `subscriber`,
//! `location`, `dialog` and `version`, so that existing data is read as it is.
//!
//! Nothing here decides anything: who may register or call is a policy's
//! business, and what bindings are is `sipbox_core::location`'s. All of it runs on
//! the tokio runtime; workers reach it by [`LocationSink::submit`], which never waits.
//!
//! [`LocationSink::submit`]: sipbox_core::location::LocationSink::submit

mod credentials;
mod dialog;
mod error;
mod location;
mod schema;
mod sqlite;
mod subscriber;
mod writer;

pub use credentials::CredentialCache;
pub use error::StoreError;
pub use sqlite::Store;
pub use subscriber::{Subscriber, Subscribers};
pub use writer::{Durability, LocationWriter, WriterSettings};
