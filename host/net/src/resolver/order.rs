//! The order in which targets are tried: priority, then weighted chance (RFC
//! 2782), then the order of the addresses.

use std::net::{IpAddr, SocketAddr};

use sipbox_core::outbox::{Candidates, NextHopCandidate};

use super::plan::Service;

/// A service and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) service: Service,
    pub(super) addresses: Vec<IpAddr>,
}

/// Orders targets. `below(n)` yields a number from 0 to n - 1, all equally likely.
pub(super) fn in_order(targets: &[Target], mut below: impl FnMut(u64) -> u64) -> Candidates {
    let mut left: Vec<&Target> = targets.iter().collect();
    // Within a priority those without weight come first, as RFC 2782 has it:
    // that gives them their very small chance.
    left.sort_by_key(|target| (target.service.priority, target.service.weight != 0));
    let mut candidates = Candidates::new();
    while let Some(first) = left.first() {
        let priority = first.service.priority;
        let equals = || {
            left.iter()
                .take_while(|target| target.service.priority == priority)
        };
        let total: u64 = equals()
            .map(|target| u64::from(target.service.weight))
            .sum();
        let drawn = below(total + 1);
        let mut sum = 0;
        let chosen = equals()
            .position(|target| {
                sum += u64::from(target.service.weight);
                sum >= drawn
            })
            .unwrap_or(0);
        let target = left.remove(chosen);
        let Service {
            transport, port, ..
        } = target.service;
        candidates.extend(target.addresses.iter().map(|address| NextHopCandidate {
            transport,
            address: SocketAddr::new(*address, port),
        }));
    }
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;
    use sipbox_sip::Transport;

    fn target(last: u8, priority: u32, weight: u16) -> Target {
        Target {
            service: Service {
                transport: Transport::Udp,
                port: 5060,
                priority,
                weight,
            },
            addresses: vec![IpAddr::from([192, 0, 2, last])],
        }
    }

    fn order(targets: &[Target], below: impl FnMut(u64) -> u64) -> Vec<u8> {
        in_order(targets, below)
            .iter()
            .map(|candidate| match candidate.address.ip() {
                IpAddr::V4(v4) => v4.octets()[3],
                IpAddr::V6(_) => unreachable!("only IPv4 here"),
            })
            .collect()
    }

    #[test]
    fn a_lower_priority_number_comes_first_whatever_the_weights() {
        let targets = [
            target(1, 20, 1000),
            target(2, 10, 0),
            target(3, 30, 5),
            target(4, 10, 1),
        ];
        for drawn in 0..2 {
            let order = order(&targets, |bound| drawn.min(bound - 1));
            assert_eq!(order[2..], [1, 3]);
            assert!(order[..2].contains(&2) && order[..2].contains(&4));
        }
    }

    #[test]
    fn the_draw_falls_on_the_running_sum() {
        let targets = [target(1, 0, 10), target(2, 0, 0), target(3, 0, 30)];
        // Sums: 2 -> 0, 1 -> 10, 3 -> 40; then what is left.
        for (drawn, expected) in [
            (0, [2, 1, 3]),
            (1, [1, 3, 2]),
            (10, [1, 3, 2]),
            (11, [3, 1, 2]),
            (40, [3, 1, 2]),
        ] {
            assert_eq!(
                order(&targets, |bound| drawn.min(bound - 1)),
                expected,
                "{drawn}"
            );
        }
    }

    #[test]
    fn weights_are_kept_in_proportion() {
        let targets = [target(1, 0, 1), target(2, 0, 3), target(3, 0, 6)];
        let chance = super::super::Chance::default();
        let mut firsts = [0u32; 4];
        for _ in 0..20_000 {
            firsts[usize::from(order(&targets, |bound| chance.below(bound))[0])] += 1;
        }
        // The draw is inclusive, so of 11 numbers two fall on the first.
        for (last, share) in [(1, 2.0 / 11.0), (2, 3.0 / 11.0), (3, 6.0 / 11.0)] {
            let seen = f64::from(firsts[last]) / 20_000.0;
            assert!(
                (seen - share).abs() < 0.02,
                "{last}: {seen} instead of {share}"
            );
        }
    }

    #[test]
    fn all_addresses_of_a_target_stay_together() {
        let mut twofold = target(1, 0, 0);
        twofold.addresses.push(IpAddr::from([192, 0, 2, 9]));
        assert_eq!(order(&[twofold, target(2, 1, 0)], |_| 0), [1, 9, 2]);
    }
}
