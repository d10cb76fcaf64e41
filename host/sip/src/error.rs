//! The crate's errors. None of them allocates: they arise while a stranger's
//! bytes are read.

use crate::header::HeaderId;

/// Why bytes are no SIP message at all, and cannot be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Nothing but line ends.
    #[error("empty message")]
    Empty,
    /// The first line is neither a request line nor a status line.
    #[error("no start line")]
    StartLine,
    /// Not one header field follows the start line.
    #[error("no header field")]
    NoHeaders,
    /// Longer than an offset can tell.
    #[error("message too long")]
    TooLong,
}

/// Why a header value could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// The field is not there.
    #[error("missing {0}")]
    Missing(HeaderId),
    /// The field appears again where the grammar allows one.
    #[error("more than one {0}")]
    Repeated(HeaderId),
    /// The value breaks its grammar; the word names what was being read.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// A number beyond its limit.
    #[error("{0} out of range")]
    OutOfRange(&'static str),
}

/// Why an edit was refused. The message is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// The edit cuts into another one's span.
    #[error("edit overlaps an earlier one")]
    Overlap,
    /// The span does not lie in the message.
    #[error("edit outside of the message")]
    OutOfBounds,
    /// A field name that is no token.
    #[error("header name is not a token")]
    Name,
    /// A value with CR, LF or NUL.
    #[error("header value contains a line end or nul")]
    Value,
    /// Bytes that are no URI.
    #[error("malformed request uri")]
    RequestUri,
    /// The message is a response, the edit is for requests.
    #[error("not a request")]
    NotARequest,
    /// The element was not read from this message.
    #[error("value is not an element of this message")]
    Element,
    /// No empty line ends the header fields, so nothing can be put behind them.
    #[error("the header fields have no end")]
    Unterminated,
}

/// Why a message could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A field name that is no token.
    #[error("header name is not a token")]
    Name,
    /// A value with CR, LF or NUL.
    #[error("header value contains a line end or nul")]
    Value,
    /// A method that is no token.
    #[error("method is not a token")]
    Method,
    /// Bytes that are no URI.
    #[error("malformed request uri")]
    RequestUri,
    /// A status outside of 100 to 699.
    #[error("status code out of range")]
    Status,
    /// The message to build from is of the wrong kind.
    #[error("built from a message of the wrong kind")]
    Source,
    /// The message to build from lacks a field or has it malformed.
    #[error(transparent)]
    Field(#[from] ValueError),
}
