//! What only a start can change, and what a reload says of such a change.

use toml::Spanned;
use toml::de::DeTable;

use crate::diagnostic::Diagnostic;
use crate::model::{Config, Span};

/// A setting that is read at the start: its table, its name, and whether two
/// configurations agree on it. Listeners are not among them: what they are bound to
/// is known to who bound them.
type AtStart = (
    Option<&'static str>,
    &'static str,
    fn(&Config, &Config) -> bool,
);

macro_rules! at_start {
    ($($($table:ident)? . $key:ident),* $(,)?) => {
        &[$(at_start!(@ $($table)? . $key)),*]
    };
    (@ . $key:ident) => {
        (None, stringify!($key), |a, b| a.$key == b.$key)
    };
    (@ $table:ident . $key:ident) => {
        (
            Some(stringify!($table)),
            stringify!($key),
            |a, b| a.$table.$key == b.$table.$key,
        )
    };
}

/// Every one of them; the model names them as the file does.
pub(crate) const AT_START: &[AtStart] = at_start![
    .workers,
    .node,
    limits.message_max,
    limits.connections,
    limits.connections_per_source,
    limits.idle_timeout,
    limits.message_timeout,
    limits.connect_timeout,
    dns.servers,
    dns.hosts,
    dns.timeout,
    dns.attempts,
    dns.deadline,
    dns.cache,
    dns.max_ttl,
    dns.negative_ttl,
    store.path,
    store.key,
    store.durability,
    control.socket,
    log.format,
    log.filter,
    auth.nonce_lifetime,
    auth.nonce_table,
    auth.failures,
    auth.failure_window,
];

/// What a reload cannot change of the configuration that the program was started
/// with, each at its place in the new text. `found` is what is known to be wrong
/// with the new text: what could not be read there was not changed either.
#[must_use]
pub fn needs_restart(
    started: (&Config, &str),
    wanted: (&Config, &str),
    found: &[Diagnostic],
) -> Vec<Diagnostic> {
    let old = DeTable::parse_recoverable(started.1).0;
    let new = DeTable::parse_recoverable(wanted.1).0;
    let mut changed = Vec::new();
    for (table, key, same) in AT_START {
        if same(started.0, wanted.0) {
            continue;
        }
        let span = match place(&new, *table, key) {
            Some(span) if found.iter().any(|known| touches(known, &span)) => continue,
            Some(span) => span,
            // It fell back to its default, or its name was mistyped.
            None if found.iter().any(Diagnostic::is_error) => continue,
            None => table
                .and_then(|table| place(&new, None, table))
                .unwrap_or(0..0),
        };
        let before = place(&old, *table, key).and_then(|span| started.1.get(span));
        let expected = match before {
            Some(text) if !text.contains('\n') => format!("expected {text}, or a restart"),
            Some(_) => "expected what it was, or a restart".to_owned(),
            None => "expected its default, or a restart".to_owned(),
        };
        let name = match table {
            Some(table) => format!("`{key}` of `[{table}]`"),
            None => format!("`{key}`"),
        };
        let message = format!("{name} cannot change by a reload");
        changed.push(Diagnostic::error(message, span, expected));
    }
    changed
}

fn touches(known: &Diagnostic, span: &Span) -> bool {
    known.is_error() && known.span.start < span.end && span.start < known.span.end
}

fn place(root: &Spanned<DeTable<'_>>, table: Option<&str>, key: &str) -> Option<Span> {
    let root = root.get_ref();
    let table = match table {
        Some(name) => root.get(name)?.get_ref().as_table()?,
        None => root,
    };
    table.get(key).map(Spanned::span)
}
