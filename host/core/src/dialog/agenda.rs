//! When the dialogs of a shard have something to do by themselves: by seconds, of which
//! only the next few are told apart. What is farther away is looked at again by then, and
//! most calls are over sooner: they are noted once and never taken out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::id::DialogId;
use crate::time::Time;

/// How far ahead dialogs are noted.
const AHEAD: Duration = Duration::from_secs(60);
const SECOND_US: u64 = 1_000_000;

/// Names of dialogs, by the second in which they are to be looked at. One may stand there
/// several times, and may be gone when its time comes.
#[derive(Default)]
pub(super) struct Agenda {
    seconds: BTreeMap<u64, Vec<(Time, DialogId)>>,
    /// When it was looked at last.
    now: Time,
}

impl Agenda {
    /// Notes a dialog that has something to do at `due`; when it will be looked at.
    pub(super) fn note(&mut self, id: DialogId, due: Time) -> Time {
        let at = due.min(self.now + AHEAD);
        let second = self.seconds.entry(at.0 / SECOND_US).or_default();
        second.push((at, id));
        at
    }

    /// Takes out one that is to be looked at by now: of the first second, in any order. What
    /// goes wrong with it is no matter of those behind it.
    pub(super) fn take(&mut self, now: Time) -> Option<(Time, DialogId)> {
        self.now = self.now.max(now);
        let mut second = self.seconds.first_entry()?;
        let all = second.get_mut();
        let found = all.iter().rposition(|(at, _)| *at <= now)?;
        let taken = all.swap_remove(found);
        if all.is_empty() {
            second.remove();
        }
        Some(taken)
    }

    /// When the next dialog is to be looked at.
    pub(super) fn next(&self) -> Option<Time> {
        let (_, second) = self.seconds.first_key_value()?;
        second.iter().map(|(at, _)| *at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comes_when_it_is_due_and_the_far_ones_sooner() {
        let mut agenda = Agenda::default();
        let id = |number| DialogId::new(1, number);
        let ms = Time::from_millis;
        assert_eq!(agenda.note(id(1), ms(1_500)), ms(1_500));
        assert_eq!(agenda.note(id(2), ms(1_200)), ms(1_200));
        assert_eq!(agenda.note(id(3), ms(3_600_000)), ms(60_000));
        assert_eq!(agenda.next(), Some(ms(1_200)));
        assert_eq!(agenda.take(ms(1_000)), None);
        assert_eq!(agenda.take(ms(1_300)), Some((ms(1_200), id(2))));
        assert_eq!(agenda.take(ms(1_300)), None);
        assert_eq!(agenda.next(), Some(ms(1_500)));
        assert_eq!(agenda.take(ms(61_000)), Some((ms(1_500), id(1))));
        assert_eq!(agenda.take(ms(61_000)), Some((ms(60_000), id(3))));
        assert_eq!(agenda.take(ms(61_000)), None);
        assert_eq!(agenda.note(id(3), ms(3_600_000)), ms(121_000));
        assert_eq!(agenda.next(), Some(ms(121_000)));
    }
}
