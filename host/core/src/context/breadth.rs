//! Max-Breadth (RFC 5393 section 5): how many branches a request may have at a time,
//! and what each of them may make of its own.

use super::ResponseContext;
use super::branch::Branch;
use crate::transaction::client::Client;
use crate::user::Io;

impl ResponseContext {
    /// RFC 5393 5.3.3.1: what of our breadth branches hold that were given up and have
    /// no final response yet. The others of earlier groups have given it back.
    pub(super) fn held(&self, io: &Io<'_, '_, '_>) -> u8 {
        let pending = |branch: &&Branch| {
            let client = branch.client.and_then(|client| io.tx.clients.get(client));
            client.is_some_and(Client::pending)
        };
        let held = self.branches.iter().filter(pending);
        held.fold(0, |sum, branch| sum.saturating_add(branch.breadth))
    }

    /// How many branches may join those of a group before these have ended: where a
    /// branch can be given up its phone need not be quick to say so, and the next ones
    /// are to have their part at once.
    pub(super) fn later(&self) -> usize {
        let may_be_left = !(self.ring.is_zero() && self.silence.is_zero());
        let groups = if may_be_left {
            self.groups.iter().map(Vec::len).sum()
        } else {
            0
        };
        let given_up = may_be_left || self.total_timer.is_some();
        let hooked = given_up && self.armed.iter().any(|armed| armed.failure);
        // Where one has been silent its target's next address is tried.
        groups + usize::from(hooked || !self.silence.is_zero())
    }
}

/// RFC 5393 5.3.3: what each branch of a group gets of our breadth. `later` branches get
/// as much if there is enough for all; else they will have to wait. Nothing is there for
/// any branch where it is not enough for each of the group (440).
pub(super) fn shares(breadth: usize, branches: usize, later: usize) -> impl Iterator<Item = u8> {
    let all = branches.saturating_add(later).max(1);
    let all = if breadth < all { branches.max(1) } else { all };
    let (each, more) = (breadth / all, breadth % all);
    (0..branches).map(move |at| {
        let extra = usize::from(each > 0 && at < more);
        u8::try_from(each + extra).unwrap_or(u8::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::shares;

    #[test]
    fn shares_leave_nothing_over_and_never_exceed_the_whole() {
        let of =
            |breadth, branches, later| -> Vec<u8> { shares(breadth, branches, later).collect() };
        assert_eq!(of(60, 1, 0), [60]);
        assert_eq!(of(60, 7, 0), [9, 9, 9, 9, 8, 8, 8]);
        assert_eq!(of(60, 1, 2), [20]);
        assert_eq!(of(1, 1, 3), [1], "those that come later wait");
        assert_eq!(of(2, 3, 0), [0, 0, 0], "440");
        assert_eq!(of(0, 1, 0), [0]);
    }
}
