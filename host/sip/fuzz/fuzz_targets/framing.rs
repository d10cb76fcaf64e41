//! `cargo +nightly fuzz run framing`: one stream, cut in two.
#![no_main]

#[path = "../invariants.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invariants::framing(bytes));
