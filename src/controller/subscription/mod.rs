//! The controller of Subscriptions: resolve (reads) → plan (pure) → apply (writes) → status.

mod apply;
mod calls;
mod delete;
mod plan;
mod status;
#[cfg(test)]
mod tests;
pub mod valid;

use super::watch::{Changes, stream, touched};
use super::{Context, Failure, PluginState, Retry, uid_of};

use crate::api::{
    CREDENTIALS_FOR_LABEL, FINALIZER, Is, Subscription, SubscriptionStatus, TriggerPlugin, WorkflowTrigger, reason,
    type_,
};
use futures::{StreamExt, TryFutureExt};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{self, finalizer};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub use apply::wants_slot;
pub use delete::delete as delete_webhook;
pub use delete::{ORPHANS, leftovers};

/// Field manager of what this controller writes.
const FIELD_MANAGER: &str = "bellhop-subscription";
/// Subscriptions that are worked on at once.
const CONCURRENCY: u16 = 16;

/// Why a Subscription cannot go on, in words for its conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The condition that says so.
    pub condition: &'static str,
    /// The condition's reason.
    pub reason: &'static str,
    /// The condition's message.
    pub message: String,
    /// Nothing will change until somebody changes something (kstatus `Stalled`).
    pub stalled: bool,
    /// Whether time alone can help: then the pass is repeated with growing pauses.
    pub retry: bool,
    /// The pause that the external system asks for.
    pub retry_after: Option<Duration>,
}

impl Blocked {
    /// Until a user acts on the Subscription or what it depends on.
    pub fn stalled(condition: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { condition, reason, message: message.into(), stalled: true, retry: false, retry_after: None }
    }

    /// Until something that is watched appears or changes; a GitOps pipeline may still be at it.
    pub fn waiting(condition: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { stalled: false, ..Self::stalled(condition, reason, message) }
    }

    /// Until it works.
    pub fn retrying(condition: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { stalled: false, retry: true, ..Self::stalled(condition, reason, message) }
    }
}

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
}

/// Runs the controller until `shutdown`.
pub async fn run(followed: Followed, context: Arc<Context>, shutdown: CancellationToken) {
    let labelled = watcher::Config::default().labels(CREDENTIALS_FOR_LABEL);
    let secrets: Vec<Api<PartialObjectMeta<Secret>>> = context.common.scope().apis(&context.client);
    let secrets = crate::watch::watch(secrets, &labelled, "Secret", &context.metrics);
    let of_plugin = by_plugin(context.subscriptions.clone(), context.plugins.store().clone());
    let of_secret = by_secret(context.subscriptions.clone());
    let next_in_line = waiting_behind(context.subscriptions.clone());
    Controller::for_stream(stream(followed.subscriptions), context.subscriptions.clone())
        .with_config(super::config(CONCURRENCY))
        .watches_stream(stream(followed.plugins), of_plugin)
        .watches_stream(stream(followed.triggers), of_trigger)
        .watches_stream(stream(followed.neighbours), next_in_line)
        .watches_stream(touched(secrets), of_secret)
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(reconcile, |subscription, failure, context| context.requeue_failed(&*subscription, failure), context)
        .for_each(|_| std::future::ready(()))
        .await;
}

/// A plugin is news if it has come, gone or changed its spec. Its status is not: it counts the Subscriptions, so that each
/// new one would wake all others, and those that fail would call their external system once more.
fn by_plugin(
    store: Store<Subscription>,
    plugins: Store<TriggerPlugin>,
) -> impl Fn(TriggerPlugin) -> Vec<ObjectRef<Subscription>> {
    let known = Mutex::new(HashMap::new());
    move |plugin| {
        let name = plugin.name_any();
        let now = plugins.get(&ObjectRef::new(&name)).map(|plugin| (plugin.uid(), plugin.metadata.generation));
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match now.clone() {
            Some(now) => known.insert(name.clone(), now),
            None => known.remove(&name),
        };
        if now.is_some() && now == before {
            return Vec::new();
        }
        refs(store.state_filter(|subscription| subscription.spec.plugin_ref.name == name))
    }
}

fn by_secret(store: Store<Subscription>) -> impl Fn(PartialObjectMeta<Secret>) -> Vec<ObjectRef<Subscription>> {
    move |secret| {
        refs(store.state_filter(|subscription| {
            let method = subscription.spec.authorization.api_key.as_ref();
            subscription.namespace() == secret.namespace()
                && method.is_some_and(|method| method.secret_ref.name == secret.name_any())
        }))
    }
}

/// When a Subscription changes or goes, those that wait for a slot beside it look again.
fn waiting_behind(store: Store<Subscription>) -> impl Fn(Subscription) -> Vec<ObjectRef<Subscription>> {
    move |changed| {
        refs(store.state_filter(|other| {
            other.namespace() == changed.namespace()
                && other.spec.plugin_ref == changed.spec.plugin_ref
                && other.uid() != changed.uid()
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
            finalizer::Event::Apply(subscription) => keep(&context, &subscription).await,
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

/// Takes a Subscription as far as it goes.
async fn keep(context: &Context, subscription: &Subscription) -> Result<Action, Failure> {
    let uid = uid_of(subscription)?;
    let mut stored = context.vault.get(uid).await?;
    let mut route_live = match &stored {
        Some(stored) => context.replicas.serve(&calls::route(&stored.custody)).await,
        None => false,
    };
    let blocked = loop {
        let name = &subscription.spec.plugin_ref.name;
        let plugin = context.plugins.get(name);
        let credentials = credentials(context, subscription, &plugin).await?;
        let custody = stored.as_ref().map(|stored| &stored.custody);
        let step = plan::next(subscription, &plugin, custody, credentials.as_ref(), route_live);
        let done = match (step, &plugin, &stored) {
            (plan::Step::Finished, _, _) => break None,
            (plan::Step::Blocked(blocked), _, _) => break Some(blocked),
            (plan::Step::Accept { events }, _, _) => match super::trigger_plugin::hold(context, name).await {
                Ok(()) => apply::accept(context, subscription, name, events).await.map(Some),
                Err(failure) => Err(failure),
            },
            (plan::Step::Publish, _, Some(now)) => apply::publish(context, &now.custody).await.map(|()| {
                route_live = true;
                stored.clone()
            }),
            (plan::Step::Authorize { credentials }, PluginState::Ready(plugin), Some(now)) => {
                apply::authorize(context, plugin, now, credentials).await.map(Some)
            }
            (plan::Step::Register, PluginState::Ready(plugin), Some(now)) => {
                apply::register(context, plugin, now).await.map(Some)
            }
            (step, _, _) => unreachable!("{step:?} is planned only for an accepted Subscription of a ready plugin"),
        };
        match done {
            Ok(next) => stored = next,
            Err(Failure::Blocked(blocked)) => {
                // The step may have stored something before it failed, such as that a create call was made.
                stored = context.vault.get(uid).await?;
                break Some(*blocked);
            }
            Err(failure) => return Err(failure),
        }
    };
    write_status(context, subscription, stored.as_ref().map(|stored| &stored.custody), blocked.as_ref()).await?;
    announce(context, subscription, blocked.as_ref()).await;
    Ok(context.requeue(uid, blocked.map(|blocked| Retry::from(&blocked))))
}

async fn credentials(
    context: &Context,
    subscription: &Subscription,
    plugin: &PluginState,
) -> Result<Option<plan::Credentials>, Failure> {
    let (PluginState::Ready(plugin), Some(method)) = (plugin, &subscription.spec.authorization.api_key) else {
        return Ok(None);
    };
    let namespace = subscription.namespace().unwrap_or_default();
    match apply::read_credentials(context, &namespace, &method.secret_ref.name, plugin).await {
        Ok(credentials) => Ok(Some(Ok(credentials))),
        Err(Failure::Blocked(blocked)) => Ok(Some(Err(*blocked))),
        Err(failure) => Err(failure),
    }
}

/// Removes everything that a deleted Subscription leaves, or says on it why that is not possible.
async fn remove(context: &Context, subscription: &Subscription) -> Result<Action, Failure> {
    let uid = uid_of(subscription)?;
    if let Some(stored) = context.vault.get(uid).await?
        && let Err(failure) = delete::webhook(context, subscription, &stored.custody).await
    {
        if let Failure::Blocked(blocked) = &failure {
            write_status(context, subscription, Some(&stored.custody), Some(blocked)).await?;
            announce(context, subscription, Some(blocked)).await;
        }
        return Err(failure);
    }
    let namespace = subscription.namespace().unwrap_or_default();
    leftovers(context, uid, &namespace, &subscription.spec.plugin_ref.name).await?;
    context.forget(uid);
    Ok(Action::await_change())
}

async fn write_status(
    context: &Context,
    subscription: &Subscription,
    custody: Option<&super::custody::Custody>,
    blocked: Option<&Blocked>,
) -> Result<(), Failure> {
    let triggers = context.triggers.state_filter(|trigger| {
        trigger.namespace() == subscription.namespace() && trigger.spec.subscription_ref.name == subscription.name_any()
    });
    let next = status::status(
        subscription,
        custody,
        blocked,
        custody.map(|custody| calls::callback_url(context, custody)),
        status::workflow_count(&triggers),
        Time(Timestamp::now()),
    );
    // When the last request came is written by somebody else, with a field manager of its own.
    let before = subscription.status.clone().map(|status| SubscriptionStatus { last_request_time: None, ..status });
    if before.as_ref() == Some(&next) {
        return Ok(());
    }
    let api = Api::<Subscription>::namespaced(context.client.clone(), &subscription.namespace().unwrap_or_default());
    context.apply_status(FIELD_MANAGER, &api, subscription, &next).await
}

/// Publishes an event when Ready flips or its reason changes, and at no other time.
async fn announce(context: &Context, subscription: &Subscription, blocked: Option<&Blocked>) {
    let before = subscription.status.iter().flat_map(|status| &status.conditions).find(|c| c.type_ == type_::READY);
    match (blocked, before) {
        (None, Some(before)) if before.status == Is::True.as_str() => {}
        (None, _) => context.tell(subscription, reason::READY, "the webhook is registered; events are received").await,
        (Some(blocked), Some(before)) if before.reason == blocked.reason => {}
        (Some(blocked), _) if blocked.reason == reason::PLUGIN_NOT_READY => {}
        (Some(blocked), _) => context.warn(subscription, blocked.reason, blocked.message.clone()).await,
    }
}

impl From<&Blocked> for Retry {
    fn from(blocked: &Blocked) -> Self {
        match (blocked.retry_after, blocked.retry) {
            (Some(after), _) => Retry::After(after),
            (None, true) => Retry::Backoff,
            // What a person has to mend in the external system is not watched; what is watched wakes the pass anyway.
            (None, false) if blocked.reason == reason::CREDENTIALS_REFUSED => Retry::Slow,
            (None, false) => Retry::OnChange,
        }
    }
}
