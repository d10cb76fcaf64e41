//! The management commands of a running node, under OpenSIPS's names.

mod dialogs;
mod shared;
mod usrloc;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use sipbox_admin::{CommandError, CommandFuture, Commands, Params};
use sipbox_core::time::WallTime;
use sipbox_net::WorkerCounters;
use sipbox_store::{Store, StoreError};
use sipbox_telemetry::logging::LostLines;
use sipbox_wasm::PolicyStats;
use tokio::sync::{mpsc, oneshot};

use crate::node::Node;

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
        .chain(usrloc::COMMANDS)
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
            if let Some(answer) = self.location_command(method, &params).await {
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

fn store_error(error: &StoreError) -> CommandError {
    match error {
        StoreError::Missing(_) => CommandError::NotFound(error.to_string()),
        StoreError::Exists(_) => CommandError::Params(error.to_string()),
        _ => CommandError::Failed(error.to_string()),
    }
}
