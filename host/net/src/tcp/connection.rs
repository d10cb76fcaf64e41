//! The task of one connection: it reads frames for a worker and writes what
//! workers hand in, until one side ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sipbox_core::flow::{ConnectionId, Flow};
use sipbox_sip::stream::{Frame, Framer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::table::Outgoing;
use super::{Streams, count};
use crate::error::SendError;
use crate::queue::Inbound;

/// Room made for each read.
const READ: usize = 4 * 1024;
/// How many messages, and about how many bytes, are written in one call.
const WRITE_MESSAGES: usize = 32;
const WRITE_BYTES: usize = 64 * 1024;
/// So few bytes may be line ends that begin no message and wait for the rest of
/// a ping: they do not start the clock of a message.
const NO_MESSAGE: usize = 3;
/// RFC 5626 section 3.5.1.
const PONG: &[u8] = b"\r\n";

/// A connection's side of its entry in the table.
pub(super) struct Connection<S> {
    pub(super) flow: Flow,
    pub(super) id: ConnectionId,
    /// Bytes in `queue` and in the call that writes.
    pub(super) waiting: Arc<AtomicUsize>,
    /// Our own queue; weak, because it ends when the table lets go of it.
    pub(super) pongs: mpsc::WeakSender<Outgoing<S>>,
    pub(super) queue: mpsc::Receiver<Outgoing<S>>,
}

/// Why a side of a connection ended.
enum End {
    /// The peer, the system or a time-out ended it.
    Lost(io::ErrorKind),
    /// The table let go of it, and everything is written.
    Closed,
    /// The peer sends what cannot be framed. What is answered is still written.
    Unframed,
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Lost(error.kind())
    }
}

impl<S: Copy + Send + Sync + 'static> Connection<S> {
    /// Serves the connection to its end. What comes back was taken from the
    /// queue and not written.
    pub(super) async fn run<E, R>(
        &mut self,
        mut stream: TcpStream,
        streams: &Streams<E, S, R>,
    ) -> (SendError, Vec<Outgoing<S>>)
    where
        E: Send + 'static,
        R: Send + 'static,
    {
        let (mut reader, mut writer) = stream.split();
        let active = Active::new();
        let mut batch = Batch {
            messages: Vec::new(),
            written: 0,
        };
        let write = write(
            &mut writer,
            &mut self.queue,
            &self.waiting,
            &mut batch,
            &active,
            streams.limits.write_timeout,
        );
        let read = Reader {
            flow: self.flow,
            id: self.id,
            pongs: &self.pongs,
            waiting: &self.waiting,
            streams,
        };
        let end = {
            tokio::pin!(write);
            tokio::select! {
                end = read.run(&mut reader, &active) => match end {
                    End::Unframed => {
                        // The refusal that the worker makes of it must get out.
                        let _ = timeout(streams.limits.linger, write).await;
                        End::Closed
                    }
                    end => end,
                },
                end = &mut write => end,
            }
        };
        if matches!(end, End::Closed) {
            let _ = timeout(streams.limits.linger, finish(&mut reader, &mut writer)).await;
        }
        let error = match end {
            End::Lost(kind) => SendError::ConnectionLost(kind),
            End::Closed | End::Unframed => SendError::ConnectionLost(io::ErrorKind::BrokenPipe),
        };
        (error, batch.unwritten())
    }
}

/// When the connection last did something, for both sides of its task.
struct Active {
    start: Instant,
    millis: AtomicU64,
}

impl Active {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            millis: AtomicU64::new(0),
        }
    }

    fn touch(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }
}

struct Reader<'a, E, S, R> {
    flow: Flow,
    id: ConnectionId,
    pongs: &'a mpsc::WeakSender<Outgoing<S>>,
    waiting: &'a AtomicUsize,
    streams: &'a Streams<E, S, R>,
}

impl<E, S, R> Reader<'_, E, S, R>
where
    E: Send + 'static,
    S: Copy + Send + Sync + 'static,
    R: Send + 'static,
{
    async fn run(&self, reader: &mut ReadHalf<'_>, active: &Active) -> End {
        let limits = &self.streams.limits;
        let mut framer = Framer::new(limits.frame);
        // When the message at the front of the buffer began.
        let mut begun: Option<Instant> = None;
        loop {
            let deadline = match begun {
                Some(begun) => begun + limits.message_timeout,
                None => active.last() + limits.idle_timeout,
            };
            framer.buffer_mut().reserve(READ);
            match timeout_at(deadline, reader.read_buf(framer.buffer_mut())).await {
                Ok(Ok(0)) => return End::Lost(io::ErrorKind::UnexpectedEof),
                Ok(Ok(_)) => active.touch(),
                Ok(Err(error)) => return error.into(),
                // We may have written in the meantime.
                Err(_) if begun.is_none() && active.last() + limits.idle_timeout > deadline => {
                    continue;
                }
                Err(_elapsed) => return End::Lost(io::ErrorKind::TimedOut),
            }
            let mut framed = false;
            loop {
                match framer.next() {
                    Ok(Some(frame)) => {
                        framed = true;
                        if !self.frame(frame).await {
                            return End::Closed;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(peer = %self.flow.peer, %error, "stream cannot be framed");
                        let input = Inbound::Unframed {
                            head: error.head,
                            kind: error.kind,
                            flow: self.flow,
                        };
                        self.streams.tell(self.id, input).await;
                        return End::Unframed;
                    }
                }
            }
            if framer.buffered() <= NO_MESSAGE {
                begun = None;
            } else if framed || begun.is_none() {
                begun = Some(Instant::now());
            }
        }
    }

    /// Passes a frame on; `false` if nobody takes it any more.
    async fn frame(&self, frame: Frame) -> bool {
        match frame {
            Frame::Message(bytes) => {
                count(&self.streams.counters.messages);
                // A frame is a slice of the read buffer. Who keeps it for the
                // length of a call must not keep the buffer with it.
                let bytes = Bytes::copy_from_slice(&bytes);
                self.streams
                    .tell(
                        self.id,
                        Inbound::Frame {
                            bytes,
                            flow: self.flow,
                        },
                    )
                    .await
            }
            Frame::Ping => {
                count(&self.streams.counters.pings);
                if let Some(queue) = self.pongs.upgrade() {
                    // A full queue is sign of life enough.
                    let pong = Outgoing {
                        bytes: Bytes::from_static(PONG),
                        token: None,
                    };
                    if queue.try_send(pong).is_ok() {
                        self.waiting.fetch_add(PONG.len(), Ordering::Relaxed);
                    }
                }
                true
            }
            Frame::Pong => true,
        }
    }
}

/// The messages that are being written.
struct Batch<S> {
    messages: Vec<Outgoing<S>>,
    /// How many of their bytes the system has taken.
    written: usize,
}

impl<S> Batch<S> {
    /// The messages of which a byte is missing.
    fn unwritten(self) -> Vec<Outgoing<S>> {
        let mut end = 0;
        self.messages
            .into_iter()
            .skip_while(|message| {
                end += message.bytes.len();
                end <= self.written
            })
            .collect()
    }
}

async fn write<S>(
    writer: &mut WriteHalf<'_>,
    queue: &mut mpsc::Receiver<Outgoing<S>>,
    waiting: &AtomicUsize,
    batch: &mut Batch<S>,
    active: &Active,
    write_timeout: Duration,
) -> End {
    let mut buffer = BytesMut::new();
    while queue.recv_many(&mut batch.messages, WRITE_MESSAGES).await > 0 {
        // One call for many short messages; a long one goes by itself.
        let mut messages = batch.messages.iter().peekable();
        while let Some(first) = messages.next() {
            buffer.extend_from_slice(&first.bytes);
            while let Some(more) =
                messages.next_if(|more| buffer.len() + more.bytes.len() <= WRITE_BYTES)
            {
                buffer.extend_from_slice(&more.bytes);
            }
            while !buffer.is_empty() {
                match timeout(write_timeout, writer.write_buf(&mut buffer)).await {
                    Ok(Ok(0)) => return End::Lost(io::ErrorKind::WriteZero),
                    Ok(Ok(length)) => batch.written += length,
                    Ok(Err(error)) => return error.into(),
                    Err(_elapsed) => return End::Lost(io::ErrorKind::TimedOut),
                }
                active.touch();
            }
        }
        waiting.fetch_sub(batch.written, Ordering::Relaxed);
        batch.messages.clear();
        batch.written = 0;
    }
    End::Closed
}

/// Says good-bye and waits for the peer's: closing with unread bytes would reset
/// the connection and could destroy what we wrote last.
async fn finish(reader: &mut ReadHalf<'_>, writer: &mut WriteHalf<'_>) {
    if writer.shutdown().await.is_err() {
        return;
    }
    let mut rest = [0; 1024];
    while matches!(reader.read(&mut rest).await, Ok(1..)) {}
}
