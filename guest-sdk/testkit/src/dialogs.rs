//! Dialogs and leases, as far as a policy can tell.

use sipbox_guest::Error;
use sipbox_guest::bindings::host::sipbox::policy::dialogs::{
    CreateFlags, Dialog, DialogState, Party, Validity,
};
use sipbox_guest::bindings::host::sipbox::policy::leases::{AllOutcome, Outcome, Place};
use sipbox_guest::bindings::host::sipbox::policy::types::{Header, Options};

use crate::live::{Hook, Live};
use crate::run::Effect;

/// A dialog in a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestDialog {
    /// What the policy gets to know of it.
    pub facts: Dialog,
    /// What was wanted of it when it began.
    pub wanted: CreateFlags,
    /// Variables.
    pub vars: Vec<(String, String)>,
    /// The names of the flags that are set.
    pub flags: Vec<String>,
    /// Profiles and values.
    pub profiles: Vec<(String, String)>,
    /// What `validate_dialog` says.
    pub validity: Validity,
    /// `end_dialog` was called.
    pub ended: bool,
}

impl TestDialog {
    /// One that has just been confirmed; the request is the caller's.
    #[must_use]
    pub fn confirmed() -> Self {
        Self {
            facts: Dialog {
                id: "1.1".into(),
                state: DialogState::Confirmed,
                sender: Party::Caller,
                lifetime: 0,
                timeout: 43_200,
            },
            ..Self::new(CreateFlags::empty())
        }
    }

    pub(crate) fn new(wanted: CreateFlags) -> Self {
        Self {
            facts: Dialog {
                id: String::new(),
                state: DialogState::Unconfirmed,
                sender: Party::Caller,
                lifetime: 0,
                timeout: 43_200,
            },
            wanted,
            vars: Vec::new(),
            flags: Vec::new(),
            profiles: Vec::new(),
            validity: Validity::Valid,
            ended: false,
        }
    }

    fn is_in(&self, profile: &str, value: &str) -> bool {
        let is =
            |(name, of): &(String, String)| name == profile && (value.is_empty() || of == value);
        self.profiles.iter().any(is)
    }
}

/// A lease that a call holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldLease {
    /// What the policy knows it by.
    pub lease: u32,
    /// Its scope.
    pub scope: String,
    /// Its key.
    pub key: String,
}

impl Live {
    fn known(&mut self, what: &str) -> Result<&mut TestDialog, Error> {
        self.dialog
            .as_mut()
            .ok_or_else(|| Error::OutOfPlace(format!("{what} without a dialog")))
    }

    pub(crate) fn dialog_create(
        &mut self,
        create: CreateFlags,
        options: &Options,
    ) -> Result<bool, Error> {
        self.only_in(&[Hook::Request], "create-dialog")?;
        if self.call.method() != "INVITE" || self.call.is_in_dialog() {
            return Err(Error::OutOfPlace("create-dialog outside INVITE".into()));
        }
        let mut dialog = TestDialog::new(create);
        for (name, value) in options {
            let known = ["timeout", "delete-delay", "options-ping-interval"];
            if !known.contains(&name.as_str()) {
                return Err(Error::UnknownOption(name.clone()));
            }
            let seconds = value.parse::<u32>();
            let seconds = seconds.map_err(|_| Error::Malformed(format!("{name}={value}")))?;
            if name == "timeout" {
                dialog.facts.timeout = seconds;
            }
        }
        if self.dialog.is_some() {
            return Ok(false);
        }
        self.dialog = Some(dialog);
        Ok(true)
    }

    pub(crate) fn dialog_var(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let dialog = self.known("store-dlg-value")?;
        dialog.vars.retain(|(known, _)| known != name);
        dialog.vars.push((name.into(), value.into()));
        Ok(())
    }

    pub(crate) fn dialog_value(&mut self, name: &str) -> Result<Option<String>, Error> {
        let dialog = self.known("fetch-dlg-value")?;
        let var = dialog.vars.iter().find(|(known, _)| known == name);
        Ok(var.map(|(_, value)| value.clone()))
    }

    /// Whether the flag was set before.
    pub(crate) fn dialog_flag(&mut self, flag: &str, on: bool) -> Result<bool, Error> {
        let dialog = self.known("flags")?;
        let before = dialog.flags.iter().any(|known| known == flag);
        dialog.flags.retain(|known| known != flag);
        if on {
            dialog.flags.push(flag.into());
        }
        Ok(before)
    }

    pub(crate) fn dialog_has_flag(&mut self, flag: &str) -> Result<bool, Error> {
        let dialog = self.known("is-dlg-flag-set")?;
        Ok(dialog.flags.iter().any(|known| known == flag))
    }

    pub(crate) fn dialog_join(
        &mut self,
        profile: &str,
        value: &str,
        clear: bool,
    ) -> Result<(), Error> {
        let dialog = self.known("set-dlg-profile")?;
        dialog
            .profiles
            .retain(|(name, of)| name != profile || !(clear || of == value));
        dialog.profiles.push((profile.into(), value.into()));
        Ok(())
    }

    pub(crate) fn dialog_leave(&mut self, profile: &str, value: &str) -> Result<(), Error> {
        let dialog = self.known("unset-dlg-profile")?;
        dialog
            .profiles
            .retain(|(name, of)| name != profile || !(value.is_empty() || of == value));
        Ok(())
    }

    pub(crate) fn dialog_is_in(&mut self, profile: &str, value: &str) -> Result<bool, Error> {
        Ok(self.known("is-in-profile")?.is_in(profile, value))
    }

    pub(crate) fn dialog_timeout(&mut self, seconds: u32) -> Result<(), Error> {
        self.known("set-dlg-timeout")?.facts.timeout = seconds;
        Ok(())
    }

    pub(crate) fn dialog_validity(&mut self) -> Result<Validity, Error> {
        self.only_in(&[Hook::Request], "validate-dialog")?;
        Ok(self.known("validate-dialog")?.validity)
    }

    pub(crate) fn dialog_end(&mut self, _: &[Header]) -> Result<(), Error> {
        self.known("end-dialog")?.ended = true;
        Ok(())
    }

    pub(crate) fn lease(&mut self, scope: &str, key: &str, limit: u32) -> Result<Outcome, Error> {
        self.only_in(&[Hook::Request, Hook::Failure], "acquire")?;
        let own = |held: &&HeldLease| held.scope == scope && held.key == key;
        if let Some(held) = self.call.leases.iter().find(own) {
            return Ok(Outcome::Granted(held.lease));
        }
        let taken = self.world.leases(scope, key);
        if taken >= limit {
            return Ok(Outcome::Full(taken));
        }
        let lease = self.call.leases.iter().map(|held| held.lease).max();
        let lease = lease.unwrap_or(0) + 1;
        self.call.leases.push(HeldLease {
            lease,
            scope: scope.into(),
            key: key.into(),
        });
        self.effects.push(Effect::Acquire {
            scope: scope.into(),
            key: key.into(),
        });
        Ok(Outcome::Granted(lease))
    }

    pub(crate) fn lease_all(&mut self, places: &[Place]) -> Result<AllOutcome, Error> {
        let (held, staged) = (self.call.leases.len(), self.effects.len());
        for (at, place) in (0..).zip(places) {
            let outcome = self.lease(&place.scope, &place.key, place.limit);
            if !matches!(outcome, Ok(Outcome::Granted(_))) {
                self.call.leases.truncate(held);
                self.effects.truncate(staged);
                return outcome.map(|_| AllOutcome::Full(at));
            }
        }
        Ok(AllOutcome::Granted)
    }

    pub(crate) fn lease_ends(&mut self, lease: u32) -> Result<(), Error> {
        let leases = &mut self.call.leases;
        let Some(at) = leases.iter().position(|held| held.lease == lease) else {
            return Err(Error::Malformed(format!("no lease {lease} of this call")));
        };
        let HeldLease { scope, key, .. } = leases.remove(at);
        self.effects.push(Effect::Release { scope, key });
        Ok(())
    }
}
