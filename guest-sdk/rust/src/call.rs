//! What a hook does to the message and to its transaction: edits, variables,
//! later hooks. Each is a host call; a refused one changes nothing.

use crate::message::{Request, Response};

/// Why a host call was refused.
pub use crate::bindings::host::sipbox::policy::types::Error;

/// One change of the message, for [`Request::apply`].
pub use crate::bindings::host::sipbox::policy::types::Edit;

/// A header field, in edits and replies.
pub use crate::bindings::host::sipbox::policy::types::Header;

/// A message body with its Content-Type.
pub use crate::bindings::host::sipbox::policy::types::Body;

/// Later hooks of the transaction, for [`Request::arm`].
pub use crate::bindings::host::sipbox::policy::call::Hooks;

/// Named facts about address translation, see [`Request::classify_source`].
pub use crate::bindings::host::sipbox::policy::call::SourceClass;

macro_rules! edits {
    ($message:ty) => {
        impl $message {
            /// The body.
            #[must_use]
            pub fn body(&self) -> Vec<u8> {
                crate::sys::body()
            }

            /// Replaces every field of that name by one; adds it where there was none.
            ///
            /// # Errors
            /// [`Error::Malformed`], [`Error::Protected`] or [`Error::OutOfPlace`].
            pub fn set_header(&self, name: &str, value: &str) -> Result<(), Error> {
                crate::sys::set_header(name, value)
            }

            /// Adds a field behind those of the same name, or at the end.
            ///
            /// # Errors
            /// [`Error::Malformed`], [`Error::Protected`] or [`Error::OutOfPlace`].
            pub fn add_header(&self, name: &str, value: &str) -> Result<(), Error> {
                crate::sys::add_header(name, value)
            }

            /// Removes every field of that name.
            ///
            /// # Errors
            /// [`Error::Protected`] or [`Error::OutOfPlace`].
            pub fn remove_header(&self, name: &str) -> Result<(), Error> {
                crate::sys::remove_header(name)
            }

            /// Sets body, Content-Type and Content-Length.
            ///
            /// # Errors
            /// [`Error::Malformed`], [`Error::Limit`] or [`Error::OutOfPlace`].
            pub fn set_body(&self, body: &Body) -> Result<(), Error> {
                crate::sys::set_body(body)
            }

            /// Makes several edits in one host call: all, or none and the first error.
            ///
            /// # Errors
            /// That of the first edit that is refused.
            pub fn apply(&self, edits: &[Edit]) -> Result<(), Error> {
                crate::sys::apply(edits)
            }

            /// A variable of the transaction, as an earlier hook left it; also one that another
            /// policy shares ([`Policy::VARIABLES`](crate::Policy::VARIABLES)).
            #[must_use]
            pub fn var(&self, name: &str) -> Option<String> {
                crate::sys::var(name)
            }

            /// Sets a variable of the transaction: one of this policy's own, unless the policy
            /// declares its name.
            ///
            /// # Errors
            /// [`Error::Limit`].
            pub fn set_var(&self, name: &str, value: &str) -> Result<(), Error> {
                crate::sys::set_var(name, value)
            }

            /// Which of these facts hold of the addresses in the message and its source.
            #[must_use]
            pub fn classify_source(&self, asked: SourceClass) -> SourceClass {
                crate::sys::classify_source(asked)
            }
        }
    };
}

edits!(Request);
edits!(Response);

impl Request {
    /// Sets the Request-URI of every branch that has none of its own.
    ///
    /// # Errors
    /// [`Error::Malformed`] or [`Error::OutOfPlace`].
    pub fn set_request_uri(&self, uri: &str) -> Result<(), Error> {
        crate::sys::set_request_uri(uri)
    }

    /// Asks for a Record-Route with these URI parameters, whatever the verdict says of it;
    /// in `on_branch` for that branch only.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Protected`], or [`Error::OutOfPlace`] the second time
    /// in one call.
    pub fn record_route(&self, params: &[(&str, &str)]) -> Result<(), Error> {
        let params: Vec<(String, String)> = params
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        crate::sys::record_route(&params)
    }

    /// The same with `host[:port][;params]` instead of the listeners' addresses: one
    /// value, or one for each side.
    ///
    /// # Errors
    /// [`Error::Malformed`] or [`Error::OutOfPlace`].
    pub fn record_route_preset(&self, outbound: &str, inbound: Option<&str>) -> Result<(), Error> {
        crate::sys::record_route_preset(outbound, inbound)
    }

    /// Whether a regular expression matches somewhere in [`Request::route_params`].
    ///
    /// # Errors
    /// [`Error::Malformed`] or [`Error::Limit`].
    pub fn check_route_param(&self, pattern: &str) -> Result<bool, Error> {
        crate::sys::check_route_param(pattern)
    }

    /// Adds a URI parameter to the Record-Route value that the host inserts;
    /// in-dialog requests bring it back, see [`Request::route_param`].
    ///
    /// # Errors
    /// [`Error::Malformed`] or [`Error::OutOfPlace`].
    pub fn add_route_param(&self, name: &str, value: &str) -> Result<(), Error> {
        crate::sys::add_route_param(name, value)
    }

    /// Asks for later hooks of this transaction.
    ///
    /// # Errors
    /// [`Error::OutOfPlace`].
    pub fn arm(&self, hooks: Hooks) -> Result<(), Error> {
        crate::sys::arm(hooks)
    }
}
