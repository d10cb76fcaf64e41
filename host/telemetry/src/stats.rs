//! Counters. Each worker has a slot of its own in every counter, so counting
//! costs a plain add in memory that no other core writes; reading sums.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use sipbox_core::outbox::{Dropped, Event};

/// A slot on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Slot(AtomicU64);

/// One counter, from 0, growing.
#[derive(Debug)]
pub struct Counter(Box<[Slot]>);

impl Counter {
    fn new(workers: usize) -> Self {
        Self((0..workers.max(1)).map(|_| Slot::default()).collect())
    }

    /// Adds. `worker` is the caller's number; others than workers use any.
    pub fn add(&self, worker: usize, count: u64) {
        let at = worker.checked_rem(self.0.len()).unwrap_or(0);
        if let Some(slot) = self.0.get(at) {
            slot.0.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// The sum.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0
            .iter()
            .map(|slot| slot.0.load(Ordering::Relaxed))
            .fold(0, u64::wrapping_add)
    }
}

macro_rules! stats {
    ($($(#[$doc:meta])* $field:ident = $group:literal : $name:literal;)+) => {
        /// Every counter of a node. The names are OpenSIPS's where it has the same
        /// statistic; groups that it does not have are `policy` and `sipbox`.
        #[derive(Debug)]
        pub struct Stats {
            $($(#[$doc])* pub $field: Counter,)+
        }

        impl Stats {
            /// Counters at 0, for so many workers.
            #[must_use]
            pub fn new(workers: usize) -> Self {
                Self { $($field: Counter::new(workers),)+ }
            }

            /// Every counter: group, name, value.
            #[must_use]
            pub fn all(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$(($group, $name, self.$field.get()),)+]
            }
        }
    };
}

stats! {
    /// Requests that began a transaction, or were handled without one.
    rcv_requests = "core": "rcv_requests";
    /// Responses received that belonged to a transaction.
    rcv_replies = "core": "rcv_replies";
    /// Requests that led to nothing.
    drop_requests = "core": "drop_requests";
    /// Responses that led to nothing.
    drop_replies = "core": "drop_replies";
    /// Requests that were refused for a fault before a policy was asked.
    err_requests = "core": "err_requests";
    /// Bytes that were no SIP message.
    bad_msg_hdr = "core": "bad_msg_hdr";
    /// Server transactions.
    uas_transactions = "tm": "UAS_transactions";
    /// Final responses of class 2.
    final_2xx = "tm": "2xx_transactions";
    /// Final responses of class 3.
    final_3xx = "tm": "3xx_transactions";
    /// Final responses of class 4.
    final_4xx = "tm": "4xx_transactions";
    /// Final responses of class 5.
    final_5xx = "tm": "5xx_transactions";
    /// Final responses of class 6.
    final_6xx = "tm": "6xx_transactions";
    /// Retransmissions of ours.
    retransmissions = "tm": "retransmissions";
    /// Retransmissions of others that we absorbed.
    absorbed = "tm": "absorbed_retransmissions";
    /// Transactions that timed out.
    timeouts = "tm": "timeout_finalresponse";
    /// REGISTER requests answered with success.
    accepted_regs = "registrar": "accepted_regs";
    /// REGISTER requests refused.
    rejected_regs = "registrar": "rejected_regs";
    /// Pings of bindings that were sent.
    pings_sent = "nathelper": "pings_sent";
    /// Those of them that were answered in time.
    pings_answered = "nathelper": "pings_answered";
    /// Those of which the answer did not come.
    pings_lost = "nathelper": "pings_lost";
    /// Bindings that were removed, since they did not answer.
    pings_removed = "nathelper": "removed_contacts";
    /// Requests that were refused, since there were too many transactions.
    refused = "sipbox": "refused_requests";
    /// Panics that were caught at the message boundary.
    panics = "sipbox": "panics";
}

impl Stats {
    /// Counts what a step of the core told.
    pub fn count(&self, worker: usize, event: &Event) {
        let counter = match event {
            Event::Request { .. } => {
                self.rcv_requests.add(worker, 1);
                &self.uas_transactions
            }
            Event::Stateless { .. } => &self.rcv_requests,
            Event::Full { .. } => &self.refused,
            Event::Final { method, status, .. } => {
                if *method == sipbox_sip::Method::Register && *status != 401 {
                    let success = (200..300).contains(status);
                    let counter = if success {
                        &self.accepted_regs
                    } else {
                        &self.rejected_regs
                    };
                    counter.add(worker, 1);
                }
                match status / 100 {
                    2 => &self.final_2xx,
                    3 => &self.final_3xx,
                    4 => &self.final_4xx,
                    5 => &self.final_5xx,
                    _ => &self.final_6xx,
                }
            }
            Event::Refused { .. } => &self.err_requests,
            Event::Absorbed { .. } => &self.absorbed,
            Event::Retransmitted { .. } => &self.retransmissions,
            Event::TimedOut { .. } => &self.timeouts,
            Event::Dropped(Dropped::Garbage) => &self.bad_msg_hdr,
            Event::Dropped(Dropped::ForeignVia | Dropped::Stray | Dropped::NoUpstream) => {
                &self.drop_replies
            }
            Event::Dropped(Dropped::AbsorbedAck) => &self.absorbed,
            Event::Dropped(_) => &self.drop_requests,
            // `Event::Broken` is counted where the panic was caught.
            _ => return,
        };
        counter.add(worker, 1);
    }
}

/// Values in Prometheus's text format: `sipbox_<group>_<name> <value>`.
#[must_use]
pub fn prometheus(values: &[(&str, &str, u64)]) -> String {
    let mut text = String::new();
    for (group, name, value) in values {
        // Writing to a String does not fail.
        let _ = writeln!(text, "sipbox_{group}_{} {value}", name.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_count_apart_and_are_summed() {
        let counter = Counter::new(2);
        counter.add(0, 1);
        counter.add(1, 2);
        counter.add(7, 3);
        assert_eq!(counter.get(), 6);
    }

    #[test]
    fn what_has_no_transaction_is_counted_as_none() {
        use sipbox_core::flow::TenantId;
        let stats = Stats::new(1);
        let (tenant, method) = (TenantId(0), sipbox_sip::Method::Message);
        stats.count(0, &Event::Request { tenant, method });
        stats.count(0, &Event::Stateless { tenant, method });
        stats.count(0, &Event::Stateless { tenant, method });
        let counted = (stats.rcv_requests.get(), stats.uas_transactions.get());
        assert_eq!(counted, (3, 1));
    }

    #[test]
    fn finals_are_counted_by_class_and_registrations_by_success() {
        use sipbox_core::flow::TenantId;
        use sipbox_sip::Method;
        let stats = Stats::new(1);
        for (method, status) in [
            (Method::Register, 401),
            (Method::Register, 200),
            (Method::Register, 403),
            (Method::Invite, 603),
        ] {
            stats.count(
                0,
                &Event::Final {
                    tenant: TenantId(0),
                    method,
                    status,
                },
            );
        }
        assert_eq!(
            (stats.accepted_regs.get(), stats.rejected_regs.get()),
            (1, 1)
        );
        assert_eq!(
            (
                stats.final_2xx.get(),
                stats.final_4xx.get(),
                stats.final_6xx.get()
            ),
            (1, 2, 1)
        );
    }
}
