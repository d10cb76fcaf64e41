//! Branches that say nothing: how long they may, and where their targets are tried next.

use std::time::Duration;

use super::best::Candidate;
use super::branch::Stage;
use super::breadth::shares;
use super::{MAX_BRANCHES, ResponseContext};
use crate::error::Internal;
use crate::transaction::UserTimer;
use crate::transaction::client::Client;
use crate::user::{Io, Stop};

impl ResponseContext {
    /// A branch was sent: somebody has to look after it.
    pub(super) fn watch_silence(&mut self, io: &mut Io<'_, '_, '_>) {
        if !self.silence.is_zero() && self.silence_timer.is_none() {
            self.silence_timer = Some(io.arm(UserTimer::Silence, self.silence));
        }
    }

    /// Gives up what has not answered at all for as long as it may: a provisional response
    /// that comes late is answered by a CANCEL (9.1). The next address of the target is
    /// tried (RFC 3263 4.3), or the branch counts as timed out.
    pub(super) fn leave_silent(&mut self, io: &mut Io<'_, '_, '_>) {
        let mut next: Option<Duration> = None;
        for at in 0..self.branches.len() {
            let Some(branch) = self.branches.get(at) else {
                continue;
            };
            let (Stage::Sent, Some(key)) = (branch.stage, branch.client) else {
                continue;
            };
            if !io.tx.clients.get(key).is_some_and(Client::untouched) {
                continue;
            }
            let waited = io.cx.now().since(branch.sent);
            let left = self.silence.saturating_sub(waited);
            if left.is_zero() {
                io.tx.cancel_client(key, io.cx);
                self.leave(at, io);
            } else {
                next = Some(next.map_or(left, |next| next.min(left)));
            }
        }
        if let Some(after) = next {
            io.disarm(&mut self.silence_timer);
            self.silence_timer = Some(io.arm(UserTimer::Silence, after));
        }
    }

    /// The next address is a branch of its own, since the old one may still hear something.
    fn leave(&mut self, at: usize, io: &mut Io<'_, '_, '_>) {
        let free = usize::from(self.breadth.saturating_sub(self.held(io)));
        let breadth = shares(free, 1, self.later()).next().unwrap_or(0);
        let again = self.branches.len();
        let next = self.branches.get_mut(at);
        if let Some(next) = next.and_then(|branch| branch.elsewhere(breadth))
            && again < MAX_BRANCHES
        {
            self.branches.push(next);
            if self.next_candidate(again, io) {
                if let Some(branch) = self.branches.get_mut(at) {
                    branch.stage = Stage::Done;
                }
                return;
            }
            self.branches.pop();
        }
        let timed_out = Internal::TimedOut.status();
        let status = self.stopped.map_or(timed_out, Stop::status);
        self.fail_branch(
            at,
            Candidate {
                status,
                received: None,
            },
        );
    }
}
