//! `cargo +nightly fuzz run message`: one datagram.
#![no_main]

#[path = "../invariants.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invariants::message(bytes));
