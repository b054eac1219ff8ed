//! Says at once, when somebody applies it, what the conditions would say of it a moment later.
//!
//! Nothing depends on it: the API server lets an object in if the controller does not answer, and then its conditions say
//! the same in the same words. So whatever cannot be decided is let in. Objects are read from the API server and not from
//! a cache, so that every replica can answer, whether it holds the Lease or not.

mod judge;
#[cfg(test)]
mod tests;

pub use judge::Verdict;

use super::slots::Ledgers;
use super::subscription::wants_slot;
use super::{Failure, PluginState, Plugins};
use crate::api::{Subscription, TriggerPlugin, WorkflowTrigger};
use crate::delivery::Runners;
use crate::telemetry::{Admitted, Metrics};
use crate::watch::Scope;
use judge::{judge_crowd, judge_subscription, judge_trigger};
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation};
use kube::runtime::reflector;
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// How long an answer may take; the API server waits five seconds.
const PATIENCE: Duration = Duration::from_secs(4);
/// Answers that are worked out at the same time; further questions wait.
pub const AT_ONCE: usize = 16;

/// Answers the API server's questions.
pub struct Admission {
    client: Client,
    ledgers: Ledgers,
    scope: Scope,
    runners: Runners,
    cap: u32,
    compiled: Arc<Plugins>,
    metrics: Metrics,
    turns: Semaphore,
}

impl Admission {
    /// `namespace` is that of the ledgers, `cap` the most Subscriptions of one plugin in one namespace.
    pub fn new(client: Client, namespace: &str, scope: Scope, runners: Runners, cap: u32, metrics: Metrics) -> Self {
        Self {
            ledgers: Ledgers::new(client.clone(), namespace),
            // Compiles what it is given; there is nothing in the store.
            compiled: Arc::new(Plugins::new(reflector::store().0)),
            turns: Semaphore::new(AT_ONCE),
            client,
            scope,
            runners,
            cap,
            metrics,
        }
    }

    /// Waits until it is somebody's turn; a body is read only then, which bounds the memory of all.
    pub async fn turn(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.turns.acquire().await.expect("it is never closed")
    }

    /// Answers one question.
    pub async fn review(&self, review: AdmissionReview<DynamicObject>) -> AdmissionReview<DynamicObject> {
        let Ok(request): Result<AdmissionRequest<DynamicObject>, _> = review.try_into() else {
            return AdmissionResponse::invalid("request: is missing").into_review();
        };
        let judged = tokio::time::timeout(PATIENCE, self.judge(&request)).await;
        let outcome = match &judged {
            Ok(Ok(Verdict::Fine)) => Admitted::Allowed,
            Ok(Ok(Verdict::Warned(_))) => Admitted::Warned,
            Ok(Ok(Verdict::Refused(_))) => Admitted::Refused,
            Ok(Err(_)) | Err(_) => Admitted::Unjudged,
        };
        self.metrics.admission(kind(&request.kind.kind), outcome);
        let verdict = match judged {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(failure)) => {
                tracing::warn!(error = %failure, "an object could not be checked at admission");
                Verdict::Warned("Bellhop could not check this now; its conditions will tell".to_owned())
            }
            Err(_) => Verdict::Warned("Bellhop could not check this in time; its conditions will tell".to_owned()),
        };
        answer(&request, verdict).into_review()
    }

    async fn judge(&self, request: &AdmissionRequest<DynamicObject>) -> Result<Verdict, Failure> {
        let namespace = request.namespace.as_deref().unwrap_or_default();
        if request.sub_resource.is_some() || !self.scope.contains(namespace) {
            return Ok(Verdict::Fine);
        }
        match (request.kind.kind.as_str(), &request.operation) {
            ("Subscription", Operation::Create) => match parse(request.object.as_ref()) {
                Some(subscription) => self.subscription(namespace, subscription).await,
                None => Ok(Verdict::Fine),
            },
            ("WorkflowTrigger", Operation::Create | Operation::Update) => match parse(request.object.as_ref()) {
                Some(trigger) if is_news(&trigger, parse(request.old_object.as_ref()).as_ref()) => {
                    self.trigger(namespace, trigger, request.dry_run).await
                }
                _ => Ok(Verdict::Fine),
            },
            _ => Ok(Verdict::Fine),
        }
    }

    async fn subscription(&self, namespace: &str, subscription: Subscription) -> Result<Verdict, Failure> {
        let plugin = self.plugin(&subscription.spec.plugin_ref.name).await?;
        let verdict = judge_subscription(&subscription, &plugin);
        if verdict != Verdict::Fine {
            return Ok(verdict);
        }
        let name = &subscription.spec.plugin_ref.name;
        let ledger = self.ledgers.get(namespace, name).await?;
        let api = Api::<Subscription>::namespaced(self.client.clone(), namespace);
        let others = api.list(&ListParams::default().fields(&format!("spec.pluginRef.name={name}"))).await?;
        let waits = |other: &&Subscription| {
            let uid = other.uid().and_then(|uid| uid.parse().ok()).unwrap_or_default();
            wants_slot(other) && !ledger.holders.contains_key(&uid)
        };
        let waiting: Vec<String> = others.items.iter().filter(waits).map(ResourceExt::name_any).collect();
        let holders: Vec<&str> = ledger.holders.values().map(String::as_str).collect();
        let waiting: Vec<&str> = waiting.iter().map(String::as_str).collect();
        let own = subscription.metadata.name.as_deref();
        if holders.iter().chain(&waiting).any(|name| Some(*name) == own) {
            // It is there already, which the API server says itself.
            return Ok(Verdict::Fine);
        }
        Ok(judge_crowd(self.cap, name, namespace, &holders, &waiting))
    }

    async fn trigger(&self, namespace: &str, trigger: WorkflowTrigger, dry_run: bool) -> Result<Verdict, Failure> {
        let api = Api::<Subscription>::namespaced(self.client.clone(), namespace);
        let subscription = api.get_opt(&trigger.spec.subscription_ref.name).await?;
        let plugin = match &subscription {
            Some(subscription) => self.plugin(&subscription.spec.plugin_ref.name).await?,
            None => PluginState::NotFound,
        };
        let runners = self.runners.clone();
        // A filter is compiled, which may take milliseconds.
        let judged = tokio::task::spawn_blocking(move || {
            judge_trigger(&trigger, subscription.as_ref(), &plugin, &runners, dry_run)
        });
        Ok(judged.await.unwrap_or(Verdict::Fine))
    }

    async fn plugin(&self, name: &str) -> Result<PluginState, Failure> {
        let Some(resource) = Api::<TriggerPlugin>::all(self.client.clone()).get_opt(name).await? else {
            return Ok(PluginState::NotFound);
        };
        let compiled = self.compiled.clone();
        let state = tokio::task::spawn_blocking(move || match compiled.compile(&resource) {
            Ok(plugin) => PluginState::Ready(plugin),
            Err(mistakes) => PluginState::Broken(crate::plugin::join(&mistakes)),
        });
        Ok(state.await.unwrap_or(PluginState::NotFound))
    }
}

/// A kind as a label. Whoever asks can name any.
fn kind(asked: &str) -> &'static str {
    ["Subscription", "WorkflowTrigger"].into_iter().find(|kind| *kind == asked).unwrap_or("other")
}

/// Reads an object; the API server has compared it with the schema, so one that cannot be read is of another version.
fn parse<K: Resource + DeserializeOwned>(object: Option<&DynamicObject>) -> Option<K> {
    object.and_then(|object| object.clone().try_parse().ok())
}

/// An update that leaves the spec alone is never refused: it may be what takes the object away, such as a finalizer.
fn is_news(trigger: &WorkflowTrigger, before: Option<&WorkflowTrigger>) -> bool {
    trigger.meta().deletion_timestamp.is_none() && before.is_none_or(|before| before.spec != trigger.spec)
}

fn answer(request: &AdmissionRequest<DynamicObject>, verdict: Verdict) -> AdmissionResponse {
    let mut response = AdmissionResponse::from(request);
    match verdict {
        Verdict::Fine => {}
        Verdict::Warned(message) => response.warnings = Some(vec![message]),
        Verdict::Refused(message) => {
            tracing::debug!(namespace = request.namespace, name = request.name, message, "refused at admission");
            response = response.deny(message);
            // And not 422: tools that replace what cannot be changed take that for a reason to delete the object.
            response.result.code = 403;
            response.result.reason = "Forbidden".to_owned();
        }
    }
    response
}
