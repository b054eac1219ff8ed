//! Bellhop: a Kubernetes operator that starts workflows on the events of external systems.
//!
//! ARCHITECTURE.md is the map. Dependencies point downwards only:
//! `api` ← `plugin` ← `routes` ← `ingress`, `delivery`; `api` ← `plugin` ← `external` ← `controller`.

pub mod api;
pub mod config;
pub mod external;
pub mod plugin;
pub mod spool;
