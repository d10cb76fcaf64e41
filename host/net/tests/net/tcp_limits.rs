//! What a stream peer may not do: break the framing, be slow, be silent, be many.

use std::io::Write;
use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use sipbox_net::{SendError, StreamLimits};
use sipbox_sip::stream::{FrameErrorKind, FrameLimits};

use crate::support::{PATIENCE, Rig, Seen, down};
use crate::tcp::{accept, connect, message, read, read_to_end, to, until, with_limits};

#[test]
fn what_cannot_be_framed_is_passed_on_once_and_may_be_answered() {
    let frame = FrameLimits {
        head: 200,
        body: 100,
    };
    let linger = Duration::from_millis(100);
    let mut rig = Rig::new(&with_limits(StreamLimits {
        frame,
        linger,
        ..StreamLimits::default()
    }));
    let long = format!("MESSAGE sip:a SIP/2.0\r\nSubject: {}", "x".repeat(300));
    for (bytes, expected) in [
        (
            "MESSAGE sip:a SIP/2.0\r\nTo: a\r\n\r\n",
            FrameErrorKind::MissingContentLength,
        ),
        (
            "MESSAGE sip:a SIP/2.0\r\nContent-Length: x\r\n\r\n",
            FrameErrorKind::BadContentLength,
        ),
        (
            "MESSAGE sip:a SIP/2.0\r\nContent-Length: 101\r\n\r\n",
            FrameErrorKind::BodyTooLong,
        ),
        (&long, FrameErrorKind::HeadTooLong),
    ] {
        let mut peer = connect(&rig, 0);
        peer.write_all(&message("first", "")).unwrap();
        peer.write_all(bytes.as_bytes()).unwrap();
        let (_, flow) = rig.message();
        let Seen::Unframed(head, kind, unframed_flow) = rig.next() else {
            panic!("{expected:?}")
        };
        assert_eq!(kind, expected);
        assert_eq!(unframed_flow, flow);
        assert!(bytes.as_bytes().starts_with(&head), "{expected:?}");
        rig.network.send(&down(flow), b"400", None).unwrap();
        assert_eq!(read_to_end(&mut peer), b"400", "{expected:?}");
        drop(peer);
        assert_eq!(rig.next(), Seen::Closed(flow));
    }
}

#[test]
fn a_message_that_takes_too_long_ends_its_connection_and_a_lone_line_end_does_not() {
    let message_timeout = Duration::from_millis(60);
    let limits = StreamLimits {
        message_timeout,
        ..StreamLimits::default()
    };
    let mut rig = Rig::new(&with_limits(limits));
    let mut slow = connect(&rig, 0);
    let mut waiting = connect(&rig, 0);
    waiting.write_all(b"\r\n\r").unwrap();
    let start = Instant::now();
    // A byte now and then must not extend the time.
    let bytes = message("slow", "");
    let mut written = 0;
    while start.elapsed() < message_timeout * 3 && written < bytes.len() {
        if slow.write_all(&bytes[written..=written]).is_err() {
            break;
        }
        written += 1;
        thread::sleep(Duration::from_millis(10));
    }
    assert!(matches!(rig.next(), Seen::Closed(flow) if flow.peer == slow.local_addr().unwrap()));
    assert!(start.elapsed() >= message_timeout);
    waiting.write_all(b"\n").unwrap();
    assert_eq!(read(&mut waiting, 2), b"\r\n");
}

#[test]
fn a_silent_connection_is_closed_and_an_active_one_is_not() {
    let idle_timeout = Duration::from_millis(400);
    let limits = StreamLimits {
        idle_timeout,
        ..StreamLimits::default()
    };
    let mut rig = Rig::new(&with_limits(limits));
    let start = Instant::now();
    let mut silent = connect(&rig, 0);
    let mut pinging = connect(&rig, 0);
    let mut told = connect(&rig, 0);
    told.write_all(&message("a", "")).unwrap();
    let (_, flow) = rig.message();
    // One more round after the silent one is gone, and one time-out at least.
    let mut gone = false;
    while !gone || start.elapsed() < idle_timeout * 2 {
        gone = rig.network.connections() == 2;
        pinging.write_all(b"\r\n\r\n").unwrap();
        assert_eq!(read(&mut pinging, 2), b"\r\n");
        rig.network.send(&down(flow), b"x", None).unwrap();
        assert_eq!(read(&mut told, 1), b"x");
        thread::sleep(Duration::from_millis(10));
        assert!(start.elapsed() < PATIENCE, "the silent connection stays");
    }
    assert_eq!(read_to_end(&mut silent), b"");
    assert!(matches!(rig.next(), Seen::Closed(flow) if flow.peer == silent.local_addr().unwrap()));
}

#[test]
fn connections_over_a_limit_are_closed_at_once() {
    let limits = StreamLimits {
        connections_per_source: 2,
        ..StreamLimits::default()
    };
    let mut rig = Rig::new(&with_limits(limits));
    let mut kept: Vec<_> = (0..2).map(|_| connect(&rig, 0)).collect();
    until("both are in", || rig.network.connections() == 2);
    assert_eq!(read_to_end(&mut connect(&rig, 0)), b"");
    assert_eq!(
        rig.network
            .stream_counters()
            .refused
            .load(Ordering::Relaxed),
        1
    );
    // A place that is given back can be taken again.
    drop(kept.pop());
    rig.next();
    let mut next = connect(&rig, 0);
    next.write_all(&message("a", "")).unwrap();
    rig.message();
    // What we open does not count against a source.
    let next_hop = TcpListener::bind("127.0.0.1:0").unwrap();
    rig.network
        .send(&to(next_hop.local_addr().unwrap()), b"x", None)
        .unwrap();
    assert_eq!(read(&mut accept(&next_hop), 1), b"x");
}

#[test]
fn opening_over_the_limit_of_all_fails_at_once() {
    let limits = StreamLimits {
        connections: 1,
        ..StreamLimits::default()
    };
    let rig = Rig::new(&with_limits(limits));
    let _only = connect(&rig, 0);
    until("it is in", || rig.network.connections() == 1);
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    assert_eq!(
        rig.network.send(&to(address), b"x", None),
        Err(SendError::TooManyConnections)
    );
}
