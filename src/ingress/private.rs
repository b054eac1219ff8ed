//! The private listener: probes, metrics, and the controller's question whether a route is served. Not for the internet.

use super::{State, body};
use crate::api::{PREFER, RouteVersion};
use crate::telemetry::Metrics;
use axum::Router;
use axum::extract::Path;
use axum::response::IntoResponse;
use axum::routing::get;
use http::header::{CONTENT_TYPE, IF_MATCH};
use http::{HeaderMap, StatusCode};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// The longest time that an answer is waited for.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// What every process has: `/healthz` (it runs), `/readyz` (it does what it is for; if not, `missing` says what is
/// missing, in lines) and `/metrics`.
pub fn probes(metrics: Metrics, missing: impl Fn() -> String + Clone + Send + Sync + 'static) -> Router {
    let readiness = async move || match missing() {
        missing if missing.is_empty() => (StatusCode::OK, "ok\n".to_owned()),
        missing => (StatusCode::SERVICE_UNAVAILABLE, missing),
    };
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readiness))
        .route("/metrics", get(async move || ([(CONTENT_TYPE, Metrics::CONTENT_TYPE)], metrics.to_text())))
}

/// [`probes`] and `/routes/{uid}`: 204 if the route is served whose digest is in `If-Match`, else 412, at the latest after
/// the time in `Prefer`.
pub fn private_router(state: Arc<State>) -> Router {
    let (metrics, ready) = (state.metrics.clone(), state.clone());
    // Not the state as a whole, which has the metrics, so that neither would ever be dropped.
    let (spool, budget) = (state.spool.clone(), state.bounds.budget.clone());
    metrics.before_export("ingress", move |metrics| {
        let usage = spool.usage();
        metrics.spool(usage.held_bytes, usage.held_limit, usage.unmatched, usage.pending, usage.dead);
        body::report(&budget, metrics);
    });
    let question = async move |Path(uid): Path<Uuid>, headers: HeaderMap| is_served(&state, uid, &headers).await;
    probes(metrics, move || missing(&ready)).route("/routes/{uid}", get(question))
}

fn missing(state: &State) -> String {
    let mut missing = String::new();
    if state.health.ends() {
        missing.push_str("the process ends\n");
    }
    if !state.routes.is_synced() {
        missing.push_str("the routes are not known yet: the API server has not been listed\n");
    }
    if state.health.spool_failed() {
        missing.push_str("the spool cannot write: see the log\n");
    }
    missing
}

async fn is_served(state: &State, uid: Uuid, headers: &HeaderMap) -> impl IntoResponse + use<> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let version = RouteVersion { uid, digest: text(IF_MATCH).trim_matches('"').to_owned() };
    let seconds = text(PREFER).strip_prefix("wait=").and_then(|seconds| seconds.parse().ok()).unwrap_or(0);
    let wait = Duration::from_secs(seconds).min(MAX_WAIT);
    match tokio::time::timeout(wait, state.routes.confirmed(&version)).await {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::PRECONDITION_FAILED,
    }
}
