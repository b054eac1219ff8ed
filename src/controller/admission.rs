//! Says at once, when somebody applies it, what the conditions would say of it a moment later.
//!
//! Nothing depends on it: the API server lets an object in if the controller does not answer, and then its conditions say
//! the same in the same words. So whatever cannot be decided is let in. Objects are read from the API server and not from
//! a cache, so that every replica can answer, whether it holds the Lease or not.

use super::slots::{self, Ledgers};
use super::subscription::{valid, wants_slot};
use super::workflow_trigger::plan as trigger_plan;
use super::{Failure, PluginState, Plugins};
use crate::api::{Subscription, TriggerPlugin, WorkflowTrigger, reason};
use crate::delivery::Runners;
use crate::telemetry::{Admitted, Metrics};
use crate::watch::Scope;
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

/// What is said of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Fine,
    /// It is let in, and whoever applied it reads this.
    Warned(String),
    /// It is not let in.
    Refused(String),
}

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

/// Judges a new Subscription by its plugin.
pub fn judge_subscription(subscription: &Subscription, plugin: &PluginState) -> Verdict {
    match valid::plugin(&subscription.spec.plugin_ref.name, plugin) {
        // The plugin may come later.
        Err(mistake) => Verdict::Warned(mistake.message),
        Ok(plugin) => match valid::events(&subscription.spec, plugin) {
            Ok(_) => Verdict::Fine,
            Err(mistake) => Verdict::Refused(mistake.message),
        },
    }
}

/// Judges a new Subscription by those that are there: who `holds` a slot, and who waits and so comes first.
pub fn judge_crowd(cap: u32, plugin: &str, namespace: &str, holders: &[&str], waiting: &[&str]) -> Verdict {
    let cap_reached = cap as usize;
    if holders.len() + waiting.len() < cap_reached {
        return Verdict::Fine;
    }
    // Those that were created a moment ago are not accepted yet, and will be.
    let free = cap_reached.saturating_sub(holders.len());
    let (accepted, behind) = waiting.split_at(free.min(waiting.len()));
    let mut message = slots::taken(cap, plugin, namespace, holders.iter().chain(accepted).copied());
    if !behind.is_empty() {
        message.push_str(&format!("; {} wait for one ({})", behind.len(), slots::list(behind)));
    }
    Verdict::Refused(format!("{message}; delete one of them first"))
}

/// Judges a WorkflowTrigger by what it refers to, as far as that is there.
///
/// Whether an event is subscribed is no reason to refuse it in a dry run, nor while the Subscription is being deleted:
/// pipelines try all objects before they apply any, so that a new Subscription with another event and its trigger could
/// never be applied together.
pub fn judge_trigger(
    trigger: &WorkflowTrigger,
    subscription: Option<&Subscription>,
    plugin: &PluginState,
    runners: &Runners,
    dry_run: bool,
) -> Verdict {
    let replaced = dry_run || subscription.is_some_and(|found| found.metadata.deletion_timestamp.is_some());
    let judged = trigger_plan::judge(trigger, subscription, plugin, runners);
    match judged.reason {
        reason::UNKNOWN_EVENT | reason::INVALID_PARAMETERS | reason::INVALID_FILTER => Verdict::Refused(judged.message),
        reason::EVENT_NOT_SUBSCRIBED if !replaced => Verdict::Refused(judged.message),
        reason::EVENT_NOT_SUBSCRIBED | reason::SUBSCRIPTION_NOT_FOUND | reason::RUNNER_NOT_ALLOWED => {
            Verdict::Warned(judged.message)
        }
        _ => match subscription.map(|found| valid::plugin(&found.spec.plugin_ref.name, plugin)) {
            Some(Err(mistake)) => Verdict::Warned(format!(
                "spec.subscriptionRef.name: the Subscription \"{}\" has no plugin yet, so event, parameters and filter \
                 were not checked: {}",
                trigger.spec.subscription_ref.name, mistake.message
            )),
            Some(Ok(_)) | None => Verdict::Fine,
        },
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::TriggerPluginSpec;
    use crate::plugin::Plugin;
    use serde_json::{Value, json};

    fn plugin() -> PluginState {
        let spec: TriggerPluginSpec = serde_json::from_value(json!({
            "displayName": "Forge",
            "allowedOrigins": ["https://forge.example"],
            "parameters": {"type": "object", "required": ["repository"], "properties": {"repository": {"type": "string"}}},
            "authorization": {"apiKey": {"keys": ["token"]}},
            "webhook": {"create": {
                "method": "POST", "url": "https://forge.example/hooks", "body": "{'url': callback.url}",
                "capture": {"id": "string(response.body.id)"},
            }, "delete": {"method": "DELETE", "url": "https://forge.example/hooks/{webhook.id}"}},
            "callback": {"verification": [{"token": {"header": "x-token"}}], "event": "request.headers['x-event']"},
            "events": [
                {"name": "push", "title": "Push",
                 "parameters": {"branch": {"schema": {"type": "string"}, "match": "value == body.ref"}},
                 "variables": {"ref": {"type": "string", "value": "body.ref"}}},
                {"name": "release", "title": "Release"},
            ],
        }))
        .unwrap();
        match Plugin::compile("forge", &spec) {
            Ok(plugin) => PluginState::Ready(Arc::new(plugin)),
            Err(mistakes) => panic!("{}", crate::plugin::join(&mistakes)),
        }
    }

    fn subscription(spec: Value) -> Subscription {
        let mut all = json!({
            "pluginRef": {"name": "forge"}, "parameters": {"repository": "web"},
            "authorization": {"apiKey": {"secretRef": {"name": "token"}}},
        });
        for (field, value) in spec.as_object().unwrap() {
            all[field] = value.clone();
        }
        let object = json!({
            "apiVersion": "bellhop.dev/v1alpha1", "kind": "Subscription",
            "metadata": {"name": "web", "namespace": "team-a"}, "spec": all,
        });
        serde_json::from_value(object).unwrap()
    }

    fn trigger(spec: Value) -> WorkflowTrigger {
        let mut all = json!({
            "subscriptionRef": {"name": "web"}, "event": "push", "workflow": "w",
            "runner": {"url": "https://runner.example/"},
        });
        for (field, value) in spec.as_object().unwrap() {
            all[field] = value.clone();
        }
        let object = json!({
            "apiVersion": "bellhop.dev/v1alpha1", "kind": "WorkflowTrigger",
            "metadata": {"name": "t", "namespace": "team-a"}, "spec": all,
        });
        serde_json::from_value(object).unwrap()
    }

    #[track_caller]
    fn assert_refused(verdict: &Verdict, words: &[&str]) {
        let Verdict::Refused(message) = verdict else { panic!("{verdict:?}") };
        for word in words {
            assert!(message.contains(word), "{word}: {message}");
        }
    }

    #[track_caller]
    fn assert_warned(verdict: &Verdict, words: &[&str]) {
        let Verdict::Warned(message) = verdict else { panic!("{verdict:?}") };
        for word in words {
            assert!(message.contains(word), "{word}: {message}");
        }
    }

    #[tokio::test]
    async fn every_answer_is_counted() {
        // An API server with nothing in it, and one that fails.
        let answering = |status: u16| {
            let service = tower::service_fn(move |_: http::Request<kube::client::Body>| async move {
                let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status,
                    "reason": if status == 404 { "NotFound" } else { "InternalError" }, "message": "no"});
                let response = http::Response::builder().status(status);
                let body = axum::body::Body::from(body.to_string());
                Ok::<_, std::convert::Infallible>(response.body(body).unwrap())
            });
            Client::new(service, "default")
        };
        let metrics = Metrics::new();
        let ask = async |status: u16, kind: &str, object: Value| {
            let runners = Runners::new("cluster.local", &[]).unwrap();
            let namespaces = Scope::new(&[]);
            let admission =
                Admission::new(answering(status), "bellhop-system", namespaces, runners, 10, metrics.clone());
            let review = json!({
                "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                "request": {
                    "uid": "1", "kind": {"group": "bellhop.dev", "version": "v1alpha1", "kind": kind},
                    "resource": {"group": "bellhop.dev", "version": "v1alpha1", "resource": "any"},
                    "operation": "CREATE", "namespace": "team-a", "name": "web", "userInfo": {}, "object": object,
                },
            });
            admission.review(serde_json::from_value(review).unwrap()).await
        };
        let new = serde_json::to_value(subscription(json!({}))).unwrap();
        ask(404, "Subscription", new.clone()).await;
        ask(500, "Subscription", new.clone()).await;
        ask(404, "Secret", new).await;
        let text = metrics.to_text();
        for (kind, outcome) in [("Subscription", "warned"), ("Subscription", "unjudged"), ("other", "allowed")] {
            let line = format!(r#"bellhop_admissions_total{{kind="{kind}",outcome="{outcome}"}} 1"#);
            assert!(text.contains(&line), "no {line} in {text}");
        }
    }

    #[test]
    fn a_subscription_is_judged_by_its_plugin() {
        let judge = |spec: Value| judge_subscription(&subscription(spec), &plugin());
        assert_eq!(judge(json!({})), Verdict::Fine);
        assert_refused(&judge(json!({"parameters": {"repo": "web"}})), &["spec.parameters.repo", "repository"]);
        assert_refused(&judge(json!({"events": ["pusch"]})), &["spec.events", "did you mean", "push"]);
        assert_eq!(judge(json!({"authorization": {"manual": {}}})), Verdict::Fine);
        assert_refused(
            &judge(json!({"authorization": {"oauth2": {}}})),
            &["spec.authorization.oauth2", "apiKey, manual"],
        );
        let missing = judge_subscription(&subscription(json!({})), &PluginState::NotFound);
        assert_warned(&missing, &["spec.pluginRef.name", "\"forge\""]);
        let broken = judge_subscription(&subscription(json!({})), &PluginState::Broken("it is wrong".into()));
        assert_warned(&broken, &["it is wrong"]);
    }

    #[test]
    fn the_eleventh_is_refused_with_a_count_and_names() {
        let names: Vec<String> = (0..12).map(|n| format!("s{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let judge = |holders: usize, waiting: usize| {
            judge_crowd(10, "forge", "team-a", &names[..holders], &names[holders..holders + waiting])
        };
        assert_eq!(judge(9, 0), Verdict::Fine);
        assert_eq!(judge(4, 5), Verdict::Fine);
        for (holders, waiting) in [(10, 0), (4, 6), (0, 10)] {
            let words = ["10 of 10 Subscriptions of the plugin \"forge\" in the namespace team-a", "(s0, s1,", "s9)"];
            assert_refused(&judge(holders, waiting), &words);
        }
        assert_refused(&judge(10, 2), &["s9); 2 wait for one (s10, s11); delete one"]);
        // The cap was lowered.
        assert_refused(&judge_crowd(2, "forge", "team-a", &names[..3], &[]), &["3 of 2 ", "(s0, s1, s2)"]);
    }

    #[test]
    fn a_trigger_is_judged_by_what_is_there() {
        let runners = Runners::new("cluster.local", &["https://runner.example".to_owned()]).unwrap();
        let there = subscription(json!({"events": ["push"]}));
        let judge = |spec: Value| judge_trigger(&trigger(spec), Some(&there), &plugin(), &runners, false);
        assert_eq!(judge(json!({"parameters": {"branch": "main"}, "filter": "variables.ref != ''"})), Verdict::Fine);
        assert_refused(&judge(json!({"event": "pusch"})), &["spec.event", "`pusch`", "did you mean `push`"]);
        let parameters = judge(json!({"parameters": {"brunch": "main"}}));
        assert_refused(&parameters, &["spec.parameters.brunch", "did you mean `branch`"]);
        assert_refused(&judge(json!({"filter": "variables.rev == ''"})), &["spec.filter", "ref"]);
        assert_refused(&judge(json!({"event": "release"})), &["spec.event", "not among the events", "push"]);
        let elsewhere = json!({"url": "https://other.example/"});
        assert_warned(&judge(json!({"runner": elsewhere})), &["https://other.example"]);
        // A mistake that is refused is not hidden behind one that is not.
        assert_refused(&judge(json!({"runner": elsewhere, "event": "pusch"})), &["spec.event"]);
    }

    #[test]
    fn what_is_not_there_yet_is_a_warning() {
        let runners = Runners::new("cluster.local", &["https://runner.example".to_owned()]).unwrap();
        let wrong = trigger(json!({"event": "pusch"}));
        let alone = judge_trigger(&wrong, None, &PluginState::NotFound, &runners, false);
        assert_warned(&alone, &["spec.subscriptionRef.name", "no Subscription \"web\""]);
        let there = subscription(json!({}));
        let without_plugin = judge_trigger(&wrong, Some(&there), &PluginState::NotFound, &runners, false);
        assert_warned(&without_plugin, &["spec.subscriptionRef.name", "\"web\"", "\"forge\""]);
    }

    #[test]
    fn a_subscription_that_is_replaced_does_not_hold_up_its_trigger() {
        let runners = Runners::new("cluster.local", &["https://runner.example".to_owned()]).unwrap();
        let mut there = subscription(json!({"events": ["push"]}));
        let other = trigger(json!({"event": "release"}));
        assert_warned(&judge_trigger(&other, Some(&there), &plugin(), &runners, true), &["not among the events"]);
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
        there.metadata.deletion_timestamp = Some(now);
        assert_warned(&judge_trigger(&other, Some(&there), &plugin(), &runners, false), &["not among the events"]);
        // What the plugin does not have is wrong for every Subscription.
        let unknown = trigger(json!({"event": "pusch"}));
        assert_refused(&judge_trigger(&unknown, Some(&there), &plugin(), &runners, true), &["spec.event"]);
    }

    #[test]
    fn an_update_that_leaves_the_spec_alone_is_not_judged() {
        let mut labelled = trigger(json!({}));
        labelled.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
        assert!(!is_news(&labelled, Some(&trigger(json!({})))));
        assert!(is_news(&labelled, Some(&trigger(json!({"event": "release"})))) && is_news(&labelled, None));
    }
}
