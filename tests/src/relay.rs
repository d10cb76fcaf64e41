//! A datagram relay that loses some, between a peer and the proxy.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// One relay with one socket. What comes from the proxy goes to the peer, what
/// comes from anyone else to the proxy.
///
/// The proxy answers to the address that it saw and the port of the Via
/// (RFC 3261 section 18.2.2), so the relay's port must be the peer's.
#[derive(Debug)]
pub struct LossyRelay {
    stop: Arc<AtomicBool>,
    passed: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl LossyRelay {
    /// Relays between `peer` and `proxy` at `local`, losing `percent` of all
    /// datagrams, chosen by `seed`.
    ///
    /// # Panics
    /// When the address is taken.
    #[must_use]
    pub fn start(
        local: SocketAddr,
        peer: SocketAddr,
        proxy: SocketAddr,
        percent: u64,
        seed: u64,
    ) -> Self {
        println!("relay {local} between {peer} and {proxy}: loses {percent} %, seed {seed}");
        let socket =
            UdpSocket::bind(local).unwrap_or_else(|error| panic!("relay {local}: {error}"));
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (passed, lost) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (stopped, passes, losses) = (stop.clone(), passed.clone(), lost.clone());
        let thread = std::thread::spawn(move || {
            let mut random = Random::new(seed);
            let mut buffer = vec![0; 65536];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                if random.below(100) < percent {
                    losses.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                passes.fetch_add(1, Ordering::Relaxed);
                let to = if from == proxy { peer } else { proxy };
                // A peer that is already gone refuses; that is a loss as well.
                let _ = socket.send_to(&buffer[..length], to);
            }
        });
        Self {
            stop,
            passed,
            lost,
            thread: Some(thread),
        }
    }

    /// Datagrams passed on and lost so far.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (
            self.passed.load(Ordering::Relaxed),
            self.lost.load(Ordering::Relaxed),
        )
    }
}

impl Drop for LossyRelay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// SplitMix64: small, and the same on every machine.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.draw() % limit
    }
}

/// A seed from `SIPBOX_SEED`, or a fresh one; tests print it.
#[must_use]
pub fn seed() -> u64 {
    let named = std::env::var("SIPBOX_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    named.unwrap_or_else(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(1, |time| {
            u64::from(time.subsec_nanos()) ^ u64::from(std::process::id())
        })
    })
}
