//! Messages out of streams.

use sipbox_sip::stream::{Frame, FrameErrorKind, FrameLimits, Framer};

use super::lines;

fn message(body: &str) -> Vec<u8> {
    let mut bytes = lines(&format!("A sip:a SIP/2.0\nVia: x\nl: {}\n\n", body.len()));
    bytes.extend_from_slice(body.as_bytes());
    bytes
}

/// Every frame of a stream that comes in pieces of `size` bytes.
fn frames(stream: &[u8], size: usize) -> Vec<Frame> {
    let mut framer = Framer::new(FrameLimits::default());
    let mut found = Vec::new();
    for piece in stream.chunks(size) {
        framer.feed(piece);
        while let Some(frame) = framer.next().unwrap() {
            found.push(frame);
        }
    }
    assert!(!framer.is_mid_message());
    found
}

#[test]
fn messages_are_found_however_the_stream_is_cut() {
    let (one, two, three) = (message(""), message("body\r\n\r\nof two"), message("x"));
    let stream = [&one[..], &two, b"\r\n\r\n", &three, b"\r\n", &one].concat();
    let expected = vec![
        Frame::Message(one.clone().into()),
        Frame::Message(two.into()),
        Frame::Ping,
        Frame::Message(three.into()),
        Frame::Pong,
        Frame::Message(one.into()),
    ];
    for size in 1..stream.len() {
        assert_eq!(frames(&stream, size), expected, "pieces of {size}");
    }
}

#[test]
fn a_message_that_has_begun_is_waited_for() {
    let mut framer = Framer::new(FrameLimits::default());
    assert!(!framer.is_mid_message());
    let bytes = message("body");
    framer.feed(&bytes[..10]);
    assert_eq!(framer.next(), Ok(None));
    assert!(framer.is_mid_message());
    assert_eq!(framer.buffered(), 10);
    framer.buffer_mut().extend_from_slice(&bytes[10..]);
    assert!(matches!(framer.next(), Ok(Some(Frame::Message(_)))));
    assert!(!framer.is_mid_message());
    framer.feed(b"\r\n");
    assert_eq!(framer.next(), Ok(None));
    assert!(!framer.is_mid_message(), "a keep-alive is no message");
}

#[test]
fn a_stream_without_an_end_to_its_message_is_given_up() {
    let limits = FrameLimits {
        head: 100,
        body: 10,
    };
    let long = format!("A sip:a SIP/2.0\r\nX: {}\r\n", "y".repeat(100));
    let cases = [
        (
            "A sip:a SIP/2.0\r\nVia: x\r\n\r\n",
            FrameErrorKind::MissingContentLength,
        ),
        (
            "A sip:a SIP/2.0\r\nl: -1\r\n\r\n",
            FrameErrorKind::BadContentLength,
        ),
        (
            "A sip:a SIP/2.0\r\nl: 11\r\n\r\n",
            FrameErrorKind::BodyTooLong,
        ),
        (
            "A sip:a SIP/2.0\r\nl: 4294967295\r\n\r\n",
            FrameErrorKind::BodyTooLong,
        ),
        (
            "A sip:a SIP/2.0\r\nl: 1\r\nl: 2\r\n\r\n",
            FrameErrorKind::ConflictingContentLength,
        ),
        (&long, FrameErrorKind::HeadTooLong),
    ];
    for (stream, kind) in cases {
        let mut framer = Framer::new(limits);
        framer.feed(stream.as_bytes());
        let error = framer.next().unwrap_err();
        assert_eq!(error.kind, kind, "{stream}");
        assert!(stream.as_bytes().starts_with(&error.head), "{stream}");
        assert!(!error.head.is_empty() && error.head.len() <= limits.head);
        framer.feed(&message(""));
        assert_eq!(framer.next(), Ok(None));
        assert!(!framer.is_mid_message());
    }
    let mut framer = Framer::new(limits);
    framer.feed(b"garbage\r\n\r\n");
    assert!(matches!(
        framer.next().unwrap_err().kind,
        FrameErrorKind::NotAMessage(_)
    ));
}

/// The framer and the index read the same bytes as the end of the head.
#[test]
fn line_feeds_alone_end_the_head_for_both() {
    let stream = b"A sip:a SIP/2.0\nl: 3\n\nabcB sip:b SIP/2.0\r\nl: 0\r\n\n";
    for size in [1, 7, 100] {
        let found = frames(stream, size);
        assert_eq!(found.len(), 2);
        let Frame::Message(first) = &found[0] else {
            panic!("{found:?}")
        };
        assert_eq!(super::parse(first).body(), b"abc");
    }
}
