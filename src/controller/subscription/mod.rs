//! The controller of Subscriptions: resolve (reads) → plan (pure) → apply (writes) → status.

mod accept;
mod blocked;
mod calls;
mod delete;
mod desk;
mod memory;
mod oauth;
mod pass;
mod plan;
mod register;
mod secrets;
mod status;
#[cfg(test)]
mod tests;
mod times;
mod upkeep;
pub mod valid;

use super::cache::Cache;
use super::custody::{AUTHORIZATION_VERSION_ANNOTATION, SUBSCRIPTION_ANNOTATION};
use super::watch::{Changes, stream, touched};
use super::{Context, Failure, uid_of};
use crate::api::{CREDENTIALS_FOR_LABEL, FINALIZER, Subscription, TriggerPlugin, WorkflowTrigger, reason, type_};
use blocked::Outcome;
use futures::{StreamExt, TryFutureExt};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{self, finalizer};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{PredicateConfig, WatchStreamExt, watcher};
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

pub use accept::wants_slot;
pub use blocked::Blocked;
pub use delete::delete as delete_webhooks;
pub use delete::{ORPHANS, leftovers};
pub use memory::Memory;

/// Field manager of what this controller writes.
const FIELD_MANAGER: &str = "bellhop-subscription";
/// Subscriptions that are worked on at once.
const CONCURRENCY: u16 = 16;

/// The changes that the controller follows.
pub struct Followed {
    /// Its own kind.
    pub subscriptions: Changes<Subscription>,
    /// Its own kind once more, for those that wait behind the one that has changed.
    pub neighbours: Changes<Subscription>,
    /// What its Subscriptions refer to.
    pub plugins: Changes<TriggerPlugin>,
    /// What refers to its Subscriptions.
    pub triggers: Changes<WorkflowTrigger>,
    /// What is kept of them; others than this controller write there, too.
    pub custodies: Changes<PartialObjectMeta<Secret>>,
}

/// Runs the controller until `shutdown`.
pub async fn run(followed: Followed, context: Arc<Context>, shutdown: CancellationToken) {
    let labelled = watcher::Config::default().labels(CREDENTIALS_FOR_LABEL);
    let own_namespace = context.common.namespace.clone();
    // Plugins have their default clients in Bellhop's own namespace.
    let secrets: Vec<Api<PartialObjectMeta<Secret>>> =
        context.common.scope().with(&own_namespace).apis(&context.client);
    let secrets = crate::watch::watch(secrets, &labelled, "Secret", &context.metrics);
    let of_plugin = by_plugin(context.subscriptions.clone());
    let of_secret = by_secret(context.subscriptions.clone(), context.plugins.store().clone(), own_namespace);
    let next_in_line = waiting_behind(context.subscriptions.clone());
    Controller::for_stream(stream(followed.subscriptions), context.subscriptions.store().clone())
        .with_config(super::config(CONCURRENCY))
        .watches_stream(stream(followed.plugins), of_plugin)
        .watches_stream(stream(followed.triggers), of_trigger)
        .watches_stream(stream(followed.neighbours), next_in_line)
        .watches_stream(touched(secrets), of_secret)
        .watches_stream(written_by_others(followed.custodies), of_custody)
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(reconcile, |subscription, failure, context| context.requeue_failed(&*subscription, failure), context)
        .for_each(|_| std::future::ready(()))
        .await;
}

fn by_plugin(known: Cache<Subscription>) -> impl Fn(TriggerPlugin) -> Vec<ObjectRef<Subscription>> {
    move |plugin| {
        let name = plugin.name_any();
        refs(known.store().state_filter(|subscription| subscription.spec.plugin_ref.name == name))
    }
}

/// A Secret with the label is noticed by those that name it, those that it was made for, and those that wait for an OAuth
/// client: one of their workspace or, in Bellhop's `own_namespace`, the default one of their plugin.
fn by_secret(
    known: Cache<Subscription>,
    plugins: Store<TriggerPlugin>,
    own_namespace: String,
) -> impl Fn(PartialObjectMeta<Secret>) -> Vec<ObjectRef<Subscription>> {
    move |secret| {
        let name = secret.name_any();
        let owners: Vec<&str> = secret.owner_references().iter().map(|owner| &*owner.uid).collect();
        let plugin = secret.labels().get(CREDENTIALS_FOR_LABEL);
        let namespace = secret.namespace().unwrap_or_default();
        let mut woken = known.of_namespace(&namespace, |subscription| {
            let method = &subscription.spec.authorization;
            let named = [
                method.api_key.as_ref().map(|method| &method.secret_ref),
                method.manual.as_ref().and_then(|method| method.secret_ref.as_ref()),
                method.oauth2.as_ref().and_then(|method| method.client_secret_ref.as_ref()),
            ];
            let names = named.into_iter().flatten().any(|secret| secret.name == name);
            let owns = subscription.uid().is_some_and(|uid| owners.contains(&&*uid));
            let may_choose = method.oauth2.is_some() && plugin == Some(&subscription.spec.plugin_ref.name);
            names || owns || may_choose
        });
        if namespace == own_namespace {
            let plugins = with_default_client(&plugins, &name);
            let takes_default = |subscription: &Subscription| {
                let method = subscription.spec.authorization.oauth2.as_ref();
                method.is_some_and(|method| method.client_secret_ref.is_none())
                    && plugins.contains(&subscription.spec.plugin_ref.name)
            };
            if !plugins.is_empty() {
                woken.extend(known.store().state_filter(takes_default));
            }
        }
        refs(woken)
    }
}

/// The plugins whose default OAuth client is in the Secret of this name, whatever the Secret's label says: that it says
/// something else now is what their Subscriptions have to learn.
fn with_default_client(plugins: &Store<TriggerPlugin>, secret: &str) -> BTreeSet<String> {
    let found = plugins.state_filter(|plugin| {
        let oauth2 = plugin.spec.authorization.oauth2.as_ref();
        oauth2.and_then(|oauth2| oauth2.default_client.as_ref()).is_some_and(|client| client.secret_ref.name == secret)
    });
    found.iter().map(|plugin| plugin.name_any()).collect()
}

/// Custodies into which somebody else than the pass has written: a grant of OAuth, or a secret that an external system has
/// told.
fn written_by_others(
    custodies: Changes<PartialObjectMeta<Secret>>,
) -> impl futures::Stream<Item = Result<PartialObjectMeta<Secret>, watcher::Error>> + Send {
    let version = |custody: &PartialObjectMeta<Secret>| {
        let version = custody.annotations().get(AUTHORIZATION_VERSION_ANNOTATION)?;
        let mut hasher = DefaultHasher::new();
        version.hash(&mut hasher);
        Some(hasher.finish())
    };
    stream(custodies).predicate_filter(version, PredicateConfig::default())
}

fn of_custody(custody: PartialObjectMeta<Secret>) -> Option<ObjectRef<Subscription>> {
    let (namespace, name) = custody.annotations().get(SUBSCRIPTION_ANNOTATION)?.split_once('/')?;
    Some(ObjectRef::new(name).within(namespace))
}

/// When a Subscription changes or goes, those that wait for a slot beside it look again.
fn waiting_behind(known: Cache<Subscription>) -> impl Fn(Subscription) -> Vec<ObjectRef<Subscription>> {
    move |changed| {
        refs(known.of_namespace(&changed.namespace().unwrap_or_default(), |other| {
            other.spec.plugin_ref == changed.spec.plugin_ref
                && other.metadata.uid != changed.metadata.uid
                && waits_for_slot(other)
        }))
    }
}

fn waits_for_slot(subscription: &Subscription) -> bool {
    let conditions = subscription.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|condition| {
        condition.type_ == type_::ACCEPTED && condition.status == "False" && condition.reason == reason::QUOTA_EXCEEDED
    })
}

fn of_trigger(trigger: WorkflowTrigger) -> Option<ObjectRef<Subscription>> {
    Some(ObjectRef::new(&trigger.spec.subscription_ref.name).within(&trigger.namespace()?))
}

fn refs(subscriptions: Vec<Arc<Subscription>>) -> Vec<ObjectRef<Subscription>> {
    subscriptions.iter().map(|subscription| ObjectRef::from_obj(&**subscription)).collect()
}

async fn reconcile(subscription: Arc<Subscription>, context: Arc<Context>) -> Result<Action, Failure> {
    let api = Api::<Subscription>::namespaced(context.client.clone(), &subscription.namespace().unwrap_or_default());
    let pass = finalizer(&api, FINALIZER, subscription, |event| async {
        match event {
            finalizer::Event::Apply(subscription) => pass::keep(&context, &subscription).await,
            finalizer::Event::Cleanup(subscription) => remove(&context, &subscription).await,
        }
    });
    let pass = pass.map_err(|error| match error {
        finalizer::Error::ApplyFailed(failure) | finalizer::Error::CleanupFailed(failure) => failure,
        finalizer::Error::AddFinalizer(error) | finalizer::Error::RemoveFinalizer(error) => error.into(),
        error => Failure::Unreadable(error.to_string()),
    });
    context.pass("Subscription", pass).await
}

/// Removes everything that a deleted Subscription leaves, or says on it why that is not possible.
async fn remove(context: &Context, subscription: &Subscription) -> Result<Action, Failure> {
    let uid = uid_of(subscription)?;
    if let Some(stored) = context.vault.get(uid).await? {
        match delete::webhooks(context, subscription, stored.clone()).await {
            Ok(true) => {}
            // The finalizer stays, and the next pass goes on.
            Ok(false) => return Err(Failure::Unfinished),
            Err(failure) => {
                if let Failure::Blocked(blocked) = &failure {
                    let stored = context.vault.get(uid).await?.unwrap_or(stored);
                    let outcome = Outcome { blocked: Some((**blocked).clone()), ..Outcome::default() };
                    pass::write_status(context, subscription, Some(&stored.custody), &outcome).await?;
                    pass::announce(context, subscription, Some(blocked)).await;
                }
                return Err(failure);
            }
        }
    }
    let namespace = subscription.namespace().unwrap_or_default();
    leftovers(context, uid, &namespace, &subscription.spec.plugin_ref.name).await?;
    context.forget(uid);
    context.memory.forget(uid);
    Ok(Action::await_change())
}
