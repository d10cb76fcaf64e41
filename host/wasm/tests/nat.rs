//! The interface `nat`, and the facts about a source: what is staged, what is refused.

mod common;

use common::{Tenant, field, reply, verdict};
use sipbox_core::chain;
use sipbox_core::policy::{BindingFlags, Edit, HookInput, HookOutput};
use sipbox_sip::OwnedMessage;

const SDP: &str = "v=0\r\nc=IN IP4 10.0.0.7\r\nm=audio 4000 RTP/AVP 0\r\n";

fn request(method: &str, uri: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.7;branch=z9hG4bK1\r\n\
         Max-Forwards: 70\r\nFrom: <sip:alice@example.org>;tag=a1\r\nTo: <sip:bob@example.org>\r\n\
         Call-ID: call-1\r\nCSeq: 1 {method}\r\nContact: <sip:alice@10.0.0.7>\r\n\
         Contact: <sip:alice@10.0.0.8>\r\nContent-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{SDP}",
        SDP.len()
    )
}

fn words(said: &str) -> Vec<&str> {
    said.split(' ').collect()
}

#[test]
fn a_register_is_mended_and_its_bindings_are_marked() {
    let mut tenant = Tenant::one("probe", r#"{"do":"mend"}"#);
    let mut call = tenant.call(&request("REGISTER", "sip:example.org"));
    let reply = reply(verdict(
        tenant.run(0, HookInput::Request, &mut call).unwrap(),
    ));
    let facts = field(&reply, "X-Facts");
    for fact in [
        "DIFF_PORT_SRC_VIA",
        "DIFF_IP_SRC_VIA",
        "PRIVATE_CONTACT",
        "PRIVATE_SDP",
        "PRIVATE_VIA",
        "DIFF_IP_SRC_CONTACT",
        "DIFF_PORT_SRC_CONTACT",
    ] {
        assert!(facts.contains(fact), "{fact} in {facts}");
    }
    assert!(!facts.contains("LOOPBACK") && !facts.contains("CARRIER"));
    let said = words(field(&reply, "X-Mended"));
    assert_eq!(
        said,
        [
            "ok",
            "malformed",
            "ok",
            "ok",
            "ok",
            "ok",
            "malformed",
            "ok",
            "ok"
        ]
    );
    assert_eq!(field(&reply, "X-Restored"), "false");
    assert!(call.state.nat.force_rport && call.state.nat.register);
    assert_eq!(
        call.state.nat.flags,
        BindingFlags::NATTED.with(BindingFlags::SIPPING)
    );
    // Each call works on what the one before it left.
    let edited = chain::apply(&call.request, &call.edits).unwrap();
    let text = String::from_utf8_lossy(edited.as_ref().bytes()).into_owned();
    let received = "received=\"sip:198.51.100.9:5071\"";
    assert!(
        text.contains(&format!(
            "Contact: <sip:alice@198.51.100.9:5071;org=MTAuMC4wLjc;ob>;{received}, \
             <sip:alice@198.51.100.9:5071;org=MTAuMC4wLjg;ob>;{received}\r\n"
        )),
        "{text}"
    );
    assert!(
        text.contains("Via: SIP/2.0/UDP 10.0.0.7;branch=z9hG4bK1;rport\r\n"),
        "{text}"
    );
    assert!(
        text.ends_with(
            "\r\n\r\nv=0\r\nc=IN IP4 192.0.2.7\r\nm=audio 4000 RTP/AVP 0\r\n\
             a=oldcip:10.0.0.7\r\na=direction:active\r\na=x\r\n"
        ),
        "{text}"
    );
}

#[test]
fn what_is_for_a_register_is_out_of_place_elsewhere() {
    let mut tenant = Tenant::one("probe", r#"{"do":"mend"}"#);
    let uri = "sip:bob@192.0.2.2:31001;org=MTAuMC4wLjI6NTA2Mg";
    let mut call = tenant.call(&request("INVITE", uri));
    let reply = reply(verdict(
        tenant.run(0, HookInput::Request, &mut call).unwrap(),
    ));
    let said = words(field(&reply, "X-Mended"));
    assert_eq!(said[4..6], ["out-of-place", "out-of-place"]);
    assert_eq!(field(&reply, "X-Restored"), "true");
    let set = Edit::SetRequestUri("sip:bob@10.0.0.2:5062".into());
    assert!(call.edits.contains(&set));
    assert_eq!(call.state.nat.next_hop.as_deref(), Some(uri));
    assert!(call.state.nat.flags.is_empty() && !call.state.nat.register);
}

#[test]
fn a_response_is_mended_by_its_own_source() {
    let mut tenant = Tenant::one("probe", r#"{"do":"mend"}"#);
    let mut call = tenant.call(&request("INVITE", "sip:bob@example.org"));
    let response = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 10.0.0.7;branch=z9hG4bK1\r\n\
        From: <sip:alice@example.org>;tag=a1\r\nTo: <sip:bob@example.org>;tag=b1\r\n\
        Call-ID: call-1\r\nCSeq: 1 INVITE\r\nContact: <sip:bob@192.168.1.5>\r\n\
        Content-Length: 0\r\n\r\n";
    call.response = Some(OwnedMessage::parse(response.into()).unwrap());
    let output = tenant.run(0, HookInput::Reply, &mut call).unwrap();
    assert_eq!(output, HookOutput::Reply(true));
    let set = |name: &str| {
        call.edits.iter().find_map(|edit| match edit {
            Edit::SetHeader(known, value) if known == name => Some(value.as_str()),
            _ => None,
        })
    };
    assert_eq!(set("Contact"), Some("<sip:bob@198.51.100.9:5071>"));
    let said = set("X-Mended").unwrap();
    assert!(
        said.contains("PRIVATE_CONTACT") && !said.contains("VIA"),
        "{said}"
    );
    assert!(said.ends_with(" ok out-of-place out-of-place"), "{said}");
}
