//! `sipbox check` and a reload: everything that is wrong, at once. The text is
//! that of `golden/check.txt`. After a change on purpose: run with `UPDATE=1`, and
//! look at the difference.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::path::{Path, PathBuf};

use serde_json::json;
use sipbox_tests::program::workspace;
use sipbox_tests::sipbox::cli;
use sipbox_tests::{Loopback, Setup, guest, process};

fn golden(name: &str) -> PathBuf {
    workspace().join("tests/golden").join(name)
}

/// The components that `golden/check.toml` names.
fn components(folder: &Path) {
    let guests = folder.join("guests");
    std::fs::create_dir_all(&guests).unwrap();
    std::fs::copy(guest::hostile(), guests.join("hostile.wasm")).unwrap();
    std::fs::copy(guest::foreign(), guests.join("foreign.wasm")).unwrap();
    std::fs::write(guests.join("text.wasm"), "no component\n").unwrap();
    std::fs::write(guests.join("core.wasm"), b"\0asm\x01\0\0\0").unwrap();
}

#[test]
fn check_says_everything_at_once() {
    let folder = process::folder();
    components(folder.path());
    std::fs::copy(golden("check.toml"), folder.path().join("sipbox.toml")).unwrap();
    let output = cli(folder.path(), &["check"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    let shown = String::from_utf8(output.stderr).unwrap();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(golden("check.txt"), &shown).unwrap();
    }
    let expected = std::fs::read_to_string(golden("check.txt")).unwrap_or_default();
    assert!(shown == expected, "not as in golden/check.txt:\n{shown}");

    // `run` says the same before anything is started.
    let output = cli(folder.path(), &["run", "-c", "sipbox.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
}

/// A reload says what `check` says, and that listeners do not move; so does the
/// client, which asks the running program although the file has mistakes.
#[test]
fn a_reload_says_everything_at_once() {
    let net = Loopback::new();
    let mut setup = Setup::residential(&net, "");
    let sipbox = setup.start();
    let before = sipbox.rpc("ul_dump", &json!({}));
    components(&sipbox.file(""));
    setup.replace_tenants(
        "[[tenant]]\nname = \"home\"\ndomains = [\"lab.test\"]\ngrants = [\"auth\"]\n\
         [[tenant.policy]]\nbuiltin = \"residential\"\nsettings = { atuh = \"all\" }\n\
         [[tenant.policy]]\ncomponent = \"guests/hostle.wasm\"\n",
    );
    let setup = setup.with("[limits]\nudp_mx = 5\n");
    let text = setup.toml().replacen(
        &format!("address = \"{}\"", setup.address()),
        "address = \"127.0.0.1:1\"",
        1,
    );
    std::fs::write(sipbox.file("sipbox.toml"), text).unwrap();

    let rpc = sipbox.try_rpc("reload", &json!({})).unwrap_err();
    let rpc = rpc["message"].as_str().unwrap_or_default().to_owned();
    let client = sipbox.cli(&["ctl", "-c", "sipbox.toml", "reload"]);
    assert!(!client.status.success());
    let client = String::from_utf8(client.stderr).unwrap();
    for said in [rpc, client] {
        for part in [
            "listener `udp` cannot move by a reload",
            "imports `sipbox:policy/location@0.1.0",
            "grants = [\"auth\", \"dialogs\", \"leases\", \"location\", \"nat\"]",
            "settings refused",
            "did you mean `hostile.wasm`?",
            "did you mean `udp_max`?",
        ] {
            assert!(said.contains(part), "{part}:\n{said}");
        }
    }
    assert_eq!(sipbox.rpc("ul_dump", &json!({})), before);
}

/// What only a start can change: a reload that would change it, beside something that
/// it could carry out, says so and does nothing.
#[test]
fn a_reload_refuses_what_needs_a_restart() {
    let net = Loopback::new();
    let setup = Setup::residential(&net, "").with(
        "[limits]\nmessage_max = 65536\ndrain = \"30s\"\n[auth]\nfailures = 5\n[dns]\nattempts = 2\n",
    );
    let sipbox = setup.start();
    let good = setup.toml();
    let reload = || sipbox.try_rpc("reload", &json!({}));
    for (before, after, named, column) in [
        ("sipbox.sqlite", "other.sqlite", "`path` of `[store]`", 8),
        ("sipbox.sock", "other.sock", "`socket` of `[control]`", 10),
        ("\"info\"", "\"debug\"", "`filter` of `[log]`", 10),
        ("failures = 5", "failures = 6", "`failures` of `[auth]`", 12),
        ("attempts = 2", "attempts = 3", "`attempts` of `[dns]`", 12),
        (
            "message_max = 65536",
            "message_max = 65535",
            "`message_max` of `[limits]`",
            15,
        ),
        (
            "[[listener]]\nname = \"udp\"",
            "node = 7\n[[listener]]\nname = \"udp\"",
            "`node`",
            8,
        ),
        (
            "[[listener]]\nname = \"udp\"",
            "workers = 2\n[[listener]]\nname = \"udp\"",
            "`workers`",
            11,
        ),
    ] {
        let text = good.replacen(before, after, 1);
        assert_ne!(text, good);
        let same = good.lines().zip(text.lines()).take_while(|(a, b)| a == b);
        let line = 1 + same.count();
        // A change that a reload could carry out does not get through either.
        let text = text.replacen("\"lab.test\"]", "\"lab.test\", \"more.test\"]", 1);
        std::fs::write(sipbox.file("sipbox.toml"), &text).unwrap();
        let said = reload().expect_err(named);
        let said = said["message"].as_str().unwrap_or_default();
        for part in [
            format!("{named} cannot change by a reload"),
            format!("sipbox.toml:{line}:{column}"),
            "or a restart".to_owned(),
        ] {
            assert!(said.contains(&part), "{part}:\n{said}");
        }
        let add = json!({"table_name": "location", "aor": "bob@more.test", "contact": "sip:b@c"});
        assert!(sipbox.try_rpc("ul_add", &add).is_err());
    }
    // What may change does, the time of a stop included.
    let text = good.replacen("\"30s\"", "\"29s\"", 1);
    std::fs::write(sipbox.file("sipbox.toml"), &text).unwrap();
    reload().unwrap();
}

/// Warnings are for those who check, start or reload, not for every client.
#[test]
fn clients_repeat_no_warning() {
    let net = Loopback::new();
    let setup = Setup::residential(&net, "")
        .user("bob@lab.test", "secret")
        .with("[timers]\nc = \"3m\"\n");
    let sipbox = setup.start();
    let warning = "timer C is not longer than three minutes";
    let _ = sipbox.logged(warning);
    for words in [
        &["ctl", "which"][..],
        &["user", "list"],
        &["location", "list"],
    ] {
        let mut words = words.to_vec();
        words.extend(["-c", "sipbox.toml"]);
        let output = sipbox.cli(&words);
        assert!(output.status.success());
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{words:?}");
    }
    let check = sipbox.cli(&["check"]);
    assert!(check.status.success());
    assert!(String::from_utf8_lossy(&check.stderr).contains(warning));
}
