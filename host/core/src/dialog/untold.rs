//! What policies have not been told of dialogs yet: in the order in which it happened, and
//! told by one at a time, so that no event of a dialog overtakes another one.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::FixedState;

use super::event::Notice;
use super::id::DialogId;

/// What is to be told of one dialog.
#[derive(Default)]
struct Queue {
    notices: VecDeque<Notice>,
    /// Somebody tells what was in front of them, or they are not to be told yet.
    held: bool,
}

/// The queues of the dialogs of a shard that have any.
#[derive(Default)]
pub(super) struct Untold(HashMap<DialogId, Queue, FixedState>);

impl Untold {
    /// What happened next.
    pub(super) fn push(&mut self, id: DialogId, notices: impl IntoIterator<Item = Notice>) {
        self.0.entry(id).or_default().notices.extend(notices);
    }

    /// Nothing of it is told before [`Self::release`].
    pub(super) fn hold(&mut self, id: DialogId) {
        self.0.entry(id).or_default().held = true;
    }

    /// The next thing to tell, which holds what comes behind it. `None`: there is nothing,
    /// or somebody else tells.
    pub(super) fn next(&mut self, id: DialogId) -> Option<Notice> {
        let queue = self.0.get_mut(&id).filter(|queue| !queue.held)?;
        let notice = queue.notices.pop_front();
        queue.held = notice.is_some();
        if notice.is_none() {
            self.0.remove(&id);
        }
        notice
    }

    /// What is left may be told.
    pub(super) fn release(&mut self, id: DialogId) {
        if let Some(queue) = self.0.get_mut(&id) {
            queue.held = false;
            if queue.notices.is_empty() {
                self.0.remove(&id);
            }
        }
    }

    /// Nothing of it is ever told.
    pub(super) fn forget(&mut self, id: DialogId) {
        self.0.remove(&id);
    }
}
