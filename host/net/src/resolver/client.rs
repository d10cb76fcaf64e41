//! Hickory, set up as we want it.

use std::sync::Arc;

use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts,
    ResolverConfig as HickoryConfig,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{Hosts, TokioResolver};
use sipbox_core::outbox::ResolveError;

use super::{Families, ResolverConfig};

/// What a failed look-up means to whoever asked.
pub(super) fn error_of(error: &NetError) -> ResolveError {
    if error.is_nx_domain() || error.is_no_records_found() {
        ResolveError::NoSuchName
    } else if matches!(error, NetError::Timeout) {
        ResolveError::TimedOut
    } else {
        ResolveError::Failed
    }
}

/// The client.
///
/// # Errors
/// When the system's settings are wanted and cannot be read.
pub(super) fn client(
    config: &ResolverConfig,
    families: Families,
) -> Result<TokioResolver, NetError> {
    let mut builder = match &config.name_servers {
        Some(servers) => {
            let servers = servers.iter().map(|server| {
                let mut udp = ConnectionConfig::udp();
                let mut tcp = ConnectionConfig::tcp();
                udp.port = server.port();
                tcp.port = server.port();
                NameServerConfig::new(server.ip(), true, vec![udp, tcp])
            });
            TokioResolver::builder_with_config(
                HickoryConfig::from_name_servers(servers.collect()),
                TokioRuntimeProvider::default(),
            )
        }
        None => TokioResolver::builder_tokio()?,
    };
    let options = builder.options_mut();
    options.timeout = config.timeout;
    // Hickory counts the tries that follow the first one.
    options.attempts = config.attempts.saturating_sub(1);
    options.cache_size = config.cache;
    options.negative_max_ttl = Some(config.negative_ttl);
    options.positive_max_ttl = Some(config.max_ttl);
    // The file is ours to choose, below.
    options.use_hosts_file = ResolveHosts::Never;
    options.ip_strategy = match (families.v4, families.v6) {
        (true, false) => LookupIpStrategy::Ipv4Only,
        (false, true) => LookupIpStrategy::Ipv6Only,
        _ => LookupIpStrategy::Ipv4AndIpv6,
    };
    let mut client = builder.build()?;
    if let Some(path) = &config.hosts {
        let mut hosts = Hosts::default();
        let read = std::fs::File::open(path)
            .and_then(|file| hosts.read_hosts_conf(std::io::BufReader::new(file)));
        match read {
            Ok(()) => client.set_hosts(Arc::new(hosts)),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "the hosts file is left out");
            }
        }
    }
    Ok(client)
}
