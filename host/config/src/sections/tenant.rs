//! `[[tenant]]` with its limits and its chain of policies.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;

use super::listener::methods;
use super::once::transactions;
use super::will_not_do;
use crate::diagnostic::Diagnostic;
use crate::model::{Component, Policy, PolicyLimits, Span, Tenant};
use crate::read::{Diagnostics, Table, one_of, similar, suggest};
use crate::syntax::{host, json};

/// Capabilities that can be granted.
const GRANTS: &[&str] = &[
    "auth", "counters", "dialogs", "kv", "leases", "location", "nat",
];
const BUILTINS: &[(&str, ())] = &[("residential", ())];

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

pub(super) fn tenants(
    table: &mut Table<'_, '_>,
    folder: &Path,
    out: &mut Diagnostics,
) -> Vec<(Tenant, Span)> {
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
            }
            policies.push(policy);
        }
        let span = table.span();
        table.finish(out);
        // Whatever its name is like, the tenant is read on: listeners may name
        // it, and its components are to be looked at.
        match &name {
            // It stands in Record-Route parameters, log fields and metrics.
            Some(name) if !plain(name.value) => {
                will_not_do(name, "letters, digits, `-`, `_` and `.`", out);
            }
            Some(name) if tenants.iter().any(|(other, _)| other.name == name.value) => {
                let message = format!("two tenants are called `{}`", name.value);
                out.error(message, name.span.clone(), "expected another name");
            }
            _ => {}
        }
        let name = name.map_or("?", |name| name.value);
        let mut own = Vec::new();
        for domain in domains {
            let Some(lower) = host(domain.value) else {
                will_not_do(&domain, "a host name or address, without a port", out);
                continue;
            };
            match owners.insert(lower.clone(), name.to_owned()) {
                Some(owner) => {
                    let message = format!("`{lower}` is already a domain of tenant `{owner}`");
                    out.error(message, domain.span, "expected a domain that no tenant has");
                }
                None => own.push(lower),
            }
        }
        if policies.is_empty() {
            let message = format!("tenant `{name}` has no policy");
            let expected = "every initial request will be answered 404";
            out.push(
                Diagnostic::warning(message, span.clone(), expected)
                    .help("[[tenant.policy]]\nbuiltin = \"residential\""),
            );
        }
        let tenant = Tenant {
            name: name.to_owned(),
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

/// Whether a tenant may be called so.
fn plain(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
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
            // Taken for what was meant, so that the components that need it are
            // not said to lack it as well.
            grants.extend(similar(text.value, GRANTS).map(str::to_owned));
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
    let memory_mib = table
        .number("memory_mib", 1..=1024, out)
        .and_then(|number| u32::try_from(number).ok());
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
                serde_json::json!({})
            }
        },
        Some(value) => {
            out.error(
                "`settings` is no table",
                value.span(),
                "expected `settings = { … }`",
            );
            serde_json::json!({})
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
            memory_mib,
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
    let kv_entries = small("kv_entries", 10_000_000, default.kv_entries, out);
    let kv_mib = small("kv_mib", 4096, default.kv_mib, out);
    let kv_value_bytes = small("kv_value_bytes", 1 << 20, default.kv_value_bytes, out);
    let counters = small("counters", 10_000_000, default.counters, out);
    let transactions = transactions(&mut table, out);
    let mut quota = |key| {
        let found = table.number(key, 1..=1 << 30, out);
        found.and_then(|number| u32::try_from(number).ok())
    };
    let (calls, calls_per_second) = (quota("calls"), quota("calls_per_second"));
    let limits = PolicyLimits {
        // Calls below two ticks of a millisecond are not measured.
        cpu: table
            .duration("cpu", 2 * MS..=SECOND, out)
            .unwrap_or(default.cpu),
        wall: table
            .duration("wall", MS..=30 * SECOND, out)
            .unwrap_or(default.wall),
        cpu_budget: table
            .duration("cpu_budget", 10 * MS..=64 * SECOND, out)
            .unwrap_or(default.cpu_budget),
        memory_mib,
        host_calls,
        edits,
        edit_bytes,
        output_bytes,
        log_bytes,
        transactions,
        calls,
        calls_per_second,
        kv_entries,
        kv_mib,
        kv_value_bytes,
        counters,
    };
    table.finish(out);
    limits
}
