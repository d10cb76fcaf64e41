//! The location service (RFC 3261 section 10): bindings of the tenant's
//! addresses of record. Writes are staged and committed with the verdict.

use crate::call::Error;
use crate::sys;

/// One binding.
pub use crate::bindings::host::sipbox::policy::location::Binding;

/// The limits that [`save`] holds a REGISTER to.
pub use crate::bindings::host::sipbox::policy::location::SaveLimits;

/// What became of a REGISTER.
pub use crate::bindings::host::sipbox::policy::location::SaveOutcome;

/// The bindings of `user@domain`, best q first.
///
/// # Errors
/// [`Error::Malformed`] when `aor` is none, [`Error::Unavailable`].
pub fn lookup(aor: &str) -> Result<Vec<Binding>, Error> {
    sys::lookup(aor)
}

/// Carries out the REGISTER of this hook call for `user@domain`.
///
/// # Errors
/// [`Error::OutOfPlace`] when the request is no REGISTER.
pub fn save(aor: &str, limits: &SaveLimits) -> Result<SaveOutcome, Error> {
    sys::save(aor, limits)
}

/// Removes all bindings of `user@domain`; how many there were.
///
/// # Errors
/// [`Error::Malformed`] when `aor` is none, [`Error::Unavailable`].
pub fn remove(aor: &str) -> Result<u32, Error> {
    sys::remove(aor)
}
