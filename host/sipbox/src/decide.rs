//! From a question of the core to its answer: fetch what the policies may ask
//! for, run the chain, commit what it staged, look its targets up.

use std::sync::Arc;

use sipbox_core::auth::{NamedCredentials, named_credentials};
use sipbox_core::chain::Outcome;
use sipbox_core::decision::{ArmedSet, Decision, Ruling};
use sipbox_core::dialog::DialogId;
use sipbox_core::error::Internal;
use sipbox_core::flow::TenantId;
use sipbox_core::ids::{AskId, StatelessId};
use sipbox_core::location::{Change, Commit, Refused, contact_header_values};
use sipbox_core::policy::{CallState, DialogOp, Effect, Facts, Realm, Reply, RoutePreset, Verdict};
use sipbox_core::time::WallTime;
use sipbox_sip::auth::Credentials;
use sipbox_sip::{EditList, HeaderId, Message, Method, OwnedMessage, Uri};
use smallvec::SmallVec;

use crate::capabilities::{Fetched, Registration, RequestCapabilities, Unavailable};
use crate::dialogs;
use crate::node::Node;
use crate::shared;
use crate::snapshot::Tenant;
use crate::targets::Lookup;

/// Which question is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// `on-request` of a transaction.
    Request(AskId),
    /// `on-request` without a transaction.
    Stateless(StatelessId),
    /// `on-failure`.
    Failure(AskId),
}

impl Question {
    /// Its name; `None`: no transaction waits for the answer.
    pub(crate) fn id(self) -> Option<AskId> {
        match self {
            Self::Request(id) | Self::Failure(id) => Some(id),
            Self::Stateless(_) => None,
        }
    }
}

/// A request on its way to its policies.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Which question.
    pub(crate) question: Question,
    /// Whose chain, in the version that the request began with.
    pub(crate) tenant: Arc<Tenant>,
    /// The request.
    pub(crate) request: OwnedMessage,
    /// What is not in its bytes.
    pub(crate) facts: Arc<Facts>,
    /// The accounts that it names, as far as they are known.
    pub(crate) credentials: Vec<Fetched>,
}

/// A verdict that is ready to be carried out.
#[derive(Clone, Debug)]
pub(crate) struct Ruled {
    /// Which question it answers.
    pub(crate) question: Question,
    /// What is not in the request's bytes.
    pub(crate) facts: Arc<Facts>,
    /// The answer.
    pub(crate) decision: Decision,
}

impl Ruled {
    /// For a request whose tenant a reload has taken away: it is nobody's, like one for a
    /// domain that no tenant has.
    pub(crate) fn without_tenant(
        question: Question,
        request: OwnedMessage,
        facts: Arc<Facts>,
    ) -> Self {
        let state = CallState::default();
        Self::refused(question, request, facts, state, Internal::NoVerdict)
    }

    /// For a request that is refused whatever its policies say. Of what they said counts
    /// how its sender is reached.
    pub(crate) fn refused(
        question: Question,
        request: OwnedMessage,
        facts: Arc<Facts>,
        state: CallState,
        why: Internal,
    ) -> Self {
        let decision = Decision {
            ruling: Ruling::Reply(why.reply()),
            request,
            state: CallState {
                nat: state.nat,
                ..CallState::default()
            },
            armed: ArmedSet::default(),
        };
        Self {
            question,
            facts,
            decision,
        }
    }
}

/// A verdict, and what must be stored before it counts.
pub(crate) struct Committed {
    /// The verdict.
    pub(crate) ruled: Ruled,
    /// What was changed in memory.
    pub(crate) commits: Vec<Commit>,
    /// What is to become of a dialog that is there already.
    pub(crate) dialog: Option<(DialogId, Vec<DialogOp>)>,
}

impl Committed {
    /// All changes, for the sink.
    pub(crate) fn changes(&self) -> SmallVec<[Change; 1]> {
        self.commits
            .iter()
            .flat_map(|commit| commit.changes.iter().cloned())
            .collect()
    }
}

/// Accounts that a request can name; further ones are as if it had not. RFC 3261
/// section 22 has one for each realm.
const NAMED: usize = 4;

/// Splits the accounts that a request names into those that are known and those
/// that must be fetched. Only realms of the tenant's own domains count, and few
/// accounts: what a stranger names costs next to no look-up.
pub(crate) fn accounts(
    node: &Node,
    tenant: &Tenant,
    request: &OwnedMessage,
) -> (Vec<Fetched>, Vec<NamedCredentials>) {
    let mut known: Vec<Fetched> = Vec::new();
    let mut missing: Vec<NamedCredentials> = Vec::new();
    for named in named_credentials(&request.as_ref()) {
        if !tenant.has_realm(&named.realm)
            || missing.contains(&named)
            || known.iter().any(|(before, _)| *before == named)
        {
            continue;
        }
        if known.len() + missing.len() == NAMED {
            break;
        }
        match node
            .credentials
            .cached(&named.user, &named.realm.to_ascii_lowercase())
        {
            Some(account) => known.push((named, Ok(account))),
            None => missing.push(named),
        }
    }
    (known, missing)
}

/// What is known of accounts when too many are looked up already.
pub(crate) fn unavailable(missing: Vec<NamedCredentials>) -> impl Iterator<Item = Fetched> {
    tracing::debug!("too many accounts are looked up already");
    missing.into_iter().map(|named| (named, Err(Unavailable)))
}

/// Fetches accounts from the database.
pub(crate) async fn fetch(node: &Node, missing: Vec<NamedCredentials>) -> Vec<Fetched> {
    let mut fetched = Vec::with_capacity(missing.len());
    for named in missing {
        let domain = named.realm.to_ascii_lowercase();
        let account = node
            .credentials
            .fetch(&named.user, &domain)
            .await
            .map_err(|error| {
                tracing::error!(%error, user = named.user, domain, "an account cannot be read");
                Unavailable
            });
        fetched.push((named, account));
    }
    fetched
}

/// Whether a chain staged what stays, whatever becomes of the request. A challenge is of its
/// reply only, and a dialog that is to begin goes with the verdict.
pub(crate) fn writes(outcome: &Outcome, facts: &Facts) -> bool {
    let dialog = outcome.state.dialog.is_some() || facts.dialog.is_some();
    outcome.effects.iter().any(|effect| match effect {
        Effect::SaveLocation { .. }
        | Effect::RemoveLocation { .. }
        | Effect::Kv(_)
        | Effect::Release(_) => true,
        Effect::Dialog(_) => dialog,
        Effect::Challenge(_) => false,
    })
}

/// Finds the targets of a verdict that forwards: `None` of one that does not, whose ruling
/// may depend on what is committed.
pub(crate) fn resolve(
    node: &Node,
    tenant: &Tenant,
    outcome: &mut Outcome,
    wall: WallTime,
) -> Option<Ruling> {
    outcome.verdict.forwards().then(|| {
        let verdict = std::mem::replace(&mut outcome.verdict, Verdict::Next);
        Lookup { node, tenant, wall }.ruling(verdict)
    })
}

/// Commits what a chain staged and makes its verdict concrete, unless it is `resolved`. The
/// core has said that the verdict counts.
#[expect(clippy::too_many_arguments, reason = "all that a verdict consists of")]
pub(crate) fn commit(
    node: &Node,
    tenant: &Tenant,
    question: Question,
    facts: Arc<Facts>,
    capabilities: &RequestCapabilities,
    outcome: Outcome,
    resolved: Option<Ruling>,
    wall: WallTime,
) -> Committed {
    let Outcome {
        mut verdict,
        request,
        mut state,
        armed,
        effects,
        ..
    } = outcome;
    if let Some(preset) = state
        .record_route
        .as_ref()
        .and_then(|r| r.preset.as_deref())
    {
        warn_of_mismatch(node, tenant, preset);
    }
    shared::commit_writes(node, &effects);
    let mut commits = Vec::new();
    let mut ops = Vec::new();
    let mut registration = capabilities.take_registration();
    for effect in effects {
        match effect {
            Effect::SaveLocation { aor, .. } => {
                let Some(Registration::Save { aor: planned, plan }) = &registration else {
                    continue;
                };
                if *planned != aor {
                    continue;
                }
                match node.location.commit(plan, wall) {
                    Ok(commit) => commits.push(commit),
                    Err(refused) => {
                        // Another REGISTER came between the hook and here.
                        verdict = Verdict::Reply(Reply::of(refused.status));
                        registration = Some(Registration::Refused(refused));
                    }
                }
            }
            Effect::RemoveLocation { aor } => {
                if let Ok(aor) = sipbox_core::location::Aor::parse(&aor) {
                    commits.extend(node.location.remove(tenant.id, &aor, wall));
                }
            }
            Effect::Challenge(realm) => {
                if let Verdict::Reply(reply) = &mut verdict {
                    challenge(node, tenant.id, capabilities, &realm, reply, wall);
                }
            }
            Effect::Dialog(op) => ops.push(op),
            Effect::Release(lease) => lease.end(),
            // Committed above, the last one of each key.
            Effect::Kv(_) => {}
        }
    }
    if let (Verdict::Reply(reply), Some(registration)) = (&mut verdict, &registration)
        && request.as_ref().method() == Method::Register
    {
        describe(registration, &commits, reply, wall);
    }
    let ruling = resolved.unwrap_or_else(|| Lookup { node, tenant, wall }.ruling(verdict));
    let request = match &ruling {
        Ruling::Relay(_) | Ruling::ForwardStateless(_) => without_credentials(tenant, request),
        _ => request,
    };
    let asked = state.record_route.is_some();
    let records = matches!(&ruling, Ruling::Relay(relay) if asked || relay.record_route.is_some());
    let dialog = dialogs::changes(node, tenant, &facts, &request, &mut state, ops, records);
    let decision = Decision {
        ruling,
        request,
        state,
        armed,
    };
    Committed {
        ruled: Ruled {
            question,
            facts,
            decision,
        },
        commits,
        dialog,
    }
}

/// OpenSIPS's `enable_socket_mismatch_warning`: a Record-Route that names nobody of us
/// comes back as somebody else's.
fn warn_of_mismatch(node: &Node, tenant: &Tenant, preset: &RoutePreset) {
    let snapshot = node.snapshot.load();
    let settings = &snapshot.settings;
    if !settings.record_route.enable_socket_mismatch_warning {
        return;
    }
    for text in [Some(&preset.outbound), preset.inbound.as_ref()]
        .into_iter()
        .flatten()
    {
        let uri = format!("sip:{text}");
        if !Uri::parse(uri.as_bytes()).is_ok_and(|uri| settings.is_us(&uri)) {
            tracing::warn!(
                tenant = &*tenant.name,
                preset = text,
                "record-route-preset names no listener and no alias"
            );
        }
    }
}

/// RFC 3261 section 22.3: credentials for our own realms have served their purpose
/// here, and the next hop could only misuse them. Others' go on.
fn without_credentials(tenant: &Tenant, request: OwnedMessage) -> OwnedMessage {
    stripped(tenant, request.as_ref()).unwrap_or(request)
}

/// `None`: there is nothing to remove. Whole lines are removed from a message that
/// parses, so nothing can fail; if it did, the request is better relayed than lost.
fn stripped(tenant: &Tenant, message: Message<'_>) -> Option<OwnedMessage> {
    let ours: SmallVec<[_; 2]> = [HeaderId::Authorization, HeaderId::ProxyAuthorization]
        .into_iter()
        .flat_map(|id| message.all(id))
        .filter(|field| {
            Credentials::parse(message.get(field.value)).is_ok_and(|credentials| {
                std::str::from_utf8(&credentials.realm).is_ok_and(|realm| tenant.has_realm(realm))
            })
        })
        .collect();
    if ours.is_empty() {
        return None;
    }
    let mut edits = EditList::new();
    let mut bytes = Vec::with_capacity(message.bytes().len());
    ours.iter()
        .try_for_each(|field| edits.remove_field(field))
        .ok()?;
    edits.write(message, &mut bytes).ok()?;
    OwnedMessage::parse(bytes.into()).ok()
}

/// The reply to a request whose changes could not be stored.
pub(crate) fn not_stored(ruled: &mut Ruled) {
    ruled.decision.ruling = Ruling::reply(500);
}

/// RFC 3261 section 22: the challenges of a realm, one field each (RFC 8760).
fn challenge(
    node: &Node,
    tenant: TenantId,
    capabilities: &RequestCapabilities,
    realm: &Realm,
    reply: &mut Reply,
    wall: WallTime,
) {
    let name = if realm.proxy {
        "Proxy-Authenticate"
    } else {
        "WWW-Authenticate"
    };
    let stale = capabilities.is_stale(realm);
    let values = node
        .authenticator
        .challenge_values(tenant, realm, wall, stale);
    reply
        .headers
        .extend(values.into_iter().map(|value| (name.to_owned(), value)));
}

/// RFC 3261 section 10.3, step 8, and RFC 3327 section 5.3: what the answer to a REGISTER
/// says about bindings.
fn describe(registration: &Registration, commits: &[Commit], reply: &mut Reply, wall: WallTime) {
    let success = (200..300).contains(&reply.status);
    let mut add = |name: &str, value: String| reply.headers.push((name.to_owned(), value));
    match registration {
        Registration::Save { plan, .. } if success => {
            if let Some(commit) = commits.iter().find(|commit| **commit.aor() == *plan.aor()) {
                for value in contact_header_values(&commit.bindings, wall) {
                    add("Contact", value);
                }
                for value in plan.path() {
                    add("Path", value.to_string());
                }
            }
        }
        Registration::Query(bindings) if success => {
            for value in contact_header_values(bindings, wall) {
                add("Contact", value);
            }
        }
        Registration::Refused(Refused {
            status,
            min_expires: Some(min),
            ..
        }) if reply.status == *status => {
            add("Min-Expires", min.to_string());
        }
        _ => {}
    }
}
