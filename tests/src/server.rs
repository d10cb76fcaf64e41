//! A SIP server that takes calls as it is told: a target of a balancer, a gateway.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::agent::Agent;
use crate::link::Link;
use crate::message::Message;

/// It says nothing at all.
pub const SILENT: u16 = 0;
/// It rings, and answers only to a CANCEL.
pub const RINGING: u16 = 180;
/// It answers.
pub const ANSWERS: u16 = 200;

/// A server on a UDP address.
#[derive(Debug)]
pub struct Server {
    /// Where it is.
    pub address: SocketAddr,
    conduct: Arc<AtomicU16>,
    calls: Arc<Mutex<Vec<Message>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts one that answers calls; the proxy is where it sends its own requests.
    ///
    /// # Panics
    /// When the address is taken.
    #[must_use]
    pub fn start(name: &str, local: SocketAddr, proxy: SocketAddr) -> Self {
        let mut agent = Agent::over(name, "server.test", Link::udp(local, proxy));
        let conduct = Arc::new(AtomicU16::new(ANSWERS));
        let calls = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (asked, seen, stopped) = (conduct.clone(), calls.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let message = agent.link.receive(Duration::from_millis(20));
                if let Some(request) = message.filter(|message| message.status().is_none()) {
                    serve(&mut agent, &seen, asked.load(Ordering::Relaxed), request);
                }
            }
        });
        Self {
            address: local,
            conduct,
            calls,
            stop,
            thread: Some(thread),
        }
    }

    /// What it does from now on: [`SILENT`], [`RINGING`], or a final status.
    pub fn answers(&self, status: u16) {
        self.conduct.store(status, Ordering::Relaxed);
    }

    /// The INVITEs of the calls that reached it, one each, since the last time it was asked.
    ///
    /// # Panics
    /// When its thread did.
    #[must_use]
    pub fn calls(&self) -> Vec<Message> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

fn serve(agent: &mut Agent, calls: &Mutex<Vec<Message>>, status: u16, request: Message) {
    match request.method().as_str() {
        "ACK" => {}
        "INVITE" => {
            let mut calls = calls.lock().unwrap();
            if !calls.iter().any(|call| call.branch() == request.branch()) {
                calls.push(request.clone());
            }
            drop(calls);
            if status != SILENT {
                agent.respond(&request, status, "As Told");
            }
        }
        "CANCEL" => {
            agent.respond(&request, 200, "OK");
            let ringing = calls.lock().unwrap();
            let invite = ringing
                .iter()
                .find(|call| call.branch() == request.branch());
            if let Some(invite) = invite {
                agent.respond(invite, 487, "Request Terminated");
            }
        }
        _ => {
            agent.respond(&request, 200, "OK");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
