//! Runs SIPp scenarios from `tests/scenarios` and reads its counters.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::process::{Process, command, require, tail};

/// How SIPp's messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One datagram socket.
    Udp,
    /// One connection for all calls.
    Tcp,
    /// A connection for each call.
    TcpEach,
}

impl Transport {
    fn option(self) -> &'static str {
        match self {
            Self::Udp => "u1",
            Self::Tcp => "t1",
            Self::TcpEach => "tn",
        }
    }
}

/// One SIPp to be started.
#[derive(Debug, Clone)]
pub struct Sipp {
    scenario: String,
    local: SocketAddr,
    remote: Option<SocketAddr>,
    transport: Transport,
    calls: u32,
    rate: u32,
    limit: Duration,
    keys: Vec<(String, String)>,
    users: Option<String>,
    response_times: bool,
    lossy: bool,
}

/// A running SIPp.
#[derive(Debug)]
pub struct RunningSipp {
    name: String,
    calls: u32,
    limit: Duration,
    process: Process,
    folder: tempfile::TempDir,
}

/// What SIPp counted.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Calls made or taken.
    pub created: u64,
    /// Calls that went through the whole scenario.
    pub successful: u64,
    /// Calls that did not.
    pub failed: u64,
    /// Messages that SIPp sent again.
    pub retransmissions: u64,
    /// Messages that belong to no call.
    pub unexpected: u64,
    /// Times between `start_rtd` and `rtd`, in milliseconds, sorted.
    pub response_times: Vec<f64>,
}

impl Sipp {
    /// `tests/scenarios/NAME.xml` at the address `local`.
    #[must_use]
    pub fn new(scenario: &str, local: SocketAddr) -> Self {
        Self {
            scenario: scenario.to_owned(),
            local,
            remote: None,
            transport: Transport::Udp,
            calls: 1,
            rate: 10,
            limit: Duration::from_secs(30),
            keys: Vec::new(),
            users: None,
            response_times: false,
            lossy: false,
        }
    }

    /// Where a caller sends everything; without it SIPp waits for calls.
    #[must_use]
    pub fn to(mut self, remote: SocketAddr) -> Self {
        self.remote = Some(remote);
        self
    }

    /// How messages travel.
    #[must_use]
    pub fn over(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// How many calls in all, and how many a second.
    #[must_use]
    pub fn calls(mut self, calls: u32, rate: u32) -> Self {
        (self.calls, self.rate) = (calls, rate);
        self
    }

    /// The longest that it may take.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// What `[name]` stands for in the scenario.
    #[must_use]
    pub fn key(mut self, name: &str, value: impl ToString) -> Self {
        self.keys.push((name.to_owned(), value.to_string()));
        self
    }

    /// Users and passwords for `[field0]` and `[authentication ...]` in `[field1]`.
    #[must_use]
    pub fn users(mut self, users: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut text = "SEQUENTIAL\n".to_owned();
        for (user, password) in users {
            text.push_str(&format!(
                "{user};[authentication username={user} password={password}];\n"
            ));
        }
        self.users = Some(text);
        self
    }

    /// Messages get lost: those that come again in a pause are answered again.
    #[must_use]
    pub fn lossy(mut self) -> Self {
        self.lossy = true;
        self
    }

    /// Also keep response times.
    #[must_use]
    pub fn timed(mut self) -> Self {
        self.response_times = true;
        self
    }

    /// Starts it; a callee is listening when this returns.
    ///
    /// # Panics
    /// When SIPp is missing or does not start.
    #[must_use]
    pub fn start(&self) -> RunningSipp {
        require("sipp");
        let folder = crate::process::folder();
        let scenario: PathBuf = [
            env!("CARGO_MANIFEST_DIR"),
            "scenarios",
            &format!("{}.xml", self.scenario),
        ]
        .iter()
        .collect();
        assert!(scenario.is_file(), "{} is missing", scenario.display());
        let mut sipp = command("sipp", folder.path());
        let local = self.local.ip().to_string();
        if let Some(remote) = self.remote {
            sipp.arg(remote.to_string());
        }
        sipp.arg("-sf").arg(scenario);
        sipp.args(["-i", &local, "-ci", &local, "-bind_local", "-nostdin"]);
        sipp.args([
            "-p",
            &self.local.port().to_string(),
            "-t",
            self.transport.option(),
        ]);
        sipp.args([
            "-m",
            &self.calls.to_string(),
            "-r",
            &self.rate.to_string(),
            "-l",
            "100000",
        ]);
        // The limit of open calls must fit the limit of open files.
        sipp.args(["-l", &self.calls.min(15_000).to_string()]);
        if !self.lossy {
            // Without it a call hangs for ever when its 180 comes behind the 200, in a pause.
            sipp.arg("-pause_msg_ign");
        }
        sipp.arg("-timeout_error");
        sipp.args(["-timeout", &format!("{}s", self.limit.as_secs())]);
        sipp.args([
            "-buff_size",
            "4000000",
            "-timer_resol",
            "1",
            "-max_socket",
            "500",
        ]);
        sipp.args(["-trace_stat", "-stf", "counts.csv", "-fd", "1"]);
        sipp.args(["-trace_err", "-error_file", "errors.log"]);
        if self.calls <= 200 {
            sipp.args(["-trace_msg", "-message_file", "messages.log"]);
        }
        if self.response_times {
            sipp.args(["-trace_rtt", "-rtt_freq", "100"]);
        }
        if let Some(users) = &self.users {
            std::fs::write(folder.path().join("users.csv"), users).unwrap();
            sipp.args(["-inf", "users.csv"]);
        }
        for (name, value) in &self.keys {
            sipp.args(["-key", name, value]);
        }
        let output = folder.path().join("screen.log");
        let mut process = Process::spawn("sipp", &mut sipp, &output);
        if self.remote.is_none() {
            let bound = |process: &mut Process| {
                assert!(
                    process.ended().is_none(),
                    "sipp ended:\n{}",
                    process.tail(20)
                );
                is_bound(self.local, self.transport)
            };
            crate::process::wait_until("sipp listens", Duration::from_secs(10), || {
                bound(&mut process)
            });
        }
        RunningSipp {
            name: self.scenario.clone(),
            calls: self.calls,
            limit: self.limit,
            process,
            folder,
        }
    }

    /// Starts it and waits for its end.
    pub fn run(&self) -> Counts {
        self.start().finish()
    }
}

impl RunningSipp {
    /// Waits for the end; every call must have gone through the scenario.
    ///
    /// # Panics
    /// When a call failed, or SIPp did not end in time; with SIPp's own words.
    pub fn finish(mut self) -> Counts {
        let status = self.process.wait(self.limit + Duration::from_secs(5));
        let counts = self.counts();
        let good = status.is_some_and(|status| status.success())
            && counts.failed == 0
            && counts.successful == u64::from(self.calls);
        assert!(
            good,
            "sipp {}: {} of {} calls went through, {} failed (exit {status:?})\n--- errors\n{}\n--- messages\n{}\n--- screen\n{}",
            self.name,
            counts.successful,
            self.calls,
            counts.failed,
            tail(&self.read("errors.log"), 60),
            tail(&self.read("messages.log"), 150),
            self.process.tail(15),
        );
        counts
    }

    /// Ends it and gives what it counted so far, good or bad.
    pub fn stop(mut self) -> Counts {
        if self.process.ended().is_none() {
            self.process.signal(Signal::SIGUSR1);
            if self.process.wait(Duration::from_secs(3)).is_none() {
                self.process.kill();
            }
        }
        self.counts()
    }

    /// Waits for the end and gives what it counted, good or bad.
    pub fn outcome(mut self) -> (Counts, String) {
        let _ = self.process.wait(self.limit + Duration::from_secs(5));
        (self.counts(), tail(&self.read("errors.log"), 40))
    }

    fn read(&self, name: &str) -> String {
        let bytes = std::fs::read(self.folder.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn counts(&self) -> Counts {
        let text = self.read("counts.csv");
        let mut lines = text.lines();
        let names: Vec<&str> = lines.next().unwrap_or_default().split(';').collect();
        let last: Vec<&str> = lines.next_back().unwrap_or_default().split(';').collect();
        let value = |name: &str| -> u64 {
            let at = names.iter().position(|found| *found == name);
            at.and_then(|at| last.get(at))
                .and_then(|text| text.parse().ok())
                .unwrap_or_default()
        };
        Counts {
            created: value("TotalCallCreated"),
            successful: value("SuccessfulCall(C)"),
            failed: value("FailedCall(C)"),
            retransmissions: value("Retransmissions(C)"),
            unexpected: value("OutOfCallMsgs(C)") + value("DeadCallMsgs(C)"),
            response_times: self.response_times(),
        }
    }

    fn response_times(&self) -> Vec<f64> {
        let mut times = Vec::new();
        for entry in std::fs::read_dir(self.folder.path()).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.ends_with("_rtt.csv") {
                continue;
            }
            for line in self.read(&name).lines() {
                let columns: Vec<&str> = line.split(';').collect();
                if let Some(Ok(time)) = columns.get(1).map(|text| text.parse()) {
                    times.push(time);
                }
            }
        }
        times.sort_by(f64::total_cmp);
        times
    }
}

/// Whether a socket is bound there, from the kernel's table.
fn is_bound(address: SocketAddr, transport: Transport) -> bool {
    let SocketAddr::V4(v4) = address else {
        panic!("the tests speak IPv4: {address}")
    };
    let wanted = format!(
        "{:08X}:{:04X}",
        u32::from_ne_bytes(v4.ip().octets()),
        v4.port()
    );
    let (table, listen) = match transport {
        Transport::Udp => ("/proc/net/udp", None),
        Transport::Tcp | Transport::TcpEach => ("/proc/net/tcp", Some("0A")),
    };
    std::fs::read_to_string(table)
        .unwrap_or_default()
        .lines()
        .any(|line| {
            let mut columns = line.split_whitespace();
            columns.nth(1) == Some(wanted.as_str())
                && listen.is_none_or(|state| columns.nth(1) == Some(state))
        })
}
