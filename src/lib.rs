//! Bellhop: a Kubernetes operator that starts workflows on the events of external systems.
//!
//! ARCHITECTURE.md is the map. Dependencies point downwards only:
//! `api` ← `plugin` ← `routes` ← `ingress`, `delivery`; `api` ← `plugin` ← `external` ← `controller`.

pub mod api;
pub mod cli;
pub mod config;
pub mod controller;
pub mod delivery;
pub mod external;
pub mod ingress;
pub mod log;
pub mod plugin;
pub mod routes;
pub mod spool;
pub mod telemetry;
pub mod turns;
pub mod watch;
