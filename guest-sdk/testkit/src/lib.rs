//! Runs Sipbox policies natively in unit tests.
