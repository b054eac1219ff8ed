//! The decisions about a Subscription, without a cluster, on simulated time.

mod acceptance;
mod life;
mod statuses;
mod steps;
mod wakes;

use super::blocked::{Blocked, Outcome};
use super::plan::{Given, Step, View, next};
use crate::api::{Subscription, TriggerPlugin};
use crate::controller::PluginState;
use crate::controller::authorization::AuthorizationRecord;
use crate::controller::custody::{Custody, SecretOrigin, WebhookRecord, WebhookState};
use crate::plugin::Plugin;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

const HOUR: i64 = 3_600_000;
const NOON: i64 = 1_800_000_000_000;

fn compile(spec: Value) -> PluginState {
    let resource: TriggerPlugin = serde_json::from_value(json!({
        "apiVersion": "bellhop.dev/v1alpha1", "kind": "TriggerPlugin", "metadata": {"name": "gitea"}, "spec": spec,
    }))
    .expect("a TriggerPlugin");
    PluginState::Ready(Arc::new(
        Plugin::compile("gitea", &resource.spec).unwrap_or_else(|mistakes| panic!("{mistakes:?}")),
    ))
}

fn gitea() -> PluginState {
    let yaml = include_str!("../../../../examples/gitea-push/plugin.yaml");
    let resource: TriggerPlugin = serde_saphyr::from_str(yaml).expect("the example is a TriggerPlugin");
    PluginState::Ready(Arc::new(Plugin::compile("gitea", &resource.spec).expect("the example compiles")))
}

/// A plugin of two events, with these calls besides a create call.
fn plugin_with(calls: Value) -> PluginState {
    let call = |method: &str| json!({"method": method, "url": "https://api.example.com/hooks"});
    let mut webhook = json!({"create": call("POST"), "delete": call("DELETE")});
    webhook["create"]["capture"] = json!({"id": "response.body.id"});
    webhook["create"]["body"] = json!("{'url': callback.url, 'secret': callback.secret}");
    for (name, value) in calls.as_object().expect("an object") {
        match webhook.get_mut(name) {
            Some(Value::Object(known)) => known.extend(value.as_object().expect("an object").clone()),
            _ => webhook[name] = value.clone(),
        }
    }
    compile(json!({
        "displayName": "Example",
        "allowedOrigins": ["https://api.example.com"],
        "authorization": {"apiKey": {"keys": ["token"]}},
        "webhook": webhook,
        "callback": {
            "verification": [{"hmac": {"header": "x-signature", "algorithm": "sha256", "encoding": "hex"}}],
            "event": "body.event",
        },
        "events": [{"name": "push", "title": "Push"}, {"name": "issues", "title": "Issues"}],
    }))
}

fn get(path: &str) -> Value {
    json!({"method": "GET", "url": format!("https://api.example.com/{path}")})
}

fn subscription(spec: Value) -> Subscription {
    serde_json::from_value(json!({
        "apiVersion": "bellhop.dev/v1alpha1", "kind": "Subscription",
        "metadata": {"name": "web", "namespace": "team-a", "generation": 1},
        "spec": spec,
    }))
    .expect("a Subscription")
}

fn good_spec() -> Value {
    json!({
        "pluginRef": {"name": "gitea"},
        "parameters": {"baseURL": "http://127.0.0.1:3000", "owner": "acme", "repository": "web"},
        "authorization": {"apiKey": {"secretRef": {"name": "token"}}},
    })
}

fn manual_spec(manual: Value) -> Value {
    let mut spec = good_spec();
    spec["authorization"] = json!({"manual": manual});
    spec
}

fn token() -> BTreeMap<String, String> {
    BTreeMap::from([("token".to_owned(), "t".to_owned())])
}

fn custody(subscription: &Subscription) -> Custody {
    Custody {
        uid: Uuid::nil(),
        namespace: "team-a".into(),
        name: "web".into(),
        accepted: subscription.spec.clone(),
        events: vec!["push".into(), "issues".into()],
        token: "token".into(),
        callback_secret: "secret".into(),
        secret_origin: SecretOrigin::Generated,
        secret_version: 0,
        previous_secrets: Vec::new(),
        rotated: None,
        credentials: BTreeMap::new(),
        account: None,
        authorization: AuthorizationRecord::default(),
        verified: None,
        setup: BTreeMap::new(),
        prepared: 0,
        webhooks: Vec::new(),
        repaired: None,
    }
}

fn record(attempt: u128, event: Option<&str>, state: WebhookState) -> WebhookRecord {
    WebhookRecord {
        attempt: Uuid::from_u128(attempt),
        state,
        created_at: NOON,
        renewed_at: NOON,
        ..WebhookRecord::creating(event.map(str::to_owned))
    }
}

fn registered(attempt: u128, event: Option<&str>) -> WebhookRecord {
    record(attempt, event, WebhookState::Registered { id: attempt.to_string() })
}

/// One Subscription and what is known of it.
struct Case {
    subscription: Subscription,
    plugin: PluginState,
    custody: Option<Custody>,
    given: Option<Given>,
    route_live: bool,
    handed_over: bool,
    looked: BTreeMap<Uuid, i64>,
    failed: BTreeSet<Option<String>>,
    drift_interval: Duration,
    now: i64,
}

impl Case {
    /// Accepted, live and authorized with an API key, with a plugin that has these calls.
    fn authorized(calls: Value) -> Self {
        let mut case = Self::new(plugin_with(calls), good_spec());
        case.custody = Some(Custody { credentials: token(), ..custody(&case.subscription) });
        case.given = Some(Ok(token()));
        case.route_live = true;
        case
    }

    fn new(plugin: PluginState, spec: Value) -> Self {
        Self {
            subscription: subscription(spec),
            plugin,
            custody: None,
            given: None,
            route_live: false,
            handed_over: false,
            looked: BTreeMap::new(),
            failed: BTreeSet::new(),
            drift_interval: Duration::ZERO,
            now: NOON,
        }
    }

    fn custody(&mut self) -> &mut Custody {
        self.custody.as_mut().expect("an accepted Subscription")
    }

    fn step(&self) -> Step {
        next(&View {
            subscription: &self.subscription,
            plugin: &self.plugin,
            custody: self.custody.as_ref(),
            given: self.given.as_ref(),
            route_live: self.route_live,
            handed_over: self.handed_over,
            link: "https://hooks.example.com/oauth/start/x",
            looked: &self.looked,
            started: NOON,
            failed: &self.failed,
            drift_interval: self.drift_interval,
            now: self.now,
        })
    }

    fn blocked(&self) -> Blocked {
        match self.step() {
            Step::Blocked(blocked) => blocked,
            step => panic!("{step:?} instead of a reason to wait"),
        }
    }

    fn annotate(&mut self, value: &str) {
        let annotations = self.subscription.metadata.annotations.get_or_insert_default();
        annotations.insert(crate::api::ROTATE_ANNOTATION.to_owned(), value.to_owned());
    }
}
