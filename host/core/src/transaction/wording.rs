//! A response as it is sent: its bytes, and what is known of them if somebody will ask.

use bytes::Bytes;
use sipbox_sip::OwnedMessage;

/// The wording of a response. Two are the same if their bytes are.
#[derive(Clone, Debug)]
pub(crate) enum Wording {
    /// Bytes that nobody has looked at since they were written.
    Bytes(Bytes),
    /// A message.
    Message(OwnedMessage),
}

impl Wording {
    /// The bytes.
    pub(crate) fn bytes(&self) -> &Bytes {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Message(message) => message.buffer(),
        }
    }

    /// The bytes, to be kept.
    pub(crate) fn into_bytes(self) -> Bytes {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Message(message) => message.buffer().clone(),
        }
    }

    /// The message; `None`: it is none.
    pub(crate) fn message(&self) -> Option<OwnedMessage> {
        match self {
            Self::Bytes(bytes) => OwnedMessage::parse(bytes.clone()).ok(),
            Self::Message(message) => Some(message.clone()),
        }
    }
}

impl From<Bytes> for Wording {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<OwnedMessage> for Wording {
    fn from(message: OwnedMessage) -> Self {
        let exact = message.as_ref().bytes();
        if exact.len() == message.buffer().len() {
            return Self::Message(message);
        }
        Self::Bytes(Bytes::copy_from_slice(exact))
    }
}

impl PartialEq for Wording {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Wording {}
