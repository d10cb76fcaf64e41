//! Recordings of hook calls: what went in, what each capability answered, what
//! came out. A recording is JSON; on a fresh instance it replays to the same
//! verdict and edits, because all that a policy can see is in it.

mod answers;
mod dialogs;
mod inputs;
mod shared;
mod staged;
mod tape;

use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use sipbox_core::policy::{Capabilities, HookCall, HookFailure, HookInput, HookOutput, PolicyHost};

use self::answers::Answer;
use self::inputs::{CallRecord, FactsRecord, Input, LimitsRecord, Wire};
use self::staged::StagedRecord;
use self::tape::Tape;
use crate::chain::{PolicySpec, PolicyVersion};
use crate::component::{LoadError, Policy};
use crate::host::ChainHost;
use crate::limits::Limits;
use crate::pool::Instance;
use crate::stats::PolicyStats;
use crate::view::LastView;

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
    limits: LimitsRecord,
    /// What earlier policies of the chain have staged, not committed yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    staged: Vec<StagedRecord>,
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
        call: &mut Box<HookCall>,
    ) -> Result<HookOutput, HookFailure> {
        let Some(version) = self.host.chain().policies.get(policy) else {
            return self.host.call(policy, input, call);
        };
        let spec = version.spec.clone();
        let recorded = Input::from(&input);
        let before = CallRecord::of(call);
        let (staged, earlier) = (StagedRecord::all(call), call.effects.len());
        let request = Wire::of(call.request.buffer());
        let response = call
            .response
            .as_ref()
            .map(|response| Wire::of(response.buffer()));
        let facts = FactsRecord::from(&*call.facts);

        let tape = Arc::new(Tape::recording(Arc::clone(&call.capabilities)));
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
            limits: LimitsRecord::from(&spec.limits),
            staged,
            seed: self.host.last_seed().map(|seed| hex(&seed)),
            answers: tape.answers(),
            log: tape.log(),
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
            limits: Limits::from(&recording.limits),
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
    let tape = Arc::new(Tape::replaying(recording.answers.clone()));
    let unreadable = |what: String| Difference::Recording(what);
    let mut call = HookCall::new(
        recording.request.message().map_err(unreadable)?,
        Arc::new(recording.facts.facts().map_err(unreadable)?),
        Arc::clone(&tape) as Arc<dyn Capabilities>,
    );
    call.response = match &recording.response {
        Some(response) => Some(response.message().map_err(unreadable)?),
        None => None,
    };
    call.state = recording.before.state();
    call.armed = recording.before.armed();
    call.effects = StagedRecord::effects(&recording.staged).map_err(unreadable)?;
    let mark = version.spec.component.engine.ticker.mark();
    let input = recording.input.input().map_err(unreadable)?;
    let result = instance.call(&input, &mut call, &mut LastView::default(), &mark);
    if let Some((asked, recorded)) = tape.surprise() {
        return Err(Difference::Asked { asked, recorded });
    }
    let replayed = Outcome::of(&result, &call, recording.staged.len());
    if replayed != recording.outcome {
        return Err(Difference::Outcome {
            recorded: Box::new(recording.outcome.clone()),
            replayed: Box::new(replayed),
        });
    }
    let log = tape.log();
    if log != recording.log {
        return Err(Difference::Log {
            recorded: recording.log.clone(),
            replayed: log,
        });
    }
    Ok(())
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
