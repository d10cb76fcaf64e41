//! `cargo +nightly fuzz run uri`: one URI, also as an address and a Via.
#![no_main]

#[path = "../invariants.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invariants::uri(bytes));
