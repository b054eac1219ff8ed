//! `bellhop run`: controller and ingress in one process.

use crate::config::RunOptions;
use crate::delivery::Runners;
use crate::external::address::AddressPolicy;
use crate::ingress::{self, Health};
use crate::routes;
use crate::spool::{Limits, Spool};
use crate::telemetry::Metrics;
use crate::{controller, delivery};
use anyhow::Context;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long the controller may take to end its passes after a signal.
const CONTROLLER_END: Duration = Duration::from_secs(10);

/// Runs until SIGTERM or SIGINT, then finishes what is in flight.
///
/// # Errors
/// The spool cannot be opened, an address cannot be listened on, the API server cannot be reached at the start.
pub fn run(options: RunOptions) -> anyhow::Result<()> {
    // kube and reqwest both speak TLS by rustls; without a provider the first connection would panic. That there is one
    // already is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(options))
}

async fn serve(options: RunOptions) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    cancel_on_signal(shutdown.clone())?;
    let runners = Runners::new(&options.cluster_domain, &options.allow_runner_origins)
        .map_err(anyhow::Error::msg)
        .context("--allow-runner-origin")?;
    let listeners = (listen(options.listen).await?, listen(options.private_listen).await?);
    let limits = Limits {
        max_bytes: options.spool_bytes,
        max_bytes_per_subscription: options.spool_bytes_per_subscription,
        max_age: options.max_event_age,
        retention: options.retention,
    };
    let spool = Spool::open(&options.data_dir.join("spool"), limits).context("the spool")?;
    let client = kube::Client::try_default().await.context("the configuration of the Kubernetes client")?;

    let (metrics, health) = (Metrics::new(), Health::default());
    let routes = routes::Handle::new(metrics.clone());
    let delivery = delivery::start(
        delivery::Context {
            routes: routes.clone(),
            spool: spool.clone(),
            runners,
            addresses: AddressPolicy::new(options.allow_addresses.clone()),
            metrics: metrics.clone(),
            health: health.clone(),
        },
        shutdown.clone(),
    )
    .context("delivery")?;
    let state = ingress::State::new(
        routes.clone(),
        spool,
        metrics.clone(),
        health,
        options.body_limit,
        options.request_timeout,
    );
    let watch = routes::watch(client.clone(), &options.ingress_namespace, routes.clone());
    let controller = controller::run(client, options.clone(), routes.clone(), metrics, shutdown.clone());
    let ingress = ingress::run(&options, listeners, Arc::new(state), shutdown.clone());
    let patience = after(&shutdown, CONTROLLER_END);
    tokio::pin!(watch, controller, ingress, patience);
    let mut ingress_ended = false;
    let result = loop {
        tokio::select! {
            result = &mut controller => break result.context("the controller"),
            () = &mut ingress, if !ingress_ended => ingress_ended = true,
            () = &mut watch => unreachable!("it never ends"),
            // Requests that are answered meanwhile still reach the disk; what is left undone is done at the next start.
            () = &mut patience => break Ok(()),
        }
    };
    shutdown.cancel();
    if !ingress_ended {
        ingress.await;
    }
    delivery.stopped().await;
    result
}

async fn after(shutdown: &CancellationToken, pause: Duration) {
    shutdown.cancelled().await;
    tokio::time::sleep(pause).await;
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{address} cannot be listened on"))
}

fn cancel_on_signal(shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("shutting down");
        shutdown.cancel();
    });
    Ok(())
}
