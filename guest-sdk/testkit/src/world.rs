//! What the capabilities know: accounts and bindings, in memory.

use std::collections::{BTreeMap, BTreeSet};

use sipbox_guest::Error;
use sipbox_guest::location::Binding;

use crate::shared::Shared;

/// Accounts, bindings and failures of a test.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub(crate) accounts: BTreeMap<(String, String), String>,
    pub(crate) throttled: BTreeSet<String>,
    pub(crate) bindings: BTreeMap<String, Vec<Binding>>,
    pub(crate) auth_failure: Option<Error>,
    pub(crate) location_failure: Option<Error>,
    pub(crate) refuse_save: Option<u16>,
    pub(crate) leases: BTreeMap<(String, String), u32>,
    pub(crate) profiles: BTreeMap<(String, String), u32>,
    pub(crate) shared: Shared,
}

impl World {
    /// Nobody has an account and nothing is registered.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an account.
    #[must_use]
    pub fn account(mut self, realm: &str, user: &str, password: &str) -> Self {
        self.accounts
            .insert((realm.into(), user.into()), password.into());
        self
    }

    /// The source has failed too often for this user.
    #[must_use]
    pub fn throttled(mut self, user: &str) -> Self {
        self.throttled.insert(user.into());
        self
    }

    /// Registers a binding for `user@domain`; see [`binding`].
    #[must_use]
    pub fn registered(mut self, aor: &str, binding: Binding) -> Self {
        self.bindings.entry(aor.into()).or_default().push(binding);
        self
    }

    /// Every check of credentials fails with this error.
    #[must_use]
    pub fn auth_fails(mut self, error: Error) -> Self {
        self.auth_failure = Some(error);
        self
    }

    /// Every call of the location service fails with this error.
    #[must_use]
    pub fn location_fails(mut self, error: Error) -> Self {
        self.location_failure = Some(error);
        self
    }

    /// Every `save` is refused with this status.
    #[must_use]
    pub fn saves_are_refused(mut self, status: u16) -> Self {
        self.refuse_save = Some(status);
        self
    }

    /// Other calls hold so many leases of a key.
    #[must_use]
    pub fn leased(mut self, scope: &str, key: &str, held: u32) -> Self {
        self.leases.insert((scope.into(), key.into()), held);
        self
    }

    /// So many other dialogs are in a profile, with this value if it is not empty.
    #[must_use]
    pub fn profile(mut self, profile: &str, value: &str, size: u32) -> Self {
        self.profiles.insert((profile.into(), value.into()), size);
        self
    }

    /// How many leases of a key are held.
    #[must_use]
    pub fn leases(&self, scope: &str, key: &str) -> u32 {
        let key = (scope.to_owned(), key.to_owned());
        self.leases.get(&key).copied().unwrap_or(0)
    }

    /// The bindings of `user@domain`, best q first.
    #[must_use]
    pub fn bindings(&self, aor: &str) -> Vec<Binding> {
        let mut bindings = self.bindings.get(aor).cloned().unwrap_or_default();
        bindings.sort_by_key(|binding| std::cmp::Reverse(binding.q));
        bindings
    }
}

/// A binding of q 1 that lasts an hour. Change its fields as a test needs.
#[must_use]
pub fn binding(contact: &str) -> Binding {
    Binding {
        contact: contact.into(),
        q: 1000,
        expires: 3600,
        path: Vec::new(),
        received: String::new(),
        flow: String::new(),
        instance: String::new(),
        user_agent: String::new(),
        flags: sipbox_guest::nat::BindingFlags::empty(),
    }
}
