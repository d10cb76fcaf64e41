//! The management commands of a running node, under OpenSIPS's names.

mod dialogs;
mod shared;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use sipbox_admin::{CommandError, CommandFuture, Commands, Params};
use sipbox_core::flow::TenantId;
use sipbox_core::location::{Aor, Binding, Commit, NewContact, method_mask};
use sipbox_core::time::WallTime;
use sipbox_net::WorkerCounters;
use sipbox_store::{Store, StoreError};
use sipbox_telemetry::logging::LostLines;
use sipbox_wasm::PolicyStats;
use tokio::sync::{mpsc, oneshot};

use crate::node::Node;

/// What `table_name` says in commands: there is one location table.
const TABLE: &str = "location";

/// Asks the main loop to reload, and where it answers.
pub(crate) type ReloadRequest = oneshot::Sender<Result<u64, String>>;

/// A policy's counters, with the tenant's and its own name.
pub(crate) type PolicyCounters = (Arc<str>, Arc<str>, Arc<PolicyStats>);

/// The commands.
pub(crate) struct NodeCommands {
    /// The node.
    pub(crate) node: Arc<Node>,
    /// Its database.
    pub(crate) store: Store,
    /// When it began.
    pub(crate) begun: Instant,
    /// When it began, by the wall clock.
    pub(crate) begun_wall: WallTime,
    pub(crate) lost_lines: LostLines,
    /// Reads the policies' counters.
    pub(crate) policies: Box<dyn Fn() -> Vec<PolicyCounters> + Send + Sync>,
    /// Reloads.
    pub(crate) reload: mpsc::Sender<ReloadRequest>,
}

/// Name, what it takes, what it does.
type Help = (&'static str, &'static [&'static str], &'static str);

/// The commands that stand here, by name.
const COMMANDS: &[Help] = &[
    (
        "get_statistics",
        &["statistics"],
        "counters: `group:`, `name`, `group:name` or `all`",
    ),
    ("help", &["mi_cmd"], "what a command takes and does"),
    (
        "nathelper:enable_ping",
        &["status"],
        "whether bindings are pinged; 0 stops it, 1 goes on",
    ),
    ("nh_enable_ping", &["status"], "nathelper:enable_ping"),
    (
        "reload",
        &[],
        "check the configuration and put it in force, whole or not at all",
    ),
    (
        "subscriber_add",
        &["username", "domain", "password"],
        "add an account",
    ),
    (
        "subscriber_list",
        &["domain"],
        "list accounts, of one domain or all",
    ),
    (
        "subscriber_passwd",
        &["username", "domain", "password"],
        "change a password",
    ),
    (
        "subscriber_rm",
        &["username", "domain"],
        "remove an account",
    ),
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
    ("uptime", &[], "since when it runs"),
    ("version", &[], "the program's version"),
    ("which", &[], "the names of all commands"),
];

/// Every command.
fn commands() -> impl Iterator<Item = &'static Help> {
    COMMANDS
        .iter()
        .chain(dialogs::COMMANDS)
        .chain(shared::COMMANDS)
}

impl Commands for NodeCommands {
    fn names(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = commands().map(|(name, ..)| *name).collect();
        names.sort_unstable();
        names
    }

    fn call<'a>(&'a self, method: &'a str, params: Params) -> CommandFuture<'a> {
        Box::pin(async move {
            let Some((_, names, _)) = commands().find(|(name, ..)| *name == method) else {
                return Err(CommandError::NoSuchCommand(method.to_owned()));
            };
            // Statistics may be given as so many words.
            if method != "get_statistics" {
                params.only(names)?;
            }
            if let Some(answer) = self.dialog_command(method, &params).await {
                return answer;
            }
            if let Some(answer) = self.shared_command(method, &params).await {
                return answer;
            }
            match method {
                "which" => Ok(json!(self.names())),
                "help" => help(&params),
                "version" => Ok(json!({ "Server": concat!("Sipbox ", env!("CARGO_PKG_VERSION")) })),
                "uptime" => Ok(self.uptime()),
                "get_statistics" => self.get_statistics(&params),
                "nathelper:enable_ping" | "nh_enable_ping" => self.enable_ping(&params),
                "reload" => self.reload().await,
                "ul_dump" => self.ul_dump(&params),
                "ul_show_contact" => self.ul_show_contact(&params),
                "ul_add" => self.ul_add(&params).await,
                "ul_rm" => self.ul_rm(&params).await,
                "ul_rm_contact" => self.ul_rm_contact(&params).await,
                "subscriber_list" => self.subscriber_list(&params).await,
                _ => self.subscriber(method, &params).await,
            }
        })
    }
}

fn help(params: &Params) -> Result<Value, CommandError> {
    let wanted = params.required("mi_cmd", 0)?;
    match commands().find(|(name, ..)| *name == wanted) {
        Some((name, params, text)) => Ok(json!({ "Name": name, "Params": params, "Help": text })),
        None => Err(CommandError::NotFound(format!("no command `{wanted}`"))),
    }
}

impl NodeCommands {
    fn wall(&self) -> WallTime {
        self.node.clock.now().1
    }

    fn uptime(&self) -> Value {
        json!({
            "Now": self.wall().seconds(),
            "Up since": self.begun_wall.seconds(),
            "Up time": self.begun.elapsed().as_secs(),
        })
    }

    async fn reload(&self) -> Result<Value, CommandError> {
        let failed = |_| CommandError::Failed("the node is stopping".to_owned());
        let (answer, answered) = oneshot::channel();
        self.reload.send(answer).await.map_err(|_| failed(()))?;
        match answered.await.map_err(|_| failed(()))? {
            Ok(version) => Ok(json!({ "version": version })),
            Err(text) => Err(CommandError::Failed(text)),
        }
    }

    fn get_statistics(&self, params: &Params) -> Result<Value, CommandError> {
        let mut wanted = params.list("statistics", 0)?;
        if wanted.is_empty() {
            wanted.push("all".to_owned());
        }
        let all = self.statistics();
        let mut found = serde_json::Map::new();
        for want in &wanted {
            let before = found.len();
            for (group, name, value) in &all {
                let full = format!("{group}:{name}");
                let hit = match want.strip_suffix(':') {
                    Some(wanted_group) => wanted_group == group,
                    None => want == "all" || *want == full || want == name,
                };
                if hit {
                    found.insert(full, json!(value));
                }
            }
            if found.len() == before && !found.contains_key(want) {
                return Err(CommandError::NotFound(format!("no statistic `{want}`")));
            }
        }
        Ok(Value::Object(found))
    }

    /// Every statistic: group, name, value.
    pub(crate) fn statistics(&self) -> Vec<(String, String, u64)> {
        let count = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        let mut all: Vec<(String, String, u64)> = self
            .node
            .stats
            .all()
            .into_iter()
            .map(|(group, name, value)| (group.to_owned(), name.to_owned(), value))
            .collect();
        let mut add = |group: &str, name: &str, value: u64| {
            all.push((group.to_owned(), name.to_owned(), value));
        };
        let counts = self.node.stack.counts();
        add("tm", "inuse_transactions", count(counts.servers));
        add("tm", "inuse_client_transactions", count(counts.clients));
        add("tm", "unfinished_transactions", count(counts.unfinished));
        add("tm", "armed_timers", count(counts.timers));
        let located = self.node.location.counts(None);
        add("usrloc", "registered_users", count(located.aors));
        add("usrloc", "location-users", count(located.aors));
        add("usrloc", "location-contacts", count(located.bindings));
        add("net", "connections", count(self.node.network.connections()));
        let sum = |counter: fn(&WorkerCounters) -> &AtomicU64| {
            let workers = self.node.network.counters().iter();
            workers
                .map(|worker| counter(worker).load(Ordering::Relaxed))
                .fold(0, u64::wrapping_add)
        };
        add("net", "datagrams", sum(|worker| &worker.datagrams));
        add("net", "undeliverable", sum(|worker| &worker.undeliverable));
        add("net", "congested", self.node.network.congested());
        add("sipbox", "lost_log_lines", self.lost_lines.count());
        for tenant in self.node.snapshot.load().settings.tenants() {
            let (name, account) = (&tenant.name, &tenant.account);
            let live = u64::from(account.live());
            add("tenant", &format!("{name}/transactions"), live);
            add("tenant", &format!("{name}/refused"), account.refused());
        }
        self.dialog_statistics(&mut add);
        self.shared_statistics(&mut add);
        for (tenant, policy, stats) in (self.policies)() {
            add("policy", &format!("{tenant}/{policy}/calls"), stats.calls());
            for (reason, failures) in stats.failures() {
                add(
                    "policy",
                    &format!("{tenant}/{policy}/failed/{reason}"),
                    failures,
                );
            }
        }
        all
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

    /// Answers with the status; OpenSIPS's `nathelper:enable_ping`.
    fn enable_ping(&self, params: &Params) -> Result<Value, CommandError> {
        let pinging = &self.node.pinging;
        match params.number("status", 0)? {
            None => {}
            Some(status) => {
                pinging.store(status != 0, Ordering::Relaxed);
                // Who sleeps looks at its settings when it wakes.
                self.node.wake();
            }
        }
        Ok(json!({ "Status": u8::from(pinging.load(Ordering::Relaxed)) }))
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
            Ok(()) => stored
                .await
                .unwrap_or(Err(sipbox_core::location::SinkError::Closed)),
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

    async fn subscriber_list(&self, params: &Params) -> Result<Value, CommandError> {
        let domain = params.text("domain", 0)?;
        let listed = self.store.subscribers().list(domain.as_deref()).await;
        let accounts = listed.map_err(|error| store_error(&error))?;
        let accounts: Vec<Value> = accounts
            .into_iter()
            .map(|account| json!({ "username": account.username, "domain": account.domain }))
            .collect();
        Ok(json!({ "Subscribers": accounts }))
    }

    async fn subscriber(&self, method: &str, params: &Params) -> Result<Value, CommandError> {
        let username = params.required("username", 0)?;
        let domain = params.required("domain", 1)?.to_ascii_lowercase();
        let subscribers = self.store.subscribers();
        let done = match method {
            "subscriber_rm" => subscribers.remove(&username, &domain).await,
            "subscriber_passwd" => {
                let password = params.required("password", 2)?;
                subscribers.passwd(&username, &domain, &password).await
            }
            _ => {
                let password = params.required("password", 2)?;
                subscribers.add(&username, &domain, &password).await
            }
        };
        self.node.credentials.forget(&username, &domain);
        done.map(|()| json!("OK"))
            .map_err(|error| store_error(&error))
    }
}

fn no_contact(aor: &Aor) -> CommandError {
    CommandError::NotFound(format!("no contact of `{}`", aor.as_str()))
}

fn store_error(error: &StoreError) -> CommandError {
    match error {
        StoreError::Missing(_) => CommandError::NotFound(error.to_string()),
        StoreError::Exists(_) => CommandError::Params(error.to_string()),
        _ => CommandError::Failed(error.to_string()),
    }
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
