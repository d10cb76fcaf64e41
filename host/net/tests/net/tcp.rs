//! TCP: framing, reuse, back-pressure, and how connections end.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use sipbox_core::flow::{ListenerId, NextHop};
use sipbox_net::{NetConfig, SendError, StreamLimits};
use sipbox_sip::Transport;

use crate::support::{FIRST, PATIENCE, Rig, Seen, Token, config, down};

pub(crate) const LOCAL: &[(Transport, &str)] = &[(Transport::Tcp, "127.0.0.1:0")];

pub(crate) fn message(name: &str, body: &str) -> Vec<u8> {
    format!(
        "MESSAGE sip:{name} SIP/2.0\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

pub(crate) fn with_limits(limits: StreamLimits) -> NetConfig {
    NetConfig {
        streams: limits,
        ..config(LOCAL)
    }
}

pub(crate) fn connect(rig: &Rig, listener: u16) -> TcpStream {
    patient(TcpStream::connect(rig.local(listener)).unwrap())
}

pub(crate) fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    patient(listener.accept().unwrap().0)
}

pub(crate) fn read(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// Reads to the end, whichever way it comes.
pub(crate) fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{error}"),
    }
    bytes
}

pub(crate) fn to(address: SocketAddr) -> NextHop {
    NextHop::Address {
        listener: FIRST,
        transport: Transport::Tcp,
        address,
        local: None,
    }
}

/// Waits until `done` says so; for states that bring about no input.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn messages_come_in_order_however_segments_cut_them() {
    let mut rig = Rig::new(&config(&[
        (Transport::Tcp, "127.0.0.1:0"),
        (Transport::Tcp, "[::1]:0"),
    ]));
    for listener in [0, 1] {
        let mut peer = connect(&rig, listener);
        let (first, second) = (message("a", ""), message("b", "body"));
        let both = [&first[..], &second[..]].concat();
        // Two in one segment, then cuts at every place.
        for cut in 0..both.len() {
            let (head, tail) = both.split_at(cut);
            peer.write_all(head).unwrap();
            if cut % 7 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
            peer.write_all(tail).unwrap();
            let (bytes, flow) = rig.message();
            assert_eq!(bytes, first, "cut at {cut}");
            assert_eq!(flow.listener, ListenerId(listener));
            assert_eq!(flow.transport, Transport::Tcp);
            assert_eq!(flow.peer, peer.local_addr().unwrap());
            assert_eq!(rig.message(), (second.clone(), flow), "cut at {cut}");
        }
        drop(peer);
        assert!(matches!(rig.next(), Seen::Closed(_)));
    }
}

#[test]
fn a_ping_between_messages_is_answered_and_a_lone_line_end_is_not() {
    let mut rig = Rig::new(&config(LOCAL));
    let mut peer = connect(&rig, 0);
    peer.write_all(b"\r\n\r\n").unwrap();
    assert_eq!(read(&mut peer, 2), b"\r\n");
    peer.write_all(b"\r\n").unwrap();
    peer.write_all(&message("a", "")).unwrap();
    let (_, flow) = rig.message();
    rig.network.send(&down(flow), b"answer", None).unwrap();
    assert_eq!(read(&mut peer, 6), b"answer");
    assert_eq!(
        rig.network.stream_counters().pings.load(Ordering::Relaxed),
        1
    );
}

#[test]
fn responses_go_down_the_connection_of_the_request() {
    let mut rig = Rig::new(&config(LOCAL));
    let mut peers: Vec<_> = (0..3).map(|_| connect(&rig, 0)).collect();
    let mut flows = Vec::new();
    for peer in &mut peers {
        peer.write_all(&message("a", "")).unwrap();
        flows.push(rig.message().1);
    }
    for (number, flow) in flows.iter().enumerate() {
        rig.network
            .send(&down(*flow), format!("answer {number}").as_bytes(), None)
            .unwrap();
    }
    for (number, peer) in peers.iter_mut().enumerate() {
        assert_eq!(read(peer, 8), format!("answer {number}").as_bytes());
    }
}

#[test]
fn a_flow_that_is_gone_is_an_error_unless_it_may_be_replaced() {
    let mut rig = Rig::new(&config(LOCAL));
    let mut peer = connect(&rig, 0);
    peer.write_all(&message("a", "")).unwrap();
    let (_, flow) = rig.message();
    drop(peer);
    assert_eq!(rig.next(), Seen::Closed(flow));
    assert_eq!(
        rig.network.send(&down(flow), b"x", None),
        Err(SendError::FlowGone)
    );

    let sent_by = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = sent_by.local_addr().unwrap();
    let next_hop = NextHop::Flow {
        flow,
        reconnect: Some(address),
    };
    rig.network.send(&next_hop, b"answer", None).unwrap();
    let mut replaced = accept(&sent_by);
    assert_eq!(read(&mut replaced, 6), b"answer");
    drop(replaced);
    assert!(matches!(rig.next(), Seen::Closed(other) if other.peer == address));

    // A later connection in the same slot is not that flow.
    let mut later = connect(&rig, 0);
    later.write_all(&message("b", "")).unwrap();
    rig.message();
    assert_eq!(
        rig.network.send(&down(flow), b"x", None),
        Err(SendError::FlowGone)
    );
}

#[test]
fn one_connection_serves_all_messages_to_an_address_and_what_comes_back() {
    let mut rig = Rig::new(&config(LOCAL));
    let next_hop = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = next_hop.local_addr().unwrap();
    for number in 0..5 {
        rig.network
            .send(&to(address), format!("m{number}").as_bytes(), None)
            .unwrap();
    }
    let mut stream = accept(&next_hop);
    assert_eq!(read(&mut stream, 10), b"m0m1m2m3m4");
    stream.write_all(&message("back", "")).unwrap();
    let (_, flow) = rig.message();
    assert_eq!(flow.peer, address);
    assert_eq!(flow.listener, FIRST);
    rig.network
        .send(&down(flow), b"down the flow", None)
        .unwrap();
    assert_eq!(read(&mut stream, 13), b"down the flow");
    rig.network.send(&to(address), b"again", None).unwrap();
    assert_eq!(read(&mut stream, 5), b"again");
    assert_eq!(rig.network.connections(), 1);

    // The peer restarts: a new connection.
    drop(stream);
    assert_eq!(rig.next(), Seen::Closed(flow));
    rig.network.send(&to(address), b"anew", None).unwrap();
    assert_eq!(read(&mut accept(&next_hop), 4), b"anew");
}

#[test]
fn a_connection_that_a_peer_opened_is_reused_for_its_address() {
    let mut rig = Rig::new(&config(LOCAL));
    let mut peer = connect(&rig, 0);
    peer.write_all(&message("a", "")).unwrap();
    rig.message();
    rig.network
        .send(&to(peer.local_addr().unwrap()), b"call", None)
        .unwrap();
    assert_eq!(read(&mut peer, 4), b"call");
    assert_eq!(rig.network.connections(), 1);
}

#[test]
fn a_connection_comes_from_the_address_of_its_listener() {
    // The whole of 127/8 is local, so that two addresses can be told apart.
    let rig = Rig::new(&config(&[
        (Transport::Tcp, "127.0.0.2:0"),
        (Transport::Udp, "127.0.0.3:0"),
    ]));
    let next_hop = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = next_hop.local_addr().unwrap();
    for (listener, expected) in [(0, "127.0.0.2"), (1, "127.0.0.3")] {
        let next_hop_value = NextHop::Address {
            listener: ListenerId(listener),
            transport: Transport::Tcp,
            address,
            local: None,
        };
        rig.network.send(&next_hop_value, b"x", None).unwrap();
        let (_, from) = next_hop.accept().unwrap();
        assert_eq!(from.ip().to_string(), expected);
    }
}

#[test]
fn a_refused_connection_fails_every_message_that_waited() {
    let mut rig = Rig::new(&config(LOCAL));
    // Bound, so that nobody else takes the port, and not listening.
    let nobody = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    nobody
        .bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into())
        .unwrap();
    let address = nobody.local_addr().unwrap().as_socket().unwrap();
    let refused = SendError::Unreachable(ErrorKind::ConnectionRefused);
    for round in 0..2 {
        rig.network
            .send(&to(address), b"x", Some(Token(round)))
            .unwrap();
        assert_eq!(rig.next(), Seen::SendFailed(Token(round), refused));
    }
    // Without a token nobody is told.
    rig.network.send(&to(address), b"x", None).unwrap();
    until("the attempt ends", || rig.network.connections() == 0);
    rig.quiet();
}

#[test]
fn a_peer_that_does_not_answer_is_given_up_in_time() {
    // A full backlog: the kernel drops further SYNs, as a dead host would.
    let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    silent
        .bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into())
        .unwrap();
    silent.listen(0).unwrap();
    let address = silent.local_addr().unwrap().as_socket().unwrap();
    let mut fill = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        fill.push(stream);
        assert!(fill.len() < 64, "the backlog never fills");
    }
    let connect_timeout = Duration::from_millis(100);
    let limits = StreamLimits {
        connect_timeout,
        ..StreamLimits::default()
    };
    let mut rig = Rig::new(&with_limits(limits));
    let start = Instant::now();
    for number in 0..3 {
        rig.network
            .send(&to(address), b"x", Some(Token(number)))
            .unwrap();
    }
    for number in 0..3 {
        assert_eq!(
            rig.next(),
            Seen::SendFailed(Token(number), SendError::ConnectTimeout)
        );
    }
    assert!(start.elapsed() >= connect_timeout);
    assert_eq!(rig.network.connections(), 0);
}

#[test]
fn messages_that_were_not_written_when_the_peer_went_are_reported() {
    let mut rig = Rig::new(&config(LOCAL));
    let mut peer = connect(&rig, 0);
    peer.write_all(&message("a", "")).unwrap();
    let (_, flow) = rig.message();
    // More than the socket buffers hold, to a peer that reads nothing.
    let big = vec![b'x'; 500_000];
    let mut sent = 0;
    let full = loop {
        match rig.network.send(&down(flow), &big, Some(Token(sent))) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 200, "the queue has no bound");
        thread::sleep(Duration::from_millis(1));
    };
    assert_eq!(full, SendError::Congested);
    drop(peer);
    // Some may have been written; from one on, all are reported, in order.
    let mut failed = Vec::new();
    loop {
        match rig.next() {
            Seen::SendFailed(Token(number), SendError::ConnectionLost(_)) => failed.push(number),
            Seen::Closed(closed) => {
                assert_eq!(closed, flow);
                break;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    assert!(!failed.is_empty());
    assert_eq!(failed, (failed[0]..sent).collect::<Vec<_>>());
}

#[test]
fn a_full_worker_queue_stops_the_reading_and_loses_nothing() {
    const COUNT: usize = 2000;
    let mut rig = Rig::new(&NetConfig {
        frame_queue: 4,
        ..config(LOCAL)
    });
    let body = "x".repeat(8000);
    let mut peer = connect(&rig, 0);
    let writer = {
        let body = body.clone();
        thread::spawn(move || {
            for number in 0..COUNT {
                peer.write_all(&message(&format!("m{number}"), &body))
                    .unwrap();
            }
            peer
        })
    };
    // The worker does nothing: the peer must get stuck well before its end, with
    // no more read than queue, framer and socket buffers hold.
    let received = || {
        rig.network
            .stream_counters()
            .messages
            .load(Ordering::Relaxed)
    };
    let mut last = 0;
    until("the reading stops", || {
        thread::sleep(Duration::from_millis(20));
        let now = received();
        let stopped = now > 0 && now == last;
        last = now;
        stopped
    });
    assert!(last < 10, "{last} messages were read");
    assert!(!writer.is_finished());
    for number in 0..COUNT {
        assert_eq!(rig.message().0, message(&format!("m{number}"), &body));
    }
    writer.join().unwrap();
}

#[test]
fn closing_writes_what_waits_and_lets_nothing_new_in() {
    let mut rig = Rig::new(&config(LOCAL));
    let mut peer = connect(&rig, 0);
    peer.write_all(&message("a", "")).unwrap();
    let (_, flow) = rig.message();
    let answer = vec![b'x'; 300_000];
    for _ in 0..3 {
        rig.network.send(&down(flow), &answer, None).unwrap();
    }
    let reader = thread::spawn(move || {
        let bytes = read_to_end(&mut peer);
        peer.shutdown(Shutdown::Both)
            .or_else(|error: io::Error| match error.kind() {
                ErrorKind::NotConnected => Ok(()),
                _ => Err(error),
            })
            .unwrap();
        bytes.len()
    });
    let listener = rig.local(0);
    assert!(rig.runtime.block_on(rig.network.close_streams(PATIENCE)));
    assert_eq!(reader.join().unwrap(), 3 * answer.len());
    assert_eq!(rig.next(), Seen::Closed(flow));
    assert_eq!(rig.network.connections(), 0);
    assert_eq!(
        TcpStream::connect(listener).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    assert_eq!(
        rig.network.send(&to(listener), b"x", None),
        Err(SendError::ShuttingDown)
    );
    assert!(rig.runtime.block_on(rig.network.close_streams(PATIENCE)));
}

#[test]
fn ten_thousand_messages_go_round_over_many_connections() {
    const PEERS: usize = 10;
    const EACH: usize = 1000;
    let mut rig = Rig::new(&config(LOCAL));
    let peers: Vec<_> = (0..PEERS)
        .map(|_| {
            let peer = connect(&rig, 0);
            thread::spawn(move || {
                let mut reader = peer.try_clone().unwrap();
                let writer = thread::spawn(move || {
                    let mut peer = peer;
                    for number in 0..EACH {
                        peer.write_all(&message(&format!("{number:04}"), "body"))
                            .unwrap();
                    }
                });
                for number in 0..EACH {
                    let expected = message(&format!("{number:04}"), "body");
                    assert_eq!(read(&mut reader, expected.len()), expected);
                }
                writer.join().unwrap();
            })
        })
        .collect();
    let mut echoed = 0;
    while echoed < PEERS * EACH {
        match rig.next() {
            Seen::Message(bytes, flow) => {
                rig.network.send(&down(flow), &bytes, None).unwrap();
                echoed += 1;
            }
            // A peer that has got everything back.
            Seen::Closed(_) => {}
            other => panic!("unexpected {other:?}"),
        }
    }
    for peer in peers {
        peer.join().unwrap();
    }
}
