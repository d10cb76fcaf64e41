//! Values by key, kept by the host for the tenant: every policy of its chain sees what the
//! others wrote, other tenants see nothing of it, and it outlives instances and reloads,
//! but not a restart. Writes are staged and committed with the verdict; this call and later
//! policies of its chain see them at once.
//!
//! Of all functions: [`Error::Limit`] names the setting that is reached, `kv_entries`,
//! `kv_mib` or `kv_value_bytes`; [`Error::Malformed`] a key that is none.

use crate::call::Error;
use crate::sys;

/// What stands under a key.
pub use crate::bindings::host::sipbox::policy::kv::Entry;

/// What a compare-and-set found.
pub use crate::bindings::host::sipbox::policy::kv::Swap;

/// What stands under a key.
///
/// # Errors
/// [`Error::Malformed`], [`Error::Unavailable`].
pub fn get(key: &str) -> Result<Option<Entry>, Error> {
    sys::kv_get(key)
}

/// [`get`] as text, with `?` for bytes that are none.
///
/// # Errors
/// As [`get`].
pub fn get_text(key: &str) -> Result<Option<String>, Error> {
    let entry = sys::kv_get(key)?;
    Ok(entry.map(|entry| String::from_utf8_lossy(&entry.value).replace('\u{fffd}', "?")))
}

/// Has a key stand for a value, `ttl` seconds from the verdict on; 0: until it is removed.
///
/// # Errors
/// [`Error::Limit`], [`Error::Malformed`], [`Error::Unavailable`].
pub fn set(key: &str, value: impl AsRef<[u8]>, ttl: u32) -> Result<(), Error> {
    sys::kv_set(key, value.as_ref(), ttl)
}

/// Removes what stands under a key; whether something did.
///
/// # Errors
/// [`Error::Malformed`], [`Error::Unavailable`].
pub fn remove(key: &str) -> Result<bool, Error> {
    sys::kv_remove(key)
}

/// [`set`], if the version that stands there is `expected`, or if nothing does and that is
/// `None`. Of several calls that expect the same, one succeeds.
///
/// # Errors
/// As [`set`].
pub fn compare_and_set(
    key: &str,
    expected: Option<u32>,
    value: impl AsRef<[u8]>,
    ttl: u32,
) -> Result<Swap, Error> {
    sys::kv_compare_and_set(key, expected, value.as_ref(), ttl)
}
