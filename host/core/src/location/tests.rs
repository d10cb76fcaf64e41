//! RFC 3261 section 10.3 through the service's front door, under virtual time.

mod model;
mod pings;
mod unstored;
mod upkeep;

use std::sync::Arc;

use sipbox_sip::{Index, Message, Transport};

use super::*;
use crate::flow::{ConnectionId, Flow, ListenerId, TenantId};
use crate::policy::{Reached, SaveLimits};
use crate::time::WallTime;

const T: TenantId = TenantId(0);
const START: WallTime = WallTime(1_700_000_000_000);

struct Bench {
    service: LocationService,
    now: WallTime,
    limits: SaveLimits,
}

impl Bench {
    fn new() -> Self {
        let limits = SaveLimits {
            min_expires: 60,
            max_expires: 7200,
            default_expires: 600,
            max_contacts: 0,
            ..SaveLimits::default()
        };
        Self {
            service: LocationService::new(4, &[1; 16]),
            now: START,
            limits,
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.now = WallTime(self.now.0 + seconds * 1000);
    }

    fn plan(&self, aor: &str, fields: &str) -> Result<Planned, Refused> {
        let bytes = format!(
            "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\n\
             From: <sip:{aor}>;tag=1\r\nTo: <sip:{aor}>\r\n{fields}Content-Length: 0\r\n\r\n"
        );
        let mut index = Index::new();
        let message = Message::parse(bytes.as_bytes(), &mut index).unwrap();
        let source = (flow(), &Arc::from("udp:192.0.2.10:5060"));
        let aor = Aor::parse(aor).unwrap();
        self.service
            .plan(T, &aor, &message, source, self.now, &self.limits)
    }

    /// Registers `alice@example.com`; the Contact values that a 200 would list.
    fn register(&self, call_id: &str, cseq: u32, fields: &str) -> Result<Vec<String>, Refused> {
        let fields = format!("Call-ID: {call_id}\r\nCSeq: {cseq} REGISTER\r\n{fields}\r\n");
        let bindings = match self.plan("alice@example.com", &fields)? {
            Planned::Query(bindings) => bindings,
            Planned::Save(plan) => {
                let commit = self.service.commit(&plan, self.now)?;
                assert_eq!(
                    u32::try_from(commit.bindings.len()).unwrap(),
                    plan.standing()
                );
                commit.bindings
            }
        };
        assert_eq!(bindings, self.alice());
        Ok(contact_header_values(&bindings, self.now))
    }

    fn alice(&self) -> Bindings {
        self.service.lookup(T, &alice(), self.now)
    }
}

fn alice() -> Aor {
    Aor::parse("alice@example.com").unwrap()
}

fn flow() -> Flow {
    Flow {
        listener: ListenerId(0),
        transport: Transport::Tcp,
        peer: "192.0.2.1:40000".parse().unwrap(),
        connection: Some(ConnectionId {
            slot: 3,
            generation: 1,
        }),
        local: None,
    }
}

fn status(result: Result<Vec<String>, Refused>) -> u16 {
    result.map_or_else(|refused| refused.status, |_| 200)
}

#[test]
fn the_contact_parameter_beats_the_header_beats_the_default() {
    let bench = Bench::new();
    let contacts = "Expires: 1000\r\nContact: <sip:a@h1>;expires=500, <sip:a@h2>";
    assert_eq!(
        bench.register("c", 1, contacts).unwrap(),
        ["<sip:a@h1>;expires=500", "<sip:a@h2>;expires=1000"]
    );
    assert_eq!(
        bench.register("c", 2, "Contact: <sip:a@h3>").unwrap()[0],
        "<sip:a@h3>;expires=600"
    );
}

#[test]
fn a_malformed_expires_parameter_counts_as_an_hour() {
    let bench = Bench::new();
    let listed = bench
        .register("c", 1, "Contact: <sip:a@h>;expires=soon")
        .unwrap();
    assert_eq!(listed, ["<sip:a@h>;expires=3600"]);
}

#[test]
fn too_long_is_cut_and_too_brief_gets_423_with_the_minimum() {
    let mut bench = Bench::new();
    assert_eq!(
        bench
            .register("c", 1, "Contact: <sip:a@h>;expires=99999999999")
            .unwrap(),
        ["<sip:a@h>;expires=7200"]
    );
    for fields in [
        "Contact: <sip:a@h>;expires=59",
        "Expires: 1\r\nContact: <sip:a@h>",
    ] {
        let refused = bench.register("c", 2, fields).unwrap_err();
        assert_eq!(
            (refused.status, refused.min_expires),
            (423, Some(60)),
            "{fields}"
        );
    }
    assert_eq!(
        status(bench.register("c", 2, "Contact: <sip:a@h>;expires=60")),
        200
    );
    // Only an interval below an hour may be called too brief.
    bench.limits.min_expires = 5000;
    assert_eq!(
        status(bench.register("c", 3, "Contact: <sip:a@h>;expires=3600")),
        200
    );
    assert_eq!(
        status(bench.register("c", 4, "Contact: <sip:a@h>;expires=3599")),
        423
    );
}

#[test]
fn zero_removes_one_and_star_removes_all() {
    let bench = Bench::new();
    bench
        .register("c", 1, "Contact: <sip:a@h1>, <sip:a@h2>, <sip:a@h3>")
        .unwrap();
    let left = bench
        .register("c", 2, "Contact: <sip:a@h2>;expires=0")
        .unwrap();
    assert_eq!(left, ["<sip:a@h1>;expires=600", "<sip:a@h3>;expires=600"]);
    assert_eq!(
        status(bench.register("c", 3, "Contact: <sip:a@gone>;expires=0")),
        200
    );
    assert_eq!(
        bench.register("c", 4, "Expires: 0\r\nContact: *").unwrap(),
        [""; 0]
    );
    assert_eq!(bench.service.counts(None), Counts::default());
}

#[test]
fn star_stands_alone_with_expires_zero() {
    let bench = Bench::new();
    bench.register("c", 1, "Contact: <sip:a@h1>").unwrap();
    for fields in [
        "Contact: *",
        "Expires: 60\r\nContact: *",
        "Expires: nonsense\r\nContact: *",
        "Expires: 0\r\nContact: *, <sip:a@h1>",
        "Expires: 0\r\nContact: *\r\nContact: <sip:a@h1>;expires=0",
        "Expires: 0\r\nContact: *, *",
    ] {
        assert_eq!(status(bench.register("c", 2, fields)), 400, "{fields}");
        assert_eq!(bench.alice().len(), 1);
    }
}

#[test]
fn a_broken_contact_or_path_spoils_the_whole_request() {
    let bench = Bench::new();
    for fields in [
        "Contact: <sip:a@h1>, <sip:a@h2",
        "Contact: <sip:a@h1>, sip:a@h2?Route=x",
        "Contact: <sip:a@h1>,",
        "Contact: <sip:a@h\u{1}1>",
        "Path: <sip:edge\r\nContact: <sip:a@h1>",
    ] {
        assert_eq!(status(bench.register("c", 1, fields)), 400, "{fields}");
        assert_eq!(bench.alice().len(), 0, "{fields}");
    }
}

#[test]
fn no_contact_asks_without_changing() {
    let bench = Bench::new();
    assert_eq!(bench.register("c", 1, "Subject: x").unwrap(), [""; 0]);
    bench.register("c", 2, "Contact: <sip:a@h>").unwrap();
    assert_eq!(
        bench.register("c", 1, "Expires: 0").unwrap(),
        ["<sip:a@h>;expires=600"]
    );
}

#[test]
fn a_lower_or_equal_cseq_of_the_same_call_id_fails_whole() {
    let bench = Bench::new();
    bench.register("c", 10, "Contact: <sip:a@h1>").unwrap();
    bench.register("other", 5, "Contact: <sip:a@h2>").unwrap();
    for cseq in [9, 10] {
        let fields = "Contact: <sip:a@new>, <sip:a@h1>";
        assert_eq!(status(bench.register("c", cseq, fields)), 500);
        assert_eq!(
            status(bench.register("c", cseq, "Contact: <sip:a@h1>;expires=0")),
            500
        );
        assert_eq!(
            status(bench.register("c", cseq, "Expires: 0\r\nContact: *")),
            500
        );
        assert_eq!(bench.alice().len(), 2, "nothing changed");
    }
    // Another Call-ID (a phone that restarted) starts anew, as does a higher CSeq.
    assert_eq!(
        status(bench.register("restarted", 1, "Contact: <sip:a@h1>")),
        200
    );
    assert_eq!(
        status(bench.register("other", 6, "Contact: <sip:a@h2>")),
        200
    );
    assert_eq!(bench.alice().len(), 2);
}

#[test]
fn contacts_are_compared_as_uris() {
    let bench = Bench::new();
    bench
        .register("c", 1, "Contact: <sip:%61lice@HOST.example;transport=TCP>")
        .unwrap();
    bench
        .register("c", 2, "Contact: <sip:alice@host.example;Transport=tcp>")
        .unwrap();
    assert_eq!(bench.alice().len(), 1, "one binding, written again");
    assert_eq!(
        &*bench.alice()[0].contact,
        "sip:alice@host.example;Transport=tcp"
    );
    bench
        .register("c", 3, "Contact: <sip:Alice@host.example;transport=tcp>")
        .unwrap();
    bench
        .register(
            "c",
            4,
            "Contact: <sip:alice@host.example:5060;transport=tcp>",
        )
        .unwrap();
    assert_eq!(bench.alice().len(), 3, "user and port make a difference");
}

#[test]
fn instance_and_reg_id_are_one_binding_wherever_the_phone_is() {
    let bench = Bench::new();
    let contact = |host: &str, reg_id: u32| {
        format!("Contact: <sip:a@{host}>;+sip.instance=\"<urn:uuid:1>\";reg-id={reg_id}")
    };
    bench.register("c", 1, &contact("10.0.0.1", 1)).unwrap();
    let id = bench.alice()[0].id;
    let listed = bench.register("moved", 1, &contact("10.0.0.2", 1)).unwrap();
    assert_eq!(
        listed,
        ["<sip:a@10.0.0.2>;expires=600;+sip.instance=\"<urn:uuid:1>\";reg-id=1"]
    );
    assert_eq!(bench.alice()[0].id, id);
    bench.register("c", 3, &contact("10.0.0.2", 2)).unwrap();
    assert_eq!(bench.alice().len(), 2, "a second flow of the same phone");
    bench.register("c", 4, "Contact: <sip:a@10.0.0.2>").unwrap();
    assert_eq!(bench.alice().len(), 3, "a plain contact takes no flow over");
}

#[test]
fn the_limit_of_contacts_refuses_growth_only() {
    let mut bench = Bench::new();
    bench.limits.max_contacts = 2;
    assert_eq!(
        status(bench.register("c", 1, "Contact: <sip:a@h1>, <sip:a@h2>, <sip:a@h3>")),
        403
    );
    assert_eq!(bench.alice().len(), 0);
    bench
        .register("c", 1, "Contact: <sip:a@h1>, <sip:a@h2>")
        .unwrap();
    assert_eq!(status(bench.register("c", 2, "Contact: <sip:a@h3>")), 403);
    // One goes, one comes.
    assert_eq!(
        status(bench.register("c", 3, "Contact: <sip:a@h1>;expires=0, <sip:a@h3>")),
        200
    );
    bench.limits.max_contacts = 1;
    assert_eq!(
        status(bench.register("c", 4, "Contact: <sip:a@h3>")),
        200,
        "a refresh"
    );
    bench.pass(601);
    assert_eq!(
        status(bench.register("c", 5, "Contact: <sip:a@h4>")),
        200,
        "the others ended"
    );
}

#[test]
fn the_best_q_comes_first_then_the_latest() {
    let bench = Bench::new();
    bench
        .register("c", 1, "Contact: <sip:a@old>;q=0.5, <sip:a@low>;q=0.125")
        .unwrap();
    let listed = bench
        .register(
            "c",
            2,
            "Contact: <sip:a@new>;q=0.5, <sip:a@newer>;q=0.5, <sip:a@best>",
        )
        .unwrap();
    assert_eq!(
        listed,
        [
            "<sip:a@best>;expires=600",
            "<sip:a@new>;expires=600;q=0.5",
            "<sip:a@newer>;expires=600;q=0.5",
            "<sip:a@old>;expires=600;q=0.5",
            "<sip:a@low>;expires=600;q=0.125",
        ]
    );
    bench
        .register("c", 3, "Contact: <sip:a@worst>;q=0")
        .unwrap();
    let worst = contact_header_values(&bench.alice(), bench.now)
        .pop()
        .unwrap();
    assert_eq!(worst, "<sip:a@worst>;expires=600;q=0.0");
}

#[test]
fn a_binding_keeps_what_the_request_says() {
    let bench = Bench::new();
    let fields = "Path: <sip:edge1;lr>, <sip:edge2;lr>\r\nPath: <sip:edge3;lr>\r\n\
                  User-Agent: phone\r\n folded\r\nAllow: INVITE\r\nAllow: BYE, ACK\r\nContact: <sip:a@h>";
    bench.register("c", 7, fields).unwrap();
    let bindings = bench.alice();
    let binding = &bindings[0];
    let path: Vec<&str> = binding.path.iter().map(|p| &**p).collect();
    assert_eq!(path, ["<sip:edge1;lr>", "<sip:edge2;lr>", "<sip:edge3;lr>"]);
    assert_eq!(&*binding.user_agent, "phone folded");
    assert_eq!(binding.methods, Some(1 + 4 + 8));
    assert_eq!(binding.flow, Some(flow()));
    assert_eq!(&*binding.received, "sip:192.0.2.1:40000;transport=tcp");
    assert_eq!((&*binding.call_id, binding.cseq), ("c", 7));
    assert_eq!(&*binding.socket, "udp:192.0.2.10:5060");
    assert_eq!(binding.last_modified, START);
}

/// RFC 3261 section 10.3: whoever registers another host gets nothing meant for it. A
/// phone behind a NAT does not know its address, and is reached the way it came.
#[test]
fn a_contact_that_is_not_the_senders_has_no_flow() {
    for (via, source, contact, kept) in [
        // The sender itself, at whatever port; by name; with a NAT in between.
        ("192.0.2.1:5060", "192.0.2.1:5060", "192.0.2.1:5070", true),
        ("192.0.2.1", "192.0.2.1:5060", "phone.example.com", true),
        ("10.0.0.1:5060", "192.0.2.1:5060", "10.0.0.1:5060", true),
        ("192.0.2.1:5060", "192.0.2.1:40000", "10.0.0.1", true),
        ("host.example.com", "192.0.2.1:5060", "10.0.0.1", true),
        // It has learned its address, but only for its Via.
        ("192.0.2.1:5060", "192.0.2.1:5060", "10.0.0.1", true),
        ("192.0.2.1:5060", "192.0.2.1:5060", "100.64.0.1", true),
        ("[2001:db8::1]", "[2001:db8::1]:5060", "[fd00::1]", true),
        // Nobody else's: ourselves, everybody.
        ("10.0.0.1", "10.0.0.1:5060", "127.0.0.1:5060", true),
        ("192.0.2.1", "192.0.2.1:5060", "0.0.0.0:5060", true),
        ("192.0.2.1", "192.0.2.1:5060", "239.0.0.1", true),
        ("192.0.2.1", "192.0.2.1:5060", "255.255.255.255", true),
        ("192.0.2.1", "192.0.2.1:5060", "[::ffff:127.0.0.1]", true),
        // A registrar script, an SBC.
        ("192.0.2.1:5060", "192.0.2.1:5060", "192.0.2.9", false),
        ("10.0.0.1:5062", "10.0.0.1:5062", "10.0.0.9", false),
        ("10.0.0.1", "10.0.0.1:5060", "192.0.2.9", false),
        (
            "10.0.0.1",
            "10.0.0.1:5060",
            "10.0.0.1;maddr=10.0.0.9",
            false,
        ),
        (
            "[2001:db8::1]",
            "[2001:db8::1]:5060",
            "[2001:db8::9]",
            false,
        ),
    ] {
        let mut bench = Bench::new();
        let register = |flow: Flow, bench: &Bench| {
            let bytes = format!(
                "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP {via};branch=z9hG4bK1\r\n\
                 From: <sip:alice@example.com>;tag=1\r\nTo: <sip:alice@example.com>\r\n\
                 Call-ID: {:?}\r\nCSeq: 1 REGISTER\r\nContact: <sip:a@{contact}>\r\n\r\n",
                bench.limits.reached
            );
            let mut index = Index::new();
            let message = Message::parse(bytes.as_bytes(), &mut index).unwrap();
            let source = (flow, &Arc::from("udp:192.0.2.10:5060"));
            let planned =
                bench
                    .service
                    .plan(T, &alice(), &message, source, bench.now, &bench.limits);
            let Ok(Planned::Save(plan)) = planned else {
                panic!("{planned:?}")
            };
            bench.service.commit(&plan, bench.now).unwrap();
            let binding = bench.alice().pop().unwrap();
            (binding.flow.is_some(), !binding.received.is_empty())
        };
        let udp = Flow {
            transport: Transport::Udp,
            peer: source.parse().unwrap(),
            connection: None,
            ..flow()
        };
        assert_eq!(
            register(udp, &bench),
            (kept, kept),
            "{via} {source} {contact}"
        );
        // A policy may know better.
        let at_source = source == contact || format!("{contact}:5060") == source;
        for (reached, kept) in [(Reached::Source, true), (Reached::Contact, at_source)] {
            bench.limits.reached = reached;
            assert_eq!(
                register(udp, &bench),
                (kept, kept),
                "{reached:?} {source} {contact}"
            );
        }
    }
}
