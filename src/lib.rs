//! Bellhop: a Kubernetes operator that starts workflows on the events of external systems.

pub mod api;
pub mod config;
pub mod external;
pub mod plugin;
