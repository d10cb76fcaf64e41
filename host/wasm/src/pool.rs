//! Instances: made on first use or ahead of it, kept warm, thrown away when they trap,
//! rest too long, or are in the way of others. Each worker has its own, so nothing here
//! locks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use sipbox_core::policy::{CallError, Hook, HookCall, HookFailure, HookInput, HookOutput};
use sipbox_core::time::WallTime;
use wasmtime::Store;

use crate::bindings::hooks::{
    branch_hook, dialog_hook, failure_hook, lifecycle, reply_hook, request_hook, route_hook,
};
use crate::chain::{Chain, PolicyVersion};
use crate::component::LoadError;
use crate::convert;
use crate::cx::{CallCx, FIRST_TICKS, Stop, on_deadline};
use crate::dialogs::check_name;
use crate::epoch::Mark;
use crate::limits::{Cost, thread_cpu};
use crate::view::LastView;

/// What a policy says that it is: the answer of `configure`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// One line about it.
    pub summary: String,
    /// Names of the variables that it shares with the chain.
    pub variables: Vec<String>,
}

/// A live instance in a store of its own: a trap poisons the store.
pub(crate) struct Instance {
    store: Store<CallCx>,
    route: Option<route_hook::Guest>,
    request: Option<request_hook::Guest>,
    branch: Option<branch_hook::Guest>,
    reply: Option<reply_hook::Guest>,
    failure: Option<failure_hook::Guest>,
    dialog: Option<dialog_hook::Guest>,
    /// Whether a trap has spoilt the store: it cannot serve another call.
    poisoned: bool,
    pub(crate) description: Description,
}

/// Names that a policy may declare.
const VARIABLES: usize = 64;

fn check_variables(names: &[String]) -> Result<(), LoadError> {
    let checked = match names.len() {
        0..=VARIABLES => names
            .iter()
            .try_for_each(|name| check_name("declared variable", name)),
        more => Err(CallError::Limit(format!("{more} declared variables"))),
    };
    checked.map_err(|error| LoadError::Settings(error.to_string()))
}

/// Bytes that one crossing may copy to the host. wasmtime's default of 128 MiB
/// lets a guest that returns the same string many times burn 57 ms.
const HOSTCALL_FUEL: usize = 256 << 10;
const HANDLES: usize = 1024;

impl Instance {
    /// Instantiates and configures.
    pub(crate) fn new(version: &PolicyVersion) -> Result<Self, LoadError> {
        let spec = &version.spec;
        let component = &spec.component;
        let mark = component.engine.ticker.mark();
        let _inside = mark.enter();
        let mut store = store(version).map_err(LoadError::Configure)?;
        let failed = |error: wasmtime::Error, store: &Store<CallCx>| match failure_of(&error, store)
        {
            HookFailure::Trap(text) => LoadError::Configure(HookFailure::Instantiate(text)),
            named => LoadError::Configure(named),
        };
        let instance = match component.pre.instantiate(&mut store) {
            Ok(instance) => instance,
            Err(error) => return Err(failed(error, &store)),
        };
        let mismatch = |error: wasmtime::Error| LoadError::Mismatch(format!("{error:#}"));
        macro_rules! load {
            ($hook:ident) => {
                component
                    .exports
                    .$hook
                    .as_ref()
                    .map(|indices| indices.load(&mut store, &instance))
                    .transpose()
                    .map_err(mismatch)?
            };
        }
        let lifecycle: Option<lifecycle::Guest> = load!(lifecycle);
        let route = load!(route);
        let request = load!(request);
        let branch = load!(branch);
        let reply = load!(reply);
        let failure = load!(failure);
        let dialog = load!(dialog);
        let description = match lifecycle {
            None => Description::default(),
            Some(lifecycle) => {
                store.data_mut().begin(None);
                store.set_epoch_deadline(FIRST_TICKS);
                let configured = lifecycle.call_configure(&mut store, &spec.settings);
                match configured {
                    Ok(Ok(d)) => {
                        check_variables(&d.variables)?;
                        store.data_mut().shared.clone_from(&d.variables);
                        Description {
                            name: d.name,
                            version: d.version,
                            summary: d.summary,
                            variables: d.variables,
                        }
                    }
                    Ok(Err(text)) => return Err(LoadError::Settings(text)),
                    Err(error) => return Err(failed(error, &store)),
                }
            }
        };
        version.stats.count_instance();
        Ok(Self {
            store,
            route,
            request,
            branch,
            reply,
            failure,
            dialog,
            poisoned: false,
            description,
        })
    }

    /// A new one that was called once with a message that is none.
    pub(crate) fn warm(version: &PolicyVersion) -> Result<Self, LoadError> {
        let mut instance = Self::new(version)?;
        let mark = version.spec.component.engine.ticker.mark();
        let mut dummy = crate::cx::placeholder()
            .map_err(|error| LoadError::Configure(HookFailure::Instantiate(error.to_string())))?;
        // A policy may trap on a message that is none: then a fresh one waits.
        let _ = instance.call(
            &HookInput::Request,
            &mut dummy,
            &mut LastView::default(),
            &mark,
        );
        if instance.poisoned {
            return Self::new(version);
        }
        Ok(instance)
    }

    /// Calls a hook; `call` and `view` are back in any case.
    pub(crate) fn call(
        &mut self,
        input: &HookInput,
        call: &mut Box<HookCall>,
        view: &mut LastView,
        mark: &Mark,
    ) -> Result<HookOutput, HookFailure> {
        let hook = hook_of(input);
        let checkpoint = call.checkpoint();
        let cx = self.store.data_mut();
        std::mem::swap(&mut cx.call, call);
        std::mem::swap(&mut cx.view, view);
        cx.begin(Some(hook));
        let max_bytes = cx.limits.output_bytes;
        self.store.set_epoch_deadline(FIRST_TICKS);
        let inside = mark.enter();
        let returned = self.enter(input);
        drop(inside);
        let result = match returned {
            Ok(returned) => finish(returned, max_bytes),
            Err(error) => {
                self.poisoned = true;
                Err(failure_of(&error, &self.store))
            }
        };
        let cx = self.store.data_mut();
        cx.flush_stdio();
        cx.hook = None;
        if result.is_err() {
            cx.call.undo(checkpoint);
        }
        std::mem::swap(&mut cx.call, call);
        std::mem::swap(&mut cx.view, view);
        result
    }

    fn enter(&mut self, input: &HookInput) -> wasmtime::Result<Returned> {
        let store = &mut self.store;
        Ok(match input {
            HookInput::Route => match &self.route {
                Some(hook) => {
                    hook.call_on_route(store)?;
                    Returned::Done
                }
                None => Returned::Absent,
            },
            HookInput::Request => match &self.request {
                Some(hook) => Returned::Verdict(hook.call_on_request(store)?),
                None => Returned::Absent,
            },
            HookInput::Branch(branch) => match &self.branch {
                Some(hook) => {
                    let target = convert::branch_target(&branch.target);
                    Returned::Branch(hook.call_on_branch(store, &target)?)
                }
                None => Returned::Absent,
            },
            HookInput::Reply => match &self.reply {
                Some(hook) => Returned::Reply(hook.call_on_reply(store)?),
                None => Returned::Absent,
            },
            HookInput::Failure(failure) => match &self.failure {
                Some(hook) => {
                    let failure = convert::failure(failure);
                    Returned::Verdict(hook.call_on_failure(store, &failure)?)
                }
                None => Returned::Absent,
            },
            HookInput::Dialog(event) => match &self.dialog {
                Some(hook) => {
                    hook.call_on_dialog(store, &convert::dialog_event(event))?;
                    Returned::Done
                }
                None => Returned::Absent,
            },
        })
    }

    /// Draws randomness from this seed instead of the calls' own.
    pub(crate) fn replay_seed(&mut self, seed: Option<[u8; 32]>) {
        self.store.data_mut().wasi.replayed_seed = seed;
    }

    /// CPU time of the last call, if it was a long one.
    fn long_cpu(&self) -> Option<Duration> {
        self.store.data().meter.used()
    }
}

enum Returned {
    Verdict(crate::bindings::wit::types::Verdict),
    Branch(branch_hook::BranchVerdict),
    Reply(reply_hook::ReplyVerdict),
    Done,
    Absent,
}

fn finish(returned: Returned, max_bytes: u32) -> Result<HookOutput, HookFailure> {
    Ok(match returned {
        Returned::Verdict(verdict) => HookOutput::Verdict(convert::verdict(verdict, max_bytes)?),
        Returned::Branch(verdict) => {
            HookOutput::Branch(matches!(verdict, branch_hook::BranchVerdict::Keep))
        }
        Returned::Reply(verdict) => {
            HookOutput::Reply(matches!(verdict, reply_hook::ReplyVerdict::Forward))
        }
        Returned::Done => HookOutput::Done,
        Returned::Absent => HookOutput::Absent,
    })
}

pub(crate) fn hook_of(input: &HookInput) -> Hook {
    match input {
        HookInput::Route => Hook::Route,
        HookInput::Request => Hook::Request,
        HookInput::Branch(_) => Hook::Branch,
        HookInput::Reply => Hook::Reply,
        HookInput::Failure(_) => Hook::Failure,
        HookInput::Dialog(_) => Hook::Dialog,
    }
}

fn store(version: &PolicyVersion) -> Result<Store<CallCx>, HookFailure> {
    let spec = &version.spec;
    let cx = CallCx::new(
        Arc::clone(&spec.name),
        spec.limits,
        spec.component.engine.random_key,
    )
    .map_err(|error| HookFailure::Instantiate(error.to_string()))?;
    let mut store = Store::new(&spec.component.engine.inner, cx);
    store.limiter(CallCx::limiter);
    store.set_hostcall_fuel(HOSTCALL_FUEL);
    store.set_max_component_handles(HANDLES);
    store.set_epoch_deadline(FIRST_TICKS);
    store.epoch_deadline_callback(on_deadline);
    Ok(store)
}

/// The reason behind wasmtime's error.
fn failure_of(error: &wasmtime::Error, store: &Store<CallCx>) -> HookFailure {
    if let Some(Stop(failure)) = error.downcast_ref::<Stop>() {
        return failure.clone();
    }
    if let Some(trap) = error.downcast_ref::<wasmtime::Trap>() {
        return HookFailure::Trap(trap.to_string());
    }
    let text = error.root_cause().to_string();
    // The type behind this text is private to wasmtime; a test pins the text.
    if text.contains(FUEL_EXHAUSTED) {
        return if store.data().hook.is_some() {
            HookFailure::Output
        } else {
            HookFailure::Instantiate(text)
        };
    }
    HookFailure::Trap(text)
}

const FUEL_EXHAUSTED: &str = "fuel allocated for hostcalls has been exhausted";

/// Adds what this costs in CPU time. Two system calls: only for what is rare.
fn metered<T>(cpu: &mut Duration, work: impl FnOnce() -> T) -> T {
    let begun = thread_cpu();
    let done = work();
    *cpu += thread_cpu().saturating_sub(begun);
    done
}

/// The instances of one policy version on one worker.
struct Pool {
    version: Weak<PolicyVersion>,
    // Calls on a worker come one after the other, so one instance serves; a
    // parked call will own its instance and another one is made beside it.
    idle: Vec<Instance>,
    calls: Arc<AtomicU64>,
    last_used: WallTime,
}

/// How long an instance may rest before it is thrown away.
const REST: Duration = Duration::from_secs(300);

/// Pools by the id of their policy version.
type ByVersion = HashMap<u64, Pool, foldhash::fast::RandomState>;

/// The instances of one worker, for all tenants.
pub struct Pools {
    pools: ByVersion,
    /// How many instances may live at a time.
    most: usize,
    /// Tells when this worker is in a guest; there since the first call.
    mark: Option<Arc<Mark>>,
    /// Whether guests let others go first.
    makes_way: bool,
    /// What the randomness of the last call came from, for recordings.
    pub(crate) last_seed: Option<[u8; 32]>,
    view: LastView,
}

impl Default for Pools {
    fn default() -> Self {
        Self::new()
    }
}

impl Pools {
    /// No instance yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            pools: HashMap::default(),
            most: usize::MAX,
            mark: None,
            makes_way: false,
            last_seed: None,
            view: LastView::default(),
        }
    }

    /// The same, for a thread whose guests let others go first at each tick: the
    /// scheduler may give a thread that wakes its processor only at the next tick of its
    /// own clock, which is four milliseconds on many a machine.
    #[must_use]
    pub fn making_way() -> Self {
        Self {
            makes_way: true,
            ..Self::new()
        }
    }

    /// The same with room for so many instances, at least one: where another is needed,
    /// the one whose policy was not called for the longest time goes. So the number of
    /// policies has no limit, and those that are in use stay warm.
    #[must_use]
    pub fn keeping(self, most: usize) -> Self {
        Self {
            most: most.max(1),
            ..self
        }
    }

    /// Takes an instance of every policy of a chain from its [stock](Chain::stock),
    /// or makes one, as far as there is room. Call it on the worker when a snapshot changes.
    ///
    /// # Errors
    /// For each policy that could not be made: its position and why.
    pub fn warm(&mut self, chain: &Chain, now: WallTime) -> Result<(), Vec<(usize, LoadError)>> {
        let mut errors = Vec::new();
        for (position, version) in chain.policies.iter().enumerate() {
            if let Err(error) = self.warm_one(version, now) {
                errors.push((position, error));
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }

    fn warm_one(&mut self, version: &Arc<PolicyVersion>, now: WallTime) -> Result<(), LoadError> {
        // Who comes into force makes nobody go who is in use.
        if self.instances() >= self.most || !pool_of(&mut self.pools, version, now).idle.is_empty()
        {
            return Ok(());
        }
        let instance = match version.take() {
            Some(instance) => instance,
            None => Instance::warm(version)?,
        };
        pool_of(&mut self.pools, version, now).idle.push(instance);
        Ok(())
    }

    /// Throws away instances whose chain is gone or which rested too long.
    pub fn sweep(&mut self, now: WallTime) {
        let rest = u64::try_from(REST.as_millis()).unwrap_or(u64::MAX);
        self.pools.retain(|_, pool| {
            if pool.version.strong_count() == 0 {
                return false;
            }
            if now.0.saturating_sub(pool.last_used.0) > rest {
                pool.idle.clear();
            }
            true
        });
    }

    /// Instances that live now.
    #[must_use]
    pub fn instances(&self) -> usize {
        self.pools.values().map(|pool| pool.idle.len()).sum()
    }

    /// Bytes of linear memory that they have. It never shrinks while an instance lives.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.pools
            .values()
            .flat_map(|pool| &pool.idle)
            .map(|instance| instance.store.data().memory())
            .sum()
    }

    pub(crate) fn call(
        &mut self,
        version: &Arc<PolicyVersion>,
        input: &HookInput,
        call: &mut Box<HookCall>,
    ) -> (Result<HookOutput, HookFailure>, Cost) {
        let mut pool = pool_of(&mut self.pools, version, call.facts.now);
        let ticker = &version.spec.component.engine.ticker;
        let mark = self.mark.get_or_insert_with(|| ticker.mark());
        // One writer: a plain add, without the bus lock of `fetch_add`.
        let calls = pool.calls.load(Ordering::Relaxed);
        pool.calls.store(calls.wrapping_add(1), Ordering::Relaxed);
        let mut cost = Cost::default();
        if pool.idle.is_empty() {
            metered(&mut cost.instance, || make_room(&mut self.pools, self.most));
            pool = pool_of(&mut self.pools, version, call.facts.now);
            pool.idle.extend(version.take());
        }
        if pool.idle.is_empty() {
            match metered(&mut cost.instance, || Instance::new(version)) {
                Ok(instance) => pool.idle.push(instance),
                Err(LoadError::Configure(failure)) => return (Err(failure), cost),
                Err(error) => return (Err(HookFailure::Instantiate(error.to_string())), cost),
            }
        }
        // Out of the pool: if a function of the host panics, the instance goes with whatever
        // the call had of leases.
        let Some(mut instance) = pool.idle.pop() else {
            return (
                Err(HookFailure::Instantiate("no instance".to_owned())),
                cost,
            );
        };
        instance.store.data_mut().makes_way = self.makes_way;
        if self.makes_way {
            mark.rouse();
        }
        let result = instance.call(input, call, &mut self.view, mark);
        cost.hook = instance.long_cpu();
        let seed = instance.store.data().wasi.seed();
        if instance.poisoned {
            metered(&mut cost.instance, || drop(instance));
        } else {
            pool.idle.push(instance);
        }
        self.last_seed = seed;
        (result, cost)
    }
}

/// Throws away instances until there is room for one more, those first whose policies
/// were not called for the longest time. Looks at all pools: an instance that is made
/// afterwards costs more.
fn make_room(pools: &mut ByVersion, most: usize) {
    let mut live: usize = pools.values().map(|pool| pool.idle.len()).sum();
    while live >= most {
        let resting = pools
            .values_mut()
            .filter(|pool| !pool.idle.is_empty())
            .min_by_key(|pool| pool.last_used);
        let Some(pool) = resting else { return };
        pool.idle.pop();
        live -= 1;
    }
}

fn pool_of<'a>(
    pools: &'a mut ByVersion,
    version: &Arc<PolicyVersion>,
    now: WallTime,
) -> &'a mut Pool {
    let pool = pools.entry(version.id).or_insert_with(|| Pool {
        version: Arc::downgrade(version),
        idle: Vec::new(),
        calls: version.stats.join(),
        last_used: now,
    });
    pool.last_used = now;
    pool
}
