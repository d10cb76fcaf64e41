//! The four machines of RFC 3261 section 17 with the changes of RFC 6026, as
//! tables: a state and an event give the next state and what is to be done. They
//! know neither time nor bytes; the shard carries the actions out.

use std::time::Duration;

use crate::settings::Timers;

/// Which machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::enum_variant_names, reason = "the names of RFC 3261")]
pub(crate) enum Machine {
    /// 17.1.1
    ClientInvite,
    /// 17.1.2
    ClientNonInvite,
    /// 17.2.1
    ServerInvite,
    /// 17.2.2
    ServerNonInvite,
}

/// The states of all four; each machine has some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Calling,
    Trying,
    Proceeding,
    /// RFC 6026: an INVITE got a 2xx.
    Accepted,
    Completed,
    Confirmed,
    Terminated,
}

/// A timer by its letter in RFC 3261's table 4 and RFC 6026.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Letter {
    A,
    B,
    D,
    E,
    F,
    G,
    H,
    I,
    J,
    K,
    L,
    M,
}

/// What happens to a machine. For clients the classes are those of responses that
/// arrive, for servers those of responses that the transaction user hands down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Provisional,
    Success,
    /// 300 to 699.
    Failure,
    /// Servers: the request again.
    Request,
    /// Servers: an ACK.
    Ack,
    Fired(Letter),
    TransportError,
}

/// What is to be done, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send what is kept: the request, or the last response.
    Transmit,
    /// Send the ACK (17.1.1.3).
    Ack,
    /// Hand the message to the transaction user.
    Pass,
    Start(Letter),
    Stop(Letter),
    /// The peer did not answer in time.
    TellTimeout,
    /// The message could not be sent.
    TellTransport,
}

/// Next state and actions.
pub(crate) type Step = (State, &'static [Action]);

/// The tables. An event that a state does not list changes nothing.
pub(crate) fn step(machine: Machine, state: State, event: Event) -> Step {
    match machine {
        Machine::ClientInvite => client_invite(state, event),
        Machine::ClientNonInvite => client_non_invite(state, event),
        Machine::ServerInvite => server_invite(state, event),
        Machine::ServerNonInvite => server_non_invite(state, event),
    }
}

/// What the first request of a client, or the arrival of one at a server, starts.
pub(crate) fn begin(machine: Machine) -> Step {
    use Action::{Start, Transmit};
    match machine {
        Machine::ClientInvite => (
            State::Calling,
            &[Transmit, Start(Letter::A), Start(Letter::B)],
        ),
        Machine::ClientNonInvite => (
            State::Trying,
            &[Transmit, Start(Letter::E), Start(Letter::F)],
        ),
        Machine::ServerInvite => (State::Proceeding, &[]),
        Machine::ServerNonInvite => (State::Trying, &[]),
    }
}

/// 17.1.1.2, figure 5; RFC 6026 7.2, 8.4.
fn client_invite(state: State, event: Event) -> Step {
    use Action::{Ack, Pass, Start, Stop, TellTimeout, TellTransport, Transmit};
    use Letter::{A, B, D, M};
    use State::{Accepted, Calling, Completed, Proceeding, Terminated};
    match (state, event) {
        (Calling, Event::Fired(A)) => (Calling, &[Transmit, Start(A)]),
        (Calling, Event::Fired(B)) => (Terminated, &[Stop(A), TellTimeout]),
        (Calling, Event::Provisional) => (Proceeding, &[Stop(A), Stop(B), Pass]),
        (Proceeding, Event::Provisional) => (Proceeding, &[Pass]),
        (Calling | Proceeding, Event::Success) => (Accepted, &[Stop(A), Stop(B), Start(M), Pass]),
        (Calling | Proceeding, Event::Failure) => {
            (Completed, &[Stop(A), Stop(B), Ack, Start(D), Pass])
        }
        (Accepted, Event::Success) => (Accepted, &[Pass]),
        (Accepted, Event::Fired(M)) => (Terminated, &[]),
        (Completed, Event::Failure) => (Completed, &[Ack]),
        (Completed, Event::Fired(D)) => (Terminated, &[]),
        (Calling, Event::TransportError) => (Terminated, &[Stop(A), Stop(B), TellTransport]),
        (Completed, Event::TransportError) => (Terminated, &[Stop(D), TellTransport]),
        _ => (state, &[]),
    }
}

/// 17.1.2.2, figure 6.
fn client_non_invite(state: State, event: Event) -> Step {
    use Action::{Pass, Start, Stop, TellTimeout, TellTransport, Transmit};
    use Letter::{E, F, K};
    use State::{Completed, Proceeding, Terminated, Trying};
    match (state, event) {
        (Trying | Proceeding, Event::Fired(E)) => (state, &[Transmit, Start(E)]),
        (Trying | Proceeding, Event::Fired(F)) => (Terminated, &[Stop(E), TellTimeout]),
        (Trying | Proceeding, Event::Provisional) => (Proceeding, &[Pass]),
        (Trying | Proceeding, Event::Success | Event::Failure) => {
            (Completed, &[Stop(E), Stop(F), Start(K), Pass])
        }
        (Trying | Proceeding, Event::TransportError) => {
            (Terminated, &[Stop(E), Stop(F), TellTransport])
        }
        (Completed, Event::Fired(K)) => (Terminated, &[]),
        _ => (state, &[]),
    }
}

/// 17.2.1, figure 7; RFC 6026 7.1. A transport error leaves the state as it is
/// (RFC 6026 8.8): the timers end it.
fn server_invite(state: State, event: Event) -> Step {
    use Action::{Pass, Start, Stop, TellTimeout, Transmit};
    use Letter::{G, H, I, L};
    use State::{Accepted, Completed, Confirmed, Proceeding, Terminated};
    match (state, event) {
        (Proceeding, Event::Request | Event::Provisional) => (Proceeding, &[Transmit]),
        (Proceeding, Event::Success) => (Accepted, &[Transmit, Start(L)]),
        (Proceeding, Event::Failure) => (Completed, &[Transmit, Start(G), Start(H)]),
        (Completed, Event::Request) => (Completed, &[Transmit]),
        (Completed, Event::Fired(G)) => (Completed, &[Transmit, Start(G)]),
        (Completed, Event::Ack) => (Confirmed, &[Stop(G), Stop(H), Start(I)]),
        (Completed, Event::Fired(H)) => (Terminated, &[Stop(G), TellTimeout]),
        (Confirmed, Event::Fired(I)) => (Terminated, &[]),
        (Accepted, Event::Success) => (Accepted, &[Transmit]),
        (Accepted, Event::Ack) => (Accepted, &[Pass]),
        (Accepted, Event::Fired(L)) => (Terminated, &[]),
        _ => (state, &[]),
    }
}

/// 17.2.2, figure 8.
fn server_non_invite(state: State, event: Event) -> Step {
    use Action::{Start, Transmit};
    use Letter::J;
    use State::{Completed, Proceeding, Terminated, Trying};
    match (state, event) {
        (Trying | Proceeding, Event::Provisional) => (Proceeding, &[Transmit]),
        (Trying | Proceeding, Event::Success | Event::Failure) => {
            (Completed, &[Transmit, Start(J)])
        }
        (Proceeding | Completed, Event::Request) => (state, &[Transmit]),
        (Completed, Event::Fired(J)) => (Terminated, &[]),
        _ => (state, &[]),
    }
}

/// How long a timer runs; `None` where it is not used over that transport. A
/// duration of zero ends the state at once. `interval` is the previous one of a
/// retransmission timer, zero at first.
pub(crate) fn duration(
    letter: Letter,
    timers: &Timers,
    reliable: bool,
    state: State,
    interval: Duration,
) -> Option<Duration> {
    let doubled = |cap: Option<Duration>| {
        let next = if interval.is_zero() {
            timers.t1
        } else {
            interval * 2
        };
        Some(cap.map_or(next, |cap| next.min(cap)))
    };
    match letter {
        Letter::A | Letter::E if reliable => None,
        Letter::A => doubled(None),
        // 17.1.2.2: in Proceeding the interval is T2 at once.
        Letter::E if state == State::Proceeding => Some(timers.t2),
        Letter::E => doubled(Some(timers.t2)),
        // The UAS retransmits a 2xx itself, other finals we do, over UDP only
        // (17.2.1).
        Letter::G if reliable => None,
        Letter::G => doubled(Some(timers.t2)),
        Letter::B => Some(timers.b),
        Letter::F => Some(timers.f),
        Letter::D => Some(if reliable { Duration::ZERO } else { timers.d() }),
        Letter::I | Letter::K => Some(if reliable { Duration::ZERO } else { timers.t4 }),
        Letter::J => Some(if reliable {
            Duration::ZERO
        } else {
            timers.t1_64()
        }),
        Letter::H | Letter::L | Letter::M => Some(timers.t1_64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The figures of RFC 3261 section 17 and RFC 6026, written down a second time as
    /// rows of text: machine, state, event, next state, actions.
    const REFERENCE: &str = "
        CI Calling    A  Calling    send,+A
        CI Calling    B  Terminated -A,timeout
        CI Calling    1  Proceeding -A,-B,pass
        CI Calling    2  Accepted   -A,-B,+M,pass
        CI Calling    3  Completed  -A,-B,ack,+D,pass
        CI Calling    X  Terminated -A,-B,error
        CI Proceeding 1  Proceeding pass
        CI Proceeding 2  Accepted   -A,-B,+M,pass
        CI Proceeding 3  Completed  -A,-B,ack,+D,pass
        CI Accepted   2  Accepted   pass
        CI Accepted   M  Terminated .
        CI Completed  3  Completed  ack
        CI Completed  D  Terminated .
        CI Completed  X  Terminated -D,error
        CN Trying     E  Trying     send,+E
        CN Trying     F  Terminated -E,timeout
        CN Trying     1  Proceeding pass
        CN Trying     2  Completed  -E,-F,+K,pass
        CN Trying     3  Completed  -E,-F,+K,pass
        CN Trying     X  Terminated -E,-F,error
        CN Proceeding E  Proceeding send,+E
        CN Proceeding F  Terminated -E,timeout
        CN Proceeding 1  Proceeding pass
        CN Proceeding 2  Completed  -E,-F,+K,pass
        CN Proceeding 3  Completed  -E,-F,+K,pass
        CN Proceeding X  Terminated -E,-F,error
        CN Completed  K  Terminated .
        SI Proceeding R  Proceeding send
        SI Proceeding 1  Proceeding send
        SI Proceeding 2  Accepted   send,+L
        SI Proceeding 3  Completed  send,+G,+H
        SI Completed  R  Completed  send
        SI Completed  G  Completed  send,+G
        SI Completed  K! Confirmed  -G,-H,+I
        SI Completed  H  Terminated -G,timeout
        SI Confirmed  I  Terminated .
        SI Accepted   2  Accepted   send
        SI Accepted   K! Accepted   pass
        SI Accepted   L  Terminated .
        SN Trying     1  Proceeding send
        SN Trying     2  Completed  send,+J
        SN Trying     3  Completed  send,+J
        SN Proceeding R  Proceeding send
        SN Proceeding 1  Proceeding send
        SN Proceeding 2  Completed  send,+J
        SN Proceeding 3  Completed  send,+J
        SN Completed  R  Completed  send
        SN Completed  J  Terminated .
    ";

    const LETTERS: [Letter; 12] = [
        Letter::A,
        Letter::B,
        Letter::D,
        Letter::E,
        Letter::F,
        Letter::G,
        Letter::H,
        Letter::I,
        Letter::J,
        Letter::K,
        Letter::L,
        Letter::M,
    ];

    fn event_name(event: Event) -> String {
        match event {
            Event::Provisional => "1".into(),
            Event::Success => "2".into(),
            Event::Failure => "3".into(),
            Event::Request => "R".into(),
            Event::Ack => "K!".into(),
            Event::TransportError => "X".into(),
            Event::Fired(letter) => format!("{letter:?}"),
        }
    }

    fn action_name(action: &Action) -> String {
        match action {
            Action::Transmit => "send".into(),
            Action::Ack => "ack".into(),
            Action::Pass => "pass".into(),
            Action::Start(letter) => format!("+{letter:?}"),
            Action::Stop(letter) => format!("-{letter:?}"),
            Action::TellTimeout => "timeout".into(),
            Action::TellTransport => "error".into(),
        }
    }

    #[test]
    fn every_machine_does_what_the_reference_table_says_and_nothing_else() {
        let machines = [
            ("CI", Machine::ClientInvite),
            ("CN", Machine::ClientNonInvite),
            ("SI", Machine::ServerInvite),
            ("SN", Machine::ServerNonInvite),
        ];
        let states = [
            State::Calling,
            State::Trying,
            State::Proceeding,
            State::Accepted,
            State::Completed,
            State::Confirmed,
            State::Terminated,
        ];
        let events: Vec<Event> = [
            Event::Provisional,
            Event::Success,
            Event::Failure,
            Event::Request,
            Event::Ack,
            Event::TransportError,
        ]
        .into_iter()
        .chain(LETTERS.map(Event::Fired))
        .collect();
        let rows: Vec<Vec<&str>> = REFERENCE
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|row| !row.is_empty())
            .collect();
        let mut seen = 0;
        for (name, machine) in machines {
            for state in states {
                for &event in &events {
                    let (next, actions) = step(machine, state, event);
                    let key = [name, &format!("{state:?}"), &event_name(event)].map(str::to_owned);
                    let row = rows.iter().find(|row| row[..3] == key);
                    let (expected, wanted) = match row {
                        Some(row) => {
                            seen += 1;
                            (row[3].to_owned(), row[4].to_owned())
                        }
                        None => (format!("{state:?}"), ".".to_owned()),
                    };
                    let done: Vec<String> = actions.iter().map(action_name).collect();
                    let done = if done.is_empty() {
                        ".".to_owned()
                    } else {
                        done.join(",")
                    };
                    assert_eq!((format!("{next:?}"), done), (expected, wanted), "{key:?}");
                }
            }
        }
        assert_eq!(
            seen,
            rows.len(),
            "a row of the reference names no state or event"
        );
    }

    #[test]
    fn a_terminated_machine_or_one_that_ends_leaves_no_timer_running() {
        // Walk each machine along random events, count starts and stops.
        let mut random = 1u32;
        for machine in [
            Machine::ClientInvite,
            Machine::ClientNonInvite,
            Machine::ServerInvite,
            Machine::ServerNonInvite,
        ] {
            for _ in 0..2000 {
                let mut running: Vec<Letter> = Vec::new();
                let apply = |actions: &[Action], running: &mut Vec<Letter>| {
                    for action in actions {
                        match action {
                            Action::Start(letter) if !running.contains(letter) => {
                                running.push(*letter);
                            }
                            Action::Stop(letter) => running.retain(|other| other != letter),
                            _ => {}
                        }
                    }
                };
                let (mut state, actions) = begin(machine);
                apply(actions, &mut running);
                for _ in 0..200 {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let pick = (random >> 16) as usize;
                    let event = match pick % 8 {
                        0 => Event::Provisional,
                        1 => Event::Success,
                        2 => Event::Failure,
                        3 => Event::Request,
                        4 => Event::Ack,
                        5 => Event::TransportError,
                        _ if running.is_empty() => continue,
                        _ => {
                            let letter = running.swap_remove(pick / 8 % running.len());
                            Event::Fired(letter)
                        }
                    };
                    let (next, actions) = step(machine, state, event);
                    apply(actions, &mut running);
                    state = next;
                    if state == State::Terminated {
                        assert_eq!(running, [], "{machine:?} after {event:?}");
                        break;
                    }
                }
            }
        }
    }

    #[test]
    fn retransmissions_double_up_to_their_caps() {
        let timers = Timers::default();
        let series = |letter, state| {
            let mut interval = Duration::ZERO;
            let mut at = Vec::new();
            for _ in 0..6 {
                interval = duration(letter, &timers, false, state, interval).unwrap();
                at.push(interval.as_millis());
            }
            at
        };
        assert_eq!(
            series(Letter::A, State::Calling),
            [500, 1000, 2000, 4000, 8000, 16000]
        );
        assert_eq!(
            series(Letter::E, State::Trying),
            [500, 1000, 2000, 4000, 4000, 4000]
        );
        assert_eq!(series(Letter::E, State::Proceeding), [4000; 6]);
        assert_eq!(
            series(Letter::G, State::Completed),
            [500, 1000, 2000, 4000, 4000, 4000]
        );
    }

    #[test]
    fn over_a_reliable_transport_nothing_is_retransmitted_and_the_waits_are_gone() {
        let timers = Timers::default();
        let of = |letter| duration(letter, &timers, true, State::Completed, Duration::ZERO);
        for letter in [Letter::A, Letter::E, Letter::G] {
            assert_eq!(of(letter), None);
        }
        for letter in [Letter::D, Letter::I, Letter::J, Letter::K] {
            assert_eq!(of(letter), Some(Duration::ZERO));
        }
        for letter in [Letter::B, Letter::F, Letter::H, Letter::L, Letter::M] {
            assert_eq!(of(letter), Some(timers.t1 * 64));
        }
    }
}
