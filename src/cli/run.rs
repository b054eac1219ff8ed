//! `bellhop run`, `bellhop controller` and `bellhop ingress`: what runs until it is told to end.

use crate::config::{self, ControllerOptions, IngressOptions, RunOptions};
use crate::controller::certificates::Newest;
use crate::controller::custody::{Capture, Vault};
use crate::controller::listener::{self, Listener};
use crate::controller::replicas::{Replicas, Service};
use crate::delivery::Runners;
use crate::external::address::AddressPolicy;
use crate::ingress::{self, Health};
use crate::plugin::Secret;
use crate::routes;
use crate::spool::{Limits, Spool};
use crate::telemetry::Metrics;
use crate::{controller, delivery, external, log};
use anyhow::Context;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long the controller may take to end its passes after a signal.
const CONTROLLER_END: Duration = Duration::from_secs(10);

/// Controller and ingress in one process.
///
/// # Errors
/// The spool cannot be opened, an address cannot be listened on, the client of the API server cannot be configured.
pub fn run(options: RunOptions) -> anyhow::Result<()> {
    block_on(async |shutdown| {
        let RunOptions { common, ending, controller, ingress } = options;
        let internal = listen(controller.internal_listen).await?;
        let (client, metrics) = (client().await?, Metrics::new());
        let external = external(&common, &controller)?;
        let listener = listener(&client, &common, &controller, &metrics, &external)?;
        let here = log::api::Here::default();
        let listener = with_log(listener, &client, &controller, &metrics, |_| log::api::Replicas::Here(here.clone()));
        let ask = Ask::Here(listener.here());
        let ingress = Ingress::start(&common, ingress, client.clone(), metrics.clone(), ask).await?;
        let _ = here.set(ingress.log_router());
        let setup = controller::Setup {
            client,
            replicas: Replicas::Here(ingress.routes.clone()),
            metrics,
            common: common.clone(),
            options: controller,
            external,
            desk: listener.desk(),
            newest: listener.newest(),
        };
        let lingering = linger(ending.drain_delay, shutdown.clone());
        let controller = with_listener(listener, internal, run_controller(setup, shutdown.clone()), lingering);
        let ingress = ingress.serve(&common, ending.drain_delay, shutdown.clone());
        tokio::pin!(controller, ingress);
        // Whichever ends first, the other still ends in its own way.
        tokio::select! {
            result = &mut controller => {
                shutdown.cancel();
                ingress.await;
                result
            }
            () = &mut ingress => controller.await,
        }
    })
}

/// The controller alone.
///
/// # Errors
/// As [`run`].
pub fn controller(options: ControllerOptions) -> anyhow::Result<()> {
    block_on(async |shutdown| {
        let ControllerOptions { common, ending, controller, ingress_service } = options;
        let private = listen(common.private_listen).await?;
        let internal = listen(controller.internal_listen).await?;
        let client = client().await?;
        let metrics = Metrics::new();
        let external = external(&common, &controller)?;
        let listener = listener(&client, &common, &controller, &metrics, &external)?;
        let service = Service::follow(client.clone(), &common.namespace, &ingress_service, &metrics, shutdown.clone())?;
        let listener = with_log(listener, &client, &controller, &metrics, |newest| {
            log::api::Replicas::Service(log::api::Remote::new(service.clone(), newest))
        });
        let ends = shutdown.clone();
        let missing = move || if ends.is_cancelled() { "the process ends\n".to_owned() } else { String::new() };
        let router = ingress::probes(metrics.clone(), missing);
        let lingering = linger(ending.drain_delay, shutdown.clone());
        let setup = controller::Setup {
            client,
            replicas: Replicas::Service(service),
            metrics,
            common,
            options: controller,
            external,
            desk: listener.desk(),
            newest: listener.newest(),
        };
        let end = CancellationToken::new();
        let work = async {
            let result = with_listener(listener, internal, run_controller(setup, shutdown), lingering).await;
            end.cancel();
            result
        };
        let (result, ()) = tokio::join!(work, ingress::serve_private(private, router, end.clone()));
        result
    })
}

/// The ingress alone.
///
/// # Errors
/// As [`run`].
pub fn ingress(options: IngressOptions) -> anyhow::Result<()> {
    block_on(async |shutdown| {
        let IngressOptions { common, ending, ingress, controller_url, log_address } = options;
        let ask = Ask::At(controller_url);
        let socket = listen(log_address).await?;
        let ingress = Ingress::start(&common, ingress, client().await?, Metrics::new(), ask).await?;
        let end = CancellationToken::new();
        let log = ingress.serve_log(socket, end.clone());
        let serve = async {
            let _end = end.drop_guard_ref();
            ingress.serve(&common, ending.drain_delay, shutdown).await;
        };
        tokio::join!(serve, log);
        Ok(())
    })
}

/// Runs until SIGTERM or SIGINT cancels the token, and then until what is in flight has ended.
pub fn block_on(work: impl AsyncFnOnce(CancellationToken) -> anyhow::Result<()>) -> anyhow::Result<()> {
    // kube and reqwest both speak TLS by rustls; without a provider the first connection would panic. That there is one
    // already is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let shutdown = CancellationToken::new();
        cancel_on_signal(shutdown.clone())?;
        work(shutdown).await
    })
}

async fn run_controller(setup: controller::Setup, shutdown: CancellationToken) -> anyhow::Result<()> {
    let patience = async {
        shutdown.cancelled().await;
        tokio::time::sleep(CONTROLLER_END).await;
    };
    tokio::select! {
        result = controller::run(setup, shutdown.clone()) => result.context("the controller"),
        // What is left undone is done at the next start.
        () = patience => Ok(()),
    }
}

/// The client for external systems. Made before anything is waited for: wrong options are told at once.
fn external(common: &config::Common, options: &config::Controller) -> anyhow::Result<external::Client> {
    external::Client::new(options.external(common)?).context("the client for calls")
}

/// What the internal listener answers.
fn listener(
    client: &kube::Client,
    common: &config::Common,
    options: &config::Controller,
    metrics: &Metrics,
    external: &external::Client,
) -> anyhow::Result<Listener> {
    let vault = Vault::new(client.clone(), &common.namespace);
    let capture: listener::Capture = Arc::new(move |uid, secret| Box::pin(capture(vault.clone(), uid, secret)));
    let pages = controller::pages(client.clone(), common, options, external.clone(), metrics.clone());
    Listener::new(client.clone(), common, options, metrics.clone(), capture, pages).context("the internal listener")
}

/// The listener, which also serves the request log of these replicas, if that is wished.
fn with_log(
    listener: Listener,
    client: &kube::Client,
    options: &config::Controller,
    metrics: &Metrics,
    replicas: impl FnOnce(Newest) -> log::api::Replicas,
) -> Listener {
    if options.log_api_service().is_none() {
        return listener;
    }
    let known = log::api::follow(client.clone(), metrics.clone());
    let server = log::api::Server::new(client.clone(), known, replicas(listener.newest()));
    listener.with_certificates_of_clients(log::api::router(server))
}

/// Stores a callback secret that an external system has told in a handshake.
async fn capture(vault: Vault, uid: Uuid, secret: Secret) -> Result<listener::Captured, controller::Failure> {
    let Some(secret) = secret.expose_str() else { return Ok(listener::Captured::Unwanted) };
    Ok(match vault.capture(uid, secret).await? {
        Some(Capture::Stored | Capture::Same) => listener::Captured::Stored,
        Some(Capture::Refused) => listener::Captured::Other,
        None => listener::Captured::Unwanted,
    })
}

/// Until the drain delay after `shutdown` is over.
async fn linger(drain_delay: Duration, shutdown: CancellationToken) {
    shutdown.cancelled().await;
    tokio::time::sleep(drain_delay).await;
}

/// Serves the internal listener until `work` and `lingering` have ended: the Lease is free as soon as the work ends, and
/// whoever has not heard of that yet is still answered. Work that fails ends both.
async fn with_listener(
    listener: Listener,
    socket: TcpListener,
    work: impl Future<Output = anyhow::Result<()>>,
    lingering: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    tracing::info!(internal = ?socket.local_addr().ok(), "listening");
    let (router, tls, end) = (listener.network(), listener.tls(), CancellationToken::new());
    let serve = ingress::serve_internal(socket, tls, router, end.clone());
    let work = async {
        let _end = end.drop_guard_ref();
        let lingering = async {
            lingering.await;
            Ok(())
        };
        tokio::try_join!(work, lingering).map(|_| ())
    };
    let served = async { tokio::join!(work, serve).0 };
    tokio::select! {
        result = served => result,
        () = listener.keep() => unreachable!("it never ends"),
    }
}

/// How an ingress reaches the controller.
enum Ask {
    /// In this process.
    Here(axum::Router),
    /// At this URL, if there is one.
    At(Option<url::Url>),
}

/// What an ingress consists of.
struct Ingress {
    client: kube::Client,
    routes: routes::Handle,
    controller: ingress::Controller,
    options: config::Ingress,
    listeners: (TcpListener, TcpListener),
    state: Arc<ingress::State>,
    delivery: delivery::Running,
    delivery_end: CancellationToken,
}

impl Ingress {
    /// Opens the spool and the listeners; deliveries begin.
    async fn start(
        common: &config::Common,
        options: config::Ingress,
        client: kube::Client,
        metrics: Metrics,
        ask: Ask,
    ) -> anyhow::Result<Self> {
        // The only one in its process is the only one at all.
        let replica = match &ask {
            Ask::Here(_) => log::replica(""),
            Ask::At(_) => log::replica(&hostname::get().unwrap_or_default().to_string_lossy()),
        };
        let runners = Runners::new(&common.cluster_domain, &common.allow_runner_origins)
            .map_err(anyhow::Error::msg)
            .context("--allow-runner-origin")?;
        let listeners = (listen(options.listen).await?, listen(common.private_listen).await?);
        let limits = Limits {
            max_bytes: options.spool_bytes,
            max_bytes_per_subscription: options.spool_bytes_per_subscription,
            max_age: options.max_event_age,
            retention: options.retention,
            max_finished_per_subscription: options.log_requests_per_subscription,
            max_finished_bytes_per_subscription: options.log_bytes_per_subscription,
        };
        let spool = Spool::open(&options.data_dir.join("spool"), limits).context("the spool")?;
        let health = Health::default();
        let routes = routes::Handle::new(metrics.clone());
        let controller = match ask {
            Ask::Here(router) => ingress::Controller::Here(router),
            Ask::At(Some(url)) => ingress::Controller::Service(ingress::Service::new(url, routes.controller())),
            Ask::At(None) => ingress::Controller::Absent,
        };
        let delivery_end = CancellationToken::new();
        let waiting = ingress::Waiting::default();
        let waits = waiting.clone();
        metrics.before_export("requests_waiting", move |metrics| metrics.requests_waiting(waits.count()));
        let delivery = delivery::start(
            delivery::Context {
                routes: routes.clone(),
                spool: spool.clone(),
                runners,
                addresses: AddressPolicy::new(common.allow_addresses.clone()),
                controller: controller.clone(),
                metrics: metrics.clone(),
                health: health.clone(),
                waiting: waiting.clone(),
            },
            delivery_end.clone(),
        )
        .context("delivery")?;
        let state = ingress::State::new(
            routes.clone(),
            spool,
            metrics.clone(),
            health,
            options.body_limit,
            options.request_timeout,
        )
        .with_controller(controller.clone())
        .with_trusted_proxies(&options.trusted_proxies)
        .with_replica(&replica)
        .with_waiting(waiting);
        Ok(Self { client, routes, controller, options, listeners, state: Arc::new(state), delivery, delivery_end })
    }

    /// What the controller asks and has done.
    fn log_router(&self) -> axum::Router {
        log::router(self.state.log()).merge(ingress::sent_router(self.state.clone()))
    }

    /// Serves the request log until `end`.
    fn serve_log(&self, socket: TcpListener, end: CancellationToken) -> impl Future<Output = ()> + use<> {
        tracing::info!(log = ?socket.local_addr().ok(), "listening");
        let router = log::network(self.log_router(), self.routes.controller());
        ingress::serve_log(socket, log::server_config(self.routes.controller()), router, end)
    }

    /// Follows the routes and serves until `shutdown`.
    async fn serve(self, common: &config::Common, drain_delay: Duration, shutdown: CancellationToken) {
        let scope = common.scope();
        let watch = routes::watch(self.client, &scope, &common.ingress_namespace, self.routes.clone());
        let end = CancellationToken::new();
        let report = ingress::report_activity(self.routes, self.controller, common.activity_interval, end.clone());
        let serve = async {
            ingress::run(&self.options, drain_delay, self.listeners, self.state, shutdown).await;
            end.cancel();
        };
        tokio::select! {
            _ = async { tokio::join!(serve, report) } => {}
            () = watch => unreachable!("it never ends"),
        }
        // What is accepted while the listener drains is still delivered; what is left then, after the next start.
        self.delivery_end.cancel();
        self.delivery.stopped().await;
    }
}

async fn client() -> anyhow::Result<kube::Client> {
    kube::Client::try_default().await.context("the configuration of the Kubernetes client")
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
