//! Makes the cluster and the external systems what the resources say. One folder a kind.
//!
//! This is the only part that holds credentials of external systems, and the only writer of statuses.

pub mod activity;
pub mod admission;
mod again;
pub mod authorization;
mod cache;
mod census;
pub mod certificates;
pub mod custody;
pub mod election;
mod events;
mod failure;
pub mod installation;
mod labelled;
pub mod listener;
mod orphans;
mod plugins;
mod public_keys;
pub mod replicas;
pub mod resource_runner;
pub mod seldom;
mod slots;
mod subscription;
mod trigger_plugin;
mod watch;
mod workflow_trigger;

pub use again::Retry;
pub use failure::Failure;
pub use plugins::{Compiler, PluginState, Plugins};
pub use subscription::Blocked;

use crate::api::{PublishedRunner, Subscription, WorkflowTrigger};
use crate::config;
use crate::delivery::Runners;
use crate::external;
use crate::telemetry::Metrics;
use again::{backoff, jittered};
use anyhow::Context as _;
use authorization::pages::Pages;
use cache::Cache;
use custody::Vault;
use election::Election;
use events::reporter;
use installation::InstallationKey;
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::api::{Api, PartialObjectMeta, Patch, PatchParams};
use kube::core::object::HasStatus;
use kube::runtime::controller::{Action, Config};
use kube::runtime::events::Recorder;
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use replicas::Replicas;
use resource_runner::Resources;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use slots::Ledgers;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The longest time that one pass may take; a call to an external system takes 30 seconds at most.
const PASS_TIMEOUT: Duration = Duration::from_secs(240);
/// How long the first list of Services is waited for.
const SERVICES_PATIENCE: Duration = Duration::from_secs(10);

/// What every controller works with.
pub struct Context {
    client: kube::Client,
    common: config::Common,
    options: config::Controller,
    external: external::Client,
    replicas: Replicas,
    metrics: Metrics,
    runners: Runners,
    resources: Resources,
    recorder: Recorder,
    key: InstallationKey,
    vault: Vault,
    ledgers: Ledgers,
    plugins: Plugins,
    subscriptions: Cache<Subscription>,
    triggers: Cache<WorkflowTrigger>,
    /// Secrets of runners that are published.
    published: Cache<PartialObjectMeta<Secret>>,
    services: Cache<PartialObjectMeta<Service>>,
    /// Set once `services` has had its first list.
    services_listed: OnceLock<()>,
    accepting: slots::Turns,
    attempts: Mutex<HashMap<Uuid, u32>>,
    memory: subscription::Memory,
    key_troubles: public_keys::Troubles,
}

/// What the controllers start from.
#[derive(Clone)]
pub struct Setup {
    /// Access to the API server.
    pub client: kube::Client,
    /// What every process needs to know.
    pub common: config::Common,
    /// What the controller needs to know.
    pub options: config::Controller,
    /// The ingress.
    pub replicas: Replicas,
    /// Where it is counted.
    pub metrics: Metrics,
    /// The client for external systems. One for the process, so that all calls count against the same budgets.
    pub external: external::Client,
    /// Where the ingress reports requests.
    pub desk: activity::Desk,
    /// The certificate of the internal listener.
    pub newest: certificates::Newest,
}

/// The pages of an authorization, which every replica serves, whether it holds the Lease or not.
pub fn pages(
    client: kube::Client,
    common: &config::Common,
    options: &config::Controller,
    external: external::Client,
    metrics: Metrics,
) -> axum::Router {
    let public_url = options.public_url.clone();
    authorization::pages::router(Arc::new(Pages::new(client, &common.namespace, external, public_url, metrics)))
}

/// Runs all controllers until `shutdown`, as long and as often as this process holds the Lease.
///
/// # Errors
/// The installation key cannot be read, or the options are wrong. An API server that does not answer is waited for.
pub async fn run(setup: Setup, shutdown: CancellationToken) -> anyhow::Result<()> {
    let identity = match &setup.options.identity {
        Some(identity) => identity.clone(),
        // The same after a restart, which so need not wait for the Lease to run out, and not that of another process on
        // the host, which cannot listen on the same address.
        None => {
            let host = hostname::get().context("the host's name")?;
            format!("{}_{}", host.to_string_lossy(), setup.common.private_listen)
        }
    };
    // The Lease lies in one of the namespaces.
    tokio::select! {
        made = until_answered("the namespaces", || namespaces(&setup.client, &setup.common)) => made?,
        () = shutdown.cancelled() => return Ok(()),
    }
    let election = Election::new(setup.client.clone(), &setup.common.namespace, identity, setup.metrics.clone());
    election.lead(shutdown, |term| work(setup.clone(), term)).await
}

async fn work(setup: Setup, shutdown: CancellationToken) -> anyhow::Result<()> {
    let Setup { client, common, options, replicas, metrics, external, desk, newest } = setup;
    let key = tokio::select! {
        key = until_answered("the installation key", || installation::ensure_key(&client, &common.namespace)) => key?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let runners = Runners::new(&common.cluster_domain, &common.allow_runner_origins).map_err(anyhow::Error::msg)?;
    let runners = runners.with_resources(options.resource_runners);
    let (scope, all) = (common.scope(), watcher::Config::default());
    let all_plugins = vec![Api::all(client.clone())];
    let (plugins, [own_plugins, plugins_of_subscriptions, plugins_of_triggers]) = watch::follow_changes_of(
        Some(trigger_plugin::worth_a_pass),
        all_plugins,
        &all,
        "TriggerPlugin",
        &metrics,
        shutdown.clone(),
    );
    let (subscriptions, [own_subscriptions, neighbours, users, subscriptions_of_triggers, live]) =
        watch::follow_changes_of(
            Some(activity::worth_a_pass),
            scope.apis(&client),
            &all,
            "Subscription",
            &metrics,
            shutdown.clone(),
        );
    let (triggers, [own_triggers, triggers_of_subscriptions, triggers_of_published]) = watch::follow_changes_of(
        Some(workflow_trigger::worth_a_pass),
        scope.apis(&client),
        &all,
        "WorkflowTrigger",
        &metrics,
        shutdown.clone(),
    );
    let custodies = vec![Api::namespaced(client.clone(), &common.namespace)];
    let labelled = watcher::Config::default().labels(custody::CUSTODY_LABEL);
    let (custodies, [own_custodies, custodies_of_subscriptions]) =
        watch::follow(custodies, &labelled, "Secret", &metrics, shutdown.clone());
    let published = vec![Api::namespaced(client.clone(), &common.ingress_namespace)];
    let of_runners = watcher::Config::default().labels(&PublishedRunner::selector());
    let (published, [published_changes]) = watch::follow(published, &of_runners, "Secret", &metrics, shutdown.clone());
    // Of a Service, nothing counts but that it is there.
    let (services, [services_of_triggers]) = watch::follow_changes_of(
        Some(|_: &PartialObjectMeta<Service>| Vec::new()),
        scope.apis(&client),
        &all,
        "Service",
        &metrics,
        shutdown.clone(),
    );
    let context = Arc::new(Context {
        external,
        replicas,
        metrics,
        runners,
        resources: Resources::new(client.clone(), common.scope(), options.resource_runners),
        recorder: Recorder::new(client.clone(), reporter()),
        key,
        vault: Vault::new(client.clone(), &common.namespace),
        ledgers: Ledgers::new(client.clone(), &common.namespace),
        plugins: Plugins::new(plugins.store().clone()),
        subscriptions,
        triggers,
        published,
        services,
        services_listed: OnceLock::new(),
        accepting: slots::Turns::default(),
        attempts: Mutex::default(),
        memory: subscription::Memory::new(now()),
        key_troubles: public_keys::Troubles::default(),
        client,
        common,
        options,
    });
    tokio::select! {
        () = context.ready() => {}
        () = shutdown.cancelled() => return Ok(()),
    }
    let _census = census::Census::start(&context);
    let of_plugins = trigger_plugin::Followed { plugins: own_plugins, subscriptions: users };
    let of_subscriptions = subscription::Followed {
        subscriptions: own_subscriptions,
        neighbours,
        plugins: plugins_of_subscriptions,
        triggers: triggers_of_subscriptions,
        custodies: custodies_of_subscriptions,
    };
    let of_triggers = workflow_trigger::Followed {
        triggers: own_triggers,
        subscriptions: subscriptions_of_triggers,
        plugins: plugins_of_triggers,
        services: services_of_triggers,
    };
    let controllers = async {
        tokio::join!(
            trigger_plugin::run(of_plugins, context.clone(), shutdown.clone()),
            subscription::run(of_subscriptions, context.clone(), shutdown.clone()),
            workflow_trigger::run(of_triggers, context.clone(), shutdown.clone()),
            workflow_trigger::leftovers::run(
                published_changes,
                triggers_of_published,
                context.clone(),
                shutdown.clone()
            ),
            orphans::run(custodies.store().clone(), own_custodies, live, context.clone(), shutdown.clone()),
        );
    };
    let objects = certificates::Objects {
        configuration: context.options.admission_configuration.as_deref().filter(|name| !name.is_empty()),
        api_service: context.options.log_api_service(),
    };
    let publish = certificates::publish(
        context.client.clone(),
        &context.common.ingress_namespace,
        objects,
        newest,
        context.metrics.clone(),
    );
    tokio::select! {
        () = controllers => {}
        () = census::orphans(&context) => {}
        () = publish => {}
        () = activity::run(&context, &desk) => {}
        () = public_keys::run(&context, &desk) => {}
    }
    Ok(())
}

async fn namespaces(client: &kube::Client, common: &config::Common) -> Result<(), Failure> {
    installation::ensure_namespaces(client, &[&common.namespace, &common.ingress_namespace]).await
}

/// Does what has to be done before anything else, however long the API server takes to answer.
async fn until_answered<T, F>(what: &str, mut attempt: impl FnMut() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    for attempts in 1.. {
        match attempt().await {
            Err(failure @ (Failure::Api(_) | Failure::Conflict(_))) => {
                tracing::warn!(error = %failure, "{what} cannot be read or made yet");
                tokio::time::sleep(backoff(attempts)).await;
            }
            ended => return ended,
        }
    }
    unreachable!("the attempts have no end")
}

/// The configuration of a controller; without it, kube works on any number of objects at once.
fn config(concurrency: u16) -> Config {
    Config::default().concurrency(concurrency).debounce(Duration::from_millis(50))
}

impl Context {
    /// Waits until every cache has had its first list, so that "there is none" means that there is none.
    ///
    /// Called once, before any controller runs: kube's store wakes only the last of several that wait for it.
    async fn ready(&self) {
        // A dropped writer means that the process is shutting down.
        let _ = self.plugins.store().wait_until_ready().await;
        let _ = self.subscriptions.store().wait_until_ready().await;
        let _ = self.triggers.store().wait_until_ready().await;
        let _ = self.published.store().wait_until_ready().await;
        // They only make conditions better, so that an account that may not list them is no reason not to work.
        match tokio::time::timeout(SERVICES_PATIENCE, self.services.store().wait_until_ready()).await {
            Ok(_) => drop(self.services_listed.set(())),
            Err(_) => tracing::warn!("Services cannot be listed: whether a runner's Service exists is not told"),
        }
    }

    /// The Services of the workspaces, if they are known.
    fn services(&self) -> Option<&Cache<PartialObjectMeta<Service>>> {
        self.services_listed.get().map(|()| &self.services)
    }

    /// Runs one pass of a controller, within the time, and counts it.
    async fn pass(
        &self,
        kind: &'static str,
        pass: impl Future<Output = Result<Action, Failure>>,
    ) -> Result<Action, Failure> {
        let result = tokio::time::timeout(PASS_TIMEOUT, pass).await.unwrap_or(Err(Failure::TooLong(PASS_TIMEOUT)));
        self.metrics.reconciled(kind, if result.is_ok() { "ok" } else { "failed" });
        result
    }

    /// Writes a status by server-side apply.
    async fn apply_status<K>(&self, manager: &str, api: &Api<K>, object: &K, status: &K::Status) -> Result<(), Failure>
    where
        K: Resource<DynamicType = ()> + HasStatus + Clone + Debug + DeserializeOwned,
        K::Status: Serialize,
    {
        let patch = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"name": object.name_any(), "uid": object.uid()},
            "status": status,
        });
        let written =
            api.patch_status(&object.name_any(), &PatchParams::apply(manager).force(), &Patch::Apply(patch)).await;
        ignore_not_found(written)
    }
}

/// The time, in milliseconds since the Unix epoch.
fn now() -> i64 {
    k8s_openapi::jiff::Timestamp::now().as_millisecond()
}

/// The UID of an object that came from the API server.
fn uid_of<K: Resource>(object: &K) -> Result<Uuid, Failure> {
    let uid = object.meta().uid.as_deref().unwrap_or_default();
    uid.parse().map_err(|_| Failure::Unreadable(format!("metadata.uid: {uid:?} is not a UUID")))
}

/// Turns the answer 404 to a deletion or a patch into success.
fn ignore_not_found<T>(result: Result<T, kube::Error>) -> Result<(), Failure> {
    match result {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
