//! The interface `log`.

use sipbox_core::policy::{HookFailure, LogLevel};

use crate::bindings::wit::log as wit;
use crate::cx::{CallCx, stop};

/// What stands around a text in the log (time, level, tenant, policy, Call-ID) counts as so
/// many bytes: a thousand empty lines are no small log.
const AROUND: u32 = 128;

impl CallCx {
    /// A line for the operator's log, within the limit of the call.
    pub(crate) fn log_line(&mut self, level: LogLevel, text: &str) -> wasmtime::Result<()> {
        let bytes = u32::try_from(text.len()).unwrap_or(u32::MAX);
        let bytes = bytes.saturating_add(AROUND);
        let Some(left) = self.left.log_bytes.checked_sub(bytes) else {
            return Err(stop(HookFailure::Log));
        };
        self.left.log_bytes = left;
        self.call
            .capabilities
            .log(&self.call, &self.policy, level, text);
        Ok(())
    }
}

impl wit::Host for CallCx {
    fn log(&mut self, level: wit::Level, text: String) -> wasmtime::Result<()> {
        self.enter()?;
        let level = match level {
            wit::Level::Trace => LogLevel::Trace,
            wit::Level::Debug => LogLevel::Debug,
            wit::Level::Info => LogLevel::Info,
            wit::Level::Warn => LogLevel::Warn,
            wit::Level::Error => LogLevel::Error,
        };
        self.log_line(level, &text)
    }
}
