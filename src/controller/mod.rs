//! Makes the cluster and the external systems what the resources say. One folder a kind.
//!
//! This is the only part that holds credentials of external systems, and the only writer of statuses.

pub mod activity;
pub mod admission;
pub mod authorization;
mod census;
pub mod certificates;
pub mod custody;
pub mod election;
pub mod installation;
mod labelled;
pub mod listener;
mod orphans;
mod plugins;
pub mod replicas;
pub mod slots;
mod subscription;
mod trigger_plugin;
mod watch;
mod workflow_trigger;

pub use plugins::{Compiler, PluginState, Plugins};
pub use subscription::Blocked;

use crate::api::{Subscription, WorkflowTrigger};
use crate::config;
use crate::delivery::Runners;
use crate::external;
use crate::telemetry::Metrics;
use anyhow::Context as _;
use authorization::pages::Pages;
use custody::Vault;
use election::Election;
use installation::InstallationKey;
use kube::api::{Api, Patch, PatchParams};
use kube::core::object::HasStatus;
use kube::runtime::controller::{Action, Config};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::reflector::Store;
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use replicas::Replicas;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use slots::Ledgers;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// First and longest pause between two passes that fail.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// The longest time that one pass may take; a call to an external system takes 30 seconds at most.
const PASS_TIMEOUT: Duration = Duration::from_secs(240);
/// Pause before something is tried again that a person most likely has to mend first.
const SLOW: Duration = Duration::from_secs(600);

/// Why a pass has not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The API server refused or did not answer.
    #[error("the API server: {0}")]
    Api(#[source] Box<kube::Error>),
    /// Somebody else was faster; the next pass sees what they did.
    #[error("{0} was changed at the same moment")]
    Conflict(String),
    /// The API server or the external systems have kept the pass waiting; without a limit, one request that is never
    /// answered would stop all further passes of its object.
    #[error("the pass took longer than {0:?}")]
    TooLong(Duration),
    /// More is to be done than one pass may do; the next one goes on at once.
    #[error("more is to be done than one pass may do")]
    Unfinished,
    /// Something that Bellhop itself had written cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// The object cannot go on, for a reason that its conditions tell.
    #[error("{}", .0.message)]
    Blocked(Box<Blocked>),
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.is_conflict() => Failure::Conflict(status.message.clone()),
            error => Failure::Api(Box::new(error)),
        }
    }
}

impl From<Blocked> for Failure {
    fn from(blocked: Blocked) -> Self {
        Failure::Blocked(Box::new(blocked))
    }
}

/// When a pass is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// When something that is watched changes.
    OnChange,
    /// With growing pauses.
    Backoff,
    /// After ten minutes, with jitter.
    Slow,
    /// After this pause, which the external system asks for, or a longer one.
    After(Duration),
    /// After this pause, at which something is due. Nothing has failed.
    At(Duration),
}

/// What every controller works with.
pub struct Context {
    client: kube::Client,
    common: config::Common,
    options: config::Controller,
    external: external::Client,
    replicas: Replicas,
    metrics: Metrics,
    runners: Runners,
    recorder: Recorder,
    key: InstallationKey,
    vault: Vault,
    ledgers: Ledgers,
    plugins: Plugins,
    subscriptions: Store<Subscription>,
    triggers: Store<WorkflowTrigger>,
    accepting: tokio::sync::Mutex<()>,
    attempts: Mutex<HashMap<Uuid, u32>>,
    memory: subscription::Memory,
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
    let (triggers, [own_triggers, triggers_of_subscriptions]) =
        watch::follow(scope.apis(&client), &all, "WorkflowTrigger", &metrics, shutdown.clone());
    let custodies = vec![Api::namespaced(client.clone(), &common.namespace)];
    let labelled = watcher::Config::default().labels(custody::CUSTODY_LABEL);
    let (custodies, [own_custodies, custodies_of_subscriptions]) =
        watch::follow(custodies, &labelled, "Secret", &metrics, shutdown.clone());
    let context = Arc::new(Context {
        external,
        replicas,
        metrics,
        runners,
        recorder: Recorder::new(client.clone(), reporter()),
        key,
        vault: Vault::new(client.clone(), &common.namespace),
        ledgers: Ledgers::new(client.clone(), &common.namespace),
        plugins: Plugins::new(plugins),
        subscriptions,
        triggers,
        accepting: tokio::sync::Mutex::new(()),
        attempts: Mutex::default(),
        memory: subscription::Memory::new(now()),
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
    };
    let controllers = async {
        tokio::join!(
            trigger_plugin::run(of_plugins, context.clone(), shutdown.clone()),
            subscription::run(of_subscriptions, context.clone(), shutdown.clone()),
            workflow_trigger::run(of_triggers, context.clone(), shutdown.clone()),
            orphans::run(custodies, own_custodies, live, context.clone(), shutdown.clone()),
        );
    };
    let configuration = context.options.admission_configuration.as_deref();
    let publish = certificates::publish(
        context.client.clone(),
        &context.common.ingress_namespace,
        configuration.filter(|name| !name.is_empty()),
        newest,
        context.metrics.clone(),
    );
    tokio::select! {
        () = controllers => {}
        () = census::orphans(&context) => {}
        () = publish => {}
        () = activity::run(&context, &desk) => {}
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
        let _ = self.subscriptions.wait_until_ready().await;
        let _ = self.triggers.wait_until_ready().await;
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

    /// Publishes an event of type Normal on an object.
    async fn tell<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, note: impl Into<String>) {
        self.publish(object, EventType::Normal, reason, note.into()).await;
    }

    /// Publishes an event of type Warning on an object.
    async fn warn<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, note: impl Into<String>) {
        self.publish(object, EventType::Warning, reason, note.into()).await;
    }

    /// The same for something that happens now and then, each time with other words: events with the same reason are
    /// counted otherwise, and keep the words of the first.
    async fn warn_anew<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, note: String) {
        let recorder = Recorder::new(self.client.clone(), reporter());
        publish(&recorder, object, EventType::Warning, reason, &note).await;
    }

    async fn publish<K: Resource<DynamicType = ()>>(&self, object: &K, type_: EventType, reason: &str, note: String) {
        publish(&self.recorder, object, type_, reason, &note).await;
    }

    /// The next pass for an object, after one that came to its end.
    fn requeue(&self, uid: Uuid, retry: Option<Retry>) -> Action {
        self.next_pass(uid, retry).map_or_else(Action::await_change, Action::requeue)
    }

    /// The pause until the next pass for an object; nothing: until something that is watched changes.
    fn next_pass(&self, uid: Uuid, retry: Option<Retry>) -> Option<Duration> {
        match retry {
            None | Some(Retry::OnChange) => {
                self.forget(uid);
                None
            }
            Some(Retry::At(pause)) => {
                self.forget(uid);
                Some(pause)
            }
            Some(Retry::Backoff) => Some(self.next_pause(uid)),
            Some(Retry::Slow) => Some(jittered(SLOW)),
            Some(Retry::After(pause)) => Some(pause.max(self.next_pause(uid))),
        }
    }

    /// The next pass for an object, after one that failed.
    fn requeue_failed<K: Resource<DynamicType = ()>>(&self, object: &K, failure: &Failure) -> Action {
        let (kind, name) = (K::kind(&()), object.name_any());
        let namespace = object.namespace().unwrap_or_default();
        match failure {
            Failure::Conflict(_) | Failure::Blocked(_) | Failure::Unfinished => {
                tracing::debug!(%kind, namespace, name, %failure, "to be tried again");
            }
            _ => tracing::warn!(%kind, namespace, name, error = %failure, "a pass has failed"),
        }
        let Ok(uid) = uid_of(object) else { return Action::requeue(SLOW) };
        match failure {
            Failure::Blocked(blocked) => match Retry::from(&**blocked) {
                // A deletion is never left to chance: it has a deadline.
                Retry::OnChange => Action::requeue(self.next_pause(uid)),
                retry => self.requeue(uid, Some(retry)),
            },
            Failure::Unfinished => self.requeue(uid, Some(Retry::At(Duration::ZERO))),
            _ => Action::requeue(self.next_pause(uid)),
        }
    }

    fn next_pause(&self, uid: Uuid) -> Duration {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = attempts.entry(uid).or_insert(0);
        *count += 1;
        backoff(*count)
    }

    fn forget(&self, uid: Uuid) {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
    }
}

/// Who publishes events.
fn reporter() -> Reporter {
    Reporter { controller: "bellhop".to_owned(), instance: None }
}

async fn publish<K: Resource<DynamicType = ()>>(
    recorder: &Recorder,
    object: &K,
    type_: EventType,
    reason: &str,
    note: &str,
) {
    let event = Event {
        type_,
        reason: reason.to_owned(),
        // The API server refuses more than 1 kB.
        note: Some(note.chars().take(250).collect()),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    if let Err(error) = recorder.publish(&event, &object.object_ref(&())).await {
        // Never worth failing for; in a terminating namespace the API server refuses every new event.
        tracing::debug!(%error, reason, "an event could not be published");
    }
}

/// The pause after `attempts` failures in a row: doubling from one second to five minutes, with jitter.
fn backoff(attempts: u32) -> Duration {
    let (first, longest) = BACKOFF;
    jittered(first.saturating_mul(2u32.saturating_pow(attempts.saturating_sub(1))).min(longest))
}

/// Between half of `pause` and all of it, so that what failed together does not come back together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_five_minutes_and_are_jittered() {
        for (attempts, full) in [(1, 1.0), (2, 2.0), (5, 16.0), (30, 300.0), (u32::MAX, 300.0)] {
            for _ in 0..50 {
                let pause = backoff(attempts).as_secs_f64();
                assert!(pause >= full / 2.0 && pause <= full, "{attempts}: {pause}");
            }
        }
    }
}
