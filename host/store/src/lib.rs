//! Databases behind core's traits: SQLite with OpenSIPS's tables.
