//! Reading a configuration, from a file or the demo's, and everything that there
//! is to say about it.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use sipbox_config::{Component, Config, Diagnostic, LogFormat, Reading, Span};
use sipbox_core::policy::HookFailure;
use sipbox_telemetry::logging;
use sipbox_wasm::LoadError;

use crate::demo;
use crate::parts::{Live, Parts};
use crate::sandbox::{Refused, Sandbox};
use crate::translate;

/// Where the configuration comes from; a reload asks again.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A file.
    File(PathBuf),
    /// The demo, with its state folder.
    Demo(PathBuf),
}

/// A text that was read, right or wrong, and what is to be said about it.
pub(crate) struct Draft {
    document: Document,
    /// As far as it could be read; `None` if the text is no TOML.
    config: Option<Config>,
    found: Vec<Diagnostic>,
}

/// A configuration without a mistake, as far as its text goes.
pub(crate) struct Configuration {
    config: Config,
    document: Document,
    warnings: Vec<Diagnostic>,
}

/// A text and what it is called, so that mistakes can point into it.
struct Document {
    path: String,
    text: String,
}

impl Source {
    /// Reads.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn read(&self) -> anyhow::Result<Draft> {
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
            Self::Demo(state) => ("the demo".to_owned(), demo::configuration(), state.clone()),
        };
        let Reading { config, found } = Reading::new(&text, &folder);
        Ok(Draft {
            document: Document { path, text },
            config,
            found,
        })
    }
}

impl Document {
    fn shown(&self, diagnostics: &[Diagnostic], colour: bool) -> String {
        sipbox_config::render(diagnostics, &self.path, &self.text, colour)
    }
}

/// Whether messages on stderr may have colours.
fn colour() -> bool {
    std::env::var_os("NO_COLOR").is_none() && std::io::stderr().is_terminal()
}

impl Draft {
    /// What can be replaced by a reload, as far as it could be read: to be checked,
    /// and not to be put in force before [`Draft::finish`] finds nothing wrong.
    pub(crate) fn live(&self) -> Option<Live> {
        self.config.as_ref().map(translate::live)
    }

    /// Whether nothing is wrong so far.
    pub(crate) fn is_right(&self) -> bool {
        !self.found.iter().any(Diagnostic::is_error)
    }

    /// Loads the components of what could be read, and notes what is wrong with them.
    pub(crate) fn check_components(&mut self, sandbox: &Sandbox) {
        if let Some(live) = self.live()
            && let Err(refused) = sandbox.chains(&live)
        {
            self.refuse(&refused);
        }
    }

    /// Notes policies that were refused, each at its place.
    pub(crate) fn refuse(&mut self, refused: &[Refused]) {
        let Some(config) = &self.config else { return };
        let noted = refused_policies(config, refused, &self.found);
        self.found.extend(noted);
    }

    /// Notes settings that a reload cannot change, if they are not as they were at the
    /// start.
    pub(crate) fn refuse_restarts(&mut self, started: &Configuration) {
        let Some(config) = &self.config else { return };
        let changed = sipbox_config::needs_restart(
            (&started.config, &started.document.text),
            (config, &self.document.text),
            &self.found,
        );
        self.found.extend(changed);
    }

    /// Notes listeners that a reload cannot change: those of the draft by their
    /// positions, or all of them if their number changed.
    pub(crate) fn refuse_moves(&mut self, moves: &Moves) {
        let Some(config) = &self.config else { return };
        match moves {
            // Listeners with mistakes are left out, and that was said.
            Moves::Number { .. } if !self.is_right() => {}
            Moves::Number { bound } => {
                let span = match config.listeners.get(*bound) {
                    Some(first_new) => first_new.span.clone(),
                    None => config.listeners.last().map_or(0..0, |l| l.span.clone()),
                };
                self.found.push(Diagnostic::error(
                    "listeners cannot be added or removed by a reload",
                    span,
                    format!("expected {bound} of them, or a restart"),
                ));
            }
            Moves::Addresses(moved) => {
                for (position, bound) in moved {
                    let Some(listener) = config.listeners.get(*position) else {
                        continue;
                    };
                    self.found.push(Diagnostic::error(
                        format!("listener `{}` cannot move by a reload", listener.name),
                        listener.address_span.clone(),
                        format!("expected {bound}, or a restart"),
                    ));
                }
            }
        }
    }

    /// The configuration if nothing is wrong with it. With mistakes: all of them, as text.
    ///
    /// # Errors
    /// Everything that was found.
    pub(crate) fn finish(mut self) -> Result<Configuration, Mistakes> {
        self.found.sort_by_key(|diagnostic| diagnostic.span.start);
        let right = self.is_right();
        match self.config {
            Some(config) if right => Ok(Configuration {
                config,
                document: self.document,
                warnings: self.found,
            }),
            _ => Err(Mistakes {
                document: self.document,
                found: self.found,
            }),
        }
    }

    /// The control socket, whatever else is wrong: a client asks the running
    /// proxy, which says so itself.
    pub(crate) fn control(&self) -> Option<&Path> {
        let control = &self.config.as_ref()?.control;
        let wrong = self.found.iter().any(|diagnostic| {
            diagnostic.is_error() && within(&diagnostic.span, &control.socket_span)
        });
        (!wrong).then_some(&*control.socket)
    }
}

/// Everything that is wrong with a text.
pub(crate) struct Mistakes {
    document: Document,
    found: Vec<Diagnostic>,
}

impl Mistakes {
    /// On stderr.
    pub(crate) fn report(&self) {
        eprint!("{}", self.document.shown(&self.found, colour()));
    }
}

impl From<Mistakes> for anyhow::Error {
    fn from(mistakes: Mistakes) -> Self {
        let text = mistakes.document.shown(&mistakes.found, false);
        anyhow!("{}", text.trim_end())
    }
}

/// Listeners that are not where they are bound.
pub(crate) enum Moves {
    /// There are as many as this now, and the draft has another number.
    Number {
        /// How many are bound.
        bound: usize,
    },
    /// Position, and what is bound there: transport and address.
    Addresses(Vec<(usize, String)>),
}

fn within(inner: &Span, outer: &Span) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// What is wrong with policies, each at its place.
fn refused_policies(config: &Config, refused: &[Refused], known: &[Diagnostic]) -> Vec<Diagnostic> {
    let mut noted: Vec<Diagnostic> = Vec::new();
    for Refused {
        tenant: tenant_at,
        policy: policy_at,
        error,
    } in refused
    {
        let Some(tenant) = config.tenants.get(*tenant_at) else {
            continue;
        };
        let Some(policy) = tenant.policies.get(*policy_at) else {
            continue;
        };
        // Settings that could not be read were not those that the policy got.
        let unread = known
            .iter()
            .any(|known| known.is_error() && within(&known.span, &policy.settings_span));
        let message = format!("policy `{}`: {error}", policy.name);
        let at = |span: &Span, expected: &str| {
            Diagnostic::error(message.as_str(), span.clone(), expected)
        };
        noted.push(match error {
            LoadError::Configure(HookFailure::Instantiate(_)) => at(
                &policy.component_span,
                "expected a component that can be instantiated on every worker",
            ),
            LoadError::Settings(_) | LoadError::Configure(_) if unread => continue,
            LoadError::Settings(_) | LoadError::Configure(_) => at(
                &policy.settings_span,
                "expected settings that the policy accepts",
            ),
            LoadError::NotGranted { .. } => {
                // All that it lacks at once, so that one change will do.
                let lacks = refused.iter().filter_map(|other| match &other.error {
                    LoadError::NotGranted { capability, .. }
                        if (other.tenant, other.policy) == (*tenant_at, *policy_at) =>
                    {
                        Some(capability.name().to_owned())
                    }
                    _ => None,
                });
                let grants: Vec<String> = tenant.grants.iter().cloned().chain(lacks).collect();
                let help =
                    format!("if the policy may do that, its tenant says so: grants = {grants:?}");
                let found = at(
                    &policy.component_span,
                    "expected a component that imports no more than `grants` allows",
                );
                let said = noted.iter().any(|other| other.help.as_ref() == Some(&help));
                if said { found } else { found.help(help) }
            }
            LoadError::Read { .. } => {
                let found = at(&policy.component_span, "expected a readable file");
                match &policy.component {
                    Component::File(path) => match like(path) {
                        Some(name) => found.help(format!("did you mean `{name}`?")),
                        None => found,
                    },
                    Component::Residential => found,
                }
            }
            _ => at(
                &policy.component_span,
                "expected a component for sipbox:policy@0.1.0",
            ),
        });
    }
    noted
}

/// The component beside a missing one whose name is like it.
fn like(missing: &Path) -> Option<String> {
    let wanted = missing.file_name()?.to_str()?;
    let names: Vec<String> = std::fs::read_dir(missing.parent()?)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".wasm"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    sipbox_config::similar(wanted, &names).map(str::to_owned)
}

impl Configuration {
    /// What somebody should look at, on stderr.
    pub(crate) fn report_warnings(&self) {
        eprint!("{}", self.document.shown(&self.warnings, colour()));
    }

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

    /// The database.
    pub(crate) fn database(&self) -> &Path {
        &self.config.store.path
    }

    /// Policies that were refused, each at its place in the file.
    pub(crate) fn refused(&self, refused: &[Refused]) -> String {
        let noted = refused_policies(&self.config, refused, &[]);
        self.document.shown(&noted, colour())
    }

    /// What a node is made of.
    pub(crate) fn parts(&self) -> Parts {
        Parts {
            fixed: translate::fixed(&self.config),
            live: translate::live(&self.config),
        }
    }
}
