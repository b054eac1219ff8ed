//! Feeds the snapshot from the API server.

use super::{Handle, Index, Trigger};
use crate::api::{
    PUBLISHED_LABEL, PublishedController, PublishedKeys, PublishedRoute, PublishedRunner, TriggerPlugin,
    WorkflowTrigger,
};
use crate::plugin::KeySet;
use crate::watch::Scope;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::fmt::Debug;
use tracing::{info, warn};
use uuid::Uuid;

/// Follows TriggerPlugins, what is published, and WorkflowTriggers for ever; what it knows stays in force while the API
/// server is away. Once all three were listed, the handle is synced.
///
/// Never returns; to stop it, drop it.
pub async fn watch(client: Client, scope: &Scope, ingress_namespace: &str, handle: Handle) {
    let all = watcher::Config::default();
    let published = watcher::Config::default().labels(PUBLISHED_LABEL);
    let (listed, mut lists) = tokio::sync::mpsc::channel(3);
    let plugins = follow::<Plugins>(vec![Api::all(client.clone())], &all, &handle, listed.clone());
    let secrets = vec![Api::namespaced(client.clone(), ingress_namespace)];
    let routes = follow::<Routes>(secrets, &published, &handle, listed.clone());
    let triggers = follow::<Triggers>(scope.apis(&client), &all, &handle, listed);
    let sync = async {
        for _ in 0..3 {
            lists.recv().await;
        }
        info!("the routes are known");
        handle.set_synced();
    };
    tokio::join!(plugins, routes, triggers, sync);
}

/// What one kind of object means to the index.
trait Source: 'static {
    type Object: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static;
    const KIND: &'static str;

    /// Takes an object, or forgets it if it is of no use.
    fn apply(index: &mut Index, key: &Name, object: Option<Self::Object>);
    /// Forgets an object.
    fn delete(index: &mut Index, key: &Name);
    /// Forgets all objects but these.
    fn retain(index: &mut Index, keys: &HashSet<Name>);
}

/// Namespace (empty for cluster-scoped objects) and name.
type Name = (String, String);

struct Plugins;
struct Routes;
struct Triggers;

impl Source for Plugins {
    type Object = TriggerPlugin;
    const KIND: &'static str = "TriggerPlugin";

    fn apply(index: &mut Index, key: &Name, object: Option<TriggerPlugin>) {
        match object {
            Some(plugin) => index.apply_plugin(&key.1, &plugin.spec),
            None => index.delete_plugin(&key.1),
        }
    }

    fn delete(index: &mut Index, key: &Name) {
        index.delete_plugin(&key.1);
    }

    fn retain(index: &mut Index, keys: &HashSet<Name>) {
        index.retain_plugins(&keys.iter().map(|(_, name)| name.clone()).collect());
    }
}

impl Source for Routes {
    type Object = Secret;
    const KIND: &'static str = "Secret";

    fn apply(index: &mut Index, key: &Name, object: Option<Secret>) {
        if key.1 == PublishedController::SECRET {
            match object.as_ref().map(PublishedController::from_secret) {
                Some(Ok(controller)) => index.apply_controller(Some(controller)),
                Some(Err(problem)) => warn!(problem, "what was known of the controller stays in force"),
                None => warn!("what is published of the controller cannot be read; what was known stays in force"),
            }
            return;
        }
        if PublishedKeys::is_name(&key.1) {
            let published = object.as_ref().map(PublishedKeys::from_secret);
            let read = published.unwrap_or_else(|| Err("it cannot be decoded".to_owned())).and_then(|published| {
                let keys = KeySet::read(published.jwks.to_string().as_bytes())?;
                Ok((published.url, keys))
            });
            match read {
                Ok((url, keys)) => index.apply_keys(&key.1, url, keys),
                Err(problem) => {
                    warn!(secret = key.1, problem, "public keys cannot be read: those that were known stay in force");
                }
            }
            return;
        }
        if PublishedRunner::uid_in(&key.1).is_some() {
            match object.as_ref().map(PublishedRunner::from_secret) {
                Some(Ok(runner)) => index.apply_runner(runner),
                problem => {
                    let problem = problem.and_then(Result::err).unwrap_or_default();
                    warn!(secret = key.1, problem, "the secrets of a runner cannot be read: it is sent nothing");
                    Self::delete(index, key);
                }
            }
            return;
        }
        match object.as_ref().map(PublishedRoute::from_secret) {
            Some(Ok(route)) if PublishedRoute::secret_name(route.uid) == key.1 => index.apply_route(route),
            Some(Err(problem)) => {
                warn!(problem, "a published route cannot be read: not served");
                Self::delete(index, key);
            }
            _ => {
                warn!(secret = key.1, "a published route cannot be read: not served");
                Self::delete(index, key);
            }
        }
    }

    fn delete(index: &mut Index, key: &Name) {
        if key.1 == PublishedController::SECRET {
            index.apply_controller(None);
        }
        if PublishedKeys::is_name(&key.1) {
            index.delete_keys(&key.1);
        }
        if let Some(uid) = route_uid(&key.1) {
            index.delete_route(uid);
        }
        if let Some(uid) = PublishedRunner::uid_in(&key.1) {
            index.delete_runner(uid);
        }
    }

    fn retain(index: &mut Index, keys: &HashSet<Name>) {
        if !keys.iter().any(|(_, name)| name == PublishedController::SECRET) {
            index.apply_controller(None);
        }
        index.retain_routes(&keys.iter().filter_map(|(_, name)| route_uid(name)).collect());
        index.retain_keys(&keys.iter().map(|(_, name)| name.as_str()).collect());
        index.retain_runners(&keys.iter().filter_map(|(_, name)| PublishedRunner::uid_in(name)).collect());
    }
}

/// The UID in the name of a published Secret.
fn route_uid(secret: &str) -> Option<Uuid> {
    let uid = secret.rsplit_once("route-")?.1.parse().ok()?;
    (PublishedRoute::secret_name(uid) == secret).then_some(uid)
}

impl Source for Triggers {
    type Object = WorkflowTrigger;
    const KIND: &'static str = "WorkflowTrigger";

    fn apply(index: &mut Index, key: &Name, object: Option<WorkflowTrigger>) {
        match object.and_then(|object| Trigger::from_object(object, Timestamp::now())) {
            Some(trigger) => index.apply_trigger(trigger),
            None => Self::delete(index, key),
        }
    }

    fn delete(index: &mut Index, key: &Name) {
        index.delete_trigger(&key.0, &key.1);
    }

    fn retain(index: &mut Index, keys: &HashSet<Name>) {
        index.retain_triggers(keys);
    }
}

/// Follows one kind.
///
/// An object that cannot be decoded must not hold up the others, so each is decoded by itself.
async fn follow<S: Source>(
    apis: Vec<Api<DeserializeGuard<S::Object>>>,
    config: &watcher::Config,
    handle: &Handle,
    listed: tokio::sync::mpsc::Sender<()>,
) {
    let (mut seen, mut listed) = (HashSet::new(), Some(listed));
    let mut events = std::pin::pin!(crate::watch::watch(apis, config, S::KIND, handle.metrics()));
    while let Some(event) = events.next().await {
        match event {
            Event::Init => seen.clear(),
            Event::InitApply(object) => {
                seen.insert(name(&object));
                apply::<S>(handle, object).await;
            }
            Event::InitDone => {
                let keys = std::mem::take(&mut seen);
                update(handle, move |index| S::retain(index, &keys)).await;
                if let Some(first) = listed.take() {
                    let _ = first.send(()).await;
                }
            }
            Event::Apply(object) => apply::<S>(handle, object).await,
            Event::Delete(object) => update(handle, move |index| S::delete(index, &name(&object))).await,
        }
    }
    unreachable!("a watch has no end");
}

fn name<K: Resource>(object: &K) -> Name {
    (object.namespace().unwrap_or_default(), object.name_any())
}

async fn apply<S: Source>(handle: &Handle, object: DeserializeGuard<S::Object>) {
    update(handle, move |index| {
        let key = name(&object);
        let object = match object.0 {
            Ok(object) => Some(object),
            Err(invalid) => {
                warn!(kind = S::KIND, namespace = key.0, name = key.1, error = invalid.error, "cannot be decoded");
                None
            }
        };
        S::apply(index, &key, object);
    })
    .await;
}

/// Compiling may take milliseconds, and a plugin's change recompiles all triggers of its Subscriptions: not something to
/// do on a thread that accepts requests.
async fn update(handle: &Handle, change: impl FnOnce(&mut Index) + Send + 'static) {
    let handle = handle.clone();
    if tokio::task::spawn_blocking(move || handle.update(change)).await.is_err() {
        warn!("an object could not be taken into the routes");
    }
}
