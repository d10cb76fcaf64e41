//! Counters of what happened in the last seconds, over all workers, and sequences. What is
//! added counts at once and stays, whatever becomes of this call.
//!
//! ```no_run
//! use sipbox_guest::counters::{Counter, Outcome};
//! # fn limited(source: &str) -> Result<bool, sipbox_guest::Error> {
//! // No more than 20 a minute, whether they are let in or not.
//! let counter = Counter::new("requests", source, 60);
//! if counter.add(1)? > 20 {
//!     return Ok(true);
//! }
//! // No more than 5 of those that are let in.
//! let counter = Counter::new("calls", source, 60);
//! Ok(matches!(counter.take(1, 5)?, Outcome::Over(_)))
//! # }
//! ```

use crate::call::Error;
use crate::sys;

/// What became of a [`Counter::take`].
pub use crate::bindings::host::sipbox::policy::counters::Outcome;

/// The next number of a sequence: 0, then 1, and so on, over all workers; no two calls get
/// the same, until after 2^32 it begins at 0. For turns that have to come out even. It takes the room of one counter, and
/// begins at 0 when nobody has asked for a day.
///
/// # Errors
/// [`Error::Limit`]: the tenant has too many counters. [`Error::Malformed`],
/// [`Error::Unavailable`].
pub fn sequence(name: &str) -> Result<u32, Error> {
    sys::counter_sequence(name)
}

/// A counter of the tenant. Another name, key or window is another counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter<'a> {
    name: &'a str,
    key: &'a str,
    window: u32,
}

impl<'a> Counter<'a> {
    /// What is counted, whose, and over how many seconds, 1 to 86400. Its sums have all
    /// that was added in the last `window` seconds, and nothing older than 17/16 of them.
    #[must_use]
    pub const fn new(name: &'a str, key: &'a str, window: u32) -> Self {
        Self { name, key, window }
    }

    /// Adds; the sum with it.
    ///
    /// # Errors
    /// [`Error::Limit`]: the tenant has too many counters. [`Error::Malformed`],
    /// [`Error::Unavailable`].
    pub fn add(&self, by: u32) -> Result<u32, Error> {
        sys::counter_add(self.name, self.key, by, self.window)
    }

    /// Adds, unless the sum would be more than `limit`: what is refused does not count.
    ///
    /// # Errors
    /// As [`Counter::add`].
    pub fn take(&self, by: u32, limit: u32) -> Result<Outcome, Error> {
        sys::counter_take(self.name, self.key, by, self.window, limit)
    }

    /// The sum.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Unavailable`].
    pub fn read(&self) -> Result<u32, Error> {
        sys::counter_read(self.name, self.key, self.window)
    }

    /// Begins at 0 again.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Unavailable`].
    pub fn reset(&self) -> Result<(), Error> {
        sys::counter_reset(self.name, self.key, self.window)
    }
}
