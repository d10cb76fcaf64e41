//! baresip without a screen: a phone that is driven over its control socket.
//!
//! What is peculiar to it (1.0.0, as Debian has it):
//! - `net_interface` must be an IP address: with the name `lo` it finds none.
//! - Of `aufile` only the source exists; the player must be another module.
//!   `aubridge` as both plays back what it hears, so the far end hears itself.
//! - Registration starts before the control socket accepts anyone, so its
//!   event may be over before we listen: ask `reginfo` instead.
//! - RTP sockets are bound to the wildcard address. Phones of tests that run at
//!   once need port ranges of their own.
//! - Control messages are netstrings around JSON.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process::{Process, command, require, wait_until};

/// A running baresip.
#[derive(Debug)]
pub struct Baresip {
    user: String,
    process: Process,
    control: TcpStream,
    pending: Vec<u8>,
    events: Vec<Value>,
    _folder: tempfile::TempDir,
}

impl Baresip {
    /// Starts a phone that registers at the proxy and answers every call with
    /// an echo.
    ///
    /// # Panics
    /// When baresip is missing or does not start.
    #[must_use]
    pub fn start(
        user: &str,
        domain: &str,
        password: &str,
        local: IpAddr,
        proxy: SocketAddr,
        transport: &str,
    ) -> Self {
        require("baresip");
        let folder = crate::process::folder();
        let path = folder.path();
        let rtp = rtp_ports();
        let config = format!(
            "poll_method epoll\n\
             sip_listen {local}:5060\n\
             call_local_timeout 30\n\
             call_max_calls 4\n\
             audio_path {}\n\
             audio_player aubridge,echo\n\
             audio_source aubridge,echo\n\
             audio_alert aubridge,alert\n\
             ausrc_srate 8000\nauplay_srate 8000\nausrc_channels 1\nauplay_channels 1\n\
             audio_level no\n\
             rtp_ports {}-{}\n\
             rtp_stats yes\n\
             module_path {}\n\
             module g711.so\nmodule aubridge.so\n\
             module_app account.so\nmodule_app menu.so\n\
             module ctrl_tcp.so\nctrl_tcp_listen {local}:4444\n\
             net_interface {local}\nnet_prefer_ipv6 no\n",
            path.display(),
            rtp,
            rtp + 30,
            modules(),
        );
        std::fs::write(path.join("config"), config).unwrap();
        std::fs::write(
            path.join("accounts"),
            format!(
                "<sip:{user}@{domain};transport={transport}>;auth_user={user};auth_pass={password};\
                 outbound=\"sip:{proxy};transport={transport}\";regint=60;answermode=auto;\
                 audio_codecs=pcmu/8000/1;ptime=20\n"
            ),
        )
        .unwrap();
        std::fs::write(path.join("contacts"), "").unwrap();
        let mut baresip = command("baresip", path);
        baresip.arg("-f").arg(path).args(["-s", "-v"]);
        let mut process = Process::spawn("baresip", &mut baresip, &path.join("log"));
        let mut control = None;
        wait_until("baresip's control socket", Duration::from_secs(10), || {
            assert!(
                process.ended().is_none(),
                "baresip ended:\n{}",
                process.tail(30)
            );
            control = TcpStream::connect((local, 4444)).ok();
            control.is_some()
        });
        Self {
            user: user.to_owned(),
            process,
            control: control.unwrap(),
            pending: Vec::new(),
            events: Vec::new(),
            _folder: folder,
        }
    }

    /// Waits until it is registered.
    pub fn wait_registered(&mut self) {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            // Lists each account with "OK" or "ERR" between escape sequences.
            let info = self.command("reginfo", "");
            if info
                .lines()
                .any(|line| line.contains(&self.user) && line.contains("OK"))
            {
                return;
            }
            assert!(
                Instant::now() < end,
                "{} is not registered: {info}\n{}",
                self.user,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Calls someone and waits until the call is up and media flows.
    pub fn call(&mut self, uri: &str) {
        self.command("dial", uri);
        self.wait_for("CALL_ESTABLISHED");
        self.wait_for("CALL_RTPESTAB");
    }

    /// Hangs up and waits until the call is over.
    pub fn hang_up(&mut self) {
        self.command("hangup", "");
        self.wait_for("CALL_CLOSED");
    }

    /// Calls someone whom it does not reach.
    pub fn call_in_vain(&mut self, uri: &str) {
        self.command("dial", uri);
        self.wait_for("CALL_CLOSED");
    }

    /// Puts the call on hold: a re-INVITE.
    pub fn hold(&mut self) {
        self.command("hold", "");
    }

    /// Takes it off hold.
    pub fn resume(&mut self) {
        self.command("resume", "");
    }

    /// Ends it without a word to anyone.
    pub fn kill(mut self) {
        self.process.kill();
    }

    /// Waits for an event of that type and takes it and those before it.
    ///
    /// # Panics
    /// When it does not come, or the call closes while something else is awaited.
    pub fn wait_for(&mut self, kind: &str) -> Value {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(at) = self.events.iter().position(|event| event["type"] == kind) {
                let event = self.events[at].clone();
                self.events.drain(..=at);
                return event;
            }
            let closed = self
                .events
                .iter()
                .find(|event| event["type"] == "CALL_CLOSED");
            assert!(
                closed.is_none(),
                "{}: {kind} awaited, got {closed:?}\n{}",
                self.user,
                self.log()
            );
            let got = self.read_one(end);
            assert!(got.is_some(), "{}: no {kind}\n{}", self.user, self.log());
        }
    }

    /// RTP packets sent and received in the call that closed last.
    ///
    /// # Panics
    /// When no call closed yet.
    pub fn packets(&mut self) -> (u64, u64) {
        let mut found = None;
        wait_until("baresip's RTP statistics", Duration::from_secs(5), || {
            let log = self.process.output();
            found = log.lines().rev().find_map(|line| {
                let mut words = line.trim().strip_prefix("packets:")?.split_whitespace();
                Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
            });
            found.is_some()
        });
        found.unwrap()
    }

    /// Unregisters and ends.
    ///
    /// # Panics
    /// When it does not end by itself.
    pub fn quit(mut self) {
        self.send("quit", "");
        let status = self.process.wait(Duration::from_secs(5));
        assert!(
            status.is_some_and(|status| status.success()),
            "baresip: {status:?}\n{}",
            self.log()
        );
    }

    fn log(&self) -> String {
        format!("--- {}'s log\n{}", self.user, self.process.tail(100))
    }

    fn send(&mut self, name: &str, params: &str) {
        let text = json!({"command": name, "params": params, "token": name}).to_string();
        self.control
            .write_all(format!("{}:{text},", text.len()).as_bytes())
            .unwrap();
    }

    fn command(&mut self, name: &str, params: &str) -> String {
        self.send(name, params);
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let got = self.read_one(end);
            let reply =
                got.unwrap_or_else(|| panic!("{}: no reply to {name}\n{}", self.user, self.log()));
            if reply["response"] == true && reply["token"] == name {
                assert_eq!(reply["ok"], true, "{name}: {reply}");
                return reply["data"].as_str().unwrap_or_default().to_owned();
            }
        }
    }

    /// Reads one message; an event is kept as well.
    fn read_one(&mut self, end: Instant) -> Option<Value> {
        let mut buffer = [0; 16384];
        loop {
            if let Some(message) = self.take_netstring() {
                let message: Value = serde_json::from_slice(&message)
                    .unwrap_or_else(|error| panic!("baresip's control: {error}"));
                if message["event"] == true {
                    self.events.push(message.clone());
                }
                return Some(message);
            }
            let left = end.checked_duration_since(Instant::now())?;
            self.control
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))
                .unwrap();
            match self.control.read(&mut buffer) {
                Ok(0) | Err(_) => return None,
                Ok(length) => self.pending.extend_from_slice(&buffer[..length]),
            }
        }
    }

    fn take_netstring(&mut self) -> Option<Vec<u8>> {
        let colon = self.pending.iter().position(|byte| *byte == b':')?;
        let length: usize = std::str::from_utf8(&self.pending[..colon])
            .ok()?
            .parse()
            .ok()?;
        let end = colon + 1 + length;
        if self.pending.len() <= end {
            return None;
        }
        let text = self.pending[colon + 1..end].to_vec();
        self.pending.drain(..=end);
        Some(text)
    }
}

/// The first of 32 media ports that no other phone of the machine's tests uses.
#[must_use]
pub fn rtp_ports() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let process = u16::try_from(std::process::id() % 80).unwrap_or_default();
    10_000 + process * 256 + NEXT.fetch_add(1, Ordering::Relaxed) % 8 * 32
}

fn modules() -> &'static str {
    [
        "/usr/lib/baresip/modules",
        "/usr/lib/x86_64-linux-gnu/baresip/modules",
    ]
    .into_iter()
    .find(|path| std::path::Path::new(path).is_dir())
    .unwrap_or_else(|| {
        panic!("baresip's modules are missing: sudo apt-get install --yes baresip-core")
    })
}
