//! What a running program says about the calls that it keeps.

use std::time::Duration;

use serde_json::json;

use crate::process::wait_until;
use crate::sipbox::Sipbox;

impl Sipbox {
    /// By how much the leases that are counted differ from those that calls hold.
    #[must_use]
    pub fn lease_drift(&self) -> Option<u64> {
        self.rpc("leases_audit", &json!({}))["drift"].as_u64()
    }

    /// Waits until no dialog and no lease is left.
    ///
    /// # Panics
    /// When one stays.
    pub fn assert_no_call_left(&self) {
        wait_until("no lease and no dialog", Duration::from_secs(60), || {
            let held = [
                "leases:held",
                "dialog:active_dialogs",
                "dialog:early_dialogs",
            ];
            held.iter().all(|name| self.statistic(name) == 0) && self.lease_drift() == Some(0)
        });
    }
}
