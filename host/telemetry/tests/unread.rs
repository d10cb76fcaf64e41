//! A log that nobody reads: a pipe that is full must hold up no worker.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sipbox_telemetry::logging::{self, Format};

const CHILD: &str = "SIPBOX_TEST_LOGS";
const NAME: &str = "a_log_that_nobody_reads_holds_up_nobody";

/// Logs far more than a pipe and the waiting lines hold, and says how many were lost.
fn child() -> ! {
    let log = logging::init(Format::Human, "info").unwrap();
    for line in 0..20_000 {
        tracing::info!(line, "{:100}", "text");
    }
    println!("lost {}", log.lost().count());
    // The end of the log waits for no reader either, or not for long.
    drop(log);
    println!("ended");
    std::process::exit(0)
}

#[test]
fn a_log_that_nobody_reads_holds_up_nobody() {
    if std::env::var_os(CHILD).is_some() {
        child();
    }
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let unread = process.stderr.take().unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while process.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            let _ = process.kill();
            panic!("it still waits for somebody to read its log");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut said = String::new();
    process
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    drop(unread);
    let lost = said.lines().find_map(|line| line.strip_prefix("lost "));
    let lost: u64 = lost.unwrap_or_else(|| panic!("{said}")).parse().unwrap();
    assert!(lost > 0 && said.contains("ended"), "{said}");
}
