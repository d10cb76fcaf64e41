//! The tables that a file has once.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use super::will_not_do;
use crate::diagnostic::Diagnostic;
use crate::model::{
    Auth, Control, Dns, Durability, Limits, Log, LogFormat, RecordRoute, Store, Timers,
};
use crate::read::{Diagnostics, Table};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn timers(table: &mut Table<'_, '_>, out: &mut Diagnostics) -> Timers {
    let Some(mut table) = table.table("timers", "`[timers]`", out) else {
        return Timers::of(500 * MS);
    };
    let t1 = table
        .duration("t1", 10 * MS..=10 * SECOND, out)
        .unwrap_or(500 * MS);
    let default = Timers::of(t1);
    let mut timer = |key, default| table.duration(key, 10 * MS..=HOUR, out).unwrap_or(default);
    let timers = Timers {
        t1,
        t2: timer("t2", default.t2),
        t4: timer("t4", default.t4),
        b: timer("b", default.b),
        f: timer("f", default.f),
        c: timer("c", default.c),
    };
    if timers.t2 < timers.t1 {
        let expected = "expected at least T1: T2 is the longest interval between retransmissions";
        out.error(
            "`t2` of `[timers]` is shorter than `t1`",
            table.place("t2"),
            expected,
        );
    }
    if timers.c <= 180 * SECOND {
        let expected = "RFC 3261 section 16.6 asks for more; a phone that rings longer is cut off";
        let message = "timer C is not longer than three minutes";
        out.push(Diagnostic::warning(message, table.place("c"), expected));
    }
    table.finish(out);
    timers
}

impl Timers {
    /// The defaults of RFC 3261 that follow from T1.
    #[must_use]
    pub fn of(t1: Duration) -> Self {
        let long = 64 * t1;
        Self {
            t1,
            t2: 4 * SECOND,
            t4: 5 * SECOND,
            b: long,
            f: long,
            c: 185 * SECOND,
        }
    }
}

pub(super) fn limits(table: &mut Table<'_, '_>, out: &mut Diagnostics) -> Limits {
    let empty = DeTable::new();
    let mut table = table
        .table("limits", "`[limits]`", out)
        .unwrap_or_else(|| Table::new(&empty, "`[limits]`", 0..0));
    let size = |value: Option<u64>, default: usize| {
        value
            .and_then(|value| usize::try_from(value).ok())
            .unwrap_or(default)
    };
    let limits = Limits {
        transactions: transactions(&mut table, out),
        udp_max: size(table.number("udp_max", 0..=65_535, out), 1300),
        max_breadth: table
            .number("max_breadth", 1..=255, out)
            .and_then(|value| u8::try_from(value).ok())
            .unwrap_or(60),
        message_max: size(table.number("message_max", 1024..=16 << 20, out), 65_536),
        connections: size(table.number("connections", 1..=1_000_000, out), 16_384),
        connections_per_source: table
            .number("connections_per_source", 1..=1_000_000, out)
            .and_then(|value| u32::try_from(value).ok())
            .unwrap_or(1024),
        idle_timeout: table
            .duration("idle_timeout", SECOND..=DAY, out)
            .unwrap_or(900 * SECOND),
        message_timeout: table
            .duration("message_timeout", SECOND..=HOUR, out)
            .unwrap_or(10 * SECOND),
        connect_timeout: table
            .duration("connect_timeout", 10 * MS..=60 * SECOND, out)
            .unwrap_or(2 * SECOND),
        drain: table
            .duration("drain", Duration::ZERO..=HOUR, out)
            .unwrap_or(30 * SECOND),
    };
    table.finish(out);
    limits
}

/// What stands in `[limits]` and in `[tenant.limits]`.
pub(super) fn transactions(table: &mut Table<'_, '_>, out: &mut Diagnostics) -> Option<u32> {
    let found = table.number("transactions", 1..=1 << 30, out);
    found.and_then(|number| u32::try_from(number).ok())
}

pub(super) fn record_route(table: &mut Table<'_, '_>, out: &mut Diagnostics) -> RecordRoute {
    let empty = DeTable::new();
    let mut table = table
        .table("record_route", "`[record_route]`", out)
        .unwrap_or_else(|| Table::new(&empty, "`[record_route]`", 0..0));
    let user = "the user part of URIs that are not ours";
    let mut flag = |key, default| table.flag(key, out).unwrap_or(default);
    let record_route = RecordRoute {
        append_fromtag: flag("append_fromtag", true),
        enable_double_rr: flag("enable_double_rr", true),
        enable_full_lr: flag("enable_full_lr", false),
        add_username: flag("add_username", false),
        enable_socket_mismatch_warning: flag("enable_socket_mismatch_warning", true),
        sign: flag("sign", true),
        ignore_user: table
            .text("ignore_user", user, out)
            .map(|at| at.value.to_owned())
            .filter(|user| !user.is_empty()),
        signature_lifetime: table
            .duration("signature_lifetime", HOUR..=365 * DAY, out)
            .unwrap_or(12 * HOUR),
    };
    table.finish(out);
    record_route
}

pub(super) fn dns(table: &mut Table<'_, '_>, folder: &Path, out: &mut Diagnostics) -> Dns {
    const SERVER: &str = "an address with or without port, such as `192.0.2.53` or `[::1]:53`";
    let empty = DeTable::new();
    let mut table = table
        .table("dns", "`[dns]`", out)
        .unwrap_or_else(|| Table::new(&empty, "`[dns]`", 0..0));
    let mut servers = Vec::new();
    for text in table.texts("servers", SERVER, out) {
        match name_server(text.value) {
            Some(server) => servers.push(server),
            None => will_not_do(&text, SERVER, out),
        }
    }
    let hosts = table.text("hosts", "a path, or \"\" for none", out);
    let hosts = hosts.map_or("/etc/hosts", |at| at.value);
    let dns = Dns {
        servers,
        hosts: (!hosts.is_empty()).then(|| folder.join(hosts)),
        timeout: table
            .duration("timeout", 10 * MS..=60 * SECOND, out)
            .unwrap_or(2 * SECOND),
        attempts: table
            .number("attempts", 1..=10, out)
            .and_then(|value| usize::try_from(value).ok())
            .unwrap_or(2),
        deadline: table
            .duration("deadline", 10 * MS..=60 * SECOND, out)
            .unwrap_or(8 * SECOND),
        cache: table.number("cache", 0..=1_000_000, out).unwrap_or(10_000),
        max_ttl: table
            .duration("max_ttl", Duration::ZERO..=7 * DAY, out)
            .unwrap_or(HOUR),
        negative_ttl: table
            .duration("negative_ttl", Duration::ZERO..=HOUR, out)
            .unwrap_or(5 * SECOND),
    };
    if dns.deadline < dns.timeout {
        out.error(
            "`deadline` of `[dns]` is shorter than `timeout`",
            table.place("deadline"),
            "expected at least `timeout`, which is the time of one try",
        );
    }
    table.finish(out);
    dns
}

/// `192.0.2.53`, `192.0.2.53:5353`, `2001:db8::53`, `[2001:db8::53]:5353`
fn name_server(text: &str) -> Option<SocketAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let address = match bare.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::from((ip, 53)),
        Err(_) => text.parse().ok()?,
    };
    (address.port() != 0 && !address.ip().is_unspecified()).then_some(address)
}

pub(super) fn store(table: &mut Table<'_, '_>, folder: &Path, out: &mut Diagnostics) -> Store {
    const DURABILITY: &[(&str, Durability)] = &[
        ("commit", Durability::Commit),
        ("behind", Durability::Behind),
    ];
    let mut store = Store {
        path: folder.join("sipbox.sqlite"),
        key: folder.join("sipbox.key"),
        durability: Durability::Commit,
    };
    let Some(mut table) = table.table("store", "`[store]`", out) else {
        return store;
    };
    if let Some(path) = path(&mut table, "path", folder, out) {
        store.key = path.with_extension("key");
        store.path = path;
    }
    if let Some(key) = path(&mut table, "key", folder, out) {
        store.key = key;
    }
    if let Some(durability) = table.choice("durability", DURABILITY, out) {
        store.durability = durability.value;
    }
    table.finish(out);
    store
}

pub(super) fn control(table: &mut Table<'_, '_>, folder: &Path, out: &mut Diagnostics) -> Control {
    let mut control = Control {
        socket: folder.join("sipbox.sock"),
        socket_span: table.place("control"),
    };
    let Some(mut table) = table.table("control", "`[control]`", out) else {
        return control;
    };
    if let Some(path) = path(&mut table, "socket", folder, out) {
        control.socket = path;
    }
    control.socket_span = table.place("socket");
    table.finish(out);
    control
}

fn path(
    table: &mut Table<'_, '_>,
    key: &'static str,
    folder: &Path,
    out: &mut Diagnostics,
) -> Option<PathBuf> {
    let given = |text: &str| (!text.is_empty()).then(|| folder.join(text));
    table.parsed(key, "a path", out, given).map(|at| at.value)
}

pub(super) fn log(table: &mut Table<'_, '_>, out: &mut Diagnostics) -> Log {
    const FORMATS: &[(&str, LogFormat)] = &[("human", LogFormat::Human), ("json", LogFormat::Json)];
    let mut log = Log {
        format: LogFormat::Human,
        filter: "info".to_owned(),
    };
    let Some(mut table) = table.table("log", "`[log]`", out) else {
        return log;
    };
    if let Some(format) = table.choice("format", FORMATS, out) {
        log.format = format.value;
    }
    if let Some(filter) = table.text("filter", "a level, or `info,policy=debug`", out) {
        log.filter = filter.value.to_owned();
    }
    table.finish(out);
    log
}

pub(super) fn auth(table: &mut Table<'_, '_>, out: &mut Diagnostics) -> Auth {
    let empty = DeTable::new();
    let mut table = table
        .table("auth", "`[auth]`", out)
        .unwrap_or_else(|| Table::new(&empty, "`[auth]`", 0..0));
    let auth = Auth {
        nonce_lifetime: table
            .duration("nonce_lifetime", SECOND..=DAY, out)
            .unwrap_or(300 * SECOND),
        nonce_table: table
            .number("nonce_table", 16..=16 << 20, out)
            .and_then(|value| usize::try_from(value).ok())
            .unwrap_or(65_536),
        failures: table
            .number("failures", 1..=1000, out)
            .and_then(|value| u32::try_from(value).ok())
            .unwrap_or(5),
        failure_window: table
            .duration("failure_window", SECOND..=DAY, out)
            .unwrap_or(60 * SECOND),
    };
    table.finish(out);
    auth
}
