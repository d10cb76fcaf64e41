//! The example documents everything, and no text makes the reader stumble.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use crate::read::Diagnostics;
use crate::restart::AT_START;
use crate::{
    Component, Config, Diagnostic, EXAMPLE, Reading, Severity, needs_restart, render, sections,
};

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
fn what_holds_for_all_dialogs_has_opensips_names_and_defaults() {
    let default = parse(SHORTEST).unwrap().dialog;
    assert_eq!(default.default_timeout, Duration::from_secs(43_200));
    assert_eq!(default.dlg_match_mode, crate::MatchMode::DidFallback);
    let with = |lines: &str| parse(&format!("{SHORTEST}[dialog]\n{lines}\n"));
    let config = with(
        "default_timeout = \"2h\"\ndelete_delay = \"10s\"\n\
         options_ping_interval = \"1m\"\nrace_condition_timeout = \"8s\"\n\
         dlg_match_mode = \"did_only\"",
    );
    let dialog = config.unwrap().dialog;
    assert_eq!(dialog.default_timeout, Duration::from_secs(7200));
    assert_eq!(dialog.delete_delay, Duration::from_secs(10));
    assert_eq!(dialog.options_ping_interval, Duration::from_secs(60));
    assert_eq!(dialog.race_condition_timeout, Duration::from_secs(8));
    assert_eq!(dialog.dlg_match_mode, crate::MatchMode::DidOnly);
    for wrong in ["default_timeout = \"0s\"", "dlg_match_mode = \"by_call\""] {
        assert!(with(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn pings_have_opensips_names_and_nothing_is_pinged_by_default() {
    let quiet = parse(SHORTEST).unwrap().nathelper;
    assert_eq!(quiet.natping_interval, Duration::ZERO);
    assert!(quiet.ping_nated_only && !quiet.natping_tcp);
    let with = |lines: &str| parse(&format!("{SHORTEST}[nathelper]\n{lines}\n"));
    let config = with(
        "natping_interval = \"30s\"\nping_nated_only = false\nnatping_tcp = true\n\
         natping_datagram = \"stun\"\nsipping_method = \"INFO\"\n\
         sipping_from = \"sip:a@b\"\nsipping_ignore_rpl_codes = \"404, 501\"\n\
         ping_threshold = \"1s\"\nmax_pings_lost = 5",
    );
    let nathelper = config.unwrap().nathelper;
    assert_eq!(nathelper.natping_interval, Duration::from_secs(30));
    assert_eq!(nathelper.natping_datagram, crate::Datagram::Stun);
    assert_eq!(nathelper.sipping_ignore_rpl_codes, [404, 501]);
    assert_eq!(nathelper.max_pings_lost, 5);
    for wrong in [
        "natping_interval = \"500ms\"",
        "ping_nated_only = 1",
        "sipping_method = \"INVITE\"",
        "sipping_method = \"A B\"",
        "sipping_from = \"<sip:a@b>\"",
        "sipping_from = \"tel:1\"",
        "sipping_ignore_rpl_codes = \"4\"",
        "natping_socket = \"x\"",
    ] {
        assert!(with(wrong).is_err(), "{wrong}");
    }
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

/// Every setting is carried out by a reload, or a reload that changes it is refused.
#[test]
fn every_setting_reloads_or_needs_a_restart() {
    const RELOADED: &[(&str, &str)] = &[
        ("the configuration", "server"),
        ("the configuration", "aliases"),
        ("the configuration", "outbound_proxy"),
        ("`[limits]`", "transactions"),
        ("`[limits]`", "udp_max"),
        ("`[limits]`", "max_breadth"),
        ("`[limits]`", "drain"),
    ];
    let mut out = Diagnostics::default();
    sections::parse_into(EXAMPLE, Path::new(""), &mut out);
    let tables = [
        "limits",
        "dns",
        "store",
        "control",
        "log",
        "auth",
        "timers",
        "record_route",
        "dialog",
        "nathelper",
    ];
    let repeated = ["listener", "tenant", "route"];
    let once = |table: &str| {
        table == "the configuration" || tables.iter().any(|name| table == format!("`[{name}]`"))
    };
    for (table, key) in out.known.iter().filter(|(table, _)| once(table)) {
        let (table, key) = (table.as_str(), *key);
        let of_table = |name: Option<&str>| match name {
            Some(name) => table == format!("`[{name}]`"),
            None => table == "the configuration",
        };
        let at_start = AT_START.iter().any(|(t, k, _)| of_table(*t) && *k == key);
        let reloaded = RELOADED.contains(&(table, key))
            || matches!(
                table,
                "`[timers]`" | "`[record_route]`" | "`[dialog]`" | "`[nathelper]`"
            )
            || tables.contains(&key)
            || repeated.contains(&key);
        assert!(at_start != reloaded, "{key} of {table}");
    }
}

/// Every one that is changed is named where it stands, with what it was.
#[test]
fn what_needs_a_restart_is_named_at_its_place() {
    const CHANGES: &[(&str, &str)] = &[
        ("workers = 0", "workers = 3"),
        ("node = 0", "node = 1"),
        ("message_max = 65536", "message_max = 65537"),
        ("connections = 16384", "connections = 16385"),
        (
            "connections_per_source = 1024",
            "connections_per_source = 1025",
        ),
        ("idle_timeout = \"15m\"", "idle_timeout = \"16m\""),
        ("message_timeout = \"10s\"", "message_timeout = \"11s\""),
        ("connect_timeout = \"2s\"", "connect_timeout = \"3s\""),
        (
            "servers = [\"192.0.2.53\", \"[2001:db8::53]:53\"]",
            "servers = []",
        ),
        ("hosts = \"/etc/hosts\"", "hosts = \"\""),
        ("timeout = \"2s\"\n", "timeout = \"3s\"\n"),
        ("attempts = 2", "attempts = 3"),
        ("deadline = \"8s\"", "deadline = \"9s\""),
        ("cache = 10000", "cache = 10001"),
        ("max_ttl = \"1h\"", "max_ttl = \"2h\""),
        ("negative_ttl = \"5s\"", "negative_ttl = \"6s\""),
        ("path = \"sipbox.sqlite\"", "path = \"other.sqlite\""),
        ("key = \"sipbox.key\"", "key = \"other.key\""),
        ("durability = \"commit\"", "durability = \"behind\""),
        ("socket = \"sipbox.sock\"", "socket = \"other.sock\""),
        ("format = \"human\"", "format = \"json\""),
        ("filter = \"info\"", "filter = \"debug\""),
        ("nonce_lifetime = \"5m\"", "nonce_lifetime = \"6m\""),
        ("nonce_table = 65536", "nonce_table = 65537"),
        ("failures = 5", "failures = 6"),
        ("failure_window = \"1m\"", "failure_window = \"2m\""),
    ];
    assert_eq!(CHANGES.len(), AT_START.len());
    let started = parse(EXAMPLE).unwrap();
    for ((old, new), (table, key, _)) in CHANGES.iter().zip(AT_START) {
        let (old, new) = (format!("\n{old}"), format!("\n{new}"));
        let at = match table {
            Some(table) => EXAMPLE.find(&format!("\n[{table}]")).unwrap(),
            None => 0,
        };
        let at = at
            + EXAMPLE[at..]
                .find(&old)
                .unwrap_or_else(|| panic!("no {old}"));
        let mut text = EXAMPLE.to_owned();
        text.replace_range(at..at + old.len(), &new);
        let wanted = parse(&text).unwrap();
        let found = needs_restart((&started, EXAMPLE), (&wanted, &text), &[]);
        let shown = render(&found, "x.toml", &text, false);
        assert_eq!(found.len(), 1, "{key}: {shown}");
        let line = 1 + text[..=at].lines().count();
        let value = old.trim().split_once(" = ").unwrap().1;
        for part in [
            format!("`{key}`"),
            format!("x.toml:{line}:{}", key.len() + 4),
            format!("expected {value}, or a restart"),
        ] {
            assert!(shown.contains(&part), "{part}: {shown}");
        }
        // And back to the default, which is a change as well.
        let found = needs_restart((&wanted, &text), (&started, EXAMPLE), &[]);
        assert_eq!(found.len(), 1, "{key}");
    }
    assert!(needs_restart((&started, EXAMPLE), (&started, EXAMPLE), &[]).is_empty());
}

/// A setting that went is named at its table, or at the beginning; one that could not be
/// read is wrong, and not changed.
#[test]
fn a_setting_that_went_or_is_wrong() {
    let before = format!("workers = 5\n{SHORTEST}[auth]\nfailures = 7\n");
    let started = parse(&before).unwrap();
    let after = format!("{SHORTEST}[auth]\n");
    let wanted = parse(&after).unwrap();
    let found = needs_restart((&started, &before), (&wanted, &after), &[]);
    let shown = render(&found, "x.toml", &after, false);
    assert_eq!(found.len(), 2, "{shown}");
    assert!(shown.contains("x.toml:1:1"), "{shown}");
    assert!(shown.contains("x.toml:4:1"), "{shown}");
    assert!(shown.contains("expected 7, or a restart"), "{shown}");

    let after = format!("workers = \"5\"\nnode = 3\n{SHORTEST}[auth]\nfialures = 7\n");
    let reading = Reading::new(&after, Path::new("/etc/sipbox"));
    let wanted = reading.config.unwrap();
    let found = needs_restart((&started, &before), (&wanted, &after), &reading.found);
    let shown = render(&found, "x.toml", &after, false);
    assert_eq!(found.len(), 1, "{shown}");
    assert!(shown.contains("`node` cannot change"), "{shown}");
    assert!(shown.contains("expected its default"), "{shown}");
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
