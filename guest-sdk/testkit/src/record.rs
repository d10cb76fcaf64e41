//! Records the host calls of a run with their answers, and answers a fresh
//! instance from such a record: the same calls must come, in the same order.

use std::any::Any;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use sipbox_guest::auth::Outcome;
use sipbox_guest::bindings::host::sipbox::policy::auth::Realm;
use sipbox_guest::bindings::host::sipbox::policy::message::MessageView;
use sipbox_guest::bindings::host::sipbox::policy::types::{Header, Options};
use sipbox_guest::counters;
use sipbox_guest::dialogs::{CreateFlags, Dialog, Validity};
use sipbox_guest::kv;
use sipbox_guest::leases;
use sipbox_guest::location::{Binding, SaveLimits, SaveOutcome};
use sipbox_guest::log::Level;
use sipbox_guest::nat::{BindingFlags, SdpFixes};
use sipbox_guest::sys::Host;
use sipbox_guest::{Body, Edit, Error, Hooks, SourceClass};

/// One host call and its answer.
#[derive(Clone)]
pub struct Exchange {
    /// The function and its arguments.
    pub call: String,
    answer: Rc<dyn Any>,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.call)
    }
}

/// The host calls of one hook call, in order.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// In the order of the run.
    pub exchanges: Vec<Exchange>,
}

impl Recording {
    /// The functions that were called, in order, without their arguments.
    #[must_use]
    pub fn functions(&self) -> Vec<&str> {
        self.exchanges
            .iter()
            .map(|exchange| exchange.call.split('(').next().unwrap_or_default())
            .collect()
    }
}

/// Passes calls on and writes them down.
pub(crate) struct Recorder<H> {
    pub(crate) inner: H,
    pub(crate) recording: Recording,
}

/// Answers from a record.
pub(crate) struct Replay {
    left: VecDeque<Exchange>,
}

impl Replay {
    pub(crate) fn new(recording: &Recording) -> Self {
        Self {
            left: recording.exchanges.iter().cloned().collect(),
        }
    }

    /// What was recorded and has not been asked for.
    pub(crate) fn left(&self) -> usize {
        self.left.len()
    }

    fn answer<T: Clone + 'static>(&mut self, call: &str) -> T {
        let Some(exchange) = self.left.pop_front() else {
            panic!("the replay calls {call}, the recorded run did not");
        };
        if exchange.call != call {
            panic!(
                "the replay calls {call}, the recorded run called {}",
                exchange.call
            );
        }
        match exchange.answer.downcast_ref::<T>() {
            Some(answer) => answer.clone(),
            None => panic!("the record of {call} has an answer of another type"),
        }
    }
}

macro_rules! recorded {
    ($($function:ident($($argument:ident: $kind:ty),*) -> $result:ty;)*) => {
        impl<H: Host> Host for Recorder<H> {
            $(fn $function(&mut self, $($argument: $kind),*) -> $result {
                let call = format!("{}{:?}", stringify!($function), ($(&$argument,)*));
                let answer: $result = self.inner.$function($($argument),*);
                self.recording.exchanges.push(Exchange { call, answer: Rc::new(answer.clone()) });
                answer
            })*
        }

        impl Host for Replay {
            $(fn $function(&mut self, $($argument: $kind),*) -> $result {
                self.answer(&format!("{}{:?}", stringify!($function), ($(&$argument,)*)))
            })*
        }
    };
}

recorded! {
    view() -> MessageView;
    bytes() -> Vec<u8>;
    body() -> Vec<u8>;
    apply(edits: &[Edit]) -> Result<(), Error>;
    set_header(name: &str, value: &str) -> Result<(), Error>;
    add_header(name: &str, value: &str) -> Result<(), Error>;
    remove_header(name: &str) -> Result<(), Error>;
    set_request_uri(uri: &str) -> Result<(), Error>;
    set_body(body: &Body) -> Result<(), Error>;
    var(name: &str) -> Option<String>;
    set_var(name: &str, value: &str) -> Result<(), Error>;
    check_route_param(pattern: &str) -> Result<bool, Error>;
    record_route(params: &[(String, String)]) -> Result<(), Error>;
    record_route_preset(outbound: &str, inbound: Option<&str>) -> Result<(), Error>;
    add_route_param(name: &str, value: &str) -> Result<(), Error>;
    classify_source(asked: SourceClass) -> SourceClass;
    arm(hooks: Hooks) -> Result<(), Error>;
    log(level: Level, text: &str) -> ();
    check(realm: &Realm) -> Result<Outcome, Error>;
    challenge(realm: &Realm) -> Result<(), Error>;
    lookup(aor: &str) -> Result<Vec<Binding>, Error>;
    save(aor: &str, limits: &SaveLimits) -> Result<SaveOutcome, Error>;
    remove(aor: &str) -> Result<u32, Error>;
    force_rport() -> Result<(), Error>;
    fix_nated_contact(params: &str, preserve_uri: bool) -> Result<(), Error>;
    restore_nated_ruri() -> Result<bool, Error>;
    fix_nated_register() -> Result<(), Error>;
    set_binding_flags(marks: BindingFlags) -> Result<(), Error>;
    fix_nated_sdp(fixes: SdpFixes, address: &str, fields: &str) -> Result<(), Error>;
    add_rcv_param(in_uri: bool) -> Result<(), Error>;
    create_dialog(create: CreateFlags, options: &Options) -> Result<bool, Error>;
    current_dialog() -> Option<Dialog>;
    store_dlg_value(name: &str, value: &str) -> Result<(), Error>;
    fetch_dlg_value(name: &str) -> Result<Option<String>, Error>;
    set_dlg_flag(flag: &str) -> Result<(), Error>;
    reset_dlg_flag(flag: &str) -> Result<(), Error>;
    is_dlg_flag_set(flag: &str) -> Result<bool, Error>;
    test_and_set_dlg_flag(flag: &str, value: bool) -> Result<bool, Error>;
    set_dlg_profile(profile: &str, value: &str, clear_values: bool) -> Result<(), Error>;
    unset_dlg_profile(profile: &str, value: &str) -> Result<(), Error>;
    is_in_profile(profile: &str, value: &str) -> Result<bool, Error>;
    get_profile_size(profile: &str, value: &str) -> Result<u32, Error>;
    set_dlg_timeout(seconds: u32) -> Result<(), Error>;
    validate_dialog() -> Result<Validity, Error>;
    end_dialog(extra: &[Header]) -> Result<(), Error>;
    acquire(scope: &str, key: &str, limit: u32) -> Result<leases::Outcome, Error>;
    acquire_all(places: &[leases::Place]) -> Result<leases::AllOutcome, Error>;
    release(lease: u32) -> Result<(), Error>;
    held(scope: &str, key: &str) -> Result<u32, Error>;
    kv_get(key: &str) -> Result<Option<kv::Entry>, Error>;
    kv_set(key: &str, value: &[u8], ttl: u32) -> Result<(), Error>;
    kv_remove(key: &str) -> Result<bool, Error>;
    kv_compare_and_set(key: &str, expected: Option<u32>, value: &[u8], ttl: u32) -> Result<kv::Swap, Error>;
    counter_add(name: &str, key: &str, by: u32, window: u32) -> Result<u32, Error>;
    counter_take(name: &str, key: &str, by: u32, window: u32, limit: u32) -> Result<counters::Outcome, Error>;
    counter_read(name: &str, key: &str, window: u32) -> Result<u32, Error>;
    counter_reset(name: &str, key: &str, window: u32) -> Result<(), Error>;
    counter_sequence(name: &str) -> Result<u32, Error>;
}

/// A host that the policy shares with the test for the time of a hook call.
pub(crate) fn shared<H: Host + 'static>(host: H) -> (Rc<RefCell<H>>, Rc<RefCell<dyn Host>>) {
    let own = Rc::new(RefCell::new(host));
    let lent: Rc<RefCell<dyn Host>> = own.clone();
    (own, lent)
}
