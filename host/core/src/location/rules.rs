//! RFC 3261 section 10.3, steps 6 and 7: what a REGISTER does to the bindings of
//! its address of record. A pure function from (bindings, request, limits, time)
//! to (steps, or a refusal): all of the request, or nothing.

use std::sync::Arc;

use sipbox_sip::Uri;
use sipbox_sip::uri::equivalent;
use smallvec::SmallVec;

use super::binding::Binding;
use super::register::{ContactUpdate, Contacts, Register};
use crate::policy::SaveLimits;
use crate::time::WallTime;

/// What a contact gets that names no expiry, where nothing else is set; RFC 3261
/// section 20.10 lets a malformed one count as this too.
pub const DEFAULT_EXPIRES: u32 = 3600;

/// A REGISTER that is answered with an error, and changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status} {reason}")]
pub struct Refused {
    /// The status of the answer.
    pub status: u16,
    /// Its reason phrase.
    pub reason: &'static str,
    /// The Min-Expires header field that a 423 must have (section 10.2.8).
    pub min_expires: Option<u32>,
}

impl Refused {
    pub(super) const fn new(status: u16, reason: &'static str) -> Self {
        Self {
            status,
            reason,
            min_expires: None,
        }
    }
}

/// What becomes of one binding.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// It stays as it is.
    Keep(Arc<Binding>),
    /// It goes.
    Remove(Arc<Binding>),
    /// The request's contact of this position is written, over an old binding or as a new one.
    Write {
        old: Option<Arc<Binding>>,
        update: usize,
        expires: WallTime,
    },
}

pub(super) type Steps = SmallVec<[Step; 4]>;

/// How many bindings stand after the steps.
pub(super) fn standing(steps: &[Step]) -> usize {
    steps
        .iter()
        .filter(|step| !matches!(step, Step::Remove(_)))
        .count()
}

/// Judges a REGISTER against the bindings that stand.
pub(super) fn judge(
    bindings: &[Arc<Binding>],
    register: &Register,
    limits: &SaveLimits,
    wall: WallTime,
) -> Result<Steps, Refused> {
    let mut steps: Steps = bindings
        .iter()
        .map(|b| {
            if b.holds(wall) {
                Step::Keep(b.clone())
            } else {
                Step::Remove(b.clone())
            }
        })
        .collect();
    let before = standing(&steps);
    match &register.contacts {
        Contacts::Query => {}
        Contacts::RemoveAll => {
            for step in &mut steps {
                if let Step::Keep(binding) = step {
                    check_order(binding, register)?;
                    *step = Step::Remove(binding.clone());
                }
            }
        }
        Contacts::Update(updates) => {
            for (position, update) in updates.iter().enumerate() {
                apply(
                    &mut steps, updates, position, update, register, limits, wall,
                )?;
            }
        }
    }
    let after = standing(&steps);
    let max = usize::try_from(limits.max_contacts).unwrap_or(usize::MAX);
    // An old surplus (the limit was lowered) may be refreshed, not grown.
    if max != 0 && after > max && after > before {
        return Err(Refused::new(403, "Too Many Contacts"));
    }
    Ok(steps)
}

fn apply(
    steps: &mut Steps,
    updates: &[ContactUpdate],
    position: usize,
    update: &ContactUpdate,
    register: &Register,
    limits: &SaveLimits,
    wall: WallTime,
) -> Result<(), Refused> {
    let seconds = granted(update, limits)?;
    let found = steps.iter().position(|step| match step {
        Step::Keep(old) => names_binding(update, old),
        // An expired or removed one is no binding any more.
        Step::Remove(_) => false,
        Step::Write { update: other, .. } => updates
            .get(*other)
            .is_some_and(|other| names_contact(update, other)),
    });
    let Some(step) = found.and_then(|i| steps.get_mut(i)) else {
        if seconds > 0 {
            let expires = end(wall, seconds);
            steps.push(Step::Write {
                old: None,
                update: position,
                expires,
            });
        }
        return Ok(());
    };
    let old = match step {
        Step::Keep(old) => {
            check_order(old, register)?;
            Some(old.clone())
        }
        Step::Write { old, .. } => old.take(),
        Step::Remove(_) => None,
    };
    if seconds > 0 {
        *step = Step::Write {
            old,
            update: position,
            expires: end(wall, seconds),
        };
    } else if let Some(old) = old {
        *step = Step::Remove(old);
    } else {
        // Added and removed by one request.
        steps.retain(|s| {
            !matches!(s, Step::Write { old: None, update: u, .. }
            if updates.get(*u).is_some_and(|other| names_contact(update, other)))
        });
    }
    Ok(())
}

/// Step 7: with the same Call-ID the CSeq must have grown, otherwise the whole
/// request fails. The RFC names no status; 500 is what it gives to requests out
/// of order elsewhere (section 12.2.2).
fn check_order(binding: &Binding, register: &Register) -> Result<(), Refused> {
    if binding.call_id == register.call_id && register.cseq <= binding.cseq {
        return Err(Refused::new(500, "CSeq Out Of Order"));
    }
    Ok(())
}

/// Step 7: the seconds that a contact gets; 0 removes it.
fn granted(update: &ContactUpdate, limits: &SaveLimits) -> Result<u32, Refused> {
    let default = match limits.default_expires {
        0 => DEFAULT_EXPIRES,
        seconds => seconds,
    };
    let asked = update.expires.unwrap_or(default);
    // A registrar may call an interval too brief only below an hour (section 10.3).
    if asked > 0 && asked < limits.min_expires && asked < 3600 {
        return Err(Refused {
            status: 423,
            reason: "Interval Too Brief",
            min_expires: Some(limits.min_expires),
        });
    }
    Ok(match limits.max_expires {
        0 => asked,
        max => asked.min(max),
    })
}

pub(super) fn end(wall: WallTime, seconds: u32) -> WallTime {
    WallTime(
        wall.0
            .saturating_add(u64::from(seconds).saturating_mul(1000)),
    )
}

/// Whether a contact of the request is the one that a binding stands for: by
/// instance and reg-id where it has both (RFC 5626 section 6), else by comparing
/// URIs (RFC 3261 section 19.1.4).
fn names_binding(update: &ContactUpdate, binding: &Binding) -> bool {
    same(
        (update.instance.as_deref(), update.reg_id, &update.uri),
        (
            binding.instance.as_deref(),
            binding.reg_id,
            &binding.contact,
        ),
    )
}

fn names_contact(a: &ContactUpdate, b: &ContactUpdate) -> bool {
    same(
        (a.instance.as_deref(), a.reg_id, &a.uri),
        (b.instance.as_deref(), b.reg_id, &b.uri),
    )
}

type Identity<'a> = (Option<&'a str>, Option<u32>, &'a str);

fn same(a: Identity<'_>, b: Identity<'_>) -> bool {
    match (a, b) {
        ((Some(instance), Some(reg_id), _), (other, other_reg, _)) => {
            other == Some(instance) && other_reg == Some(reg_id)
        }
        // A flow of its own is never taken over by a contact without one.
        (_, (Some(_), Some(_), _)) => false,
        ((_, _, a), (_, _, b)) => same_uri(a, b),
    }
}

/// Section 19.1.4.
pub(super) fn same_uri(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    match (Uri::parse(a.as_bytes()), Uri::parse(b.as_bytes())) {
        (Ok(a), Ok(b)) => equivalent(&a, &b),
        _ => false,
    }
}
