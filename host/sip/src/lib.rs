//! The language: SIP messages as spans over bytes, typed header values, edits,
//! URIs, SDP lines, digest arithmetic, stream framing.
//!
//! Nothing here knows a clock, a socket or a random source, and nothing decides:
//! what a proxy does with a message is `sipbox-core`'s business.
//!
//! ```
//! use sipbox_sip::{HeaderId, Index, Message, Method};
//!
//! let bytes = b"OPTIONS sip:b@example.org SIP/2.0\r\n\
//!     v: SIP/2.0/UDP a.example.org;branch=z9hG4bK1\r\n\
//!     l: 0\r\n\r\n";
//! let mut index = Index::new();
//! let message = Message::parse(bytes, &mut index).unwrap();
//! assert_eq!(message.method(), Method::Options);
//! assert_eq!(message.via_top().unwrap().branch(), Some(&b"z9hG4bK1"[..]));
//! assert_eq!(message.header(HeaderId::ContentLength), Some(&b"0"[..]));
//! ```

pub mod auth;
pub mod body;
pub mod build;
pub mod digest;
pub mod edit;
mod edited;
pub mod error;
pub mod header;
pub mod hop;
pub mod index;
pub mod lex;
pub mod message;
pub mod method;
pub mod name_addr;
pub mod nat;
mod ordinary;
pub mod params;
pub mod parts;
pub mod reserved;
pub mod sdp;
pub mod span;
pub mod status;
pub mod stream;
pub mod transport;
pub mod uri;
pub mod validate;
pub mod via;

pub use build::{RequestBuilder, ResponseBuilder};
pub use edit::EditList;
pub use error::{BuildError, EditError, ParseError, ValueError};
pub use header::{HeaderId, HeaderName};
pub use hop::{Hop, HostPort};
pub use index::{ContentLength, HeaderField, Index};
pub use message::{CSeq, Message, OwnedMessage, Value};
pub use method::Method;
pub use name_addr::{Contact, NameAddr};
pub use params::{Param, Params};
pub use parts::{AddressParts, Parts, UriParts};
pub use span::Span;
pub use transport::Transport;
pub use uri::{Host, Scheme, Uri};
pub use validate::Fault;
pub use via::Via;
