//! The private listener: probes and metrics. Not for the internet.

use super::{State, body};
use crate::telemetry::Metrics;
use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use std::sync::Arc;

/// `/healthz` (the process runs), `/readyz` (requests can be accepted; if not, what is missing) and `/metrics`.
pub fn private_router(state: Arc<State>) -> Router {
    let ready = state.clone();
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(async move || readiness(&ready)))
        .route("/metrics", get(async move || ([(CONTENT_TYPE, Metrics::CONTENT_TYPE)], metrics(&state))))
}

fn readiness(state: &State) -> impl IntoResponse + use<> {
    let mut missing = String::new();
    if !state.routes.is_synced() {
        missing.push_str("the routes are not known yet: the API server has not been listed\n");
    }
    if state.health.spool_failed() {
        missing.push_str("the spool cannot write: see the log\n");
    }
    match missing.is_empty() {
        true => (StatusCode::OK, "ok\n".to_owned()),
        false => (StatusCode::SERVICE_UNAVAILABLE, missing),
    }
}

fn metrics(state: &State) -> String {
    let usage = state.spool.usage();
    state.metrics.spool(usage.held_bytes, usage.unmatched, usage.pending, usage.dead);
    body::report(&state.bounds.budget, &state.metrics);
    state.metrics.to_text()
}
