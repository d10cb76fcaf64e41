//! Credentials in memory, in front of the table `subscriber`: read once, kept for
//! a while, forgotten when an account changes here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache;
use sipbox_core::auth::Ha1Set;

use crate::error::StoreError;
use crate::subscriber::Subscribers;

/// How long a change that another process makes to an account may go unnoticed.
const KNOWN: Duration = Duration::from_secs(60);
/// The same for an account that another process adds.
const UNKNOWN: Duration = Duration::from_secs(5);

/// User and realm. A realm is a domain, which belongs to one tenant.
type Key = (Box<str>, Box<str>);
type Found = Option<Arc<Ha1Set>>;

/// The cache. Clones share it.
#[derive(Clone)]
pub struct CredentialCache {
    found: Cache<Key, Found>,
    subscribers: Subscribers,
}

impl CredentialCache {
    /// A cache of at most `capacity` accounts, unknown ones included.
    #[must_use]
    pub fn new(subscribers: Subscribers, capacity: u64) -> Self {
        let found = Cache::builder()
            .max_capacity(capacity)
            .expire_after(Lifetime)
            .build();
        Self { found, subscribers }
    }

    /// What is known without waiting: `None` when it must be fetched, `Some(None)`
    /// when there is no such account.
    #[must_use]
    pub fn cached(&self, user: &str, realm: &str) -> Option<Found> {
        self.found.get(&key(user, realm))
    }

    /// Fetches an account, unless it is known.
    ///
    /// # Errors
    /// When the database refuses; nothing is remembered then.
    pub async fn fetch(&self, user: &str, realm: &str) -> Result<Found, StoreError> {
        let key = key(user, realm);
        if let Some(found) = self.found.get(&key) {
            return Ok(found);
        }
        let found = self.subscribers.get(user, realm).await?.map(Arc::new);
        self.found.insert(key, found.clone());
        Ok(found)
    }

    /// Forgets an account, because it was changed.
    pub fn forget(&self, user: &str, realm: &str) {
        self.found.invalidate(&key(user, realm));
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.found.invalidate_all();
    }
}

impl std::fmt::Debug for CredentialCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CredentialCache")
            .field("accounts", &self.found.entry_count())
            .finish()
    }
}

fn key(user: &str, realm: &str) -> Key {
    (user.into(), realm.to_ascii_lowercase().into())
}

struct Lifetime;

impl Expiry<Key, Found> for Lifetime {
    fn expire_after_create(&self, _: &Key, found: &Found, _: Instant) -> Option<Duration> {
        Some(if found.is_some() { KNOWN } else { UNKNOWN })
    }
}
