//! The listening side: who may connect, how many, how long a line may be.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::commands::Commands;
use crate::rpc;

/// How long a client whose line was refused may go on sending it.
const GRACE: Duration = Duration::from_secs(2);

/// What clients may use.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Clients at a time; others wait.
    pub clients: usize,
    /// Bytes of a line.
    pub line: u64,
    /// How long a client may be silent, and how long it may take to read an answer.
    pub idle: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            clients: 64,
            line: 1 << 20,
            idle: Duration::from_secs(300),
        }
    }
}

/// Why the socket cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Another process answers there.
    #[error("control socket {0}: another process is listening")]
    InUse(PathBuf),
    /// Something that is no socket stands there.
    #[error("control socket {0}: the path is no socket")]
    NotASocket(PathBuf),
    /// The system refuses.
    #[error("control socket {path}: {source}")]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The control socket; dropping it closes it and removes its file.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Server {
    /// Opens the socket, for its owner only (mode 0600), and serves on the
    /// current tokio runtime. A file that a killed process left is replaced.
    ///
    /// # Errors
    /// When the socket is in use or cannot be made.
    pub fn start(
        path: &Path,
        commands: Arc<dyn Commands>,
        limits: ServerLimits,
    ) -> Result<Self, ServerError> {
        let failed = |source| ServerError::Io {
            path: path.to_owned(),
            source,
        };
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(ServerError::NotASocket(path.to_owned()));
            }
            Ok(_) => {
                if std::os::unix::net::UnixStream::connect(path).is_ok() {
                    return Err(ServerError::InUse(path.to_owned()));
                }
                std::fs::remove_file(path).map_err(failed)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        // Nobody is served before this line: the accept loop starts below.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let task = tokio::spawn(accept(listener, commands, limits));
        Ok(Self {
            path: path.to_owned(),
            task,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        // Already gone is as good.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, commands: Arc<dyn Commands>, limits: ServerLimits) {
    let places = Arc::new(Semaphore::new(
        limits.clients.clamp(1, Semaphore::MAX_PERMITS),
    ));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) if !may_command(&stream) => {
                tracing::warn!("control client of another user turned away");
                drop(place);
            }
            Ok((stream, _)) => {
                let commands = Arc::clone(&commands);
                tokio::spawn(async move {
                    if let Err(error) = serve(stream, &*commands, limits).await {
                        tracing::debug!(%error, "control client gone");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, say: it may pass.
                tracing::warn!(%error, "control socket cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Whether the peer is the user that we run as, or root. The socket's mode says
/// the same, but only from a moment after it is bound.
fn may_command(stream: &UnixStream) -> bool {
    let own = std::fs::metadata("/proc/self").map(|us| std::os::unix::fs::MetadataExt::uid(&us));
    match (stream.peer_cred(), own) {
        (Ok(peer), Ok(own)) => peer.uid() == own || peer.uid() == 0,
        _ => false,
    }
}

async fn serve(
    stream: UnixStream,
    commands: &dyn Commands,
    limits: ServerLimits,
) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut reader).take(limits.line);
        let read = timeout(limits.idle, limited.read_until(b'\n', &mut line)).await??;
        if read == 0 {
            return Ok(());
        }
        let whole = line.last() == Some(&b'\n');
        if !whole && u64::try_from(read).unwrap_or(u64::MAX) >= limits.line {
            let answer = b"{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32600,\"message\":\"invalid request: the line is too long\"}}\n";
            timeout(limits.idle, writer.write_all(answer)).await??;
            // Closing with bytes unread would take the answer back: the client gets
            // as much again to end its line.
            let mut rest = (&mut reader).take(limits.line.saturating_mul(16));
            timeout(GRACE, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await??;
            return Ok(());
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        if let Some(answer) = rpc::answer(commands, &line).await {
            let mut text = answer.to_string();
            text.push('\n');
            timeout(limits.idle, writer.write_all(text.as_bytes())).await??;
        }
    }
}
