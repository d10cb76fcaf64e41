//! The control socket: JSON-RPC 2.0, one object a line.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// Calls a command and gives its result or the error object.
///
/// # Errors
/// The error object of the reply.
///
/// # Panics
/// When nobody answers there.
pub fn call(socket: &Path, method: &str, params: &Value) -> Result<Value, Value> {
    let mut stream = UnixStream::connect(socket)
        .unwrap_or_else(|error| panic!("control socket {}: {error}", socket.display()));
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    stream.write_all(format!("{request}\n").as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream)
        .read_line(&mut line)
        .unwrap_or_else(|error| panic!("{method} on the control socket: {error}"));
    let reply: Value =
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{method}: {error} in {line:?}"));
    assert_eq!(reply["jsonrpc"], "2.0", "{reply}");
    assert_eq!(reply["id"], 1, "{reply}");
    if reply["error"].is_null() {
        Ok(reply["result"].clone())
    } else {
        Err(reply["error"].clone())
    }
}
