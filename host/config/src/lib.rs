//! TOML to a checked configuration model, with diagnostics that point.
