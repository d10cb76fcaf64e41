//! Log lines: for people, or as JSON for machines; always to stderr, so that
//! stdout stays for data.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For a terminal.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The filter is none.
    #[error("log filter `{filter}`: {source}")]
    Filter {
        /// As given.
        filter: String,
        /// Why.
        source: ParseError,
    },
    /// Somebody has set up a log in this process already.
    #[error("the log is set up already")]
    Twice,
}

/// Libraries whose debug lines are about themselves. A bare level leaves them at
/// `warn`; directives name them if they are wanted.
const LIBRARIES: &[&str] = &[
    "cranelift_codegen",
    "hickory_net",
    "hickory_proto",
    "hickory_resolver",
    "mio",
    "regalloc2",
    "sqlx",
    "wasmtime",
    "wasmtime_environ",
    "wasmtime_internal_cache",
    "wasmtime_internal_cranelift",
];

/// A bare level with the libraries held back; directives as they are.
fn directives(filter: &str) -> String {
    let mut text = filter.to_owned();
    if !filter.contains(['=', ',']) && filter != "off" && filter != "error" {
        for library in LIBRARIES {
            text.push(',');
            text.push_str(library);
            text.push_str("=warn");
        }
    }
    text
}

/// Sets the process's log up. `filter` is a level (`info`), which speaks of
/// Sipbox and the policies, or directives (`info,sipbox=debug,policy=trace`).
///
/// # Errors
/// When the filter is none, or on a second call.
pub fn init(format: Format, filter: &str) -> Result<(), LogError> {
    let parsed = EnvFilter::try_new(directives(filter)).map_err(|source| LogError::Filter {
        filter: filter.to_owned(),
        source,
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(std::io::stderr);
    let done = match format {
        Format::Human => {
            let ansi = std::env::var_os("NO_COLOR").is_none()
                && std::io::IsTerminal::is_terminal(&std::io::stderr());
            builder.with_ansi(ansi).try_init()
        }
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    done.map_err(|_twice| LogError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_level_is_not_about_the_libraries() {
        assert!(directives("debug").starts_with("debug,cranelift_codegen=warn,"));
        assert_eq!(directives("info,sqlx=debug"), "info,sqlx=debug");
        for level in ["trace", "debug", "info", "warn", "error", "off"] {
            assert!(EnvFilter::try_new(directives(level)).is_ok(), "{level}");
        }
    }

    #[test]
    fn a_filter_that_is_none_is_named() {
        let error = init(Format::Json, "sipbox=loud").unwrap_err();
        assert!(error.to_string().contains("`sipbox=loud`"), "{error}");
    }
}
