//! Uses the WASI functions that language runtimes link, and tells in its reply
//! what they answered. The Request-URI chooses: `exit`, `poll`, or everything.

wit_bindgen::generate!({
    path: ["../../../wit", "wit"],
    world: "sipbox:wasi-guest/wasi-guest",
    generate_all,
});

use exports::sipbox::policy::request_hook::Guest;
use sipbox::policy::message;
use sipbox::policy::types::{Header, Reply, Verdict};
use wasi::cli::{environment, exit, stderr, stdin, stdout, terminal_stdout};
use wasi::clocks::{monotonic_clock, wall_clock};
use wasi::filesystem::preopens;
use wasi::io::poll;
use wasi::random::{insecure_seed, random};

struct Wasi;

impl Guest for Wasi {
    fn on_request() -> Verdict {
        let uri = message::request_uri();
        if uri.contains("exit") {
            exit::exit(Err(()));
        }
        if uri.contains("poll") {
            let later = monotonic_clock::subscribe_instant(monotonic_clock::now() + 1);
            poll::poll(&[&later]);
        }
        let mut headers = Vec::new();
        let mut tell = |name: &str, value: String| {
            headers.push(Header {
                name: format!("X-{name}"),
                value,
            });
        };
        let nothing = (
            environment::get_environment().len(),
            environment::get_arguments().len(),
            environment::initial_cwd().is_some(),
            terminal_stdout::get_terminal_stdout().is_some(),
            preopens::get_directories()
                .iter()
                .filter(|(directory, _)| directory.metadata_hash().is_ok())
                .count(),
            stdin::get_stdin().blocking_read(10).is_ok(),
        );
        tell("Nothing", format!("{nothing:?}"));

        let out = stdout::get_stdout();
        out.subscribe().block();
        let err = stderr::get_stderr();
        let _ = out.write(b"hello\nwor");
        let _ = err.write(b"careful");
        let _ = out.write(b"ld\n");
        tell(
            "Written",
            format!(
                "{}",
                out.check_write().is_ok() && out.blocking_flush().is_ok()
            ),
        );

        let now = wall_clock::now();
        tell("Wall", format!("{}.{:09}", now.seconds, now.nanoseconds));
        tell("Monotonic", monotonic_clock::now().to_string());
        tell("Random", format!("{}", random::get_random_u64()));
        tell("Bytes", format!("{:?}", random::get_random_bytes(40)));
        tell("Seed", format!("{:?}", insecure_seed::insecure_seed()));
        Verdict::Reply(Reply {
            status: 200,
            reason: String::new(),
            headers,
            body: None,
            options: Vec::new(),
        })
    }
}

export!(Wasi);
