//! UDP: what comes in, what goes out, and how workers share it.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use sipbox_core::flow::{Flow, ListenerId, NextHop};
use sipbox_net::{Full, Input, NetConfig, SendError, StartError};
use sipbox_sip::Transport;

use crate::support::{FIRST, PATIENCE, Rig, Seen, TestNetwork, Token, config, down, runtime};

fn peer(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_536];
    let (length, _) = socket.recv_from(&mut buffer).unwrap();
    buffer.truncate(length);
    buffer
}

fn udp(listener: u16, address: SocketAddr) -> NextHop {
    NextHop::Address {
        listener: ListenerId(listener),
        transport: Transport::Udp,
        address,
        local: None,
    }
}

/// A worker that saw datagrams come one by one takes them so for a while, and none is left
/// behind when many come at once, to several listeners.
#[test]
fn many_datagrams_after_single_ones_all_come() {
    let mut rig = Rig::new(&config(&[
        (Transport::Udp, "127.0.0.1:0"),
        (Transport::Udp, "127.0.0.1:0"),
    ]));
    let peer = peer("127.0.0.1:0");
    for _ in 0..3 {
        peer.send_to(b"alone", rig.local(0)).unwrap();
        assert_eq!(rig.message().0, b"alone");
    }
    for burst in [2, 40, 3] {
        for _ in 0..burst {
            peer.send_to(b"one", rig.local(0)).unwrap();
            peer.send_to(b"two", rig.local(1)).unwrap();
        }
        let mut came = [0, 0];
        for _ in 0..2 * burst {
            let (_, flow) = rig.message();
            came[usize::from(flow.listener.0)] += 1;
        }
        assert_eq!(came, [burst, burst]);
    }
}

#[test]
fn datagrams_come_in_and_go_back_down_their_flow_over_ipv4_and_ipv6() {
    let mut rig = Rig::new(&config(&[
        (Transport::Udp, "127.0.0.1:0"),
        (Transport::Udp, "[::1]:0"),
        (Transport::Udp, "127.0.0.1:0"),
    ]));
    for (listener, address) in [(0, "127.0.0.1:0"), (1, "[::1]:0"), (2, "127.0.0.1:0")] {
        let peer = peer(address);
        peer.send_to(b"OPTIONS", rig.local(listener)).unwrap();
        let (bytes, flow) = rig.message();
        assert_eq!(bytes, b"OPTIONS");
        let expected = Flow {
            listener: ListenerId(listener),
            transport: Transport::Udp,
            peer: peer.local_addr().unwrap(),
            connection: None,
            local: None,
        };
        assert_eq!(flow, expected);

        rig.network
            .send(
                &NextHop::Flow {
                    flow,
                    reconnect: None,
                },
                b"200",
                None,
            )
            .unwrap();
        assert_eq!(receive(&peer), b"200");
        rig.network
            .send(&udp(listener, flow.peer), b"INVITE", Some(Token(1)))
            .unwrap();
        assert_eq!(receive(&peer), b"INVITE");
    }
}

#[test]
fn wildcard_listeners_of_both_families_share_a_port() {
    let first = Rig::new(&config(&[(Transport::Udp, "[::]:0")]));
    let port = first.local(0).port();
    let address = format!("0.0.0.0:{port}");
    let second = Rig::new(&config(&[(Transport::Udp, &address)]));
    assert_eq!(second.local(0).port(), port);
}

/// A machine has many addresses (loopback alone has millions): what goes down a flow
/// leaves from the one that its peer wrote to, whoever else writes meanwhile.
#[test]
fn a_wildcard_listener_answers_from_the_address_that_was_written_to() {
    let mut rig = Rig::new(&config(&[(Transport::Udp, "0.0.0.0:0")]));
    let port = rig.local(0).port();
    let (first, second) = (peer("127.0.0.5:0"), peer("127.0.0.5:0"));
    let ours: [SocketAddr; 2] =
        ["127.9.8.7", "127.9.8.6"].map(|ip| format!("{ip}:{port}").parse().unwrap());
    let mut flows = Vec::new();
    // The second writes to both, and hears from each what belongs to it.
    for (peer, ours) in [(&first, ours[0]), (&second, ours[1]), (&second, ours[0])] {
        peer.send_to(b"OPTIONS", ours).unwrap();
        let (bytes, flow) = rig.message();
        assert_eq!(bytes, b"OPTIONS");
        assert_eq!(flow.peer, peer.local_addr().unwrap());
        assert_eq!(flow.local, Some(ours.ip()));
        flows.push((peer, ours, flow));
    }
    for stranger in 0..10_000_u16 {
        let [high, low] = stranger.to_be_bytes();
        let stranger = peer(&format!("127.77.{high}.{low}:0"));
        stranger.send_to(b"REGISTER", ours[0]).unwrap();
        rig.message();
    }
    let mut buffer = [0; 16];
    for (peer, ours, flow) in flows {
        let to = flow.peer;
        let elsewhere = NextHop::Address {
            listener: FIRST,
            transport: Transport::Udp,
            address: to,
            local: flow.local,
        };
        for hop in [down(flow), elsewhere] {
            rig.network.send(&hop, b"200", None).unwrap();
            let (length, from) = peer.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from), (&b"200"[..], ours));
        }
    }
    // Who has no flow, or one to an address that is ours no more, gets it from where the
    // kernel likes.
    let silent = peer("127.0.0.6:0");
    let address = silent.local_addr().unwrap();
    for local in [None, Some("192.0.2.77".parse().unwrap())] {
        let hop = NextHop::Address {
            listener: FIRST,
            transport: Transport::Udp,
            address,
            local,
        };
        rig.network.send(&hop, b"INVITE", None).unwrap();
        assert_eq!(receive(&silent), b"INVITE");
    }
}

#[test]
fn a_wildcard_listener_serves_ipv6_too() {
    let mut rig = Rig::new(&config(&[(Transport::Udp, "[::]:0")]));
    let peer = peer("[::1]:0");
    let ours = SocketAddr::new([0, 0, 0, 0, 0, 0, 0, 1].into(), rig.local(0).port());
    peer.send_to(b"OPTIONS", ours).unwrap();
    let (_, flow) = rig.message();
    assert_eq!(flow.local, Some(ours.ip()));
    rig.network.send(&down(flow), b"200", None).unwrap();
    let mut buffer = [0; 16];
    assert_eq!(peer.recv_from(&mut buffer).unwrap(), (3, ours));
    // An address that is not ours: the kernel's choice.
    let gone = Flow {
        local: Some("2001:db8::77".parse().unwrap()),
        ..flow
    };
    rig.network.send(&down(gone), b"200", None).unwrap();
    assert_eq!(receive(&peer), b"200");
}

/// Keep-alives too: a NAT lets only the address in that its phone wrote to.
#[test]
fn a_wildcard_listener_answers_stun_from_the_address_that_was_written_to() {
    let mut rig = Rig::new(&config(&[(Transport::Udp, "0.0.0.0:0")]));
    let peer = peer("127.0.0.7:0");
    let ours: SocketAddr = format!("127.9.8.5:{}", rig.local(0).port())
        .parse()
        .unwrap();
    // A binding request of RFC 8489 without attributes.
    let mut request = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    request.extend([7; 12]);
    peer.send_to(&request, ours).unwrap();
    peer.send_to(b"OPTIONS", ours).unwrap();
    rig.message();
    let mut buffer = [0; 128];
    let (_, from) = peer.recv_from(&mut buffer).unwrap();
    assert_eq!((buffer[..2].as_ref(), from), (&[1, 1][..], ours));
}

#[test]
fn an_address_in_use_is_named() {
    let first = Rig::new(&config(&[(Transport::Udp, "127.0.0.1:0")]));
    let taken = first.local(0).to_string();
    let runtime = runtime();
    let error = TestNetwork::start(&config(&[(Transport::Udp, &taken)]), runtime.handle())
        .expect_err("two sockets on one port");
    assert!(matches!(error, StartError::Listen { .. }));
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("cannot listen on udp:{taken}: ")),
        "{text}"
    );
}

#[test]
fn the_longest_datagrams_come_whole() {
    let mut rig = Rig::new(&config(&[(Transport::Udp, "127.0.0.1:0")]));
    let peer = peer("127.0.0.1:0");
    for length in [1, 1500, 65_507] {
        let datagram = vec![b'a'; length];
        peer.send_to(&datagram, rig.local(0)).unwrap();
        let (bytes, flow) = rig.message();
        assert!(bytes == datagram, "{length}");
        rig.network.send(&udp(0, flow.peer), &bytes, None).unwrap();
        assert!(receive(&peer) == datagram, "{length}");
    }
}

#[test]
fn keep_alives_never_reach_the_handler() {
    let mut rig = Rig::new(&config(&[(Transport::Udp, "127.0.0.1:0")]));
    let peer = peer("127.0.0.1:0");
    let mut stun = b"\0\x01\0\0\x21\x12\xa4\x42".to_vec();
    stun.extend(b"transaction!");
    let ignored: [&[u8]; 4] = [b"\r\n\r\n", b"\r\n", b"\0\0\0\0", b""];
    for datagram in ignored {
        peer.send_to(datagram, rig.local(0)).unwrap();
    }
    peer.send_to(&stun, rig.local(0)).unwrap();
    // CRLF in front of a message is the parser's to skip.
    peer.send_to(b"\r\n\r\nOPTIONS", rig.local(0)).unwrap();
    assert_eq!(rig.message().0, b"\r\n\r\nOPTIONS");
    // Only the STUN request is answered.
    let answer = receive(&peer);
    assert_eq!(answer[..2], [1, 1]);
    assert_eq!(answer[8..20], *b"transaction!");
    assert_eq!(answer.len(), 32);
    let counters = &rig.network.counters()[0];
    assert_eq!(counters.keep_alives.load(Ordering::Relaxed), 5);
    assert_eq!(counters.datagrams.load(Ordering::Relaxed), 6);
}

/// Where nobody listens.
fn closed(address: &str) -> SocketAddr {
    UdpSocket::bind(address).unwrap().local_addr().unwrap()
}

/// RFC 3261 section 18.4: whose datagram came back is told with its beginning.
#[test]
fn what_nobody_takes_comes_back_over_ipv4_and_ipv6() {
    let mut rig = Rig::new(&config(&[
        (Transport::Udp, "127.0.0.1:0"),
        (Transport::Udp, "[::1]:0"),
    ]));
    let datagram = vec![b'x'; 400];
    for (listener, address) in [(0, "127.0.0.1:0"), (1, "[::1]:0")] {
        let closed = closed(address);
        rig.network
            .send(&udp(listener, closed), &datagram, None)
            .unwrap();
        let Seen::Undeliverable(quoted, peer) = rig.next() else {
            panic!("no report")
        };
        assert_eq!(peer, closed);
        assert!(quoted.len() >= 100, "{} bytes", quoted.len());
        assert!(datagram.starts_with(&quoted));
    }
    let counters = &rig.network.counters()[0];
    assert_eq!(counters.undeliverable.load(Ordering::Relaxed), 2);
    // Nothing is left that would wake the worker again.
    rig.quiet();
}

/// The kernel tells of a datagram that came back at the next call, whichever that
/// is. Neither a later send nor a receive may fail for it.
#[test]
fn a_datagram_that_came_back_harms_no_other() {
    let mut rig = Rig::new(&config(&[(Transport::Udp, "127.0.0.1:0")]));
    let closed = closed("127.0.0.1:0");
    let peer = peer("127.0.0.1:0");
    let open = udp(0, peer.local_addr().unwrap());
    // Few: the kernel limits how many reports it makes in a second.
    for round in 0..10u8 {
        rig.network.send(&udp(0, closed), &[round], None).unwrap();
        rig.network.send(&open, &[round], None).unwrap();
        assert_eq!(receive(&peer), [round]);
        peer.send_to(b"OPTIONS", rig.local(0)).unwrap();
        let mut came = [rig.next(), rig.next()].map(|seen| matches!(seen, Seen::Message(..)));
        came.sort_unstable();
        assert_eq!(came, [false, true], "round {round}");
    }
}

#[test]
fn sends_that_cannot_work_say_why() {
    let rig = Rig::new(&config(&[(Transport::Udp, "127.0.0.1:0")]));
    let here: SocketAddr = "127.0.0.1:5060".parse().unwrap();
    let other: SocketAddr = "[::1]:5060".parse().unwrap();
    let send = |next_hop: NextHop, bytes: &[u8]| rig.network.send(&next_hop, bytes, None);
    assert_eq!(
        send(udp(7, here), b"x"),
        Err(SendError::NoListener(ListenerId(7), Transport::Udp))
    );
    assert_eq!(send(udp(0, here), &[0; 65_508]), Err(SendError::TooLarge));
    assert!(matches!(
        send(udp(0, other), b"x"),
        Err(SendError::Unreachable(_))
    ));
    assert_eq!(
        send(
            NextHop::Address {
                listener: FIRST,
                transport: Transport::Sctp,
                address: here,
                local: None,
            },
            b"x"
        ),
        Err(SendError::UnsupportedTransport(Transport::Sctp))
    );
}

#[test]
fn a_wait_ends_with_its_timeout_and_not_before() {
    let mut config = config(&[(Transport::Udp, "127.0.0.1:0")]);
    config.workers = 2;
    let runtime = runtime();
    let (_network, mut workers) = TestNetwork::start(&config, runtime.handle()).unwrap();
    for timeout in [
        Duration::ZERO,
        Duration::from_micros(1),
        Duration::from_millis(20),
    ] {
        let start = Instant::now();
        workers[1]
            .wait(Some(timeout), &mut |input| panic!("nobody sent {input:?}"))
            .unwrap();
        assert!(start.elapsed() >= timeout, "{timeout:?}");
    }
}

#[test]
fn events_come_in_order_and_wake_a_sleeping_worker() {
    let config = NetConfig {
        event_queue: 3,
        ..config(&[])
    };
    let mut rig = Rig::new(&config);
    let queue = rig.network.queues()[0].clone();
    for event in 0..3 {
        queue.push(event).unwrap();
    }
    assert_eq!(queue.push(3), Err(Full(3)));
    for event in 0..3 {
        assert_eq!(rig.next(), Seen::Event(event));
    }
    let start = Instant::now();
    let pusher = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        queue.push(4).unwrap();
    });
    assert_eq!(rig.next(), Seen::Event(4));
    assert!(start.elapsed() < PATIENCE / 2);
    pusher.join().unwrap();
    rig.quiet();
}

#[test]
fn no_event_is_lost_however_pushes_and_sleeps_interleave() {
    const PUSHERS: u32 = 4;
    const EACH: u32 = 20_000;
    let config = NetConfig {
        event_queue: 64,
        ..config(&[])
    };
    let mut rig = Rig::new(&config);
    let pushers: Vec<_> = (0..PUSHERS)
        .map(|pusher| {
            let queue = rig.network.queues()[0].clone();
            thread::spawn(move || {
                for n in 0..EACH {
                    let mut event = pusher * EACH + n;
                    while let Err(Full(back)) = queue.push(event) {
                        event = back;
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    let mut next = [0; PUSHERS as usize];
    for _ in 0..PUSHERS * EACH {
        // A lost wake-up would let this wait run into its deadline.
        let Seen::Event(event) = rig.next() else {
            panic!("only events were pushed")
        };
        let pusher = (event / EACH) as usize;
        assert_eq!(event % EACH, next[pusher], "pusher {pusher} out of order");
        next[pusher] += 1;
    }
    for pusher in pushers {
        pusher.join().unwrap();
    }
}

#[test]
fn a_push_to_a_worker_that_is_gone_comes_back() {
    let runtime = runtime();
    let (network, workers) = TestNetwork::start(&config(&[]), runtime.handle()).unwrap();
    drop(workers);
    assert_eq!(network.queues()[0].push(9), Err(Full(9)));
}

#[test]
fn ten_thousand_datagrams_reach_the_workers_once_each() {
    const WORKERS: usize = 3;
    const PEERS: usize = 4;
    const EACH: usize = 2500;
    let mut config = config(&[
        (Transport::Udp, "127.0.0.1:0"),
        (Transport::Udp, "127.0.0.1:0"),
    ]);
    config.workers = WORKERS;
    let runtime = runtime();
    let (network, workers) = TestNetwork::start(&config, runtime.handle()).unwrap();
    let total = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = workers
        .into_iter()
        .map(|mut worker| {
            let network = network.clone();
            let total = Arc::clone(&total);
            thread::spawn(move || {
                let mut stop = false;
                while !stop {
                    worker
                        .wait(None, &mut |input| match input {
                            Input::Message { message, flow } => {
                                total.fetch_add(1, Ordering::Relaxed);
                                let back = NextHop::Flow {
                                    flow,
                                    reconnect: None,
                                };
                                network.send(&back, &message, None).unwrap();
                            }
                            Input::Event(_) => stop = true,
                            other => panic!("unexpected {other:?}"),
                        })
                        .unwrap();
                }
            })
        })
        .collect();
    let start = Arc::new(Barrier::new(PEERS));
    let peers: Vec<_> = (0..PEERS)
        .map(|n| {
            let to = network.local_addr(ListenerId((n % 2) as u16)).unwrap();
            let start = Arc::clone(&start);
            thread::spawn(move || {
                let socket = peer("127.0.0.1:0");
                start.wait();
                let mut back = vec![false; EACH];
                // A window, so that no socket buffer overflows.
                for window in (0..EACH).collect::<Vec<_>>().chunks(20) {
                    for n in window {
                        socket.send_to(format!("m{n}").as_bytes(), to).unwrap();
                    }
                    for _ in window {
                        let echo = String::from_utf8(receive(&socket)).unwrap();
                        let n: usize = echo[1..].parse().unwrap();
                        assert!(!back[n], "{n} came twice");
                        back[n] = true;
                    }
                }
            })
        })
        .collect();
    for peer in peers {
        peer.join().unwrap();
    }
    for queue in network.queues() {
        queue.push(0).unwrap();
    }
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(total.load(Ordering::Relaxed), PEERS * EACH);
}
