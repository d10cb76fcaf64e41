//! Log lines: for people, or as JSON for machines; always to stderr, so that
//! stdout stays for data.
//!
//! A thread of its own writes them. Whoever logs is a worker that has calls to serve, or
//! the one of confined tenants at the lowest priority: neither may wait for a terminal
//! that nobody reads, nor for the other. What the thread cannot keep up with is lost, and
//! counted.

use std::borrow::Cow;
use std::io;

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;

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

/// Lines that wait to be written; more are lost.
const WAITING: usize = 4096;

/// The process's log. Dropping it writes what still waits.
#[derive(Debug)]
pub struct Log {
    _thread: WorkerGuard,
    lost: ErrorCounter,
}

impl Log {
    /// A look at how many lines were lost, which outlives the log.
    #[must_use]
    pub fn lost(&self) -> LostLines {
        LostLines(self.lost.clone())
    }
}

/// Counts the lines that were lost because nobody took them in time.
#[derive(Clone, Debug)]
pub struct LostLines(ErrorCounter);

impl LostLines {
    /// So many, since the start.
    #[must_use]
    pub fn count(&self) -> u64 {
        u64::try_from(self.0.dropped_lines()).unwrap_or(u64::MAX)
    }
}

/// Hands each event on as one line, whatever the texts in it are: a line break in one
/// of them could pass for a line that somebody else wrote.
#[derive(Clone, Debug)]
struct Lines(NonBlocking);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl io::Write for Lines {
    // The subscriber writes an event at once.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.write_all(&one_line(event))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// An event without line breaks but the last.
fn one_line(event: &[u8]) -> Cow<'_, [u8]> {
    let text = event.strip_suffix(b"\n").unwrap_or(event);
    if !text.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return Cow::Borrowed(event);
    }
    let mut line = Vec::with_capacity(event.len() + 8);
    for byte in text {
        match byte {
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            byte => line.push(*byte),
        }
    }
    line.push(b'\n');
    Cow::Owned(line)
}

/// Sets the process's log up, until the value is dropped. `filter` is a level (`info`),
/// which speaks of Sipbox and the policies, or directives
/// (`info,sipbox=debug,policy=trace`).
///
/// # Errors
/// When the filter is none, or on a second call.
pub fn init(format: Format, filter: &str) -> Result<Log, LogError> {
    let parsed = EnvFilter::try_new(directives(filter)).map_err(|source| LogError::Filter {
        filter: filter.to_owned(),
        source,
    })?;
    let (writer, thread) = NonBlockingBuilder::default()
        .buffered_lines_limit(WAITING)
        .lossy(true)
        .thread_name("log")
        .finish(io::stderr());
    let lost = writer.error_counter();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(Lines(writer));
    let done = match format {
        Format::Human => {
            let ansi = std::env::var_os("NO_COLOR").is_none()
                && io::IsTerminal::is_terminal(&io::stderr());
            builder.with_ansi(ansi).try_init()
        }
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    done.map_err(|_twice| LogError::Twice)?;
    Ok(Log {
        _thread: thread,
        lost,
    })
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
    fn an_event_is_one_line() {
        assert_eq!(&*one_line(b"plain\n"), b"plain\n");
        assert_eq!(&*one_line(b"a\r\nERROR b\n"), b"a\\r\\nERROR b\n");
        assert_eq!(&*one_line(b"a\nb"), b"a\\nb\n");
    }

    #[test]
    fn a_filter_that_is_none_is_named() {
        let error = init(Format::Json, "sipbox=loud").unwrap_err();
        assert!(error.to_string().contains("`sipbox=loud`"), "{error}");
    }
}
