//! `kv` and `counters` by a real guest: what it sees of its writes, what a trap takes
//! back, its quota, and what others see of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{INVITE, Tenant, TestHost, reply, spec, verdict};
use sipbox_core::policy::{
    AuthOutcome, BindingView, CallError, Capabilities, HookCall, HookFailure, HookInput, LogLevel,
    PolicyHost, Realm, SaveLimits, SaveOutcome, Verdict, last_writes,
};
use sipbox_core::shared::{
    Answer, Change, CounterName, Entry, Expected, Hold, Kv, Shared, SharedLimits, SharedNow,
    Staged, Swap,
};
use sipbox_core::time::Time;
use sipbox_wasm::{ChainHost, Recorder, replay};

/// A tenant's state, and a clock that the test moves.
struct Host {
    shared: Shared,
    ms: AtomicU64,
    other: TestHost,
}

impl Host {
    fn new(limits: &SharedLimits) -> Arc<Self> {
        Arc::new(Self {
            shared: Shared::in_memory(limits, &[7; 16]),
            ms: AtomicU64::new(1000),
            other: TestHost::default(),
        })
    }

    fn now(&self) -> Time {
        Time::from_millis(self.ms.load(Ordering::Relaxed))
    }

    fn commit(&self, call: &HookCall) {
        for staged in last_writes(call.effects.iter()) {
            staged.commit(self.now()).now().unwrap().unwrap();
        }
    }
}

impl Capabilities for Host {
    fn check(&self, call: &HookCall, realm: &Realm) -> Result<AuthOutcome, CallError> {
        self.other.check(call, realm)
    }

    fn lookup(&self, call: &HookCall, aor: &str) -> Result<Vec<BindingView>, CallError> {
        self.other.lookup(call, aor)
    }

    fn save(&self, call: &HookCall, aor: &str, l: &SaveLimits) -> Result<SaveOutcome, CallError> {
        self.other.save(call, aor, l)
    }

    fn remove(&self, call: &HookCall, aor: &str) -> Result<u32, CallError> {
        self.other.remove(call, aor)
    }

    fn shared(&self) -> Result<SharedNow<'_>, CallError> {
        Ok(self.shared.at(self.now()))
    }

    fn log(&self, call: &HookCall, policy: &str, level: LogLevel, text: &str) {
        self.other.log(call, policy, level, text);
    }
}

/// One worker of a tenant.
struct Worker {
    tenant: Tenant,
    host: Arc<Host>,
}

impl Worker {
    fn new(host: &Arc<Host>) -> Self {
        Self {
            tenant: Tenant::one("shared", "{}"),
            host: Arc::clone(host),
        }
    }

    fn call(&self, asked: &[&str], end: &str) -> Box<HookCall> {
        let mut message = INVITE.replace("X-Probe: before\r\n", "");
        for asked in asked {
            message = message.replace("Subject:", &format!("X-Ask: {asked}\r\nSubject:"));
        }
        let message = message.replace("Subject:", &format!("X-End: {end}\r\nSubject:"));
        let mut call = self.tenant.call(&message);
        call.capabilities = Arc::clone(&self.host) as _;
        call
    }

    /// What the guest is told, its writes staged and not committed.
    fn staged(&mut self, asked: &[&str]) -> (Vec<String>, Box<HookCall>) {
        let mut call = self.call(asked, "reply");
        let output = self.tenant.run(0, HookInput::Request, &mut call).unwrap();
        let reply = reply(verdict(output));
        let answers = reply.headers.iter().filter(|(name, _)| name == "X-Answer");
        (answers.map(|(_, value)| value.clone()).collect(), call)
    }

    fn ask(&mut self, asked: &[&str]) -> Vec<String> {
        let (answers, call) = self.staged(asked);
        self.host.commit(&call);
        answers
    }
}

#[test]
fn a_call_sees_its_own_writes_and_others_those_that_count() {
    let host = Host::new(&SharedLimits::default());
    let (mut one, mut two) = (Worker::new(&host), Worker::new(&host));
    let (answers, call) = one.staged(&[
        "get a",
        "set a 1 60",
        "get a",
        "swap a 2",
        "text a",
        "remove b",
        "set b x 0",
        "remove b",
        "get b",
        "swap-if b y absent",
        "get b",
    ]);
    let expected = [
        "none", "set", "1 60", "stored", "2", "false", "set", "true", "none", "stored", "y 0",
    ];
    assert_eq!(answers, expected);
    assert_eq!(two.ask(&["get a", "get b"]), ["none", "none"]);
    host.commit(&call);
    drop(call);
    assert_eq!(two.ask(&["get a", "get b"]), ["2 0", "y 0"]);
    assert_eq!(two.ask(&["set a 3 2", "get a"]), ["set", "3 2"]);
    host.ms.store(3500, Ordering::Relaxed);
    assert_eq!(one.ask(&["get a"]), ["none"], "its time is over");
    assert_eq!(one.ask(&["remove b", "remove b"]), ["true", "false"]);
    host.shared.upkeep(host.now());
    assert_eq!(host.shared.usage().kv_entries, 0);
}

#[test]
fn of_two_calls_that_expect_the_same_one_succeeds() {
    let host = Host::new(&SharedLimits::default());
    let (mut one, mut two) = (Worker::new(&host), Worker::new(&host));
    let (first, call) = one.staged(&["swap-if a 1 absent", "set a 2 0"]);
    assert_eq!(first, ["stored", "set"]);
    assert_eq!(two.ask(&["swap-if a 1 absent"]), ["busy"]);
    host.commit(&call);
    drop(call);
    assert_eq!(two.ask(&["swap-if a 1 absent"]), ["differs 2 0"]);
    assert_eq!(
        two.ask(&["swap-if a 9 77", "swap a 3"]),
        ["differs 2 0", "stored"]
    );
    // The verdict of the second does not count: the third has what it wants.
    let (_, call) = one.staged(&["swap a 4"]);
    drop(call);
    assert_eq!(two.ask(&["swap a 5", "get a"]), ["stored", "5 0"]);
}

#[test]
fn a_trap_takes_back_what_was_written_and_not_what_was_counted() {
    let host = Host::new(&SharedLimits::default());
    let mut worker = Worker::new(&host);
    let asked = ["set a 1 0", "swap-if b 1 absent", "add calls alice 1 60"];
    for round in 1..=3 {
        let mut call = worker.call(&asked, "panic");
        let failed = worker.tenant.run(0, HookInput::Request, &mut call);
        assert!(matches!(failed, Err(HookFailure::Trap(_))));
        assert!(call.effects.is_empty());
        let seen = worker.ask(&["get a", "get b", "read calls alice 60"]);
        assert_eq!(
            seen,
            ["none".to_owned(), "none".to_owned(), round.to_string()]
        );
    }
    assert_eq!(
        worker.ask(&["swap-if b 1 absent"]),
        ["stored"],
        "no claim is left"
    );
}

#[test]
fn a_quota_is_a_typed_error_and_the_call_goes_on() {
    let limits = SharedLimits {
        kv_entries: 40,
        kv_bytes: 10_000,
        kv_value: 500,
        counters: 3,
    };
    let host = Host::new(&limits);
    let mut worker = Worker::new(&host);
    assert_eq!(worker.ask(&["fill 60 1 a"]), ["40 limit kv_entries"]);
    // One with the first byte different, of those that are there.
    assert_eq!(
        worker.ask(&["set a0 2 0", "set b 1 0"]),
        ["set", "limit kv_entries"]
    );
    let removed: Vec<String> = (0..40).map(|n| format!("remove a{n}")).collect();
    let removed: Vec<&str> = removed.iter().map(String::as_str).collect();
    assert!(worker.ask(&removed).iter().all(|answer| answer == "true"));
    assert_eq!(worker.ask(&["fill 60 400 b"]), ["16 limit kv_mib"]);
    assert!(host.shared.usage().kv_bytes <= limits.kv_bytes);
    assert_eq!(
        worker.ask(&["value 500", "value 501"])[1],
        "limit kv_value_bytes"
    );
    assert_eq!(worker.ask(&["value 60000"]), ["limit kv_value_bytes"]);
    assert_eq!(worker.ask(&["counters 5"]), ["3 limit counters"]);
    assert_eq!(worker.ask(&["add fill 2 5 3600"]), ["6"]);
    // What a call stages has limits of its own.
    let mut call = worker.call(&["set b0 1 0"; 65], "reply");
    let failed = worker.tenant.run(0, HookInput::Request, &mut call);
    assert_eq!(failed, Err(HookFailure::Edits));
}

#[test]
fn keys_and_windows_that_are_none_are_refused() {
    let host = Host::new(&SharedLimits::default());
    let mut worker = Worker::new(&host);
    let answers = worker.ask(&[
        "key 0",
        "key 255",
        "key 256",
        "get \u{1}",
        "set a b 100000001",
        "add a b 1 0",
        "add a b 1 86401",
        "add :a b 1 60",
        "add  b 1 60",
        "number :a",
        "number ",
        "take calls bob 1 60 0",
    ]);
    let expected = [
        "malformed",
        "set",
        "malformed",
        "malformed",
        "malformed",
        "malformed",
        "malformed",
        "malformed",
        "malformed",
        "malformed",
        "malformed",
        "over 0",
    ];
    assert_eq!(answers, expected);
}

#[test]
fn counters_slide_and_are_reset() {
    let host = Host::new(&SharedLimits::default());
    let mut worker = Worker::new(&host);
    let twice = ["take c k 1 60 2", "take c k 1 60 2", "take c k 1 60 2"];
    assert_eq!(worker.ask(&twice), ["taken 1", "taken 2", "over 2"]);
    host.ms.store(61_000, Ordering::Relaxed);
    assert_eq!(
        worker.ask(&["read c k 60"]),
        ["2"],
        "a part of a slot is left"
    );
    host.ms.store(66_000, Ordering::Relaxed);
    assert_eq!(worker.ask(&["read c k 60", "add c k 3 60"]), ["0", "3"]);
    assert_eq!(worker.ask(&["reset c k 60", "read c k 60"]), ["reset", "0"]);
}

#[test]
fn a_sequence_gives_each_call_a_number_of_its_own() {
    let host = Host::new(&SharedLimits {
        counters: 2,
        ..SharedLimits::default()
    });
    let (mut one, mut two) = (Worker::new(&host), Worker::new(&host));
    assert_eq!(one.ask(&["number a", "number a"]), ["0", "1"]);
    // A number that was given out is gone, whatever becomes of its call.
    let mut call = two.call(&["number a"], "panic");
    let failed = two.tenant.run(0, HookInput::Request, &mut call);
    assert!(matches!(failed, Err(HookFailure::Trap(_))));
    assert_eq!(two.ask(&["number a", "number b"]), ["3", "0"]);
    assert_eq!(one.ask(&["number c"]), ["limit counters"]);
    assert_eq!(one.ask(&["number a"]), ["4"]);
}

/// The second policy of a chain sees what the first wrote, and replays with it.
#[test]
fn calls_of_a_chain_share_and_replay() {
    let host = Host::new(&SharedLimits::default());
    let mut worker = Worker::new(&host);
    worker.tenant = Tenant::new(vec![
        spec("shared", r#"{"version":"first"}"#),
        spec(
            "shared",
            r#"{"version":"second","limit":{"most":9,"window":60}}"#,
        ),
    ]);
    worker
        .host
        .shared
        .counters
        .add(
            CounterName {
                name: "c",
                key: "k",
                window: 60,
            },
            4,
            host.now(),
        )
        .now()
        .unwrap()
        .unwrap();
    let asked = [
        "swap a 1",
        "swap a 2",
        "get a",
        "take c k 1 60 6",
        "reset c k 9",
        "number n",
        "remove z",
    ];
    let mut call = worker.call(&asked, "next");
    let mut chain = ChainHost::new(&mut worker.tenant.pools, &worker.tenant.chain);
    let mut recorder = Recorder::new(&mut chain);
    let first = recorder.call(0, HookInput::Request, &mut call).unwrap();
    assert_eq!(verdict(first), Verdict::Next);
    call.edits.clear();
    let _ = recorder.call(1, HookInput::Request, &mut call).unwrap();
    let recordings = recorder.recordings;
    assert_eq!(recordings.len(), 2);
    assert_eq!(
        (
            recordings[0].outcome.effects.len(),
            recordings[1].outcome.effects.len()
        ),
        (2, 2)
    );
    for recording in &recordings {
        let json = serde_json::to_string(recording).unwrap();
        replay(
            &common::load("shared"),
            &serde_json::from_str(&json).unwrap(),
        )
        .unwrap();
    }
    assert_eq!(
        worker.host.shared.kv.get("a", host.now()).now().unwrap(),
        Ok(None)
    );
    host.commit(&call);
    drop(call);
    let found = worker.host.shared.kv.get("a", host.now()).now().unwrap();
    assert_eq!(found.unwrap().unwrap().value, "2");
}

/// A backend that is elsewhere, for a sandbox whose stores do not wait.
struct Elsewhere {
    here: Shared,
    asked: AtomicU64,
}

impl Elsewhere {
    fn later<T: Send + 'static>(&self) -> Answer<T> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Answer::Later(Box::pin(std::future::pending()))
    }
}

impl Kv for Elsewhere {
    fn get(&self, _: &str, _: Time) -> Answer<Result<Option<Entry>, CallError>> {
        self.later()
    }

    fn stage(
        &self,
        _: &str,
        _: Change,
        _: Option<Hold>,
        _: Time,
    ) -> Answer<Result<Staged, CallError>> {
        self.later()
    }

    fn compare_and_set(
        &self,
        _: &str,
        _: Expected,
        _: Change,
        _: Time,
    ) -> Answer<Result<Swap, CallError>> {
        self.later()
    }
}

impl Capabilities for Elsewhere {
    fn check(&self, _: &HookCall, _: &Realm) -> Result<AuthOutcome, CallError> {
        Ok(AuthOutcome::None)
    }

    fn lookup(&self, _: &HookCall, _: &str) -> Result<Vec<BindingView>, CallError> {
        Ok(Vec::new())
    }

    fn save(&self, _: &HookCall, _: &str, _: &SaveLimits) -> Result<SaveOutcome, CallError> {
        Ok(SaveOutcome::Queried(0))
    }

    fn remove(&self, _: &HookCall, _: &str) -> Result<u32, CallError> {
        Ok(0)
    }

    fn shared(&self) -> Result<SharedNow<'_>, CallError> {
        Ok(SharedNow {
            kv: self,
            ..self.here.at(Time::default())
        })
    }

    fn log(&self, _: &HookCall, _: &str, _: LogLevel, _: &str) {}
}

#[test]
fn what_would_come_later_is_unavailable() {
    let host = Host::new(&SharedLimits::default());
    let mut worker = Worker::new(&host);
    let elsewhere = Arc::new(Elsewhere {
        here: host.shared.clone(),
        asked: AtomicU64::default(),
    });
    let asked = ["get a", "set a 1 0", "swap-if a 1 absent", "add c k 1 1"];
    let mut call = worker.call(&asked, "reply");
    call.capabilities = Arc::clone(&elsewhere) as _;
    let output = worker.tenant.run(0, HookInput::Request, &mut call).unwrap();
    let reply = reply(verdict(output));
    let answers = reply.headers.iter().filter(|(name, _)| name == "X-Answer");
    let answers: Vec<&str> = answers.map(|(_, answer)| answer.as_str()).collect();
    assert_eq!(answers, ["unavailable", "unavailable", "unavailable", "1"]);
    assert_eq!(elsewhere.asked.load(Ordering::Relaxed), 3);
}

/// Where there is nothing, it is unavailable, in a recording as well.
#[test]
fn what_is_not_there_is_unavailable() {
    let host = Host::new(&SharedLimits::default());
    let mut worker = Worker::new(&host);
    let mut call = worker.call(&["get a", "read c k 1"], "reply");
    call.capabilities = Arc::clone(&worker.tenant.host) as _;
    let mut chain = ChainHost::new(&mut worker.tenant.pools, &worker.tenant.chain);
    let mut recorder = Recorder::new(&mut chain);
    let output = recorder.call(0, HookInput::Request, &mut call).unwrap();
    let reply = reply(verdict(output));
    let answers = reply.headers.iter().filter(|(name, _)| name == "X-Answer");
    assert!(answers.clone().all(|(_, answer)| answer == "unavailable"));
    assert_eq!(answers.count(), 2);
    replay(&common::load("shared"), &recorder.recordings[0]).unwrap();
}
