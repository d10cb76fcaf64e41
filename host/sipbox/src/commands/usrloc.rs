//! The commands of the location service, under the names of OpenSIPS's usrloc module.

use std::sync::Arc;

use serde_json::{Value, json};
use sipbox_admin::{CommandError, Params};
use sipbox_core::flow::TenantId;
use sipbox_core::location::{Aor, Binding, Commit, NewContact, SinkError, method_mask};
use sipbox_core::time::WallTime;
use tokio::sync::oneshot;

use super::{Help, NodeCommands};

/// What `table_name` says in commands: there is one location table.
const TABLE: &str = "location";

/// The commands, by name.
pub(super) const COMMANDS: &[Help] = &[
    (
        "ul_add",
        &[
            "table_name",
            "aor",
            "contact",
            "expires",
            "q",
            "flags",
            "cflags",
            "methods",
        ],
        "add a contact; expires 0 is permanent",
    ),
    (
        "ul_dump",
        &["brief"],
        "every address of record with its contacts",
    ),
    (
        "ul_rm",
        &["table_name", "aor"],
        "remove all contacts of an address of record",
    ),
    (
        "ul_rm_contact",
        &["table_name", "aor", "contact"],
        "remove one contact",
    ),
    (
        "ul_show_contact",
        &["table_name", "aor"],
        "the contacts of an address of record",
    ),
];

impl NodeCommands {
    /// What these commands do; `None`: it is none of them.
    pub(super) async fn location_command(
        &self,
        method: &str,
        params: &Params,
    ) -> Option<Result<Value, CommandError>> {
        Some(match method {
            "ul_dump" => self.ul_dump(params),
            "ul_show_contact" => self.ul_show_contact(params),
            "ul_add" => self.ul_add(params).await,
            "ul_rm" => self.ul_rm(params).await,
            "ul_rm_contact" => self.ul_rm_contact(params).await,
            _ => return None,
        })
    }

    fn ul_dump(&self, params: &Params) -> Result<Value, CommandError> {
        let brief = params.number("brief", 0)?.is_some_and(|brief| brief != 0);
        let wall = self.wall();
        let snapshot = self.node.snapshot.load();
        let mut aors = Vec::new();
        self.node.location.dump(None, |tenant, aor, bindings| {
            let held = bindings.iter().filter(|binding| binding.holds(wall));
            let contacts: Vec<Value> = held
                .map(|binding| {
                    if brief {
                        json!({ "Contact": binding.contact })
                    } else {
                        contact(binding, wall)
                    }
                })
                .collect();
            if !contacts.is_empty() {
                let tenant = snapshot.tenant(tenant).map_or("", |tenant| &*tenant.name);
                aors.push(json!({ "AOR": aor.as_str(), "Tenant": tenant, "Contacts": contacts }));
            }
        });
        aors.sort_by(|a, b| a["AOR"].as_str().cmp(&b["AOR"].as_str()));
        Ok(json!({ "Domains": [{ "name": TABLE, "AORs": aors }] }))
    }

    /// The address of record that parameters name, and whose it is.
    fn aor(&self, params: &Params) -> Result<(TenantId, Aor), CommandError> {
        let table = params.required("table_name", 0)?;
        if table != TABLE {
            return Err(CommandError::NotFound(format!(
                "no table `{table}`; there is `{TABLE}`"
            )));
        }
        let text = params.required("aor", 1)?;
        let aor = Aor::parse(text.strip_prefix("sip:").unwrap_or(&text))
            .map_err(|error| CommandError::Params(format!("`aor`: `{text}`: {error}")))?;
        match self.node.snapshot.load().tenant_of(aor.domain()) {
            Some(tenant) => Ok((tenant, aor)),
            None => {
                let domain = aor.domain();
                Err(CommandError::NotFound(format!(
                    "no tenant has the domain `{domain}`"
                )))
            }
        }
    }

    fn ul_show_contact(&self, params: &Params) -> Result<Value, CommandError> {
        let (tenant, aor) = self.aor(params)?;
        let wall = self.wall();
        let bindings = self.node.location.lookup(tenant, &aor, wall);
        if bindings.is_empty() {
            return Err(no_contact(&aor));
        }
        let contacts: Vec<Value> = bindings
            .iter()
            .map(|binding| contact(binding, wall))
            .collect();
        Ok(json!({ "AOR": aor.as_str(), "Contacts": contacts }))
    }

    async fn ul_add(&self, params: &Params) -> Result<Value, CommandError> {
        let (tenant, aor) = self.aor(params)?;
        let uri = params.required("contact", 2)?;
        let expires = params.number("expires", 3)?.unwrap_or(0);
        let q = match params.text("q", 4)? {
            None => 1000,
            Some(text) => thousandths(&text)
                .ok_or_else(|| CommandError::Params(format!("`q`: `{text}` is not 0.0 to 1.0")))?,
        };
        let methods = match params.text("methods", 7)? {
            None => None,
            Some(text) => match text.parse() {
                Ok(mask) => Some(mask),
                Err(_) => Some(method_mask(&text)),
            },
        };
        let new = NewContact {
            uri,
            q,
            expires: (expires != 0).then(|| u32::try_from(expires).unwrap_or(u32::MAX)),
            path: Vec::new(),
            methods,
        };
        let added = self.node.location.add(tenant, &aor, new, self.wall());
        let commit = added
            .map_err(|refused| CommandError::Params(format!("`contact`: {}", refused.reason)))?;
        self.store(commit).await
    }

    async fn ul_rm(&self, params: &Params) -> Result<Value, CommandError> {
        let (tenant, aor) = self.aor(params)?;
        let removed = self.node.location.remove(tenant, &aor, self.wall());
        self.store(removed.ok_or_else(|| no_contact(&aor))?).await
    }

    async fn ul_rm_contact(&self, params: &Params) -> Result<Value, CommandError> {
        let (tenant, aor) = self.aor(params)?;
        let uri = params.required("contact", 2)?;
        let removed = self
            .node
            .location
            .remove_contact(tenant, &aor, &uri, self.wall());
        self.store(removed.ok_or_else(|| no_contact(&aor))?).await
    }

    /// Answers when the change is as durable as it gets.
    async fn store(&self, commit: Commit) -> Result<Value, CommandError> {
        let (done, stored) = oneshot::channel();
        let (node, kept) = (Arc::clone(&self.node), commit.clone());
        let submitted = self.node.sink.submit(
            commit.changes.clone(),
            Box::new(move |result| {
                node.location.settle(&kept, result.is_ok());
                // Nobody listens any more if the client went.
                let _ = done.send(result);
            }),
        );
        let result = match submitted {
            Ok(()) => stored.await.unwrap_or(Err(SinkError::Closed)),
            Err(error) => {
                self.node.location.settle(&commit, false);
                Err(error)
            }
        };
        match result {
            Ok(()) => Ok(json!("OK")),
            Err(error) => Err(CommandError::Failed(error.to_string())),
        }
    }
}

fn no_contact(aor: &Aor) -> CommandError {
    CommandError::NotFound(format!("no contact of `{}`", aor.as_str()))
}

/// `0.5` as 500; `None` outside of 0.0 to 1.0 (RFC 3261 section 25.1, `qvalue`).
fn thousandths(text: &str) -> Option<u16> {
    let value: f64 = text.parse().ok()?;
    // In range after the check, so nothing is cut.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to 1000"
    )]
    (0.0..=1.0)
        .contains(&value)
        .then(|| (value * 1000.0).round() as u16)
}

fn contact(binding: &Binding, wall: WallTime) -> Value {
    let mut fields = json!({
        "Contact": binding.contact,
        "ContactID": binding.id.to_string(),
        "Expires": match binding.expires {
            Binding::PERMANENT => json!("permanent"),
            _ => json!(binding.remaining(wall)),
        },
        "Q": f64::from(binding.q) / 1000.0,
        "Callid": binding.call_id,
        "Cseq": binding.cseq,
        "User-agent": binding.user_agent,
        "Socket": &*binding.socket,
        "Last-modified": binding.last_modified.seconds(),
    });
    let mut add = |name: &str, value: Value| {
        if let Some(fields) = fields.as_object_mut() {
            fields.insert(name.to_owned(), value);
        }
    };
    if !binding.received.is_empty() {
        add("Received", json!(binding.received));
    }
    if let Some(cflags) = binding.flags.to_cflags() {
        add("Cflags", json!(cflags));
    }
    if !binding.path.is_empty() {
        add("Path", json!(binding.path.join(",")));
    }
    if let Some(methods) = binding.methods {
        add("Methods", json!(methods));
    }
    if let Some(instance) = &binding.instance {
        add("SIP_instance", json!(instance));
    }
    fields
}
