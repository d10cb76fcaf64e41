//! The states of a dialog, as OpenSIPS's dialog module numbers them, and what leads
//! from one to another.

/// Where a dialog stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// The INVITE is on its way.
    Unconfirmed,
    /// A provisional response has gone upstream.
    Early,
    /// A 2xx has; its ACK has not been seen.
    ConfirmedNoAck,
    /// The ACK has been seen.
    Confirmed,
    /// It is over.
    Deleted,
}

impl State {
    /// The number that commands and the table have for it.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Unconfirmed => 1,
            Self::Early => 2,
            Self::ConfirmedNoAck => 3,
            Self::Confirmed => 4,
            Self::Deleted => 5,
        }
    }

    /// The state of that number.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Unconfirmed,
            2 => Self::Early,
            3 => Self::ConfirmedNoAck,
            4 => Self::Confirmed,
            5 => Self::Deleted,
            _ => return None,
        })
    }

    /// Whether a call has been answered and is not over.
    #[must_use]
    pub const fn is_confirmed(self) -> bool {
        matches!(self, Self::ConfirmedNoAck | Self::Confirmed)
    }

    /// Whether a call has not been answered.
    #[must_use]
    pub const fn is_early(self) -> bool {
        matches!(self, Self::Unconfirmed | Self::Early)
    }
}

/// What happens to a dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happened {
    Provisional,
    Success,
    /// A final response of 300 or more.
    Failure,
    /// The transaction of the INVITE is gone.
    Gone,
    Ack,
    /// On the leg that answered.
    Bye,
    /// Its time is over, or somebody said so.
    Ended,
}

/// The state that follows; `None`: it stays. Workers tell what happened in any order,
/// so nothing goes back but by a late 2xx.
pub(super) const fn next(state: State, happened: Happened, bye_seen: bool) -> Option<State> {
    Some(match (state, happened) {
        (State::Unconfirmed, Happened::Provisional) => State::Early,
        (State::Unconfirmed | State::Early, Happened::Success) => State::ConfirmedNoAck,
        (State::Deleted, Happened::Success) if !bye_seen => State::ConfirmedNoAck,
        (State::Unconfirmed | State::Early, Happened::Failure | Happened::Gone)
        | (State::ConfirmedNoAck | State::Confirmed, Happened::Bye)
        | (
            State::Unconfirmed | State::Early | State::ConfirmedNoAck | State::Confirmed,
            Happened::Ended,
        ) => State::Deleted,
        (State::ConfirmedNoAck, Happened::Ack) => State::Confirmed,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_states_follow_each_other_as_in_the_dialog_module() {
        use Happened::{Ack, Bye, Ended, Failure, Gone, Provisional, Success};
        use State::{Confirmed, ConfirmedNoAck, Deleted, Early, Unconfirmed};
        let all = [Unconfirmed, Early, ConfirmedNoAck, Confirmed, Deleted];
        let what = [Provisional, Success, Failure, Gone, Ack, Bye, Ended];
        // A row for each state, a column for each thing that can happen; 0: it stays.
        let table = [
            [2, 3, 5, 5, 0, 0, 5],
            [0, 3, 5, 5, 0, 0, 5],
            [0, 0, 0, 0, 4, 5, 5],
            [0, 0, 0, 0, 0, 5, 5],
            [0, 3, 0, 0, 0, 0, 0],
        ];
        for (state, row) in all.into_iter().zip(table) {
            assert_eq!(State::from_number(state.number()), Some(state));
            for (happened, expected) in what.into_iter().zip(row) {
                let found = next(state, happened, false).map_or(0, State::number);
                assert_eq!(found, expected, "{state:?} {happened:?}");
            }
        }
        assert_eq!(next(Deleted, Success, true), None, "a BYE was seen");
        assert_eq!(State::from_number(0), None);
    }
}
