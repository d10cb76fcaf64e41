//! The control socket: JSON-RPC 2.0 management commands under OpenSIPS's names.
