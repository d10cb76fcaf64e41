//! What waiting and receiving cost, in CPU time of the worker's thread for each
//! datagram of 1067 bytes on loopback: a [`Worker`]'s epoll against a thread
//! that blocks in `recv_from`, one datagram at a time and in bursts; and what
//! it costs to keep a message, copied or as a slice of a pooled buffer.
//!
//! `cargo bench -p sipbox-net --bench wait`
#![allow(clippy::unwrap_used, clippy::panic, reason = "a measurement may fail")]

use std::hint::black_box;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nix::time::{ClockId, clock_gettime};
use sipbox_core::flow::ListenerId;
use sipbox_net::{Input, ListenerConfig, NetConfig, Network};
use sipbox_sip::Transport;

const DATAGRAM: [u8; 1067] = [b'x'; 1067];
const COUNT: usize = 100_000;

fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .unwrap()
        .into()
}

/// Sends `COUNT` datagrams, `burst` at a time, each burst when the last has
/// been taken.
fn send(to: SocketAddr, burst: usize, taken: &std::sync::mpsc::Receiver<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..COUNT / burst {
        for _ in 0..burst {
            socket.send_to(&DATAGRAM, to).unwrap();
        }
        for _ in 0..burst {
            taken.recv().unwrap();
        }
    }
}

fn report(name: &str, burst: usize, spent: Duration) {
    let each = spent.as_nanos() / COUNT as u128;
    println!("{name:<22} bursts of {burst:>2}: {each:>5} ns a datagram");
}

fn epoll(burst: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let config = NetConfig {
        listeners: vec![ListenerConfig {
            transport: Transport::Udp,
            address: "127.0.0.1:0".parse().unwrap(),
        }],
        ..NetConfig::default()
    };
    let (network, mut workers) = Network::<()>::start(&config, runtime.handle()).unwrap();
    let to = network.local_addr(ListenerId(0)).unwrap();
    let mut worker = workers.pop().unwrap();
    let (taken, receiver) = channel();
    let thread = thread::spawn(move || {
        let start = cpu();
        let mut count = 0;
        while count < COUNT {
            worker
                .wait(Some(Duration::from_millis(10)), &mut |input| {
                    if let Input::Message { message, .. } = input {
                        black_box(&*message);
                        count += 1;
                        take(&taken);
                    }
                })
                .unwrap();
        }
        cpu() - start
    });
    send(to, burst, &receiver);
    report("epoll, one thread", burst, thread.join().unwrap());
}

fn blocking(burst: usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = socket.local_addr().unwrap();
    let (taken, receiver) = channel();
    let thread = thread::spawn(move || {
        let start = cpu();
        let mut buffer = vec![0; 65_536];
        for _ in 0..COUNT {
            let (length, _) = socket.recv_from(&mut buffer).unwrap();
            black_box(buffer.get(..length));
            take(&taken);
        }
        cpu() - start
    });
    send(to, burst, &receiver);
    report("blocking, one thread", burst, thread.join().unwrap());
}

/// The same for both, so it does not tell in the difference.
fn take(taken: &Sender<()>) {
    taken.send(()).unwrap();
}

fn keep() {
    let measure = |name: &str, mut step: Box<dyn FnMut()>| {
        let start = cpu();
        for _ in 0..COUNT * 10 {
            step();
        }
        println!(
            "{name:<36} {:>4} ns",
            (cpu() - start).as_nanos() / (COUNT as u128 * 10)
        );
    };
    measure(
        "keep a copy",
        Box::new(|| drop(black_box(Bytes::copy_from_slice(&DATAGRAM)))),
    );
    let mut pool = BytesMut::new();
    measure(
        "keep a slice of a pooled buffer",
        Box::new(move || {
            // The room that a datagram may take, though most take a kilobyte.
            pool.reserve(65_536);
            pool.extend_from_slice(&DATAGRAM);
            drop(black_box(pool.split().freeze()));
        }),
    );
}

fn main() {
    for burst in [1, 32] {
        epoll(burst);
        blocking(burst);
    }
    keep();
}
