//! What a graceful stop waits for, and what it does not.

use super::*;
use crate::policy::Reply;

fn open(rig: &Rig) -> usize {
    rig.stack.counts().open
}

#[test]
fn a_stop_waits_for_the_ack_of_a_failure() {
    let mut rig = Rig::new(|_, _| parallel(&[BOB]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, invite] = rig.take_n();
    assert_eq!(open(&rig), 2);
    rig.receive(&response(&invite.text, 486, ""), udp(BOB));
    let [ack, _] = rig.take_n();
    assert_eq!(ack.first_line(), "ACK sip:bob@192.0.2.2:5060 SIP/2.0");
    assert_eq!(open(&rig), 1, "Alice may not have heard it");
    rig.receive(
        &request("ACK", "1", "To: <sip:bob@home.example>;tag=b1\r\n"),
        udp(ALICE),
    );
    assert_eq!(open(&rig), 0);
    assert!(
        rig.stack.counts().servers > 0,
        "what comes again is absorbed"
    );
    rig.finish();
}

#[test]
fn a_stop_waits_for_whoever_was_sent_a_cancel() {
    let mut rig = Rig::new(|_, _| parallel(&[BOB, CAROL]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, bob, carol] = rig.take_n();
    rig.receive(&response(&bob.text, 180, ""), udp(BOB));
    rig.receive(&response(&carol.text, 200, ""), udp(CAROL));
    let cancel = rig.take().pop().unwrap();
    assert_eq!(cancel.first_line(), "CANCEL sip:bob@192.0.2.2:5060 SIP/2.0");
    assert_eq!(open(&rig), 1, "the CANCEL may have to be sent again");
    rig.receive(&response(&bob.text, 487, ""), udp(BOB));
    assert_eq!(open(&rig), 0);
    rig.finish();
}

#[test]
fn a_stop_waits_for_the_sessions_of_policies() {
    let picks_up = || {
        let mut rig = Rig::new(|_, _| {
            Ruling::Reply(Reply {
                status: 200,
                headers: vec![("Contact".into(), "<sip:desk@192.0.2.100>".into())],
                ..Reply::default()
            })
        });
        let contact = format!("Contact: <sip:alice@{ALICE}>\r\n");
        rig.receive(&request("INVITE", "1", &contact), udp(ALICE));
        let [ok] = rig.take_n();
        assert_eq!(open(&rig), 1);
        (rig, ok)
    };
    let (mut rig, ok) = picks_up();
    let to = format!("To: {}\r\n", ok.header("To").unwrap());
    let ack = request_to("ACK", "sip:desk@192.0.2.100", "2", &to);
    rig.receive(&ack.replace("call-2", "call-1"), udp(ALICE));
    assert_eq!(open(&rig), 0);
    rig.finish();
    // Without an ACK there is a BYE to wait for.
    let (mut rig, _) = picks_up();
    rig.pass(32_000);
    let bye = rig.take().pop().unwrap();
    assert_eq!(open(&rig), 1);
    rig.receive(&response(&bye.text, 200, ""), udp(ALICE));
    assert_eq!(open(&rig), 0);
    rig.finish();
}
