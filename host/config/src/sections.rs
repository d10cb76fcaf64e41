//! The sections of the file: what each may hold, and what must fit together.

mod dialog;
mod listener;
mod nathelper;
mod once;
mod tenant;

use std::path::Path;

use sipbox_sip::HostPort;
use toml::Spanned;
use toml::de::DeTable;

use crate::diagnostic::Diagnostic;
use crate::model::{Config, Route};
use crate::read::{At, Diagnostics, Table};
use crate::syntax::{hop, host, host_port};
use listener::listeners;
use once::{auth, control, dns, limits, log, record_route, store, timers};
use tenant::tenants;

impl Config {
    /// Reads and checks a configuration. Relative paths in it start at `folder`.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, Vec<Diagnostic>> {
        let reading = Reading::new(text, folder);
        match reading.config {
            Some(config) if !reading.found.iter().any(Diagnostic::is_error) => Ok(config),
            _ => Err(reading.found),
        }
    }
}

/// What reading a text came to, right or wrong.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The configuration as far as it could be read: what is wrong is left out or
    /// stands at its default. `None` if the text is no TOML. Nothing may be started
    /// from it if there is an error in [`Reading::found`]; it is there so that the
    /// rest of it can be checked as well.
    pub config: Option<Config>,
    /// What is to be said, in the order of the text.
    pub found: Vec<Diagnostic>,
}

impl Reading {
    /// Reads a text. Relative paths in it start at `folder`.
    #[must_use]
    pub fn new(text: &str, folder: &Path) -> Self {
        let mut out = Diagnostics::default();
        let config = parse_into(text, folder, &mut out);
        let mut found = out.found;
        found.sort_by_key(|diagnostic| diagnostic.span.start);
        Self { config, found }
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
    let node = table.number("node", 0..=u64::from(u16::MAX), out);
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
        node: node.and_then(|id| u16::try_from(id).ok()).unwrap_or(0),
        server,
        aliases,
        outbound_proxy,
        listeners,
        tenants: tenants.into_iter().map(|(tenant, _)| tenant).collect(),
        routes,
        record_route: record_route(&mut table, out),
        timers: timers(&mut table, out),
        limits: limits(&mut table, out),
        dns: dns(&mut table, folder, out),
        store: store(&mut table, folder, out),
        control: control(&mut table, folder, out),
        log: log(&mut table, out),
        auth: auth(&mut table, out),
        dialog: dialog::dialog(&mut table, out),
        nathelper: nathelper::nathelper(&mut table, out),
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
