//! The per-message path allocates nothing once its buffers have grown. The
//! counter is the allocator of this test binary.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

use std::net::SocketAddr;

use sipbox_sip::stream::{Frame, FrameLimits, Framer};
use sipbox_sip::validate::{Limits, check};
use sipbox_sip::via::write_received;
use sipbox_sip::{EditList, HeaderId, Index, Message, RequestBuilder, ResponseBuilder};

const INVITE: &[u8] = include_bytes!("corpus/invite-1k.sip");

struct Buffers {
    index: Index,
    edits: EditList,
    via: Vec<u8>,
    out: Vec<u8>,
}

/// What a proxy does to a request: index, judge, read, edit, write.
fn forward(buffers: &mut Buffers) {
    let Buffers {
        index,
        edits,
        via,
        out,
    } = buffers;
    let message = Message::parse(INVITE, index).unwrap();
    check(message, &Limits::default()).unwrap();
    let top = message.values(HeaderId::Via).next().unwrap();
    let source: SocketAddr = "192.0.2.9:5060".parse().unwrap();
    via.clear();
    assert!(write_received(
        top.as_bytes(),
        &message.via_top().unwrap(),
        source,
        via
    ));
    let hops = message.max_forwards().unwrap().unwrap();
    assert!(message.cseq().unwrap().number > 0 && hops > 0);
    assert_eq!(message.contacts().count(), 1);

    edits.clear();
    edits
        .set_request_uri(message, b"sip:bob@192.0.2.4:5062;transport=udp")
        .unwrap();
    edits.replace_element(&top, via).unwrap();
    edits
        .prepend_header(
            message,
            HeaderId::Via,
            b"SIP/2.0/UDP p.example;branch=z9hG4bKx",
        )
        .unwrap();
    edits
        .prepend_header(message, HeaderId::RecordRoute, b"<sip:p.example;lr>")
        .unwrap();
    edits
        .replace_value(message.field(HeaderId::MaxForwards).unwrap(), b"69")
        .unwrap();
    let route = message.values(HeaderId::Route).next().unwrap();
    edits.remove_value(message, &route).unwrap();
    edits
        .set_header(message, HeaderId::UserAgent, b"x")
        .unwrap();
    edits.remove_header(message, "X-Unknown").unwrap();
    out.clear();
    edits.write(message, out).unwrap();

    let response = ResponseBuilder::new(message, 180)
        .to_tag(b"t")
        .record_route()
        .top_via(via);
    response
        .header(HeaderId::Server, b"sipbox")
        .write(out)
        .unwrap();
    RequestBuilder::cancel(message).unwrap().write(out).unwrap();
}

#[test]
fn forwarding_a_message_allocates_nothing() {
    let (edits, out) = (EditList::new(), Vec::new());
    let mut buffers = Buffers {
        index: Index::new(),
        edits,
        via: Vec::new(),
        out,
    };
    let first = allocation_counter::measure(|| forward(&mut buffers));
    assert!(
        first.count_total > 0,
        "the counter counts the buffers' growth"
    );
    for _ in 0..3 {
        let again = allocation_counter::measure(|| forward(&mut buffers));
        assert_eq!(again.count_total, 0, "{again:?}");
    }
}

/// A stream's bytes are handed on in shared buffers: at most one allocation for a
/// message, however many pieces it comes in.
#[test]
fn framing_a_message_allocates_once_at_most() {
    let mut framer = Framer::new(FrameLimits::default());
    let mut stream = || {
        let mut found = 0;
        for piece in INVITE.chunks(100) {
            framer.feed(piece);
            while let Some(Frame::Message(bytes)) = framer.next().unwrap() {
                assert_eq!(bytes.len(), INVITE.len());
                found += 1;
            }
        }
        assert_eq!(found, 1);
    };
    stream();
    let rounds = 20;
    let counted = allocation_counter::measure(|| (0..rounds).for_each(|_| stream()));
    assert!(counted.count_total <= rounds, "{counted:?}");
}
