//! Real phones: baresip and linphonec register with digest, call each other,
//! talk, hang up, and the proxy counts the same.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::thread::sleep;
use std::time::Duration;

use sipbox_tests::audio::seconds_of_tone;
use sipbox_tests::baresip::Baresip;
use sipbox_tests::linphone::Linphone;
use sipbox_tests::sipbox::DOMAIN;
use sipbox_tests::{Loopback, Setup};

/// What linphonec says; baresip echoes it.
const TONE: f64 = 440.0;

fn phones_talk(transport: &str) {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "auth = \"all\"")
        .user("alice@lab.test", "alice-secret")
        .user("carol@lab.test", "carol-secret")
        .start();
    let proxy = sipbox.address;
    let mut alice = Baresip::start("alice", DOMAIN, "alice-secret", net.ip(), proxy, transport);
    let mut carol = Linphone::start(
        "carol",
        DOMAIN,
        "carol-secret",
        net.ip(),
        proxy,
        transport,
        TONE,
    );
    alice.wait_registered();
    carol.wait_registered();

    let before = (
        sipbox.statistic("tm:2xx_transactions"),
        sipbox.statistic("registrar:accepted_regs"),
    );

    // carol calls, speaks, hears her echo, hangs up.
    carol.call("sip:alice@lab.test");
    alice.wait_for("CALL_ESTABLISHED");
    sleep(Duration::from_secs(2));
    carol.hang_up();
    alice.wait_for("CALL_CLOSED");
    let (sent, received) = alice.packets();
    // 20 ms each: 100 packets in two seconds.
    assert!(
        sent > 60 && received > 60,
        "RTP from alice: {sent}, to alice: {received}"
    );

    // alice calls, and hangs up.
    carol.answer_calls();
    alice.call("sip:carol@lab.test");
    carol.wait_for("Media streams established");
    sleep(Duration::from_secs(2));
    alice.hang_up();
    carol.wait_for("ended (No error)");
    let (sent, received) = alice.packets();
    assert!(
        sent > 60 && received > 60,
        "RTP from alice: {sent}, to alice: {received}"
    );

    let heard = seconds_of_tone(carol.heard(), TONE);
    assert!(heard > 1.0, "carol heard her echo for {heard} s only");

    // The proxy counted the same: two bindings, two INVITEs and two BYEs with
    // 200, and nobody had to repeat or wait for anything.
    assert_eq!(
        sipbox.statistic("usrloc:registered_users"),
        2,
        "alice and carol"
    );
    let (answered, registered) = (
        sipbox.statistic("tm:2xx_transactions") - before.0,
        sipbox.statistic("registrar:accepted_regs") - before.1,
    );
    assert_eq!(before.1, 2, "REGISTERs of alice and carol");
    // A phone may register again meanwhile; that is a 2xx as well.
    assert_eq!(answered - registered, 4, "two INVITEs and two BYEs");
    assert_eq!(sipbox.statistic("tm:retransmissions"), 0);
    assert_eq!(sipbox.statistic("tm:timeout_finalresponse"), 0);
    alice.quit();
    carol.quit();
}

#[test]
fn baresip_and_linphone_call_each_other_over_udp() {
    phones_talk("udp");
}

#[test]
fn baresip_and_linphone_call_each_other_over_tcp() {
    phones_talk("tcp");
}
