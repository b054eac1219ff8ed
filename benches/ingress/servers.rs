//! The servers that are compared, each in a process of its own: this program, started again with a sub-command.

use super::{expressions, push};
use anyhow::{Context, Result, anyhow, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use bellhop::api::{PublishedRoute, Runner, TriggerPlugin, TriggerPluginSpec, WorkflowTrigger, WorkflowTriggerSpec};
use bellhop::config::{self, LogFormat};
use bellhop::delivery::{self, Runners};
use bellhop::external::address::AddressPolicy;
use bellhop::ingress::{self, Health};
use bellhop::routes::{self, Trigger};
use bellhop::spool::{Limits, Spool};
use bellhop::telemetry::{self, Metrics};
use bellhop_harness::ports::free_port;
use bellhop_harness::process::Process;
use clap::{Args, Parser, Subcommand};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;
use std::path::{Path as FilePath, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Most bytes of disk that a spool may take.
pub const SPOOL_BYTES: u64 = 4 << 30;
/// Largest body where there are attacks.
const LARGEST_ATTACK: usize = 32 << 20;
/// Subscriptions in one namespace, as many as Bellhop allows unless it is told otherwise.
const NEIGHBOURS: usize = 10;
/// Clock ticks in a second, as `/proc` counts them.
const TICKS: u64 = 100;
const PLUGIN: &str = include_str!("../../examples/github-push/plugin.yaml");
const TRIGGER: &str = include_str!("../../examples/github-push/trigger.yaml");

/// What this program is when it is started again.
#[derive(Parser)]
pub struct Cli {
    #[command(subcommand)]
    server: Server,
}

#[derive(Subcommand)]
enum Server {
    /// A bare handler.
    ServeBare {
        port: u16,
    },
    ServeIngress(Box<Served>),
}

/// Bellhop without its controller: what the controller would publish is there from the start.
#[derive(Args)]
struct Served {
    #[arg(long)]
    subscriptions: usize,
    /// Triggers of each subscription.
    #[arg(long)]
    triggers: usize,
    #[arg(long)]
    runner: String,
    /// Runners that each subscription has one trigger more for.
    #[arg(long)]
    faulty: Vec<String>,
    /// The attack that one subscription more, of another workspace, has as the filter of its trigger.
    #[arg(long)]
    attack: Option<usize>,
    #[command(flatten)]
    common: config::Common,
    #[command(flatten)]
    options: config::Ingress,
}

/// Runs a server until the process is killed.
pub fn serve(cli: Cli) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match cli.server {
        Server::ServeBare { port } => runtime.block_on(bare(port)),
        Server::ServeIngress(served) => runtime.block_on(bellhop(*served)),
    }
}

async fn bare(port: u16) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let router = Router::new().route("/hooks/{token}", post(verify));
    Ok(axum::serve(listener, router).await?)
}

async fn verify(Path(_): Path<String>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let value = headers.get(push::SIGNATURE).and_then(|value| value.to_str().ok());
    let signature = value.and_then(|value| value.strip_prefix(push::PREFIX)).and_then(|text| hex::decode(text).ok());
    let (Some(signature), Ok(mut mac)) = (signature, Hmac::<Sha256>::new_from_slice(push::SECRET.as_bytes())) else {
        return StatusCode::UNAUTHORIZED;
    };
    mac.update(&body);
    match mac.verify_slice(&signature) {
        Ok(()) => StatusCode::OK,
        Err(_) => StatusCode::UNAUTHORIZED,
    }
}

async fn bellhop(served: Served) -> Result<()> {
    let (common, options) = (served.common, served.options);
    telemetry::init(LogFormat::Json, "info")?;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let limits = Limits {
        max_bytes: options.spool_bytes,
        max_bytes_per_subscription: options.spool_bytes_per_subscription,
        max_age: options.max_event_age,
        retention: options.retention,
        max_finished_per_subscription: options.log_requests_per_subscription,
        max_finished_bytes_per_subscription: options.log_bytes_per_subscription,
    };
    let spool = Spool::open(&options.data_dir.join("spool"), limits)?;
    let (metrics, health, shutdown) = (Metrics::new(), Health::default(), CancellationToken::new());
    let routes = routes::Handle::new(metrics.clone());
    publish(&routes, served.subscriptions, served.triggers, &served.runner, &served.faulty)?;
    if let Some(number) = served.attack {
        publish_attack(&routes, served.subscriptions, number, &served.runner)?;
    }
    let context = delivery::Context {
        routes: routes.clone(),
        spool: spool.clone(),
        runners: Runners::new(&common.cluster_domain, &common.allow_runner_origins).map_err(anyhow::Error::msg)?,
        addresses: AddressPolicy::new(common.allow_addresses.clone()),
        controller: ingress::Controller::Absent,
        metrics: metrics.clone(),
        waiting: Default::default(),
        health: health.clone(),
    };
    let _delivery = delivery::start(context, shutdown.clone())?;
    let state = ingress::State::new(routes, spool, metrics, health, options.body_limit, options.request_timeout);
    let private = TcpListener::bind(common.private_listen).await?;
    // Last: that it can be reached tells that everything is ready.
    let public = TcpListener::bind(options.listen).await?;
    ingress::run(&options, Duration::ZERO, (public, private), Arc::new(state), shutdown).await;
    Ok(())
}

/// Fills the route table as the watch does: subscriptions to GitHub, each with published triggers that match: so many for
/// `runner`, and one for each of `faulty`.
pub fn publish(
    routes: &routes::Handle,
    subscriptions: usize,
    triggers: usize,
    runner: &str,
    faulty: &[String],
) -> Result<()> {
    let plugin: TriggerPlugin = serde_saphyr::from_str(PLUGIN).map_err(|error| anyhow!("the plugin: {error}"))?;
    let trigger: WorkflowTrigger = serde_saphyr::from_str(TRIGGER).map_err(|error| anyhow!("the trigger: {error}"))?;
    routes.update(|index| {
        index.apply_plugin("github", &plugin.spec);
        for number in 0..subscriptions {
            let (namespace, name) = (format!("team-{}", number / NEIGHBOURS), format!("repository-{number}"));
            let mut spec = trigger.spec.clone();
            spec.subscription_ref.name.clone_from(&name);
            let faulty = faulty.iter().map(String::as_str);
            for (trigger, url) in std::iter::repeat_n(runner, triggers).chain(faulty).enumerate() {
                spec.runner = Runner { url: Some(url.to_owned()), ..Runner::default() };
                index.apply_trigger(Trigger {
                    state: bellhop::api::RunnerGone { generation: 1, resume: None },
                    gone: false,
                    listening: None,
                    uid: uuid::Uuid::new_v5(&push::uid(number), format!("trigger {trigger}").as_bytes()),
                    namespace: namespace.as_str().into(),
                    name: format!("deploy-{number}-{trigger}"),
                    spec: spec.clone(),
                });
            }
            index.apply_route(PublishedRoute {
                token: push::token(number),
                callback_secrets: vec![push::SECRET.to_owned()],
                uid: push::uid(number),
                namespace,
                name,
                plugin: "github".to_owned(),
                events: vec!["push".to_owned()],
                url: None,
                awaits_secret: false,
            });
        }
        let counts = index.counts();
        let fine = counts.served == subscriptions && counts.triggers_invalid == 0;
        ensure!(fine, "not everything that was published is served: {counts:?}");
        Ok(())
    })?;
    routes.set_synced();
    Ok(())
}

/// One subscription more, with this number and in a workspace of its own, whose trigger has the attack as its filter: over the
/// body, which is its event's one variable.
///
/// # Errors
/// A trigger may have no such filter.
pub fn publish_attack(routes: &routes::Handle, subscription: usize, attack: usize, runner: &str) -> Result<()> {
    let attack = expressions::attacks::all().into_iter().nth(attack).context("there is no such attack")?;
    let plugin = json!({
        "displayName": "Attack", "allowedOrigins": ["https://api.example.com"],
        "callback": {"verification": [{"none": {}}], "event": "'attack'", "deliveryID": "request.headers['x-github-delivery']"},
        "events": [{"name": "attack", "title": "Attack", "variables": {"body": {"type": "object", "value": "body"}}}],
    });
    let plugin: TriggerPluginSpec = serde_json::from_value(plugin)?;
    let name = "attacked";
    let trigger = json!({
        "subscriptionRef": {"name": name}, "event": "attack", "workflow": "none", "runner": {"url": runner},
        "filter": attack.source.replace("body", "variables.body"),
    });
    let spec: WorkflowTriggerSpec = serde_json::from_value(trigger)?;
    routes.update(|index| {
        index.apply_plugin("attack", &plugin);
        index.apply_trigger(Trigger {
            state: bellhop::api::RunnerGone { generation: 1, resume: None },
            gone: false,
            listening: None,
            uid: uuid::Uuid::new_v5(&push::uid(subscription), b"trigger"),
            namespace: "attacker".into(),
            name: name.to_owned(),
            spec,
        });
        index.apply_route(PublishedRoute {
            token: push::token(subscription),
            callback_secrets: Vec::new(),
            uid: push::uid(subscription),
            namespace: "attacker".to_owned(),
            name: name.to_owned(),
            plugin: "attack".to_owned(),
            events: vec!["attack".to_owned()],
            url: None,
            awaits_secret: false,
        });
        ensure!(index.counts().triggers_invalid == 0, "a trigger may not have the filter \"{}\"", attack.name);
        Ok(())
    })
}

/// A server that was started. Dropping it kills it and removes its spool.
pub struct Started {
    /// Where requests go.
    pub port: u16,
    folder: PathBuf,
    process: Option<Process>,
}

impl Started {
    /// Starts the bare handler.
    pub async fn bare(folder: &FilePath) -> Result<Self> {
        Self::start(folder, "bare", |port| vec!["serve-bare".to_owned(), port.to_string()]).await
    }

    /// Starts Bellhop's ingress with an empty spool, and with this many triggers for each subscription.
    pub async fn ingress(folder: &FilePath, subscriptions: usize, triggers: usize, runner: &str) -> Result<Self> {
        Self::serving(folder, subscriptions, triggers, runner, &[], None).await
    }

    /// The same with one trigger for each subscription, and one more for each of the `faulty` runners.
    pub async fn beside(folder: &FilePath, subscriptions: usize, runner: &str, faulty: &[String]) -> Result<Self> {
        Self::serving(folder, subscriptions, 1, runner, faulty, None).await
    }

    /// The same with one subscription more, in another workspace, whose trigger has this attack as its filter. Bodies may be as
    /// large as those of attacks.
    pub async fn attacked(folder: &FilePath, subscriptions: usize, runner: &str, attack: usize) -> Result<Self> {
        Self::serving(folder, subscriptions, 1, runner, &[], Some(attack)).await
    }

    async fn serving(
        folder: &FilePath,
        subscriptions: usize,
        triggers: usize,
        runner: &str,
        faulty: &[String],
        attack: Option<usize>,
    ) -> Result<Self> {
        let private = free_port()?;
        let name = format!("ingress-{subscriptions}");
        let data = folder.join(&name);
        Self::start(folder, &name, |port| {
            let mut args = vec!["serve-ingress".to_owned()];
            let mut option = |name: &str, value: String| args.extend([format!("--{name}"), value]);
            option("subscriptions", subscriptions.to_string());
            option("triggers", triggers.to_string());
            option("runner", runner.to_owned());
            faulty.iter().for_each(|url| option("faulty", url.clone()));
            if let Some(number) = attack {
                option("attack", number.to_string());
                option("body-limit", LARGEST_ATTACK.to_string());
            }
            option("listen", format!("127.0.0.1:{port}"));
            option("private-listen", format!("127.0.0.1:{private}"));
            option("data-dir", data.display().to_string());
            option("spool-bytes", SPOOL_BYTES.to_string());
            option("allow-address", "127.0.0.0/8".to_owned());
            option("allow-runner-origin", "http://127.0.0.1:*".to_owned());
            option("allow-runner-origin", "https://127.0.0.1:*".to_owned());
            args
        })
        .await
    }

    async fn start(folder: &FilePath, name: &str, args: impl FnOnce(u16) -> Vec<String>) -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(std::env::current_exe().context("the path of this program")?);
        command.args(args(port));
        let log = folder.join("log").join(format!("{name}.log"));
        let mut process = Process::spawn(name, &command, &log)?;
        process
            .wait_ready(Duration::from_secs(60), async || {
                Ok(TcpStream::connect(("127.0.0.1", port)).await.map(drop)?)
            })
            .await?;
        Ok(Self { port, folder: folder.join(name), process: Some(process) })
    }

    /// Processor time that it has taken so far, in microseconds; nothing where the system has no `/proc`.
    pub fn cpu_micros(&self) -> Option<u64> {
        let pid = self.process.as_ref()?.pid();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before them may hold anything, spaces included; user and system time are the 14th and 15th field.
        let times = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(2);
        let ticks: u64 = times.map(|field| field.parse::<u64>().ok()).sum::<Option<u64>>()?;
        Some(ticks * (1_000_000 / TICKS))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.process = None;
        // What the bare handler does not have cannot be removed.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
