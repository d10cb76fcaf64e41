//! Kamailio as an oracle: the same messages go through it and through us, and the same routing
//! has to come out.
//!
//! What is peculiar to it (5.6, as Debian has it):
//! - It forks; in the foreground (`-DD -E`) its children end with it.
//! - Without a cache and with `dns=no` it looks nothing up.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::agent::unique;
use crate::process::{Process, command, require};

/// A running Kamailio.
#[derive(Debug)]
pub struct Kamailio {
    /// Its UDP and TCP address.
    pub address: SocketAddr,
    process: Process,
    _folder: tempfile::TempDir,
}

impl Kamailio {
    /// Starts it at `address` with `modules` (names without `.so`) and the rest of a
    /// configuration: parameters and routes.
    ///
    /// # Panics
    /// When Kamailio is missing or does not start.
    #[must_use]
    pub fn start(address: SocketAddr, modules: &[&str], rest: &str) -> Self {
        require("kamailio");
        let folder = crate::process::folder();
        let path = folder.path();
        let mut text = format!(
            "#!KAMAILIO\ndebug=2\nlog_stderror=yes\nfork=yes\nchildren=2\ntcp_children=2\n\
             auto_aliases=no\ndns=no\nrev_dns=no\nuse_dns_cache=off\n\
             listen=udp:{address}\nlisten=tcp:{address}\nmpath=\"{}\"\n",
            folder_of_modules()
        );
        for module in modules {
            text.push_str(&format!("loadmodule \"{module}.so\"\n"));
        }
        text.push_str(rest);
        let file = path.join("kamailio.cfg");
        std::fs::write(&file, text).unwrap();
        let mut kamailio = command("kamailio", path);
        kamailio.args(["-DD", "-E", "-m", "64", "-M", "8"]);
        kamailio.arg("-w").arg(path).arg("-Y").arg(path);
        kamailio.arg("-f").arg(&file);
        let mut kamailio = Self {
            address,
            process: Process::spawn("kamailio", &mut kamailio, &path.join("log")),
            _folder: folder,
        };
        kamailio.wait_ready();
        kamailio
    }

    /// Waits until it answers an OPTIONS without hops left.
    fn wait_ready(&mut self) {
        let probe = UdpSocket::bind((self.address.ip(), 0)).unwrap();
        let limit = Some(Duration::from_millis(100));
        probe.set_read_timeout(limit).unwrap();
        let local = probe.local_addr().unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let branch = unique();
            let options = format!(
                "OPTIONS sip:{} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{branch}\r\n\
                 From: <sip:probe@{local}>;tag=1\r\nTo: <sip:{}>;tag=2\r\nCall-ID: {branch}\r\n\
                 CSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
                self.address, self.address
            );
            let _ = probe.send_to(options.as_bytes(), self.address);
            if probe.recv(&mut [0; 2048]).is_ok() {
                return;
            }
            let ended = self.process.ended();
            assert!(
                ended.is_none() && Instant::now() < end,
                "kamailio does not start ({ended:?}):\n{}",
                self.process.tail(40)
            );
        }
    }
}

/// What was observed of a proxy, each with what it is.
pub type Observed = Vec<(&'static str, String)>;

/// Compares what was observed of both. `explained` has that in which they differ, and why;
/// it must differ.
///
/// # Panics
/// When anything else is not the same.
pub fn compare(theirs: &Observed, ours: &Observed, explained: &[(&str, &str)]) {
    assert_eq!(theirs.len(), ours.len());
    let mut wrong = Vec::new();
    for (theirs, ours) in theirs.iter().zip(ours) {
        let differs = explained.iter().any(|(what, _)| *what == ours.0);
        if (theirs == ours) == differs {
            let (what, theirs, ours) = (theirs.0, &theirs.1, &ours.1);
            wrong.push(format!("{what}:\n  kamailio {theirs}\n  sipbox   {ours}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

impl Drop for Kamailio {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- kamailio's log\n{}", self.process.tail(40));
        }
        // Its children end with it only if it is asked.
        if self.process.ended().is_none() {
            self.process.signal(Signal::SIGTERM);
            let _ = self.process.wait(Duration::from_secs(5));
        }
    }
}

fn folder_of_modules() -> String {
    let folders = [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
    ];
    let found = folders
        .iter()
        .map(|folder| format!("{folder}/kamailio/modules/"))
        .find(|folder| std::path::Path::new(folder).is_dir());
    found.expect("Kamailio's modules are where Debian puts them")
}
