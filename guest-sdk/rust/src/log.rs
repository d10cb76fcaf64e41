//! Lines for the operator's log: `debug!`, `info!`, `warn!`, `error!`.
//!
//! The host attaches tenant and policy, and drops what its level filters out;
//! bytes of log text are limited for each hook call.

/// How important a line is.
pub use crate::bindings::host::sipbox::policy::log::Level;

/// Writes one line.
pub fn log(level: Level, text: &str) {
    crate::sys::log(level, text);
}

/// Logs for developers of the policy.
#[macro_export]
macro_rules! debug {
    ($($text:tt)*) => { $crate::log::log($crate::log::Level::Debug, &::std::format!($($text)*)) };
}

/// Logs the ordinary.
#[macro_export]
macro_rules! info {
    ($($text:tt)*) => { $crate::log::log($crate::log::Level::Info, &::std::format!($($text)*)) };
}

/// Logs what somebody should look at.
#[macro_export]
macro_rules! warn {
    ($($text:tt)*) => { $crate::log::log($crate::log::Level::Warn, &::std::format!($($text)*)) };
}

/// Logs what is broken.
#[macro_export]
macro_rules! error {
    ($($text:tt)*) => { $crate::log::log($crate::log::Level::Error, &::std::format!($($text)*)) };
}
