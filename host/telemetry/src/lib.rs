//! Logging set-up, counters and statistics.
