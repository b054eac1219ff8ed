//! The controller of WorkflowTriggers: says whether they will fire, and if not, why.

pub mod away;
pub mod leftovers;
pub mod plan;
mod secrets;
pub mod tally;

use super::again::jittered;
use super::cache::Cache;
use super::watch::{Changes, stream, touched};
use super::{Context, Failure, PluginState, Retry, uid_of};
use crate::api::{
    CREDENTIALS_FOR_LABEL, Conditions, Is, Listening, RunnerGone, Subscription, TriggerPlugin, WorkflowTrigger,
    WorkflowTriggerStatus, type_,
};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Field manager of what this controller writes.
const FIELD_MANAGER: &str = "bellhop-workflowtrigger";
/// WorkflowTriggers that are worked on at once.
const CONCURRENCY: u16 = 8;

/// How often it is looked whether objects can be made for a trigger. What a ServiceAccount may do can only be asked: to
/// follow it would take the right to read every role of the cluster. So its annotation is asked for with it, and not
/// followed by a right of its own; each event is held against both anyway.
const LOOK: Duration = Duration::from_secs(300);
/// The same, while something is missing.
const LOOK_SOON: Duration = Duration::from_secs(10);

/// The changes that the controller follows.
pub struct Followed {
    /// Its own kind.
    pub triggers: Changes<WorkflowTrigger>,
    /// What its WorkflowTriggers refer to.
    pub subscriptions: Changes<Subscription>,
    /// What those refer to.
    pub plugins: Changes<TriggerPlugin>,
    /// Where runners are.
    pub services: Changes<PartialObjectMeta<Service>>,
}

/// What of a WorkflowTrigger is worth a pass: everything but what is counted, and what the API server keeps about who has
/// written what.
pub fn worth_a_pass(trigger: &WorkflowTrigger) -> Vec<u8> {
    let mut relevant = trigger.clone();
    relevant.metadata.managed_fields = None;
    relevant.metadata.resource_version = None;
    if let Some(status) = &mut relevant.status {
        (status.counts, status.last_fired) = (None, None);
    }
    serde_json::to_vec(&relevant).unwrap_or_default()
}

/// Runs the controller until `shutdown`.
pub async fn run(followed: Followed, context: Arc<Context>, shutdown: CancellationToken) {
    // With whatever value: that a Secret is meant for others is told too.
    let labelled = watcher::Config::default().labels(CREDENTIALS_FOR_LABEL);
    let secrets: Vec<Api<PartialObjectMeta<Secret>>> = context.common.scope().apis(&context.client);
    let secrets = crate::watch::watch(secrets, &labelled, "Secret", &context.metrics);
    let of_secret = by_secret(context.triggers.clone());
    let of_service = by_service(context.triggers.clone());
    let of_subscription = by_subscription(context.triggers.clone());
    let of_plugin = by_plugin(context.triggers.clone(), context.subscriptions.clone());
    Controller::for_stream(stream(followed.triggers), context.triggers.store().clone())
        .with_config(super::config(CONCURRENCY))
        .watches_stream(stream(followed.subscriptions), of_subscription)
        .watches_stream(stream(followed.plugins), of_plugin)
        .watches_stream(touched(secrets), of_secret)
        .watches_stream(stream(followed.services), of_service)
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(reconcile, |trigger, failure, context| context.requeue_failed(&*trigger, failure), context)
        .for_each(|_| std::future::ready(()))
        .await;
}

fn by_subscription(known: Cache<WorkflowTrigger>) -> impl Fn(Subscription) -> Vec<ObjectRef<WorkflowTrigger>> {
    move |subscription| {
        let (namespace, name) = (subscription.namespace().unwrap_or_default(), subscription.name_any());
        let of_it = known.of_namespace(&namespace, |trigger| trigger.spec.subscription_ref.name == name);
        of_it.iter().map(|trigger| ObjectRef::from_obj(&**trigger)).collect()
    }
}

fn by_plugin(
    triggers: Cache<WorkflowTrigger>,
    subscriptions: Cache<Subscription>,
) -> impl Fn(TriggerPlugin) -> Vec<ObjectRef<WorkflowTrigger>> {
    move |plugin| {
        let name = plugin.name_any();
        let of_it = triggers.store().state_filter(|trigger| {
            let subscription = subscription_of(trigger, &subscriptions);
            subscription.is_some_and(|subscription| subscription.spec.plugin_ref.name == name)
        });
        of_it.iter().map(|trigger| ObjectRef::from_obj(&**trigger)).collect()
    }
}

fn by_secret(known: Cache<WorkflowTrigger>) -> impl Fn(PartialObjectMeta<Secret>) -> Vec<ObjectRef<WorkflowTrigger>> {
    move |secret| {
        let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
        let of_it = known.of_namespace(&namespace, |trigger| {
            let runner = &trigger.spec.runner;
            let credentials = runner.credentials.as_ref().map(|credentials| &credentials.secret_ref.name);
            let signature = runner.signature.as_ref().map(|signature| &signature.secret_ref.name);
            credentials.into_iter().chain(signature).any(|named| *named == name)
        });
        of_it.iter().map(|trigger| ObjectRef::from_obj(&**trigger)).collect()
    }
}

fn by_service(known: Cache<WorkflowTrigger>) -> impl Fn(PartialObjectMeta<Service>) -> Vec<ObjectRef<WorkflowTrigger>> {
    move |service| {
        let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
        let of_it = known.of_namespace(&namespace, |trigger| {
            trigger.spec.runner.service.as_ref().is_some_and(|service| service.name == name)
        });
        of_it.iter().map(|trigger| ObjectRef::from_obj(&**trigger)).collect()
    }
}

fn subscription_of(trigger: &WorkflowTrigger, known: &Cache<Subscription>) -> Option<Arc<Subscription>> {
    known.get(trigger.metadata.namespace.as_deref()?, &trigger.spec.subscription_ref.name)
}

async fn reconcile(trigger: Arc<WorkflowTrigger>, context: Arc<Context>) -> Result<Action, Failure> {
    context.pass("WorkflowTrigger", keep(&context, &trigger)).await
}

async fn keep(context: &Context, trigger: &WorkflowTrigger) -> Result<Action, Failure> {
    let subscription = subscription_of(trigger, &context.subscriptions);
    let plugin = match &subscription {
        Some(subscription) => context.plugins.get(&subscription.spec.plugin_ref.name),
        None => PluginState::NotFound,
    };
    let there = context.resources.look(trigger).await;
    let found = secrets::publish(context, trigger).await?.and_then(|()| {
        plan::service(trigger, |namespace, name| {
            let services = context.services();
            services.is_none_or(|services| services.get(namespace, name).is_some())
        })
    });
    let found = found.and(there);
    let (old, now) = (trigger.status.clone().unwrap_or_default(), Timestamp::now());
    // Kept when it is over, too: forgotten, the same annotation would begin another hour.
    let asked = Listening::of(trigger, old.listening.as_ref(), now);
    let listening = asked.clone().filter(|listening| listening.until.0 > now);
    let subscription = subscription.as_deref();
    let verdict = plan::judge(trigger, subscription, &plugin, &context.runners, &found, listening.as_ref());
    let mut conditions = Conditions::new(&old.conditions, trigger.metadata.generation, Time(now));
    let ready = if verdict.ready { Is::True } else { Is::False };
    conditions.set(type_::READY, ready, verdict.reason, verdict.message.clone());
    if verdict.stalled {
        conditions.set(type_::STALLED, Is::True, verdict.reason, verdict.message);
    }
    if let Some(away) = &old.runner_away {
        let (reason, message) = away::condition(away);
        conditions.set(type_::RUNNER_AWAY, Is::True, reason, message);
    }
    let end = listening.as_ref().map(|listening| Duration::try_from(listening.until.0.duration_since(now)));
    let status = WorkflowTriggerStatus {
        observed_generation: trigger.metadata.generation,
        conditions: conditions.finish(),
        listening: asked,
        ..WorkflowTriggerStatus::default()
    };
    if old.runner_gone.as_ref().is_some_and(|gone| *gone != RunnerGone::state_of(trigger)) {
        tally::forget_gone(context, trigger).await?;
    }
    // The rest of the status is written by others.
    let own = WorkflowTriggerStatus { last_fired: None, counts: None, runner_gone: None, runner_away: None, ..old };
    if own != status {
        let api = Api::<WorkflowTrigger>::namespaced(context.client.clone(), &trigger.namespace().unwrap_or_default());
        context.apply_status(FIELD_MANAGER, &api, trigger, &status).await?;
    }
    let again = trigger.spec.runner.resource.as_ref().map(|_| jittered(if found.is_ok() { LOOK } else { LOOK_SOON }));
    let next = [end.and_then(Result::ok), again].into_iter().flatten().min();
    Ok(context.requeue(uid_of(trigger)?, next.map(Retry::At)))
}
