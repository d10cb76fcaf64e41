//! Dialogs: calls that the host follows from the INVITE to the BYE. Changes are staged and
//! made with the verdict; reads show them at once.

use crate::call::{Error, Header};
use crate::sys;

/// What is wanted of a dialog.
pub use crate::bindings::host::sipbox::policy::dialogs::CreateFlags;

/// A dialog, as far as facts go that the host knows by itself.
pub use crate::bindings::host::sipbox::policy::dialogs::Dialog;

/// Where a dialog stands.
pub use crate::bindings::host::sipbox::policy::dialogs::DialogState;

/// Who sent a request.
pub use crate::bindings::host::sipbox::policy::dialogs::Party;

/// Whether a request fits its dialog.
pub use crate::bindings::host::sipbox::policy::dialogs::Validity;

/// Has the host keep a dialog for the call that this INVITE begins, if the verdict relays
/// it with a Record-Route. `false`: the call has one.
///
/// # Errors
/// [`Error::OutOfPlace`] for a request that begins no call.
pub fn create(flags: CreateFlags) -> Result<bool, Error> {
    create_with(flags, &[])
}

/// [`create`] with options: `timeout`, `delete-delay`, `options-ping-interval`, in seconds.
///
/// # Errors
/// As [`create`], and for options that are none.
pub fn create_with(flags: CreateFlags, options: &[(&str, &str)]) -> Result<bool, Error> {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let options: Vec<_> = options.iter().map(own).collect();
    sys::create_dialog(flags, &options)
}

/// The dialog that the request belongs to, or that its transaction began.
#[must_use]
pub fn current() -> Option<Dialog> {
    sys::current_dialog()
}

/// Sets a variable of the dialog.
///
/// # Errors
/// [`Error::OutOfPlace`] where there is no dialog, [`Error::Limit`].
pub fn store_value(name: &str, value: &str) -> Result<(), Error> {
    sys::store_dlg_value(name, value)
}

/// Reads a variable of the dialog.
///
/// # Errors
/// [`Error::OutOfPlace`] where there is no dialog.
pub fn fetch_value(name: &str) -> Result<Option<String>, Error> {
    sys::fetch_dlg_value(name)
}

/// Sets a flag of the dialog.
///
/// # Errors
/// [`Error::OutOfPlace`] where there is no dialog, [`Error::Limit`].
pub fn set_flag(flag: &str) -> Result<(), Error> {
    sys::set_dlg_flag(flag)
}

/// Takes a flag away.
///
/// # Errors
/// [`Error::OutOfPlace`] where there is no dialog.
pub fn reset_flag(flag: &str) -> Result<(), Error> {
    sys::reset_dlg_flag(flag)
}

/// Whether a flag is set.
///
/// # Errors
/// [`Error::OutOfPlace`] where there is no dialog.
pub fn is_flag_set(flag: &str) -> Result<bool, Error> {
    sys::is_dlg_flag_set(flag)
}

/// Gives the flag this value if it has the other one, at once; whether it had.
///
/// # Errors
/// [`Error::OutOfPlace`] where there is no dialog.
pub fn test_and_set_flag(flag: &str, value: bool) -> Result<bool, Error> {
    sys::test_and_set_dlg_flag(flag, value)
}

/// Makes the dialog a member of a profile, without a value if that is empty.
///
/// # Errors
/// [`Error::OutOfPlace`] where there is no dialog, [`Error::Limit`].
pub fn set_profile(profile: &str, value: &str) -> Result<(), Error> {
    sys::set_dlg_profile(profile, value, false)
}

/// [`set_profile`], leaving the profile's other values.
///
/// # Errors
/// As [`set_profile`].
pub fn change_profile(profile: &str, value: &str) -> Result<(), Error> {
    sys::set_dlg_profile(profile, value, true)
}

/// Takes the dialog out of a profile; an empty value stands for all.
///
/// # Errors
/// [`Error::OutOfPlace`] where there is no dialog.
pub fn unset_profile(profile: &str, value: &str) -> Result<(), Error> {
    sys::unset_dlg_profile(profile, value)
}

/// Whether the dialog is in a profile; an empty value stands for any.
///
/// # Errors
/// [`Error::OutOfPlace`] where there is no dialog.
pub fn is_in_profile(profile: &str, value: &str) -> Result<bool, Error> {
    sys::is_in_profile(profile, value)
}

/// How many dialogs of the tenant are in a profile, over all workers. Limits are for
/// [`crate::leases`]: between this and [`set_profile`] others may come.
///
/// # Errors
/// [`Error::Unavailable`].
pub fn profile_size(profile: &str, value: &str) -> Result<u32, Error> {
    sys::get_profile_size(profile, value)
}

/// Seconds that the dialog may last from now on.
///
/// # Errors
/// [`Error::OutOfPlace`] where there is no dialog.
pub fn set_timeout(seconds: u32) -> Result<(), Error> {
    sys::set_dlg_timeout(seconds)
}

/// Whether the request fits its dialog.
///
/// # Errors
/// [`Error::OutOfPlace`] where there is no dialog.
pub fn validate() -> Result<Validity, Error> {
    sys::validate_dialog()
}

/// Ends the dialog: BYE to both sides with these header fields, or CANCEL.
///
/// # Errors
/// [`Error::OutOfPlace`] where there is no dialog.
pub fn end(extra: &[Header]) -> Result<(), Error> {
    sys::end_dialog(extra)
}
