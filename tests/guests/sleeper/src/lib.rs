//! Sleeps a minute through `wasi:io/poll`, where epochs cannot reach it.

wit_bindgen::generate!({
    path: ["../../../wit", "wit"],
    world: "sipbox:sleeper/sleeper",
    generate_all,
});

use exports::sipbox::policy::request_hook::Guest;
use sipbox::policy::types::Verdict;

struct Sleeper;

impl Guest for Sleeper {
    fn on_request() -> Verdict {
        wasi::clocks::monotonic_clock::subscribe_duration(60_000_000_000).block();
        Verdict::Drop
    }
}

export!(Sleeper);
