//! The sandbox: engine, component store, instance pools, limits, one file for each WIT interface.
