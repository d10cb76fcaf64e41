//! What a response context has to ask its policies. The hooks of one transaction are
//! asked one after the other: each sees what the one before it made of the variables,
//! and none undoes what another has set.

use std::collections::VecDeque;

use super::best::Received;

/// How many responses may wait for their turn besides the one that decides the
/// transaction. More are dropped, as the network might have done: a provisional one is
/// not missed, and a 2xx comes again.
const MAX_REPLIES: usize = 32;

/// A question that is due.
#[derive(Debug)]
pub(super) enum Question {
    /// `on-branch`, about the branch of this number.
    Branch(usize),
    /// `on-reply`
    Reply { status: u16, received: Received },
    /// `on-failure`
    Failure,
}

/// A question that was asked.
pub(super) struct Open {
    serial: u32,
    /// Its answer counts and is about to be given.
    settled: bool,
    pub(super) question: Question,
}

/// The questions of one context.
#[derive(Default)]
pub(super) struct Questions {
    /// What was asked and not answered yet: one at most.
    open: Vec<Open>,
    waiting: VecDeque<Question>,
    serial: u32,
}

impl Questions {
    /// Whether nothing is open and nothing waits.
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty() && self.waiting.is_empty()
    }

    /// Whether an answer is waited for.
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    pub(super) fn push(&mut self, question: Question) {
        self.waiting.push_back(question);
    }

    /// Whether no more responses can wait.
    pub(super) fn is_crowded(&self) -> bool {
        let reply = |question: &&Question| matches!(question, Question::Reply { .. });
        self.waiting.iter().filter(reply).count() >= MAX_REPLIES
    }

    /// The one whose turn it is.
    pub(super) fn pop(&mut self) -> Option<Question> {
        self.waiting.pop_front()
    }

    /// Names the next question that is asked.
    pub(super) fn number(&mut self) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        self.serial
    }

    /// Remembers that a question was asked.
    pub(super) fn asked(&mut self, serial: u32, question: Question) {
        self.open.push(Open {
            serial,
            settled: false,
            question,
        });
    }

    /// The question that this is the answer to; `None`: nobody waits for it.
    pub(super) fn answered(&mut self, serial: u32) -> Option<Question> {
        let at = self.open.iter().position(|open| open.serial == serial)?;
        Some(self.open.swap_remove(at).question)
    }

    /// Whether the answer to this question is waited for.
    pub(super) fn is_asked(&self, serial: u32) -> bool {
        self.open.iter().any(|open| open.serial == serial)
    }

    /// The answer to an open question counts from now on; `false`: nobody waits for it.
    pub(super) fn settle(&mut self, serial: u32) -> bool {
        let open = self.open.iter_mut().find(|open| open.serial == serial);
        open.is_some_and(|open| !std::mem::replace(&mut open.settled, true))
    }

    /// Whether the answer to an open question is about to be given.
    pub(super) fn is_settled(&self) -> bool {
        self.open.iter().any(|open| open.settled)
    }

    /// What was asked, to be looked at and given back.
    pub(super) fn take_open(&mut self) -> Vec<Open> {
        std::mem::take(&mut self.open)
    }

    pub(super) fn set_open(&mut self, open: Vec<Open>) {
        self.open = open;
    }

    /// Everything, the open question first.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Question> + use<> {
        let open = std::mem::take(&mut self.open);
        let waiting = std::mem::take(&mut self.waiting);
        open.into_iter().map(|open| open.question).chain(waiting)
    }
}
