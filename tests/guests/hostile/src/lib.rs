//! Misbehaves in the way that its settings name, always or for one user only.

use std::hint::black_box;

use serde::Deserialize;
use sipbox_guest::verdict::uri;
use sipbox_guest::{Error, Policy, Request, Verdict};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    behaviour: Behaviour,
    /// Misbehave for requests to this user only; for all if there is none.
    #[serde(default)]
    when_user: Option<String>,
    /// How many rounds `busy` and `slow-in-configure` compute.
    #[serde(default)]
    rounds: u64,
    /// What the rest gets.
    #[serde(default = "ok")]
    otherwise: u16,
}

fn ok() -> u16 {
    200
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Behaviour {
    EndlessLoop,
    HostCallLoop,
    AllocationBomb,
    DeepRecursion,
    Panic,
    GiantString,
    GiantVerdict,
    ManyTargets,
    LogFlood,
    EditFlood,
    VariableFlood,
    IllFormedEdits,
    IllFormedVerdict,
    UnknownOption,
    LoopInConfigure,
    PanicInConfigure,
    /// Computes, and answers well.
    Busy,
    /// The same in `configure`.
    SlowInConfigure,
}

struct Hostile(Settings);

impl Policy for Hostile {
    type Settings = Settings;

    fn configure(settings: Settings) -> Result<Self, String> {
        match settings.behaviour {
            Behaviour::LoopInConfigure => spin(),
            Behaviour::PanicInConfigure => panic!("as the settings ask"),
            Behaviour::SlowInConfigure => {
                compute(settings.rounds);
                Ok(Self(settings))
            }
            _ => Ok(Self(settings)),
        }
    }

    fn on_request(&self, request: &Request) -> Verdict {
        let user = request.request_uri().user().unwrap_or_default();
        if self.0.when_user.as_deref().is_some_and(|evil| evil != user) {
            return Verdict::reply(self.0.otherwise).into();
        }
        match self.0.behaviour {
            Behaviour::EndlessLoop => spin(),
            Behaviour::HostCallLoop => loop {
                black_box(request.classify_source(sipbox_guest::SourceClass::all()));
            },
            Behaviour::AllocationBomb => allocate(),
            Behaviour::DeepRecursion => return Verdict::reply(200 + dive(1) as u16 % 2).into(),
            Behaviour::Panic => panic!("as the settings ask"),
            Behaviour::GiantString => {
                let _ = request.set_header("X-Giant", &"x".repeat(1 << 20));
            }
            Behaviour::GiantVerdict => {
                return Verdict::reply(200)
                    .header("X-Giant", "x".repeat(100_000))
                    .into();
            }
            Behaviour::ManyTargets => {
                return Verdict::relay()
                    .to_all((0..1000).map(|n| uri(format!("sip:{n}@example.org"))))
                    .into();
            }
            Behaviour::LogFlood => loop {
                sipbox_guest::info!("the same line again and again, until somebody stops it");
            },
            Behaviour::EditFlood => loop {
                let _ = request.add_header("X-Flood", "drop");
            },
            Behaviour::VariableFlood => {
                for n in 0.. {
                    let _ = request.set_var(&format!("v{n}"), &"x".repeat(2000));
                }
            }
            Behaviour::IllFormedEdits => return ill_formed(request),
            Behaviour::IllFormedVerdict => {
                return Verdict::reply(200)
                    .header("X-A", "a\r\nVia: SIP/2.0/UDP evil")
                    .into();
            }
            Behaviour::UnknownOption => {
                let Verdict::Relay(mut plan) = Verdict::from(Verdict::relay()) else {
                    return Verdict::Next;
                };
                plan.options.push(("teleport".into(), "yes".into()));
                return Verdict::Relay(plan);
            }
            Behaviour::Busy => {
                compute(self.0.rounds);
                return Verdict::reply(self.0.otherwise).into();
            }
            Behaviour::SlowInConfigure => return Verdict::reply(self.0.otherwise).into(),
            Behaviour::LoopInConfigure | Behaviour::PanicInConfigure => {}
        }
        Verdict::reply(299).reason("Survived").into()
    }
}

fn spin() -> ! {
    let mut n = 0u64;
    loop {
        n = black_box(n.wrapping_add(1));
    }
}

fn compute(rounds: u64) {
    for n in 0..rounds {
        black_box(n);
    }
}

fn allocate() -> ! {
    let mut kept = Vec::new();
    loop {
        kept.push(black_box(vec![1u8; 1 << 20]));
    }
}

#[allow(unconditional_recursion)]
#[inline(never)]
fn dive(depth: u64) -> u64 {
    let frame = black_box([depth; 8]);
    black_box(dive(black_box(depth + 1))) + frame[(depth % 8) as usize]
}

/// Tries what must be refused. The answer names what was not.
fn ill_formed(request: &Request) -> Verdict {
    let tries: [(&str, Result<(), Error>); 10] = [
        (
            "crlf",
            request.set_header("X-A", "a\r\nVia: SIP/2.0/UDP evil"),
        ),
        ("lf", request.add_header("X-A", "a\nX-B: b")),
        ("nul", request.set_header("X-A", "a\0b")),
        ("name", request.set_header("X-A: b\r\nX-C", "d")),
        ("empty-name", request.set_header("", "d")),
        ("via", request.set_header("v", "SIP/2.0/UDP evil")),
        ("length", request.remove_header("Content-Length")),
        ("uri", request.set_request_uri("sip:a@b SIP/2.0\r\nX: y")),
        ("empty-uri", request.set_request_uri("")),
        ("param", request.add_route_param("a", "b>\r\nX: y")),
    ];
    let mut reply = Verdict::reply(200);
    for (name, outcome) in tries {
        let outcome = match outcome {
            Ok(()) => "accepted",
            Err(Error::Malformed(_)) => "malformed",
            Err(Error::Protected(_)) => "protected",
            Err(_) => "other",
        };
        reply = reply.header(format!("X-{name}"), outcome);
    }
    reply.into()
}

sipbox_guest::export!(Hostile, hooks = [request]);
