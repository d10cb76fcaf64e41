//! The policy chain: in which order policies are asked, what the next one sees,
//! what a failure discards, and what happens when nobody decides.
//!
//! The sandbox behind [`PolicyHost`] runs one hook of one policy; what its
//! verdict does is the shard's business, and committing the staged writes the
//! driver's.

use std::sync::Arc;

use sipbox_sip::{
    EditError, EditList, Fault, HeaderId, Index, Message, Method, OwnedMessage, ParseError, Via,
    validate,
};
use smallvec::SmallVec;

use crate::decision::ArmedSet;
use crate::policy::{
    Armed, BranchCall, BranchRoute, CallState, Capabilities, DialogCall, Edit, Effect, Facts,
    Failure, HookCall, HookFailure, HookInput, HookOutput, PRELOADED, PolicyHost, Preloaded,
    RelayPlan, Reply, RouteOutcome, Verdict,
};

/// A hook of the chain that ended without an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The policy's position.
    pub policy: usize,
    /// Why.
    pub reason: HookFailure,
}

/// What a chain decided about a request.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The verdict; [`Verdict::Next`] only of a failure hook: the best response goes on.
    pub verdict: Verdict,
    /// The request, as the chain edited it.
    pub request: OwnedMessage,
    /// What the transaction remembers.
    pub state: CallState,
    /// Hooks asked for.
    pub armed: ArmedSet,
    /// Writes to be committed with the verdict.
    pub effects: SmallVec<[Effect; 1]>,
    /// The policy that decided; `None`: the chain ended, or the fallback applies.
    pub by: Option<usize>,
    /// The failure whose fallback applies.
    pub failed: Option<Failed>,
}

/// Runs one chain for one message.
pub struct ChainRun<'a> {
    /// Runs the policies.
    pub host: &'a mut dyn PolicyHost,
    /// How many there are.
    pub policies: usize,
    /// What is not in the bytes.
    pub facts: Arc<Facts>,
    /// The tenant's capabilities.
    pub capabilities: Arc<dyn Capabilities>,
}

impl ChainRun<'_> {
    /// Asks the policies in order until one decides.
    ///
    /// The fallback after a failure: requests of dialogs that went through here
    /// ([`Facts::goes_on`]) are relayed as they are, others get 503. A chain that ends
    /// without a verdict relays the former along their route set and answers others 404.
    /// For an ACK any reply means drop (RFC 3261 17: an ACK is never answered).
    pub fn on_request(&mut self, request: OwnedMessage, state: CallState) -> Outcome {
        let received = request.clone();
        let begun = state.clone();
        let mut call = self.call(request, None, state);
        let mut armed = ArmedSet::from_elem(Armed::default(), self.policies);
        if self.facts.follows_local_route() {
            for policy in 0..self.policies {
                if let Err(reason) = self.ask(policy, HookInput::Route, &mut call) {
                    return self.fallback(received, begun, Failed { policy, reason });
                }
                if let Some(slot) = armed.get_mut(policy) {
                    *slot = std::mem::take(&mut call.armed);
                }
            }
        }
        for policy in 0..self.policies {
            let verdict = match self.ask(policy, HookInput::Request, &mut call) {
                Ok(HookOutput::Verdict(verdict)) => verdict,
                Ok(_absent) => continue,
                Err(reason) => return self.fallback(received, begun, Failed { policy, reason }),
            };
            if let Some(slot) = armed.get_mut(policy) {
                slot.merge(std::mem::take(&mut call.armed));
            }
            if verdict != Verdict::Next {
                let verdict = self.preloaded(verdict, &mut call.request);
                let verdict = never_answer_ack(&received, verdict);
                return outcome(call, armed, verdict, Some(policy));
            }
        }
        let verdict = if self.facts.goes_on(received.as_ref().method()) {
            Verdict::Relay(RelayPlan::default())
        } else {
            Verdict::Reply(Reply::of(404))
        };
        outcome(call, armed, never_answer_ack(&received, verdict), None)
    }

    /// Asks the policies that armed `on-failure`, the last of the chain first. A
    /// policy that is to be asked again arms again. After a failure of a policy, or
    /// if all say next, the best response goes upstream; what the policies before it
    /// staged counts.
    pub fn on_failure(
        &mut self,
        request: OwnedMessage,
        response: Option<OwnedMessage>,
        failure: &Failure,
        state: CallState,
        mut armed: ArmedSet,
    ) -> Outcome {
        let mut call = self.call(request, response, state);
        for policy in (0..self.policies).rev() {
            let Some(slot) = armed.get_mut(policy) else {
                continue;
            };
            if !std::mem::take(&mut slot.failure) {
                continue;
            }
            let verdict = match self.ask(policy, HookInput::Failure(failure.clone()), &mut call) {
                Ok(HookOutput::Verdict(verdict)) => verdict,
                Ok(_absent) => continue,
                Err(reason) => {
                    let failed = Some(Failed { policy, reason });
                    return Outcome {
                        failed,
                        ..outcome(call, armed, Verdict::Next, None)
                    };
                }
            };
            let again = std::mem::take(&mut call.armed);
            slot.merge(again);
            if verdict != Verdict::Next {
                return outcome(call, armed, verdict, Some(policy));
            }
        }
        outcome(call, armed, Verdict::Next, None)
    }

    /// Asks the policies that armed `on-branch`, in order. A branch is tried if all
    /// keep it; one whose policy failed is not, since nobody knows what it was to
    /// be edited to. The request comes back as edited for this branch.
    pub fn on_branch(
        &mut self,
        request: OwnedMessage,
        branch: &BranchCall,
        state: CallState,
        armed: &ArmedSet,
    ) -> HookResult {
        let mut call = self.call(request, None, state);
        // What is asked for here is of this branch only.
        let route_params = std::mem::take(&mut call.state.route_params);
        let record_route = call.state.record_route.take();
        let restore = |mut result: HookResult| {
            result.route.params = std::mem::replace(&mut result.state.route_params, route_params);
            result.route.record_route =
                std::mem::replace(&mut result.state.record_route, record_route);
            result
        };
        restore(self.keep_branch(call, branch, armed))
    }

    fn keep_branch(
        &mut self,
        mut call: Box<HookCall>,
        branch: &BranchCall,
        armed: &ArmedSet,
    ) -> HookResult {
        for policy in (0..self.policies).filter(|p| armed.get(*p).is_some_and(|a| a.branch)) {
            match self.ask(policy, HookInput::Branch(branch.clone()), &mut call) {
                Ok(HookOutput::Branch(false)) => return HookResult::new(call, false),
                Ok(_kept) => {}
                Err(reason) => {
                    let failed = Some(Failed { policy, reason });
                    return HookResult {
                        failed,
                        ..HookResult::new(call, false)
                    };
                }
            }
        }
        HookResult::new(call, true)
    }

    /// Asks the policies that armed `on-reply`, the last of the chain first. The
    /// response comes back as edited; after a failure as the earlier ones left it.
    pub fn on_reply(
        &mut self,
        request: OwnedMessage,
        response: OwnedMessage,
        state: CallState,
        armed: &ArmedSet,
    ) -> HookResult {
        let mut call = self.call(request, Some(response), state);
        let mut result = Ok(true);
        for policy in (0..self.policies).rev() {
            if !armed.get(policy).is_some_and(|armed| armed.reply) {
                continue;
            }
            match self.ask(policy, HookInput::Reply, &mut call) {
                Ok(HookOutput::Reply(false)) => {
                    result = Ok(false);
                    break;
                }
                Ok(_forwarded) => {}
                Err(reason) => {
                    result = Err(Failed { policy, reason });
                    break;
                }
            }
        }
        let (keep, failed) = match result {
            Ok(keep) => (keep, None),
            Err(failed) => (true, Some(failed)),
        };
        let response = call.response.take();
        HookResult {
            failed,
            message: response,
            ..HookResult::new(call, keep)
        }
    }

    /// Tells the policies what became of a dialog; `request` stands for its INVITE. Each
    /// sees what those before it staged. What fails is told, and the others are asked all
    /// the same.
    pub fn on_dialog(&mut self, request: OwnedMessage, event: &DialogCall) -> Told {
        let mut call = self.call(request, None, CallState::default());
        let mut failed = Vec::new();
        for policy in 0..self.policies {
            let input = HookInput::Dialog(Box::new(event.clone()));
            if let Err(reason) = self.host.call(policy, input, &mut call) {
                failed.push(Failed { policy, reason });
            }
        }
        Told {
            effects: call.effects,
            failed,
        }
    }

    fn call(
        &self,
        request: OwnedMessage,
        response: Option<OwnedMessage>,
        state: CallState,
    ) -> Box<HookCall> {
        let (facts, capabilities) = (Arc::clone(&self.facts), Arc::clone(&self.capabilities));
        let mut call = HookCall::new(request, facts, capabilities);
        call.response = response;
        call.state = state;
        call
    }

    /// One hook of one policy; its edits are applied for the next one.
    fn ask(
        &mut self,
        policy: usize,
        input: HookInput,
        call: &mut Box<HookCall>,
    ) -> Result<HookOutput, HookFailure> {
        let on_reply = input == HookInput::Reply;
        let checkpoint = call.checkpoint();
        let output = self.host.call(policy, input, call)?;
        if call.edits.is_empty() {
            return Ok(output);
        }
        let edits = std::mem::take(&mut call.edits);
        let message = match (on_reply, call.response.as_mut()) {
            (true, Some(response)) => response,
            _ => &mut call.request,
        };
        // The sandbox checked each edit when it was asked for; what is left are edits
        // that contradict each other, and values that make no valid message.
        match apply(message, &edits) {
            Ok(applied) => *message = applied,
            Err(error) => {
                call.undo(checkpoint);
                let failure = HookFailure::BadVerdict(format!("edits: {error}"));
                self.host.discarded(policy, &failure);
                return Err(failure);
            }
        }
        Ok(output)
    }

    /// An initial request that brings a route set of its own goes where its sender wants,
    /// past everything that the policy knows of its target. So a relay has to say what
    /// becomes of it; a policy that does not think of it refuses.
    fn preloaded(&self, verdict: Verdict, request: &mut OwnedMessage) -> Verdict {
        if self.facts.route_outcome != RouteOutcome::Preloaded {
            return verdict;
        }
        let options = match &verdict {
            Verdict::Relay(plan) => &plan.options,
            Verdict::ForwardStateless(target) => &target.options,
            _ => return verdict,
        };
        match Preloaded::of(options) {
            Some(Preloaded::Follow) => verdict,
            Some(Preloaded::Strip) => match without_routes(request) {
                Ok(stripped) => {
                    *request = stripped;
                    verdict
                }
                Err(_) => Verdict::Reply(Reply::of(500)),
            },
            None => Verdict::Reply(Reply {
                reason: PRELOADED.to_owned(),
                ..Reply::of(403)
            }),
        }
    }

    fn fallback(&self, request: OwnedMessage, state: CallState, failed: Failed) -> Outcome {
        let verdict = if self.facts.goes_on(request.as_ref().method()) {
            Verdict::Relay(RelayPlan::default())
        } else {
            let warning = format!("399 sipbox \"policy failed: {}\"", failed.reason.name());
            Verdict::Reply(Reply {
                status: 503,
                headers: vec![("Warning".to_owned(), warning)],
                ..Reply::default()
            })
        };
        Outcome {
            verdict: never_answer_ack(&request, verdict),
            request,
            state,
            armed: ArmedSet::from_elem(Armed::default(), self.policies),
            effects: SmallVec::new(),
            by: None,
            failed: Some(failed),
        }
    }
}

/// What came of telling the policies about a dialog.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Writes to be committed.
    pub effects: Vec<Effect>,
    /// Those that failed.
    pub failed: Vec<Failed>,
}

/// What the policies made of a branch or of a response.
#[derive(Clone, Debug)]
pub struct HookResult {
    /// Whether the branch is tried, or the response forwarded.
    pub keep: bool,
    /// The request for this branch; the response in [`ChainRun::on_reply`].
    pub message: Option<OwnedMessage>,
    /// What the transaction remembers.
    pub state: CallState,
    /// What the branch's Record-Route has more than the others'.
    pub route: BranchRoute,
    /// Writes to be committed with the answer.
    pub effects: SmallVec<[Effect; 1]>,
    /// The failure that ended the round.
    pub failed: Option<Failed>,
}

impl HookResult {
    fn new(call: Box<HookCall>, keep: bool) -> Self {
        Self {
            keep,
            message: Some(call.request),
            state: call.state,
            route: BranchRoute::default(),
            effects: call.effects.into(),
            failed: None,
        }
    }
}

fn outcome(call: Box<HookCall>, armed: ArmedSet, verdict: Verdict, by: Option<usize>) -> Outcome {
    Outcome {
        verdict,
        request: call.request,
        state: call.state,
        armed,
        effects: call.effects.into(),
        by,
        failed: None,
    }
}

fn never_answer_ack(request: &OwnedMessage, verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Reply(_) | Verdict::ReplyStateless(_) | Verdict::Redirect(_)
            if request.as_ref().method() == Method::Ack =>
        {
            Verdict::Drop
        }
        other => other,
    }
}

fn without_routes(request: &OwnedMessage) -> Result<OwnedMessage, ApplyError> {
    let view = request.as_ref();
    let mut list = EditList::new();
    list.remove_header(view, HeaderId::Route)?;
    written(request, &list, &[HeaderId::Route])
}

/// Why edits could not be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// An edit contradicts another one or is ill-formed.
    #[error("{0}")]
    Edit(#[from] EditError),
    /// The result is no message.
    #[error("{0}")]
    Parse(#[from] ParseError),
    /// The result is a message that would be refused if it came from outside.
    #[error("{0}")]
    Fault(#[from] Fault),
}

/// The message with the edits applied, indexed anew.
///
/// # Errors
/// When the edits contradict each other, or make a message that the validator
/// refuses.
pub fn apply(message: &OwnedMessage, edits: &[Edit]) -> Result<OwnedMessage, ApplyError> {
    let view = message.as_ref();
    let mut list = EditList::new();
    let mut changed = SmallVec::<[HeaderId; 4]>::new();
    for edit in edits {
        match edit {
            Edit::SetHeader(name, value) => {
                list.set_header(view, name.as_bytes(), value.as_bytes())?;
            }
            Edit::AddHeader(name, value) => {
                list.append_header(view, name.as_bytes(), value.as_bytes())?;
            }
            Edit::RemoveHeader(name) => list.remove_header(view, name.as_bytes())?,
            Edit::SetRequestUri(uri) => list.set_request_uri(view, uri.as_bytes())?,
            Edit::ForceRport => force_rport(view, &mut list)?,
            Edit::SetBody(body) => {
                list.set_header(view, HeaderId::ContentType, body.content_type.as_bytes())?;
                list.set_body(view, &body.bytes)?;
            }
        }
        changed.extend(touches(edit));
    }
    if list.is_empty() {
        // Such as a port that the sender asked for already: nothing to write anew.
        return Ok(message.clone());
    }
    written(message, &list, &changed)
}

/// The field that an edit changes, if there are rules for what stands in it.
fn touches(edit: &Edit) -> Option<HeaderId> {
    match edit {
        Edit::SetHeader(name, _) | Edit::AddHeader(name, _) | Edit::RemoveHeader(name) => {
            Some(HeaderId::from_name(name.as_bytes()))
        }
        Edit::ForceRport => Some(HeaderId::Via),
        Edit::SetBody(_) | Edit::SetRequestUri(_) => None,
    }
}

/// The message with its changes, of which those of the fields `changed` may make it one that
/// would be refused; what passed before passes again.
fn written(
    message: &OwnedMessage,
    list: &EditList,
    changed: &[HeaderId],
) -> Result<OwnedMessage, ApplyError> {
    let view = message.as_ref();
    let mut bytes = Vec::with_capacity(view.bytes().len().saturating_add(256));
    list.write(view, &mut bytes)?;
    let mut index = Index::new();
    let edited = Message::parse(&bytes, &mut index)?;
    validate::check_changed(edited, &validate::Limits::default(), changed)?;
    let parts = edited
        .is_request()
        .then(|| list.parts_of(view, message.parts(), edited, changed));
    Ok(OwnedMessage::new(bytes.into(), index, parts))
}

/// RFC 3581 section 3, on behalf of the sender.
fn force_rport(message: Message<'_>, list: &mut EditList) -> Result<(), EditError> {
    let Some(top) = message.values(HeaderId::Via).next() else {
        return Ok(());
    };
    let asks = Via::parse_lenient(top.as_bytes()).is_ok_and(|via| via.rport().is_some());
    if asks {
        return Ok(());
    }
    list.insert_at(top.span.end, b";rport")
}

#[cfg(test)]
mod tests;
