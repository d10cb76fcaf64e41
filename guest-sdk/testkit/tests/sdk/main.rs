//! What a policy sees through the SDK, what it can say, and what the kit makes of it.

mod deciding;
mod shared;
mod view;

use std::cell::RefCell;
use std::rc::Rc;

use sipbox_guest::{NoSettings, Policy, Request, Verdict};
use sipbox_testkit::{Call, Kit};

type Script = Rc<dyn Fn(&Request) -> Verdict>;

thread_local! {
    /// What the policy below does: a test puts its questions here.
    static SCRIPT: RefCell<Script> = RefCell::new(Rc::new(|_| Verdict::Next));
}

struct Scripted;

impl Policy for Scripted {
    type Settings = NoSettings;

    fn configure(NoSettings {}: NoSettings) -> Result<Self, String> {
        Ok(Self)
    }

    fn on_request(&self, request: &Request) -> Verdict {
        let script = SCRIPT.with_borrow(Rc::clone);
        script(request)
    }
}

fn asking(call: Call, script: impl Fn(&Request) -> Verdict + 'static) -> sipbox_testkit::Run {
    SCRIPT.set(Rc::new(script));
    Kit::<Scripted>::new("{}").on_request(call)
}

fn reading(call: Call, read: impl Fn(&Request) + 'static) {
    asking(call, move |request| {
        read(request);
        Verdict::Next
    })
    .assert_host_calls(&["view"]);
}
