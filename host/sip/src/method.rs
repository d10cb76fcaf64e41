//! Request methods. Case-sensitive, as RFC 3261 7.1 demands: `invite` is an
//! unknown method, and unknown methods are forwarded like any other.

use std::fmt;

macro_rules! methods {
    ($($id:ident = $token:literal,)+) => {
        /// A request method; the token of an `Other` is in the message.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Method {
            $(#[doc = concat!("`", $token, "`")] $id,)+
            /// A method that this list does not have.
            Other,
        }

        impl Method {
            /// Every known method, `Other` excluded.
            pub const ALL: &'static [Self] = &[$(Self::$id,)+];

            /// Recognises a method token.
            #[must_use]
            pub fn from_token(token: &[u8]) -> Self {
                $(if token == $token.as_bytes() { return Self::$id; })+
                Self::Other
            }

            /// The token; empty for `Other`.
            #[must_use]
            pub const fn token(self) -> &'static str {
                match self {
                    $(Self::$id => $token,)+
                    Self::Other => "",
                }
            }
        }
    };
}

methods! {
    Invite = "INVITE",
    Ack = "ACK",
    Bye = "BYE",
    Cancel = "CANCEL",
    Register = "REGISTER",
    Options = "OPTIONS",
    Info = "INFO",
    Update = "UPDATE",
    Prack = "PRACK",
    Subscribe = "SUBSCRIBE",
    Notify = "NOTIFY",
    Publish = "PUBLISH",
    Message = "MESSAGE",
    Refer = "REFER",
}

impl Method {
    /// Whether a success response to an initial request of this method creates
    /// a dialog (RFC 3261 12.1, RFC 6665, RFC 3515).
    #[must_use]
    pub const fn creates_dialog(self) -> bool {
        matches!(self, Self::Invite | Self::Subscribe | Self::Refer)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Other) {
            "other method"
        } else {
            self.token()
        })
    }
}
