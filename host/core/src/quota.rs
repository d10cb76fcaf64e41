//! What the operator lets a tenant have of calls, whatever its policies say: how many at a
//! time, and how many a second.

use std::sync::atomic::{AtomicU64, Ordering};

use sipbox_sip::{Method, OwnedMessage};

use crate::policy::Facts;
use crate::settings::Settings;
use crate::time::Time;

/// The scope and the key of the leases that count a tenant's calls. No policy can name a
/// scope with a colon in front.
pub const CALLS: (&str, &str) = (":tenant", "calls");

/// The quota of a tenant; `None`: there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Calls at a time. A call counts from its INVITE to the end of its dialog, or to its
    /// final response if no dialog is kept. So does an INVITE of a dialog that is not
    /// kept, from its arrival to its final response. One that is forwarded statelessly does
    /// not count any more once it is, or at all where that is declared of the listener:
    /// nothing is kept that could end.
    pub calls: Option<u32>,
    /// Calls that a chain may let in within a second. Copies of an INVITE that is forwarded
    /// statelessly count like it: nothing tells them apart.
    pub calls_per_second: Option<u32>,
}

/// Whether a call may begin now, as far as its tenant has a limit. It is asked once a
/// chain lets the call in, so that nobody uses the limit up by requests that are refused,
/// nor by those that are only challenged. An INVITE of a dialog that nobody knows begins
/// one, whatever tag it has.
pub(crate) fn lets_in(
    request: &OwnedMessage,
    facts: &Facts,
    settings: &Settings,
    now: Time,
) -> bool {
    if request.as_ref().method() != Method::Invite || facts.dialog.is_some() {
        return true;
    }
    let Some(tenant) = settings.tenant(facts.tenant) else {
        return true;
    };
    let admits = |per_second| tenant.rate.admits(per_second, now);
    let admitted = tenant.quota.calls_per_second.is_none_or(admits);
    if !admitted {
        settings.refuse(facts.tenant);
    }
    admitted
}

/// How fast calls begin: a bucket that holds a second's worth.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    /// When the bucket will be full again, in microseconds.
    full: AtomicU64,
}

/// What a bucket holds, in microseconds.
const SECOND: u64 = 1_000_000;

impl Rate {
    /// Whether one more may begin now. One step, whoever else asks.
    pub(crate) fn admits(&self, per_second: u32, now: Time) -> bool {
        let each = SECOND / u64::from(per_second.max(1));
        let next = |full: u64| {
            let full = full.max(now.0) + each;
            (full <= now.0 + SECOND.max(each)).then_some(full)
        };
        self.full
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_begin_in_a_second_and_the_next_ones_as_room_comes() {
        let rate = Rate::default();
        let begun = |ms| rate.admits(10, Time::from_millis(ms));
        assert_eq!((0..50).filter(|_| begun(5_000)).count(), 10);
        assert!(!begun(5_099));
        assert!(begun(5_100) && !begun(5_100));
        assert!(begun(5_300) && begun(5_300) && !begun(5_300));
        assert_eq!((0..50).filter(|_| begun(60_000)).count(), 10);
        let slow = Rate::default();
        assert!(slow.admits(1, Time(0)) && !slow.admits(1, Time::from_millis(999)));
        assert!(slow.admits(1, Time::from_millis(1000)));
    }
}
