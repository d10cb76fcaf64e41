//! The program under test: its configuration, start, counters and end.

use std::fmt::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::agent::unique;
use crate::control;
use crate::loopback::Loopback;
use crate::process::{Process, command};
use crate::program;

/// The domain of tests that need only one.
pub const DOMAIN: &str = "lab.test";

/// What the program is started with.
#[derive(Debug, Clone)]
pub struct Setup {
    address: SocketAddr,
    listener: String,
    tenants: String,
    extra: String,
    default_tenant: Option<String>,
    outbound_proxy: Option<SocketAddr>,
    top: String,
    users: Vec<(String, String)>,
}

impl Setup {
    /// UDP and TCP listeners on one fresh address, no tenant yet.
    #[must_use]
    pub fn new(net: &Loopback) -> Self {
        Self::at(net.sip())
    }

    /// UDP and TCP listeners on that address, no tenant yet.
    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        Self {
            address,
            listener: String::new(),
            tenants: String::new(),
            extra: String::new(),
            default_tenant: None,
            outbound_proxy: None,
            top: String::new(),
            users: Vec::new(),
        }
    }

    /// One tenant with [`DOMAIN`] and the residential policy; the settings are
    /// TOML key and value pairs with commas between, which may be empty. Without
    /// `auth` nobody is asked for credentials.
    #[must_use]
    pub fn residential(net: &Loopback, settings: &str) -> Self {
        Self::new(net)
            .tenant("home", DOMAIN, settings)
            .default_tenant("home")
    }

    /// Adds a tenant with one domain and the residential policy.
    #[must_use]
    pub fn tenant(self, name: &str, domain: &str, settings: &str) -> Self {
        let toml = format!(
            "[[tenant]]\nname = \"{name}\"\ndomains = [\"{domain}\"]\n\
             grants = [\"auth\", \"location\", \"nat\", \"dialogs\", \"leases\"]\n\
             [[tenant.policy]]\nbuiltin = \"residential\"\nsettings = {}\n",
            residential(domain, self.address, settings)
        );
        self.tenants(&toml)
    }

    /// Adds lines to each listener, as TOML.
    #[must_use]
    pub fn listener(mut self, toml: &str) -> Self {
        self.listener.push_str(toml);
        self
    }

    /// Adds tenants as TOML.
    #[must_use]
    pub fn tenants(mut self, toml: &str) -> Self {
        self.tenants.push_str(toml);
        self
    }

    /// Replaces all tenants by others, as TOML.
    pub fn replace_tenants(&mut self, toml: &str) {
        toml.clone_into(&mut self.tenants);
    }

    /// Adds other tables as TOML.
    #[must_use]
    pub fn with(mut self, toml: &str) -> Self {
        self.extra.push_str(toml);
        self
    }

    /// Adds an account, `user@domain`.
    #[must_use]
    pub fn user(mut self, account: &str, password: &str) -> Self {
        self.users.push((account.to_owned(), password.to_owned()));
        self
    }

    /// Where the listeners are.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends everything that no `[[route]]` settles to one address.
    #[must_use]
    pub fn outbound_proxy(mut self, next_hop: SocketAddr) -> Self {
        self.outbound_proxy = Some(next_hop);
        self
    }

    /// Gives the node its number.
    #[must_use]
    pub fn node(mut self, number: u16) -> Self {
        let _ = writeln!(self.top, "node = {number}");
        self
    }

    /// So many threads handle messages.
    #[must_use]
    pub fn workers(mut self, number: usize) -> Self {
        let _ = writeln!(self.top, "workers = {number}");
        self
    }

    /// Makes a tenant serve what no tenant's domain claims.
    #[must_use]
    pub fn default_tenant(mut self, name: &str) -> Self {
        self.default_tenant = Some(name.to_owned());
        self
    }

    /// The configuration.
    #[must_use]
    pub fn toml(&self) -> String {
        let mut text = self.top.clone();
        if let Some(next_hop) = self.outbound_proxy {
            let _ = writeln!(text, "outbound_proxy = \"{next_hop}\"");
        }
        for transport in ["udp", "tcp"] {
            let address = self.address;
            let _ = write!(
                text,
                "[[listener]]\nname = \"{transport}\"\ntransport = \"{transport}\"\n\
                 address = \"{address}\"\n{}",
                self.listener
            );
            if let Some(tenant) = &self.default_tenant {
                let _ = writeln!(text, "tenant = \"{tenant}\"");
            }
        }
        text.push_str(&self.tenants);
        let defaults = [
            ("[store]", "path = \"sipbox.sqlite\""),
            ("[control]", "socket = \"sipbox.sock\""),
            ("[log]", "filter = \"info\""),
        ];
        for (table, line) in defaults {
            if !self.extra.contains(table) {
                let _ = writeln!(text, "{table}\n{line}");
            }
        }
        text + &self.extra
    }

    /// Writes the configuration, adds the accounts, and starts the program.
    ///
    /// # Panics
    /// When an account cannot be added, or the program is not ready in time.
    #[must_use]
    pub fn start(&self) -> Sipbox {
        let folder = crate::process::folder();
        std::fs::write(folder.path().join("sipbox.toml"), self.toml()).unwrap();
        for (account, password) in &self.users {
            let output = sipbox(folder.path())
                .args([
                    "user",
                    "add",
                    "-c",
                    "sipbox.toml",
                    account,
                    "--password",
                    password,
                ])
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "sipbox user add {account}: {}\n{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        // Compiling a policy takes a second or more of CPU: once for all tests.
        std::os::unix::fs::symlink(
            program::compiled_components(),
            folder.path().join("components"),
        )
        .unwrap();
        let process = spawn(folder.path(), &RUN);
        let mut sipbox = Sipbox {
            address: self.address,
            process: Some(process),
            folder,
            forgiven: false,
        };
        sipbox.wait_ready();
        sipbox
    }
}

/// Settings of the residential policy as a TOML table: one domain, which the
/// listener's address means as well.
#[must_use]
pub fn residential(domain: &str, address: SocketAddr, settings: &str) -> String {
    let auth = if settings.contains("auth =") {
        ""
    } else {
        "auth = \"off\", "
    };
    let comma = if settings.is_empty() { "" } else { ", " };
    let ip = match address.ip() {
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        ip => ip.to_string(),
    };
    format!("{{ {auth}{settings}{comma}domains = {{ \"{domain}\" = {{ names = [\"{ip}\"] }} }} }}")
}

fn sipbox(folder: &Path) -> std::process::Command {
    let mut sipbox = command(program::sipbox(), folder);
    // Nothing of the user's own state.
    sipbox
        .env("HOME", folder)
        .env("XDG_STATE_HOME", folder.join("state"));
    for name in ["SIPBOX_CONFIG", "SIPBOX_STATE", "SIPBOX_LOG"] {
        sipbox.env_remove(name);
    }
    sipbox
}

/// How tests with a configuration start it.
const RUN: [&str; 3] = ["run", "-c", "sipbox.toml"];

/// Starts `sipbox` with those arguments in a folder; its output goes to the file
/// `log` there.
///
/// # Panics
/// When it cannot be started.
#[must_use]
pub fn spawn(folder: &Path, arguments: &[&str]) -> Process {
    let mut command = sipbox(folder);
    command.args(arguments);
    Process::spawn("sipbox", &mut command, &folder.join("log"))
}

/// Runs `sipbox` with those arguments in a folder.
///
/// # Panics
/// When it cannot be started.
#[must_use]
pub fn cli(folder: &Path, arguments: &[&str]) -> std::process::Output {
    sipbox(folder).args(arguments).output().unwrap()
}

/// A running Sipbox. When the test ends it must stop by itself with status 0.
#[derive(Debug)]
pub struct Sipbox {
    /// Its UDP and TCP address.
    pub address: SocketAddr,
    process: Option<Process>,
    folder: tempfile::TempDir,
    forgiven: bool,
}

impl Sipbox {
    fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the program runs")
    }

    /// Waits until it answers an OPTIONS with anything, and management commands.
    /// Without hops left the OPTIONS is answered whatever the policy is.
    fn wait_ready(&mut self) {
        let address = self.address;
        let probe = UdpSocket::bind((address.ip(), 0)).unwrap();
        probe
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let end = Instant::now() + Duration::from_secs(40);
        loop {
            if let Some(status) = self.process().ended() {
                self.forgiven = true;
                panic!("sipbox ended at once: {status}\n{}", self.log());
            }
            let local = probe.local_addr().unwrap();
            let branch = unique();
            let options = format!(
                "OPTIONS sip:{address} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{branch}\r\n\
                 From: <sip:probe@{local}>;tag=1\r\nTo: <sip:{address}>\r\nCall-ID: {branch}\r\n\
                 CSeq: 1 OPTIONS\r\nMax-Forwards: 0\r\nContent-Length: 0\r\n\r\n"
            );
            let _ = probe.send_to(options.as_bytes(), address);
            if probe.recv(&mut [0; 2048]).is_ok() {
                break;
            }
            assert!(
                Instant::now() < end,
                "sipbox answers no OPTIONS\n{}",
                self.log()
            );
        }
        // A socket of an earlier run may still lie there.
        let socket = self.file("sipbox.sock");
        crate::process::wait_until("the control socket", Duration::from_secs(10), || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
    }

    /// Its process id.
    #[must_use]
    pub fn id(&mut self) -> u32 {
        self.process().id()
    }

    /// A file of its folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts another configuration in the file's place.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn configure(&self, setup: &Setup) {
        std::fs::write(self.file("sipbox.toml"), setup.toml()).unwrap();
    }

    /// The first line of the log with those words, once it is there: lines are written by
    /// a thread that nobody waits for.
    ///
    /// # Panics
    /// When there is none in ten seconds.
    pub fn logged(&self, words: &str) -> String {
        let mut found = None;
        crate::process::wait_until(words, Duration::from_secs(10), || {
            let log = self.log();
            let mut lines = log.lines();
            found = lines.find(|line| line.contains(words)).map(str::to_owned);
            found.is_some()
        });
        found.unwrap()
    }

    /// All that it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.file("log")).unwrap_or_default()).into_owned()
    }

    /// Calls a management command.
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    pub fn rpc(&self, method: &str, params: &Value) -> Value {
        self.try_rpc(method, params)
            .unwrap_or_else(|error| panic!("{method} {params}: {error}"))
    }

    /// Calls a management command.
    ///
    /// # Errors
    /// The error object, when it is refused.
    pub fn try_rpc(&self, method: &str, params: &Value) -> Result<Value, Value> {
        control::call(&self.file("sipbox.sock"), method, params)
    }

    /// All statistics of a group, such as `tm`, by `group:name`.
    #[must_use]
    pub fn statistics(&self, group: &str) -> Value {
        self.rpc(
            "get_statistics",
            &json!({"statistics": [format!("{group}:")]}),
        )
    }

    /// One statistic, such as `tm:inuse_transactions`.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn statistic(&self, name: &str) -> u64 {
        let all = self.rpc("get_statistics", &json!({"statistics": [name]}));
        let value = &all[name];
        value
            .as_u64()
            .or_else(|| value.as_str().and_then(|text| text.parse().ok()))
            .unwrap_or_else(|| panic!("no statistic {name} in {all}"))
    }

    /// Runs `sipbox` with those arguments in the program's folder.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn cli(&self, arguments: &[&str]) -> std::process::Output {
        cli(self.folder.path(), arguments)
    }

    /// Resident memory in KiB.
    ///
    /// # Panics
    /// When the program is gone.
    #[must_use]
    pub fn memory(&mut self) -> u64 {
        let path = format!("/proc/{}/status", self.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) {
        self.process().signal(signal);
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait_end(&mut self, limit: Duration) -> ExitStatus {
        let status = self.process().wait(limit);
        let status =
            status.unwrap_or_else(|| panic!("sipbox runs on after {limit:?}\n{}", self.log_tail()));
        self.process = None;
        status
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.process().kill();
        self.process = None;
    }

    /// Starts it again in the same folder.
    ///
    /// # Panics
    /// When it still runs, or is not ready in time.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "stop it first");
        self.process = Some(spawn(self.folder.path(), &RUN));
        self.wait_ready();
    }

    /// Stops it gracefully; it must end with status 0.
    ///
    /// # Panics
    /// When it does not.
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.wait_end(Duration::from_secs(40));
        assert!(
            status.success(),
            "sipbox ended with {status}\n{}",
            self.log_tail()
        );
    }

    fn log_tail(&self) -> String {
        crate::process::tail(&self.log(), 60)
    }
}

impl Drop for Sipbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if !self.forgiven {
                eprintln!("--- sipbox's log\n{}", self.log_tail());
            }
            return; // the process guard kills it
        }
        if let Some(process) = self.process.as_mut() {
            process.signal(Signal::SIGTERM);
            let status = process.wait(Duration::from_secs(40));
            assert!(
                status.is_some_and(|status| status.success()),
                "sipbox ended with {status:?} after SIGTERM\n{}",
                self.log_tail()
            );
        }
    }
}
