//! Load balancer: spreads calls over targets, in turns by weight or to the one with the least
//! calls for its size, and goes on to the next one where a target fails.
//!
//! How many calls a target has is counted by leases, and whose turn it is by a sequence, in
//! one step over all workers: a target that is full is passed over, no call is counted twice
//! or forgotten, and weights hold exactly. Nothing is kept here between calls, so any
//! instance on any worker may serve any message.

mod choice;
mod settings;

use sipbox_guest::dialogs::{self, CreateFlags};
use sipbox_guest::leases::{self, Outcome};
use sipbox_guest::verdict::{uri, uri_via};
use sipbox_guest::{Error, Failure, Hooks, Policy, Request, Verdict, error, export, warn};

pub use settings::{Algorithm, InDialog, RequestUri, Settings};

use settings::{Checked, Target};

/// The scope of the leases.
const SCOPE: &str = "load-balancer";
/// The name of the target that has the call, for other policies.
const TARGET: &str = "load-balancer.target";
/// What the failure hook has to know: the lease, the targets that had the call, the turn.
const STATE: &str = "load-balancer.state";

/// The policy.
pub struct LoadBalancer {
    settings: Checked,
}

impl Policy for LoadBalancer {
    type Settings = Settings;

    const VARIABLES: &'static [&'static str] = &[TARGET];

    fn configure(settings: Settings) -> Result<Self, String> {
        Ok(Self {
            settings: settings.check()?,
        })
    }

    fn on_request(&self, request: &Request) -> Verdict {
        if request.in_dialog() {
            // They follow the route set that the dialog was made with.
            return match self.settings.in_dialog {
                InDialog::Next => Verdict::Next,
                InDialog::Ours => Verdict::astray(request).unwrap_or(Verdict::Next),
            };
        }
        if !self.is_for_us(request) {
            return Verdict::Next;
        }
        self.begin(request).unwrap_or_else(|reason| broken(&reason))
    }

    fn on_failure(&self, request: &Request, failure: &Failure) -> Verdict {
        let status = failure
            .failed
            .last()
            .map_or(failure.status, |target| target.status);
        if failure.cancelled || !is_out_of_order(status) {
            return Verdict::Next;
        }
        self.go_on(request, status)
            .unwrap_or_else(|reason| broken(&reason))
    }
}

/// Whether the next target may know better: this one said nothing, cannot be reached or
/// failed. What a callee says (404, 486, 6xx and the rest) it would say behind each of them.
fn is_out_of_order(status: u16) -> bool {
    status == 408 || (500..600).contains(&status)
}

fn broken(reason: &Error) -> Verdict {
    error!("calls cannot be balanced: {reason:?}");
    Verdict::reply(500).into()
}

/// What the failure hook has to know.
#[derive(Debug, Default)]
struct State {
    /// That of the target that has the call.
    lease: Option<u32>,
    /// Targets that had it, the last one included.
    tried: Vec<usize>,
    /// The group of targets where it has a turn, and which.
    turn: Option<(usize, u32)>,
}

impl State {
    /// `lease;first,second;group:turn`, where `-` is no lease or no turn.
    fn read(text: &str) -> Self {
        let mut parts = text.split(';');
        let mut next = || parts.next().unwrap_or_default();
        let (lease, tried, turn) = (next(), next(), next());
        let turn = turn.split_once(':');
        Self {
            lease: lease.parse().ok(),
            tried: tried.split(',').filter_map(|at| at.parse().ok()).collect(),
            turn: turn.and_then(|(group, turn)| Some((group.parse().ok()?, turn.parse().ok()?))),
        }
    }

    fn write(&self) -> String {
        // Written for each call: `format!` takes five times as long.
        let mut text = String::with_capacity(32);
        match self.lease {
            Some(lease) => text.push_str(&lease.to_string()),
            None => text.push('-'),
        }
        for (number, at) in self.tried.iter().enumerate() {
            text.push(if number == 0 { ';' } else { ',' });
            text.push_str(&at.to_string());
        }
        if self.tried.is_empty() {
            text.push(';');
        }
        match self.turn {
            Some((group, turn)) => {
                text.push(';');
                text.push_str(&group.to_string());
                text.push(':');
                text.push_str(&turn.to_string());
            }
            None => text.push_str(";-"),
        }
        text
    }
}

impl LoadBalancer {
    fn is_for_us(&self, request: &Request) -> bool {
        let (settings, to) = (&self.settings, request.request_uri());
        let user = to.user().unwrap_or_default();
        let named = |name: &String| match name.strip_suffix('*') {
            Some(prefix) => user.starts_with(prefix),
            None => name == user,
        };
        let method = request.method();
        settings.methods.iter().any(|known| known == method)
            && (settings.users.is_empty() || settings.users.iter().any(named))
            && (settings.domains.is_empty()
                || (settings.domains.iter()).any(|known| known.eq_ignore_ascii_case(to.host())))
    }

    fn begin(&self, request: &Request) -> Result<Verdict, Error> {
        if request.method() == "INVITE" {
            // The lease lasts as long as the call, which is a dialog; and only one that the
            // host knows tells later requests from those of somebody who had a call.
            let options = [("timeout", self.settings.timeout.as_str())];
            dialogs::create_with(CreateFlags::BYE_ON_TIMEOUT, &options)?;
        }
        match self.send(request, State::default())? {
            Some(verdict) => Ok(verdict),
            None => {
                warn!("all targets have as many calls as they may have");
                Ok(Verdict::reply(503).reason("All Targets Full").into())
            }
        }
    }

    fn go_on(&self, request: &Request, status: u16) -> Result<Verdict, Error> {
        let mut state = State::read(&request.var(STATE).unwrap_or_default());
        let failed = state.tried.last().and_then(|at| self.target(*at));
        let Some(failed) = failed else {
            return Ok(Verdict::Next);
        };
        warn!("target {} failed with {status}", failed.name);
        if let Some(lease) = state.lease.take() {
            leases::release(lease)?;
        }
        if state.tried.len() < self.settings.tries
            && let Some(verdict) = self.send(request, state)?
        {
            return Ok(verdict);
        }
        Ok(Verdict::reply(503).reason("No Target Left").into())
    }

    fn target(&self, at: usize) -> Option<&Target> {
        self.settings.targets.get(at)
    }

    /// The next target that has not had the call and has room for it. A group is asked for
    /// a turn when those before it have nobody left, and once for each call.
    fn choose(&self, request: &Request, state: &mut State) -> Result<Option<&Target>, Error> {
        let invite = request.method() == "INVITE";
        for (number, group) in self.settings.groups.iter().enumerate() {
            if group.members().all(|member| state.tried.contains(member)) {
                continue;
            }
            let turn = match state.turn {
                Some((known, turn)) if known == number => turn,
                _ => choice::turn(&self.settings, group, request),
            };
            state.turn = Some((number, turn));
            for at in choice::order(&self.settings, group, turn, &state.tried)? {
                let Some(target) = self.target(at) else {
                    continue;
                };
                if invite && self.settings.counts(target) {
                    let limit = target.max_calls.unwrap_or(u32::MAX);
                    match leases::acquire(SCOPE, &target.name, limit)? {
                        Outcome::Granted(lease) => state.lease = Some(lease),
                        Outcome::Full(_) => continue,
                    }
                }
                state.tried.push(at);
                return Ok(Some(target));
            }
        }
        Ok(None)
    }

    /// Relays to the next target.
    fn send(&self, request: &Request, mut state: State) -> Result<Option<Verdict>, Error> {
        let Some(target) = self.choose(request, &mut state)? else {
            return Ok(None);
        };
        request.set_var(TARGET, &target.name)?;
        request.set_var(STATE, &state.write())?;
        request.arm(Hooks::FAILURE)?;
        let asked = request.request_uri();
        let to = match self.settings.request_uri {
            RequestUri::Keep => uri_via(asked.text(), target.hop.text()),
            RequestUri::Target => uri(target.hop.with_user(asked.user())),
        };
        let mut relay = Verdict::relay()
            .to(to)
            .fr_timeout(self.settings.fr_timeout)
            .ring_timeout(self.settings.ring_timeout);
        if matches!(request.method(), "INVITE" | "SUBSCRIBE" | "REFER") {
            relay = relay.record_route();
        }
        Ok(Some(relay.into()))
    }
}

export!(LoadBalancer, hooks = [request, failure]);

#[cfg(test)]
mod tests {
    use super::State;

    #[test]
    fn the_state_is_read_as_it_was_written() {
        for (state, text) in [
            (State::default(), "-;;-"),
            (
                State {
                    lease: Some(7),
                    tried: vec![2],
                    turn: Some((0, u32::MAX)),
                },
                "7;2;0:4294967295",
            ),
            (
                State {
                    lease: None,
                    tried: vec![10, 0, 3],
                    turn: None,
                },
                "-;10,0,3;-",
            ),
        ] {
            assert_eq!(state.write(), text);
            let read = State::read(text);
            assert_eq!(
                (read.lease, read.tried, read.turn),
                (state.lease, state.tried, state.turn)
            );
        }
    }
}
