//! Next hops that are names: the name servers and the hosts file of `[dns]`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use sipbox_tests::sipbox::DOMAIN;
use sipbox_tests::{Agent, Loopback, Setup, Sipbox};

/// A name server that has one address for every name, and counts its questions.
fn name_server(net: &Loopback, address: Ipv4Addr) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind((net.sip().ip(), 0)).unwrap();
    let server = socket.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            // RFC 1035 section 4.1: a header of 12 bytes; the name, its length before
            // each label and zero at the end; type and class.
            let name = buffer[12..length].iter().position(|b| *b == 0).unwrap();
            let question = &buffer[12..12 + name + 5];
            let is_a = question[name + 1..] == [0, 1, 0, 1];
            if is_a {
                count.fetch_add(1, Ordering::Relaxed);
            }
            let mut answer = buffer[..2].to_vec();
            answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
            answer.extend(question);
            if is_a {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                answer.extend(address.octets());
            }
            let _ = socket.send_to(&answer, peer);
        }
    });
    (server, asked)
}

/// A message to a contact at a name reaches the phone at its address.
fn reaches(net: &Loopback, sipbox: &Sipbox, bob: &mut Agent, port: u16) {
    let _ = sipbox.rpc(
        "ul_add",
        &json!({"table_name": "location", "aor": "bob@lab.test",
                "contact": format!("sip:bob@phone.example:{port}"),
                "expires": 60, "q": "1.0", "flags": 0, "cflags": 0, "methods": 0}),
    );
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    for _ in 0..2 {
        let request = alice.request("MESSAGE", "sip:bob@lab.test");
        alice.send(&request);
        let arrived = bob.expect_request("MESSAGE");
        bob.respond(&arrived, 200, "OK");
        alice.expect(&request, 200);
    }
}

fn ipv4(address: SocketAddr) -> Ipv4Addr {
    match address {
        SocketAddr::V4(address) => *address.ip(),
        SocketAddr::V6(_) => panic!("{address}"),
    }
}

#[test]
fn the_configured_name_server_is_asked_once() {
    let net = Loopback::new();
    let phone = net.sip();
    let (server, asked) = name_server(&net, ipv4(phone));
    let setup = Setup::residential(&net, "")
        .with(&format!("[dns]\nservers = [\"{server}\"]\nhosts = \"\"\n"));
    let mut bob = Agent::udp("bob", DOMAIN, phone, setup.address());
    let sipbox = setup.start();
    reaches(&net, &sipbox, &mut bob, phone.port());
    assert_eq!(
        asked.load(Ordering::Relaxed),
        1,
        "the second time it is known"
    );
}

#[test]
fn a_hosts_file_goes_before_the_name_server() {
    let net = Loopback::new();
    let phone = net.sip();
    let (server, asked) = name_server(&net, Ipv4Addr::new(192, 0, 2, 1));
    let folder = sipbox_tests::process::folder();
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, format!("{} phone.example\n", phone.ip())).unwrap();
    let setup = Setup::residential(&net, "").with(&format!(
        "[dns]\nservers = [\"{server}\"]\nhosts = \"{}\"\n",
        hosts.display()
    ));
    let mut bob = Agent::udp("bob", DOMAIN, phone, setup.address());
    let sipbox = setup.start();
    reaches(&net, &sipbox, &mut bob, phone.port());
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}
