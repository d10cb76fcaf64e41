//! Digest authentication (RFC 3261 section 22). Secrets and nonces stay with the host.

use crate::call::Error;
use crate::sys;

/// A digest algorithm.
pub use crate::bindings::host::sipbox::policy::auth::Algorithm;

/// What the request's credentials are worth.
pub use crate::bindings::host::sipbox::policy::auth::Outcome;

/// A protection domain, and what it accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realm(crate::bindings::host::sipbox::policy::auth::Realm);

impl Realm {
    /// A realm that asks as a registrar or end point: 401, WWW-Authenticate.
    /// MD5 until [`Self::algorithms`] says otherwise.
    #[must_use]
    pub fn registrar(name: impl Into<String>) -> Self {
        Self::new(name.into(), false)
    }

    /// A realm that asks as a proxy: 407, Proxy-Authenticate.
    #[must_use]
    pub fn proxy(name: impl Into<String>) -> Self {
        Self::new(name.into(), true)
    }

    fn new(name: String, proxy: bool) -> Self {
        Self(crate::bindings::host::sipbox::policy::auth::Realm {
            name,
            proxy,
            algorithms: vec![Algorithm::Md5],
            options: Vec::new(),
        })
    }

    /// The accepted algorithms, best first; one challenge each.
    #[must_use]
    pub fn algorithms(mut self, algorithms: impl Into<Vec<Algorithm>>) -> Self {
        self.0.algorithms = algorithms.into();
        self
    }

    /// Whether the `uri` of the credentials may differ from the Request-URI.
    #[must_use]
    pub fn loose_uri(mut self) -> Self {
        self.0.options.push(("uri-check".into(), "loose".into()));
        self
    }

    /// The status of a challenge of this realm: 401 or 407.
    #[must_use]
    pub fn status(&self) -> u16 {
        if self.0.proxy { 407 } else { 401 }
    }

    /// Looks at the request's credentials for this realm.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the host could not fetch the credentials.
    pub fn check(&self) -> Result<Outcome, Error> {
        sys::check(&self.0)
    }

    /// Puts the realm's challenges on the 401 or 407 that this hook returns.
    ///
    /// # Errors
    /// [`Error::OutOfPlace`] outside `on_request` and `on_failure`.
    pub fn challenge(&self) -> Result<(), Error> {
        sys::challenge(&self.0)
    }
}
