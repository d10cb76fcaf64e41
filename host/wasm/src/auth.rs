//! The interface `auth`.

use sipbox_core::policy::{AuthOutcome, CallError, Effect, Hook, Realm};
use sipbox_sip::digest;
use smallvec::SmallVec;

use crate::bindings::wit::auth as wit;
use crate::bindings::wit::types::Error;
use crate::cx::CallCx;
use crate::edit;

impl wit::Host for CallCx {
    fn check(&mut self, realm: wit::Realm) -> wasmtime::Result<Result<wit::Outcome, Error>> {
        self.enter()?;
        Ok(self.check_realm(realm).map_err(Error::from))
    }

    fn challenge(&mut self, realm: wit::Realm) -> wasmtime::Result<Result<(), Error>> {
        self.enter()?;
        self.stage(realm.name.len())?;
        let challenged = self
            .only_in("challenge", &[Hook::Request, Hook::Failure])
            .and_then(|()| checked(realm))
            .map(|realm| self.call.effects.push(Effect::Challenge(realm)));
        Ok(challenged.map_err(Error::from))
    }
}

impl CallCx {
    fn check_realm(&mut self, realm: wit::Realm) -> Result<wit::Outcome, CallError> {
        self.only_in("check", &[Hook::Request, Hook::Failure])?;
        let realm = checked(realm)?;
        let outcome = self.call.capabilities.check(&self.call, &realm)?;
        Ok(match outcome {
            AuthOutcome::None => wit::Outcome::None,
            AuthOutcome::Authenticated(user) => {
                self.call.state_mut().authenticated_user = Some(user.clone());
                wit::Outcome::Authenticated(user)
            }
            AuthOutcome::Stale => wit::Outcome::Stale,
            AuthOutcome::Refused => wit::Outcome::Refused,
            AuthOutcome::Throttled => wit::Outcome::Throttled,
        })
    }
}

fn checked(realm: wit::Realm) -> Result<Realm, CallError> {
    edit::check_value("realm", &realm.name)?;
    if realm.name.is_empty() || realm.name.bytes().any(|b| matches!(b, b'"' | b'\\')) {
        return Err(CallError::Malformed(format!(
            "realm `{}`",
            edit::shown(&realm.name)
        )));
    }
    if realm.algorithms.is_empty() {
        return Err(CallError::Malformed("realm without algorithms".to_owned()));
    }
    let mut algorithms: SmallVec<[digest::Algorithm; 2]> = SmallVec::new();
    for algorithm in realm.algorithms {
        let algorithm = match algorithm {
            wit::Algorithm::Md5 => digest::Algorithm::Md5,
            wit::Algorithm::Sha256 => digest::Algorithm::Sha256,
        };
        if !algorithms.contains(&algorithm) {
            algorithms.push(algorithm);
        }
    }
    let mut strict_uri = true;
    for (name, value) in realm.options {
        match (name.as_str(), value.as_str()) {
            ("uri-check", "strict") => strict_uri = true,
            ("uri-check", "loose") => strict_uri = false,
            ("uri-check", value) => {
                return Err(CallError::Malformed(format!(
                    "uri-check `{}`",
                    edit::shown(value)
                )));
            }
            (name, _) => return Err(CallError::UnknownOption(edit::shown(name))),
        }
    }
    Ok(Realm {
        name: realm.name,
        proxy: realm.proxy,
        algorithms,
        strict_uri,
    })
}
