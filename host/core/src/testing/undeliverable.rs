//! Requests that come back because nobody could be reached (18.4).

use super::*;

/// 18.4: only the request that came back fails, and only while it is unanswered.
#[test]
fn a_request_that_comes_back_fails_its_branch_alone() {
    let mut rig = Rig::new(|_, _| serial(&[BOB, CAROL]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, invite] = rig.take_n();
    rig.receive(&request("INVITE", "2", ""), udp(ALICE));
    let [_, other] = rig.take_n();
    let comes_back = |rig: &mut Rig, quoted: &str, peer: &str| {
        let mut index = Index::new();
        let message = Message::parse(quoted.as_bytes(), &mut index).expect("a beginning");
        let peer = peer.parse().unwrap();
        rig.call(|stack, env, out| stack.undeliverable(env, message, peer, out));
    };
    comes_back(&mut rig, &invite.text, CAROL);
    let branch = invite.text.find("branch=").unwrap() + "branch=".len();
    comes_back(&mut rig, &invite.text[..branch + 20], BOB);
    let (name, forged) = (
        &invite.text[..branch],
        "z9hG4bKaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    );
    comes_back(&mut rig, &format!("{name}{forged}"), BOB);
    comes_back(&mut rig, &response(&invite.text, 486, ""), BOB);
    assert_eq!(
        rig.take().len(),
        0,
        "went elsewhere, cut off, forged, a response"
    );

    // No more than the branch needs to come back.
    comes_back(
        &mut rig,
        &invite.text[..branch + crate::ids::BRANCH_LEN],
        BOB,
    );
    let [second] = rig.take_n();
    assert_eq!(second.to(), format!("udp/{CAROL}"));
    comes_back(&mut rig, &invite.text, BOB);
    assert_eq!(rig.take().len(), 0, "the branch is gone");

    // The other call is as it was, and what rings is not ended by a stray report.
    rig.receive(&response(&other.text, 200, ""), udp(BOB));
    rig.receive(&response(&second.text, 180, ""), udp(CAROL));
    rig.take();
    comes_back(&mut rig, &second.text, CAROL);
    assert_eq!(rig.take().len(), 0);
    rig.receive(&response(&second.text, 200, ""), udp(CAROL));
    assert_eq!(rig.first_lines(), ["SIP/2.0 200 X"]);
    rig.finish();
}

/// A binding's flow is one of datagrams too; with nothing left to try the caller is
/// told at once.
#[test]
fn a_request_that_comes_back_ends_with_500_when_nothing_is_left() {
    for method in ["INVITE", "MESSAGE"] {
        let mut rig = Rig::new(|_, _| parallel(&[BOB]));
        rig.receive(&request(method, "1", ""), udp(ALICE));
        let down = rig.take().pop().unwrap();
        let mut index = Index::new();
        let quoted = Message::parse(down.text.as_bytes(), &mut index).unwrap();
        let peer = BOB.parse().unwrap();
        rig.call(|stack, env, out| stack.undeliverable(env, quoted, peer, out));
        let [up] = rig.take_n();
        assert_eq!(up.first_line(), "SIP/2.0 500 Server Internal Error");
        rig.finish();
    }
}
