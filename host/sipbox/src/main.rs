//! Filled in step by step.
fn main() {}
