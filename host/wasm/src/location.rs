//! The interface `location`.

use sipbox_core::policy::{
    BindingFlags, BindingView, CallError, Effect, Hook, Reached, SaveLimits, SaveOutcome,
};
use sipbox_sip::{Method, uri};

use crate::bindings::wit::location as wit;
use crate::bindings::wit::types::Error;
use crate::cx::{ANYWHERE, CallCx};
use crate::edit;

impl wit::Host for CallCx {
    fn lookup(&mut self, aor: String) -> wasmtime::Result<Result<Vec<wit::Binding>, Error>> {
        self.enter()?;
        let found = self
            .only_in("lookup", &ANYWHERE)
            .and_then(|()| check_aor(&aor))
            .and_then(|()| self.call.capabilities.lookup(&self.call, &aor));
        Ok(found
            .map(|all| all.into_iter().map(wit::Binding::from).collect())
            .map_err(Error::from))
    }

    fn save(
        &mut self,
        aor: String,
        limits: wit::SaveLimits,
    ) -> wasmtime::Result<Result<wit::SaveOutcome, Error>> {
        self.enter()?;
        self.stage(aor.len())?;
        Ok(self.save_checked(aor, limits).map_err(Error::from))
    }

    fn remove(&mut self, aor: String) -> wasmtime::Result<Result<u32, Error>> {
        self.enter()?;
        self.stage(aor.len())?;
        let removed = self
            .only_in("remove", &[Hook::Request])
            .and_then(|()| check_aor(&aor))
            .and_then(|()| self.call.capabilities.remove(&self.call, &aor));
        if removed.is_ok() {
            self.call.effects.push(Effect::RemoveLocation { aor });
        }
        Ok(removed.map_err(Error::from))
    }
}

impl CallCx {
    fn save_checked(
        &mut self,
        aor: String,
        limits: wit::SaveLimits,
    ) -> Result<wit::SaveOutcome, CallError> {
        self.only_in("save", &[Hook::Request])?;
        if self.request_method() != Method::Register {
            return Err(CallError::OutOfPlace(
                "save of a request that is no REGISTER".to_owned(),
            ));
        }
        check_aor(&aor)?;
        let nat = &self.call.state.nat;
        let (mut reached, mut flags) = (Reached::Auto, nat.flags);
        for (name, value) in &limits.options {
            let unknown = || CallError::UnknownOption(edit::shown(&format!("{name}={value}")));
            match name.as_str() {
                "received" => reached = Reached::from_name(value).ok_or_else(unknown)?,
                "flags" => {
                    for flag in value.split(',') {
                        let flag = BindingFlags::from_name(flag.trim()).ok_or_else(unknown)?;
                        flags = flags.with(flag);
                    }
                }
                _ => return Err(CallError::UnknownOption(edit::shown(name))),
            }
        }
        if nat.register {
            reached = Reached::Source;
        }
        let limits = SaveLimits {
            reached,
            flags,
            min_expires: limits.min_expires,
            max_expires: limits.max_expires,
            default_expires: limits.default_expires,
            max_contacts: limits.max_contacts,
        };
        let outcome = self.call.capabilities.save(&self.call, &aor, &limits)?;
        Ok(match outcome {
            SaveOutcome::Saved(n) => {
                self.call.effects.push(Effect::SaveLocation { aor, limits });
                wit::SaveOutcome::Saved(n)
            }
            SaveOutcome::Queried(n) => {
                // The 200 lists the bindings: the host writes them.
                self.call.effects.push(Effect::SaveLocation { aor, limits });
                wit::SaveOutcome::Queried(n)
            }
            SaveOutcome::Refused(status) => wit::SaveOutcome::Refused(status),
        })
    }
}

/// `user@domain`, as it would stand in a SIP URI.
pub(crate) fn check_aor(aor: &str) -> Result<(), CallError> {
    if uri::is_user_at_host(aor.as_bytes()) {
        return Ok(());
    }
    let malformed = || CallError::Malformed(format!("address of record `{}`", edit::shown(aor)));
    let (user, domain) = aor.rsplit_once('@').ok_or_else(malformed)?;
    if user.is_empty() || domain.is_empty() || domain.contains([';', '?', ':']) {
        return Err(malformed());
    }
    edit::check_uri("address of record", &format!("sip:{aor}")).map_err(|_| malformed())
}

impl From<BindingView> for wit::Binding {
    fn from(binding: BindingView) -> Self {
        Self {
            contact: binding.contact,
            q: binding.q,
            expires: binding.expires,
            path: binding.path,
            received: binding.received,
            flow: binding.flow,
            instance: binding.instance,
            user_agent: binding.user_agent,
            flags: crate::nat::flags_out(binding.flags),
        }
    }
}
