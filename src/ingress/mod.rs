//! The public listener: what external systems send to callback URLs is verified, written to disk and answered.
//!
//! A request is answered in this order; the first step that fails decides:
//!
//! | Step | Answer if it fails |
//! |---|---|
//! | the routes are known | 503, `Retry-After` |
//! | the callback URL exists and its plugin compiles | 404 |
//! | the body is not compressed | 415 |
//! | the body is within the limit, complete and in time, and there is memory for it | 413, 400, 408, 503 |
//! | the sender is proven | 401 |
//! | the body is what the plugin reads | 400 |
//! | it is on disk | 503, `Retry-After` |
//!
//! Then, and only then, the answer is 200 with `{"id": "<request id>"}`; a repetition also says `"duplicate": true`.
//! Nothing here waits for the API server.
//!
//! Where the plugin has an answer of its own, that takes the place of this one, and where the plugin lets the sender wait, the
//! answer of a runner takes the place of that (`reply.rs`). Neither comes before the request is on disk.
//!
//! A handshake of the plugin is no event: it is answered as the plugin says, before the sender is proven or after it, and
//! is not stored. Where it brings a callback secret, the controller has stored that first.

mod activity;
mod answer;
mod body;
mod client_address;
mod controller;
mod handshake;
mod hook;
mod judge;
mod pages;
mod private;
#[cfg(feature = "cli")]
mod rehearsal;
mod reply;
mod sent;
mod server;
#[cfg(test)]
mod tests;
mod waiting;

pub use activity::report as report_activity;
pub use body::{Bounds, Budget};
pub use client_address::{Peer, client as client_address};
pub use controller::{Controller, INTERNAL, Service, Unreachable};
pub use private::{private_router, probes};
#[cfg(feature = "cli")]
pub use rehearsal::{Rehearsal, rehearse};
pub use sent::{WISH, router as sent_router};
pub use server::{Limits, PeerCertificates, serve, serve_tls};
pub use waiting::{Format, NoAnswer, RunnerAnswer, Ticket, Waiting, WaitingLimits};

use crate::config;
use crate::log::{Log, passing::Passing};
use crate::routes::{Handle, LogGate};
use crate::spool::Spool;
use crate::telemetry::Metrics;
use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request};
use axum::routing::any;
use ipnet::IpNet;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::info;
use uuid::Uuid;

/// Where callbacks arrive.
const HOOK: &str = "/hooks/{token}";
/// Where the pages of an authorization are.
const PAGES: &str = "/oauth/{*rest}";

/// Whether the process does what it is for. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Health {
    spool_failed: Arc<AtomicBool>,
    ends: Arc<AtomicBool>,
}

impl Health {
    /// Says whether the last use of the spool went well.
    pub fn spool_works(&self, works: bool) {
        // Mostly read: writing the same value again would make the processors contend for it.
        if self.spool_failed.load(Ordering::Relaxed) == works {
            self.spool_failed.store(!works, Ordering::Relaxed);
        }
    }

    /// Says that the process ends soon and should get no more requests.
    pub fn end(&self) {
        self.ends.store(true, Ordering::Relaxed);
    }

    /// Whether the process ends soon.
    pub fn ends(&self) -> bool {
        self.ends.load(Ordering::Relaxed)
    }

    /// Whether the last use of the spool failed.
    pub fn spool_failed(&self) -> bool {
        self.spool_failed.load(Ordering::Relaxed)
    }
}

/// What the ingress works with.
pub struct State {
    routes: Handle,
    spool: Spool,
    metrics: Metrics,
    health: Health,
    bounds: Bounds,
    spool_log: LogGate,
    no_plugin: Arc<str>,
    controller: Controller,
    passing: Arc<Passing>,
    waiting: Waiting,
    replica: Arc<str>,
    trusted_proxies: Vec<IpNet>,
    /// Turns of requests with large bodies.
    large: Semaphore,
}

impl State {
    /// `body_limit` is in bytes; `timeout` is the longest time that a body may take.
    pub fn new(
        routes: Handle,
        spool: Spool,
        metrics: Metrics,
        health: Health,
        body_limit: usize,
        timeout: Duration,
    ) -> Self {
        let bounds = Bounds { limit: body_limit, timeout, budget: Arc::new(Budget::new(body_limit)) };
        Self {
            routes,
            spool,
            metrics,
            health,
            bounds,
            spool_log: LogGate::default(),
            no_plugin: "".into(),
            controller: Controller::Absent,
            passing: Arc::default(),
            waiting: Waiting::default(),
            replica: "0".into(),
            trusted_proxies: Vec::new(),
            large: Semaphore::new(hook::LARGE_AT_ONCE),
        }
    }

    /// Says which replica of the ingress this is: a decimal number. Without it, it is the only one, `0`.
    pub fn with_replica(mut self, replica: &str) -> Self {
        self.replica = replica.into();
        self
    }

    /// Says which proxies are believed when they say from where a request comes; without it, none is.
    pub fn with_trusted_proxies(mut self, networks: &[IpNet]) -> Self {
        self.trusted_proxies = networks.to_vec();
        self
    }

    /// Says where senders wait for what delivery hears of runners; without it, nobody is told anything there.
    pub fn with_waiting(mut self, waiting: Waiting) -> Self {
        self.waiting = waiting;
        self
    }

    /// The request log of this replica.
    pub fn log(&self) -> Log {
        Log::new(self.routes.clone(), self.spool.clone(), self.passing.clone(), self.replica.clone())
    }

    /// Says how the controller is reached; without it, there are no pages, and handshakes that bring a
    /// secret are refused.
    pub fn with_controller(mut self, controller: Controller) -> Self {
        self.controller = controller;
        self
    }
}

/// The public routes. Whatever is neither a callback URL nor a page is answered like an unknown callback URL.
pub fn router(state: Arc<State>) -> Router {
    let elsewhere = state.clone();
    let relay = pages::Relay::new(state.controller.clone());
    let page = async move |request: Request| relay.pass(request).await;
    let hook = move |token: Result<Path<String>, PathRejection>, request: Request| {
        // A segment that is not even text is no token.
        let token = token.map(|Path(token)| token).unwrap_or_default();
        hook::handle(state.clone(), token, request)
    };
    let unknown = move |request: Request| hook::handle(elsewhere.clone(), String::new(), request);
    Router::new().route(HOOK, any(hook)).route(PAGES, any(page)).fallback(unknown)
}

/// Serves the public listener until `shutdown`, then lets requests under way end; the private one until all that is done,
/// so that probes and metrics show the end.
///
/// Between `shutdown` and the end of the public listener lies the drain delay: /readyz says that the process ends, and
/// callbacks are still accepted. The listeners are bound by the caller, who can so report an address that is taken before
/// anything else happens.
pub async fn run(
    options: &config::Ingress,
    drain_delay: Duration,
    (public, private): (TcpListener, TcpListener),
    state: Arc<State>,
    shutdown: CancellationToken,
) {
    info!(public = ?public.local_addr().ok(), private = ?private.local_addr().ok(), "listening");
    let metrics = state.metrics.clone();
    // The answer begins after the last byte and after the disk; what is longer under way than both may take is stuck.
    let limits = Limits { request: options.request_timeout + Duration::from_secs(15), ..Limits::default() };
    let (public_end, private_end) = (CancellationToken::new(), CancellationToken::new());
    let drain = async {
        shutdown.cancelled().await;
        state.health.end();
        tokio::time::sleep(drain_delay).await;
        public_end.cancel();
    };
    let serve_public = async {
        serve(public, router(state.clone()), limits, Some(metrics), public_end.clone()).await;
        private_end.cancel();
    };
    let serve_private = serve_private(private, private_router(state.clone()), private_end.clone());
    tokio::join!(drain, serve_public, serve_private);
}

/// Serves a private listener until `shutdown`.
pub async fn serve_private(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    serve(listener, router, Limits { connections: 256, ..Limits::default() }, None, shutdown).await;
}

/// Serves the internal listener of the controller until `shutdown`.
pub async fn serve_internal(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    shutdown: CancellationToken,
) {
    let limits = Limits { connections: 512, grace: Duration::from_secs(5), ..Limits::default() };
    serve_tls(listener, tls, router, limits, shutdown).await;
}

/// Serves the log listener until `shutdown`. Readers that follow the log would stay for ever; they come back to another
/// replica, or to this one when it is there again.
pub async fn serve_log(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    shutdown: CancellationToken,
) {
    let limits = Limits { connections: 256, grace: Duration::from_secs(1), ..Limits::default() };
    serve_tls(listener, tls, router, limits, shutdown).await;
}

/// What identifies a request to its Subscription: the sender's delivery id, or else the SHA-256 of the body.
pub(crate) fn identity(delivery_id: Option<&str>, body: &[u8]) -> String {
    delivery_id.map_or_else(|| hex::encode(Sha256::digest(body)), str::to_owned)
}

/// The id that a redelivery of the request has too.
pub fn request_id(subscription: Uuid, delivery_id: Option<&str>, body: &[u8]) -> Uuid {
    Uuid::new_v5(&subscription, identity(delivery_id, body).as_bytes())
}

/// Unix milliseconds.
pub(crate) fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
