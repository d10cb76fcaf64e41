//! Receiving and sending over UDP, and a worker's queue, allocate nothing
//! (architecture, invariant 17). The counter is the allocator of this binary.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use sipbox_core::flow::{ListenerId, NextHop};
use sipbox_net::{Input, ListenerConfig, NetConfig, Network, Worker};
use sipbox_sip::Transport;

const ROUNDS: usize = 200;

fn echo(network: &Network<u32>, worker: &mut Worker<u32>, peer: &UdpSocket, kept: &mut [u8]) {
    let port = network.local_addr(ListenerId(0)).unwrap().port();
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    let datagram = [b'x'; 1067];
    for event in 0..u32::try_from(ROUNDS).unwrap() {
        peer.send_to(&datagram, to).unwrap();
        network.queues()[0].push(event).unwrap();
        let (mut messages, mut events) = (0, 0);
        while messages == 0 || events == 0 {
            worker
                .wait(Some(Duration::from_secs(10)), &mut |input| match input {
                    Input::Message { message, flow } => {
                        messages += 1;
                        let back = NextHop::Flow {
                            flow,
                            reconnect: None,
                        };
                        network.send(&back, &message, None).unwrap();
                    }
                    Input::Event(seen) => {
                        assert_eq!(seen, event);
                        events += 1;
                    }
                    other => panic!("unexpected {other:?}"),
                })
                .unwrap();
        }
        let (length, _) = peer.recv_from(kept).unwrap();
        assert_eq!(length, datagram.len());
    }
}

#[test]
fn a_datagram_goes_through_without_allocating() {
    passes_through("127.0.0.1:0");
}

/// Where the address that it was sent to is asked for, and set.
#[test]
fn a_datagram_of_a_wildcard_listener_does_so_too() {
    passes_through("0.0.0.0:0");
}

fn passes_through(address: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let config = NetConfig {
        listeners: vec![ListenerConfig {
            transport: Transport::Udp,
            address: address.parse().unwrap(),
        }],
        ..NetConfig::default()
    };
    let (network, mut workers) = Network::<u32>::start(&config, runtime.handle()).unwrap();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut kept = [0; 2048];
    let mut worker = workers.pop().unwrap();
    // What grows once, grows here.
    echo(&network, &mut worker, &peer, &mut kept);
    let counted = allocation_counter::measure(|| echo(&network, &mut worker, &peer, &mut kept));
    assert_eq!(
        counted.count_total, 0,
        "in {ROUNDS} datagrams and events: {counted:?}"
    );
    // The counter counts: keeping a message is one allocation.
    let counted = allocation_counter::measure(|| {
        let _ = sipbox_net::Received::Datagram(&kept).into_bytes();
    });
    assert!(counted.count_total > 0);
}
