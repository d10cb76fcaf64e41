//! Recordings of hook calls: what went in, what each capability answered, what
//! came out. A recording is JSON; on a fresh instance it replays to the same
//! verdict and edits, because all that a policy can see is in it.

mod answers;
mod dialogs;
mod inputs;
mod shared;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sipbox_core::dialog::Validity;
use sipbox_core::lease::Acquired;
use sipbox_core::policy::{
    AuthOutcome, BindingView, CallError, Capabilities, DialogView, HookCall, HookFailure,
    HookInput, HookOutput, LogLevel, PolicyHost, Realm, SaveLimits, SaveOutcome,
};
use sipbox_core::shared::{
    Answer as Reply, Change, CounterName, Entry, Expected, Hold, Staged, Swap, Taken,
};

use self::answers::{Answer, Asked};
use self::inputs::{CallRecord, FactsRecord, Input, Wire};
use self::shared::WriteRecord;
use crate::chain::{PolicySpec, PolicyVersion};
use crate::component::{LoadError, Policy};
use crate::host::ChainHost;
use crate::limits::Limits;
use crate::pool::Instance;
use crate::stats::PolicyStats;

/// One hook call of one policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recording {
    /// The policy's name in the configuration.
    pub policy: String,
    /// SHA-256 of the component, in hexadecimal.
    pub component: String,
    /// The settings, as JSON.
    pub settings: String,
    input: Input,
    request: Wire,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response: Option<Wire>,
    facts: FactsRecord,
    before: CallRecord,
    /// What earlier policies of the chain wrote to `kv`, not committed yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    staged: Vec<WriteRecord>,
    /// What the guest's randomness came from, if it used any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seed: Option<String>,
    answers: Vec<Answer>,
    /// Lines of log: level and text.
    pub log: Vec<(String, String)>,
    /// What came out.
    pub outcome: Outcome,
}

/// What came out of a call, in words that can be compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The verdict, or the reason why there is none.
    pub verdict: Result<String, String>,
    /// The staged edits in their order.
    pub edits: Vec<String>,
    /// The staged writes in their order.
    pub effects: Vec<String>,
    after: CallRecord,
}

impl Outcome {
    /// `earlier` effects are of policies before this one.
    fn of(result: &Result<HookOutput, HookFailure>, call: &HookCall, earlier: usize) -> Self {
        Self {
            verdict: match result {
                Ok(output) => Ok(format!("{output:?}")),
                Err(failure) => Err(failure.to_string()),
            },
            edits: call.edits.iter().map(|edit| format!("{edit:?}")).collect(),
            effects: call
                .effects
                .iter()
                .skip(earlier)
                .map(|effect| format!("{effect:?}"))
                .collect(),
            after: CallRecord::of(call),
        }
    }
}

/// How a replay differs from its recording.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Difference {
    /// No instance could be made.
    #[error("no instance: {0}")]
    Instance(#[from] LoadError),
    /// The recording cannot be read back.
    #[error("unreadable recording: {0}")]
    Recording(String),
    /// A capability was asked something else than in the recording.
    #[error("asked {asked}, recorded {recorded}")]
    Asked {
        /// What the replay asked.
        asked: String,
        /// What the recording has there.
        recorded: String,
    },
    /// Another verdict, other edits, other effects.
    #[error("came out as {replayed:?}, recorded {recorded:?}")]
    Outcome {
        /// Of the recording.
        recorded: Box<Outcome>,
        /// Of the replay.
        replayed: Box<Outcome>,
    },
    /// Other lines of log.
    #[error("logged {replayed:?}, recorded {recorded:?}")]
    Log {
        /// Of the recording.
        recorded: Vec<(String, String)>,
        /// Of the replay.
        replayed: Vec<(String, String)>,
    },
}

/// Calls policies and keeps a recording of each call.
pub struct Recorder<'a, 'b> {
    host: &'a mut ChainHost<'b>,
    /// What was recorded so far.
    pub recordings: Vec<Recording>,
}

impl<'a, 'b> Recorder<'a, 'b> {
    /// Records the calls that go through it to `host`.
    #[must_use]
    pub fn new(host: &'a mut ChainHost<'b>) -> Self {
        Self {
            host,
            recordings: Vec::new(),
        }
    }
}

impl PolicyHost for Recorder<'_, '_> {
    fn call(
        &mut self,
        policy: usize,
        input: HookInput,
        call: &mut HookCall,
    ) -> Result<HookOutput, HookFailure> {
        let Some(version) = self.host.chain().policies.get(policy) else {
            return self.host.call(policy, input, call);
        };
        let spec = version.spec.clone();
        let recorded = Input::from(&input);
        let before = CallRecord::of(call);
        let (staged, earlier) = (WriteRecord::all(call), call.effects.len());
        let request = Wire::of(call.request.buffer());
        let response = call
            .response
            .as_ref()
            .map(|response| Wire::of(response.buffer()));
        let facts = FactsRecord::from(&*call.facts);

        let tape = Arc::new(Tape {
            inner: Arc::clone(&call.capabilities),
            answers: Arc::default(),
            log: Mutex::default(),
        });
        let inner = std::mem::replace(
            &mut call.capabilities,
            Arc::clone(&tape) as Arc<dyn Capabilities>,
        );
        let result = self.host.call(policy, input, call);
        call.capabilities = inner;
        self.recordings.push(Recording {
            policy: spec.name.to_string(),
            component: hex(&spec.component.digest()),
            settings: spec.settings.to_string(),
            input: recorded,
            request,
            response,
            facts,
            before,
            staged,
            seed: self.host.last_seed().map(|seed| hex(&seed)),
            answers: take(&tape.answers),
            log: take(&tape.log),
            outcome: Outcome::of(&result, call, earlier),
        });
        result
    }
}

/// Runs a recorded call on a fresh instance of `component`.
///
/// # Errors
/// The first difference.
pub fn replay(component: &Arc<Policy>, recording: &Recording) -> Result<(), Difference> {
    let version = PolicyVersion {
        id: 0,
        spec: PolicySpec {
            name: Arc::from(recording.policy.as_str()),
            component: Arc::clone(component),
            settings: Arc::from(recording.settings.as_str()),
            grants: Vec::new(),
            limits: Limits::default(),
        },
        stats: Arc::new(PolicyStats::default()),
        stock: Mutex::default(),
    };
    let seed = match recording.seed.as_deref() {
        None => None,
        Some(text) => Some(
            unhex(text)
                .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
                .ok_or_else(|| Difference::Recording("seed".to_owned()))?,
        ),
    };
    let mut instance = Instance::new(&version)?;
    instance.replay_seed(seed);
    let script = Arc::new(Script {
        answers: Mutex::new(recording.answers.iter().cloned().collect()),
        log: Mutex::default(),
        surprise: Mutex::default(),
    });
    let unreadable = |what: String| Difference::Recording(what);
    let mut call = HookCall {
        request: recording.request.message().map_err(unreadable)?,
        response: match &recording.response {
            Some(response) => Some(response.message().map_err(unreadable)?),
            None => None,
        },
        facts: Arc::new(recording.facts.facts().map_err(unreadable)?),
        state: recording.before.state(),
        armed: recording.before.armed(),
        edits: Vec::new(),
        effects: WriteRecord::effects(&recording.staged).map_err(unreadable)?,
        capabilities: Arc::clone(&script) as Arc<dyn Capabilities>,
    };
    let mark = version.spec.component.engine.ticker.mark();
    let result = instance.call(&HookInput::from(&recording.input), &mut call, &mark);
    if let Some((asked, recorded)) = script
        .surprise
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()
    {
        return Err(Difference::Asked { asked, recorded });
    }
    if let Some(left) = script
        .answers
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .pop_front()
    {
        let recorded = format!("{:?}", left.asked);
        return Err(Difference::Asked {
            asked: "nothing".to_owned(),
            recorded,
        });
    }
    let replayed = Outcome::of(&result, &call, recording.staged.len());
    if replayed != recording.outcome {
        return Err(Difference::Outcome {
            recorded: Box::new(recording.outcome.clone()),
            replayed: Box::new(replayed),
        });
    }
    let log = take(&script.log);
    if log != recording.log {
        return Err(Difference::Log {
            recorded: recording.log.clone(),
            replayed: log,
        });
    }
    Ok(())
}

/// Capabilities that write down what passes through them.
struct Tape {
    inner: Arc<dyn Capabilities>,
    answers: Arc<Mutex<Vec<Answer>>>,
    log: Mutex<Vec<(String, String)>>,
}

impl Tape {
    fn keep(&self, answer: Answer) {
        self.answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(answer);
    }

    /// Writes an answer down when it is there.
    fn keep_reply<T: answers::Recorded + 'static>(
        &self,
        asked: Asked,
        reply: Reply<Result<T, CallError>>,
    ) -> Reply<Result<T, CallError>> {
        let answers = Arc::clone(&self.answers);
        reply.map(move |reply| {
            let answer = Answer::new(asked, &reply);
            answers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(answer);
            reply
        })
    }
}

impl Capabilities for Tape {
    fn check(&self, call: &HookCall, realm: &Realm) -> Result<AuthOutcome, CallError> {
        let answer = self.inner.check(call, realm);
        self.keep(Answer::new(Asked::check(realm), &answer));
        answer
    }

    fn lookup(&self, call: &HookCall, aor: &str) -> Result<Vec<BindingView>, CallError> {
        let answer = self.inner.lookup(call, aor);
        self.keep(Answer::new(Asked::lookup(aor), &answer));
        answer
    }

    fn save(
        &self,
        call: &HookCall,
        aor: &str,
        limits: &SaveLimits,
    ) -> Result<SaveOutcome, CallError> {
        let answer = self.inner.save(call, aor, limits);
        self.keep(Answer::new(Asked::save(aor, limits), &answer));
        answer
    }

    fn remove(&self, call: &HookCall, aor: &str) -> Result<u32, CallError> {
        let answer = self.inner.remove(call, aor);
        self.keep(Answer::new(Asked::remove(aor), &answer));
        answer
    }

    fn dialog(&self, call: &HookCall) -> Option<DialogView> {
        let dialog = self.inner.dialog(call);
        self.keep(Answer::new(Asked::Dialog, &Ok(dialog.clone())));
        dialog
    }

    fn test_and_set(&self, call: &HookCall, flag: &str, on: bool) -> Result<bool, CallError> {
        let answer = self.inner.test_and_set(call, flag, on);
        self.keep(Answer::new(Asked::test_and_set(flag, on), &answer));
        answer
    }

    fn profile_size(&self, call: &HookCall, profile: &str, value: &str) -> Result<u32, CallError> {
        let answer = self.inner.profile_size(call, profile, value);
        self.keep(Answer::new(Asked::profile_size(profile, value), &answer));
        answer
    }

    fn validate_dialog(&self, call: &HookCall) -> Result<Validity, CallError> {
        let answer = self.inner.validate_dialog(call);
        self.keep(Answer::new(Asked::Validate, &answer));
        answer
    }

    fn acquire(
        &self,
        call: &HookCall,
        scope: &str,
        key: &str,
        limit: u32,
    ) -> Result<Acquired, CallError> {
        let answer = self.inner.acquire(call, scope, key, limit);
        self.keep(Answer::new(Asked::acquire(scope, key, limit), &answer));
        answer
    }

    fn leases_held(&self, call: &HookCall, scope: &str, key: &str) -> Result<u32, CallError> {
        let answer = self.inner.leases_held(call, scope, key);
        self.keep(Answer::new(Asked::held(scope, key), &answer));
        answer
    }

    fn kv_get(&self, call: &HookCall, key: &str) -> Reply<Result<Option<Entry>, CallError>> {
        self.keep_reply(Asked::kv_get(key), self.inner.kv_get(call, key))
    }

    fn kv_stage(
        &self,
        call: &HookCall,
        key: &str,
        change: Change,
        hold: Option<Hold>,
    ) -> Reply<Result<Staged, CallError>> {
        let asked = Asked::kv_stage(key, &change);
        self.keep_reply(asked, self.inner.kv_stage(call, key, change, hold))
    }

    fn kv_compare_and_set(
        &self,
        call: &HookCall,
        key: &str,
        expected: Expected,
        change: Change,
    ) -> Reply<Result<Swap, CallError>> {
        let asked = Asked::kv_swap(key, expected, &change);
        let swap = self.inner.kv_compare_and_set(call, key, expected, change);
        self.keep_reply(asked, swap)
    }

    fn count(
        &self,
        call: &HookCall,
        counter: CounterName<'_>,
        by: u32,
    ) -> Reply<Result<u32, CallError>> {
        let sum = self.inner.count(call, counter, by);
        self.keep_reply(Asked::count(counter, by), sum)
    }

    fn count_up_to(
        &self,
        call: &HookCall,
        counter: CounterName<'_>,
        by: u32,
        limit: u32,
    ) -> Reply<Result<Taken, CallError>> {
        let taken = self.inner.count_up_to(call, counter, by, limit);
        self.keep_reply(Asked::count_up_to(counter, by, limit), taken)
    }

    fn count_anew(
        &self,
        call: &HookCall,
        counter: CounterName<'_>,
    ) -> Reply<Result<(), CallError>> {
        let done = self.inner.count_anew(call, counter);
        self.keep_reply(Asked::count_anew(counter), done)
    }

    fn log(&self, call: &HookCall, policy: &str, level: LogLevel, text: &str) {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((format!("{level:?}").to_lowercase(), text.to_owned()));
        self.inner.log(call, policy, level, text);
    }
}

/// Capabilities that answer from a recording.
struct Script {
    answers: Mutex<VecDeque<Answer>>,
    log: Mutex<Vec<(String, String)>>,
    /// The first thing asked that the recording does not have.
    surprise: Mutex<Option<(String, String)>>,
}

impl Script {
    fn answer<T: answers::Recorded>(&self, asked: &Asked) -> Result<T, CallError> {
        let next = self
            .answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        let recorded = match &next {
            Some(answer) if answer.asked == *asked => match answer.get::<T>() {
                Some(answer) => return answer,
                None => format!("{:?} with an answer of another kind", answer.asked),
            },
            Some(answer) => format!("{:?}", answer.asked),
            None => "nothing".to_owned(),
        };
        let mut surprise = self.surprise.lock().unwrap_or_else(PoisonError::into_inner);
        surprise.get_or_insert((format!("{asked:?}"), recorded));
        Err(CallError::Unavailable("not in the recording".to_owned()))
    }
}

impl Capabilities for Script {
    fn check(&self, _: &HookCall, realm: &Realm) -> Result<AuthOutcome, CallError> {
        self.answer(&Asked::check(realm))
    }

    fn lookup(&self, _: &HookCall, aor: &str) -> Result<Vec<BindingView>, CallError> {
        self.answer(&Asked::lookup(aor))
    }

    fn save(&self, _: &HookCall, aor: &str, limits: &SaveLimits) -> Result<SaveOutcome, CallError> {
        self.answer(&Asked::save(aor, limits))
    }

    fn remove(&self, _: &HookCall, aor: &str) -> Result<u32, CallError> {
        self.answer(&Asked::remove(aor))
    }

    fn dialog(&self, _: &HookCall) -> Option<DialogView> {
        self.answer(&Asked::Dialog).ok().flatten()
    }

    fn test_and_set(&self, _: &HookCall, flag: &str, on: bool) -> Result<bool, CallError> {
        self.answer(&Asked::test_and_set(flag, on))
    }

    fn profile_size(&self, _: &HookCall, profile: &str, value: &str) -> Result<u32, CallError> {
        self.answer(&Asked::profile_size(profile, value))
    }

    fn validate_dialog(&self, _: &HookCall) -> Result<Validity, CallError> {
        self.answer(&Asked::Validate)
    }

    fn acquire(
        &self,
        _: &HookCall,
        scope: &str,
        key: &str,
        limit: u32,
    ) -> Result<Acquired, CallError> {
        self.answer(&Asked::acquire(scope, key, limit))
    }

    fn leases_held(&self, _: &HookCall, scope: &str, key: &str) -> Result<u32, CallError> {
        self.answer(&Asked::held(scope, key))
    }

    fn kv_get(&self, _: &HookCall, key: &str) -> Reply<Result<Option<Entry>, CallError>> {
        Reply::Now(self.answer(&Asked::kv_get(key)))
    }

    fn kv_stage(
        &self,
        _: &HookCall,
        key: &str,
        change: Change,
        _: Option<Hold>,
    ) -> Reply<Result<Staged, CallError>> {
        Reply::Now(self.answer(&Asked::kv_stage(key, &change)))
    }

    fn kv_compare_and_set(
        &self,
        _: &HookCall,
        key: &str,
        expected: Expected,
        change: Change,
    ) -> Reply<Result<Swap, CallError>> {
        Reply::Now(self.answer(&Asked::kv_swap(key, expected, &change)))
    }

    fn count(
        &self,
        _: &HookCall,
        counter: CounterName<'_>,
        by: u32,
    ) -> Reply<Result<u32, CallError>> {
        Reply::Now(self.answer(&Asked::count(counter, by)))
    }

    fn count_up_to(
        &self,
        _: &HookCall,
        counter: CounterName<'_>,
        by: u32,
        limit: u32,
    ) -> Reply<Result<Taken, CallError>> {
        Reply::Now(self.answer(&Asked::count_up_to(counter, by, limit)))
    }

    fn count_anew(&self, _: &HookCall, counter: CounterName<'_>) -> Reply<Result<(), CallError>> {
        Reply::Now(self.answer(&Asked::count_anew(counter)))
    }

    fn log(&self, _: &HookCall, _: &str, level: LogLevel, text: &str) {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((format!("{level:?}").to_lowercase(), text.to_owned()));
    }
}

fn take<T>(list: &Mutex<Vec<T>>) -> Vec<T> {
    std::mem::take(&mut list.lock().unwrap_or_else(PoisonError::into_inner))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
        .collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(
        digits
            .chunks_exact(2)
            .map(|pair| pair.iter().fold(0, |n, d| (n << 4) | d))
            .collect(),
    )
}
