//! Calls at a fixed rate with times in microseconds. SIPp's clock has steps of
//! some milliseconds, which is too coarse to compare one p99 with another.
//!
//! Neither side repeats anything: on loopback nothing may be lost, and what
//! comes twice was sent twice by the proxy.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::agent::{Dialog, unique};
use crate::message::Message;
use crate::{Agent, Link};

/// One stream of calls: INVITE, 200, ACK, BYE, 200.
#[derive(Debug, Clone)]
pub struct CallLoad {
    /// Where calls come from.
    pub caller: SocketAddr,
    /// The proxy.
    pub proxy: SocketAddr,
    /// The domain of both.
    pub domain: String,
    /// Who is called.
    pub callee: String,
    /// Calls a second.
    pub rate: u32,
    /// Calls in all.
    pub calls: u32,
}

/// What became of them.
#[derive(Debug, Default, Clone)]
pub struct CallReport {
    /// Calls begun.
    pub calls: u32,
    /// Calls whose INVITE and BYE got 200.
    pub completed: u32,
    /// Final statuses of INVITEs other than 200.
    pub refused: BTreeMap<u16, u32>,
    /// Final responses that came again.
    pub repeated: u32,
    /// INVITE to its final response, sorted.
    pub times: Vec<Duration>,
}

impl CallReport {
    /// The time that this part of all calls did not exceed.
    ///
    /// # Panics
    /// When no call was answered.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Duration {
        assert!(!self.times.is_empty(), "no INVITE was answered: {self:?}");
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index into at most thousands"
        )]
        let at = (self.times.len() as f64 * part) as usize;
        self.times[at.min(self.times.len() - 1)]
    }
}

impl CallLoad {
    /// Makes the calls and waits for what is still out.
    ///
    /// # Panics
    /// When the socket fails.
    #[must_use]
    pub fn run(&self) -> CallReport {
        struct Call {
            sent: Instant,
            invite: Message,
            answered: bool,
        }
        let mut agent = Agent::udp("caller", &self.domain, self.caller, self.proxy);
        let mut report = CallReport::default();
        let mut calls: HashMap<String, Call> = HashMap::new();
        let (mut seen, mut open) = (HashSet::new(), 0_u32);
        let begin = Instant::now();
        let step = Duration::from_secs(1) / self.rate;
        let mut last_heard = Instant::now();
        loop {
            let due = begin + step * report.calls;
            if report.calls < self.calls && Instant::now() >= due {
                let uri = format!("sip:{}@{}", self.callee, self.domain);
                let mut invite = agent.request("INVITE", &uri);
                invite.set("From", format!("<{}>;tag={}", agent.aor(), unique()));
                let id = invite.get("Call-ID").to_owned();
                agent.send(&invite);
                calls.insert(
                    id,
                    Call {
                        sent: Instant::now(),
                        invite,
                        answered: false,
                    },
                );
                report.calls += 1;
                open += 1;
                continue;
            }
            if report.calls == self.calls
                && (open == 0 || last_heard.elapsed() > Duration::from_secs(5))
            {
                break;
            }
            let wait = if report.calls < self.calls {
                due.saturating_duration_since(Instant::now())
            } else {
                Duration::from_millis(100)
            };
            let Some(message) = agent.link.receive(wait) else {
                continue;
            };
            last_heard = Instant::now();
            let Some(status) = message.status() else {
                continue;
            };
            if status < 200 {
                continue;
            }
            if !seen.insert((message.branch(), message.method())) {
                report.repeated += 1;
                continue;
            }
            let Some(call) = calls.get_mut(message.get("Call-ID")) else {
                continue;
            };
            match (message.method().as_str(), status) {
                ("INVITE", 200) if !call.answered => {
                    report.times.push(call.sent.elapsed());
                    call.answered = true;
                    let mut dialog = Dialog::of_caller(&call.invite, &message);
                    let ack = dialog.request(&agent, "ACK");
                    agent.send(&ack);
                    let bye = dialog.request(&agent, "BYE");
                    agent.send(&bye);
                }
                ("INVITE", _) => {
                    report.times.push(call.sent.elapsed());
                    *report.refused.entry(status).or_default() += 1;
                    let invite = call.invite.clone();
                    agent.acknowledge(&invite, &message);
                    open -= 1;
                }
                ("BYE", _) => {
                    report.completed += u32::from(status == 200);
                    open -= 1;
                }
                _ => {}
            }
        }
        report.times.sort();
        report
    }
}

/// A callee that answers every request with 200 at once.
#[derive(Debug)]
pub struct Answerer {
    stop: Arc<AtomicBool>,
    repeated: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Answerer {
    /// Starts at an address, where `user` may already be registered.
    ///
    /// # Panics
    /// When the address is taken.
    #[must_use]
    pub fn start(user: &str, domain: &str, local: SocketAddr, proxy: SocketAddr) -> Self {
        let link = Link::udp(local, proxy);
        let mut agent = Agent::over(user, domain, link);
        let stop = Arc::new(AtomicBool::new(false));
        let repeated = Arc::new(AtomicU64::new(0));
        let (stopped, repeats) = (stop.clone(), repeated.clone());
        let thread = std::thread::spawn(move || {
            let mut seen = HashSet::new();
            while !stopped.load(Ordering::Relaxed) {
                let Some(request) = agent.link.receive(Duration::from_millis(50)) else {
                    continue;
                };
                if request.status().is_some() {
                    continue;
                }
                if !seen.insert((request.branch(), request.method())) {
                    repeats.fetch_add(1, Ordering::Relaxed);
                }
                if request.method() != "ACK" {
                    agent.respond(&request, 200, "OK");
                }
            }
        });
        Self {
            stop,
            repeated,
            thread: Some(thread),
        }
    }

    /// Requests that came again.
    #[must_use]
    pub fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
