//! Messages from behind address translation, mended: OpenSIPS's nathelper. Each call is an
//! edit, seen from the next policy on, or is remembered for the rest of the transaction.

use crate::call::Error;
use crate::sys;

/// Marks of a binding, for the host's pings.
pub use crate::bindings::host::sipbox::policy::types::BindingFlags;

/// What [`fix_nated_sdp`] does.
pub use crate::bindings::host::sipbox::policy::nat::SdpFixes;

/// Responses go to the port that the request came from (RFC 3581).
///
/// # Errors
/// [`Error::OutOfPlace`].
pub fn force_rport() -> Result<(), Error> {
    sys::force_rport()
}

/// `host:port` of every Contact becomes the source's; `params` are URI parameters to add.
/// With `preserve_uri` it can be undone by [`restore_nated_ruri`].
///
/// # Errors
/// [`Error::Malformed`] when a Contact or the parameters are, or [`Error::OutOfPlace`].
pub fn fix_nated_contact(params: &str, preserve_uri: bool) -> Result<(), Error> {
    sys::fix_nated_contact(params, preserve_uri)
}

/// Undoes a preserved Contact in the Request-URI; whether there was one.
///
/// # Errors
/// [`Error::OutOfPlace`].
pub fn restore_nated_ruri() -> Result<bool, Error> {
    sys::restore_nated_ruri()
}

/// The bindings that are saved for this REGISTER are reached at its source.
///
/// # Errors
/// [`Error::OutOfPlace`] when the request is no REGISTER.
pub fn fix_nated_register() -> Result<(), Error> {
    sys::fix_nated_register()
}

/// The bindings that are saved for this REGISTER get these marks too.
///
/// # Errors
/// [`Error::OutOfPlace`] when the request is no REGISTER.
pub fn set_binding_flags(marks: BindingFlags) -> Result<(), Error> {
    sys::set_binding_flags(marks)
}

/// Mends the session descriptions of the body; an empty address is the source's.
///
/// # Errors
/// [`Error::Malformed`] when address or lines are.
pub fn fix_nated_sdp(fixes: SdpFixes, address: &str, fields: &str) -> Result<(), Error> {
    sys::fix_nated_sdp(fixes, address, fields)
}

/// Adds the source as `received` to every Contact, for another registrar.
///
/// # Errors
/// [`Error::Malformed`] when a Contact is, or [`Error::OutOfPlace`].
pub fn add_rcv_param(in_uri: bool) -> Result<(), Error> {
    sys::add_rcv_param(in_uri)
}
