//! Bellhop in pods, on a real cluster. Where pods cannot run, one line says that these were left out.
//!
//! One cluster with one Bellhop serves all tests, and what one test breaks would disturb another: they wait for each
//! other ([`support::world`]). Each leaves Bellhop installed or not, as it likes; each begins with [`support::install`].

mod api_server;
mod bundle;
mod lifecycle;
mod node;
mod rebuild;
mod replicas;
mod request_log;
mod sizing;
mod story;
mod support;
mod traffic;
mod update;
