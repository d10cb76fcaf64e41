//! linphonec without a screen or sound card: commands on its standard input,
//! words on its standard output.
//!
//! What is peculiar to it (5.1, as Debian has it):
//! - HOME must be a fresh folder that holds `.local/share/linphone`: without
//!   that folder it starts, but its databases do not.
//! - `[sip] bind_address` binds SIP, `[rtp] bind_address` media *and* the
//!   address in SDP; otherwise it offers the address of the default route.
//! - Leave `register_only_when_network_is_up` and `auto_net_state_mon` at their
//!   defaults: without them it registers before it listens, and fails for good.
//!   Loopback counts as a network.
//! - `soundcard use files`, then `play FILE` and `record FILE`, before the call.
//! - Its REGISTER has no Content-Length and a To without angle brackets.
//! - The prompt stands in front of what is printed next.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Stdio};
use std::time::Duration;

use crate::audio::write_tone;
use crate::process::{Process, command, require, wait_until};

/// A running linphonec.
#[derive(Debug)]
pub struct Linphone {
    user: String,
    input: ChildStdin,
    process: Process,
    /// How much of its output earlier waits have used up.
    seen: usize,
    heard: PathBuf,
    _folder: tempfile::TempDir,
}

impl Linphone {
    /// Starts a phone that registers at the proxy, speaks a tone of that pitch
    /// and records what it hears.
    ///
    /// # Panics
    /// When linphonec is missing or does not start.
    #[must_use]
    pub fn start(
        user: &str,
        domain: &str,
        password: &str,
        local: IpAddr,
        proxy: SocketAddr,
        transport: &str,
        hertz: f64,
    ) -> Self {
        require("linphonec");
        let folder = crate::process::folder();
        let path = folder.path();
        std::fs::create_dir_all(path.join(".local/share/linphone")).unwrap();
        // 0 turns a transport off.
        let (udp, tcp) = if transport == "tcp" {
            (0, 5060)
        } else {
            (5060, 0)
        };
        let config = format!(
            "[sip]\n\
             sip_port={udp}\nsip_tcp_port={tcp}\nsip_tls_port=0\n\
             bind_address={local}\nuse_ipv6=0\nguess_hostname=0\ndefault_proxy=0\n\
             [rtp]\n\
             bind_address={local}\naudio_rtp_port={}\n\
             [video]\nenabled=0\n\
             [proxy_0]\n\
             reg_proxy=<sip:{proxy};transport={transport}>\n\
             reg_route=<sip:{proxy};transport={transport};lr>\n\
             reg_identity=sip:{user}@{domain}\n\
             reg_expires=60\nreg_sendregister=1\npublish=0\n\
             [auth_info_0]\n\
             username={user}\npasswd={password}\nrealm={domain}\ndomain={domain}\n",
            crate::baresip::rtp_ports(),
        );
        let rc = path.join("linphonerc");
        std::fs::write(&rc, config).unwrap();
        let tone = path.join("tone.wav");
        write_tone(&tone, hertz, 30);
        let heard = path.join("heard.wav");
        let mut linphonec = command("linphonec", path);
        linphonec
            .arg("-c")
            .arg(&rc)
            .args(["-d", "6", "-l"])
            .arg(path.join("log"));
        linphonec.stdin(Stdio::piped());
        for name in [
            "HOME",
            "XDG_CONFIG_HOME",
            "XDG_DATA_HOME",
            "XDG_RUNTIME_DIR",
        ] {
            linphonec.env(name, path);
        }
        linphonec.env("XDG_DATA_HOME", path.join(".local/share"));
        let mut process = Process::spawn("linphonec", &mut linphonec, &path.join("screen"));
        let input = process.stdin();
        let mut phone = Self {
            user: user.to_owned(),
            input,
            process,
            seen: 0,
            heard,
            _folder: folder,
        };
        phone.command("soundcard use files");
        phone.wait_for("Using wav files");
        let heard = phone.heard.display().to_string();
        phone.command(&format!("record {heard}"));
        phone.command(&format!("play {}", tone.display()));
        phone
    }

    /// Waits until it is registered.
    pub fn wait_registered(&mut self) {
        let mut last = std::time::Instant::now() - Duration::from_secs(1);
        wait_until(
            &format!("{} is registered", self.user),
            Duration::from_secs(15),
            || {
                if last.elapsed() > Duration::from_millis(300) {
                    writeln!(self.input, "status register").unwrap();
                    last = std::time::Instant::now();
                }
                self.process.output().contains("registered, identity=")
            },
        );
        self.seen = self.process.output().len();
    }

    /// Answers calls from now on.
    pub fn answer_calls(&mut self) {
        self.command("autoanswer enable");
        self.wait_for("Auto answer enabled");
    }

    /// Calls someone and waits until the call is up and media flows.
    pub fn call(&mut self, uri: &str) {
        self.command(&format!("call {uri}"));
        self.wait_for("connected.");
        self.wait_for("Media streams established");
    }

    /// Hangs up and waits until the call is over.
    pub fn hang_up(&mut self) {
        self.command("terminate");
        self.wait_for("ended (No error)");
    }

    /// Waits until it prints that.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait_for(&mut self, text: &str) {
        let end = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            let output = self.process.output();
            if let Some(at) = output.get(self.seen..).and_then(|new| new.find(text)) {
                self.seen += at + text.len();
                return;
            }
            assert!(
                std::time::Instant::now() < end,
                "{} did not say {text:?}:\n{output}\n--- log\n{}",
                self.user,
                self.log(),
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The recording of what it heard.
    #[must_use]
    pub fn heard(&self) -> &Path {
        &self.heard
    }

    /// Unregisters and ends.
    ///
    /// # Panics
    /// When it does not end by itself.
    pub fn quit(mut self) {
        self.command("quit");
        let status = self.process.wait(Duration::from_secs(10));
        assert!(
            status.is_some_and(|status| status.success()),
            "linphonec: {status:?}\n{}",
            self.log()
        );
    }

    fn command(&mut self, text: &str) {
        writeln!(self.input, "{text}").unwrap();
    }

    fn log(&self) -> String {
        let path = self.heard.with_file_name("log");
        let bytes = std::fs::read(path).unwrap_or_default();
        crate::process::tail(&String::from_utf8_lossy(&bytes), 100)
    }
}
