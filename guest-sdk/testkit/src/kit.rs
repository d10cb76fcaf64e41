//! Configures a policy and calls its hooks.

use std::cell::RefCell;
use std::fmt::Debug;

use sipbox_guest::export::Slot;
use sipbox_guest::sys::with_host;
use sipbox_guest::{BranchVerdict, DialogEvent, Failure, Policy, ReplyVerdict, Target, Verdict};

use crate::call::Call;
use crate::checks::{check_name, check_options, check_route_param, check_uri, check_value};
use crate::live::{Hook, Live};
use crate::record::{Recorder, Replay, shared};
use crate::run::{Effect, Run};
use crate::world::World;

/// A configured policy and the world that it lives in.
pub struct Kit<P> {
    settings: String,
    instance: Slot<P>,
    world: RefCell<World>,
}

impl<P: Policy> Kit<P> {
    /// Configures the policy with settings as JSON, in an empty world.
    ///
    /// # Panics
    /// When the policy refuses them.
    #[track_caller]
    #[must_use]
    pub fn new(settings: impl ToString) -> Self {
        match Self::configured(settings) {
            Ok(kit) => kit,
            Err(reason) => panic!("the settings are refused: {reason}"),
        }
    }

    /// Configures the policy with settings as JSON, in an empty world.
    ///
    /// # Errors
    /// The text with which the policy refuses them.
    pub fn configured(settings: impl ToString) -> Result<Self, String> {
        let settings = settings.to_string();
        let instance = Slot::new();
        instance.configure(&settings)?;
        Ok(Self {
            settings,
            instance,
            world: RefCell::new(World::new()),
        })
    }

    /// Puts the policy in a world.
    #[must_use]
    pub fn in_world(mut self, world: World) -> Self {
        self.world = RefCell::new(world);
        self
    }

    /// The world as it is now.
    #[must_use]
    pub fn world(&self) -> World {
        self.world.borrow().clone()
    }

    /// Calls `on_route`.
    ///
    /// # Panics
    /// When a replay on a fresh instance does something else.
    #[track_caller]
    pub fn on_route(&self, call: Call) -> Run<()> {
        self.run(Hook::Route, call, Slot::on_route)
    }

    /// Calls `on_request`. What the hook staged is committed to the world.
    ///
    /// # Panics
    /// When the verdict would make an ill-formed message, or a replay on a fresh
    /// instance decides differently.
    #[track_caller]
    pub fn on_request(&self, call: Call) -> Run {
        let run = self.run(Hook::Request, call, Slot::on_request);
        check_verdict(&run.verdict);
        run
    }

    /// Calls `on_branch`.
    ///
    /// # Panics
    /// When a replay on a fresh instance decides differently.
    #[track_caller]
    pub fn on_branch(&self, call: Call, target: &Target) -> Run<BranchVerdict> {
        self.run(Hook::Branch, call, |instance| instance.on_branch(target))
    }

    /// Calls `on_reply`; the call is a response, see [`Call::response`].
    ///
    /// # Panics
    /// When a replay on a fresh instance decides differently.
    #[track_caller]
    pub fn on_reply(&self, call: Call) -> Run<ReplyVerdict> {
        self.run(Hook::Reply, call, Slot::on_reply)
    }

    /// Calls `on_failure`.
    ///
    /// # Panics
    /// When the verdict would make an ill-formed message, or a replay on a fresh
    /// instance decides differently.
    #[track_caller]
    pub fn on_failure(&self, call: Call, failure: &Failure) -> Run {
        let run = self.run(Hook::Failure, call, |instance| instance.on_failure(failure));
        check_verdict(&run.verdict);
        run
    }

    /// Calls `on_dialog`.
    ///
    /// # Panics
    /// When a replay on a fresh instance does something else.
    #[track_caller]
    pub fn on_dialog(&self, event: &DialogEvent) -> Run<()> {
        let call = Call::request("INVITE", &event.to_uri);
        self.run(Hook::Dialog, call, |instance| instance.on_dialog(event))
    }

    #[track_caller]
    fn run<V: Clone + Debug + PartialEq>(
        &self,
        hook: Hook,
        mut call: Call,
        ask: impl Fn(&Slot<P>) -> V,
    ) -> Run<V> {
        let live = Live::new(hook, call.clone(), self.world());
        let (own, lent) = shared(Recorder {
            inner: live,
            recording: Default::default(),
        });
        let verdict = with_host(lent, || ask(&self.instance));
        let Some(Recorder { inner, recording }) =
            std::rc::Rc::into_inner(own).map(RefCell::into_inner)
        else {
            panic!("the policy kept the host");
        };

        // Every run is also a test of determinism: a fresh instance that gets
        // the same answers has to ask the same and decide the same.
        let fresh = Slot::new();
        if let Err(reason) = fresh.configure(&self.settings) {
            panic!("a second instance refuses the settings: {reason}");
        }
        let (replay, lent) = shared(Replay::new(&recording));
        let again = with_host(lent, || ask(&fresh));
        assert_eq!(
            again, verdict,
            "the replay on a fresh instance decides differently"
        );
        assert_eq!(
            replay.borrow().left(),
            0,
            "the replay asks less than the recorded run"
        );

        self.commit(&inner.effects, call.seconds);
        // What was counted counts, whatever becomes of the call.
        let counted = inner.world.shared;
        let mut world = self.world.borrow_mut();
        world.shared.counters = counted.counters;
        world.shared.sequences = counted.sequences;
        drop(world);
        call.vars = inner.vars.clone().into_iter().collect();
        call.authenticated_user = inner.authenticated_user;
        call.nat = inner.nat.clone();
        call.dialog.clone_from(&inner.dialog);
        call.leases.clone_from(&inner.call.leases);
        Run {
            verdict,
            edits: inner.edits,
            logs: inner.logs,
            armed: inner.armed,
            effects: inner.effects,
            vars: inner.vars,
            route_params: inner.route_params,
            record_route: inner.record_route,
            nat: inner.nat,
            dialog: inner.dialog,
            leases: inner.call.leases,
            recording,
            call,
        }
    }

    fn commit(&self, effects: &[Effect], now: u32) {
        let mut world = self.world.borrow_mut();
        for effect in effects {
            match effect {
                Effect::Challenge { .. } => {}
                Effect::Kv {
                    key,
                    value,
                    ttl,
                    version,
                } => {
                    let value = value.as_deref();
                    world.shared.write(key, value, (*ttl, now), *version);
                }
                Effect::Save { aor, bindings, .. } => {
                    world.bindings.insert(aor.clone(), bindings.clone());
                }
                Effect::Remove { aor } => {
                    world.bindings.remove(aor);
                }
                Effect::Acquire { scope, key } => {
                    let held = world.leases.entry((scope.clone(), key.clone()));
                    *held.or_default() += 1;
                }
                Effect::Release { scope, key } => {
                    let held = world.leases.entry((scope.clone(), key.clone()));
                    let held = held.or_default();
                    *held = held.saturating_sub(1);
                }
            }
        }
    }
}

/// What the host would refuse as `bad-verdict`.
#[track_caller]
fn check_verdict(verdict: &Verdict) {
    let checked = match verdict {
        Verdict::Next | Verdict::Drop => Ok(()),
        Verdict::Reply(reply) | Verdict::ReplyStateless(reply) => {
            assert!(
                (200..700).contains(&reply.status),
                "status {}",
                reply.status
            );
            reply.headers.iter().try_fold((), |(), header| {
                check_name(&header.name)?;
                check_value(&header.name, &header.value)
            })
        }
        Verdict::Relay(plan) => plan
            .record_route
            .iter()
            .flatten()
            .try_fold((), |(), (name, value)| check_route_param(name, value))
            .and(check_options(&plan.options, FORWARDING))
            .and(
                plan.groups
                    .iter()
                    .flatten()
                    .try_fold((), |(), target| check_target(target)),
            ),
        Verdict::Redirect(targets) => targets
            .iter()
            .try_fold((), |(), target| check_target(target)),
        Verdict::ForwardStateless(target) => {
            check_options(&target.options, FORWARDING).and(check_target(target))
        }
    };
    if let Err(error) = checked {
        panic!("the host would refuse this verdict: {error:?}");
    }
}

/// Options of what forwards a request.
const FORWARDING: &[(&str, &[&str])] = &[("preloaded", &["follow", "strip"])];

fn check_target(target: &Target) -> Result<(), sipbox_guest::Error> {
    use sipbox_guest::{Destination, Error};
    if target.q > 1000 {
        return Err(Error::Malformed(format!("q {}", target.q)));
    }
    match &target.destination {
        Destination::Uri(uri) => {
            check_uri(&uri.uri)?;
            if uri.next_hop.is_empty() {
                Ok(())
            } else {
                check_uri(&uri.next_hop)
            }
        }
        Destination::Registered(aor) if aor.contains('@') => Ok(()),
        Destination::Registered(aor) => Err(Error::Malformed(format!("address of record `{aor}`"))),
        Destination::Set(_) => Ok(()),
    }
}
