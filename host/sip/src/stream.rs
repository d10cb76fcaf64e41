//! Messages out of a byte stream (RFC 3261 18.3): a message ends where its
//! Content-Length says. Keep-alives between messages are told apart (RFC 5626
//! 3.5.1). No I/O here: bytes come in, frames come out.

use bytes::{Buf, Bytes, BytesMut};

use crate::error::ParseError;
use crate::index::{self, ContentLength, Index};

/// How much one message may claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Bytes of start line and header fields.
    pub head: usize,
    /// Bytes of body.
    pub body: usize,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self {
            head: 16 * 1024,
            body: 256 * 1024,
        }
    }
}

/// What a stream yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A whole message, from its start line to the end of its body.
    Message(Bytes),
    /// A double line end between messages, to be answered with a single one.
    Ping,
    /// A single line end between messages: the answer to a ping.
    Pong,
}

/// Why the next message's end cannot be found. The stream is of no use any more;
/// `head` is what may be answered before it is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct FrameError {
    /// What is wrong.
    pub kind: FrameErrorKind,
    /// Start line and header fields, as far as they are known.
    pub head: Bytes,
}

/// The kinds of [`FrameError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameErrorKind {
    /// The head exceeds its limit.
    #[error("message head too long")]
    HeadTooLong,
    /// The body exceeds its limit.
    #[error("message body too long")]
    BodyTooLong,
    /// Content-Length is missing, which only datagrams may do (RFC 3261 20.14).
    #[error("missing Content-Length")]
    MissingContentLength,
    /// Content-Length is no number.
    #[error("malformed Content-Length")]
    BadContentLength,
    /// Several Content-Length fields disagree.
    #[error("conflicting Content-Length")]
    ConflictingContentLength,
    /// The bytes are no message at all.
    #[error(transparent)]
    NotAMessage(#[from] ParseError),
}

/// Cuts one stream into frames.
#[derive(Debug)]
pub struct Framer {
    buffer: BytesMut,
    limits: FrameLimits,
    index: Index,
    /// How far the search for the end of the head has come.
    searched: usize,
    /// Length of the message at the start of the buffer, once its head is read.
    length: Option<usize>,
    /// The stream went wrong before; it yields nothing any more.
    failed: bool,
}

impl Framer {
    /// A framer for a new stream.
    #[must_use]
    pub fn new(limits: FrameLimits) -> Self {
        Self {
            buffer: BytesMut::new(),
            limits,
            index: Index::new(),
            searched: 0,
            length: None,
            failed: false,
        }
    }

    /// Takes bytes from the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The buffer's free end, to read into without a copy.
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Whether a message has begun and not ended: the time for it runs.
    #[must_use]
    pub fn is_mid_message(&self) -> bool {
        // Line ends alone are keep-alives, whole or not.
        !self.failed && self.buffer.iter().any(|b| !matches!(b, b'\r' | b'\n'))
    }

    /// Number of bytes that wait for the rest of their message.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// The next frame, or `None` until more bytes come.
    ///
    /// # Errors
    /// When the end of the next message cannot be found, once: afterwards there is
    /// never a frame again.
    #[allow(clippy::should_implement_trait, reason = "None is not the end")]
    pub fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.failed {
            return Ok(None);
        }
        if self.length.is_none() {
            if let Some(frame) = self.keep_alive() {
                return Ok(Some(frame));
            }
            if let Some(result) = self.head() {
                self.length = Some(result.map_err(|kind| self.fail(kind))?);
            }
        }
        match self.length.filter(|length| *length <= self.buffer.len()) {
            Some(length) => {
                self.length = None;
                self.searched = 0;
                Ok(Some(Frame::Message(self.buffer.split_to(length).freeze())))
            }
            None => Ok(None),
        }
    }

    fn keep_alive(&mut self) -> Option<Frame> {
        let (taken, frame) = match &*self.buffer {
            [b'\r', b'\n', b'\r', b'\n', ..] => (4, Frame::Ping),
            // It may yet become a ping.
            [b'\r', b'\n'] | [b'\r', b'\n', b'\r'] => return None,
            [b'\r', b'\n', ..] => (2, Frame::Pong),
            [b'\n', ..] => (1, Frame::Pong),
            _ => return None,
        };
        self.buffer.advance(taken);
        Some(frame)
    }

    /// Length of the message, once the end of its head is there.
    fn head(&mut self) -> Option<Result<usize, FrameErrorKind>> {
        let Some(head_end) = index::find_head_end(&self.buffer, self.searched) else {
            // The empty line may be split between two reads.
            self.searched = self.buffer.len().saturating_sub(3);
            let too_long = self.buffer.len() > self.limits.head;
            return too_long.then_some(Err(FrameErrorKind::HeadTooLong));
        };
        if head_end > self.limits.head {
            return Some(Err(FrameErrorKind::HeadTooLong));
        }
        let head = self.buffer.get(..head_end).unwrap_or_default();
        Some(self.index.parse(head).map_err(Into::into).and_then(|()| {
            match self.index.content_length() {
                ContentLength::Value(body) if body as usize <= self.limits.body => {
                    Ok(head_end.saturating_add(body as usize))
                }
                ContentLength::Value(_) => Err(FrameErrorKind::BodyTooLong),
                ContentLength::Absent => Err(FrameErrorKind::MissingContentLength),
                ContentLength::Invalid => Err(FrameErrorKind::BadContentLength),
                ContentLength::Conflicting => Err(FrameErrorKind::ConflictingContentLength),
            }
        }))
    }

    fn fail(&mut self, kind: FrameErrorKind) -> FrameError {
        self.failed = true;
        let end = index::find_head_end(&self.buffer, 0).unwrap_or(self.buffer.len());
        let head = self.buffer.split_to(end.min(self.limits.head)).freeze();
        self.buffer = BytesMut::new();
        FrameError { kind, head }
    }
}
