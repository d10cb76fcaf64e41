//! What a call is going to be like: drawn once, before it begins.

use super::random::Random;
use super::world::Phone;

/// What a phone does with an INVITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Temper {
    /// Rings so long, then answers.
    Answers { after: u64 },
    /// Rings so long, then refuses.
    Refuses { after: u64, status: u16 },
    /// Rings until it is told to stop.
    RingsForEver,
    /// Is switched off.
    Dead,
}

/// What the caller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Patient,
    /// Cancels so many milliseconds after the first provisional response.
    Cancels {
        after: u64,
    },
    /// Falls silent so many milliseconds after its INVITE.
    Vanishes {
        after: u64,
    },
}

/// What the policy does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Parallel,
    Serial,
    Refuse,
    /// It picks up by itself.
    Answer,
}

#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) invite: bool,
    pub(super) begins: u64,
    /// Milliseconds until the verdict; `None`: it never comes.
    pub(super) thinks: Option<u64>,
    /// The policy stages a write, which takes so many milliseconds to store.
    pub(super) writes: Option<u64>,
    pub(super) order: Order,
    pub(super) ring_timeout: u32,
    pub(super) phones: Vec<Temper>,
    pub(super) mood: Mood,
    pub(super) talks: u64,
    pub(super) callee_hangs_up: bool,
    /// Who uses TCP: the caller, then the phones.
    pub(super) streams: Vec<bool>,
}

impl Plan {
    pub(super) fn draw(random: &mut Random, tcp: u64) -> Self {
        let invite = !random.permille(200);
        let phones = random.pick(&[1, 1, 1, 2, 2, 3]);
        let order = match random.below(10) {
            0 => Order::Refuse,
            1 => Order::Answer,
            2..=5 => Order::Parallel,
            _ => Order::Serial,
        };
        let ring_timeout = match (order, random.below(2)) {
            (Order::Serial, 0) => u32::try_from(random.between(3_000, 20_000)).unwrap(),
            _ => 0,
        };
        let mood = match random.below(10) {
            0..=4 => Mood::Patient,
            5..=8 => Mood::Cancels {
                after: if random.permille(500) {
                    random.below(600)
                } else {
                    random.below(20_000)
                },
            },
            _ => Mood::Vanishes {
                after: random.below(5_000),
            },
        };
        Self {
            invite,
            begins: random.below(20_000),
            thinks: (!random.permille(20)).then(|| {
                if random.permille(400) {
                    0
                } else {
                    random.below(4_000)
                }
            }),
            writes: random.permille(300).then(|| random.below(3_000)),
            order,
            ring_timeout,
            phones: (0..phones).map(|_| temper(random, invite)).collect(),
            mood: if invite { mood } else { Mood::Patient },
            talks: random.below(30_000),
            callee_hangs_up: random.permille(300),
            streams: (0..=phones)
                .map(|_| tcp > 0 && random.permille(tcp))
                .collect(),
        }
    }
}

impl Plan {
    /// The address of a phone in a URI, with its transport.
    pub(super) fn uri_host(&self, phone: Phone) -> String {
        let transport = if self.streams[phone.number] {
            ";transport=tcp"
        } else {
            ""
        };
        format!("{}{transport}", phone.address())
    }

    /// The transport of a phone in a Via.
    pub(super) fn via(&self, phone: Phone) -> &'static str {
        if self.streams[phone.number] {
            "SIP/2.0/TCP"
        } else {
            "SIP/2.0/UDP"
        }
    }
}

fn temper(random: &mut Random, invite: bool) -> Temper {
    let after = if invite {
        random.below(25_000)
    } else {
        random.below(500)
    };
    match random.below(20) {
        0..=8 => Temper::Answers { after },
        9..=14 => Temper::Refuses {
            after,
            status: random.pick(&[302, 404, 407, 480, 486, 486, 500, 603]),
        },
        15..=17 if invite => Temper::RingsForEver,
        18 | 19 => Temper::Dead,
        _ => Temper::Answers { after },
    }
}
