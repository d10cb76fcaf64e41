//! Dialogs and leases, message by message.

use super::*;
use crate::dialog::{Change, DialogId, EndReason, Side, State, Validity, View};

fn relay_to(bobs: &'static [&'static str]) -> impl FnMut(Message<'_>, &Facts) -> Ruling {
    move |_, facts| {
        if facts.in_dialog {
            return Ruling::Relay(Relay::default());
        }
        Ruling::Relay(Relay {
            groups: vec![targets(bobs)],
            record_route: Some(vec![]),
            ..Relay::default()
        })
    }
}

pub(super) fn rig(wanted: Wanted) -> Rig {
    let mut rig = Rig::new(relay_to(&[BOB]));
    rig.dialogs = Some(wanted);
    rig
}

pub(super) const CONTACT: &str = "Contact: <sip:alice@192.0.2.1>\r\n";
pub(super) const BOBS: &str = "Contact: <sip:bob@192.0.2.2>\r\n";

impl Rig {
    pub(super) fn dialog(&self) -> Option<View> {
        let mut found = None;
        self.stack
            .dialogs()
            .dump(None, self.now, |view| found = Some(view));
        found
    }

    pub(super) fn state(&self) -> Option<u32> {
        self.dialog().map(|dialog| dialog.state.number())
    }

    pub(super) fn leases(&self) -> u32 {
        self.stack.leases().held(TenantId(0), "user", "alice")
    }

    fn members(&self) -> u32 {
        self.stack
            .dialogs()
            .profiles()
            .held(TenantId(0), "calls", "out")
    }

    pub(super) fn changes(&mut self) -> Vec<Change> {
        let notices = std::mem::take(&mut self.notices);
        notices.into_iter().map(|notice| notice.change).collect()
    }

    /// INVITE up to the branch that leaves; with the Record-Route that is ours.
    pub(super) fn ring(&mut self) -> (Sent, String) {
        self.receive(&request("INVITE", "1", CONTACT), udp(ALICE));
        let sent = self.take();
        let invite = sent
            .into_iter()
            .find(|sent| sent.text.starts_with("INVITE"));
        let invite = invite.expect("a branch");
        let route = invite.header("Record-Route").expect("a Record-Route");
        (invite, route)
    }

    pub(super) fn establish(&mut self) -> (Sent, String) {
        let (invite, route) = self.ring();
        self.receive(&response(&invite.text, 180, BOBS), udp(BOB));
        self.receive(&response(&invite.text, 200, BOBS), udp(BOB));
        self.receive(&from_alice("ACK", 1, &route), udp(ALICE));
        self.take();
        assert_eq!(self.state(), Some(4));
        (invite, route)
    }

    /// Answers the request of this method that has just been sent on.
    pub(super) fn respond_to(&mut self, method: &str, status: u16) {
        let sent = self.take();
        let request = sent.iter().find(|sent| sent.text.starts_with(method));
        let request = request.unwrap_or_else(|| panic!("no {method} in {sent:#?}"));
        let from = if request.to().contains(ALICE) {
            ALICE
        } else {
            BOB
        };
        self.receive(&response(&request.text, status, ""), udp(from));
    }
}

fn within(method: &str, cseq: u32, route: &str, ends: (&str, &str, &str), uri: &str) -> String {
    let (via, from, to) = ends;
    format!(
        "{method} {uri} SIP/2.0\r\n\
         Via: SIP/2.0/UDP {via};branch=z9hG4bK{method}{cseq}{via}\r\nMax-Forwards: 70\r\n\
         From: {from}\r\nTo: {to}\r\nCall-ID: call-1\r\nCSeq: {cseq} {method}\r\n\
         Route: {route}\r\nContent-Length: 0\r\n\r\n"
    )
}

const A: &str = "<sip:alice@home.example>;tag=a1";
const B: &str = "<sip:bob@home.example>;tag=b1";

pub(super) fn from_alice(method: &str, cseq: u32, route: &str) -> String {
    within(method, cseq, route, (ALICE, A, B), "sip:bob@192.0.2.2")
}

pub(super) fn from_bob(method: &str, cseq: u32, route: &str) -> String {
    within(method, cseq, route, (BOB, B, A), "sip:alice@192.0.2.1")
}

#[test]
fn a_dialog_follows_its_call_from_invite_to_bye() {
    let mut rig = rig(Wanted::default());
    let (invite, route) = rig.ring();
    assert_eq!((rig.state(), rig.leases(), rig.members()), (Some(1), 1, 1));
    let dialog = rig.dialog().unwrap();
    assert!(route.contains(&format!(";did={}", dialog.id)), "{route}");
    assert_eq!(dialog.var("who"), Some("alice"));
    assert!(dialog.has_flag("answered-here") && dialog.is_in("calls", ""));
    assert_eq!(dialog.left, 12 * 3600);

    rig.receive(&response(&invite.text, 180, BOBS), udp(BOB));
    assert_eq!(rig.state(), Some(2));
    assert_eq!(rig.stack.dialogs().counts().early, 1);
    rig.receive(&response(&invite.text, 200, BOBS), udp(BOB));
    assert_eq!(rig.state(), Some(3));
    assert_eq!(rig.stack.dialogs().counts().active, 1);
    rig.receive(&from_alice("ACK", 1, &route), udp(ALICE));
    assert_eq!(rig.state(), Some(4));
    assert_eq!((rig.leases(), rig.members()), (1, 1));

    rig.receive(&from_bob("BYE", 7, &route), udp(BOB));
    assert_eq!((rig.leases(), rig.members()), (1, 1), "nobody has said yes");
    rig.respond_to("BYE", 200);
    assert_eq!((rig.leases(), rig.members()), (0, 0), "ended with the BYE");
    assert_eq!(
        rig.changes(),
        [
            Change::Created,
            Change::Confirmed,
            Change::Ended(EndReason::UpstreamBye)
        ]
    );
    rig.pass(400_000);
    assert_eq!(rig.dialog().map(|dialog| dialog.id), None);
    let counts = rig.stack.dialogs().counts();
    assert_eq!((counts.live, counts.active, counts.processed), (0, 0, 1));
}

#[test]
fn what_fails_is_cancelled_or_vanishes_leaves_nothing() {
    for status in [486, 487, 408, 503] {
        let mut rig = rig(Wanted::default());
        let (invite, _) = rig.ring();
        match status {
            487 => {
                rig.receive(&response(&invite.text, 180, BOBS), udp(BOB));
                rig.receive(&request("CANCEL", "1", ""), udp(ALICE));
                rig.receive(&response(&invite.text, 487, ""), udp(BOB));
            }
            408 => rig.pass(40_000),
            status => rig.receive(&response(&invite.text, status, ""), udp(BOB)),
        }
        assert_eq!((rig.leases(), rig.members()), (0, 0), "{status}");
        let upstream = if status == 503 { 500 } else { status };
        assert_eq!(rig.changes(), [Change::Created, Change::Failed(upstream)]);
        rig.pass(400_000);
        let counts = rig.stack.dialogs().counts();
        assert_eq!((counts.live, counts.failed), (0, 1), "{status}");
    }
}

#[test]
fn a_verdict_that_comes_too_late_takes_nothing() {
    let mut rig = rig(Wanted::default());
    rig.judge = None;
    rig.receive(&request("INVITE", "1", CONTACT), udp(ALICE));
    rig.receive(&request("CANCEL", "1", ""), udp(ALICE));
    let Ask::Request {
        id, request, facts, ..
    } = rig.asks.remove(0)
    else {
        panic!("another question");
    };
    let mut decision = rig.decide(request.clone(), parallel(&[BOB]));
    decision.state = rig.dialog_state(&request, &facts, Wanted::default(), 2);
    assert_eq!((rig.leases(), rig.members()), (1, 1), "reserved");
    assert!(!rig.call(|stack, env, out| stack.request_verdict(env, id, decision, out)));
    assert_eq!((rig.leases(), rig.members()), (0, 0));
    assert!(rig.dialog().is_none() && rig.changes().is_empty());
    assert_eq!(rig.stack.dialogs().counts().processed, 0);
}

#[test]
fn a_late_2xx_brings_a_dialog_back_unless_a_bye_was_seen() {
    let mut rig = rig(Wanted::default());
    let (invite, _) = rig.ring();
    rig.receive(&response(&invite.text, 180, BOBS), udp(BOB));
    // Timer C gives up, the CANCEL is not answered, the caller hears 408.
    rig.pass(186_000);
    rig.pass(33_000);
    assert_eq!((rig.state(), rig.leases()), (Some(5), 0));
    rig.pass(33_000);
    assert_eq!(
        (rig.state(), rig.leases()),
        (None, 0),
        "its transaction is gone"
    );

    // A phone that has rung for too long is given up, and picked up all the same.
    let mut rig = Rig::new(|_, facts| match facts.in_dialog {
        true => Ruling::Relay(Relay::default()),
        false => Ruling::Relay(Relay {
            groups: vec![targets(&[BOB])],
            ring_timeout: 5000,
            record_route: Some(vec![]),
            ..Relay::default()
        }),
    });
    rig.dialogs = Some(Wanted::default());
    let (invite, route) = rig.ring();
    rig.receive(&response(&invite.text, 180, BOBS), udp(BOB));
    rig.pass(5_010);
    assert_eq!((rig.state(), rig.leases(), rig.members()), (Some(5), 0, 0));
    rig.receive(&response(&invite.text, 200, BOBS), udp(BOB));
    assert_eq!((rig.state(), rig.leases(), rig.members()), (Some(3), 1, 1));
    rig.receive(&from_bob("BYE", 7, &route), udp(BOB));
    rig.receive(&response(&invite.text, 200, BOBS), udp(BOB));
    rig.respond_to("BYE", 200);
    rig.receive(&response(&invite.text, 200, BOBS), udp(BOB));
    assert_ne!(rig.state(), Some(3), "a BYE was seen");
    assert_eq!((rig.leases(), rig.members()), (0, 0));
}

#[test]
fn a_bye_counts_on_the_leg_that_answered_only() {
    const CAROLS: &str = "Contact: <sip:carol@192.0.2.3>\r\n";
    let mut rig = Rig::new(relay_to(&[BOB, CAROL]));
    rig.dialogs = Some(Wanted::default());
    rig.receive(&request("INVITE", "1", CONTACT), udp(ALICE));
    let sent = rig.take();
    let to = |peer: &str| {
        let branch = sent
            .iter()
            .find(|sent| sent.to().contains(peer) && sent.text.starts_with("INVITE"));
        branch.expect("a branch").clone()
    };
    let (bob, carol) = (to(BOB), to(CAROL));
    let route = bob.header("Record-Route").unwrap();
    rig.receive(&response(&bob.text, 180, BOBS), udp(BOB));
    let ringing = response(&carol.text, 180, CAROLS).replace("tag=b1", "tag=c1");
    rig.receive(&ringing, udp(CAROL));
    let answer = response(&carol.text, 200, CAROLS).replace("tag=b1", "tag=c1");
    rig.receive(&answer, udp(CAROL));
    let dialog = rig.dialog().unwrap();
    let tags: Vec<_> = dialog.callees.iter().map(|leg| &*leg.tag).collect();
    assert_eq!(tags, [&b"c1"[..], b"b1"], "who answered comes first");
    // The other leg's early dialog is ended; the call is not.
    rig.receive(&from_alice("BYE", 2, &route), udp(ALICE));
    rig.respond_to("BYE", 200);
    assert_eq!(rig.state(), Some(3));
    let bye = from_alice("BYE", 3, &route).replace("tag=b1", "tag=c1");
    rig.receive(&bye.replace("bob@192.0.2.2", "carol@192.0.2.3"), udp(ALICE));
    rig.respond_to("BYE", 200);
    assert_eq!(
        rig.changes().last(),
        Some(&Change::Ended(EndReason::DownstreamBye))
    );
    assert_eq!(rig.leases(), 0);
}

#[test]
fn a_dialog_whose_time_is_over_says_bye_to_both_sides() {
    let wanted = Wanted {
        bye_on_timeout: true,
        timeout: Some(100),
        ..Wanted::default()
    };
    let mut rig = rig(wanted);
    let (_, route) = rig.establish();
    // A re-INVITE of the callee moves it, and counts its CSeq on.
    let invite = from_bob("INVITE", 41, &route).replace(
        "Content-Length",
        "Contact: <sip:bob@192.0.2.9:5090>\r\nContent-Length",
    );
    rig.receive(&invite, udp(BOB));
    let sent = rig.take();
    let forwarded = sent
        .iter()
        .find(|sent| sent.text.starts_with("INVITE"))
        .unwrap();
    rig.receive(&response(&forwarded.text, 200, CONTACT), udp(ALICE));
    rig.take();
    rig.pass(99_000);
    rig.take();
    rig.pass(1_010);
    let byes: Vec<Sent> = rig
        .take()
        .into_iter()
        .filter(|sent| sent.text.starts_with("BYE"))
        .collect();
    let [alice, bob] = byes.as_slice() else {
        panic!("{byes:#?}");
    };
    assert_eq!(alice.first_line(), "BYE sip:alice@192.0.2.1 SIP/2.0");
    assert_eq!(alice.to(), "udp/192.0.2.1:5060");
    assert_eq!(alice.header("From").as_deref(), Some(B));
    assert_eq!(alice.header("To").as_deref(), Some(A));
    assert_eq!(alice.header("CSeq").as_deref(), Some("42 BYE"));
    assert_eq!(bob.first_line(), "BYE sip:bob@192.0.2.9:5090 SIP/2.0");
    assert_eq!(bob.to(), "udp/192.0.2.9:5090");
    assert_eq!(bob.header("From").as_deref(), Some(A));
    assert_eq!(bob.header("CSeq").as_deref(), Some("2 BYE"));
    assert_eq!(bob.header("Route"), None);
    assert_eq!(rig.changes().last(), Some(&Change::TimedOut));
    assert_eq!((rig.leases(), rig.stack.dialogs().counts().expired), (0, 1));
    rig.pass(400_000);
    assert_eq!(rig.stack.dialogs().counts().live, 0);
    assert_eq!(rig.stack.counts(), crate::stack::Counts::default());
}

#[test]
fn byes_go_along_the_routes_of_their_sides() {
    let mut rig = rig(Wanted::default());
    // Proxies before us and behind us, the latter a strict router.
    let extra = format!(
        "{CONTACT}Record-Route: <sip:192.0.2.50;lr>\r\nRecord-Route: <sip:192.0.2.51;lr>\r\n"
    );
    rig.receive(&request("INVITE", "1", &extra), udp(ALICE));
    let sent = rig.take();
    let invite = sent
        .iter()
        .find(|sent| sent.text.starts_with("INVITE"))
        .unwrap();
    let answer = response(&invite.text, 200, BOBS).replacen(
        "Record-Route",
        "Record-Route: <sip:192.0.2.60;lr>\r\nRecord-Route: <sip:192.0.2.61>\r\nRecord-Route",
        1,
    );
    rig.receive(&answer, udp(BOB));
    rig.take();
    let id = rig.dialog().unwrap().id;
    let extra = vec![("X-Why".to_owned(), "because".to_owned())];
    assert!(rig.call(|stack, env, out| stack.end_dialog(env, id, &extra, out)));
    let byes = rig.take();
    let [alice, bob] = byes.as_slice() else {
        panic!("{byes:#?}");
    };
    assert_eq!(alice.to(), "udp/192.0.2.50:5060");
    assert_eq!(
        alice.all("Route"),
        ["<sip:192.0.2.50;lr>", "<sip:192.0.2.51;lr>"]
    );
    assert_eq!(bob.first_line(), "BYE sip:192.0.2.61 SIP/2.0");
    assert_eq!(bob.to(), "udp/192.0.2.61:5060");
    assert_eq!(
        bob.all("Route"),
        ["<sip:192.0.2.60;lr>", "<sip:bob@192.0.2.2>"]
    );
    assert_eq!(bob.header("X-Why").as_deref(), Some("because"));
    assert!(!rig.call(|stack, env, out| stack.end_dialog(env, id, &[], out)));
}

#[test]
fn an_early_dialog_is_cancelled_by_command() {
    let mut rig = rig(Wanted::default());
    let (invite, _) = rig.ring();
    rig.receive(&response(&invite.text, 180, BOBS), udp(BOB));
    rig.take();
    let id = rig.dialog().unwrap().id;
    assert!(rig.call(|stack, env, out| stack.end_dialog(env, id, &[], out)));
    let [cancel] = rig.take_n();
    assert!(cancel.first_line().starts_with("CANCEL "), "{cancel:?}");
    rig.receive(&response(&invite.text, 487, ""), udp(BOB));
    assert!(rig.first_lines().contains(&"SIP/2.0 487 X".to_owned()));
    assert_eq!(rig.changes(), [Change::Created, Change::Failed(487)]);
    assert_eq!(rig.leases(), 0);
}

#[test]
fn a_call_whose_cancel_crossed_its_2xx_is_ended_if_that_is_wanted() {
    let wanted = Wanted {
        end_on_race_condition: true,
        ..Wanted::default()
    };
    for wanted in [wanted, Wanted::default()] {
        let mut rig = rig(wanted);
        let (invite, _) = rig.ring();
        rig.receive(&response(&invite.text, 180, BOBS), udp(BOB));
        rig.receive(&request("CANCEL", "1", ""), udp(ALICE));
        rig.receive(&response(&invite.text, 200, BOBS), udp(BOB));
        rig.take();
        rig.pass(6_000);
        let lines = rig.first_lines();
        let byes = lines.iter().filter(|line| line.starts_with("BYE")).count();
        assert_eq!(byes > 0, wanted.end_on_race_condition, "{lines:?}");
    }
}

#[test]
fn a_request_finds_its_dialog_by_name_or_by_tags_and_nobody_elses() {
    let mut rig = rig(Wanted::default());
    let (_, route) = rig.establish();
    let id = rig.dialog().unwrap().id;
    let find = |rig: &Rig, text: &str, did: Option<&str>, mode| {
        let owned = OwnedMessage::parse(text.to_owned().into()).unwrap();
        let (message, parts) = (owned.as_ref(), owned.parts());
        let did = did.map(str::as_bytes);
        let dialogs = rig.stack.dialogs();
        dialogs.find(TenantId(0), message, parts, did, mode)
    };
    use crate::dialog::MatchMode::{DidFallback, DidNone, DidOnly};
    let (alice, bob) = (from_alice("INFO", 5, &route), from_bob("INFO", 5, &route));
    let name = id.to_string();
    for mode in [DidOnly, DidFallback, DidNone] {
        let found = find(&rig, &bob, Some(&name), mode).unwrap();
        assert_eq!((found.id, found.from), (id, Side::Callee), "{mode:?}");
        let nameless = find(&rig, &alice, None, mode);
        assert_eq!(nameless.is_some(), mode != DidOnly, "{mode:?}");
    }
    // A made-up name, other tags, another tenant.
    assert_eq!(find(&rig, &alice, Some("1.2"), DidOnly), None);
    let fallen = find(&rig, &alice, Some("1.2"), DidFallback);
    assert_eq!(fallen.map(|known| known.id), Some(id));
    let foreign = alice.replace("tag=a1", "tag=x");
    assert_eq!(find(&rig, &foreign, Some(&name), DidFallback), None);
    assert_eq!(find(&rig, &foreign, None, DidNone), None);
    let owned = OwnedMessage::parse(alice.clone().into()).unwrap();
    let (message, parts) = (owned.as_ref(), owned.parts());
    let dialogs = rig.stack.dialogs();
    let did = Some(name.as_bytes());
    let other = dialogs.find(TenantId(1), message, parts, did, DidFallback);
    assert_eq!(other, None);
    assert!(DialogId::parse(b"nonsense").is_none());

    // What validate_dialog says.
    let known = dialogs
        .find(TenantId(0), message, parts, None, DidNone)
        .unwrap();
    let says = |text: &str| {
        let text = text.replace(&format!("Route: {route}\r\n"), "");
        let mut index = Index::new();
        dialogs.validate(known, Message::parse(text.as_bytes(), &mut index).unwrap())
    };
    assert_eq!(says(&alice), Validity::Valid);
    assert_eq!(says(&from_alice("INFO", 1, &route)), Validity::CSeq);
    let elsewhere = alice.replace("sip:bob@192.0.2.2", "sip:bob@192.0.2.7");
    assert_eq!(says(&elsewhere), Validity::RemoteTarget);
    let routed = alice.replace("Call-ID", "Route: <sip:192.0.2.9;lr>\r\nCall-ID");
    assert_eq!(says(&routed), Validity::RouteSet);
}

#[test]
fn leases_without_a_dialog_end_with_the_transaction() {
    for answer in [200, 486] {
        let mut rig = rig(Wanted::default());
        rig.judge = None;
        rig.receive(&request("INVITE", "1", CONTACT), udp(ALICE));
        let Ask::Request {
            id, request, facts, ..
        } = rig.asks.remove(0)
        else {
            panic!("another question");
        };
        let mut decision = rig.decide(request.clone(), parallel(&[BOB]));
        decision.state = rig.dialog_state(&request, &facts, Wanted::default(), 2);
        decision.state.dialog = None;
        rig.call(|stack, env, out| stack.request_verdict(env, id, decision, out));
        assert_eq!(rig.leases(), 1);
        assert_eq!(rig.stack.audit_leases().drift(), 0);
        let sent = rig.take();
        let invite = sent
            .iter()
            .find(|sent| sent.text.starts_with("INVITE"))
            .unwrap();
        rig.receive(&response(&invite.text, answer, BOBS), udp(BOB));
        assert_eq!(rig.leases(), 0, "{answer}");
    }
}

#[test]
fn the_audit_finds_the_leases_of_dialogs_and_transactions() {
    let mut rig = rig(Wanted::default());
    rig.establish();
    let audit = rig.stack.audit_leases();
    assert_eq!((audit.held, audit.reserved, audit.drift()), (1, 0, 0));
    let lost = rig.stack.leases().take(TenantId(0), "user", "alice");
    lost.commit();
    assert_eq!(rig.stack.audit_leases().drift(), 1, "nobody's");
    assert_eq!(State::from_number(4), Some(State::Confirmed));
}

#[test]
fn a_step_that_panics_gives_leases_and_dialog_back() {
    let mut rig = rig(Wanted::default());
    rig.establish();
    assert_eq!(rig.leases(), 1);
    // Another call, whose next step breaks.
    let mut rig = self::rig(Wanted::default());
    let (invite, _) = rig.ring();
    rig.receive(&response(&invite.text, 180, BOBS), udp(BOB));
    rig.stack.mutation = Some(Mutation::Panic);
    let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rig.pass(186_000)));
    assert!(broken.is_err());
    rig.stack.mutation = None;
    rig.out.clear();
    rig.call(Stack::mend);
    assert_eq!((rig.leases(), rig.members()), (0, 0));
    rig.pass(400_000);
    assert_eq!(rig.stack.dialogs().counts().live, 0);
}
