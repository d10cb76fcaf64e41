//! In which order targets are asked whether they have room.

use sipbox_guest::Error;
use sipbox_guest::leases;

use crate::SCOPE;
use crate::settings::{Algorithm, Checked, Group};

/// The targets that have not had the call, the best first.
pub(crate) fn order(
    settings: &Checked,
    call_id: &str,
    tried: &[usize],
) -> Result<Vec<usize>, Error> {
    let mut order = Vec::with_capacity(settings.targets.len());
    for group in &settings.groups {
        let begun = order.len();
        in_turns(group, call_id, tried, &mut order);
        if settings.algorithm == Algorithm::LeastCalls
            && let Some(of_group) = order.get_mut(begun..)
        {
            by_load(settings, of_group)?;
        }
    }
    Ok(order)
}

/// From the one whose turn it is, as the turns come; then who never has one.
fn in_turns(group: &Group, call_id: &str, tried: &[usize], order: &mut Vec<usize>) {
    let begun = order.len();
    let length = u64::try_from(group.turns.len()).unwrap_or(1);
    // As many parts of the range as there are turns.
    let turn = (u64::from(hash(call_id)) * length) >> 32;
    let turn = usize::try_from(turn).unwrap_or(0);
    let (before, from) = group.turns.split_at_checked(turn).unwrap_or_default();
    let had = |at: &&usize| group.turns.contains(at);
    let left = group.active - tried.iter().filter(had).count();
    for at in from.iter().chain(before) {
        if order.len() - begun == left {
            break;
        }
        let known = order.iter().skip(begun).any(|known| known == at);
        if !known && !tried.contains(at) {
            order.push(*at);
        }
    }
    order.extend(group.idle.iter().filter(|at| !tried.contains(at)));
}

/// The one with the least calls for its size first; of equal ones whose turn it is.
fn by_load(settings: &Checked, order: &mut [usize]) -> Result<(), Error> {
    let mut loads = Vec::with_capacity(order.len());
    for at in order.iter() {
        if let Some(target) = settings.targets.get(*at) {
            let calls = u64::from(leases::held(SCOPE, &target.name)?);
            loads.push((calls, u64::from(target.size), *at));
        }
    }
    loads.sort_by(|(calls, size, _), (others, other, _)| (calls * other).cmp(&(others * size)));
    for (place, (_, _, at)) in order.iter_mut().zip(loads) {
        *place = at;
    }
    Ok(())
}

/// FNV-1a, and a last mixing: Call-IDs that differ in one digit have to part.
fn hash(text: &str) -> u32 {
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let hash = (hash ^ (hash >> 16)).wrapping_mul(0x7feb_352d);
    let hash = (hash ^ (hash >> 15)).wrapping_mul(0x846c_a68b);
    hash ^ (hash >> 16)
}
