//! From a file, or the demo, to the parts of a node.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use sipbox_config::{Component, Config, Diagnostic, Durability, LogFormat};
use sipbox_core::auth::AuthSettings;
use sipbox_core::flow::TenantId;
use sipbox_core::settings::{
    HostPort, ListenerSpec, SettingsSpec, StaticHop, StaticRoute, TenantSpec, Timers,
};
use sipbox_net::{ListenerConfig, NetConfig, ResolverConfig, StreamLimits};
use sipbox_telemetry::logging;
use sipbox_wasm::{Capability, Limits, LoadError};

use crate::demo;
use crate::parts::{ComponentSource, Fixed, Live, Parts, PolicyParts, TenantParts};
use crate::start::{Refused, default_workers};

/// Where the configuration comes from; a reload asks again.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A file.
    File(PathBuf),
    /// The demo, with its state folder.
    Demo(PathBuf),
}

/// What reading came to.
pub(crate) enum Reading {
    /// A configuration.
    Fine(Box<Configuration>),
    /// Mistakes, as text.
    Wrong(String),
}

/// A configuration with its text, so that mistakes can point into it.
pub(crate) struct Configuration {
    config: Config,
    path: String,
    text: String,
    /// Where compiled components are kept.
    cache: PathBuf,
}

impl Source {
    /// Reads and checks.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn read(&self) -> anyhow::Result<Reading> {
        let (path, text, folder) = match self {
            Self::File(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                let parent = path
                    .parent()
                    .filter(|parent| !parent.as_os_str().is_empty());
                let folder = parent.unwrap_or(Path::new(".")).to_path_buf();
                (path.display().to_string(), text, folder)
            }
            Self::Demo(state) => (
                "the demo".to_owned(),
                demo::configuration(state),
                state.clone(),
            ),
        };
        Ok(match Config::parse(&text, &folder) {
            Ok(config) => {
                if !config.warnings.is_empty() {
                    eprint!("{}", shown(&config.warnings, &path, &text));
                }
                let state = config
                    .store
                    .path
                    .parent()
                    .unwrap_or(Path::new("."))
                    .to_path_buf();
                Reading::Fine(Box::new(Configuration {
                    config,
                    path,
                    text,
                    cache: state.join("components"),
                }))
            }
            Err(diagnostics) => Reading::Wrong(shown(&diagnostics, &path, &text)),
        })
    }
}

impl Reading {
    /// The configuration, or its mistakes on stderr.
    pub(crate) fn or_report(self) -> Option<Box<Configuration>> {
        match self {
            Self::Fine(configuration) => Some(configuration),
            Self::Wrong(text) => {
                eprint!("{text}");
                None
            }
        }
    }

    /// The configuration, or its mistakes as an error.
    pub(crate) fn or_text(self) -> anyhow::Result<Box<Configuration>> {
        match self {
            Self::Fine(configuration) => Ok(configuration),
            Self::Wrong(text) => Err(anyhow!("{}", text.trim_end())),
        }
    }
}

fn shown(diagnostics: &[Diagnostic], path: &str, text: &str) -> String {
    let colour = std::env::var_os("NO_COLOR").is_none() && std::io::stderr().is_terminal();
    sipbox_config::render(diagnostics, path, text, colour)
}

impl Configuration {
    /// How log lines look.
    pub(crate) fn log_format(&self) -> logging::Format {
        match self.config.log.format {
            LogFormat::Human => logging::Format::Human,
            LogFormat::Json => logging::Format::Json,
        }
    }

    /// What is logged.
    pub(crate) fn log_filter(&self) -> String {
        self.config.log.filter.clone()
    }

    /// The control socket.
    pub(crate) fn control(&self) -> &Path {
        &self.config.control.socket
    }

    /// The database.
    pub(crate) fn database(&self) -> &Path {
        &self.config.store.path
    }

    /// Policies that were refused, each at its place in the file.
    pub(crate) fn refused(&self, refused: &[Refused]) -> String {
        let diagnostics: Vec<Diagnostic> = refused
            .iter()
            .filter_map(
                |Refused {
                     tenant,
                     policy,
                     error,
                 }| {
                    let policy = self.config.tenants.get(*tenant)?.policies.get(*policy)?;
                    let (span, expected) = match error {
                        LoadError::Settings(_) => (
                            &policy.settings_span,
                            "expected settings that the policy accepts",
                        ),
                        LoadError::NotGranted(_) => (
                            &policy.component_span,
                            "expected a component that imports no more than `grants` allows",
                        ),
                        LoadError::Read { .. } => {
                            (&policy.component_span, "expected a readable file")
                        }
                        _ => (
                            &policy.component_span,
                            "expected a component for sipbox:policy@0.1.0",
                        ),
                    };
                    let message = format!("policy `{}`: {error}", policy.name);
                    Some(Diagnostic::error(message, span.clone(), expected))
                },
            )
            .collect();
        shown(&diagnostics, &self.path, &self.text)
    }

    /// What a node is made of.
    pub(crate) fn parts(&self) -> Parts {
        let config = &self.config;
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
            resolver: ResolverConfig::default(),
            ..NetConfig::default()
        };
        let fixed = Fixed {
            net,
            database: config.store.path.clone(),
            durability: match config.store.durability {
                Durability::Commit => sipbox_store::Durability::Commit,
                Durability::Behind => sipbox_store::Durability::Behind,
            },
            cache: Some(self.cache.clone()),
            control: config.control.socket.clone(),
            auth: AuthSettings {
                nonce_lifetime: config.auth.nonce_lifetime,
                nonce_table: config.auth.nonce_table,
                failures: config.auth.failures,
                failure_window: config.auth.failure_window,
                ..AuthSettings::default()
            },
            drain: limits.drain,
        };
        let live = Live {
            settings: self.settings(),
            tenants: config.tenants.iter().map(tenant).collect(),
        };
        Parts { fixed, live }
    }

    fn settings(&self) -> SettingsSpec {
        let config = &self.config;
        let id = |position: usize| TenantId(u32::try_from(position).unwrap_or(u32::MAX));
        let listeners = config.listeners.iter().map(|listener| ListenerSpec {
            name: listener.name.clone(),
            transport: listener.transport,
            address: listener.address,
            advertised: listener.advertised.as_ref().map(host_port),
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
            });
        let routes = config.routes.iter().map(|route| StaticRoute {
            domain: route.domain.clone(),
            next_hop: hop(&route.next_hop),
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
            aliases: config.aliases.iter().map(host_port).collect(),
            routes: routes.collect(),
            outbound_proxy: config.outbound_proxy.as_ref().map(hop),
            mtu: config.limits.udp_max,
            max_breadth: config.limits.max_breadth,
            server: config.server.clone(),
            ..SettingsSpec::default()
        }
    }
}

fn host_port(given: &sipbox_config::HostPort) -> HostPort {
    HostPort {
        host: given.host.clone(),
        port: given.port,
    }
}

fn hop(given: &sipbox_config::Hop) -> StaticHop {
    StaticHop {
        host: given.host.clone(),
        port: given.port,
        transport: given.transport,
    }
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
            memory: usize::try_from(limits.memory_mib)
                .unwrap_or(usize::MAX)
                .saturating_mul(1 << 20),
            host_calls: limits.host_calls,
            edits: limits.edits,
            edit_bytes: limits.edit_bytes,
            output_bytes: limits.output_bytes,
            log_bytes: limits.log_bytes,
        },
        cpu_budget: limits.cpu_budget,
        policies: policies.collect(),
    }
}
