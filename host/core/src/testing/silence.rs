//! How long a branch may say nothing (`Relay::fr_timeout`).

use super::*;

/// Targets one after the other, each of which may be silent for two seconds.
fn patient(groups: Vec<Vec<ResolvedTarget>>) -> Ruling {
    Ruling::Relay(Relay {
        groups,
        fr_timeout: 2_000,
        ..Relay::default()
    })
}

fn to(sent: &[Sent]) -> Vec<String> {
    sent.iter()
        .map(|sent| {
            let method = sent.first_line();
            let method = method.split(' ').next().unwrap_or_default();
            format!("{method} {}", sent.to())
        })
        .collect()
}

#[test]
fn a_silent_target_makes_way_for_the_next_one() {
    for (method, late) in [
        ("INVITE", Some(180)),
        ("INVITE", Some(100)),
        ("MESSAGE", None),
    ] {
        let mut rig = Rig::new(|_, _| patient(vec![targets(&[BOB]), targets(&[CAROL])]));
        rig.receive(&request(method, "1", ""), udp(ALICE));
        let bob = rig.take().pop().unwrap();
        rig.pass(1_900);
        let only_bob = |line: &String| line.ends_with(BOB);
        assert!(to(&rig.take()).iter().all(only_bob));
        rig.pass(110);
        let carol = rig.take().pop().unwrap();
        assert_eq!(
            to(std::slice::from_ref(&carol)),
            [format!("{method} udp/{CAROL}")]
        );
        if let Some(late) = late {
            // It is there after all: nobody waits for it any more.
            rig.receive(&response(&bob.text, late, ""), udp(BOB));
            let sent = rig.take();
            assert_eq!(
                sent[0].first_line(),
                "CANCEL sip:bob@192.0.2.2:5060 SIP/2.0"
            );
            rig.receive(&response(&sent[0].text, 200, ""), udp(BOB));
            rig.receive(&response(&bob.text, 487, ""), udp(BOB));
            assert_eq!(to(&rig.take()), [format!("ACK udp/{BOB}")]);
        }
        rig.receive(&response(&carol.text, 200, ""), udp(CAROL));
        assert_eq!(rig.first_lines(), ["SIP/2.0 200 X"]);
        rig.finish();
    }
}

#[test]
fn who_has_said_anything_may_take_its_time() {
    for status in [100, 180] {
        let mut rig = Rig::new(|_, _| patient(vec![targets(&[BOB]), targets(&[CAROL])]));
        rig.receive(&request("INVITE", "1", ""), udp(ALICE));
        let bob = rig.take().pop().unwrap();
        rig.pass(1_900);
        rig.receive(&response(&bob.text, status, ""), udp(BOB));
        rig.take();
        rig.pass(60_000);
        assert_eq!(rig.take().len(), 0);
        rig.receive(&response(&bob.text, 200, ""), udp(BOB));
        assert_eq!(rig.first_lines(), ["SIP/2.0 200 X"]);
        rig.finish();
    }
}

/// Each branch has its own time, from when it was sent.
#[test]
fn of_several_each_is_given_up_for_itself() {
    let mut rig = Rig::new(|_, _| patient(vec![targets(&[BOB, CAROL]), targets(&["192.0.2.4"])]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, bob, carol] = rig.take_n();
    rig.receive(&response(&carol.text, 180, ""), udp(CAROL));
    rig.pass(2_010);
    rig.take();
    // Carol still rings, so the next group waits; her refusal lets it begin.
    rig.receive(&response(&carol.text, 486, ""), udp(CAROL));
    let last = rig.take().pop().unwrap();
    assert_eq!(last.to(), "udp/192.0.2.4:5060");
    rig.pass(2_010);
    let up = rig.take().pop().unwrap();
    assert_eq!(up.first_line(), "SIP/2.0 486 X", "the best that there was");
    // The end of those that were given up is nobody's news.
    rig.receive(&response(&bob.text, 180, ""), udp(BOB));
    assert_eq!(to(&rig.take()), [format!("CANCEL udp/{BOB}")]);
    rig.finish();
}

#[test]
fn all_silent_is_408_and_one_address_of_a_name_is_not_all() {
    let mut rig =
        Rig::new(|_, _| patient(vec![vec![ResolvedTarget::uri("sip:bob@phones.example")]]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    rig.take();
    let token = rig.resolves.pop().unwrap().token;
    let candidate = |text: &str| crate::outbox::NextHopCandidate {
        transport: Transport::Udp,
        address: text.parse().unwrap(),
    };
    // The look-up's time does not count.
    rig.pass(1_500);
    let found = [candidate(BOB), candidate(CAROL)].into_iter().collect();
    rig.call(|stack, env, out| stack.resolved(env, token, Ok(found), out));
    rig.pass(1_900);
    assert!(to(&rig.take()).iter().all(|line| line.ends_with(BOB)));
    rig.pass(110);
    assert_eq!(to(&rig.take()), [format!("INVITE udp/{CAROL}")]);
    rig.pass(1_900);
    rig.take();
    rig.pass(110);
    let up = rig.take().pop().unwrap();
    assert_eq!(up.first_line(), "SIP/2.0 408 Request Timeout");
    rig.finish();
}

#[test]
fn a_caller_who_gave_up_hears_so_before_timer_b() {
    let mut rig = Rig::new(|_, _| patient(vec![targets(&[BOB]), targets(&[CAROL])]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    rig.receive(&request("CANCEL", "1", ""), udp(ALICE));
    rig.take();
    rig.pass(2_010);
    let up = rig.take().pop().unwrap();
    assert_eq!(up.first_line(), "SIP/2.0 487 Request Terminated");
    rig.finish();
}
