//! The settings as the operator writes them, and what is worked out of them beforehand.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use sipbox_guest::settings::{NextHop, is_host};

use crate::{SCOPE, choice};

/// How a target is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// In turns, by weight.
    #[default]
    WeightedRoundRobin,
    /// The one with the least calls for its size.
    LeastCalls,
    /// By the Call-ID, and by weight over many calls.
    CallIdHash,
}

/// What the Request-URI becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RequestUri {
    /// It stays.
    #[default]
    Keep,
    /// It names the target.
    Target,
}

/// What becomes of requests of dialogs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InDialog {
    /// Those that bring our own Route back go on; others are refused.
    #[default]
    Ours,
    /// The policies behind decide.
    Next,
}

/// The settings; see the README.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    targets: Vec<TargetSettings>,
    #[serde(default)]
    algorithm: Algorithm,
    #[serde(default = "invite")]
    methods: Vec<String>,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    domains: Vec<String>,
    #[serde(default)]
    request_uri: RequestUri,
    #[serde(default)]
    in_dialog: InDialog,
    #[serde(default)]
    tries: usize,
    #[serde(default)]
    ring_timeout: u32,
    #[serde(default = "four_seconds")]
    fr_timeout: u32,
    #[serde(default = "six_hours")]
    timeout: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetSettings {
    uri: String,
    name: Option<String>,
    weight: Option<u32>,
    max_calls: Option<u32>,
    #[serde(default)]
    priority: i32,
}

fn invite() -> Vec<String> {
    vec!["INVITE".into()]
}

fn six_hours() -> u32 {
    21_600
}

fn four_seconds() -> u32 {
    4
}

/// Where calls are sent.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) hop: NextHop,
    /// What its calls are counted under.
    pub(crate) name: String,
    pub(crate) max_calls: Option<u32>,
    /// What the number of its calls is measured by.
    pub(crate) size: u32,
}

/// Targets that are as good as each other.
#[derive(Debug)]
pub(crate) struct Group {
    /// What its turns are counted under. Other targets or weights are another sequence.
    pub(crate) sequence: String,
    /// Whose turn it is, one after the other and from the start again.
    pub(crate) turns: Vec<usize>,
    /// How many have turns.
    pub(crate) active: usize,
    /// Those that have none.
    pub(crate) idle: Vec<usize>,
}

impl Group {
    /// All of its targets; one may come several times.
    pub(crate) fn members(&self) -> impl Iterator<Item = &usize> {
        self.turns.iter().chain(&self.idle)
    }
}

/// The settings, ready for use.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) targets: Vec<Target>,
    /// The best first.
    pub(crate) groups: Vec<Group>,
    pub(crate) algorithm: Algorithm,
    pub(crate) methods: Vec<String>,
    pub(crate) users: Vec<String>,
    pub(crate) domains: Vec<String>,
    pub(crate) request_uri: RequestUri,
    pub(crate) in_dialog: InDialog,
    /// How many targets get to see a call at most.
    pub(crate) tries: usize,
    /// Milliseconds.
    pub(crate) ring_timeout: u32,
    /// Milliseconds.
    pub(crate) fr_timeout: u32,
    /// Seconds that a call which is counted may last, as the host's option has it.
    pub(crate) timeout: String,
}

impl Checked {
    /// Whether calls to this target are counted.
    pub(crate) fn counts(&self, target: &Target) -> bool {
        self.algorithm == Algorithm::LeastCalls || target.max_calls.is_some()
    }
}

/// Targets that there may be: each has its load read for each call.
const MOST_TARGETS: usize = 100;
/// Turns until all weights have had their share.
const MOST_TURNS: u32 = 1000;
/// A failure hook may go on so many times.
const MOST_TRIES: usize = 32;

impl Settings {
    pub(crate) fn check(self) -> Result<Checked, String> {
        let count = self.targets.len();
        if count == 0 {
            return Err("`targets` names none".into());
        }
        if count > MOST_TARGETS {
            return Err(format!("{count} `targets`: {MOST_TARGETS} at most"));
        }
        if self.timeout == 0 {
            return Err("`timeout` is 0: every call would end at once".into());
        }
        let ring_timeout = milliseconds("ring_timeout", self.ring_timeout)?;
        let fr_timeout = milliseconds("fr_timeout", self.fr_timeout)?;
        if self.methods.is_empty() {
            return Err("`methods` is empty: nothing would be balanced".into());
        }
        for method in &self.methods {
            if ["ACK", "CANCEL", "BYE"].contains(&method.as_str()) || !is_token(method) {
                return Err(format!("`methods`: `{method}` begins nothing"));
            }
        }
        if let Some(domain) = self.domains.iter().find(|domain| !is_host(domain)) {
            return Err(format!("`domains`: `{domain}` is no host"));
        }
        if self.users.iter().any(String::is_empty) {
            return Err("`users`: an empty one; leave the list out for everybody".into());
        }
        let mut groups = BTreeMap::<i32, Vec<usize>>::new();
        let mut names = BTreeSet::new();
        let mut targets = Vec::with_capacity(count);
        for (position, target) in self.targets.iter().enumerate() {
            groups.entry(target.priority).or_default().push(position);
            let checked =
                checked(target).map_err(|reason| format!("target {}: {reason}", position + 1))?;
            if !names.insert(checked.name.clone()) {
                let name = &checked.name;
                return Err(format!("target {}: `{name}` is named twice", position + 1));
            }
            targets.push(checked);
        }
        let mut made = Vec::with_capacity(groups.len());
        // The highest first.
        for (priority, members) in groups.into_iter().rev() {
            let group = self
                .group(priority, members)
                .map_err(|reason| format!("targets of priority {priority}: {reason}"))?;
            made.push(group);
        }
        let all = count.min(MOST_TRIES);
        Ok(Checked {
            targets,
            groups: made,
            algorithm: self.algorithm,
            methods: self.methods,
            users: self.users,
            domains: self.domains,
            request_uri: self.request_uri,
            in_dialog: self.in_dialog,
            tries: if self.tries == 0 {
                all
            } else {
                self.tries.min(all)
            },
            ring_timeout,
            fr_timeout,
            timeout: self.timeout.to_string(),
        })
    }

    /// A name that another balancer of the chain does not have, and that is the same after a
    /// reload which leaves the targets as they were.
    fn sequence<'a>(
        &self,
        priority: i32,
        targets: impl Iterator<Item = &'a TargetSettings>,
    ) -> String {
        let selected = [&self.methods, &self.users, &self.domains];
        let mut lines: Vec<String> = selected.iter().map(|list| list.join(" ")).collect();
        lines.extend(targets.map(|t| format!("{} {}", t.uri, t.weight.unwrap_or(1))));
        format!("{SCOPE}/{priority}/{:08x}", choice::hash(&lines.join("\n")))
    }

    fn group(&self, priority: i32, members: Vec<usize>) -> Result<Group, String> {
        let of = |member: &usize| self.targets.get(*member);
        let sequence = self.sequence(priority, members.iter().filter_map(of));
        if self.algorithm == Algorithm::LeastCalls {
            let sized = |target: &TargetSettings| target.max_calls.is_some();
            let some = members.iter().filter_map(of).filter(|t| sized(t)).count();
            if some > 0 && some < members.len() {
                return Err(
                    "some have `max_calls` and some not, so their loads cannot be compared".into(),
                );
            }
            let both = |target: &&TargetSettings| sized(target) && target.weight.is_some();
            if let Some(target) = members.iter().filter_map(of).find(both) {
                let uri = &target.uri;
                return Err(format!(
                    "`{uri}` has `weight` and `max_calls`: the load is measured by `max_calls`"
                ));
            }
            return Ok(Group {
                sequence,
                active: members.len(),
                turns: members,
                idle: Vec::new(),
            });
        }
        let weights: Vec<u32> = members
            .iter()
            .filter_map(of)
            .map(|target| target.weight.unwrap_or(1))
            .collect();
        let turns: Vec<usize> = turns(&weights)?
            .into_iter()
            .filter_map(|turn| members.get(turn).copied())
            .collect();
        let idle: Vec<usize> = members
            .iter()
            .copied()
            .filter(|member| !turns.contains(member))
            .collect();
        Ok(Group {
            sequence,
            active: members.len() - idle.len(),
            turns,
            idle,
        })
    }
}

fn checked(target: &TargetSettings) -> Result<Target, String> {
    let hop = NextHop::parse(&target.uri)?;
    if target.max_calls == Some(0) {
        return Err("`max_calls` is 0; leave it out for no limit".into());
    }
    let size = target.max_calls.or(target.weight).unwrap_or(1).max(1);
    let name = target.name.clone().unwrap_or_else(|| target.uri.clone());
    if name.is_empty() || name.len() > 128 || name.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(format!("`{name}` is no name"));
    }
    Ok(Target {
        hop,
        name,
        max_calls: target.max_calls,
        size,
    })
}

fn milliseconds(name: &str, seconds: u32) -> Result<u32, String> {
    let milliseconds = seconds.checked_mul(1000);
    milliseconds.ok_or_else(|| format!("`{name}` {seconds} is too long"))
}

fn is_token(text: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte);
    !text.is_empty() && text.bytes().all(token)
}

/// Smooth weighted round robin: in each turn everybody gains its weight, and the richest
/// is chosen and pays what all have gained. So 5, 1, 1 comes out as a a b a c a a. It
/// repeats after as many turns as the weights come to, which is why it can be written down
/// once; who weighs nothing never has a turn.
fn turns(weights: &[u32]) -> Result<Vec<usize>, String> {
    let divisor = weights.iter().copied().fold(0, gcd);
    if divisor == 0 {
        return Err("no one has a `weight`".into());
    }
    let weights: Vec<i64> = weights
        .iter()
        .map(|weight| i64::from(weight / divisor))
        .collect();
    let all: i64 = weights.iter().sum();
    if all > i64::from(MOST_TURNS) {
        return Err(format!(
            "the `weight`s come to {all} without their common divisor: {MOST_TURNS} at most"
        ));
    }
    let mut gained = vec![0_i64; weights.len()];
    let mut turns = Vec::new();
    for _ in 0..all {
        let mut richest: Option<(usize, i64)> = None;
        for (at, (gained, weight)) in gained.iter_mut().zip(&weights).enumerate() {
            *gained += weight;
            if *weight > 0 && richest.is_none_or(|(_, most)| *gained > most) {
                richest = Some((at, *gained));
            }
        }
        if let Some((at, _)) = richest {
            if let Some(gained) = gained.get_mut(at) {
                *gained -= all;
            }
            turns.push(at);
        }
    }
    Ok(turns)
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_smooth_and_in_proportion() {
        assert_eq!(turns(&[5, 1, 1]).unwrap(), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(turns(&[30, 10]).unwrap(), [0, 0, 1, 0]);
        assert_eq!(turns(&[0, 7]).unwrap(), [1]);
        let long = turns(&[600, 399, 1]).unwrap();
        let of = |who| long.iter().filter(|turn| **turn == who).count();
        assert_eq!((of(0), of(1), of(2)), (600, 399, 1));
        assert!(turns(&[0, 0]).unwrap_err().contains("weight"));
        assert!(turns(&[1000, 1]).unwrap_err().contains("1001"));
    }
}
