//! The commands of `kv`, under the names of OpenSIPS's cachedb, and the statistics of
//! what policies share.

use std::sync::Arc;

use serde_json::{Value, json};
use sipbox_admin::{CommandError, Params};
use sipbox_core::policy::CallError;
use sipbox_core::shared::{Answer, Change};

use super::{Help, NodeCommands};
use crate::snapshot::Tenant;

/// The commands, by name. OpenSIPS's `system` names a cache; here each tenant has one.
pub(super) const COMMANDS: &[Help] = &[
    (
        "cache_fetch",
        &["system", "attr"],
        "what stands under a key of a tenant's kv; `system` is the tenant",
    ),
    (
        "cache_remove",
        &["system", "attr"],
        "remove a key of a tenant's kv",
    ),
    (
        "cache_store",
        &["system", "attr", "value", "expire"],
        "have a key of a tenant's kv stand for a value, for so many seconds or until it is \
         removed",
    ),
];

/// The longest time to live, in seconds, as for policies.
const LONGEST: u32 = 100_000_000;
/// The most bytes of a key.
const LONGEST_KEY: usize = 255;

async fn answered<T>(answer: Answer<Result<T, CallError>>) -> Result<T, CommandError> {
    let answer = match answer {
        Answer::Now(answer) => answer,
        Answer::Later(answer) => answer.await,
    };
    answer.map_err(|error| CommandError::Failed(error.to_string()))
}

impl NodeCommands {
    /// What these commands do; `None`: it is none of them.
    pub(super) async fn shared_command(
        &self,
        method: &str,
        params: &Params,
    ) -> Option<Result<Value, CommandError>> {
        Some(match method {
            "cache_fetch" => self.cache_fetch(params).await,
            "cache_store" => self.cache_store(params).await,
            "cache_remove" => self.cache_remove(params).await,
            _ => return None,
        })
    }

    /// Statistics of values and counters, of all tenants and of each.
    pub(super) fn shared_statistics(&self, mut add: impl FnMut(&str, &str, u64)) {
        let (mut entries, mut bytes, mut counters) = (0, 0, 0);
        for tenant in self.node.snapshot.load().tenants() {
            let (name, usage) = (&tenant.name, tenant.shared.usage());
            add("tenant", &format!("{name}/kv_entries"), usage.kv_entries);
            add("tenant", &format!("{name}/kv_bytes"), usage.kv_bytes);
            add("tenant", &format!("{name}/counters"), usage.counters);
            entries += usage.kv_entries;
            bytes += usage.kv_bytes;
            counters += usage.counters;
        }
        add("kv", "entries", entries);
        add("kv", "bytes", bytes);
        add("counters", "active", counters);
    }

    fn system(&self, params: &Params) -> Result<(Arc<Tenant>, String), CommandError> {
        let (system, key) = (params.required("system", 0)?, params.required("attr", 1)?);
        let snapshot = self.node.snapshot.load();
        let tenant = snapshot.tenants().find(|tenant| *tenant.name == *system);
        let missing = || CommandError::NotFound(format!("no tenant `{system}`"));
        // As policies may name one.
        if key.is_empty() || key.len() > LONGEST_KEY || key.chars().any(char::is_control) {
            let wanted = "1 to 255 bytes without control characters";
            return Err(CommandError::Params(format!("`attr`: {wanted}")));
        }
        Ok((tenant.cloned().ok_or_else(missing)?, key))
    }

    async fn cache_fetch(&self, params: &Params) -> Result<Value, CommandError> {
        let (tenant, key) = self.system(params)?;
        let (now, _) = self.node.clock.now();
        match answered(tenant.shared.kv.get(&key, now)).await? {
            Some(entry) => Ok(json!({
                "key": key,
                "value": String::from_utf8_lossy(&entry.value),
                "expire": entry.ttl,
            })),
            None => Err(CommandError::NotFound(format!("nothing under `{key}`"))),
        }
    }

    async fn cache_store(&self, params: &Params) -> Result<Value, CommandError> {
        let (tenant, key) = self.system(params)?;
        let value = params.required("value", 2)?;
        let expire = params.number("expire", 3)?.unwrap_or(0);
        let ttl = u32::try_from(expire).ok().filter(|ttl| *ttl <= LONGEST);
        let ttl = ttl.ok_or_else(|| {
            CommandError::Params(format!("`expire` is {expire}: at most {LONGEST} seconds"))
        })?;
        let change = Change::Set {
            value: value.into(),
            ttl,
        };
        self.cache_write(&tenant, &key, change).await
    }

    async fn cache_remove(&self, params: &Params) -> Result<Value, CommandError> {
        let (tenant, key) = self.system(params)?;
        self.cache_write(&tenant, &key, Change::Remove).await
    }

    async fn cache_write(
        &self,
        tenant: &Tenant,
        key: &str,
        change: Change,
    ) -> Result<Value, CommandError> {
        let (now, _) = self.node.clock.now();
        let staged = answered(tenant.shared.kv.stage(key, change, None, now)).await?;
        answered(staged.commit(now)).await?;
        Ok(json!("OK"))
    }
}
