//! Sipbox: a SIP proxy whose routing is a sandboxed WebAssembly component.
//!
//! This crate is the wiring: workers, reload, drain and the command line. It
//! decides nothing about SIP.

mod capabilities;
mod cli;
mod clock;
mod commands;
mod configuration;
mod decide;
mod demo;
mod describe;
mod dialogs;
mod memory;
mod node;
mod parts;
mod reload;
mod sandbox;
mod secret;
mod shared;
mod snapshot;
mod start;
mod targets;
mod translate;
mod worker;

#[cfg(all(feature = "jemalloc", target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
