//! `sipbox run`: the proxy itself.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use sipbox_admin::{Server, ServerLimits};
use sipbox_telemetry::logging::{self, LostLines};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::commands::{NodeCommands, ReloadRequest};
use crate::configuration::{Configuration, Source};
use crate::demo;
use crate::sandbox::Sandbox;
use crate::start::Running;

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The configuration; without it, the demo
    #[arg(short, long, value_name = "FILE", env = "SIPBOX_CONFIG")]
    config: Option<PathBuf>,
    /// The state folder of the demo
    #[arg(
        long,
        value_name = "DIR",
        env = "SIPBOX_STATE",
        conflicts_with = "config"
    )]
    state: Option<PathBuf>,
    /// What is logged: a level, or directives such as `info,policy=debug`; overrides the file
    #[arg(long, value_name = "FILTER", env = "SIPBOX_LOG")]
    log: Option<String>,
    /// How log lines look; overrides the file
    #[arg(long, value_enum)]
    log_format: Option<LogFormat>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Human,
    Json,
}

pub(super) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let source = match &args.config {
        Some(path) => Source::File(path.clone()),
        None => Source::Demo(
            args.state
                .clone()
                .unwrap_or_else(super::default_state_folder),
        ),
    };
    let mut draft = source.read()?;
    if !draft.is_right() {
        draft.check_components(&Sandbox::for_checks()?);
    }
    let configuration = match draft.finish() {
        Ok(configuration) => configuration,
        Err(mistakes) => {
            mistakes.report();
            return Ok(ExitCode::FAILURE);
        }
    };
    configuration.report_warnings();
    let format = match args.log_format {
        Some(LogFormat::Human) => logging::Format::Human,
        Some(LogFormat::Json) => logging::Format::Json,
        None => configuration.log_format(),
    };
    let filter = args
        .log
        .clone()
        .unwrap_or_else(|| configuration.log_filter());
    let log = logging::init(format, &filter)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("io")
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    runtime.block_on(serve(source, configuration, begun, log.lost()))
}

async fn serve(
    source: Source,
    configuration: Configuration,
    begun: Instant,
    lost_lines: LostLines,
) -> anyhow::Result<ExitCode> {
    // Signals first: one that comes during the start is not lost.
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let parts = configuration.parts();
    let fixed = parts.fixed.clone();
    fixed.make_folders()?;
    let running = Arc::new(Running::start(parts, configuration).await?);
    let (reload, mut reloads) = mpsc::channel::<ReloadRequest>(4);
    let policies = Arc::downgrade(&running);
    let commands = NodeCommands {
        node: Arc::clone(&running.node),
        store: running.store().clone(),
        begun,
        lost_lines,
        begun_wall: running.node.clock.now().1,
        policies: Box::new(move || {
            policies
                .upgrade()
                .map(|running| running.sandbox.stats.all())
                .unwrap_or_default()
        }),
        reload,
    };
    let control = Server::start(&fixed.control, Arc::new(commands), ServerLimits::default())?;
    for listener in running.node.snapshot.load().settings.listeners() {
        tracing::info!(
            listener = &*listener.name,
            transport = listener.transport.param(),
            address = %listener.address,
            "listening"
        );
    }
    if let Source::Demo(_) = source {
        demo::welcome(&running, &fixed).await?;
    }
    tracing::info!(
        milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        control = %fixed.control.display(),
        "ready"
    );
    loop {
        tokio::select! {
            Some(()) = hangup.recv() => {
                // What came of it is in the log.
                let _ = reload_from(&source, &running).await;
            }
            Some(answer) = reloads.recv() => {
                let result = reload_from(&source, &running).await;
                // The client may have gone.
                let _ = answer.send(result);
            }
            Some(()) = terminate.recv() => break,
            Some(()) = interrupt.recv() => break,
        }
    }
    tracing::info!("stopping");
    // Nobody commands a node that is stopping.
    drop(control);
    running.stop().await?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Reads, checks and puts in force; changes nothing and says why when it cannot.
async fn reload_from(source: &Source, running: &Running) -> Result<u64, String> {
    let result = match source.read() {
        Ok(draft) => running.reload(draft).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(version) => {
            tracing::info!(version, "configuration reloaded");
            Ok(version)
        }
        Err(error) => {
            let text = format!("{error:#}");
            tracing::error!(
                error = text,
                "configuration not reloaded, the old one stays"
            );
            Err(text)
        }
    }
}
