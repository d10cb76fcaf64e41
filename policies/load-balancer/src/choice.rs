//! In which order targets are asked whether they have room.

use sipbox_guest::{Error, Request, warn};
use sipbox_guest::{counters, leases};

use crate::SCOPE;
use crate::settings::{Algorithm, Checked, Group};

/// Which turn of a group a request has. With weights, what begins a dialog has one of its
/// own, counted over all workers, so that the shares come out even. Else it follows from
/// the Call-ID: what comes again goes where it went.
pub(crate) fn turn(settings: &Checked, group: &Group, request: &Request) -> u32 {
    let begins = matches!(request.method(), "INVITE" | "SUBSCRIBE" | "REFER");
    if begins && settings.algorithm != Algorithm::CallIdHash {
        match counters::sequence(&group.sequence) {
            Ok(number) => return number,
            Err(reason) => warn!("turns go by Call-ID: {reason:?}"),
        }
    }
    hash(request.call_id())
}

/// The targets of a group that have not had the call, the best first.
pub(crate) fn order(
    settings: &Checked,
    group: &Group,
    turn: u32,
    tried: &[usize],
) -> Result<Vec<usize>, Error> {
    let mut order = in_turns(group, turn, tried);
    if settings.algorithm == Algorithm::LeastCalls {
        by_load(settings, &mut order)?;
    }
    Ok(order)
}

/// From the one whose turn it is, as the turns come; then who never has one.
fn in_turns(group: &Group, turn: u32, tried: &[usize]) -> Vec<usize> {
    let mut order = Vec::with_capacity(group.active + group.idle.len());
    let length = size(group.turns.len());
    let place = turn.checked_rem(length).unwrap_or(0);
    let tried_of = |at: &&usize| group.turns.contains(at);
    let left = group.active - tried.iter().filter(tried_of).count();
    if left == group.active {
        distinct(&group.turns, place, left, &mut order);
    } else {
        // The turns of the others. Where a call begins in them moves on by one with each
        // round, so that what one target cannot take falls to the others by weight too.
        let of_others: Vec<usize> = (group.turns.iter().copied())
            .filter(|at| !tried.contains(at))
            .collect();
        let round = turn.checked_div(length).unwrap_or(0);
        let place = place.wrapping_add(round).checked_rem(size(of_others.len()));
        distinct(&of_others, place.unwrap_or(0), left, &mut order);
    }
    order.extend(group.idle.iter().filter(|at| !tried.contains(at)));
    order
}

/// So many that differ, from a place on.
fn distinct(turns: &[usize], place: u32, count: usize, order: &mut Vec<usize>) {
    let place = usize::try_from(place).unwrap_or(0);
    let (before, from) = turns.split_at_checked(place).unwrap_or_default();
    for at in from.iter().chain(before) {
        if order.len() == count {
            return;
        }
        if !order.contains(at) {
            order.push(*at);
        }
    }
}

fn size(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
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
pub(crate) fn hash(text: &str) -> u32 {
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let hash = (hash ^ (hash >> 16)).wrapping_mul(0x7feb_352d);
    let hash = (hash ^ (hash >> 15)).wrapping_mul(0x846c_a68b);
    hash ^ (hash >> 16)
}
