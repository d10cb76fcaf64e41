//! Places that are limited, over all workers. A lease belongs to the call and ends with
//! its dialog, or with its transaction where there is none.

use crate::call::Error;
use crate::sys;

/// What became of a wish for a place.
pub use crate::bindings::host::sipbox::policy::leases::Outcome;

/// One of `limit` places of a key, wanted, and what became of a wish for several of them.
pub use crate::bindings::host::sipbox::policy::leases::{AllOutcome, Place};

/// One of `limit` places of a key.
#[must_use]
pub fn place(scope: impl Into<String>, key: impl Into<String>, limit: u32) -> Place {
    Place {
        scope: scope.into(),
        key: key.into(),
        limit,
    }
}

/// Takes a place of each of several keys, or of none.
///
/// # Errors
/// As [`acquire`].
pub fn acquire_all(places: &[Place]) -> Result<AllOutcome, Error> {
    sys::acquire_all(places)
}

/// Takes one of `limit` places of a key. A call has one place of a key: asked again, the
/// answer names the same.
///
/// # Errors
/// [`Error::OutOfPlace`] outside of `on_request` and `on_failure`, [`Error::Limit`].
pub fn acquire(scope: &str, key: &str, limit: u32) -> Result<Outcome, Error> {
    sys::acquire(scope, key, limit)
}

/// Gives a place of this call back, with the verdict.
///
/// # Errors
/// [`Error::Malformed`] when the call has no such lease.
pub fn release(lease: u32) -> Result<(), Error> {
    sys::release(lease)
}

/// How many places of a key are taken.
///
/// # Errors
/// [`Error::Unavailable`].
pub fn held(scope: &str, key: &str) -> Result<u32, Error> {
    sys::held(scope, key)
}
