//! The capabilities of a call that is recorded, or replayed: each is said once here, and
//! either asks on and writes down what was answered, or answers from what was written down.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sipbox_core::dialog::Validity;
use sipbox_core::lease::Acquired;
use sipbox_core::policy::{
    AuthOutcome, BindingView, CallError, Capabilities, DialogView, HookCall, LogLevel, Realm,
    SaveLimits, SaveOutcome,
};
use sipbox_core::shared::{
    Answer as Reply, Change, CounterName, Counters, Entry, Expected, Hold, Kv, SharedNow, Staged,
    Swap, Taken,
};
use sipbox_core::time::Time;

use super::answers::{Answer, Asked, Recorded};

/// The capabilities of one call.
pub(super) struct Tape {
    source: Source,
    log: Mutex<Vec<(String, String)>>,
}

/// Who answers.
enum Source {
    /// Somebody else, and it is written down. An answer that comes later is written when it
    /// comes.
    Asked(Arc<dyn Capabilities>, Arc<Mutex<Vec<Answer>>>),
    /// A recording.
    Written(Mutex<Written>),
}

/// What a recording has to say.
struct Written {
    left: VecDeque<Answer>,
    /// The first thing asked that it does not have, and what it has there.
    surprise: Option<(String, String)>,
}

impl Written {
    fn answer<T: Recorded>(&mut self, asked: &Asked) -> Result<T, CallError> {
        let next = self.left.pop_front();
        let recorded = match &next {
            Some(answer) if answer.asked == *asked => match answer.get::<T>() {
                Some(answer) => return answer,
                None => format!("{:?} with an answer of another kind", answer.asked),
            },
            Some(answer) => format!("{:?}", answer.asked),
            None => "nothing".to_owned(),
        };
        let surprise = || (format!("{asked:?}"), recorded);
        self.surprise.get_or_insert_with(surprise);
        Err(CallError::Unavailable("not in the recording".to_owned()))
    }
}

impl Tape {
    /// One that writes down what `inner` answers.
    pub(super) fn recording(inner: Arc<dyn Capabilities>) -> Self {
        Self::of(Source::Asked(inner, Arc::default()))
    }

    /// One that gives these answers.
    pub(super) fn replaying(answers: Vec<Answer>) -> Self {
        Self::of(Source::Written(Mutex::new(Written {
            left: answers.into(),
            surprise: None,
        })))
    }

    fn of(source: Source) -> Self {
        Self {
            source,
            log: Mutex::default(),
        }
    }

    /// What was written down.
    pub(super) fn answers(&self) -> Vec<Answer> {
        match &self.source {
            Source::Asked(_, answers) => std::mem::take(&mut lock(answers)),
            Source::Written(_) => Vec::new(),
        }
    }

    /// The first question that differs from the recording, and what that has there.
    pub(super) fn surprise(&self) -> Option<(String, String)> {
        let Source::Written(written) = &self.source else {
            return None;
        };
        let mut written = lock(written);
        let surprise = written.surprise.take();
        surprise.or_else(|| {
            let left = written.left.pop_front()?;
            Some(("nothing".to_owned(), format!("{:?}", left.asked)))
        })
    }

    /// Lines of log: level and text.
    pub(super) fn log(&self) -> Vec<(String, String)> {
        std::mem::take(&mut lock(&self.log))
    }

    /// A question that is answered at once.
    fn ask<T: Recorded>(
        &self,
        asked: Asked,
        of: impl FnOnce(&dyn Capabilities) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        match &self.source {
            Source::Asked(inner, answers) => {
                let answer = of(&**inner);
                lock(answers).push(Answer::new(asked, &answer));
                answer
            }
            Source::Written(written) => lock(written).answer(&asked),
        }
    }

    /// A question to what the calls of the tenant share.
    fn ask_shared<T: Recorded + 'static>(
        &self,
        asked: Asked,
        of: impl FnOnce(SharedNow<'_>) -> Reply<Result<T, CallError>>,
    ) -> Reply<Result<T, CallError>> {
        match &self.source {
            Source::Asked(inner, answers) => {
                let reply = match inner.shared() {
                    Ok(shared) => of(shared),
                    Err(error) => Reply::Now(Err(error)),
                };
                let answers = Arc::clone(answers);
                reply.map(move |reply| {
                    lock(&answers).push(Answer::new(asked, &reply));
                    reply
                })
            }
            Source::Written(written) => Reply::Now(lock(written).answer(&asked)),
        }
    }
}

impl Capabilities for Tape {
    fn check(&self, call: &HookCall, realm: &Realm) -> Result<AuthOutcome, CallError> {
        self.ask(Asked::check(realm), |of| of.check(call, realm))
    }

    fn lookup(&self, call: &HookCall, aor: &str) -> Result<Vec<BindingView>, CallError> {
        self.ask(Asked::lookup(aor), |of| of.lookup(call, aor))
    }

    fn save(
        &self,
        call: &HookCall,
        aor: &str,
        limits: &SaveLimits,
    ) -> Result<SaveOutcome, CallError> {
        self.ask(Asked::save(aor, limits), |of| of.save(call, aor, limits))
    }

    fn remove(&self, call: &HookCall, aor: &str) -> Result<u32, CallError> {
        self.ask(Asked::remove(aor), |of| of.remove(call, aor))
    }

    fn dialog(&self, call: &HookCall) -> Option<DialogView> {
        let dialog = self.ask(Asked::Dialog, |of| Ok(of.dialog(call)));
        dialog.ok().flatten()
    }

    fn test_and_set(&self, call: &HookCall, flag: &str, on: bool) -> Result<bool, CallError> {
        let asked = Asked::test_and_set(flag, on);
        self.ask(asked, |of| of.test_and_set(call, flag, on))
    }

    fn profile_size(&self, call: &HookCall, profile: &str, value: &str) -> Result<u32, CallError> {
        let asked = Asked::profile_size(profile, value);
        self.ask(asked, |of| of.profile_size(call, profile, value))
    }

    fn validate_dialog(&self, call: &HookCall) -> Result<Validity, CallError> {
        self.ask(Asked::Validate, |of| of.validate_dialog(call))
    }

    fn acquire(
        &self,
        call: &HookCall,
        scope: &str,
        key: &str,
        limit: u32,
    ) -> Result<Acquired, CallError> {
        let asked = Asked::acquire(scope, key, limit);
        self.ask(asked, |of| of.acquire(call, scope, key, limit))
    }

    fn leases_held(&self, call: &HookCall, scope: &str, key: &str) -> Result<u32, CallError> {
        let asked = Asked::held(scope, key);
        self.ask(asked, |of| of.leases_held(call, scope, key))
    }

    /// Whoever asks gets this; when it is, the one who answers knows.
    fn shared(&self) -> Result<SharedNow<'_>, CallError> {
        Ok(SharedNow {
            kv: self,
            counters: self,
            now: Time::default(),
        })
    }

    fn log(&self, call: &HookCall, policy: &str, level: LogLevel, text: &str) {
        lock(&self.log).push((format!("{level:?}").to_lowercase(), text.to_owned()));
        if let Source::Asked(inner, _) = &self.source {
            inner.log(call, policy, level, text);
        }
    }
}

impl Kv for Tape {
    fn get(&self, key: &str, _: Time) -> Reply<Result<Option<Entry>, CallError>> {
        self.ask_shared(Asked::kv_get(key), |of| of.kv.get(key, of.now))
    }

    fn stage(
        &self,
        key: &str,
        change: Change,
        hold: Option<Hold>,
        _: Time,
    ) -> Reply<Result<Staged, CallError>> {
        let asked = Asked::kv_stage(key, &change);
        self.ask_shared(asked, |of| of.kv.stage(key, change, hold, of.now))
    }

    fn compare_and_set(
        &self,
        key: &str,
        expected: Expected,
        change: Change,
        _: Time,
    ) -> Reply<Result<Swap, CallError>> {
        let asked = Asked::kv_swap(key, expected, &change);
        self.ask_shared(asked, |of| {
            of.kv.compare_and_set(key, expected, change, of.now)
        })
    }
}

impl Counters for Tape {
    fn add(&self, counter: CounterName<'_>, by: u32, _: Time) -> Reply<Result<u32, CallError>> {
        let asked = Asked::count(counter, by);
        self.ask_shared(asked, |of| of.counters.add(counter, by, of.now))
    }

    fn take(
        &self,
        counter: CounterName<'_>,
        by: u32,
        limit: u32,
        _: Time,
    ) -> Reply<Result<Taken, CallError>> {
        let asked = Asked::count_up_to(counter, by, limit);
        self.ask_shared(asked, |of| of.counters.take(counter, by, limit, of.now))
    }

    fn reset(&self, counter: CounterName<'_>, _: Time) -> Reply<Result<(), CallError>> {
        self.ask_shared(Asked::count_anew(counter), |of| {
            of.counters.reset(counter, of.now)
        })
    }

    fn sequence(&self, name: &str, _: Time) -> Reply<Result<u32, CallError>> {
        self.ask_shared(Asked::sequence(name), |of| {
            of.counters.sequence(name, of.now)
        })
    }
}

/// A panic elsewhere leaves a list as it is.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
