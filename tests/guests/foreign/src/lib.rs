//! Imports an interface that no host of policies has.

wit_bindgen::generate!({
    path: "../../../wit",
    world: "sipbox:foreign/foreign",
    inline: "
        package sipbox:foreign;
        interface files { read: func(path: string) -> list<u8>; }
        world foreign {
            import files;
            export sipbox:policy/request-hook@0.1.0;
        }
    ",
    generate_all,
});

use exports::sipbox::policy::request_hook::Guest;
use sipbox::policy::types::Verdict;

struct Foreign;

impl Guest for Foreign {
    fn on_request() -> Verdict {
        if sipbox::foreign::files::read("/etc/passwd").is_empty() {
            Verdict::Drop
        } else {
            Verdict::Next
        }
    }
}

export!(Foreign);
