//! `location` in the test kit.

use sipbox_guest::Error;
use sipbox_guest::location::{Binding, SaveLimits, SaveOutcome};
use sipbox_guest::nat::BindingFlags;

use crate::call::Call;
use crate::checks::check_aor;
use crate::live::Live;
use crate::nat::NatState;
use crate::run::Effect;
use crate::view::NameAddr;
use crate::world::binding;

impl Live {
    pub(crate) fn look_up(&self, aor: &str) -> Result<Vec<Binding>, Error> {
        check_aor(aor)?;
        match &self.world.location_failure {
            Some(error) => Err(error.clone()),
            None => Ok(self.world.bindings(aor)),
        }
    }

    pub(crate) fn save_bindings(
        &mut self,
        aor: &str,
        limits: &SaveLimits,
    ) -> Result<SaveOutcome, Error> {
        if self.call.method() != "REGISTER" {
            return Err(Error::OutOfPlace("save outside REGISTER".into()));
        }
        check_aor(aor)?;
        for (name, value) in &limits.options {
            match (name.as_str(), value.as_str()) {
                ("received", "auto" | "source" | "contact") => {}
                ("flags", flags) => {
                    for flag in flags.split(',') {
                        self.nat.flags |= match flag.trim() {
                            "natted" => BindingFlags::NATTED,
                            "sipping" => BindingFlags::SIPPING,
                            "remove-on-timeout" => BindingFlags::REMOVE_ON_TIMEOUT,
                            _ => return Err(Error::UnknownOption(format!("{name}={value}"))),
                        };
                    }
                }
                _ => return Err(Error::UnknownOption(format!("{name}={value}"))),
            }
        }
        if let Some(error) = &self.world.location_failure {
            return Err(error.clone());
        }
        if let Some(status) = self.world.refuse_save {
            return Ok(SaveOutcome::Refused(status));
        }
        let before = self.world.bindings(aor);
        match registered(&self.call, &before, limits, &self.nat) {
            Err(status) => Ok(SaveOutcome::Refused(status)),
            Ok(None) => Ok(SaveOutcome::Queried(count(&before))),
            Ok(Some(bindings)) => {
                let standing = count(&bindings);
                self.effects.push(Effect::Save {
                    aor: aor.into(),
                    limits: limits.clone(),
                    bindings,
                });
                Ok(SaveOutcome::Saved(standing))
            }
        }
    }

    pub(crate) fn remove_bindings(&mut self, aor: &str) -> Result<u32, Error> {
        check_aor(aor)?;
        if let Some(error) = &self.world.location_failure {
            return Err(error.clone());
        }
        self.effects.push(Effect::Remove { aor: aor.into() });
        Ok(count(&self.world.bindings(aor)))
    }
}

fn count(bindings: &[Binding]) -> u32 {
    u32::try_from(bindings.len()).unwrap_or(u32::MAX)
}

/// The bindings that stand after a REGISTER, `None` for a query, or the status
/// that refuses it. Contacts are equal when their texts are: comparison of URIs
/// and the order of Call-ID and CSeq are left to the host.
fn registered(
    call: &Call,
    before: &[Binding],
    limits: &SaveLimits,
    nat: &NatState,
) -> Result<Option<Vec<Binding>>, u16> {
    let header_expires: Option<u32> = call
        .values("Expires")
        .next()
        .and_then(|value| value.trim().parse().ok());
    let contacts: Vec<&str> = call
        .values("Contact")
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|contact| !contact.is_empty())
        .collect();
    if contacts.is_empty() {
        return Ok(None);
    }
    if contacts.contains(&"*") {
        return if contacts.len() == 1 && header_expires == Some(0) {
            Ok(Some(Vec::new()))
        } else {
            Err(400)
        };
    }
    let mut bindings = before.to_vec();
    for contact in contacts {
        let address = NameAddr::of(contact, (0, contact.len()));
        let part = |(offset, length): (usize, usize)| contact.get(offset..offset + length);
        let uri = part(address.uri).unwrap_or_default();
        let expires = address
            .param(contact, "expires")
            .and_then(part)
            .and_then(|value| value.parse().ok())
            .or(header_expires)
            .unwrap_or(limits.default_expires);
        bindings.retain(|binding| binding.contact != uri);
        if expires == 0 {
            continue;
        }
        if expires < limits.min_expires {
            return Err(423);
        }
        let mut new = binding(uri);
        new.expires = expires.min(limits.max_expires);
        new.q = address
            .param(contact, "q")
            .and_then(part)
            .and_then(|value| value.parse::<f32>().ok())
            .map_or(1000, |q| (q.clamp(0.0, 1.0) * 1000.0).round() as u16);
        new.flags = nat.flags;
        if nat.register {
            let (address, port, _) = &call.source;
            new.received = format!("sip:{address}:{port}");
        }
        new.path = call.values("Path").map(str::to_owned).collect();
        bindings.push(new);
    }
    if limits.max_contacts != 0 && count(&bindings) > limits.max_contacts {
        return Err(403);
    }
    Ok(Some(bindings))
}
