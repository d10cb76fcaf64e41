//! What goes into the service and comes out of it as values: plans, commits, and
//! what an operator adds.

use std::sync::Arc;

use smallvec::SmallVec;

use super::aor::Aor;
use super::binding::{Binding, Bindings};
use super::register::{ContactUpdate, Contacts, Register};
use super::row::{Change, received_uri};
use crate::flow::{Flow, TenantId};
use crate::policy::SaveLimits;
use crate::time::WallTime;

/// A REGISTER that may be committed.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) tenant: TenantId,
    pub(super) aor: Aor,
    pub(super) register: Register,
    pub(super) flow: Option<Flow>,
    pub(super) socket: Arc<str>,
    pub(super) limits: SaveLimits,
    pub(super) standing: u32,
}

impl Plan {
    /// How many bindings will stand.
    #[must_use]
    pub fn standing(&self) -> u32 {
        self.standing
    }

    /// The address of record.
    #[must_use]
    pub fn aor(&self) -> &Aor {
        &self.aor
    }

    /// The Path values, which the 200 repeats (RFC 3327 section 5.3).
    #[must_use]
    pub fn path(&self) -> &[Box<str>] {
        &self.register.path
    }
}

/// What a REGISTER comes to.
#[derive(Clone, Debug)]
pub enum Planned {
    /// It changes bindings, once committed.
    Save(Box<Plan>),
    /// It only asks; these stand.
    Query(Bindings),
}

/// What a commit did. Once its fate is known, [`super::LocationService::settle`] is told.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The changes, for the sink; possibly none.
    pub changes: SmallVec<[Change; 1]>,
    /// The bindings that stand now, in order.
    pub bindings: Bindings,
    pub(super) tenant: TenantId,
    pub(super) aor: Arc<Aor>,
}

impl Commit {
    /// The address of record.
    #[must_use]
    pub fn aor(&self) -> &Arc<Aor> {
        &self.aor
    }
}

/// A contact that an operator adds (OpenSIPS's `ul_add`).
#[derive(Clone, Debug)]
pub struct NewContact {
    /// The URI.
    pub uri: String,
    /// Preference in thousandths.
    pub q: u16,
    /// Seconds; `None` is permanent.
    pub expires: Option<u32>,
    /// Path values, first hop first.
    pub path: Vec<String>,
    /// Allowed methods, see [`super::method_mask`].
    pub methods: Option<u32>,
}

impl Plan {
    /// A plan that writes one contact, whatever stands.
    pub(super) fn of_operator(tenant: TenantId, aor: &Aor, contact: NewContact) -> Self {
        let update = ContactUpdate {
            uri: contact.uri.into(),
            expires: contact.expires,
            q: contact.q.min(1000),
            instance: None,
            reg_id: None,
            elsewhere: false,
        };
        let empty = Self::empty(tenant, aor);
        Self {
            register: Register {
                contacts: Contacts::Update(SmallVec::from_iter([update])),
                path: contact
                    .path
                    .into_iter()
                    .map(String::into_boxed_str)
                    .collect(),
                methods: contact.methods,
                ..empty.register
            },
            ..empty
        }
    }

    /// A plan that writes nothing. No phone's Call-ID is empty, so a later
    /// REGISTER may take over what comes of it.
    pub(super) fn empty(tenant: TenantId, aor: &Aor) -> Self {
        Self {
            tenant,
            aor: aor.clone(),
            register: Register {
                contacts: Contacts::RemoveAll,
                call_id: "".into(),
                cseq: 0,
                path: SmallVec::new(),
                user_agent: "".into(),
                methods: None,
            },
            flow: None,
            socket: "".into(),
            limits: SaveLimits::default(),
            standing: 0,
        }
    }

    pub(super) fn uri(&self) -> &str {
        match &self.register.contacts {
            Contacts::Update(updates) => updates.first().map(|u| &*u.uri).unwrap_or_default(),
            Contacts::Query | Contacts::RemoveAll => "",
        }
    }

    /// A binding of one contact; id, end and times are the caller's to set.
    pub(super) fn binding(&self, update: &ContactUpdate) -> Binding {
        let flow = self.flow.filter(|_| !update.elsewhere);
        Binding {
            id: 0,
            contact: update.uri.clone(),
            q: update.q,
            expires: WallTime(0),
            path: self.register.path.clone(),
            received: flow.as_ref().map(received_uri).unwrap_or_default().into(),
            flow,
            instance: update.instance.clone(),
            reg_id: update.reg_id,
            call_id: self.register.call_id.clone(),
            cseq: self.register.cseq,
            user_agent: self.register.user_agent.clone(),
            methods: self.register.methods,
            flags: self.limits.flags,
            last_modified: WallTime(0),
            socket: self.socket.clone(),
            sequence: 0,
        }
    }
}
