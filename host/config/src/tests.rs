//! The example documents everything, and no text makes the reader stumble.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use crate::read::Diagnostics;
use crate::{Component, Config, Diagnostic, EXAMPLE, Reading, Severity, render, sections};

/// As short as a file can be.
const SHORTEST: &str = "[[listener]]\nname = \"udp\"\naddress = \"127.0.0.1:5060\"\n";

fn parse(text: &str) -> Result<Config, Vec<Diagnostic>> {
    Config::parse(text, Path::new("/etc/sipbox"))
}

#[test]
fn the_example_parses_without_a_warning() {
    let found = Reading::new(EXAMPLE, Path::new("")).found;
    assert!(
        found.is_empty(),
        "{}",
        render(&found, "sipbox.toml", EXAMPLE, false)
    );
}

/// Every key that the reader asks for stands in the example, be it in a comment.
#[test]
fn the_example_names_every_setting() {
    let mut out = Diagnostics::default();
    sections::parse_into(EXAMPLE, Path::new(""), &mut out);
    assert!(out.known.len() > 60, "{} settings", out.known.len());
    let missing: Vec<_> = out
        .known
        .iter()
        .filter(|(_, key)| {
            let heads = [format!("{key} = "), format!("[{key}]"), format!(".{key}]")];
            !EXAMPLE.lines().any(|line| {
                let bare = line.trim_start_matches(['#', ' ', '.']);
                heads.iter().any(|head| {
                    bare.starts_with(head)
                        || bare.contains(&format!(" {head}"))
                        || line.contains(head)
                })
            })
        })
        .collect();
    assert!(missing.is_empty(), "not in the example: {missing:?}");
}

/// What the example calls defaults are the defaults: the tables that have some
/// read the same with and without it.
#[test]
fn the_example_shows_the_defaults() {
    let example = parse(EXAMPLE).unwrap();
    let default = parse(SHORTEST).unwrap();
    assert_eq!(example.workers, default.workers);
    assert_eq!(example.node, default.node);
    assert_eq!(example.server, default.server);
    assert_eq!(example.timers, default.timers);
    assert_eq!(example.limits, default.limits);
    let dns = crate::Dns {
        servers: Vec::new(),
        ..example.dns
    };
    assert_eq!(dns, default.dns);
    assert_eq!(example.store, default.store);
    assert_eq!(example.control.socket, default.control.socket);
    assert_eq!(example.log, default.log);
    assert_eq!(example.auth, default.auth);
    let limits = example.tenants[0].limits;
    assert_eq!(limits, crate::PolicyLimits::default());
}

#[test]
fn paths_start_at_the_folder_of_the_file() {
    let text = format!(
        "{SHORTEST}[store]\npath = \"db/x\"\n[control]\nsocket = \"/run/x.sock\"\n\
         [[tenant]]\nname = \"t\"\n[[tenant.policy]]\ncomponent = \"p/mine.wasm\"\n"
    );
    let config = parse(&text).unwrap();
    assert_eq!(config.store.path, Path::new("/etc/sipbox/db/x"));
    assert_eq!(config.control.socket, Path::new("/run/x.sock"));
    let policy = &config.tenants[0].policies[0];
    assert_eq!(policy.name, "mine");
    assert_eq!(
        policy.component,
        Component::File("/etc/sipbox/p/mine.wasm".into())
    );
    assert_eq!(&text[policy.component_span.clone()], "\"p/mine.wasm\"");
}

#[test]
fn name_servers_have_a_port_or_not() {
    let servers = r#""192.0.2.53", "192.0.2.53:5353", "2001:db8::53", "[::1]", "[::1]:5353""#;
    let text = format!("{SHORTEST}[dns]\nservers = [{servers}]\nhosts = \"names\"\n");
    let dns = parse(&text).unwrap().dns;
    let shown: Vec<_> = dns.servers.iter().map(ToString::to_string).collect();
    let expected = [
        "192.0.2.53:53",
        "192.0.2.53:5353",
        "[2001:db8::53]:53",
        "[::1]:53",
        "[::1]:5353",
    ];
    assert_eq!(shown, expected);
    assert_eq!(dns.hosts.as_deref(), Some(Path::new("/etc/sipbox/names")));
    let none = parse(&format!("{SHORTEST}[dns]\nhosts = \"\"\n")).unwrap();
    assert_eq!(none.dns.hosts, None);
}

#[test]
fn settings_become_json() {
    let text = format!(
        "{SHORTEST}[[tenant]]\nname = \"t\"\n[[tenant.policy]]\nbuiltin = \"residential\"\n\
         [tenant.policy.settings]\na = 0x10\nb = [1.5, true, \"x\"]\nc = {{ d = -1 }}\n"
    );
    let settings = &parse(&text).unwrap().tenants[0].policies[0].settings;
    assert_eq!(
        settings.to_string(),
        r#"{"a":16,"b":[1.5,true,"x"],"c":{"d":-1}}"#
    );
}

#[test]
fn timers_b_and_f_follow_t1() {
    let config = parse(&format!("{SHORTEST}[timers]\nt1 = \"100ms\"\nf = \"1s\"\n")).unwrap();
    assert_eq!(config.timers.b, Duration::from_millis(6400));
    assert_eq!(config.timers.f, Duration::from_secs(1));
}

#[test]
fn a_warning_alone_refuses_nothing() {
    let text = format!("{SHORTEST}[timers]\nc = \"3m\"\n");
    let config = parse(&text).unwrap();
    assert_eq!(config.timers.c, Duration::from_secs(180));
    let found = Reading::new(&text, Path::new("")).found;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].severity, Severity::Warning);
}

/// Who looks at the components finds those of a file with mistakes too, with the
/// grants that were meant.
#[test]
fn what_is_right_is_read_beside_what_is_wrong() {
    let text = format!(
        "{SHORTEST}tenant = \"a b\"\nworkers = 5\n\
         [[tenant]]\nname = \"a b\"\ngrants = [\"auht\", \"location\"]\n\
         [[tenant.policy]]\ncomponent = \"x.wasm\"\nsettings = 5\n\
         [[tenant]]\n[[tenant.policy]]\nname = \"p\"\ncomponent = \"y.wasm\"\n\
         [[tenant.policy]]\nname = \"p\"\ncomponent = \"z.wasm\"\n"
    );
    let reading = Reading::new(&text, Path::new(""));
    let shown = render(&reading.found, "x.toml", &text, false);
    assert_eq!(reading.found.len(), 6, "{shown}");
    assert!(reading.found.iter().all(Diagnostic::is_error), "{shown}");
    let config = reading.config.unwrap();
    assert_eq!(config.listeners[0].tenant, Some(0));
    assert_eq!(config.tenants[0].grants, ["auth", "location"]);
    let components = config.tenants.iter().flat_map(|tenant| &tenant.policies);
    let components: Vec<_> = components.map(|policy| &policy.component).collect();
    let file = |name: &str| Component::File(name.into());
    assert_eq!(
        components,
        [&file("x.wasm"), &file("y.wasm"), &file("z.wasm")]
    );
}

fn stumbles_over_nothing(text: &str) {
    let reading = Reading::new(text, Path::new("/etc/sipbox"));
    let right = reading.config.is_some() && !reading.found.iter().any(Diagnostic::is_error);
    assert_eq!(parse(text).is_ok(), right);
    assert!(right || !reading.found.is_empty());
    let found = reading.found;
    for diagnostic in &found {
        assert!(!diagnostic.message.is_empty());
        let shown = render(std::slice::from_ref(diagnostic), "x.toml", text, false);
        assert!(shown.contains("x.toml:"), "{shown}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(text in "\\PC{0,200}") {
        stumbles_over_nothing(&text);
    }

    #[test]
    fn a_damaged_example_is_read_without_a_panic(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..40usize, "[\\[\\]=\"{}0-9a-zé\n]{0,6}"), 1..4),
    ) {
        let mut text = EXAMPLE.to_owned();
        for (at, length, instead) in cuts {
            let start = text.floor_char_boundary(at.index(text.len().max(1)));
            let end = text.ceil_char_boundary((start + length).min(text.len()));
            text.replace_range(start..end, &instead);
        }
        stumbles_over_nothing(&text);
    }
}
