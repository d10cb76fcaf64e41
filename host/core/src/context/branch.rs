//! One branch of a response context: from a target to a client transaction.

use sipbox_sip::{EditList, OwnedMessage, Uri};
use smallvec::SmallVec;
use std::sync::Arc;

use super::ResponseContext;
use super::best::Candidate;
use super::questions::Question;
use crate::decision::ResolvedTarget;
use crate::error::Internal;
use crate::flow::{ListenerId, NextHop};
use crate::forward::{self, Outgoing};
use crate::ids::{Place, ResolveToken};
use crate::locate::{Located, locate, over_tcp};
use crate::outbox::{Candidates, NextHopCandidate, Resolve, ResolveError};
use crate::policy::BranchRoute;
use crate::record_route::RecordRoute;
use crate::stack::BranchVerdict;
use crate::table::Key;
use crate::time::Time;
use crate::transaction::{UserTimer, keep};
use crate::user::Io;

/// How far a branch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// `on-branch` is asked.
    Asking,
    /// A name is being resolved.
    Resolving,
    /// A client transaction is at work.
    Sent,
    /// It has a final response, or never will.
    Done,
}

pub(super) struct Branch {
    pub(super) target: ResolvedTarget,
    pub(super) stage: Stage,
    pub(super) client: Option<Key>,
    /// When its client began.
    pub(super) sent: Time,
    /// RFC 5393 5.3.
    pub(super) breadth: u8,
    /// The request as edited for this branch.
    request: Option<OwnedMessage>,
    /// What its Record-Route has more than the others'.
    route: Option<Box<BranchRoute>>,
    /// Where else it can go (RFC 3263 4.3), next one last.
    candidates: Candidates,
    implicit: bool,
    /// Sent over TCP for its size; this is where UDP would have gone (18.1.1).
    fallback: Option<Departure>,
}

impl Branch {
    /// The bytes that it keeps beside its client.
    pub(super) fn holds(&self) -> usize {
        let request = self.request.as_ref();
        self.target.holds() + request.map_or(0, |request| request.as_ref().bytes().len())
    }

    /// The same for the addresses that are left (RFC 3263 4.3), if there are any, and
    /// breadth for it.
    pub(super) fn elsewhere(&mut self, breadth: u8) -> Option<Self> {
        (breadth > 0 && !self.candidates.is_empty()).then(|| Self {
            target: self.target.clone(),
            stage: Stage::Resolving,
            client: None,
            sent: self.sent,
            breadth,
            request: self.request.clone(),
            route: self.route.clone(),
            candidates: std::mem::take(&mut self.candidates),
            implicit: self.implicit,
            fallback: None,
        })
    }
}

/// Where a branch leaves.
#[derive(Clone, Copy)]
struct Departure {
    listener: ListenerId,
    hop: NextHop,
}

impl ResponseContext {
    pub(super) fn add_branch(
        &mut self,
        target: ResolvedTarget,
        breadth: u8,
        io: &mut Io<'_, '_, '_>,
    ) {
        let at = self.branches.len();
        self.branches.push(Branch {
            target,
            stage: Stage::Resolving,
            client: None,
            sent: Time::default(),
            breadth,
            request: None,
            route: None,
            candidates: SmallVec::new(),
            implicit: false,
            fallback: None,
        });
        if breadth == 0 {
            self.lose(at, Internal::Breadth);
            return;
        }
        if self.armed.iter().any(|armed| armed.branch) {
            self.ask_branch(at);
        } else {
            self.locate_branch(at, io);
        }
    }

    pub(super) fn lose(&mut self, at: usize, why: Internal) {
        self.fail_branch(
            at,
            Candidate {
                status: why.status(),
                received: None,
            },
        );
    }

    fn ask_branch(&mut self, at: usize) {
        if let Some(branch) = self.branches.get_mut(at) {
            branch.stage = Stage::Asking;
            self.questions.push(Question::Branch(at));
        }
    }

    pub(super) fn is_asked_about(&self, at: usize) -> bool {
        let branch = self.branches.get(at);
        branch.is_some_and(|branch| branch.stage == Stage::Asking)
    }

    /// The chain's answer to `Ask::Branch`.
    pub(crate) fn branch_verdict(
        &mut self,
        serial: u32,
        verdict: BranchVerdict,
        io: &mut Io<'_, '_, '_>,
    ) -> bool {
        let Some(Question::Branch(at)) = self.questions.answered(serial) else {
            return false;
        };
        let mut state = verdict.state;
        let next_hop = state.nat.next_hop.take();
        self.remember(state, io);
        if !verdict.keep {
            // 16.5 lets a proxy leave out targets; there is nothing to answer for it.
            if let Some(branch) = self.branches.get_mut(at) {
                branch.stage = Stage::Done;
            }
        } else if let Some(branch) = self.branches.get_mut(at) {
            branch.stage = Stage::Resolving;
            let edited = verdict.request.as_ref().request_uri();
            branch.target.uri = keep(edited);
            if let Some(next_hop) = next_hop.filter(|_| branch.target.next_hop.is_empty()) {
                branch.target.next_hop = super::to_bytes(next_hop);
            }
            branch.request = Some(verdict.request);
            branch.route = verdict.route.boxed();
            self.locate_branch(at, io);
        }
        self.proceed(io);
        true
    }

    /// A look-up that is never answered must not hold the transaction for ever.
    fn watch_lookups(&mut self, io: &mut Io<'_, '_, '_>) {
        io.disarm(&mut self.lookup_timer);
        let after = io.cx.env.settings.timers.decide;
        self.lookup_timer = Some(io.arm(UserTimer::LookUp, after));
    }

    /// Look-ups that were never answered.
    pub(super) fn drop_unresolved(&mut self) {
        for at in 0..self.branches.len() {
            if self
                .branches
                .get(at)
                .is_some_and(|branch| branch.stage == Stage::Resolving)
            {
                self.lose(at, Internal::Unavailable);
            }
        }
    }

    /// 16.6 step 7.
    fn locate_branch(&mut self, at: usize, io: &mut Io<'_, '_, '_>) {
        let Some(branch) = self.branches.get_mut(at) else {
            return;
        };
        if let Some(flow) = branch.target.flow {
            // 18.1.1: a Contact that asks for UDP gets datagrams, whatever their size.
            branch.implicit = Uri::parse(&branch.target.uri)
                .is_ok_and(|uri| uri.transport().is_none() && uri.is_sip());
            if !self.send_branch(
                at,
                Departure {
                    listener: flow.listener,
                    hop: flow.request_hop(),
                },
                io,
            ) {
                self.lose(at, Internal::Unbuildable);
            }
            return;
        }
        let request = branch.request.as_ref().unwrap_or(&self.request);
        match locate(request.as_ref(), &branch.target, settings(io).as_ref()) {
            Located::At {
                mut candidates,
                implicit,
            } => {
                candidates.reverse();
                branch.candidates = candidates;
                branch.implicit = implicit;
                if !self.next_candidate(at, io) {
                    self.lose(at, Internal::Unavailable);
                }
            }
            Located::Name {
                host,
                port,
                transport,
                secure,
            } => {
                branch.stage = Stage::Resolving;
                branch.implicit = transport.is_none() && !secure;
                let place = io.tx.place(io.server);
                let serial = u32::try_from(at).unwrap_or(u32::MAX);
                let token = ResolveToken { place, serial };
                self.watch_lookups(io);
                io.cx.out.resolves.push(Resolve {
                    token,
                    host,
                    port,
                    transport,
                    secure,
                });
            }
            Located::Nowhere => self.lose(at, Internal::Unavailable),
        }
    }

    /// The answer to a look-up.
    pub(crate) fn resolved(
        &mut self,
        at: u32,
        result: Result<Candidates, ResolveError>,
        io: &mut Io<'_, '_, '_>,
    ) {
        let Ok(at) = usize::try_from(at) else { return };
        let Some(branch) = self.branches.get_mut(at) else {
            return;
        };
        if branch.stage != Stage::Resolving {
            return;
        }
        let mut candidates = result.unwrap_or_default();
        candidates.reverse();
        branch.candidates = candidates;
        if !self.next_candidate(at, io) {
            self.lose(at, Internal::Unavailable);
        }
        let resolving = |branch: &Branch| branch.stage == Stage::Resolving;
        if !self.branches.iter().any(resolving) {
            io.disarm(&mut self.lookup_timer);
        }
        self.proceed(io);
    }

    /// RFC 3263 4.3: the next address that a listener of ours can send to, in a
    /// client transaction of its own.
    pub(super) fn next_candidate(&mut self, at: usize, io: &mut Io<'_, '_, '_>) -> bool {
        if self.stopped.is_some() {
            return false;
        }
        while let Some(candidate) = self
            .branches
            .get_mut(at)
            .and_then(|branch| branch.candidates.pop())
        {
            let arrived = self.facts.departs_from();
            let NextHopCandidate { transport, address } = candidate;
            let Some(listener) = settings(io).outbound(arrived, transport, address.ip()) else {
                continue;
            };
            let hop = NextHop::Address {
                listener,
                transport,
                address,
                local: None,
            };
            if self.send_branch(at, Departure { listener, hop }, io) {
                return true;
            }
        }
        false
    }

    /// 16.6 steps 8 to 11.
    fn send_branch(&mut self, at: usize, departure: Departure, io: &mut Io<'_, '_, '_>) -> bool {
        let settings = settings(io);
        let number = u16::try_from(at).unwrap_or(u16::MAX);
        let Some(ticket) = io.tx.admit_client(io.server, &settings) else {
            return false;
        };
        let (server, hop) = (io.server, departure.hop);
        let key = io
            .tx
            .reserve_client(server, number, self.method, hop, &settings, ticket);
        let Some(key) = key else { return false };
        let place = io.tx.place(key);
        if !self.write_branch(at, place, departure, io) {
            io.tx.end_client(key);
            return false;
        }
        let mut departure = departure;
        let mut fallback = None;
        if let Some(over_tcp) = self.too_large(at, departure, io) {
            // 18.1.1: the Via says TCP then.
            if !self.write_branch(at, place, over_tcp, io) {
                io.tx.end_client(key);
                return false;
            }
            fallback = Some(departure);
            departure = over_tcp;
        }
        let Some(branch) = self.branches.get_mut(at) else {
            return false;
        };
        branch.stage = Stage::Sent;
        branch.client = Some(key);
        branch.sent = io.cx.now();
        branch.fallback = fallback;
        if let Some(client) = io.tx.clients.get_mut(key) {
            client.hop = departure.hop;
        }
        let bytes = keep(&io.tx.scratch.message);
        io.tx.launch(key, bytes, io.cx);
        self.watch_silence(io);
        true
    }

    /// 18.1.1: whether the written request has to go over TCP, and to where.
    fn too_large(&self, at: usize, departure: Departure, io: &Io<'_, '_, '_>) -> Option<Departure> {
        let size = io.tx.scratch.message.len();
        let implicit = self.branches.get(at)?.implicit;
        let arrived = self.facts.departs_from();
        let (listener, hop) = over_tcp(departure.hop, size, implicit, arrived, &settings(io))?;
        Some(Departure { listener, hop })
    }

    /// The send failed; `true` if UDP is tried instead (18.1.1).
    pub(crate) fn fall_back(&mut self, at: u16, key: Key, io: &mut Io<'_, '_, '_>) -> bool {
        let at = usize::from(at);
        let Some(branch) = self.branches.get_mut(at) else {
            return false;
        };
        if branch.client != Some(key) || branch.stage != Stage::Sent {
            return false;
        }
        let Some(departure) = branch.fallback.take() else {
            return false;
        };
        let place = io.tx.place(key);
        if !self.write_branch(at, place, departure, io) {
            return false;
        }
        let bytes = keep(&io.tx.scratch.message);
        io.tx.relaunch(key, bytes, departure.hop, io.cx);
        true
    }

    fn write_branch(
        &self,
        at: usize,
        place: Place,
        departure: Departure,
        io: &mut Io<'_, '_, '_>,
    ) -> bool {
        let settings = settings(io);
        let Some(branch) = self.branches.get(at) else {
            return false;
        };
        let request = branch.request.as_ref().unwrap_or(&self.request).as_ref();
        let record_route = RecordRoute::wanted(
            &self.facts,
            self.record_route.as_deref(),
            &self.state,
            branch.route.as_deref(),
        );
        let text = io.cx.ids.branch(place, self.loop_hash);
        let outgoing = Outgoing {
            request,
            arrived: self.facts.flow,
            uri: &branch.target.uri,
            path: &branch.target.path,
            record_route,
            max_breadth: Some(branch.breadth),
            leaves: departure.listener,
            branch: text.as_str(),
            way_back: None,
        };
        forward::write(&outgoing, &settings, io.cx.ids, &mut io.tx.scratch).is_ok()
    }
}

fn settings(io: &Io<'_, '_, '_>) -> Arc<crate::settings::Settings> {
    match io.tx.servers.get(io.server) {
        Some(server) => Arc::clone(&server.settings),
        None => Arc::clone(io.cx.env.settings),
    }
}

/// The request with another Request-URI.
pub(super) fn with_uri(request: &OwnedMessage, uri: &[u8], edits: &mut EditList) -> OwnedMessage {
    if uri.is_empty() || uri == request.as_ref().request_uri() {
        return request.clone();
    }
    edits.clear();
    let mut text = Vec::new();
    let edited = edits
        .set_request_uri(request.as_ref(), uri)
        .and_then(|()| edits.write(request.as_ref(), &mut text));
    match edited
        .ok()
        .and_then(|()| OwnedMessage::parse(text.into()).ok())
    {
        Some(edited) => edited,
        None => request.clone(),
    }
}
