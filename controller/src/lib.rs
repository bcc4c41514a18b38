//! The `tidegate` library: what the daemon and the CLI are made of.

pub mod policy;
