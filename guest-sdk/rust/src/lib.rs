//! The Rust SDK for Sipbox policies.
