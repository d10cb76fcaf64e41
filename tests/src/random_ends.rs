//! Calls that end in every way there is: by either side, by a refusal, a CANCEL, a CANCEL
//! that crosses the 2xx, or not at all.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::agent::{Dialog, unique};
use crate::message::Message;
use crate::{Agent, Link};

/// The ways, as the header field `X-End` names them to the callee.
const ENDS: [&str; 8] = [
    "caller", "callee", "busy", "decline", "cancel", "race", "lost", "vanish",
];

/// Calls with random ends.
#[derive(Debug, Clone)]
pub struct RandomEnds {
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
    /// How long after the last one calls may go on.
    pub patience: Duration,
}

struct Call {
    end: &'static str,
    invite: Message,
    over: bool,
}

/// What became of them.
#[derive(Debug, Default, Clone)]
pub struct Ends {
    /// How many calls ended in each way.
    pub ended: BTreeMap<&'static str, u32>,
    /// Calls that did not end.
    pub open: u32,
}

impl RandomEnds {
    /// Makes the calls and waits for their ends.
    ///
    /// # Panics
    /// When the socket fails.
    #[must_use]
    pub fn run(&self) -> Ends {
        let mut agent = Agent::udp("caller", &self.domain, self.caller, self.proxy);
        let mut calls: HashMap<String, Call> = HashMap::new();
        let (mut begun, mut open) = (0_u32, 0_u32);
        let mut ends = Ends::default();
        let begin = Instant::now();
        let step = Duration::from_secs(1) / self.rate;
        // Any order will do, the same each time.
        let mut dice = 7_u64;
        loop {
            let due = begin + step * begun;
            if begun < self.calls && Instant::now() >= due {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = usize::try_from(dice >> 33).unwrap_or(0) % ENDS.len();
                let end = ENDS.get(at).copied().unwrap_or("caller");
                let uri = format!("sip:{}@{}", self.callee, self.domain);
                let mut invite = agent.request("INVITE", &uri).with("X-End", end);
                invite.set("From", format!("<{}>;tag={}", agent.aor(), unique()));
                let id = invite.get("Call-ID").to_owned();
                agent.send(&invite);
                let over = false;
                calls.insert(id, Call { end, invite, over });
                begun += 1;
                open += 1;
                continue;
            }
            if begun == self.calls && (open == 0 || begin.elapsed() > step * begun + self.patience)
            {
                ends.open = open;
                return ends;
            }
            let wait = if begun < self.calls {
                due.saturating_duration_since(Instant::now())
            } else {
                Duration::from_millis(100)
            };
            let Some(message) = agent.link.receive(wait) else {
                continue;
            };
            let Some(call) = calls.get_mut(message.get("Call-ID")) else {
                continue;
            };
            if heard(&mut agent, call, &message) && !call.over {
                call.over = true;
                open -= 1;
                *ends.ended.entry(call.end).or_default() += 1;
            }
        }
    }
}

/// What the caller makes of a message; whether the call is over for it.
fn heard(agent: &mut Agent, call: &Call, message: &Message) -> bool {
    let Some(status) = message.status() else {
        if message.method() != "ACK" {
            agent.respond(message, 200, "OK");
        }
        return message.method() == "BYE";
    };
    match (message.method().as_str(), status) {
        ("INVITE", 180) => {
            if matches!(call.end, "cancel" | "race") {
                let cancel = agent.cancel(&call.invite);
                agent.send(&cancel);
            }
            false
        }
        ("INVITE", 200) => {
            if call.end == "vanish" {
                return false;
            }
            let mut dialog = Dialog::of_caller(&call.invite, message);
            let ack = dialog.request(agent, "ACK");
            agent.send(&ack);
            if matches!(call.end, "caller" | "race") {
                let bye = dialog.request(agent, "BYE");
                agent.send(&bye);
            }
            false
        }
        ("INVITE", 300..) => {
            agent.acknowledge(&call.invite, message);
            true
        }
        ("BYE", 200..) => true,
        _ => false,
    }
}

/// A callee that ends each call as its INVITE says.
#[derive(Debug)]
pub struct Obedient {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Obedient {
    /// Starts at an address, where `user` is registered already.
    ///
    /// # Panics
    /// When the address is taken.
    #[must_use]
    pub fn start(user: &str, domain: &str, local: SocketAddr, proxy: SocketAddr) -> Self {
        let mut agent = Agent::over(user, domain, Link::udp(local, proxy));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut invites = HashMap::new();
            while !stopped.load(Ordering::Relaxed) {
                if let Some(request) = agent.link.receive(Duration::from_millis(50))
                    && request.status().is_none()
                {
                    obey(&mut agent, &mut invites, request);
                }
            }
        });
        let thread = Some(thread);
        Self { stop, thread }
    }
}

impl Drop for Obedient {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The INVITE of each call, and what it was answered with.
type Invites = HashMap<String, (Message, Option<Message>)>;

fn obey(agent: &mut Agent, invites: &mut Invites, request: Message) {
    let id = request.get("Call-ID").to_owned();
    match request.method().as_str() {
        "INVITE" => {
            let end = request.header("X-End").unwrap_or_default().to_owned();
            let answer = match end.as_str() {
                "busy" => Some(agent.respond(&request, 486, "Busy Here")),
                "decline" => Some(agent.respond(&request, 603, "Decline")),
                "cancel" | "race" => {
                    agent.respond(&request, 180, "Ringing");
                    None
                }
                _ => Some(agent.respond(&request, 200, "OK")),
            };
            invites.insert(id, (request, answer));
        }
        "ACK" => {
            if let Some((invite, Some(answer))) = invites.get(&id)
                && invite.header("X-End") == Some("callee")
            {
                let mut dialog = Dialog::of_callee(invite, answer);
                let bye = dialog.request(agent, "BYE");
                agent.send(&bye);
            }
        }
        "CANCEL" => {
            agent.respond(&request, 200, "OK");
            if let Some((invite, answer @ None)) = invites.get_mut(&id) {
                let race = invite.header("X-End") == Some("race");
                *answer = Some(if race {
                    agent.respond(invite, 200, "OK")
                } else {
                    agent.respond(invite, 487, "Request Terminated")
                });
            }
        }
        _ => {
            agent.respond(&request, 200, "OK");
        }
    }
}
