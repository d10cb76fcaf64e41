//! From the model of a configuration to what the other crates take.

use std::path::Path;

use sipbox_config::{Component, Config, Dns, Durability, Nathelper};
use sipbox_core::auth::AuthSettings;
use sipbox_core::dialog;
use sipbox_core::flow::TenantId;
use sipbox_core::location::{Datagram, PingSettings};
use sipbox_core::quota::Quota;
use sipbox_core::settings::{
    ListenerSpec, RecordRouteSpec, SettingsSpec, StaticRoute, TenantSpec, Timers,
};
use sipbox_core::shared::SharedLimits;
use sipbox_net::{ListenerConfig, NetConfig, ResolverConfig, StreamLimits};
use sipbox_wasm::{Capability, Limits};

use crate::memory;
use crate::parts::{ComponentSource, Fixed, Live, PolicyParts, TenantParts};
use crate::start::default_workers;

/// What only a start can change.
pub(crate) fn fixed(config: &Config) -> Fixed {
    let limits = &config.limits;
    let mut streams = StreamLimits {
        connections: limits.connections,
        connections_per_source: limits.connections_per_source,
        message_timeout: limits.message_timeout,
        idle_timeout: limits.idle_timeout,
        connect_timeout: limits.connect_timeout,
        ..StreamLimits::default()
    };
    streams.frame.body = limits.message_max;
    let listeners = config.listeners.iter().map(|listener| ListenerConfig {
        transport: listener.transport,
        address: listener.address,
    });
    let net = NetConfig {
        listeners: listeners.collect(),
        workers: if config.workers == 0 {
            default_workers()
        } else {
            config.workers
        },
        streams,
        resolver: resolver(&config.dns),
        ..NetConfig::default()
    };
    Fixed {
        node: config.node,
        net,
        database: config.store.path.clone(),
        key: config.store.key.clone(),
        durability: match config.store.durability {
            Durability::Commit => sipbox_store::Durability::Commit,
            Durability::Behind => sipbox_store::Durability::Behind,
        },
        cache: Some(
            config
                .store
                .path
                .parent()
                .unwrap_or(Path::new("."))
                .join("components"),
        ),
        control: config.control.socket.clone(),
        auth: AuthSettings {
            nonce_lifetime: config.auth.nonce_lifetime,
            nonce_table: config.auth.nonce_table,
            failures: config.auth.failures,
            failure_window: config.auth.failure_window,
            ..AuthSettings::default()
        },
    }
}

fn resolver(dns: &Dns) -> ResolverConfig {
    ResolverConfig {
        name_servers: (!dns.servers.is_empty()).then(|| dns.servers.clone()),
        hosts: dns.hosts.clone(),
        timeout: dns.timeout,
        attempts: dns.attempts,
        total_timeout: dns.deadline,
        max_ttl: dns.max_ttl,
        negative_ttl: dns.negative_ttl,
        cache: dns.cache,
        ..ResolverConfig::default()
    }
}

/// What a reload replaces.
pub(crate) fn live(config: &Config) -> Live {
    Live {
        settings: settings(config),
        tenants: config.tenants.iter().map(tenant).collect(),
        drain: config.limits.drain,
    }
}

fn settings(config: &Config) -> SettingsSpec {
    let id = |position: usize| TenantId(u32::try_from(position).unwrap_or(u32::MAX));
    let listeners = config.listeners.iter().map(|listener| ListenerSpec {
        name: listener.name.clone(),
        transport: listener.transport,
        address: listener.address,
        advertised: listener.advertised.clone(),
        tenant: listener.tenant.map(id),
        stateless: listener.stateless.clone(),
    });
    let tenants = config
        .tenants
        .iter()
        .enumerate()
        .map(|(position, tenant)| TenantSpec {
            id: id(position),
            name: tenant.name.clone(),
            domains: tenant.domains.clone(),
            stateless: tenant.stateless.clone(),
            transactions: tenant.limits.transactions,
            quota: Quota {
                calls: tenant.limits.calls,
                calls_per_second: tenant.limits.calls_per_second,
            },
        });
    let routes = config.routes.iter().map(|route| StaticRoute {
        domain: route.domain.clone(),
        next_hop: route.next_hop.clone(),
    });
    let timers = &config.timers;
    SettingsSpec {
        timers: Timers {
            t1: timers.t1,
            t2: timers.t2,
            t4: timers.t4,
            b: timers.b,
            f: timers.f,
            c: timers.c,
            ..Timers::default()
        },
        listeners: listeners.collect(),
        tenants: tenants.collect(),
        aliases: config.aliases.clone(),
        routes: routes.collect(),
        outbound_proxy: config.outbound_proxy.clone(),
        record_route: record_route(&config.record_route),
        mtu: config.limits.udp_max,
        max_breadth: config.limits.max_breadth,
        server: config.server.clone(),
        transactions: config
            .limits
            .transactions
            .unwrap_or_else(memory::transactions),
        pings: pings(&config.nathelper),
        dialogs: dialogs(&config.dialog),
        ..SettingsSpec::default()
    }
}

fn record_route(options: &sipbox_config::RecordRoute) -> RecordRouteSpec {
    RecordRouteSpec {
        append_fromtag: options.append_fromtag,
        enable_double_rr: options.enable_double_rr,
        enable_full_lr: options.enable_full_lr,
        add_username: options.add_username,
        ignore_user: options.ignore_user.clone(),
        enable_socket_mismatch_warning: options.enable_socket_mismatch_warning,
        sign: options.sign,
        signature_lifetime: options.signature_lifetime,
    }
}

fn dialogs(options: &sipbox_config::Dialog) -> dialog::Defaults {
    dialog::Defaults {
        timeout: options.default_timeout,
        delete_delay: options.delete_delay,
        ping_interval: options.options_ping_interval,
        race_condition_timeout: options.race_condition_timeout,
        match_mode: match options.dlg_match_mode {
            sipbox_config::MatchMode::DidOnly => dialog::MatchMode::DidOnly,
            sipbox_config::MatchMode::DidFallback => dialog::MatchMode::DidFallback,
            sipbox_config::MatchMode::DidNone => dialog::MatchMode::DidNone,
        },
    }
}

fn pings(nathelper: &Nathelper) -> PingSettings {
    PingSettings {
        interval: nathelper.natping_interval,
        nated_only: nathelper.ping_nated_only,
        tcp: nathelper.natping_tcp,
        datagram: match nathelper.natping_datagram {
            sipbox_config::Datagram::Zeros => Datagram::Zeros,
            sipbox_config::Datagram::Crlf => Datagram::Crlf,
            sipbox_config::Datagram::Stun => Datagram::Stun,
        },
        method: nathelper.sipping_method.as_str().into(),
        from: nathelper.sipping_from.as_str().into(),
        threshold: nathelper.ping_threshold,
        max_lost: nathelper.max_pings_lost,
        ignore: nathelper.sipping_ignore_rpl_codes.clone(),
    }
}

fn bytes(mib: u32) -> usize {
    usize::try_from(mib)
        .unwrap_or(usize::MAX)
        .saturating_mul(1 << 20)
}

fn tenant(tenant: &sipbox_config::Tenant) -> TenantParts {
    let limits = &tenant.limits;
    let policies = tenant.policies.iter().map(|policy| PolicyParts {
        name: policy.name.as_str().into(),
        component: match &policy.component {
            Component::Residential => ComponentSource::Residential,
            Component::File(path) => ComponentSource::File(path.clone()),
        },
        settings: policy.settings.to_string(),
        memory: policy.memory_mib.map(bytes),
    });
    TenantParts {
        // Names were checked when the file was read.
        grants: tenant
            .grants
            .iter()
            .filter_map(|name| Capability::from_name(name))
            .collect(),
        limits: Limits {
            cpu: limits.cpu,
            wall: limits.wall,
            memory: bytes(limits.memory_mib),
            host_calls: limits.host_calls,
            edits: limits.edits,
            edit_bytes: limits.edit_bytes,
            output_bytes: limits.output_bytes,
            log_bytes: limits.log_bytes,
        },
        cpu_budget: limits.cpu_budget,
        shared: SharedLimits {
            kv_entries: limits.kv_entries,
            kv_bytes: u64::from(limits.kv_mib) << 20,
            kv_value: limits.kv_value_bytes,
            counters: limits.counters,
        },
        policies: policies.collect(),
    }
}
