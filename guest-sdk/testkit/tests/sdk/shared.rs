//! `kv` and `counters` in the test kit.

use sipbox_guest::counters::{self, Counter, Outcome};
use sipbox_guest::kv::{self, Swap};
use sipbox_guest::{Error, NoSettings, Policy, Request, Verdict};
use sipbox_testkit::{Call, Kit, World};

/// Lets a source call twice a minute, remembers who called last, and gives one caller a
/// ticket.
struct Gate;

impl Policy for Gate {
    type Settings = NoSettings;

    fn configure(NoSettings {}: NoSettings) -> Result<Self, String> {
        Ok(Self)
    }

    fn on_request(&self, request: &Request) -> Verdict {
        gate(request).unwrap_or_else(|error| match error {
            Error::Limit(_) => Verdict::reply(503).into(),
            _ => Verdict::reply(500).into(),
        })
    }
}

fn gate(request: &Request) -> Result<Verdict, Error> {
    let source = request.source().address;
    if let Outcome::Over(_) = Counter::new("calls", source, 60).take(1, 2)? {
        return Ok(Verdict::reply(403).into());
    }
    let number = counters::sequence("gate")?.to_string();
    let last = kv::get_text("last")?.unwrap_or_default();
    kv::set("last", request.from().user().unwrap_or_default(), 100)?;
    let seen = kv::get("last")?.map(|entry| entry.ttl);
    assert_eq!(seen, Some(100));
    let ticket = match kv::compare_and_set("ticket", None, "taken", 0)? {
        Swap::Stored(_) => "yours",
        Swap::Differs(_) => "taken",
        Swap::Busy => "perhaps",
    };
    Ok(Verdict::reply(200)
        .header("X-Last", &last)
        .header("X-Number", &number)
        .header("X-Ticket", ticket)
        .into())
}

fn call(second: u32) -> Call {
    Call::request("OPTIONS", "sip:bob@example.com").at(second)
}

#[test]
fn values_and_counters_last_as_long_as_they_should() {
    let kit = Kit::<Gate>::new("{}");
    let run = kit.on_request(call(1000));
    assert_eq!(run.reply_headers("X-Ticket"), ["yours"]);
    assert_eq!(run.reply_headers("X-Last"), [""]);
    let run = kit.on_request(call(1030));
    assert_eq!(run.reply_headers("X-Ticket"), ["taken"]);
    assert_eq!(run.reply_headers("X-Last"), ["alice"]);
    assert_eq!(run.reply_headers("X-Number"), ["1"]);
    kit.on_request(call(1059)).assert_reply(403);
    let source = "192.0.2.10";
    assert_eq!(kit.world().count("calls", source, 60, 1059), 2);
    kit.on_request(call(1060)).assert_reply(200);
    assert_eq!(kit.world().value("last", 1159).unwrap(), b"alice");
    assert_eq!(kit.world().value("last", 1160), None);
    let run = kit.on_request(call(2000));
    assert_eq!(run.reply_headers("X-Last"), [""]);
    assert_eq!(kit.world().numbers("gate"), 4);
}

#[test]
fn a_world_has_values_counters_and_failures() {
    let world = || World::new().stored("last", "bob");
    let run = |world: World| {
        Kit::<Gate>::new("{}")
            .in_world(world)
            .on_request(call(1000))
    };
    assert_eq!(run(world()).reply_headers("X-Last"), ["bob"]);
    assert_eq!(
        run(world().kv_busy("ticket")).reply_headers("X-Ticket"),
        ["perhaps"]
    );
    assert_eq!(
        run(world().stored("ticket", "")).reply_headers("X-Ticket"),
        ["taken"]
    );
    let numbered = run(world().numbered("gate", 7));
    assert_eq!(numbered.reply_headers("X-Number"), ["7"]);
    run(world().counted("calls", "192.0.2.10", 60, 2, 950)).assert_reply(403);
    run(world().counted("calls", "192.0.2.10", 60, 2, 940)).assert_reply(200);
    run(world().kv_fails(Error::Limit("kv_mib".into()))).assert_reply(503);
    run(world().counters_fail(Error::Unavailable("gone".into()))).assert_reply(500);
}
