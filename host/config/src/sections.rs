//! The sections of the file: what each may hold, and what must fit together.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sipbox_sip::{Method, Transport};
use toml::Spanned;
use toml::de::DeTable;

use crate::diagnostic::{Diagnostic, Severity};
use crate::model::{
    Auth, Component, Config, Control, Durability, HostPort, Limits, Listener, Log, LogFormat,
    Policy, PolicyLimits, Route, Span, Store, Tenant, Timers,
};
use crate::read::{At, Diagnostics, Table, one_of, suggest};
use crate::syntax::{TRANSPORTS, hop, host, host_port, json};

/// Capabilities that can be granted.
const GRANTS: &[&str] = &["auth", "location"];
const BUILTINS: &[(&str, ())] = &[("residential", ())];

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

impl Config {
    /// Reads and checks a configuration. Relative paths in it start at `folder`.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, Vec<Diagnostic>> {
        let mut out = Diagnostics::default();
        let config = parse_into(text, folder, &mut out);
        out.found.sort_by_key(|diagnostic| diagnostic.span.start);
        match config {
            Some(config) if out.found.iter().all(|d| d.severity == Severity::Warning) => Ok(Self {
                warnings: out.found,
                ..config
            }),
            _ => Err(out.found),
        }
    }
}

/// Reads what can be read; nothing comes of a text that is no TOML.
pub(crate) fn parse_into(text: &str, folder: &Path, out: &mut Diagnostics) -> Option<Config> {
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let span = error.span().unwrap_or(0..0);
        out.error(
            error.message().trim_end().to_owned(),
            span,
            "this is no TOML",
        );
    }
    errors.is_empty().then(|| read(&root, folder, out))
}

fn read(root: &Spanned<DeTable<'_>>, folder: &Path, out: &mut Diagnostics) -> Config {
    let mut table = Table::new(root.get_ref(), "the configuration", 0..0);
    let workers = table.number("workers", 0..=64, out).unwrap_or(0);
    let server = table.text("server", "the Server header", out);
    let server = server.map_or_else(|| "Sipbox".to_owned(), |at| at.value.to_owned());
    let aliases = aliases(&mut table, out);
    let outbound_proxy = table
        .parsed("outbound_proxy", HOP, out, hop)
        .map(|at| at.value);
    let tenants = tenants(&mut table, folder, out);
    let listeners = listeners(&mut table, &tenants, out);
    let routes = routes(&mut table, out);
    let config = Config {
        workers: usize::try_from(workers).unwrap_or(0),
        server,
        aliases,
        outbound_proxy,
        listeners,
        tenants: tenants.into_iter().map(|(tenant, _)| tenant).collect(),
        routes,
        timers: timers(&mut table, out),
        limits: limits(&mut table, out),
        store: store(&mut table, folder, out),
        control: control(&mut table, folder, out),
        log: log(&mut table, out),
        auth: auth(&mut table, out),
        warnings: Vec::new(),
    };
    table.finish(out);
    config
}

const HOST_PORT: &str = "`host` or `host:port`, IPv6 in brackets";
const HOP: &str = "`host`, `host:port` or `host:port;transport=tcp`, IPv6 in brackets";

fn aliases(table: &mut Table<'_, '_>, out: &mut Diagnostics) -> Vec<HostPort> {
    let mut aliases = Vec::new();
    for text in table.texts("aliases", HOST_PORT, out) {
        match host_port(text.value) {
            Some(alias) => aliases.push(alias),
            None => will_not_do(&text, HOST_PORT, out),
        }
    }
    aliases
}

fn will_not_do(text: &At<&str>, expected: &str, out: &mut Diagnostics) {
    let message = format!("`{}` will not do", text.value);
    out.error(message, text.span.clone(), &format!("expected {expected}"));
}

fn listeners(
    table: &mut Table<'_, '_>,
    tenants: &[(Tenant, Span)],
    out: &mut Diagnostics,
) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = Vec::new();
    let tables = table.tables("listener", "a listener", out);
    if tables.is_empty() {
        let help =
            "[[listener]]\nname = \"udp\"\ntransport = \"udp\"\naddress = \"192.0.2.1:5060\"";
        out.push(
            Diagnostic::error(
                "there is no listener",
                table.span(),
                "expected at least one `[[listener]]`",
            )
            .help(help),
        );
    }
    for mut table in tables {
        const ADDRESS: &str = "an address with port, such as `0.0.0.0:5060` or `[::1]:5060`";
        let name = table.required_text("name", "its name in logs and commands", out);
        let transport = table.choice("transport", TRANSPORTS, out);
        let address = match table.required_text("address", ADDRESS, out) {
            Some(_) => table.parsed("address", ADDRESS, out, |text| {
                text.parse::<SocketAddr>().ok()
            }),
            None => None,
        };
        let advertised = table.parsed("advertised", HOST_PORT, out, host_port);
        let tenant = table.text("tenant", "a tenant's name", out);
        let stateless = methods(&mut table, out);
        let span = table.span();
        table.finish(out);
        let tenant = tenant.and_then(|text| {
            let names: Vec<&str> = tenants.iter().map(|(t, _)| t.name.as_str()).collect();
            let found = names.iter().position(|name| *name == text.value);
            if found.is_none() {
                let message = format!("there is no tenant `{}`", text.value);
                let expected = format!("expected {}", one_of(&names));
                out.push(suggest(
                    Diagnostic::error(message, text.span, expected),
                    text.value,
                    &names,
                ));
            }
            found
        });
        let (Some(name), Some(address)) = (name, address) else {
            continue;
        };
        if listeners.iter().any(|other| other.name == name.value) {
            let message = format!("two listeners are called `{}`", name.value);
            out.error(message, name.span, "expected another name");
            continue;
        }
        let transport = transport.map_or(Transport::Udp, |at| at.value);
        let taken =
            |other: &Listener| other.transport == transport && other.address == address.value;
        if address.value.port() != 0 && listeners.iter().any(taken) {
            let message = format!("two listeners have the address {}", address.value);
            out.error(
                message,
                address.span,
                "expected another address or transport",
            );
            continue;
        }
        if address.value.ip().is_unspecified() && advertised.is_none() {
            out.push(
                Diagnostic::error(
                    format!(
                        "listener `{}` is bound to every address and advertises none",
                        name.value
                    ),
                    span,
                    "expected `advertised = \"host\"`: what Via and Record-Route say",
                )
                .help("peers send their answers to the advertised address"),
            );
            continue;
        }
        listeners.push(Listener {
            name: name.value.to_owned(),
            transport,
            address: address.value,
            advertised: advertised.map(|at| at.value),
            tenant,
            stateless,
        });
    }
    listeners
}

fn methods(table: &mut Table<'_, '_>, out: &mut Diagnostics) -> Vec<Method> {
    const EXPECTED: &str =
        "a method that can be forwarded without a transaction, such as `MESSAGE`";
    let mut methods = Vec::new();
    for text in table.texts("stateless", EXPECTED, out) {
        match Method::from_token(text.value.as_bytes()) {
            // RFC 3261 16.11: a CANCEL or ACK follows its INVITE, and a call without
            // transactions cannot be cancelled, billed or failed over.
            Method::Invite | Method::Ack | Method::Cancel | Method::Register | Method::Other => {
                let message = format!("`{}` will not do", text.value);
                let diagnostic =
                    Diagnostic::error(message, text.span, format!("expected {EXPECTED}"));
                // Methods are case-sensitive (RFC 3261 section 7.1).
                let known: Vec<_> = Method::ALL.iter().map(|method| method.token()).collect();
                let mistyped = !known.contains(&text.value);
                out.push(if mistyped {
                    suggest(diagnostic, text.value, &known)
                } else {
                    diagnostic
                });
            }
            method => methods.push(method),
        }
    }
    methods
}

fn tenants(table: &mut Table<'_, '_>, folder: &Path, out: &mut Diagnostics) -> Vec<(Tenant, Span)> {
    let mut tenants: Vec<(Tenant, Span)> = Vec::new();
    let mut owners: HashMap<String, String> = HashMap::new();
    for mut table in table.tables("tenant", "a tenant", out) {
        let name = table.required_text("name", "its name in logs and commands", out);
        let domains = table.texts("domains", "a domain", out);
        let grants = grants(&mut table, out);
        let stateless = methods(&mut table, out);
        let limits = match table.table("limits", "the tenant's limits", out) {
            Some(limits) => policy_limits(limits, out),
            None => PolicyLimits::default(),
        };
        let mut policies: Vec<Policy> = Vec::new();
        for table in table.tables("policy", "a policy", out) {
            let Some((policy, span)) = policy(table, folder, out) else {
                continue;
            };
            if policies.iter().any(|other| other.name == policy.name) {
                let message = format!("two policies of the tenant are called `{}`", policy.name);
                out.error(
                    message,
                    span,
                    "expected another `name`, for logs and statistics",
                );
                continue;
            }
            policies.push(policy);
        }
        let span = table.span();
        table.finish(out);
        let Some(name) = name else { continue };
        if name.value.is_empty()
            || !name
                .value
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            // It stands in Record-Route parameters, log fields and metrics.
            will_not_do(&name, "letters, digits, `-`, `_` and `.`", out);
            continue;
        }
        if tenants.iter().any(|(other, _)| other.name == name.value) {
            let message = format!("two tenants are called `{}`", name.value);
            out.error(message, name.span, "expected another name");
            continue;
        }
        let mut own = Vec::new();
        for domain in domains {
            let Some(lower) = host(domain.value) else {
                will_not_do(&domain, "a host name or address, without a port", out);
                continue;
            };
            match owners.insert(lower.clone(), name.value.to_owned()) {
                Some(owner) => {
                    let message = format!("`{lower}` is already a domain of tenant `{owner}`");
                    out.error(message, domain.span, "expected a domain that no tenant has");
                }
                None => own.push(lower),
            }
        }
        if policies.is_empty() {
            let message = format!("tenant `{}` has no policy", name.value);
            let expected = "every initial request will be answered 404";
            out.push(
                Diagnostic::warning(message, span.clone(), expected)
                    .help("[[tenant.policy]]\nbuiltin = \"residential\""),
            );
        }
        let tenant = Tenant {
            name: name.value.to_owned(),
            domains: own,
            grants,
            stateless,
            limits,
            policies,
        };
        tenants.push((tenant, span));
    }
    tenants
}

fn grants(table: &mut Table<'_, '_>, out: &mut Diagnostics) -> Vec<String> {
    let mut grants = Vec::new();
    for text in table.texts("grants", &one_of(GRANTS), out) {
        if GRANTS.contains(&text.value) {
            grants.push(text.value.to_owned());
        } else {
            let message = format!("there is no capability `{}`", text.value);
            let expected = format!("expected {}", one_of(GRANTS));
            out.push(suggest(
                Diagnostic::error(message, text.span, expected),
                text.value,
                GRANTS,
            ));
        }
    }
    grants
}

/// A policy, and where its name stands or comes from.
fn policy(
    mut table: Table<'_, '_>,
    folder: &Path,
    out: &mut Diagnostics,
) -> Option<(Policy, Span)> {
    let name = table.text("name", "its name in logs", out);
    let builtin = table.choice("builtin", BUILTINS, out);
    let component = table.text("component", "the path of a .wasm component", out);
    let settings = table.get("settings");
    let has_builtin = table.get("builtin").is_some();
    let span = table.span();
    table.finish(out);
    let (component, component_span, default_name) = match (builtin, component) {
        (Some(builtin), None) => (
            Component::Residential,
            builtin.span,
            "residential".to_owned(),
        ),
        (None, Some(path)) => {
            let stem = Path::new(path.value).file_stem().unwrap_or_default();
            let stem = stem.to_string_lossy().into_owned();
            (Component::File(folder.join(path.value)), path.span, stem)
        }
        (Some(_), Some(path)) => {
            out.error(
                "a policy is `builtin` or a `component`",
                path.span,
                "expected only one of both",
            );
            return None;
        }
        // What is wrong with `builtin` was said.
        (None, None) if has_builtin => return None,
        (None, None) => {
            let expected = "expected `builtin = \"residential\"` or `component = \"path.wasm\"`";
            out.error("the policy names no component", span, expected);
            return None;
        }
    };
    let settings_span = settings.map_or_else(|| component_span.clone(), Spanned::span);
    let settings = match settings {
        None => serde_json::json!({}),
        Some(value) if value.get_ref().is_table() => match json(value) {
            Ok(json) => json,
            Err(diagnostic) => {
                out.push(diagnostic);
                return None;
            }
        },
        Some(value) => {
            out.error(
                "`settings` is no table",
                value.span(),
                "expected `settings = { … }`",
            );
            return None;
        }
    };
    let (name, name_span) = match name {
        Some(name) => (name.value.to_owned(), name.span),
        None => (default_name, component_span.clone()),
    };
    if name.is_empty() || component == Component::File(folder.to_path_buf()) {
        out.error(
            "an empty name will not do",
            name_span,
            "expected at least one character",
        );
        return None;
    }
    Some((
        Policy {
            name,
            component,
            settings,
            component_span,
            settings_span,
        },
        name_span,
    ))
}

fn policy_limits(mut table: Table<'_, '_>, out: &mut Diagnostics) -> PolicyLimits {
    let default = PolicyLimits::default();
    let mut small = |key, max: u32, default: u32, out: &mut Diagnostics| {
        let found = table.number(key, 1..=u64::from(max), out);
        found
            .and_then(|number| u32::try_from(number).ok())
            .unwrap_or(default)
    };
    let memory_mib = small("memory_mib", 1024, default.memory_mib, out);
    let host_calls = small("host_calls", 1_000_000, default.host_calls, out);
    let edits = small("edits", 10_000, default.edits, out);
    let edit_bytes = small("edit_bytes", 1 << 20, default.edit_bytes, out);
    let output_bytes = small("output_bytes", 1 << 20, default.output_bytes, out);
    let log_bytes = small("log_bytes", 1 << 20, default.log_bytes, out);
    let limits = PolicyLimits {
        // Calls below two ticks of a millisecond are not measured.
        cpu: table
            .duration("cpu", 2 * MS..=SECOND, out)
            .unwrap_or(default.cpu),
        wall: table
            .duration("wall", MS..=30 * SECOND, out)
            .unwrap_or(default.wall),
        cpu_budget: table.duration("cpu_budget", 10 * MS..=64 * SECOND, out),
        memory_mib,
        host_calls,
        edits,
        edit_bytes,
        output_bytes,
        log_bytes,
    };
    table.finish(out);
    limits
}

fn routes(table: &mut Table<'_, '_>, out: &mut Diagnostics) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    for mut table in table.tables("route", "a route", out) {
        let domain = table.required_text("domain", "the domain whose next hop is settled", out);
        let next_hop = match table.required_text("next_hop", HOP, out) {
            Some(_) => table.parsed("next_hop", HOP, out, hop),
            None => None,
        };
        table.finish(out);
        if let (Some(domain), Some(next_hop)) = (domain, next_hop) {
            match host(domain.value) {
                None => will_not_do(&domain, "a host name or address, without a port", out),
                Some(name) if routes.iter().any(|other| other.domain == name) => {
                    let message = format!("two routes for `{name}`");
                    out.error(message, domain.span, "expected a domain without a route");
                }
                Some(domain) => routes.push(Route {
                    domain,
                    next_hop: next_hop.value,
                }),
            }
        }
    }
    routes
}

fn timers(table: &mut Table<'_, '_>, out: &mut Diagnostics) -> Timers {
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

fn limits(table: &mut Table<'_, '_>, out: &mut Diagnostics) -> Limits {
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

fn store(table: &mut Table<'_, '_>, folder: &Path, out: &mut Diagnostics) -> Store {
    const DURABILITY: &[(&str, Durability)] = &[
        ("commit", Durability::Commit),
        ("behind", Durability::Behind),
    ];
    let mut store = Store {
        path: folder.join("sipbox.sqlite"),
        durability: Durability::Commit,
    };
    let Some(mut table) = table.table("store", "`[store]`", out) else {
        return store;
    };
    if let Some(path) = path(&mut table, "path", folder, out) {
        store.path = path;
    }
    if let Some(durability) = table.choice("durability", DURABILITY, out) {
        store.durability = durability.value;
    }
    table.finish(out);
    store
}

fn control(table: &mut Table<'_, '_>, folder: &Path, out: &mut Diagnostics) -> Control {
    let mut control = Control {
        socket: folder.join("sipbox.sock"),
    };
    let Some(mut table) = table.table("control", "`[control]`", out) else {
        return control;
    };
    if let Some(path) = path(&mut table, "socket", folder, out) {
        control.socket = path;
    }
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

fn log(table: &mut Table<'_, '_>, out: &mut Diagnostics) -> Log {
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

fn auth(table: &mut Table<'_, '_>, out: &mut Diagnostics) -> Auth {
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
