//! Questions of the core and their answers: which versions of which policies are
//! asked, with what, and what their verdict waits for.

use std::sync::Arc;

use sipbox_core::chain::{ChainRun, Failed, Outcome};
use sipbox_core::decision::Ruling;
use sipbox_core::dialog::DialogId;
use sipbox_core::flow::TenantId;
use sipbox_core::ids::AskId;
use sipbox_core::outbox::Ask;
use sipbox_core::policy::{BranchCall, CallState, Effect, Facts, HookFailure, PolicyVersions};
use sipbox_core::stack::{BranchVerdict, ReplyVerdict, Unsettled};
use sipbox_sip::OwnedMessage;
use sipbox_wasm::ChainHost;
use smallvec::SmallVec;

use super::Worker;
use super::confined::{Confined, Turn};
use crate::capabilities::{Fetched, RequestCapabilities};
use crate::decide::{self, Committed, Pending, Question, Ruled};
use crate::node::WorkerEvent;
use crate::snapshot::Tenant;

/// What a chain answered, not carried out yet.
pub(crate) struct Answer {
    pub(super) tenant: Arc<Tenant>,
    facts: Arc<Facts>,
    verdict: Given,
}

enum Given {
    Ruling(Question, Arc<RequestCapabilities>, Outcome),
    Branch(AskId, BranchVerdict, Option<Failed>, Staged),
    Reply(AskId, ReplyVerdict, Option<Failed>, Staged),
}

/// What `on-branch` or `on-reply` staged.
type Staged = SmallVec<[Effect; 1]>;

impl Answer {
    /// What it answers; `None`: no transaction waits for it.
    pub(super) fn question(&self) -> Option<AskId> {
        match &self.verdict {
            Given::Ruling(question, ..) => question.id(),
            Given::Branch(id, ..) | Given::Reply(id, ..) => Some(*id),
        }
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer")
            .field("tenant", &self.tenant.name)
            .finish_non_exhaustive()
    }
}

impl Worker {
    pub(super) fn ask(&mut self, ask: Ask) {
        let refusal = match self.turn_of(&ask) {
            Turn::Now => None,
            Turn::Never(failure) => Some(failure),
            Turn::Later(tenant, place) => {
                self.node
                    .tell_confined(Confined::Ask(tenant, Box::new(ask), place));
                return;
            }
        };
        match ask {
            Ask::Request {
                id,
                tenant,
                request,
                facts,
            } => {
                self.begin(Question::Request(id), tenant, request, facts);
            }
            Ask::Stateless {
                id,
                tenant,
                request,
                facts,
            } => {
                self.begin(Question::Stateless(id), tenant, request, facts);
            }
            Ask::Failure {
                id,
                tenant,
                request,
                response,
                facts,
                failure,
                state,
                armed,
            } => {
                let Some(tenant) = self.tenant_of(tenant, &state) else {
                    return;
                };
                let capabilities = self.capabilities(&tenant, Vec::new());
                let outcome = self.chain(&tenant, refusal, &facts, &capabilities, |chain| {
                    chain.on_failure(request, response, &failure, state, armed)
                });
                let verdict = Given::Ruling(Question::Failure(id), capabilities, outcome);
                self.answer(Answer {
                    tenant,
                    facts,
                    verdict,
                });
            }
            Ask::Branch {
                id,
                tenant,
                request,
                facts,
                target,
                state,
                armed,
            } => {
                let Some(tenant) = self.tenant_of(tenant, &state) else {
                    return;
                };
                let branch = BranchCall {
                    target: target.describe(),
                };
                let original = request.clone();
                let capabilities = self.capabilities(&tenant, Vec::new());
                let result = self.chain(&tenant, refusal, &facts, &capabilities, |chain| {
                    chain.on_branch(request, &branch, state, &armed)
                });
                let verdict = BranchVerdict {
                    keep: result.keep,
                    request: result.message.unwrap_or(original),
                    route: result.route,
                    state: result.state,
                };
                let verdict = Given::Branch(id, verdict, result.failed, result.effects);
                self.answer(Answer {
                    tenant,
                    facts,
                    verdict,
                });
            }
            Ask::Reply {
                id,
                tenant,
                response,
                request,
                facts,
                state,
                armed,
            } => {
                let Some(tenant) = self.tenant_of(tenant, &state) else {
                    return;
                };
                let original = response.clone();
                let capabilities = self.capabilities(&tenant, Vec::new());
                let result = self.chain(&tenant, refusal, &facts, &capabilities, |chain| {
                    chain.on_reply(request, response, state, &armed)
                });
                let verdict = ReplyVerdict {
                    forward: result.keep,
                    response: result.message.unwrap_or(original),
                    state: result.state,
                };
                let verdict = Given::Reply(id, verdict, result.failed, result.effects);
                self.answer(Answer {
                    tenant,
                    facts,
                    verdict,
                });
            }
        }
    }

    /// Carries an answer out.
    pub(super) fn conclude(&mut self, answer: Answer) {
        let Answer {
            tenant,
            facts,
            verdict,
        } = answer;
        let node = Arc::clone(&self.node);
        match verdict {
            Given::Ruling(question, capabilities, outcome) => {
                let hook = match question {
                    Question::Request(_) | Question::Stateless(_) => "on-request",
                    Question::Failure(_) => "on-failure",
                };
                log_failed(&tenant, &facts, hook, outcome.failed.as_ref());
                self.rule(question, &tenant, facts, &capabilities, outcome);
            }
            Given::Branch(id, verdict, failed, staged) => {
                log_failed(&tenant, &facts, "on-branch", failed.as_ref());
                let dialog = dialog_of(&verdict.state, &facts);
                let (snapshot, mut counts) = (node.snapshot.load(), false);
                self.step(&snapshot, |env, out| {
                    counts = node.stack.branch_verdict(env, id, verdict, out);
                });
                if counts {
                    self.commit_effects(dialog, staged);
                }
            }
            Given::Reply(id, verdict, failed, staged) => {
                log_failed(&tenant, &facts, "on-reply", failed.as_ref());
                let dialog = dialog_of(&verdict.state, &facts);
                let (snapshot, mut counts) = (node.snapshot.load(), false);
                self.step(&snapshot, |env, out| {
                    counts = node.stack.reply_verdict(env, id, verdict, out);
                });
                if counts {
                    self.commit_effects(dialog, staged);
                }
            }
        }
    }

    /// The versions that the transaction began with, or those of today.
    pub(super) fn tenant_of(&self, id: TenantId, state: &CallState) -> Option<Arc<Tenant>> {
        let kept = state
            .versions
            .as_ref()
            .and_then(|versions| Arc::clone(&versions.0).downcast::<Tenant>().ok());
        kept.or_else(|| self.node.snapshot.load().tenant(id).cloned())
    }

    pub(super) fn capabilities(
        &self,
        tenant: &Arc<Tenant>,
        credentials: Vec<Fetched>,
    ) -> Arc<RequestCapabilities> {
        let node = Arc::clone(&self.node);
        Arc::new(RequestCapabilities::new(
            node,
            Arc::clone(tenant),
            credentials,
        ))
    }

    /// Runs the chain now, or once the accounts that the request names are here.
    fn begin(
        &mut self,
        question: Question,
        tenant: TenantId,
        request: OwnedMessage,
        facts: Arc<Facts>,
    ) {
        let Some(tenant) = self.node.snapshot.load().tenant(tenant).cloned() else {
            tracing::debug!(
                tenant = &*facts.tenant_name,
                "the tenant left while its request came"
            );
            self.carry_out(Ruled::without_tenant(question, request, facts));
            return;
        };
        let (credentials, missing) = decide::accounts(&self.node, &tenant, &request);
        let mut pending = Pending {
            question,
            tenant,
            request,
            facts,
            credentials,
        };
        if missing.is_empty() {
            self.run_chain(pending);
            return;
        }
        let node = Arc::clone(&self.node);
        let Ok(place) = Arc::clone(&node.look_ups).try_acquire_owned() else {
            pending.credentials.extend(decide::unavailable(missing));
            self.run_chain(pending);
            return;
        };
        self.trying(question);
        let number = self.home();
        self.node.runtime.spawn(async move {
            let _place = place;
            pending
                .credentials
                .extend(decide::fetch(&node, missing).await);
            node.tell(number, WorkerEvent::Credentials(Box::new(pending)))
                .await;
        });
    }

    /// The verdict will have to wait.
    fn trying(&mut self, question: Question) {
        if let Question::Request(id) = question {
            let node = Arc::clone(&self.node);
            let snapshot = node.snapshot.load();
            self.step(&snapshot, |env, out| node.stack.trying(env, id, out));
        }
    }

    pub(super) fn run_chain(&mut self, pending: Pending) {
        let refusal = match self.turn(&pending.tenant) {
            Turn::Now => None,
            Turn::Never(_) if pending.facts.in_dialog => {
                self.refuse_in_turn(pending);
                return;
            }
            Turn::Never(failure) => Some(failure),
            Turn::Later(_, place) => {
                self.trying(pending.question);
                self.node
                    .tell_confined(Confined::Run(Box::new(pending), place));
                return;
            }
        };
        self.decide(pending, refusal);
    }

    /// A request of a dialog is relayed by its fallback, and may not overtake what
    /// waits of the same dialog.
    fn refuse_in_turn(&mut self, pending: Pending) {
        match pending.tenant.chain.conduct().place_behind() {
            Some(place) => {
                self.trying(pending.question);
                self.node
                    .tell_confined(Confined::Refuse(Box::new(pending), place));
            }
            // An ACK that comes too early is better than none.
            None => self.decide(pending, Some(HookFailure::Confined)),
        }
    }

    /// Runs the chain, or gives the fallback of a refusal.
    pub(super) fn decide(&mut self, pending: Pending, refusal: Option<HookFailure>) {
        let Pending {
            question,
            tenant,
            request,
            facts,
            credentials,
        } = pending;
        let versions = PolicyVersions(Arc::clone(&tenant) as _);
        let state = CallState {
            versions: Some(versions),
            ..CallState::default()
        };
        let capabilities = self.capabilities(&tenant, credentials);
        let mut outcome = self.chain(&tenant, refusal, &facts, &capabilities, |chain| {
            chain.on_request(request, state)
        });
        // The fallback starts from the state as it was; the versions stay.
        outcome.state.versions = Some(PolicyVersions(Arc::clone(&tenant) as _));
        self.answer(Answer {
            tenant,
            facts,
            verdict: Given::Ruling(question, capabilities, outcome),
        });
    }

    fn chain<T>(
        &mut self,
        tenant: &Tenant,
        refusal: Option<HookFailure>,
        facts: &Arc<Facts>,
        capabilities: &Arc<RequestCapabilities>,
        run: impl FnOnce(&mut ChainRun<'_>) -> T,
    ) -> T {
        let mut host = ChainHost::new(&mut self.pools, &tenant.chain).refusing(refusal);
        run(&mut ChainRun {
            host: &mut host,
            policies: tenant.chain.len(),
            facts: Arc::clone(facts),
            capabilities: Arc::clone(capabilities) as _,
        })
    }

    /// Makes a verdict count, so that what it staged may be written.
    fn settle(
        &mut self,
        question: Question,
        facts: &Facts,
        outcome: &Outcome,
        forwards: bool,
    ) -> Result<(), Unsettled> {
        let stateless = matches!(question, Question::Stateless(_));
        if !(decide::writes(outcome, facts) || stateless && forwards) {
            return Ok(());
        }
        let node = Arc::clone(&self.node);
        let snapshot = node.snapshot.load();
        let mut settled = Ok(());
        self.step(&snapshot, |env, out| {
            settled = match question {
                Question::Request(id) | Question::Failure(id) => {
                    node.stack.settle(env, id, forwards, out)
                }
                Question::Stateless(_) if forwards => {
                    node.stack.settle_stateless(env, &outcome.request, facts)
                }
                Question::Stateless(_) => Ok(()),
            };
        });
        settled
    }

    /// Commits what was staged, if the verdict counts; carries it out now, or once it is
    /// stored.
    pub(super) fn rule(
        &mut self,
        question: Question,
        tenant: &Tenant,
        facts: Arc<Facts>,
        capabilities: &RequestCapabilities,
        mut outcome: Outcome,
    ) {
        log_decision(tenant, &facts, &outcome);
        let node = Arc::clone(&self.node);
        let (_, wall) = node.clock.now();
        let resolved = decide::resolve(&node, tenant, &mut outcome, wall);
        let forwards = resolved.as_ref().is_some_and(Ruling::forwards);
        match self.settle(question, &facts, &outcome, forwards) {
            Ok(()) => {}
            Err(Unsettled::Late) => return,
            Err(Unsettled::Refused(why)) => {
                let Outcome { request, state, .. } = outcome;
                self.carry_out(Ruled::refused(question, request, facts, state, why));
                return;
            }
        }
        let committed = decide::commit(
            &node,
            tenant,
            question,
            facts,
            capabilities,
            outcome,
            resolved,
            wall,
        );
        let changes = committed.changes();
        let Committed {
            mut ruled,
            commits,
            dialog,
        } = committed;
        if let Some((id, ops)) = dialog {
            self.change_dialog(id, ops);
        }
        if changes.is_empty() {
            self.carry_out(ruled);
            return;
        }
        if !node.commit {
            let done = Box::new(|stored: Result<(), _>| {
                if let Err(error) = stored {
                    tracing::error!(%error, "a binding is in memory only");
                }
            });
            // It stays in memory whatever comes.
            for commit in &commits {
                node.location.settle(commit, true);
            }
            if let Err(error) = node.sink.submit(changes, done) {
                tracing::error!(%error, "a binding is in memory only");
            }
            self.carry_out(ruled);
            return;
        }
        let number = self.home();
        let (mut waiting, later) = (ruled.clone(), Arc::clone(&node));
        let kept = commits.clone();
        let done = Box::new(move |result: Result<(), _>| {
            for commit in &kept {
                later.location.settle(commit, result.is_ok());
            }
            if let Err(error) = &result {
                tracing::error!(%error, "a registration was not stored");
                decide::not_stored(&mut waiting);
            }
            later.tell_later(number, WorkerEvent::Stored(Box::new(waiting)));
        });
        if let Err(error) = node.sink.submit(changes, done) {
            tracing::error!(%error, "a registration was not stored");
            for commit in &commits {
                node.location.settle(commit, false);
            }
            decide::not_stored(&mut ruled);
            self.carry_out(ruled);
        }
    }

    pub(super) fn carry_out(&mut self, ruled: Ruled) {
        let Ruled {
            question,
            facts,
            decision,
        } = ruled;
        let node = Arc::clone(&self.node);
        let snapshot = node.snapshot.load();
        self.step(&snapshot, |env, out| match question {
            Question::Request(id) => {
                node.stack.request_verdict(env, id, decision, out);
            }
            Question::Failure(id) => {
                node.stack.failure_verdict(env, id, decision, out);
            }
            Question::Stateless(id) => {
                node.stack.forward_stateless(env, id, &facts, decision, out);
            }
        });
    }
}

pub(super) fn log_failed(tenant: &Tenant, facts: &Facts, hook: &str, failed: Option<&Failed>) {
    let Some(failed) = failed else { return };
    let policy = tenant
        .chain
        .names()
        .nth(failed.policy)
        .map_or("", |name| &**name);
    tracing::warn!(
        tenant = &*tenant.name,
        policy,
        hook,
        reason = failed.reason.name(),
        detail = %failed.reason,
        peer = %facts.flow.peer,
        "policy failed"
    );
}

/// The dialog that a transaction began or belongs to.
fn dialog_of(state: &CallState, facts: &Facts) -> Option<DialogId> {
    let begun = state.dialog.as_ref().map(|tie| tie.id);
    begun.or_else(|| facts.dialog.map(|known| known.id))
}

/// One line for each decision.
fn log_decision(tenant: &Tenant, facts: &Facts, outcome: &Outcome) {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    let message = outcome.request.as_ref();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let policy = outcome
        .by
        .and_then(|by| tenant.chain.names().nth(by))
        .map_or("", |name| &**name);
    tracing::debug!(
        tenant = &*tenant.name,
        policy,
        method = text(message.method_token()),
        request_uri = text(message.request_uri()),
        call_id = text(message.call_id().unwrap_or_default()),
        peer = %facts.flow.peer,
        in_dialog = facts.in_dialog,
        route = ?facts.route_outcome,
        verdict = %crate::describe::Verdict(&outcome.verdict),
        failed = outcome.failed.as_ref().map(|failed| failed.reason.name()),
        "decision"
    );
}
