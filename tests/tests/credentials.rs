//! What `uri_check` makes of credentials whose `uri` is not the Request-URI
//! (RFC 3261 section 22.4, RFC 7616 section 3.4.6).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use sipbox_tests::digest::Challenge;
use sipbox_tests::{Agent, Loopback, Setup, Sipbox};

/// The status of a REGISTER whose credentials, right otherwise, name `uri`.
fn status(net: &Loopback, sipbox: &Sipbox, domain: &str, uri: &str) -> Option<u16> {
    let mut bob = Agent::udp("bob", domain, net.sip(), sipbox.address);
    let request = bob.request("REGISTER", &format!("sip:{domain}"));
    bob.send(&request);
    let challenge = bob.expect(&request, 401);
    let challenge = Challenge::parse(challenge.get("WWW-Authenticate"));
    let mut again = bob.again(&request);
    again.set(
        "Authorization",
        challenge.answer("bob", "secret", "REGISTER", uri, 1),
    );
    bob.send(&again);
    bob.answer_to(&again, false).status()
}

/// Some phones write a port or an address that is not in the Request-URI, and some
/// middleboxes rewrite it. Each domain says whether that is taken.
#[test]
fn each_domain_says_how_strictly_the_uri_of_credentials_is_checked() {
    let net = Loopback::new();
    let sipbox = Setup::new(&net)
        .tenants(
            "[[tenant]]\nname = \"both\"\ndomains = [\"strict.test\", \"loose.test\"]\n\
             grants = [\"auth\", \"location\", \"nat\", \"dialogs\", \"leases\"]\n\
             [[tenant.policy]]\nbuiltin = \"residential\"\n\
             [tenant.policy.settings]\nauth = \"register\"\n\
             [tenant.policy.settings.domains.\"strict.test\"]\n\
             [tenant.policy.settings.domains.\"loose.test\"]\nuri_check = \"loose\"\n",
        )
        .user("bob@strict.test", "secret")
        .user("bob@loose.test", "secret")
        .start();
    for domain in ["strict.test", "loose.test"] {
        let same = format!("sip:{domain}");
        assert_eq!(status(&net, &sipbox, domain, &same), Some(200), "{domain}");
    }
    let elsewhere = "sip:192.0.2.1:5061";
    assert_eq!(status(&net, &sipbox, "loose.test", elsewhere), Some(200));
    let refused = status(&net, &sipbox, "strict.test", elsewhere);
    assert_eq!(refused, Some(401), "challenged again");
}
