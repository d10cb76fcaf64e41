//! The client of the command line: one call at a time, blocking.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::commands::Params;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no proxy answers at {path}: {source}")]
    Connect {
        /// The socket's path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection broke, or no answer came in time.
    #[error("control socket: {0}")]
    Io(#[from] io::Error),
    /// What came back is no answer.
    #[error("control socket: unexpected answer: {0}")]
    Answer(String),
    /// The command failed.
    #[error("{message}")]
    Failed {
        /// The error's code.
        code: i64,
        /// Its text.
        message: String,
    },
}

/// A connection to a running proxy.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    next_id: u64,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// [`ClientError::Connect`] when nobody listens.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).map_err(|source| ClientError::Connect {
            path: path.to_owned(),
            source,
        })?;
        // A reload compiles components, which takes its time.
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self {
            stream: BufReader::new(stream),
            next_id: 1,
        })
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// When the command fails or the connection breaks.
    pub fn call(&mut self, method: &str, params: Params) -> Result<Value, ClientError> {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let mut request = json!({ "jsonrpc": "2.0", "id": id, "method": method });
        let given = match params {
            Params::None => None,
            Params::Positional(values) => Some(Value::Array(values)),
            Params::Named(values) => Some(Value::Object(values)),
        };
        if let (Some(given), Some(request)) = (given, request.as_object_mut()) {
            request.insert("params".to_owned(), given);
        }
        let mut line = request.to_string();
        line.push('\n');
        self.stream.get_mut().write_all(line.as_bytes())?;
        let mut answer = String::new();
        if self.stream.read_line(&mut answer)? == 0 {
            return Err(ClientError::Answer("the connection was closed".to_owned()));
        }
        let mut answer: Value = serde_json::from_str(&answer)
            .map_err(|error| ClientError::Answer(error.to_string()))?;
        if let Some(error) = answer.get("error") {
            let message = error
                .get("message")
                .and_then(Value::as_str)
                .unwrap_or("no message");
            return Err(ClientError::Failed {
                code: error
                    .get("code")
                    .and_then(Value::as_i64)
                    .unwrap_or_default(),
                message: message.to_owned(),
            });
        }
        if answer.get("id").and_then(Value::as_u64) != Some(id) {
            return Err(ClientError::Answer(
                "the answer is to another request".to_owned(),
            ));
        }
        match answer.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(ClientError::Answer("neither result nor error".to_owned())),
        }
    }
}
