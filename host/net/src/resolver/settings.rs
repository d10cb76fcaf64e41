//! How names are resolved, and names that need not be.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use foldhash::quality::RandomState;
use sipbox_core::outbox::{Candidates, NextHopCandidate};

use super::{Query, plan};

/// Settings of the resolver.
#[derive(Clone, Debug)]
pub struct ResolverConfig {
    /// Who is asked; `None`: whom the system asks.
    pub name_servers: Option<Vec<SocketAddr>>,
    /// A file of names and addresses in the form of `/etc/hosts`, which is looked
    /// at before anybody is asked for addresses.
    pub hosts: Option<PathBuf>,
    /// How long one try waits for its answer.
    pub timeout: Duration,
    /// How often a question is tried; at least once.
    pub attempts: usize,
    /// How long all questions for one name may take together.
    pub total_timeout: Duration,
    /// An answer is not believed for longer than this, whatever its records say.
    pub max_ttl: Duration,
    /// How long a failure is remembered.
    pub negative_ttl: Duration,
    /// How many answers are remembered.
    pub cache: u64,
    /// How many different questions may be open at a time.
    pub pending: usize,
    /// Names that are not asked for.
    pub names: StaticNames,
}

impl Default for ResolverConfig {
    fn default() -> Self {
        Self {
            name_servers: None,
            hosts: Some("/etc/hosts".into()),
            timeout: Duration::from_secs(2),
            attempts: 2,
            total_timeout: Duration::from_secs(8),
            max_ttl: Duration::from_secs(3600),
            negative_ttl: Duration::from_secs(5),
            cache: 10_000,
            pending: 1024,
            names: StaticNames::default(),
        }
    }
}

/// Names that the configuration settles. Names are compared without case.
#[derive(Clone, Debug, Default)]
pub struct StaticNames {
    routes: HashMap<String, Candidates, RandomState>,
    hosts: HashMap<String, Vec<IpAddr>, RandomState>,
}

impl StaticNames {
    /// Sends whatever is for `domain` to these next hops, in this order.
    pub fn add_route(&mut self, domain: &str, next_hops: &[NextHopCandidate]) {
        self.routes.insert(
            domain.to_ascii_lowercase(),
            next_hops.iter().copied().collect(),
        );
    }

    /// Gives a host its addresses, as `/etc/hosts` would.
    pub fn add_host(&mut self, host: &str, addresses: &[IpAddr]) {
        self.hosts
            .insert(host.to_ascii_lowercase(), addresses.to_vec());
    }

    pub(super) fn find(&self, query: &Query) -> Option<Candidates> {
        if let Some(route) = self.routes.get(&query.host) {
            return Some(route.clone());
        }
        let addresses = self.hosts.get(&query.host)?;
        Some(plan::direct(query, addresses.iter().copied()))
    }
}
