//! Runners that are the cluster: an object is made for each event, under the rights of a ServiceAccount of the workspace.
//!
//! The ingress, which holds no credentials, asks for it. It says which trigger and which event, and nothing of what is said
//! is believed but what an expression may see: the manifest, the ServiceAccount and the namespace are read in the trigger,
//! by its UID, from the API server. Every replica answers, whether it holds the Lease or not.
//!
//! | What is found | Answer |
//! |---|---|
//! | not switched on; the trigger is gone; its manifest or an expression does not work | `Never` |
//! | the ServiceAccount is missing, does not allow it, or Bellhop may not use it; no such kind | `NotYet` |
//! | the API server has made the object, or it is there from an earlier attempt | `Made` |
//! | the API server refuses | `Refused`, with its words |
//! | the API server does not answer | 503: the attempt had no answer |

mod account;
mod kinds;
mod outcome;

use super::listener::read;
use super::workflow_trigger::plan::Missing;
use crate::api::{ResourceAnswer, ResourceEvent, ResourceRunner, WorkflowTrigger, reason};
use crate::plugin::{Facts, ObjectIdentity, Outgoing, Rendered, join};
use crate::turns::in_turn;
use crate::watch::Scope;
use account::Account;
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::{Method, StatusCode};
use kinds::Kinds;
use kube::api::Api;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// The largest question, in bytes: an event's variables, most of all.
const MAX_QUESTION: usize = 1024 * 1024;
/// The longest time for one object; the ingress waits 30 seconds.
const PATIENCE: Duration = Duration::from_secs(25);
/// Objects that are made at the same time; further questions wait, unread.
const AT_ONCE: usize = 16;
/// Objects whose expressions are evaluated at the same time.
const RENDERED: usize = 2;

/// What makes the objects. Clones are the same.
#[derive(Clone)]
pub struct Resources(Arc<Inner>);

struct Inner {
    client: Client,
    scope: Scope,
    switched_on: bool,
    kinds: Kinds,
    turns: Semaphore,
    /// Of expressions that are evaluated, [`RENDERED`] objects at a time.
    rendering: Arc<Semaphore>,
}

/// Why there is no object.
enum Refusal {
    /// What the ingress is told.
    Answer(ResourceAnswer),
    /// The API server has not answered.
    Failed(kube::Error),
}

impl From<kube::Error> for Refusal {
    fn from(error: kube::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Missing> for Refusal {
    fn from(missing: Missing) -> Self {
        Self::Answer(ResourceAnswer::NotYet { reason: missing.message })
    }
}

fn never(reason: impl Into<String>) -> Refusal {
    Refusal::Answer(ResourceAnswer::Never { reason: reason.into() })
}

/// What an ingress asks here.
pub fn router(resources: Resources) -> Router {
    Router::new().route(ResourceEvent::PATH, post(async move |body: Body| resources.answer(body).await))
}

impl Resources {
    /// Makes objects in the namespaces of `scope`, if the administrator has `switched_on` that.
    pub fn new(client: Client, scope: Scope, switched_on: bool) -> Self {
        let kinds = Kinds::new(client.clone());
        let (turns, rendering) = (Semaphore::new(AT_ONCE), Arc::new(Semaphore::new(RENDERED)));
        Self(Arc::new(Inner { client, scope, switched_on, kinds, turns, rendering }))
    }

    async fn answer(&self, body: Body) -> Response {
        let Ok(_turn) = self.0.turns.acquire().await else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
        let event = match read::<ResourceEvent>(body, MAX_QUESTION).await {
            Ok(event) => event,
            Err(refusal) => return refusal,
        };
        let failed = match tokio::time::timeout(PATIENCE, self.create(&event)).await {
            Ok(Ok(before)) => return axum::Json(ResourceAnswer::Made { before }).into_response(),
            Ok(Err(Refusal::Answer(answer))) => return axum::Json(answer).into_response(),
            Ok(Err(Refusal::Failed(error))) => error.to_string(),
            Err(_) => format!("no answer within {PATIENCE:?}"),
        };
        tracing::warn!(?event, error = failed, "an object could not be made");
        (StatusCode::SERVICE_UNAVAILABLE, format!("the API server: {failed}\n")).into_response()
    }

    /// Makes the object for an event; true if it was there already.
    async fn create(&self, event: &ResourceEvent) -> Result<bool, Refusal> {
        if !self.0.switched_on {
            return Err(never(crate::delivery::RunnerError::ResourcesOff.to_string()));
        }
        let trigger = self.trigger(event).await?;
        let gone = "the trigger has another runner by now; the next attempt goes there";
        let resource = trigger.spec.runner.resource.clone();
        let resource = resource.ok_or_else(|| Refusal::Answer(ResourceAnswer::NotYet { reason: gone.to_owned() }))?;
        let identity = ObjectIdentity {
            namespace: &event.namespace,
            trigger: &event.trigger,
            uid: event.trigger_uid,
            event: event.id,
        };
        let object = identity.complete(self.rendered(trigger, event.clone()).await?).map_err(never)?;
        let account = self.account(&event.namespace, &resource).await?;
        let path = self.path(&event.namespace, &resource).await?;
        let made = account.ask(Method::POST, &path, Some(&object)).await?;
        if made.is_success() {
            return Ok(false);
        }
        if !made.already_exists() {
            return Err(Refusal::Answer(made.refused()));
        }
        // From an earlier attempt, most likely. Who may make such objects need not be the one who has made this one.
        let there = account.ask(Method::GET, &format!("{path}/{}", identity.name()), None).await?;
        outcome::there(&identity, &there).map_err(Refusal::Answer)
    }

    /// The trigger as it is now.
    async fn trigger(&self, event: &ResourceEvent) -> Result<WorkflowTrigger, Refusal> {
        // They become parts of a path.
        if !is_name(&event.namespace) || !is_name(&event.trigger) || !self.0.scope.contains(&event.namespace) {
            return Err(never("the trigger's namespace is none of those that are looked after"));
        }
        let api = Api::<WorkflowTrigger>::namespaced(self.0.client.clone(), &event.namespace);
        let uid = event.trigger_uid.to_string();
        let found = api.get_opt(&event.trigger).await?.filter(|trigger| trigger.uid().as_ref() == Some(&uid));
        found.ok_or_else(|| never("the trigger was deleted"))
    }

    /// The object for an event, without its name. In a thread of its own, because expressions take their time.
    async fn rendered(&self, trigger: WorkflowTrigger, event: ResourceEvent) -> Result<Value, Refusal> {
        let rendered = in_turn(&self.0.rendering, move || render(&trigger, &event)).await;
        let rendered =
            rendered.unwrap_or_else(|_| Err("the object cannot be made: a defect, which was logged".to_owned()));
        rendered.map_err(never)
    }

    /// The ServiceAccount of a runner, if it may be used.
    async fn account(&self, namespace: &str, resource: &ResourceRunner) -> Result<Account, Missing> {
        Account::of(&self.0.client, namespace, &resource.service_account_name).await
    }

    /// The path under which objects of the runner's kind are made.
    async fn path(&self, namespace: &str, resource: &ResourceRunner) -> Result<String, Missing> {
        let text = |field: &str| resource.manifest.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let kind = self.0.kinds.get(&text("apiVersion"), &text("kind")).await?;
        Ok(kind.path(namespace))
    }

    /// Looks whether objects could be made for a trigger now. Nothing is made.
    ///
    /// # Errors
    /// What is missing, that somebody else has to put there.
    pub async fn look(&self, trigger: &WorkflowTrigger) -> Result<(), Missing> {
        let (Some(resource), Some(namespace)) = (&trigger.spec.runner.resource, trigger.namespace()) else {
            return Ok(());
        };
        // Mistakes are told before anything that is missing.
        if !self.0.switched_on || Outgoing::compile(&trigger.spec.runner, None).is_err() {
            return Ok(());
        }
        let account = self.account(&namespace, resource).await?;
        let text = |field: &str| resource.manifest.get(field).and_then(Value::as_str).unwrap_or_default();
        let kind = self.0.kinds.get(text("apiVersion"), text("kind")).await?;
        let question = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {
                "verb": "create", "group": kind.group, "resource": kind.plural, "namespace": namespace,
            }},
        });
        let asked = account.ask(Method::POST, account::REVIEWS, Some(&question)).await;
        let may = asked.ok().filter(account::Answer::is_success).and_then(|answer| answer.json());
        // Where it cannot be asked, the first event tells.
        match may.is_none_or(|review| review["status"]["allowed"] != false) {
            true => Ok(()),
            false => {
                let message = format!(
                    "spec.runner.resource.serviceAccountName: the ServiceAccount \"{}\" has no right to create {} in the \
                     namespace {namespace}; give it a Role with the verbs create and get",
                    resource.service_account_name,
                    kind.full_name()
                );
                Err(Missing { reason: reason::RUNNER_NOT_ALLOWED, message })
            }
        }
    }
}

/// Whether this can be the name of an object or of a namespace, and so be a segment of a path.
fn is_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    text.len() <= 253 && text.bytes().all(inner) && outer(text.as_bytes().first()) && outer(text.as_bytes().last())
}

/// The object for an event, without its name.
fn render(trigger: &WorkflowTrigger, event: &ResourceEvent) -> Result<Value, String> {
    let outgoing = Outgoing::compile(&trigger.spec.runner, None).map_err(|mistakes| join(&mistakes))?;
    let facts = Facts {
        variables: &event.variables,
        id: event.id,
        event: &event.event,
        item: event.item,
        type_: &event.type_,
        time: &event.time,
        namespace: &event.namespace,
        subscription: &event.subscription,
        plugin: &event.plugin,
        trigger: &event.trigger,
        workflow: &event.workflow,
        attempt: event.attempt,
    };
    match outgoing.render(&facts, &BTreeMap::new()).map_err(|error| error.to_string())? {
        Rendered::Object(object) => Ok(object),
        Rendered::Event(..) | Rendered::Request(..) => Err("the runner is none of the cluster".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_segment() {
        for name in ["team-a", "review.v2", "a", "0"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "..", ".", "a/b", "a%2Fb", "a?x", "Team", "-a", "a-", "a b", "é", &"a".repeat(254)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
