//! The control socket, spoken to over a real Unix socket.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use sipbox_admin::{
    Client, ClientError, CommandError, CommandFuture, Commands, Params, Server, ServerError,
    ServerLimits,
};

struct Echo;

impl Commands for Echo {
    fn names(&self) -> Vec<&'static str> {
        vec!["echo", "which"]
    }

    fn call<'a>(&'a self, method: &'a str, params: Params) -> CommandFuture<'a> {
        Box::pin(async move {
            match method {
                "which" => Ok(json!(self.names())),
                "echo" => {
                    params.only(&["text", "times"])?;
                    let text = params.required("text", 0)?;
                    let times = params.number("times", 1)?.unwrap_or(1);
                    Ok(json!(text.repeat(usize::try_from(times).unwrap())))
                }
                other => Err(CommandError::NoSuchCommand(other.to_owned())),
            }
        })
    }
}

struct Running {
    _runtime: tokio::runtime::Runtime,
    _folder: tempfile::TempDir,
    path: PathBuf,
    server: Option<Server>,
}

fn start(limits: ServerLimits) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let server = {
        let _inside = runtime.enter();
        Server::start(&path, Arc::new(Echo), limits).unwrap()
    };
    Running {
        _runtime: runtime,
        _folder: folder,
        path,
        server: Some(server),
    }
}

fn line(path: &Path, text: &str) -> Option<Value> {
    let mut stream = UnixStream::connect(path).unwrap();
    stream
        .set_read_timeout(Some(std::time::Duration::from_secs(5)))
        .unwrap();
    writeln!(stream, "{text}").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    (!answer.is_empty()).then(|| serde_json::from_str(&answer).unwrap())
}

fn code(answer: Option<Value>) -> i64 {
    answer.unwrap()["error"]["code"].as_i64().unwrap()
}

#[test]
fn the_client_calls_by_position_and_by_name() {
    let running = start(ServerLimits::default());
    let mut client = Client::connect(&running.path).unwrap();
    let by_position = Params::Positional(vec![json!("ab"), json!(2)]);
    assert_eq!(client.call("echo", by_position).unwrap(), json!("abab"));
    let named = json!({ "text": "x", "times": "3" });
    let named = Params::Named(named.as_object().unwrap().clone());
    assert_eq!(client.call("echo", named).unwrap(), json!("xxx"));
    let failed = client.call("echo", Params::None).unwrap_err();
    assert!(
        matches!(&failed, ClientError::Failed { code: -32602, .. }),
        "{failed}"
    );
    assert!(failed.to_string().contains("`text`"), "{failed}");
    assert_eq!(
        client.call("which", Params::None).unwrap(),
        json!(["echo", "which"])
    );
}

#[test]
fn errors_have_the_codes_of_json_rpc() {
    let running = start(ServerLimits::default());
    let path = &running.path;
    assert_eq!(code(line(path, "{")), -32700);
    assert_eq!(code(line(path, "[]")), -32600);
    assert_eq!(code(line(path, "1")), -32600);
    assert_eq!(
        code(line(path, r#"{"jsonrpc":"1.0","id":1,"method":"which"}"#)),
        -32600
    );
    assert_eq!(
        code(line(path, r#"{"jsonrpc":"2.0","id":1,"method":"nope"}"#)),
        -32601
    );
    assert_eq!(
        code(line(
            path,
            r#"{"jsonrpc":"2.0","id":1,"method":"echo","params":{"txt":1}}"#
        )),
        -32602
    );
}

#[test]
fn a_batch_is_answered_as_one_and_notifications_are_not() {
    let running = start(ServerLimits::default());
    let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"which"},{"jsonrpc":"2.0","method":"which"},{"jsonrpc":"2.0","id":"b","method":"echo","params":["x"]}]"#;
    let answer = line(&running.path, batch).unwrap();
    let ids: Vec<_> = answer
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["id"].clone())
        .collect();
    assert_eq!(ids, [json!(1), json!("b")]);
    assert_eq!(
        line(&running.path, r#"{"jsonrpc":"2.0","method":"which"}"#),
        None
    );
}

#[test]
fn a_line_that_is_too_long_is_refused() {
    let running = start(ServerLimits {
        line: 100,
        ..ServerLimits::default()
    });
    assert_eq!(code(line(&running.path, &"x".repeat(1000))), -32600);
    assert!(
        line(
            &running.path,
            r#"{"jsonrpc":"2.0","id":1,"method":"which"}"#
        )
        .is_some()
    );
}

#[test]
fn the_socket_is_its_owners_alone_and_goes_with_the_server() {
    let mut running = start(ServerLimits::default());
    let mode = std::fs::metadata(&running.path)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    running.server.take();
    assert!(!running.path.exists());
}

#[test]
fn a_socket_in_use_or_a_file_is_not_taken_over_but_a_dead_socket_is() {
    let mut running = start(ServerLimits::default());
    let _inside = running._runtime.enter();
    let again = Server::start(&running.path, Arc::new(Echo), ServerLimits::default());
    assert!(matches!(again, Err(ServerError::InUse(_))));
    running.server.take();
    drop(std::os::unix::net::UnixListener::bind(&running.path).unwrap());
    let dead = Server::start(&running.path, Arc::new(Echo), ServerLimits::default());
    drop(dead.unwrap());
    std::fs::write(&running.path, "mine").unwrap();
    let file = Server::start(&running.path, Arc::new(Echo), ServerLimits::default());
    assert!(matches!(file, Err(ServerError::NotASocket(_))));
    assert_eq!(std::fs::read(&running.path).unwrap(), b"mine");
}
